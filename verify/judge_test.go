package verify_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// evidence is what sealing the bundle would keep.
func evidence(t testing.TB, raw []byte) verify.Evidence {
	t.Helper()
	in := bundle.NewReader(bytes.NewReader(raw), bundle.Limits{})
	head, err := in.Head()
	if err != nil {
		t.Fatal(err)
	}
	return verify.Evidence{Manifest: head.Manifest, Signatures: head.Signatures}
}

// judge judges a bundle by its head alone.
func judge(t testing.TB, trust *verify.Trust, raw []byte, now time.Time) (*ledger.Verdict, error) {
	t.Helper()
	return trust.Rejudge(evidence(t, raw), verifytest.SiteID, verifytest.Stella, now)
}

// TestAuditSoftensAClosedList judges every refused fixture at level audit.
func TestAuditSoftensAClosedList(t *testing.T) {
	soft := []string{string(verify.AttestationMissing), string(verify.TimestampMissing), string(verify.TLogMissing)}
	trusts := map[string]*verify.Trust{}
	for name, made := range verifytest.Trusts() {
		for i := range made.Policy.Publishers {
			made.Policy.Publishers[i].Level = "audit"
		}
		trusts[name] = made.Load()
	}
	place := spool(t)
	for _, f := range fixtures() {
		want := f.Expect
		if slices.Contains(soft, want) {
			want = verifytest.ExpectAudit
		}
		res, err := verify.Check(bytes.NewReader(f.Raw), trusts[f.Trust], f.Options(place), nil)
		if got := outcome(res, err); got != want {
			t.Errorf("%s: %s at level audit (%v), want %s", f.Name, got, err, want)
		}
		if want == verifytest.ExpectAudit && len(res.Verdict.Softened) == 0 {
			t.Errorf("%s: nothing is softened", f.Name)
		}
	}
}

// TestAttemptsAreJudgedWithoutFloors, but by everything else.
func TestAttemptsAreJudgedWithoutFloors(t *testing.T) {
	trusts := loadTrusts()
	floors := []verify.Reason{verify.VersionReused, verify.Rollback, verify.SequenceReused, verify.SequenceJump}
	for _, f := range fixtures() {
		info := verify.ReasonInfo{}
		for _, r := range verify.Reasons() {
			if string(r.Reason) == f.Expect {
				info = r
			}
		}
		if info.Stage != verify.StagePolicy && info.Stage != verify.StageSignatures {
			continue
		}
		want := f.Expect
		if slices.Contains(floors, verify.Reason(want)) {
			want = verifytest.ExpectAdmit
		}
		verdict, err := judge(t, trusts[f.Trust], f.Raw, f.Now)
		if got := outcome(&verify.Result{Verdict: verdict}, err); got != want {
			t.Errorf("%s: %s (%v), want %s", f.Name, got, err, want)
		}
	}
}

