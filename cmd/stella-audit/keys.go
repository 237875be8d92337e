package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// parseKey reads one public key in PEM, of a log (Ed25519) or of a site (ECDSA P-256), and gives its SPKI.
func parseKey(raw []byte, isLog bool) []byte {
	block, rest := pem.Decode(raw)
	demand(block != nil && block.Type == "PUBLIC KEY" && len(bytes.TrimSpace(rest)) == 0, "not one PUBLIC KEY in PEM")
	key := try(x509.ParsePKIXPublicKey(block.Bytes))
	_, ed := key.(ed25519.PublicKey)
	ec, _ := key.(*ecdsa.PublicKey)
	demand(isLog && ed || !isLog && ec != nil && ec.Curve == elliptic.P256(), "the key of a log is Ed25519, that of a site ECDSA P-256")
	return try(x509.MarshalPKIXPublicKey(key))
}

// verify says whether a key, given as SPKI, has made a signature. P-384 is for publishers alone.
func verify(spki, message, signature []byte) bool {
	key, _ := x509.ParsePKIXPublicKey(spki)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	case *ecdsa.PublicKey:
		short, long := sha256.Sum256(message), sha512.Sum384(message)
		return k.Curve == elliptic.P256() && ecdsa.VerifyASN1(k, short[:], signature) || k.Curve == elliptic.P384() && ecdsa.VerifyASN1(k, long[:], signature)
	}
	return false
}

