package export_test

import (
	"crypto/ecdsa"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/verify"
)

// said is what the verdict of an admitted says of its manifest.
const said = "schema = \"stella.bundle/1\"\nkind = \"plugin\"\npublisher = \"acme\"\nname = \"acme.match\"\nversion = \"1.0.0\"\nsequence = 1\n"

// admitted is a site with one bundle let in, by a verdict that lie may change;
// policy and revocations are what it was judged by.
type admitted struct {
	s           *site
	policy      string
	revocations string
	manifest    string
	signers     []*ecdsa.PrivateKey
	over        string // what they sign, if not the manifest
	lie         func(s *site, d *ledger.BundleAdmission)
}

// pemOf is the public key of the scalar d.
func pemOf(t *testing.T, d int64) string { return string(publicPEM(t, &p256(t, d).PublicKey)) }

// policyWith names keys for acme, with a threshold and what else is given.
func policyWith(threshold int, rest string, keys ...string) string {
	p := fmt.Sprintf("schema = \"stella.policy/1\"\nserial = 1\n\n[[publisher]]\nname = \"other\" # somebody\nthreshold = 1\n\n[[publisher]]\nname = \"acme\"\nthreshold = %d\nkinds = [\"plugin\"]\nnames = [\"acme.\"]\n", threshold)
	for _, k := range keys {
		p += "\n[[publisher.key]]\nvalid_from = \"2026-01-01T00:00:00.000000000Z\"\npem = \"\"\"\n" + k + "\"\"\"\n"
	}
	return p + rest
}

// archive makes the admission, an entry after it, and the archive of both.
func (a *admitted) archive(t *testing.T) string {
	t.Helper()
	s := newSite(t)
	d := &ledger.BundleAdmission{
		Verdict: ledger.Verdict{
			Decision: "admitted", Digest: s.blob(a.manifest), Kind: "plugin", Publisher: "acme", Name: "acme.match", Version: "1.0.0",
			Sequence: 1, Threshold: 1, Trust: s.trust(), Now: second(1), Checks: []string{"signature"},
		},
		FileSHA256: strings.Repeat("f", 64), ContentDigest: strings.Repeat("c", 64),
	}
	d.Verdict.Trust.Policy = s.blob(a.policy)
	if a.revocations != "" {
		d.Verdict.Trust.Revocations, d.Verdict.Trust.RevocationSerial = s.blob(a.revocations), 1
	}
	over := a.manifest
	if a.over != "" {
		over = a.over
	}
	for _, key := range a.signers {
		sig, err := verify.SignManifest([]byte(over), key)
		if err != nil {
			t.Fatal(err)
		}
		file := s.blob(string(sig.Data))
		d.Signatures = append(d.Signatures, file)
		d.Verdict.Signers = append(d.Verdict.Signers, ledger.SignerRef{ID: sig.ID, Publisher: "acme", Flow: "key", File: file})
	}
	a.s = s
	s.beginsAnew(d.Verdict.Trust.Root, d.Verdict.Trust.Policy)
	if a.lie != nil {
		a.lie(s, d)
	}
	s.add(ledger.Envelope{Type: ledger.BundleAdmitted, Actor: "uid:0(root)"}, d)
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	s.checkpoint()
	return saved(t, s.archive(export.Window{From: second(0), To: stamp.Format(s.at.Add(-time.Second))}))
}

