package verifytest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

func (l *list) container() {
	good := NewBundle().Sign("acme-1", "acme-2")
	last := len(Entries(good)) - 1
	refuse := func(name string, want bundle.Reason, note string, raw []byte) *Fixture {
		return l.add(name, trustPlain, string(want), note, raw)
	}
	set := func(at int, edit func(*tar.Header)) []byte {
		return edited(func(e []Entry) []Entry { e[at].Edit = edit; return e })
	}
	insert := func(at int, more ...Entry) []byte {
		return edited(func(e []Entry) []Entry { return slices.Insert(e, at, more...) })
	}
	refuse("too-large", bundle.TooLarge, "the site accepts less", good).Limit = int64(len(good)) - 1
	refuse("truncated", bundle.Truncated, "the last block is missing", good[:len(good)-512])
	refuse("not-a-bundle", bundle.NotABundle, "a text file", bytes.Repeat([]byte("This is not a bundle.\n"), 50))
	refuse("symlink", bundle.EntryLink, "a link in the place of a blob", set(last, func(h *tar.Header) {
		h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0
	}))
	refuse("other-mode", bundle.HeaderInvalid, "an entry with mode 0600", set(last, func(h *tar.Header) { h.Mode = 0o600 }))
	padded := bytes.Clone(good)
	padded[len(padded)-1024-1] = 1
	refuse("padding", bundle.PaddingInvalid, "a byte behind the last blob", padded)
	refuse("manifest-too-large", bundle.ManifestTooLarge, "its header says so", Container(Entry{
		Name: bundle.ManifestName, Data: bytes.Repeat([]byte("#"), bundle.MaxManifest+1),
	})[:1024])
	other := bytes.Replace(Entries(good)[0].Data, []byte("stella.bundle/1"), []byte("stella.bundle/2"), 1)
	refuse("schema", bundle.SchemaUnknown, "a later format", Container(Entry{Name: bundle.ManifestName, Data: other}))
	refuse("unexpected", bundle.EntryUnexpected, "a file that nothing names", insert(last+1, Entry{Name: "._list.txt", Data: []byte("x")}))
	refuse("duplicate", bundle.EntryDuplicate, "one signature twice", edited(func(e []Entry) []Entry { return slices.Insert(e, 1, e[1]) }))
	refuse("order", bundle.EntryOrder, "two signatures out of order", edited(func(e []Entry) []Entry { e[1], e[2] = e[2], e[1]; return e }))
	refuse("time", bundle.TimeMismatch, "a blob with another time", set(last, func(h *tar.Header) { h.ModTime = Now() }))
	var many []Entry
	for i := range bundle.MaxSignatures + 1 {
		many = append(many, Entry{Name: bundle.SignatureName(fmt.Sprintf("%064x", i)), Data: []byte("{}")})
	}
	refuse("signatures-too-many", bundle.SignaturesTooMany, "seventeen signatures", Container(append(Entries(good)[:1], many...)...))
	refuse("signature-too-large", bundle.SignatureTooLarge, "its header says so", insert(1, Entry{
		Name: bundle.SignatureName(strings.Repeat("0", 64)), Data: make([]byte, bundle.MaxSignature+1),
	})[:4096])
	refuse("trailing-data", bundle.TrailingData, "a byte after the end", append(bytes.Clone(good), '\n'))
}

