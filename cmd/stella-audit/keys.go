package main

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"github.com/BurntSushi/toml"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseKey reads one public key in PEM, of a log (Ed25519) or of a site (ECDSA P-256), and gives its SPKI.
func parseKey(raw []byte, isLog bool) []byte {
	block, rest := pem.Decode(raw)
	demand(block != nil && block.Type == "PUBLIC KEY" && len(bytes.TrimSpace(rest)) == 0, "not one PUBLIC KEY in PEM")
	key := try(x509.ParsePKIXPublicKey(block.Bytes))
	_, ed := key.(ed25519.PublicKey)
	ec, _ := key.(*ecdsa.PublicKey)
	demand(isLog && ed || !isLog && ec != nil && ec.Params().BitSize == 256, "the key of a log is Ed25519, that of a site ECDSA P-256")
	return try(x509.MarshalPKIXPublicKey(key))
}

// verify says whether a key, given as SPKI, has made a signature. P-384 is for publishers alone.
func verify(spki, message, signature []byte) bool {
	key, _ := x509.ParsePKIXPublicKey(spki)
	ed, _ := key.(ed25519.PublicKey)
	ec, _ := key.(*ecdsa.PublicKey)
	short, long := sha256.Sum256(message), sha512.Sum384(message)
	return ed != nil && ed25519.Verify(ed, message, signature) ||
		ec != nil && (ec.Params().BitSize == 256 && ecdsa.VerifyASN1(ec, short[:], signature) || ec.Params().BitSize == 384 && ecdsa.VerifyASN1(ec, long[:], signature))
}

// checkSignature is part 6, SHA256SUMS.sigstore.json: all of it but the signature follows from sums and key, and is compared. The key is the one inside; whether that is the auditor's is for the check keys to say.
func (a *audit) checkSignature() {
	sums, file := a.read("SHA256SUMS", maxManifest), a.read("SHA256SUMS.sigstore.json", maxSmall)
	a.siteIn = parseKey(a.read("keys/site.pub", maxSmall), false)
	signature, sum, id := unbase64(text(decode(file, maxSmall, ""), "messageSignature.signature")), sha256.Sum256(sums), sha256.Sum256(a.siteIn)
	want := object{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": object{"publicKey": object{"hint": id[:]}},
		"messageSignature": object{"messageDigest": object{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": signature}}
	demand(bytes.Equal(file, encode(want)) && verify(a.siteIn, sums, signature), "keys/site.pub has not signed SHA256SUMS, or not in the one accepted form")
}

// checkCheckpoint is part 5, checkpoint, by the key inside.
func (a *audit) checkCheckpoint() {
	a.logIn = parseKey(a.read("keys/log.pub", maxSmall), true)
	a.note = parseNote(a.read("ledger/checkpoint.note", maxSmall))
	demand(len(a.note.lines) == 1 && a.note.origin == text(a.manifest, "origin") && a.note.size == a.size && fmt.Sprintf("%x", a.note.root) == text(a.manifest, "ledger.root"), "not one signature over origin, size and root of the manifest")
	demand(a.note.signedBy(a.logIn), "keys/log.pub has not signed it")
}

// checkKeys is part 6, keys/: in one form, and those of the auditor. The archive is signed by them, as was checked.
func (a *audit) checkKeys() {
	for i, k := range [][2][]byte{{a.logIn, a.logKey}, {a.siteIn, a.siteKey}} {
		demand(bytes.Equal(a.read(fixed[4+i], maxSmall), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k[0]})), "%s is not in the one accepted form", fixed[4+i])
		stopIf(k[1] != nil && !bytes.Equal(k[0], k[1]), "failed", unauthenticated, "%s is another key than the one given", fixed[4+i])
	}
	stopIf(a.logKey == nil || a.siteKey == nil, "missing", unauthenticated, "anybody can make such keys: give --log-key and --site-key")
}

// note is a tree head in a C2SP signed note (part 5, checkpoint).
type note struct {
	text, origin string // text is three lines, each with its line feed
	size         int64
	root         []byte
	lines        []named
}

// named is a signature in a note, or the key of a witness: somebody outside the site who signs tree heads (part 5).
type named struct {
	name, id string
	raw      []byte
}

func parseNote(raw []byte) note {
	text, tail, _ := strings.Cut(string(raw), "\n\n")
	head := strings.Split(text, "\n")
	demand(len(head) == 3 && strings.HasSuffix(tail, "\n") && strings.Count(tail, "\n") <= 100 && len(raw) <= 128<<10, "no signed tree head: three lines, an empty one, at most 100 signatures")
	demand(!strings.ContainsFunc(string(raw), func(c rune) bool { return c < ' ' && c != '\n' }) && strings.ToValidUTF8(string(raw), "") == string(raw), "it has controls, or is not UTF-8")
	n := note{text + "\n", head[0], try(strconv.ParseInt(head[1], 10, 54)), unbase64(head[2]), nil}
	demand(n.size > 0 && strconv.FormatInt(n.size, 10) == head[1] && len(n.root) == 32 && siteOf(n.origin) != "", "size or root of the tree are malformed")
	for line := range strings.Lines(tail) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "— ")
		name, b64, _ := strings.Cut(rest, " ")
		sig := unbase64(b64)
		demand(ok && len(sig) > 4 && strings.Count(tail, line) == 1 && name == strings.Join(strings.Fields(name), "") && name != "" && !strings.Contains(name, "+"), "no line of a signature, or there twice: %.100q", line)
		n.lines = append(n.lines, named{name, fmt.Sprintf("%x", sig[:4]), sig[4:]})
	}
	log := n.lines[0]
	demand(log.name == n.origin && len(log.raw) == 64 && !slices.ContainsFunc(n.lines[1:], func(l named) bool { return l.name == log.name && l.id == log.id }), "the log's own signature is not the first, or there are two")
	return n
}