// stella-audit judges again what the door has judged, as far as keys go. The
// operator has all keys of the site, and not those of the publisher.
func TestVerdictsAreJudgedAgain(t *testing.T) {
	mine, other := p256(t, 13), p256(t, 14)
	id := verify.KeyID(&mine.PublicKey)
	manifest := said + "\n[[file]]\nsha256 = \"" + strings.Repeat("b", 64) + "\"\n\n[trust]\npolicy = \"policy.toml\"\n"
	revoke := func(lines string) string {
		return "schema = \"stella.revocations/1\"\nserial = 1\n\n[[revoke]]\nmanifest = \"" + strings.Repeat("1", 64) + "\"\n\n[[revoke]]\n" + lines + "\n"
	}
	one := []*ecdsa.PrivateKey{mine}
	const identity = "\n[[publisher.identity]]\nissuer = \"https://issuer.example\"\nsan = \"ci@acme.example\"\n"
	byCertificate := func(_ *site, d *ledger.BundleAdmission) {
		d.Verdict.Signers[0].Flow, d.Verdict.Signers[0].Issuer, d.Verdict.Signers[0].SAN = verify.FlowCertificate, "https://issuer.example", "ci@acme.example"
	}
	block, _ := pem.Decode([]byte(pemOf(t, 13)))
	inline := strings.ReplaceAll(string(pem.EncodeToMemory(block)), "\n", `\n`)
	for name, tc := range map[string]struct {
		admitted
		want string // what the check verdicts says
	}{
		"honest":                     {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one}, "ok"},
		"a key in one line":          {admitted{policy: policyWith(1, "\n[[publisher.key]]\npem = \""+inline+"\"\n"), signers: one}, "ok"},
		"over another manifest":      {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, over: "another"}, "failed"},
		"by a key that nobody named": {admitted{policy: policyWith(1, "", pemOf(t, 14)), signers: one}, "failed"},
		"by the key of another": {admitted{
			policy:  policyWith(1, "\n[[publisher]]\nname = \"third\"\nthreshold = 1\n\n[[publisher.key]]\npem = \"\"\"\n"+pemOf(t, 13)+"\"\"\"\n", pemOf(t, 14)),
			signers: one,
		}, "failed"},
		"by nobody":                     {admitted{policy: policyWith(1, "", pemOf(t, 13))}, "failed"},
		"a publisher that is not named": {admitted{policy: strings.ReplaceAll(policyWith(1, "", pemOf(t, 13)), "acme", "xcme"), signers: one}, "failed"},
		"by an attester": {admitted{
			policy:  policyWith(1, "\n[publisher.require]\ntlog = 0\n\n[[publisher.require.attestation]]\nkeys = [\"\"\"\n"+pemOf(t, 13)+"\"\"\"]\n", pemOf(t, 14)),
			signers: one,
		}, "failed"},
		"by too few": {admitted{policy: policyWith(2, "", pemOf(t, 13), pemOf(t, 14)), signers: one}, "failed"},
		"by enough": {admitted{policy: policyWith(2, "", pemOf(t, 13), pemOf(t, 14)), signers: []*ecdsa.PrivateKey{mine, other}, lie: func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Threshold = 2
		}}, "ok"},
		"by one who is counted twice": {admitted{policy: policyWith(2, "", pemOf(t, 13), pemOf(t, 14)), signers: []*ecdsa.PrivateKey{mine, mine}, lie: func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Threshold = 2
		}}, "failed"},
		"the threshold is none": {admitted{policy: policyWith(1, "", pemOf(t, 13)), lie: func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Threshold = 0
		}}, "failed"},
		"a signature that did not come in": {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, lie: func(_ *site, d *ledger.BundleAdmission) {
			d.Signatures = nil
		}}, "failed"},
		"a signer of somebody else": {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, lie: func(_ *site, d *ledger.BundleAdmission) {
			d.Verdict.Signers[0].Publisher = "other"
		}}, "failed"},
		"the key is revoked":      {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, revocations: revoke("key = \"" + id + "\" # lost")}, "failed"},
		"the manifest is revoked": {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, revocations: revoke("manifest = \"" + digest([]byte(manifest)) + "\"")}, "failed"},
		"a file is revoked":       {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, revocations: revoke("blob = \"" + strings.Repeat("b", 64) + "\"")}, "failed"},
		"the key is revoked later": {admitted{
			policy: policyWith(1, "", pemOf(t, 13)), signers: one,
			revocations: revoke("key = \"" + id + "\"\nfrom = \"" + second(9) + "\""),
		}, "ok"},
		"another key is revoked": {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, revocations: revoke("key = \"" + strings.Repeat("2", 64) + "\"")}, "ok"},
		"a revoked key with a trusted time": {admitted{
			policy: policyWith(1, "\n[publisher.require]\ntlog = 1\n", pemOf(t, 13)), signers: one, revocations: revoke("key = \"" + id + "\"\nfrom = \"" + second(1) + "\""),
			lie: func(_ *site, d *ledger.BundleAdmission) { d.Verdict.TrustedTime = second(0) },
		}, "not judged"},
		"by a certificate":                   {admitted{policy: policyWith(1, identity, pemOf(t, 14)), signers: one, lie: byCertificate}, "not judged"},
		"by a certificate that nobody named": {admitted{policy: policyWith(1, "", pemOf(t, 14)), signers: one, lie: byCertificate}, "failed"},
		"by a certificate that another has": {admitted{
			policy: policyWith(1, "\n[[publisher]]\nname = \"third\"\nthreshold = 1\n"+identity, pemOf(t, 14)), signers: one, lie: byCertificate,
		}, "failed"},
		"by a certificate that is revoked": {admitted{
			policy: policyWith(1, identity, pemOf(t, 14)), signers: one, lie: byCertificate,
			revocations: revoke("issuer = \"https://issuer.example\"\nsan = \"ci@acme.example\""),
		}, "failed"},
		"trust by the root":                {admitted{policy: policyWith(1, ""), signers: one, lie: asTrust(t, 13)}, "ok"},
		"trust by another":                 {admitted{policy: policyWith(1, "", pemOf(t, 13)), signers: one, lie: asTrust(t, 14)}, "failed"},
		"trust by the key of another role": {admitted{policy: policyWith(1, ""), signers: []*ecdsa.PrivateKey{p256(t, 15)}, lie: asTrust(t, 13)}, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.manifest = manifest
			if strings.HasPrefix(name, "trust ") {
				tc.manifest = strings.Replace(manifest, "plugin", "trust", 1)
			}
			path := tc.archive(t)
			verdict, _, out := audit(t, tc.s.auditor(), path)
			want := map[string]string{"ok": "VERIFIED", "not judged": "VERIFIED", "failed": "FAILED"}[tc.want]
			if row := rowOf(out, "verdicts"); verdict != want || !strings.HasPrefix(row, tc.want) {
				t.Errorf("%s, verdicts: %q, want %s and %s\n%s", verdict, row, want, tc.want, out)
			}
		})
	}
}