func (l *list) policy() {
	refuse := func(name, trust string, want bundle.Reason, note string, raw []byte) {
		l.add(name, trust, string(want), note, raw)
	}
	with := func(edit func(*manifests.Bundle)) []byte { return bundleWith(edit).Sign("acme-1") }
	plain := NewBundle().Sign("acme-1")
	refuse("root-expired", trustRoot, verify.RootExpired, "root.toml expires at this moment", plain)
	refuse("policy-expired", trustPolicy, verify.PolicyExpired, "the policy's next_update is this moment", plain)
	refuse("revocations-expired", trustRevocations, verify.RevocationsExpired, "the revocations' next_update is this moment", plain)
	refuse("policy-issued-ahead", trustAhead, verify.TrustedTimeAhead, "the policy was issued more than ten minutes after the clock", plain)
	refuse("manifest-revoked", trustRevoked, verify.RevokedManifest, "its digest is revoked", withdrawn().Sign("acme-1"))
	bad := NewBundle()
	bad.Files["bad.txt"] = badFile
	refuse("blob-revoked", trustRevoked, verify.RevokedBlob, "one of its files is revoked", bad.Sign("acme-1"))
	refuse("publisher-unknown", trustPlain, verify.PublisherUnknown, "a known key signs for a publisher that the policy does not name", with(func(m *manifests.Bundle) { m.Publisher = "nobody" }))
	refuse("signer-of-another", trustPlain, verify.SignerForeign, "the key of another publisher", NewBundle().Sign("other-1"))
	refuse("role-signs-data", trustPlain, verify.SignerForeign, "a role signs what is a publisher's", NewBundle().Sign("policy"))
	refuse("publisher-signs-trust", trustPlain, verify.SignerForeign, "a publisher signs what is a role's", trustBundle().Sign("acme-1"))
	refuse("other-role-signs-trust", trustPlain, verify.SignerForeign, "a policy signed by the role for revocations", trustBundle().Sign("revocation"))
	logged := func(make func([]byte) []bundle.Attached) []byte { return signedBy(NewBundle(), make) }
	refuse("key-revoked", trustRevoked, verify.RevokedKey, "signed, says the log, after its key was lost", logged(func(m []byte) []bundle.Attached {
		return []bundle.Attached{Logged(m, "acme-2", Now())}
	}))
	refuse("identity-revoked", trustRevoked, verify.RevokedIdentity, "signed by somebody who left", logged(func(m []byte) []bundle.Attached {
		return []bundle.Attached{Certified(m, "leaf-1", "left@acme.test", Created())}
	}))
	refuse("key-expired", trustWindows, verify.KeyExpired, "its key is no longer valid", plain)
	refuse("key-not-yet-valid", trustWindows, verify.KeyNotYetValid, "its key is not valid yet", NewBundle().Sign("acme-2"))
	refuse("not-logged", trustLogged, verify.TLogMissing, "the policy demands a log entry", plain)
	refuse("not-stamped", trustStamped, verify.TimestampMissing, "the policy demands a timestamp", plain)
	refuse("one-of-two-signers", trustTwo, verify.ThresholdNotMet, "the policy demands two signers", plain)
	refuse("kind", trustNarrow, verify.KindNotAllowed, "a plugin by a publisher of data", NewPlugin().Sign("acme-1"))
	refuse("name", trustPlain, verify.NameNotAllowed, "the name of another publisher", with(func(m *manifests.Bundle) { m.Name = "other.list" }))
	refuse("audience-missing", trustAudience, verify.AudienceMissing, "the policy demands an audience", plain)
	refuse("audience-mismatch", trustPlain, verify.AudienceMismatch, "for another site", with(func(m *manifests.Bundle) { m.Audience = []string{strings.Repeat("0", 32)} }))
	refuse("not-yet-valid", trustPlain, verify.NotYetValid, "valid in a nanosecond", with(func(m *manifests.Bundle) { m.NotBefore = Now().Add(1) }))
	refuse("expired", trustPlain, verify.Expired, "expired at this moment", with(func(m *manifests.Bundle) { m.Expires = Now() }))
	refuse("stella-too-old", trustPlain, verify.StellaTooOld, "for a later stella", with(func(m *manifests.Bundle) { m.MinStella = "1.0.1" }))
}