// keyID is what a note calls a key, which begins with its algorithm: 1 is Ed25519, 4 cosignature/v1.
func keyID(name, key string) string { return digest([]byte(name + "\n" + key))[:8] }

// signedBy is about the signature of a log, the first, whose name is the origin. An SPKI of Ed25519 ends with the key.
func (n note) signedBy(spki []byte) bool {
	return n.lines[0].id == keyID(n.origin, "\x01"+string(spki[len(spki)-32:])) && verify(spki, []byte(n.text), n.lines[0].raw)
}

// cosignedBy says when w has signed n, 0 for never; a signature of his must verify.
func (n note) cosignedBy(w named) (at int64) {
	for _, l := range n.lines {
		if l.name == w.name && l.id == w.id {
			demand(len(l.raw) == 8+64, "the cosignature of %q is malformed", w.name)
			at = try(strconv.ParseInt(fmt.Sprintf("%x", l.raw[:8]), 16, 64))
			demand(0 < at && at < 1<<53 && ed25519.Verify(w.raw, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, n.text), l.raw[8:]), "the cosignature of %q does not verify", w.name)
			return at
		}
	}
	return 0
}

func hashes(list []any) (out [][]byte) {
	for i, item := range list {
		out = append(out, nil)
		demand(isDigest(fmt.Sprint(item)), "%.100q is no hash", item)
		try(fmt.Sscanf(fmt.Sprint(item), "%x", &out[i]))
	}
	return out
}

// trustFiles are what a change puts in force, each signed by a role of the first: with the members for their serials, in the entry and in the file.
var trustFiles = [][3]string{{"root", "rootVersion", "version"}, {"policy", "policySerial", "serial"}, {"revocations", "revocationSerial", "serial"}}

