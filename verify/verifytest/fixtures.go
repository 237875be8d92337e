package verifytest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// Expectations of fixtures besides a reason.
const (
	ExpectAdmit = "admit"
	ExpectAudit = "admit_under_audit"
)

// Stella is the version that fixtures are judged by.
const Stella = "1.0.0"

// A Fixture is a bundle with the one outcome that judging it must have.
type Fixture struct {
	Name   string
	Trust  string // name of its trust
	Expect string // ExpectAdmit, ExpectAudit or a reason
	Note   string
	Raw    []byte
	Now    time.Time
	Limit  int64          // size of a bundle that the site accepts; 0: the default
	Floors *verify.Floors // what the site admitted before; nil: nothing
	Files  *verify.Files  // of Trust, in force; nil for bundles of other kinds than trust
}

// Options are those for judging f.
func (f *Fixture) Options(spool bundle.Spool) verify.Options {
	opt := verify.Options{Now: f.Now, SiteID: SiteID, Stella: Stella, Spool: spool, Limits: bundle.Limits{Bytes: f.Limit}, Files: f.Files}
	opt.Floors = func(*manifests.Bundle, string) (verify.Floors, error) {
		if f.Floors == nil {
			return verify.Floors{}, nil
		}
		return *f.Floors, nil
	}
	return opt
}

// Fixtures makes all fixtures. Each has a name of its own.
func Fixtures() []Fixture {
	var l list
	l.admitted()
	l.container()
	l.attacks()
	l.signatures()
	l.signatureForms()
	l.manifestForms()
	l.flows()
	l.policy()
	l.floors()
	l.capabilities()
	l.attestations()
	l.attestationForms()
	l.blobs()
	l.frames()
	trusts := Trusts()
	for i := range l.all {
		if f := &l.all[i]; strings.HasPrefix(f.Name, "trust") {
			files := trusts[f.Trust].Files()
			f.Files = &files
		}
	}
	return l.all
}

// list collects fixtures.
type list struct{ all []Fixture }

func (l *list) add(name, trust, expect, note string, raw []byte) *Fixture {
	l.all = append(l.all, Fixture{Name: name, Trust: trust, Expect: expect, Note: note, Raw: raw, Now: Now()})
	return &l.all[len(l.all)-1]
}

