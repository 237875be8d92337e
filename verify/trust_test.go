package verify_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// wantTrustError fails unless err is about that file and says why.
func wantTrustError(t *testing.T, err error, file, why string) {
	t.Helper()
	var trust *verify.TrustError
	if !errors.As(err, &trust) || trust.File != file || !strings.Contains(err.Error(), why) {
		t.Errorf("Load = %v, want an error of %s that says %q", err, file, why)
	}
}

func role(threshold int, keys ...string) manifests.Role {
	r := manifests.Role{Threshold: threshold}
	for _, k := range keys {
		r.Keys = append(r.Keys, verifytest.PEM(k))
	}
	return r
}

func TestTrustNamesItsFiles(t *testing.T) {
	made := verifytest.NewTrust()
	files := made.Files()
	trust, err := verify.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	ref := trust.Ref()
	if ref.Root != bundle.Digest(files.Roots[0].Raw) || ref.Policy != bundle.Digest(files.Policy.Raw) || ref.Revocations != bundle.Digest(files.Revocations.Raw) {
		t.Errorf("ref %+v", ref)
	}
	if ref.RootVersion != 1 || ref.PolicySerial != 1 || ref.RevocationSerial != 1 || ref.TrustedRoot != "" {
		t.Errorf("ref %+v", ref)
	}
	change := trust.Change("because")
	if len(change.Signatures) != 3 || !slices.IsSorted(change.Signatures) || change.Reason != "because" || change.Policy != ref.Policy {
		t.Errorf("change %+v", change)
	}
	if trust.Publisher("acme").Threshold != 1 || trust.Publisher("nobody") != nil {
		t.Error("publishers are wrong")
	}
	made.Revocations = nil
	if ref := made.Load().Ref(); ref.Revocations != "" {
		t.Error("revocations appear from nowhere")
	}
}

func TestEveryChangedByteOfATrustFileIsRefused(t *testing.T) {
	for _, at := range []struct {
		name string
		file func(*verify.Files) *verify.RoleFile
	}{
		{"root/1.toml", func(f *verify.Files) *verify.RoleFile { return &f.Roots[0] }},
		{"policy.toml", func(f *verify.Files) *verify.RoleFile { return &f.Policy }},
		{"revocations.toml", func(f *verify.Files) *verify.RoleFile { return &f.Revocations }},
	} {
		for _, part := range []func(*verify.RoleFile) []byte{
			func(r *verify.RoleFile) []byte { return r.Raw },
			func(r *verify.RoleFile) []byte { return r.Signatures[0].Data },
		} {
			files := verifytest.NewTrust().Files()
			raw := part(at.file(&files))
			for i := 0; i < len(raw); i += 1 + i%7 {
				raw[i] ^= 1
				var trust *verify.TrustError
				if _, err := verify.Load(files); !errors.As(err, &trust) {
					t.Errorf("%s, byte %d: Load = %v", at.name, i, err)
				}
				raw[i] ^= 1
			}
			if _, err := verify.Load(files); err != nil {
				t.Fatalf("%s: the control is refused: %v", at.name, err)
			}
		}
	}
}