// checkSignature is part 6, SHA256SUMS.sigstore.json: all of it but the signature follows from sums and key, and is
// compared. The key is the one inside; whether that is the auditor's is for the check keys to say.
func (a *audit) checkSignature() {
	sums, file := a.read("SHA256SUMS", maxManifest), a.read("SHA256SUMS.sigstore.json", maxSmall)
	a.siteIn = parseKey(a.read("keys/site.pub", maxSmall), false)
	signature, sum, id := unbase64(text(decode(file, ""), "messageSignature.signature")), sha256.Sum256(sums), sha256.Sum256(a.siteIn)
	want := object{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": object{"publicKey": object{"hint": id[:]}},
		"messageSignature": object{"messageDigest": object{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": signature}}
	demand(bytes.Equal(file, encode(want)) && verify(a.siteIn, sums, signature), "keys/site.pub has not signed SHA256SUMS, or not in the one accepted form")
}

// checkCheckpoint is part 5, checkpoint, by the key inside.
func (a *audit) checkCheckpoint() {
	a.logIn = parseKey(a.read("keys/log.pub", maxSmall), true)
	a.note = parseNote(a.read("ledger/checkpoint.note", maxSmall))
	demand(len(a.note.lines) == 1 && a.note.origin == text(a.manifest, "origin") && a.note.size == uint64(a.size) && fmt.Sprintf("%x", a.note.root) == text(a.manifest, "ledger.root"),
		"it is not one signature over the origin, size and root of the manifest")
	demand(a.note.signedBy(a.logIn), "keys/log.pub has not signed it")
}

// checkKeys is part 6, keys/: in one form, and those of the auditor. The archive is signed by them, as was checked.
func (a *audit) checkKeys() {
	for name, spki := range map[string][]byte{"keys/log.pub": a.logIn, "keys/site.pub": a.siteIn} {
		form := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
		demand(bytes.Equal(a.read(name, maxSmall), form), "%s is not in the one accepted form", name)
	}
	stopIf(a.logKey != nil && !bytes.Equal(a.logKey, a.logIn), "failed", unauthenticated, "keys/log.pub is another key than the one given")
	stopIf(a.siteKey != nil && !bytes.Equal(a.siteKey, a.siteIn), "failed", unauthenticated, "keys/site.pub is another key than the one given")
	stopIf(a.logKey == nil || a.siteKey == nil, "missing", unauthenticated, "anybody can make such keys: give --log-key and --site-key")
}

// note is a tree head in a C2SP signed note (part 5, checkpoint).
type note struct {
	text, origin string // text is three lines, each with its line feed
	size         uint64
	root         []byte
	lines        []named
}

// named is a signature in a note, or the key of a witness: somebody outside the site who signs tree heads (part 5).
type named struct {
	name    string
	id, raw []byte
}

func parseNote(raw []byte) *note {
	text, tail, _ := strings.Cut(string(raw), "\n\n")
	head := strings.Split(text, "\n")
	demand(len(head) == 3 && strings.HasSuffix(tail, "\n") && len(raw) <= 128<<10, "no signed tree head: three lines, an empty one, signatures")
	n := &note{text + "\n", head[0], try(strconv.ParseUint(head[1], 10, 53)), unbase64(head[2]), nil}
	demand(strconv.FormatUint(n.size, 10) == head[1] && len(n.root) == 32, "size or root of the tree are malformed")
	for line := range strings.Lines(tail) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "— ")
		name, b64, _ := strings.Cut(rest, " ")
		sig := unbase64(b64)
		demand(ok && len(sig) > 4, "no line of a signature: %.100q", line)
		n.lines = append(n.lines, named{name, sig[:4], sig[4:]})
	}
	return n
}

// keyID is what a note calls a key: algorithm 1 is Ed25519, 4 cosignature/v1.
func keyID(name string, algorithm byte, key []byte) []byte {
	sum := sha256.Sum256(append(append([]byte(name), '\n', algorithm), key...))
	return sum[:4]
}

// signedBy looks for the signature of a log: its name is the origin. An SPKI of Ed25519 ends with the key.
func (n *note) signedBy(spki []byte) bool {
	return slices.ContainsFunc(n.lines, func(l named) bool {
		return l.name == n.origin && bytes.Equal(l.id, keyID(n.origin, 1, spki[len(spki)-32:])) && verify(spki, []byte(n.text), l.raw)
	})
}

// parseWitness reads NAME+ID+BASE64.
func parseWitness(raw []byte) named {
	name, rest, _ := strings.Cut(strings.TrimSpace(string(raw)), "+")
	id, b64, _ := strings.Cut(rest, "+")
	key, ok := bytes.CutPrefix(unbase64(b64), []byte{4})
	demand(ok && len(key) == 32 && name != "" && id == fmt.Sprintf("%x", keyID(name, 4, key)), "not the public key of a witness")
	return named{name, keyID(name, 4, key), key}
}

// cosignedBy says whether w has signed n; a signature of his must verify.
func (n *note) cosignedBy(w named) bool {
	return slices.ContainsFunc(n.lines, func(l named) bool {
		mine := l.name == w.name && bytes.Equal(l.id, w.id)
		ok := mine && len(l.raw) == 8+64 && ed25519.Verify(w.raw, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(l.raw), n.text), l.raw[8:])
		demand(ok || !mine, "the cosignature of %q does not verify", w.name)
		return mine
	})
}

func hashes(list []any) (out [][]byte) {
	for _, item := range list {
		s, _ := item.(string)
		demand(isDigest(s), "%.100q is no hash", s)
		out = append(out, try(hex.DecodeString(s)))
	}
	return out
}

// checkVerdicts judges bundles that were let in again, as far as keys go (parts 1 and 2): as many signers as the policy
// demands are keys that it names for the publisher, their sealed signatures are over the sealed manifest, and nothing of
// it was revoked by then. Not judged: certificates, timestamps, logs, attestations, and the time for which a key is valid.
func (a *audit) checkVerdicts() {
	left := 0
	for e := range a.entries() {
		if e.typ == "bundle.admitted" && e.data != nil && !a.verdictHolds(e.data) {
			left++
		}
	}
	stopIf(left > 0, "not judged", verified, "%d bundles were let in by certificates, timestamps or withheld evidence; the others hold", left)
}