// checkTrust is part 7, trust. It goes on from the archive before. Not looked for: how long an extension lasts, what else a site asks of trust files.
func (a *audit) checkTrust() {
	a.inForce, a.extended = map[string][]byte{}, map[string]bool{"": true, "?": a.first > 0} // ? is of those that nothing here names
	if b := a.before; b != nil && b.inForce != nil && b.worst != failed && b.first+b.count == a.first {
		a.firstRoot, a.inForce, a.hidden, a.lacks, a.mustName, a.extended, a.known, a.genesis = b.firstRoot, b.inForce, b.hidden, b.lacks, b.mustName, b.extended, b.known, cmp.Or(a.genesis, b.genesis)
	}
	for e := range a.entries() {
		found := outcome(func() {
			stopIf(e.typ == "bundle.admitted" && a.firstRoot == "", "left out", verified, "admissions come before the first change of trust files")
			if judge := map[string]func(entry){"trust.changed": a.trustChanges, "trust.extended": a.trustExtends}[e.typ]; judge != nil {
				judge(e)
			}
		})
		demand(found.status != "failed", "entry %d: %s", e.seq, found.text)
		a.lacks = cmp.Or(a.lacks, found.text)
	}
	lacks, why := a.lacks != "" || a.firstRoot == "", cmp.Or(a.lacks, "no entry of the window puts trust files in force")
	stopIf(lacks && a.lacks == "" && a.root != "" && text(a.genesis, "root") == a.root, "ok", verified, "no trust files came in force so far, and entry 0 names the root given")
	stopIf(a.root == "" && lacks, "not judged", verified, "%s", why)
	stopIf(a.root == "", "ok", verified, "without --expect-root the root %s is the site's own word", a.firstRoot)
	stopIf(a.firstRoot != "" && a.firstRoot != a.root && a.genesis != nil, "failed", unauthenticated, "the trust files begin with the root %s, another than the one given", a.firstRoot)
	stopIf(a.firstRoot != a.root && a.firstRoot != "", "missing", incomplete, "the window begins with the root %s: whether that follows from the one given, only archives from before show", a.firstRoot)
	stopIf(lacks, "missing", incomplete, "%s", why)
}

// trustChanges demands that what comes in force is what the entry names, newer than what was, and signed by the roles: a root by that of the root before, too.
func (a *audit) trustChanges(e entry) {
	unsure, gap, by, now := a.hidden, false, revocations(a.inForce["revocations"]), fmt.Sprint(trustIn(e.data), list(e.data, "signatures"))
	stopIf(now == a.judged && !unsure, "ok", verified, "") // it was in force already
	a.hidden, a.judged = true, now                         // hidden until all of it was judged
	stopIf(e.data == nil, "left out", verified, "data of a change is withheld")
	demand(a.genesis == nil || a.firstRoot != "" || unsure || text(a.genesis, "root") == text(e.data, "root") && text(a.genesis, "policy") == text(e.data, "policy"), "entry 0 names another root or policy")
	for _, t := range trustFiles {
		is, was := a.sealed(text(e.data, t[0])), a.inForce[t[0]]
		n, before := number(parseTOML(is), t[2]), number(parseTOML(was), t[2])
		demand(text(parseTOML(is), "schema") == "stella."+t[0]+"/1" || is == nil && t[0] == "revocations", "%s is no such file", t[0])
		demand(n == number(e.data, t[1]) && (n > before || bytes.Equal(is, was)), "%s of serial %d follows serial %d, and %d is named", t[0], n, before, number(e.data, t[1]))
		gap = gap || t[0] == "root" && was != nil && n > before+1
		demand(unsure || !gap, "root %d was passed over", before+1)
		a.inForce[t[0]] = is
		gone := map[bool]map[string]string{false: by}[unsure || bytes.Equal(is, was)] // what was in force before was signed before
		if t[0] == "root" && was != nil && n == before+1 {
			a.signedBy(e, was, "root", is, gone)
		}
		a.signedBy(e, a.inForce["root"], strings.TrimSuffix(t[0], "s"), is, gone)
	}
	demand(text(parseTOML(a.inForce["policy"]), "trusted_root_sha256") == text(e.data, "trustedRoot"), "the policy names another trusted root")
	a.hidden, a.firstRoot = false, cmp.Or(a.firstRoot, text(e.data, "root"))
	stopIf(gap, "left out", verified, "roots before one are withheld")
}