func (l *list) floors() {
	raw, mine := NewBundle().Sign("acme-1"), NewBundle().Manifest.Sequence
	for _, c := range []struct {
		name   string
		want   bundle.Reason
		note   string
		floors verify.Floors
	}{
		{"version-reused", verify.VersionReused, "the version means another digest", verify.Floors{Version: digest("other"), Sequence: mine - 1, Digest: digest("other")}},
		{"rollback", verify.Rollback, "a higher sequence was admitted", verify.Floors{Sequence: mine + 1, Digest: digest("newer")}},
		{"sequence-reused", verify.SequenceReused, "another digest has this sequence", verify.Floors{Sequence: mine, Digest: digest("other")}},
	} {
		l.add(c.name, trustPlain, string(c.want), c.note, raw).Floors = &c.floors
	}
	far := bundleWith(func(m *manifests.Bundle) { m.Sequence = 1_000_008 }).Sign("acme-1")
	l.add("sequence-jump", trustPlain, string(verify.SequenceJump), "a million and one above the floor", far).
		Floors = &verify.Floors{Sequence: 7, Digest: digest("older")}
}

func (l *list) capabilities() {
	for _, c := range []struct {
		name, note string
		edit       func(p *manifests.Plugin)
	}{
		{"capability-network", "loopback is asked for", func(p *manifests.Plugin) { p.Network = "loopback" }},
		{"capability-host-read", "a host path is asked for", func(p *manifests.Plugin) { p.HostRead = []string{"/etc"} }},
		{"capability-interpreter", "a program of the host is asked for", func(p *manifests.Plugin) { p.Interpreter = "/bin/sh" }},
		{"capability-secret", "a secret is asked for", func(p *manifests.Plugin) {
			p.Actions = map[string]manifests.Action{"greet": {Secrets: []string{"db"}}}
		}},
	} {
		b := NewPlugin()
		c.edit(b.Manifest.Plugin)
		l.add(c.name, trustPlain, string(verify.CapabilityExceeded), c.note, b.Sign("acme-1"))
	}
}

func (l *list) attestations() {
	sum := NewBundle().Digest()
	built := Attestation(sum, Provenance, provenance, "builder")
	reviewed := Attestation(sum, Review, `{}`, "reviewer")
	refuse := func(name string, want bundle.Reason, note string, raw []byte) {
		l.add(name, trustAttested, string(want), note, raw)
	}
	rename := func(a bundle.Attached) bundle.Attached { a.ID = bundle.Digest(a.Data); return a }

	var many []Entry
	for i := range bundle.MaxAttestations + 1 {
		a := rename(Attestation(sum, Review, fmt.Sprintf(`{"n":%d}`, i), "stranger"))
		many = append(many, Entry{Name: bundle.AttestationName(a.ID), Data: a.Data})
	}
	slices.SortFunc(many, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	insert := func(e ...Entry) []byte {
		return edited(func(all []Entry) []Entry { return slices.Insert(all, 3, e...) })
	}
	refuse("attestations-too-many", bundle.AttestationsTooMany, "65 attestations", insert(many...))
	refuse("attestation-too-large", bundle.AttestationTooLarge, "its header says so", insert(Entry{
		Name: bundle.AttestationName(strings.Repeat("0", 64)), Data: make([]byte, bundle.MaxAttestation+1),
	})[:6144])
	refuse("attestation-renamed", bundle.AttestationDigest, "not named by its digest", insert(Entry{
		Name: bundle.AttestationName(strings.Repeat("0", 64)), Data: reviewed.Data,
	}))
	signature := rename(Signatures(NewBundle().manifest(), "reviewer")[0])
	refuse("attestation-is-signature", verify.AttestationIsSignature, "a signature where a statement belongs", attest(built, reviewed, signature))
	refuse("attestation-hint", verify.AttestationID, "a hint that is no hash", attest(built, rename(Edit(reviewed, func(v map[string]any) {
		v["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": "reviewer"}}
	}))))
	logged := Logged(NewBundle().manifest(), "reviewer", Created())
	refuse("attestation-extra", verify.AttestationExtra, "a log entry where the policy verifies none", attest(built, rename(Edit(reviewed, func(v map[string]any) {
		Edit(logged, func(from map[string]any) { v["verificationMaterial"] = from["verificationMaterial"] })
	}))))
	forged := Edit(reviewed, func(v map[string]any) {
		Edit(built, func(from map[string]any) {
			v["dsseEnvelope"].(map[string]any)["payload"] = from["dsseEnvelope"].(map[string]any)["payload"]
		})
	})
	refuse("attestation-forged", verify.AttestationInvalid, "the statement of another signer", attest(built, rename(forged)))
	refuse("attestation-of-another", verify.AttestationSubject, "about another bundle", attest(built, Attestation(withdrawn().Digest(), Review, `{}`, "reviewer")))
	refuse("attestation-missing", verify.AttestationMissing, "one of two", attest(built))
	refuse("attestation-builder", verify.AttestationMissing, "built by another builder", attest(reviewed,
		Attestation(sum, Provenance, strings.ReplaceAll(provenance, Builder, "https://elsewhere.test"), "builder")))
	refuse("attestation-swapped", verify.AttestationMissing, "a reviewer attests provenance", attest(built, Attestation(sum, Provenance, provenance, "reviewer")))
}