func TestTrustFilesThatAreRefused(t *testing.T) {
	policy := func(t *verifytest.Trust) []byte { return manifests.EncodePolicy(t.Policy) }
	for _, c := range []struct {
		name, file, why string
		edit            func(t *verifytest.Trust)
		then            func(t *verifytest.Trust, f *verify.Files)
	}{
		{"no root", "root", "0 roots", nil, func(_ *verifytest.Trust, f *verify.Files) { f.Roots = nil }},
		{"an unsigned root", "root/1.toml", "0 of the 1", nil, func(_ *verifytest.Trust, f *verify.Files) { f.Roots[0].Signatures = nil }},
		{"a root signed by a stranger", "root/1.toml", "0 of the 1", nil, func(t *verifytest.Trust, f *verify.Files) { f.Roots[0] = verifytest.Signed(f.Roots[0].Raw, "stranger") }},
		{"a root signed by another role", "root/1.toml", "0 of the 1", nil, func(t *verifytest.Trust, f *verify.Files) { f.Roots[0] = verifytest.Signed(f.Roots[0].Raw, "policy") }},
		{"a root of another schema", "root", "schema", nil, func(t *verifytest.Trust, f *verify.Files) { f.Roots[0] = verifytest.Signed(policy(t), "root") }},
		{"a policy signed by a publisher", "policy.toml", "0 of the 1", nil, func(t *verifytest.Trust, f *verify.Files) { f.Policy = verifytest.Signed(policy(t), "acme-1") }},
		{"a policy signed by another role", "policy.toml", "0 of the 1", nil, func(t *verifytest.Trust, f *verify.Files) {
			f.Policy = verifytest.Signed(policy(t), "root", "revocation")
		}},
		{"a policy below the threshold", "policy.toml", "1 of the 2", func(t *verifytest.Trust) { t.Root.Roles["policy"] = role(2, "policy", "policy-2") }, nil},
		{"one signer twice", "policy.toml", "1 of the 2", func(t *verifytest.Trust) { t.Root.Roles["policy"] = role(2, "policy", "policy-2") },
			func(t *verifytest.Trust, f *verify.Files) {
				f.Policy = verifytest.Signed(policy(t), "policy", "policy")
			}},
		{"a named signer that fails", "policy.toml", "other bytes", func(t *verifytest.Trust) { t.Root.Roles["policy"] = role(1, "policy", "policy-2") },
			func(t *verifytest.Trust, f *verify.Files) {
				f.Policy.Signatures = append(f.Policy.Signatures, verifytest.Signatures([]byte("x"), "policy-2")...)
			}},
		{"a renamed signature", "policy.toml", "is by key", nil, func(_ *verifytest.Trust, f *verify.Files) { f.Policy.Signatures[0].ID = strings.Repeat("0", 64) }},
		{"a statement as a signature", "policy.toml", "is a statement", nil, func(_ *verifytest.Trust, f *verify.Files) {
			f.Policy.Signatures[0].Data = verifytest.Attestation(bundle.Digest(f.Policy.Raw), verifytest.Review, "1", "policy").Data
		}},
		{"a signature with a log entry", "policy.toml", "a log entry", nil, func(_ *verifytest.Trust, f *verify.Files) {
			f.Policy.Signatures = attached(verifytest.Logged(f.Policy.Raw, "policy", verifytest.Created()))
		}},
		{"seventeen signatures", "policy.toml", "17 signatures", nil, func(_ *verifytest.Trust, f *verify.Files) {
			f.Policy.Signatures = slices.Repeat(f.Policy.Signatures, 17)
		}},
		{"a large signature", "policy.toml", "more than", nil, func(_ *verifytest.Trust, f *verify.Files) {
			f.Policy.Signatures[0].Data = make([]byte, bundle.MaxSignature+1)
		}},
		{"a policy of a later root", "policy.toml", "root 2", func(t *verifytest.Trust) { t.Policy.RootVersion = 2 }, nil},
		{"a policy that breaks its language", "policy.toml", "serial", func(t *verifytest.Trust) { t.Policy.Serial = 0 }, nil},
		{"a role's key as a publisher's", "policy.toml", "named by role", func(t *verifytest.Trust) { t.Acme().Keys[0].PEM = verifytest.PEM("policy") }, nil},
		{"a role's key as an attester's", "policy.toml", "attests", func(t *verifytest.Trust) {
			t.Acme().Require.Attestations = []manifests.RequiredAttestation{{PredicateType: verifytest.Review, Keys: []string{verifytest.PEM("root")}}}
		}, nil},
		{"an identity without a trusted time", "policy.toml", "trusted time", func(t *verifytest.Trust) {
			t.TrustedRoot = verifytest.TrustedRoot()
			t.Acme().Identities = []manifests.Identity{{Issuer: verifytest.Issuer, SAN: "a@b.test"}}
		}, nil},
		{"revocations signed by another role", "revocations.toml", "0 of the 1", nil, func(t *verifytest.Trust, f *verify.Files) {
			f.Revocations = verifytest.Signed(f.Revocations.Raw, "policy")
		}},
		{"revocations of a later root", "revocations.toml", "root 2", func(t *verifytest.Trust) { t.Revocations.RootVersion = 2 }, nil},
		{"revocations of another schema", "revocations.toml", "schema", nil, func(t *verifytest.Trust, f *verify.Files) { f.Revocations = verifytest.Signed(policy(t), "revocation") }},
		{"a trusted root that nobody named", "trusted_root.json", "names no", nil, func(_ *verifytest.Trust, f *verify.Files) { f.TrustedRoot = verifytest.TrustedRoot() }},
		{"a trusted root that is missing", "trusted_root.json", "there is none", func(t *verifytest.Trust) { t.TrustedRoot = verifytest.TrustedRoot() }, func(_ *verifytest.Trust, f *verify.Files) { f.TrustedRoot = nil }},
		{"another trusted root", "trusted_root.json", "the policy names", func(t *verifytest.Trust) { t.TrustedRoot = verifytest.TrustedRoot() }, func(_ *verifytest.Trust, f *verify.Files) { f.TrustedRoot[9]++ }},
		{"a broken trusted root", "trusted_root.json", "proto", func(t *verifytest.Trust) { t.TrustedRoot = []byte("{") }, nil},
		{"a large trusted root", "trusted_root.json", "limit", func(t *verifytest.Trust) { t.TrustedRoot = make([]byte, 4<<20+1) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := verifytest.NewTrust()
			if c.edit != nil {
				c.edit(made)
			}
			files := made.Files()
			if c.then != nil {
				c.then(made, &files)
			}
			_, err := verify.Load(files)
			wantTrustError(t, err, c.file, c.why)
		})
	}
}