// trustExtends demands the same of an extension.
func (a *audit) trustExtends(e entry) {
	stopIf(e.data == nil || a.inForce["root"] == nil || a.hidden, "left out", verified, "an extension, or the trust that it extends, is not known")
	x, last := a.extension(text(e.data, "file"), a.inForce["root"]), parseTOML(a.inForce["extension"])
	for _, name := range strings.Fields("serial root policy until") {
		demand(fmt.Sprint(list(e.data, name)) == fmt.Sprint(list(x, name)), "%s is %.200q, and in the file %.200q", name, list(e.data, name), list(x, name))
	}
	demand(number(x, "serial") > number(last, "serial") || text(x, "root") != text(last, "root"), "the one before has the serial %d", number(last, "serial"))
	a.inForce["extension"] = a.sealed(text(e.data, "file"))
	a.signedBy(e, a.inForce["root"], "break_glass", a.inForce["extension"], revocations(a.inForce["revocations"]))
}

// revocations give from when on somebody or something is revoked: each the first time, behind a =, which stands alone for all times.
func revocations(file []byte) map[string]string {
	by := map[string]string{}
	for _, r := range list(parseTOML(file), "revoke") {
		name, from := text(r, "key")+text(r, "manifest")+text(r, "blob")+text(r, "issuer")+text(r, "san"), "="+text(r, "from")
		demand(name != "" && (list(r, "from") == nil || !parseTime(from[1:]).IsZero()), "malformed revocations")
		by[name] = min(from, cmp.Or(by[name], from))
	}
	return by
}

// extension reads an extension of a root, which says how long one lasts.
func (a *audit) extension(sum string, root []byte) any {
	x := parseTOML(a.sealed(sum))
	demand(text(x, "schema") == "stella.extension/1" && text(x, "site_id") == a.site && text(x, "root") == digest(root), "it is no extension, or of another site or root")
	demand(parseTime(text(x, "until")).Sub(parseTime(text(x, "issued"))) <= try(time.ParseDuration(text(parseTOML(root), "max_extension"))), "it lasts longer than the root allows")
	return x
}

// revoked says whether somebody or something is, for all times or from one on that is not after at.
func revoked(by map[string]string, what, at string) bool { return cmp.Or(by[what], "none") <= "="+at }

// signedBy demands that as many keys of a role in a root as must have signed a file, if there is one, by signatures that the entry names. Where that hangs on a revocation which began meanwhile, it cannot be told.
func (a *audit) signedBy(e entry, root []byte, role string, file []byte, by map[string]string) {
	table, signed, last := the[any](parseTOML(root), "roles."+role), map[string]bool{}, ""
	keys, must, short, long := keysOf(table), max(number(table, "threshold"), 1), sha256.Sum256(file), sha512.Sum384(file)
	maps.DeleteFunc(keys, func(id string, _ []byte) bool { return revoked(by, id, e.earliest) })
	for _, s := range list(e.data, "signatures") {
		demand(fmt.Sprint(s) > last, "its signatures are not in their order, or one is there twice")
		last = fmt.Sprint(s)
		s := a.signature(last)
		if id := s[0]; keys[id] != nil && !signed[id] && (s[1] == string(short[:]) || s[1] == string(long[:])) {
			signed[id] = verify(keys[id], file, []byte(s[2]))
			demand(signed[id] && len(signed) <= 16, "the signature of %.64q does not verify, or is one of more than 16", id)
		}
	}
	demand(file == nil || int64(len(signed)) >= must, "%d keys of the role %s have signed its file", len(signed), role)
	maps.DeleteFunc(signed, func(id string, _ bool) bool { return revoked(by, id, e.time) })
	a.lacks = cmp.Or(a.lacks, map[bool]string{true: "a revocation began while files were signed"}[file != nil && int64(len(signed)) < must])
}