func TestARevocationEndsWhatWasAdmitted(t *testing.T) {
	made := verifytest.NewTrust()
	raw := verifytest.NewBundle().Sign("acme-1")
	if _, err := judge(t, made.Load(), raw, verifytest.Now()); err != nil {
		t.Fatal(err)
	}
	from := verifytest.Now()
	for _, c := range []struct {
		name   string
		revoke manifests.Revocation
		want   verify.Reason
	}{
		{"its key", manifests.Revocation{Key: verifytest.KeyID("acme-1"), From: from}, verify.RevokedKey},
		{"its manifest", manifests.Revocation{Manifest: verifytest.NewBundle().Digest(), From: from}, verify.RevokedManifest},
		{"a file", manifests.Revocation{Blob: bundle.Digest([]byte("one\ntwo\n")), From: from}, verify.RevokedBlob},
	} {
		c.revoke.Reason = "why"
		made.Revocations.Revoked = []manifests.Revocation{c.revoke}
		trust := made.Load()
		refused := wantReason(t, second(judge(t, trust, raw, from)), c.want)
		if !strings.Contains(refused.Detail, "why") {
			t.Errorf("%s: %v does not say why", c.name, refused)
		}
		if _, err := judge(t, trust, raw, from.Add(-1)); err != nil {
			t.Errorf("%s: a nanosecond before its from: %v", c.name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestASignerThatDoesNotCountIsNamed: two signed, one is enough.
func TestASignerThatDoesNotCountIsNamed(t *testing.T) {
	raw := verifytest.NewBundle().Sign("acme-1", "acme-2")
	made := verifytest.NewTrust()
	made.Revocations.Revoked = []manifests.Revocation{{Key: verifytest.KeyID("acme-2")}}
	v, err := judge(t, made.Load(), raw, verifytest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Signers) != 1 || v.Signers[0].ID != verifytest.KeyID("acme-1") {
		t.Errorf("signers %+v", v.Signers)
	}
	if want := "not counted: " + verifytest.KeyID("acme-2") + ": REVOKED_KEY"; !slices.Contains(v.Checks, want) {
		t.Errorf("checks %q lack %q", v.Checks, want)
	}
	made.Acme().Threshold = 2
	refused := wantReason(t, second(judge(t, made.Load(), raw, verifytest.Now())), verify.RevokedKey)
	if !strings.Contains(refused.Detail, "1 of 2") {
		t.Errorf("%v does not count", refused)
	}
}

func TestAVerdictSaysWhatWasJudged(t *testing.T) {
	trust := loadTrusts()["attestation-demanded"]
	var f verifytest.Fixture
	for _, f = range fixtures() {
		if f.Name == "attested" {
			break
		}
	}
	res, err := verify.Check(bytes.NewReader(f.Raw), trust, f.Options(spool(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, m := res.Verdict, verifytest.NewBundle().Manifest
	if v.Decision != verify.Admitted || v.Digest != res.Digest || v.Kind != "data" || v.Publisher != "acme" || v.Name != m.Name ||
		v.Version != m.Version || v.Sequence != m.Sequence || v.Threshold != 1 || v.Trust != trust.Ref() || v.Now != "2026-11-23T08:00:00.000000000Z" {
		t.Errorf("verdict %+v", v)
	}
	if len(v.Attestations) != 2 || len(res.Attestations) != 3 {
		t.Errorf("%d of %d attestations count", len(v.Attestations), len(res.Attestations))
	}
	if want := []string{"signatures", "trust", "revocations", "signers", "kind", "name", "validity", "floors", "attestations"}; !slices.Equal(v.Checks, want) {
		t.Errorf("checks %q, want %q", v.Checks, want)
	}
	a := res.Admission()
	if a.FileSHA256 != bundle.Digest(f.Raw) || a.FileBytes != int64(len(f.Raw)) || a.Blobs != 2 || a.Bytes != 1508 || len(a.Signatures) != 1 || a.ContentDigest != res.Manifest.ContentDigest {
		t.Errorf("admission %+v", a)
	}
	if res.Rejection(nil) != nil || res.Rejection(errors.New("disk")) != nil {
		t.Error("a fault is taken for a refusal")
	}
}

func TestFloorsEdges(t *testing.T) {
	raw := verifytest.NewBundle().Sign("acme-1")
	trust, sequence, digest := verifytest.NewTrust().Load(), verifytest.NewBundle().Manifest.Sequence, verifytest.NewBundle().Digest()
	other := strings.Repeat("0", 64)
	for _, c := range []struct {
		name   string
		floors verify.Floors
		want   string
	}{
		{"first sight", verify.Floors{}, verifytest.ExpectAdmit},
		{"one above", verify.Floors{Sequence: sequence - 1, Digest: other}, verifytest.ExpectAdmit},
		{"the floor itself", verify.Floors{Sequence: sequence, Digest: digest, Version: digest}, verifytest.ExpectAdmit},
		{"admitted, and others since", verify.Floors{Admitted: true, Sequence: sequence + 5, Digest: other, Version: digest}, verifytest.ExpectAdmit},
		{"another digest of this version", verify.Floors{Version: other}, string(verify.VersionReused)},
	} {
		f := verifytest.Fixture{Raw: raw, Now: verifytest.Now(), Floors: &c.floors}
		res, err := verify.Check(bytes.NewReader(raw), trust, f.Options(spool(t)), nil)
		if got := outcome(res, err); got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
		}
	}
	jump := verifytest.NewBundle()
	jump.Manifest.Sequence = 1_000_000 + sequence
	f := verifytest.Fixture{Now: verifytest.Now(), Floors: &verify.Floors{Sequence: sequence, Digest: other}}
	if _, err := verify.Check(bytes.NewReader(jump.Sign("acme-1")), trust, f.Options(spool(t)), nil); err != nil {
		t.Errorf("a million above the floor: %v", err)
	}
}

func TestCapabilityCeilings(t *testing.T) {
	plugin := func(edit func(*manifests.Plugin)) []byte {
		b := verifytest.NewPlugin()
		edit(b.Manifest.Plugin)
		return b.Sign("acme-1")
	}
	limits := func(l manifests.Limits) []byte {
		return plugin(func(p *manifests.Plugin) { p.Actions = map[string]manifests.Action{"greet": {Limits: l}} })
	}
	made := verifytest.NewTrust()
	made.Acme().Allow = manifests.Allow{
		Network: "loopback", HostRead: []string{"/var/lib", "/opt/data"}, Interpreters: []string{"/bin/sh"},
		Limits: manifests.Limits{Memory: 1 << 20, CPU: 1, PIDs: 8, Timeout: time.Minute, Workspace: 1 << 20, Log: 1 << 20},
		Secrets: []manifests.SecretGrant{
			{Name: "db", Tenants: []string{"default"}, DAGs: []string{"nightly"}, Plugins: []string{"acme.greet"}},
			{Name: "api", Tenants: []string{"default"}, DAGs: []string{"nightly"}, Plugins: []string{"acme.other"}}},
	}
	trust := made.Load()
	for _, c := range []struct {
		name string
		raw  []byte
		want string // subject of the refusal, "" for none
	}{
		{"nothing", plugin(func(*manifests.Plugin) {}), ""},
		{"loopback", plugin(func(p *manifests.Plugin) { p.Network = "loopback" }), ""},
		{"an allowed path", plugin(func(p *manifests.Plugin) { p.HostRead = []string{"/opt/data"} }), ""},
		{"a path below", plugin(func(p *manifests.Plugin) { p.HostRead = []string{"/var/lib/dpkg"} }), ""},
		{"a path beside", plugin(func(p *manifests.Plugin) { p.HostRead = []string{"/var/lib/dpkg", "/var/library"} }), "plugin.host_read"},
		{"a path above", plugin(func(p *manifests.Plugin) { p.HostRead = []string{"/var"} }), "plugin.host_read"},
		{"the shell", plugin(func(p *manifests.Plugin) { p.Interpreter = "/bin/sh" }), ""},
		{"another shell", plugin(func(p *manifests.Plugin) { p.Interpreter = "/bin/bash" }), "plugin.interpreter"},
		{"its own interpreter", plugin(func(p *manifests.Plugin) { p.Interpreter = "greet.sh" }), ""},
		{"a granted secret", plugin(func(p *manifests.Plugin) {
			p.Actions = map[string]manifests.Action{"greet": {Secrets: []string{"db"}}}
		}), ""},
		{"another secret", plugin(func(p *manifests.Plugin) {
			p.Actions = map[string]manifests.Action{"a": {}, "greet": {Secrets: []string{"db", "root"}}}
		}), "plugin.actions.greet.secrets"},
		{"a secret granted to another plugin", plugin(func(p *manifests.Plugin) {
			p.Actions = map[string]manifests.Action{"greet": {Secrets: []string{"api"}}}
		}), "plugin.actions.greet.secrets"},
		{"all limits", limits(manifests.Limits{Memory: 1 << 20, CPU: 1, PIDs: 8, Timeout: time.Minute, Workspace: 1 << 20, Log: 1 << 20}), ""},
		{"memory", limits(manifests.Limits{Memory: 1<<20 + 1}), "plugin.actions.greet.limits.memory"},
		{"cpu", limits(manifests.Limits{CPU: 1.5}), "plugin.actions.greet.limits.cpu"},
		{"pids", limits(manifests.Limits{PIDs: 9}), "plugin.actions.greet.limits.pids"},
		{"timeout", limits(manifests.Limits{Timeout: time.Minute + time.Millisecond}), "plugin.actions.greet.limits.timeout"},
		{"workspace", limits(manifests.Limits{Workspace: 1<<20 + 1}), "plugin.actions.greet.limits.workspace"},
		{"log", limits(manifests.Limits{Log: 1<<20 + 1}), "plugin.actions.greet.limits.log"},
	} {
		_, err := judge(t, trust, c.raw, verifytest.Now())
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if refused := wantReason(t, err, verify.CapabilityExceeded); refused.Subject != c.want {
			t.Errorf("%s: %v, want %s", c.name, refused, c.want)
		}
	}
}

// TestConfusion puts every signed object into every slot that verifies. Only
// what was made for a slot passes.
func TestConfusion(t *testing.T) {
	made := verifytest.NewTrust()
	files, trust, now := made.Files(), made.Load(), verifytest.Now()
	data, other, plugin := verifytest.NewBundle(), verifytest.NewPlugin(), verifytest.NewPlugin()
	plugin.Manifest.Publisher, plugin.Manifest.Name = "other", "other.greet"
	manifestOf := func(b *verifytest.Bundle) []byte { _, p := b.Pack(noOptions()); return p.Raw }
	objects := map[string][]byte{
		"data": manifestOf(data), "plugin": manifestOf(other), "other": manifestOf(plugin),
		"root": files.Roots[0].Raw, "policy": files.Policy.Raw, "revocations": files.Revocations.Raw,
	}
	keys := []string{"acme-1", "other-1", "root", "policy", "revocation", "builder", "stranger"}
	right := map[string]string{"data": "acme-1", "plugin": "acme-1", "other": "other-1", "root": "root", "policy": "policy", "revocations": "revocation"}
	var good int
	for signed, raw := range objects {
		for _, key := range keys {
			sigs := verifytest.Signatures(raw, key)
			statement := verifytest.Attestation(bundle.Digest(raw), verifytest.Review, "1", key)
			statement.ID = verifytest.KeyID(key)
			for slot, over := range objects {
				for _, form := range []string{"signature", "statement"} {
					use := sigs
					if form == "statement" {
						use = attached(statement)
					}
					err := inSlot(t, trust, files, slot, over, use, now)
					want := signed == slot && key == right[slot] && form == "signature"
					if (err == nil) != want {
						t.Errorf("%s by %s over %s, in the slot of %s: %v", form, key, signed, slot, err)
					}
					if want {
						good++
					}
				}
			}
		}
	}
	if good != len(objects) {
		t.Errorf("%d of %d controls passed", good, len(objects))
	}
}

// inSlot verifies raw, with signatures, as what the slot says.
func inSlot(t *testing.T, trust *verify.Trust, files verify.Files, slot string, raw []byte, sigs []bundle.Attached, now time.Time) error {
	t.Helper()
	r := verify.RoleFile{Raw: raw, Signatures: sigs}
	switch slot {
	case "root":
		files.Roots = []verify.RoleFile{r}
	case "policy":
		files.Policy = r
	case "revocations":
		files.Revocations = r
	default:
		return second(trust.Rejudge(verify.Evidence{Manifest: raw, Signatures: sigs}, verifytest.SiteID, verifytest.Stella, now))
	}
	return second(verify.Load(files))
}

func TestAnotherRoleOfATrustBundle(t *testing.T) {
	b := verifytest.NewBundle()
	b.Manifest.Kind, b.Manifest.Data, b.Manifest.Audience = manifests.KindTrust, nil, []string{verifytest.FleetID}
	b.Manifest.Trust = &manifests.TrustFiles{Root: "root.toml", Policy: "policy.toml", Revocations: "revocations.toml"}
	b.Files = map[string]string{"root.toml": "1", "policy.toml": "2", "revocations.toml": "3"}
	made := verifytest.NewTrust()
	made.Root.Roles["policy"] = role(2, "policy", "policy-2")
	files := made.Files()
	files.Policy = verifytest.Signed(files.Policy.Raw, "policy", "policy-2")
	trust, err := verify.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want verify.Reason
		keys []string
	}{
		{"", []string{"root", "policy", "policy-2", "revocation"}},
		{"", []string{"root", "policy", "policy-2", "revocation", "acme-1"}},
		{verify.ThresholdNotMet, []string{"root", "policy", "revocation"}},
		{verify.ThresholdNotMet, []string{"policy", "policy-2", "revocation"}},
		{verify.ThresholdNotMet, []string{"root", "policy", "policy-2"}},
		{verify.SignerForeign, []string{"acme-1"}},
	} {
		v, err := judge(t, trust, b.Sign(c.keys...), verifytest.Now())
		if c.want != "" {
			wantReason(t, err, c.want)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Signers) != 4 || v.Threshold != 2 {
			t.Errorf("signers %+v, threshold %d", v.Signers, v.Threshold)
		}
	}
}

func TestAP384KeyOfAPolicy(t *testing.T) {
	raw, sig, pem := signedWithP384(t)
	made := verifytest.NewTrust()
	made.Acme().Keys[0].PEM = pem
	v, err := judge(t, made.Load(), verifytest.Attach(raw, attached(sig), nil), verifytest.Now())
	if err != nil || len(v.Signers) != 1 {
		t.Fatalf("%v", err)
	}
}

func TestJudgeNeedsItsInput(t *testing.T) {
	trust := verifytest.NewTrust().Load()
	if _, err := trust.Judge(verify.Input{}); err == nil || refused(err) {
		t.Errorf("Judge = %v", err)
	}
}