// nextRoot is root 2, whose role root has the key root-2.
func nextRoot(edit func(*manifests.Root)) []byte {
	r := verifytest.NewTrust().Root
	r.Version, r.Issued, r.Roles["root"] = 2, r.Issued.Add(time.Hour), role(1, "root-2")
	if edit != nil {
		edit(r)
	}
	return manifests.EncodeRoot(r)
}

func TestTheChainOfRoots(t *testing.T) {
	for _, c := range []struct {
		name, why string
		edit      func(*manifests.Root)
		signers   []string
	}{
		{"signed by old and new", "", nil, []string{"root", "root-2"}},
		{"and by a stranger", "", nil, []string{"root", "root-2", "stranger"}},
		{"not by the old", "by the root before", nil, []string{"root-2"}},
		{"not by the new", "0 of the 1", nil, []string{"root"}},
		{"a version left out", "3, 2 is expected", func(r *manifests.Root) { r.Version = 3 }, []string{"root", "root-2"}},
		{"the version again", "1, 2 is expected", func(r *manifests.Root) { r.Version = 1 }, []string{"root", "root-2"}},
		{"another fleet", "fleet_id", func(r *manifests.Root) { r.FleetID = strings.Repeat("0", 32) }, []string{"root", "root-2"}},
		{"issued before", "issued before", func(r *manifests.Root) { r.Issued = verifytest.Created().Add(-1) }, []string{"root", "root-2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := verifytest.NewTrust().Files()
			files.Roots = append(files.Roots, verifytest.Signed(nextRoot(c.edit), c.signers...))
			trust, err := verify.Load(files)
			if c.why != "" {
				if err == nil || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("Load = %v, want %q", err, c.why)
				}
				return
			}
			if err != nil || trust.Ref().RootVersion != 2 || trust.Root().Version != 2 {
				t.Fatalf("Load = %v", err)
			}
		})
	}
	files := verifytest.NewTrust().Files()
	moved := nextRoot(func(r *manifests.Root) { r.Roles["policy"] = role(1, "policy-2") })
	files.Roots = append(files.Roots, verifytest.Signed(moved, "root", "root-2"))
	_, err := verify.Load(files)
	wantTrustError(t, err, "policy.toml", "role policy of root 2")
	files.Policy = verifytest.Signed(files.Policy.Raw, "policy", "policy-2")
	if _, err := verify.Load(files); err != nil {
		t.Errorf("the policy, signed by the new role's key: %v", err)
	}
}