// signature gives of a sealed signature (part 1) which key it names, what digest it is over, and itself; of certificates, log entries and timestamps nothing. Entries name the same ones again and again: they are read once.
func (a *audit) signature(sum string) []string {
	if signatures[sum] == nil {
		o := decode(a.sealed(sum), maxSignature, "")
		by, is, members := the[object](o, "verificationMaterial"), the[object](o, "messageSignature"), "mediaType verificationMaterial messageSignature"
		demand(has(o, members) && has(by, "publicKey certificate tlogEntries timestampVerificationData") && has(is, "messageDigest signature") && len(by)*len(is) > 0, "%.64q is no signature", sum)
		maps.DeleteFunc(signatures, func(string, []string) bool { return len(signatures) >= 4096 })
		signatures[sum] = []string{fmt.Sprintf("%x", unbase64(text(by, "publicKey.hint"))), string(unbase64(text(is, "messageDigest.digest"))), string(unbase64(text(is, "signature")))}
	}
	return signatures[sum]
}

// checkVerdicts judges again what was let in, as far as keys go (parts 1, 2, 7). What part 7 leaves to "export verify", as certificates and attestations, is not judged. What was left out is counted, and makes no verdict worse.
func (a *audit) checkVerdicts() {
	all, left := 0, map[string]int{}
	for e := range a.entries() {
		switch e.typ {
		case "trust.changed":
			if a.mustName = trustIn(e.data); e.data != nil {
				a.follows(e.data)
			}
			a.known = cmp.Or(a.known, any(object{})) // one that is withheld has been
		case "trust.extended":
			a.extended[cmp.Or(text(e.data, "file"), "?")] = true
		case "bundle.admitted":
			found := outcome(func() { a.verdictHolds(e) })
			demand(found.status != "failed", "the verdict of entry %d does not hold: %s", e.seq, found.text)
			all++
			left[found.text]++
		}
	}
	judged := left[""]
	delete(left, "")
	stopIf(len(left) > 0, "not judged", verified, "%d of %d were judged by keys; why the others were not: %s", judged, all, strings.TrimPrefix(fmt.Sprint(left), "map"))
	stopIf(all > 0, "ok", verified, "%d of %d were judged by keys", judged, all)
}

// trustIn is what an entry says of trust files, "" where it is withheld: all but an extension, signatures and why.
func trustIn(v any) string {
	return strings.Trim(fmt.Sprint(list(v, "root"), list(v, "rootVersion"), list(v, "policy"), list(v, "policySerial"), list(v, "revocations"), list(v, "revocationSerial"), list(v, "trustedRoot")), "[] ")
}

// follows demands that trust files, whoever names them, have the versions and serials that he says, and are not older than those that were named before.
func (a *audit) follows(is any) {
	for _, t := range trustFiles {
		sum, n, before := text(is, t[0]), number(is, t[1]), number(a.known, t[1])
		demand(n > before || n == before && sum == text(a.known, t[0]) || list(a.known, "root") == nil, "%s of serial %d is named behind serial %d", t[0], n, before)
		demand(sum != "" && a.members[evidence+sum] == nil || n == number(parseTOML(a.sealed(sum)), t[2]), "%s has another serial than %d", t[0], n)
	}
	a.known = is
}