func digest(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

// bundleWith is the small bundle, changed.
func bundleWith(edit func(m *manifests.Bundle)) *Bundle {
	b := NewBundle()
	edit(&b.Manifest)
	return b
}

// signedBy is the small bundle with the signatures that make returns.
func signedBy(b *Bundle, make func(manifest []byte) []bundle.Attached) []byte {
	raw, packed := b.Pack(bundle.PackOptions{})
	return Attach(raw, make(packed.Raw), nil)
}

// edited takes a well-signed bundle apart and writes it again, changed.
func edited(edit func([]Entry) []Entry) []byte {
	return Container(edit(Entries(NewBundle().Sign("acme-1", "acme-2")))...)
}

func (l *list) admitted() {
	l.add("data", trustPlain, ExpectAdmit, "a data bundle signed by one key", NewBundle().Sign("acme-1"))
	l.add("two-signers", trustTwo, ExpectAdmit, "the policy demands two signers", NewBundle().Sign("acme-1", "acme-2"))
	l.add("stranger-beside", trustPlain, ExpectAdmit, "a signature by a key that no trust file names is left alone", NewBundle().Sign("acme-1", "stranger"))
	l.add("plugin", trustPlain, ExpectAdmit, "a plugin", NewPlugin().Sign("acme-1"))
	l.add("logged-key", trustLogged, ExpectAdmit, "a key whose signature is in the log", signedBy(NewBundle(), func(m []byte) []bundle.Attached {
		return []bundle.Attached{Logged(m, "acme-1", Created().Add(time.Minute))}
	}))
	l.add("certificate", trustLogged, ExpectAdmit, "a certificate whose signature is in the log", signedBy(NewBundle(), func(m []byte) []bundle.Attached {
		return []bundle.Attached{Certified(m, "leaf-1", "release@acme.test", Created().Add(time.Minute))}
	}))
	l.add("logged-before-revocation", trustRevoked, ExpectAdmit, "signed, says the log, before its key was lost", signedBy(NewBundle(), func(m []byte) []bundle.Attached {
		return []bundle.Attached{Logged(m, "acme-2", Created().Add(time.Minute))}
	}))
	l.add("not-logged-audit", trustLoggedAudit, ExpectAudit, "level audit lets a missing log entry pass", NewBundle().Sign("acme-1"))
	l.add("attested", trustAttested, ExpectAdmit, "with the attestations that the policy demands", attest(
		Attestation(NewBundle().Digest(), Provenance, provenance, "builder"), Attestation(NewBundle().Digest(), Review, `{"by":2}`, "reviewer"),
		Attestation(NewBundle().Digest(), Review, `{}`, "stranger")))
	l.add("not-attested-audit", trustAudit, ExpectAudit, "level audit lets a missing attestation pass", NewBundle().Sign("acme-1"))
	l.add("for-this-site", trustAudience, ExpectAdmit, "the audience names this site", bundleWith(func(m *manifests.Bundle) {
		m.Audience = []string{SiteID}
	}).Sign("acme-1"))
	l.add("for-this-fleet", trustAudience, ExpectAdmit, "the audience names the fleet", bundleWith(func(m *manifests.Bundle) {
		m.Audience = []string{FleetID}
	}).Sign("acme-1"))
	l.add("trust", trustPlain, ExpectAdmit, "a new policy, signed by the role", trustBundle().Sign("policy"))
	l.add("trust-after-expiry", trustPolicy, ExpectAdmit, "an expired policy admits what may replace it", trustBundle().Sign("policy"))
	l.add("trust-signed-by-another-role", trustPlain, string(verify.TrustInvalid), "the policy in it is signed by the role for revocations", trustBundle("revocation").Sign("policy"))
	l.add("trust-same-serial", trustPlain, string(verify.TrustRollback), "another policy with this serial is in force", policyBundle(1, "policy").Sign("policy"))
	l.add("trust-jump", trustPlain, string(verify.TrustRollback), "the serial is more than a million above the one in force", policyBundle(1_000_002, "policy").Sign("policy"))
	l.add("again", trustPlain, ExpectAdmit, "what was admitted before is judged without the floor", NewBundle().Sign("acme-1")).
		Floors = &verify.Floors{Admitted: true, Version: NewBundle().Digest(), Sequence: 9, Digest: digest("newer")}
	l.add("next", trustPlain, ExpectAdmit, "a higher sequence", NewBundle().Sign("acme-1")).
		Floors = &verify.Floors{Sequence: 6, Digest: digest("older")}
}

// trustBundle carries a new policy, signed by the keys or by the policy role.
func trustBundle(keys ...string) *Bundle { return policyBundle(2, append(keys, "policy")[0]) }

// policyBundle carries a policy with that serial, signed by the key.
func policyBundle(serial int64, key string) *Bundle {
	t := NewTrust()
	t.Policy.Serial, t.Policy.NextUpdate = serial, t.Policy.NextUpdate.Add(time.Hour)
	b := NewBundle()
	b.Manifest.Kind, b.Manifest.Data, b.Manifest.Publisher, b.Manifest.Name = manifests.KindTrust, nil, "fleet", "fleet.policy"
	b.Manifest.Audience, b.Manifest.Trust = []string{FleetID}, &manifests.TrustFiles{Policy: "policy.toml"}
	policy := Signed(t.Files().Policy.Raw, key)
	b.Files = map[string]string{"policy.toml": string(policy.Raw)}
	for _, s := range policy.Signatures {
		b.Files["policy.toml.signatures/"+s.ID+".sigstore.json"] = string(s.Data)
	}
	return b
}

// attest signs the small bundle and attaches attestations.
func attest(atts ...bundle.Attached) []byte {
	raw, packed := NewBundle().Pack(bundle.PackOptions{})
	return Attach(raw, Signatures(packed.Raw, "acme-1"), atts)
}

func (l *list) signatures() {
	unsigned, packed := NewBundle().Pack(bundle.PackOptions{})
	sign := func(key string) bundle.Attached { return Signatures(packed.Raw, key)[0] }
	with := func(sigs ...bundle.Attached) []byte { return Attach(unsigned, sigs, nil) }

	l.add("unsigned", trustPlain, string(verify.SignatureMissing), "nobody signed it", unsigned)
	pretty := sign("acme-1")
	pretty.Data = append(bytes.Clone(pretty.Data), '\n')
	l.add("signature-not-canonical", trustPlain, string(verify.SignatureNotCanonical), "a line feed after the JSON", with(pretty))
	statement := Attestation(packed.Digest, Review, `{"verificationResult":"FAILED"}`, "acme-1")
	statement.ID = KeyID("acme-1")
	l.add("signature-is-statement", trustPlain, string(verify.SignatureIsStatement), "a statement where a signature belongs", with(statement))
	renamed := sign("acme-1")
	renamed.ID = KeyID("acme-2")
	l.add("signature-renamed", trustPlain, string(verify.SignatureID), "named by a key that did not make it", with(renamed))
	l.add("signature-extra", trustPlain, string(verify.SignatureExtra), "a log entry where the policy verifies none", with(Logged(packed.Raw, "acme-1", Created())))
	l.add("signature-of-another", trustPlain, string(verify.SignatureInvalid), "the signature of another bundle", with(Signatures(withdrawn().manifest(), "acme-1")...))
	l.add("one-of-two-invalid", trustPlain, string(verify.SignatureInvalid), "a named signer that fails refuses, whoever else signed", with(sign("acme-1"), Signatures(withdrawn().manifest(), "acme-2")[0]))
	l.add("log-time-ahead", trustLogged, string(verify.TrustedTimeAhead), "logged more than ten minutes after the clock", with(Logged(packed.Raw, "acme-1", Now().Add(11*time.Minute))))
	l.add("two-certificates", trustLogged, string(verify.DuplicateSigner), "two certificates of one identity", with(
		Certified(packed.Raw, "leaf-1", "release@acme.test", Created()), Certified(packed.Raw, "leaf-2", "release@acme.test", Created())))
	l.add("stranger", trustPlain, string(verify.SignerUnknown), "signed by a key that no trust file names", with(sign("stranger")))
	l.add("strange-certificate", trustLogged, string(verify.SignerUnknown), "signed by an identity that no trust file names", with(
		Certified(packed.Raw, "leaf-1", "someone@else.test", Created())))
	text := bytes.Replace(packed.Raw, []byte("sequence = 7"), []byte("sequence = 07"), 1)
	l.add("manifest-invalid", trustPlain, string(verify.ManifestInvalid), "a well-signed manifest that breaks its language", Container(
		append([]Entry{{Name: bundle.ManifestName, Data: text}}, signatureEntry(text, "acme-1"), Entries(unsigned)[1], Entries(unsigned)[2])...))
}

// manifest is the manifest that b will have.
func (b *Bundle) manifest() []byte {
	_, packed := b.Pack(bundle.PackOptions{})
	return packed.Raw
}

func signatureEntry(manifest []byte, key string) Entry {
	sig := Signatures(manifest, key)[0]
	return Entry{Name: bundle.SignatureName(sig.ID), Data: sig.Data}
}