func TestFilesHaveTheirNames(t *testing.T) {
	made := verifytest.NewTrust()
	made.TrustedRoot = verifytest.TrustedRoot()
	files := made.Files()
	files.Roots = append(files.Roots, verifytest.Signed(nextRoot(nil), "root", "root-2"))
	named, err := files.Named()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"root/1.toml", "root/2.toml", "root/2.toml.signatures/" + verifytest.KeyID("root-2") + ".sigstore.json", "policy.toml", "revocations.toml", "trusted_root.json"} {
		if named[want] == nil {
			t.Errorf("%s is missing", want)
		}
	}
	again, err := verify.FilesNamed(named)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files.Roots[1].Signatures, func(a, b bundle.Attached) int { return strings.Compare(a.ID, b.ID) })
	if diff := cmp.Diff(files, again); diff != "" {
		t.Errorf("not the same files (-want +got):\n%s", diff)
	}
	for _, extra := range []string{"README", "root/1.toml.signatures/README", "policy.toml.signatures/a/b.sigstore.json", "root/02.toml", "keys/root.toml", "root.toml"} {
		bad := map[string][]byte{extra: named["root/2.toml"]}
		for name, raw := range named {
			bad[name] = raw
		}
		if _, err := verify.FilesNamed(bad); err == nil {
			t.Errorf("%s is a trust file", extra)
		}
	}
	bad := map[string][]byte{"root/1.toml": named["root/2.toml"]}
	if _, err := verify.FilesNamed(bad); err == nil {
		t.Error("root 2 is taken for root 1")
	}
	ten, err := verify.FilesNamed(map[string][]byte{
		"root/10.toml": nextRoot(func(r *manifests.Root) { r.Version = 10 }), "root/9.toml": nextRoot(func(r *manifests.Root) { r.Version = 9 }),
	})
	if err != nil || !bytes.Contains(ten.Roots[0].Raw, []byte("version = 9\n")) {
		t.Errorf("the chain is out of order: %v", err)
	}
}

func TestSuccessors(t *testing.T) {
	base := verifytest.NewTrust()
	base.Policy.Serial, base.Revocations.Serial = 5, 5
	trust, now := base.Load(), verifytest.Now()
	for _, c := range []struct {
		name string
		want verify.Reason
		edit func(*verifytest.Trust, *verify.Files)
	}{
		{"the same", "", func(*verifytest.Trust, *verify.Files) {}},
		{"a higher policy", "", func(n *verifytest.Trust, f *verify.Files) { n.Policy.Serial = 6; *f = n.Files() }},
		{"a lower policy", verify.TrustRollback, func(n *verifytest.Trust, f *verify.Files) { n.Policy.Serial = 4; *f = n.Files() }},
		{"another policy of this serial", verify.TrustRollback, func(n *verifytest.Trust, f *verify.Files) {
			n.Acme().Threshold = 2
			*f = n.Files()
		}},
		{"a policy far ahead", verify.TrustRollback, func(n *verifytest.Trust, f *verify.Files) { n.Policy.Serial = 1_000_006; *f = n.Files() }},
		{"lower revocations", verify.TrustRollback, func(n *verifytest.Trust, f *verify.Files) { n.Revocations.Serial = 4; *f = n.Files() }},
		{"no revocations", verify.TrustRollback, func(n *verifytest.Trust, f *verify.Files) { f.Revocations = verify.RoleFile{} }},
		{"a longer chain", "", func(_ *verifytest.Trust, f *verify.Files) {
			f.Roots = append(f.Roots, verifytest.Signed(nextRoot(nil), "root", "root-2"))
		}},
		{"another chain", verify.TrustRollback, func(n *verifytest.Trust, f *verify.Files) {
			n.Root.FleetID = strings.Repeat("0", 32)
			*f = n.Files()
		}},
		{"an unsigned policy", verify.TrustInvalid, func(_ *verifytest.Trust, f *verify.Files) { f.Policy.Signatures = nil }},
		{"an expired policy", verify.PolicyExpired, func(n *verifytest.Trust, f *verify.Files) {
			n.Policy.Serial, n.Policy.NextUpdate = 6, now
			*f = n.Files()
		}},
		{"a policy from the future", verify.TrustedTimeAhead, func(n *verifytest.Trust, f *verify.Files) {
			n.Policy.Serial, n.Policy.Issued = 6, now.Add(11*time.Minute)
			*f = n.Files()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			next := verifytest.NewTrust()
			next.Policy.Serial, next.Revocations.Serial = 5, 5
			files := next.Files()
			c.edit(next, &files)
			got, err := trust.Successor(files, now)
			if c.want == "" {
				if err != nil || got == nil {
					t.Fatal(err)
				}
				return
			}
			wantReason(t, err, c.want)
		})
	}
	longer := base.Files()
	longer.Roots = append(longer.Roots, verifytest.Signed(nextRoot(nil), "root", "root-2"))
	ahead, err := trust.Successor(longer, now)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ahead.Successor(base.Files(), now)
	wantReason(t, err, verify.TrustRollback)
}