// verdictHolds demands that a verdict holds; why that cannot be told here ends it as "left out".
func (a *audit) verdictHolds(e entry) {
	// why[true] is what cannot be told of it, said once all else was judged.
	v, now, trust, extension, why := the[any](e.data, "verdict"), text(e.data, "verdict.now"), trustIn(the[any](e.data, "verdict.trust")), text(e.data, "verdict.trust.extension"), map[bool]string{}
	stopIf(e.data == nil, "left out", verified, "verdict withheld")
	if a.mustName == "" { // no entry says what was in force: the first verdict does
		demand(a.known != nil || a.genesis == nil || text(a.genesis, "root") == text(v, "trust.root") && text(a.genesis, "policy") == text(v, "trust.policy"), "entry 0 names another root or policy, and none came in force since")
		a.mustName = trust
		a.follows(the[any](v, "trust"))
	}
	demand(trust == a.mustName, "it is by other trust files than those in force")
	demand(a.extended[extension] || a.extended["?"], "it names an extension that was never in force")
	demand(text(v, "trust.root") != "" && text(v, "trust.policy") != "", "it names no root or no policy")
	why[!a.extended[extension]] = "extension from before the window, or withheld"
	demand(extension == "" || list(parseTOML(a.sealed(text(v, "trust.root"))), "roles.break_glass") != nil, "it names an extension, and the root has no break_glass role")
	if a.members[evidence+extension] != nil {
		a.extension(extension, a.sealed(text(v, "trust.root")))
	}
	why[e.earliest == ""] = "clock withheld"
	demand((e.earliest == "" || !parseTime(now).Before(parseTime(e.earliest))) && !parseTime(now).After(parseTime(e.time).Add(24*time.Hour)), "its clock said %s at %s", now, e.time)
	by, m := revocations(a.sealed(text(v, "trust.revocations"))), parseTOML(a.sealed(text(v, "digest")))
	notRevoked := func(what string, timed bool) { // a trusted time may excuse a signature: that is not judged here
		demand(!revoked(by, what, now) || timed && !revoked(by, what, ""), "%.200q was revoked", what)
		why[revoked(by, what, e.time)] = "revoked between its clock and the entry, or after a trusted time"
	}
	for _, name := range strings.Fields("publisher name version kind sequence") {
		demand(fmt.Sprint(list(v, name)) == fmt.Sprint(list(m, name)), "%s is %.200q, and in the manifest %.200q", name, list(v, name), list(m, name))
	}
	for _, what := range append(list(m, "file.sha256"), text(v, "digest")) {
		notRevoked(fmt.Sprint(what), false)
	}
	demand(cmp.Or(text(m, "expires"), "~") > now && text(m, "not_before") <= now, "the manifest is not valid yet, or has expired")
	a.signersHold(e, v, m, func(who string) { notRevoked(who, text(v, "trustedTime") != "") })
	stopIf(why[true] != "", "left out", verified, "%s", why[true])
}

// signersHold demands that the publisher may publish this, that as many have signed as must, and that each may.
func (a *audit) signersHold(e entry, v, m any, notRevoked func(who string)) {
	publisher, manifest, most, judged := text(v, "publisher"), a.sealed(text(v, "digest")), int64(0), map[string]bool{}
	tables := slices.DeleteFunc(list(parseTOML(a.sealed(text(v, "trust.policy"))), "publisher"), func(p any) bool { return text(p, "name") != publisher })
	if text(v, "kind") == "trust" { // signed by the roles of root.toml whose files it brings
		publisher, tables = "root.toml", nil
		for file := range the[object](m, "trust") {
			tables = append(tables, the[any](parseTOML(a.sealed(text(v, "trust.root"))), "roles."+strings.TrimSuffix(file, "s")))
		}
	}
	keys, p, softened, audience := keysOf(tables...), object{"": tables}, list(v, "softened") != nil, list(m, "audience")
	named := func(prefix any) bool { return strings.HasPrefix(text(m, "name"), fmt.Sprint(prefix)) }
	demand(text(v, "kind") == "trust" || slices.Contains(list(p, ".kinds"), any(text(m, "kind"))) && slices.ContainsFunc(list(p, ".names"), named), "%q may not publish this kind, or by this name", publisher)
	demand(text(v, "decision") == "admitted" && !softened || text(v, "decision") == "admitted_under_audit" && softened && text(p, ".level") == "audit", "the decision is %.40q, with softened reasons: %t", text(v, "decision"), softened)
	demand(audience == nil || slices.Contains(audience, any(a.site)) || slices.Contains(audience, any(text(parseTOML(a.sealed(text(v, "trust.root"))), "fleet_id"))), "it is for other sites")
	demand(text(v, "trustedTime") == "" || number(p, ".require.tlog")+number(p, ".require.timestamps") > 0, "it has a trusted time, and %q need not have one", publisher)
	for _, s := range list(v, "signers") {
		id, file := text(s, "id"), text(s, "file")
		demand(!slices.Contains(slices.Collect(maps.Keys(judged)), id) && text(s, "publisher") == publisher && slices.Contains(list(e.data, "signatures"), any(file)), "signer %.64q is there twice, of somebody else, or did not sign this", id)
		notRevoked(text(s, "issuer") + text(s, "san"))
		notRevoked(id)
		judged[id] = text(s, "flow") == "key"
		demand(!judged[id] || keys[id] != nil && verify(keys[id], manifest, []byte(a.signature(file)[2])), "%.64q is no key of %q, or has not signed the manifest", id, publisher)
	}
	others := len(slices.DeleteFunc(list(v, "signers"), func(s any) bool { return text(s, "flow") == "key" }))
	demand(others == 0 || list(p, ".identity") != nil, "a certificate has signed, and %q has no identities in the trust files", publisher)
	for _, t := range tables {
		mine, threshold := keysOf(t), number(t, "threshold")
		maps.DeleteFunc(mine, func(id string, _ []byte) bool { return !judged[id] })
		demand(int64(len(mine)+others) >= threshold && threshold > 0, "%d signers, and the threshold of %q is %d", len(mine)+others, publisher, threshold)
		most = max(most, threshold)
	}
	demand(most > 0 && most == number(v, "threshold") && len(list(e.data, "signatures")) <= 16, "%q has the threshold %d in the trust files, or has signed more than 16 times", publisher, most)
	stopIf(others > 0, "left out", verified, "certificate")
}