// verdictHolds demands that a verdict holds, or says that this cannot be told here.
func (a *audit) verdictHolds(data any) bool {
	publisher, file, digest := text(data, "verdict.publisher"), "verdict.trust.policy", text(data, "verdict.digest")
	if text(data, "verdict.kind") == "trust" { // signed by the roles of root.toml
		publisher, file = "root.toml", "verdict.trust.root"
	}
	for _, m := range naming["bundle.admitted"] {
		for _, sum := range list(data, m) {
			if s, ok := sum.(string); ok && a.members[evidence+s] == nil {
				return false // it is withheld
			}
		}
	}
	sealed := func(digest string) string { return string(a.read(evidence+digest, maxSmall)) }
	manifest, trusted, revocations := sealed(digest), sealed(text(data, file)), ""
	if sum := text(data, "verdict.trust.revocations"); sum != "" {
		revocations = sealed(sum)
	}
	taken := map[string]bool{} // what had been revoked by then
	for _, part := range strings.Split(revocations, "\n[[revoke]]")[1:] {
		if memberOf(part, "from") <= text(data, "verdict.now") {
			taken[memberOf(part, "key")], taken[memberOf(part, "manifest")] = true, true
			blob := memberOf(part, "blob")
			demand(blob == "" || !strings.Contains(manifest, `"`+blob+`"`), "%s: a file of it was revoked", digest)
		}
	}
	demand(!taken[digest], "%s was revoked", digest)
	keys, demanded := keysOf(trusted, publisher)
	threshold := number(data, "verdict.threshold")
	demand(threshold > 0 && (publisher == "root.toml" || fmt.Sprint(threshold) == demanded), "%s: its threshold is %d, and the policy demands %q", digest, threshold, demanded)
	good, unjudged := map[string]bool{}, 0
	for _, signer := range list(data, "verdict.signers") {
		id, signature := text(signer, "id"), text(signer, "file")
		demand(text(signer, "publisher") == publisher && slices.Contains(list(data, "signatures"), any(signature)), "%s: signer %.64q is of somebody else, or did not sign what came in", digest, id)
		if text(signer, "flow") != "key" || taken[id] && text(data, "verdict.trustedTime") != "" {
			unjudged++
			continue
		}
		demand(keys[id] != nil && !taken[id], "%s: the key %.64q of %q is not in the trust files, or was revoked", digest, id, publisher)
		made := unbase64(text(decode([]byte(sealed(signature)), ""), "messageSignature.signature"))
		demand(verify(keys[id], []byte(manifest), made), "%s: the signature by %s is not over the manifest", digest, id)
		good[id] = true
	}
	demand(int64(len(good)+unjudged) >= threshold, "%s: %d signers, and the threshold is %d", digest, len(good)+unjudged, threshold)
	return unjudged == 0
}

// memberOf finds a member of a table in TOML that stands alone in its line. This is no TOML parser: it reads
// files as stella and most people write them. A key that is written otherwise is not found, and what needs it fails.
func memberOf(table, name string) string {
	line := regexp.MustCompile(`(?m)^\s*` + name + `\s*=\s*"?[^"#\s]*`).FindString(table)
	return strings.Trim(line[strings.IndexByte(line, '=')+1:], "\" ")
}

// keysOf finds the keys of a publisher in policy.toml, by the SHA-256 of their SPKI, and his threshold; of
// root.toml all keys. Those of attesters come behind, in tables of publisher.require.
func keysOf(trusted, publisher string) (keys map[string][]byte, threshold string) {
	keys = map[string][]byte{}
	for _, part := range strings.Split(trusted, "\n[[publisher]]") {
		if publisher != "root.toml" && memberOf(part, "name") != publisher {
			continue
		}
		threshold = memberOf(part, "threshold")
		own := regexp.MustCompile(`\n\s*\[+publisher\.require`).Split(strings.ReplaceAll(part, `\n`, "\n"), 2)[0]
		for _, text := range regexp.MustCompile(`-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----`).FindAllString(own, -1) {
			if block, _ := pem.Decode([]byte(text)); block != nil {
				keys[digest(block.Bytes)] = block.Bytes
			}
		}
	}
	return keys, threshold
}