// TestATrustBundleReplacesTrust goes the whole way: check, take out, succeed.
func TestATrustBundleReplacesTrust(t *testing.T) {
	now, base := verifytest.Now(), verifytest.NewTrust()
	trust := base.Load()
	var raw []byte
	for _, f := range fixtures() {
		if f.Name == "trust" {
			raw = f.Raw
		}
	}
	taken := contents{}
	res, err := verify.Check(bytes.NewReader(raw), trust, verify.Options{Now: now, Spool: spool(t)}, taken)
	if err != nil {
		t.Fatal(err)
	}
	read := func(f manifests.File) ([]byte, error) { return taken[f.SHA256], nil }
	files, err := base.Files().With(res.Manifest, read)
	if err != nil {
		t.Fatal(err)
	}
	next, err := trust.Successor(files, now)
	if err != nil {
		t.Fatal(err)
	}
	if next.Policy().Serial != 2 {
		t.Errorf("serial %d", next.Policy().Serial)
	}
	again, err := files.With(res.Manifest, read)
	if diff := cmp.Diff(files, again); err != nil || diff != "" {
		t.Errorf("a second time it changes (%v):\n%s", err, diff)
	}
	broken := errors.New("gone")
	if _, err := files.With(res.Manifest, func(manifests.File) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("With = %v", err)
	}
	if _, err := files.With(&verifytest.NewBundle().Manifest, read); err == nil {
		t.Error("a data bundle changed the trust")
	}
}

func TestARootTravelsInABundle(t *testing.T) {
	base := verifytest.NewTrust()
	root := verifytest.Signed(nextRoot(nil), "root", "root-2")
	tr := verifytest.TrustedRoot()
	policy := verifytest.NewTrust()
	policy.Policy.Serial, policy.TrustedRoot = 2, tr
	signed := policy.Files().Policy
	m := &manifests.Bundle{Kind: manifests.KindTrust, Trust: &manifests.TrustFiles{Root: "new/root.toml", Policy: "policy.toml"}}
	content := map[string][]byte{"new/root.toml": root.Raw, "policy.toml": signed.Raw, "trusted_root.json": tr}
	for _, s := range root.Signatures {
		content["new/root.toml.signatures/"+s.ID+".sigstore.json"] = s.Data
	}
	for _, s := range signed.Signatures {
		content["policy.toml.signatures/"+s.ID+".sigstore.json"] = s.Data
	}
	for path := range content {
		m.Files = append(m.Files, manifests.File{Path: path})
	}
	read := func(f manifests.File) ([]byte, error) { return content[f.Path], nil }
	files, err := base.Files().With(m, read)
	if err != nil {
		t.Fatal(err)
	}
	next, err := base.Load().Successor(files, verifytest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if next.Root().Version != 2 || next.Ref().TrustedRoot != bundle.Digest(tr) {
		t.Errorf("ref %+v", next.Ref())
	}
	if again, err := files.With(m, read); err != nil || len(again.Roots) != 2 {
		t.Errorf("a second time: %d roots, %v", len(again.Roots), err)
	}
}

// contents is a sink in memory.
type contents map[string][]byte

func (c contents) Blob(b *bundle.Blob) (verify.BlobWriter, error) {
	return &content{to: c, sum: b.SHA256}, nil
}

type content struct {
	bytes.Buffer
	to  contents
	sum string
}

func (c *content) Commit() error { c.to[c.sum] = c.Bytes(); return nil }
func (c *content) Abort() error  { return nil }