// asTrust makes it a bundle of kind trust, under a root that names the key n.
func asTrust(t *testing.T, n int64) func(*site, *ledger.BundleAdmission) {
	return func(s *site, d *ledger.BundleAdmission) {
		d.Verdict.Kind = "trust"
		for i := range d.Verdict.Signers {
			d.Verdict.Signers[i].Publisher = "root.toml"
		}
		d.Verdict.Trust.Root = s.blob("schema = \"stella.root/1\"\nversion = 1\n\n[roles.root]\nthreshold = 1\nkeys = [\"\"\"\n" + pemOf(t, 15) + "\"\"\"]\n\n" +
			"[roles.policy]\nthreshold = 1\nkeys = [\"\"\"\n" + pemOf(t, n) + "\"\"\"]\n")
		s.beginsAnew(d.Verdict.Trust.Root, d.Verdict.Trust.Policy)
	}
}

// beginsAnew makes entry 0 name trust files that no change has put in force.
func (s *site) beginsAnew(root, policy string) {
	first, err := ledger.ParseEnvelope(s.entries[0].Envelope)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.at, err = stamp.Parse(first.Time); err != nil {
		s.t.Fatal(err)
	}
	s.entries, s.hashes, s.byRun = nil, nil, map[string][]int{}
	s.init(root, policy)
}

// rowOf is what the table says about a check.
func rowOf(out, check string) string {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, check+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// What is withheld of a verdict keeps it from being judged, and from nothing else.
func TestAVerdictWithoutItsEvidenceIsNotJudged(t *testing.T) {
	s := busySite(t)
	s.gone[s.policy()] = "secret"
	path := saved(t, s.archive(window(0, 20)))
	opt := s.auditor()
	opt.Withheld = 1
	verdict, _, out := audit(t, opt, path)
	if row := rowOf(out, "verdicts"); verdict != string(export.Verified) || !strings.HasPrefix(row, "not judged") {
		t.Errorf("%s: %q\n%s", verdict, row, out)
	}
}