func (l *list) blobs() {
	refuse := func(name string, want bundle.Reason, note string, raw []byte) {
		l.add(name, trustPlain, string(want), note, raw)
	}
	last := len(Entries(NewBundle().Sign("acme-1", "acme-2"))) - 1
	refuse("blob-missing", bundle.BlobMissing, "a delta for a site that holds nothing", edited(func(e []Entry) []Entry { return e[:last] }))
	refuse("blob-size", bundle.BlobSize, "a byte less than signed", edited(func(e []Entry) []Entry {
		e[last].Data = e[last].Data[:len(e[last].Data)-1]
		return e
	}))
	refuse("blob-changed", bundle.BlobDigest, "a byte other than signed", edited(func(e []Entry) []Entry {
		e[last].Data[10] ^= 1
		return e
	}))
	text := bytes.Repeat([]byte("a line of text\n"), 100)
	half := len(text) / 2
	two := append(compress(text[:half]), compress(text[half:])...)
	refuse("blob-two-frames", bundle.BlobFrames, "two zstd frames that a decoder would join", stored(text, two))
	skippable := append(compress(text), 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 's', 'k', 'i', 'p')
	refuse("blob-skippable-frame", bundle.BlobFrames, "a skippable frame that a decoder would ignore", stored(text, skippable))
	refuse("blob-bomb", bundle.BlobExceeds, "16 MiB of zeros, signed as 1500 bytes", stored(make([]byte, len(text)), compress(make([]byte, 16<<20))))
	refuse("blob-other-content", bundle.BlobContent, "decompresses to something else", stored(text, compress(bytes.ToUpper(text))))
}

// compress is the zstd frame in which a bundle would store data.
func compress(data []byte) []byte {
	b := NewBundle()
	b.Files = map[string]string{"data": string(data)}
	raw, _ := b.Pack(bundle.PackOptions{})
	frame := Entries(raw)[1]
	if !strings.HasSuffix(frame.Name, ".zst") {
		panic("verifytest: " + frame.Name + " is not compressed")
	}
	return frame.Data
}

// stored is a bundle whose signers claim that packed is the stored form of
// content.
func stored(content, packed []byte) []byte {
	m := NewBundle().Manifest
	m.Files = []manifests.File{{
		Path: "text.txt", SHA256: bundle.Digest(content), Size: int64(len(content)), Mode: "0644",
		Encoding: bundle.Encoding, StoredSHA256: bundle.Digest(packed), StoredSize: int64(len(packed)),
	}}
	m.ContentDigest = manifests.ContentDigest(m.Files)
	raw := m.Encode()
	return Container(Entry{Name: bundle.ManifestName, Data: raw}, signatureEntry(raw, "acme-1"),
		Entry{Name: "blobs/sha256/" + bundle.Digest(content) + ".zst", Data: packed})
}