// keysOf are the keys of publishers or roles, by the SHA-256 of their SPKI.
func keysOf(tables ...any) map[string][]byte {
	keys := map[string][]byte{}
	for _, item := range append(list(object{"": tables}, ".key.pem"), list(object{"": tables}, ".keys")...) {
		block, _ := pem.Decode(fmt.Append(nil, item))
		demand(block != nil, "%.100q is no key", item)
		keys[digest(block.Bytes)] = block.Bytes
	}
	return keys
}

// sealed is a sealed file, none if none is named. That what is withheld is declared, checkEvidence has seen.
func (a *audit) sealed(sum string) []byte {
	if sum == "" {
		return nil
	}
	stopIf(a.members[evidence+sum] == nil, "left out", verified, "evidence withheld")
	return a.read(evidence+sum, maxSmall)
}

// parseTOML gives what JSON would of a file of TOML, for list. Of deep tables, long names or lines, and too many of them, the parser would make hours, or gigabytes: no stella accepts them (part 1).
func parseTOML(raw []byte) any {
	sum := digest(raw)
	if parsed[sum] == nil {
		bare, depth, o := texts.ReplaceAllStringFunc(string(raw), func(s string) string { return strings.Repeat("x", len(s)) })+"\n", 0, any(nil)
		for _, part := range parts.FindAllString(bare, -1) {
			depth += strings.Count(part, "[") + strings.Count(part, "{") - strings.Count(part, "]") - strings.Count(part, "}")
			demand(depth <= 8 && strings.Count(part, ".") <= 3 && (len(strings.TrimSpace(part)) <= 256 || !strings.HasSuffix(part, "=")), "TOML nested more than 8 deep, or with a name of more than 4 parts or 255 bytes")
		}
		long := slices.ContainsFunc(strings.Split(string(raw), "\n"), func(line string) bool { return len(strings.TrimSuffix(line, "\r")) > 4<<10 })
		demand(!long && max(strings.Count(bare, "="), strings.Count(bare, ",")) <= 1<<16, "TOML with lines over 4 KiB, or too many keys or items")
		try(0, toml.Unmarshal(raw, &o))
		maps.DeleteFunc(parsed, func(string, any) bool { return len(parsed) >= 16 }) // trust files come again and again, manifests may be many
		parsed[sum] = parse[any](encode(o))
	}
	return parsed[sum]
}
