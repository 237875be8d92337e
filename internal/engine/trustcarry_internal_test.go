package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// A place is a home in the making of which only trust is there.
type place struct {
	t     *testing.T
	home  string
	files verify.Files // in force
	had   []*inForce
}

func newPlace(t *testing.T) *place {
	trust := verifytest.NewTrust()
	trust.Revocations = nil
	role := trust.Root.Roles["policy"]
	role.Keys = append(role.Keys, verifytest.PEM("reviewer"))
	trust.Root.Roles["policy"] = role
	p := &place{t: t, home: t.TempDir(), files: trust.Files()}
	p.change()
	if err := os.WriteFile(filepath.Join(p.home, "ledger.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// change puts files in force: it seals them, and writes trust/.
func (p *place) change() *inForce {
	p.t.Helper()
	t, err := verify.Load(p.files)
	if err != nil {
		p.t.Fatal(err)
	}
	files := append(slices.Clone(p.files.Roots), p.files.Policy, p.files.Revocations)
	for _, f := range files {
		p.seal(f.Raw)
		for _, s := range f.Signatures {
			p.seal(s.Data)
		}
	}
	if err := writeTrust(filepath.Join(p.home, "trust"), p.files); err != nil {
		p.t.Fatal(err)
	}
	p.had = append(p.had, &inForce{t, p.files})
	return p.had[len(p.had)-1]
}

func (p *place) sealed(raw []byte) string {
	d := bundle.Digest(raw)
	return filepath.Join(p.home, "sealed", "sha256", d[:2], d)
}

func (p *place) seal(raw []byte) {
	path := p.sealed(raw)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) policy(serial int64, by ...string) {
	trust := verifytest.NewTrust()
	trust.Policy.Serial = serial
	p.files.Policy = verifytest.Signed(manifests.EncodePolicy(trust.Policy), by...)
	p.change()
}

func (p *place) revoke(serial int64, keys ...string) {
	r := &manifests.Revocations{Serial: serial, RootVersion: 1, Issued: verifytest.Created(), NextUpdate: verifytest.Now()}
	for _, k := range keys {
		r.Revoked = append(r.Revoked, manifests.Revocation{Key: verifytest.KeyID(k), Reason: "lost"})
	}
	slices.SortFunc(r.Revoked, func(a, b manifests.Revocation) int { return strings.Compare(a.Key, b.Key) })
	p.files.Revocations = verifytest.Signed(manifests.EncodeRevocations(r), "revocation")
	p.change()
}

// root adds a root to the chain, with keys of its own role; no change yet.
func (p *place) root(version int64, keys []string, by ...string) {
	trust := verifytest.NewTrust()
	trust.Root.Version = version
	role := manifests.Role{Threshold: 1}
	for _, k := range keys {
		role.Keys = append(role.Keys, verifytest.PEM(k))
	}
	trust.Root.Roles["root"] = role
	p.files.Roots = append(slices.Clip(p.files.Roots), verifytest.Signed(manifests.EncodeRoot(trust.Root), by...))
}

// leaver has two more roots, of which the first comes with revocations of the key that signs both:
// from later on, when the second is in force.
func (p *place) leaver() {
	p.root(2, []string{"root", "second"}, "root")
	p.revoke(1, "root")
	p.root(3, []string{"second", "third"}, "root", "third")
	p.revoke(2, "acme-1", "root")
}

// folder has trust/ as it was behind a change.
func (p *place) folder(i int) {
	if err := os.RemoveAll(filepath.Join(p.home, "trust")); err != nil {
		p.t.Fatal(err)
	}
	if err := writeTrust(filepath.Join(p.home, "trust"), p.had[i].files); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) remove(paths ...string) {
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			p.t.Fatal(err)
		}
	}
}

// What comes in force again is what the ledger that is replaced names, with files from wherever
// they are; what does not is told.
func TestNewerTrust(t *testing.T) {
	all, none := 1<<20, 0
	for name, c := range map[string]struct {
		story func(p *place)
		from  int // the copy's trust is that of this change
		known int // so many changes can be read; fewer than all: the ledger is not whole
		steps int
		want  api.NewerTrust // Why and Unsure are parts of it
	}{
		"nothing newer": {func(p *place) { p.revoke(1, "other-1") }, 1, all, 0, api.NewerTrust{}},
		"nothing newer, and trust/ is damaged": {func(p *place) {
			p.revoke(1, "other-1")
			p.remove(filepath.Join(p.home, "trust", "policy.toml"))
		}, 1, all, 0, api.NewerTrust{}},
		"many changes are one step": {func(p *place) {
			p.revoke(1, "other-1")
			p.policy(2, "policy")
			p.revoke(2, "other-1", "acme-1")
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 2, Revocations: 2}},
		"a copy that is newer than the home": {func(p *place) {
			p.revoke(1, "other-1")
			p.had = append(p.had, p.had[0]) // what the home has
		}, 1, all, 0, api.NewerTrust{}},
		"files that are in trust/ alone": {func(p *place) {
			p.revoke(1, "other-1")
			p.remove(p.sealed(p.files.Revocations.Raw))
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1}},
		"files that are nowhere, and trust/ is of before": {func(p *place) {
			p.revoke(1, "other-1")
			p.revoke(2, "acme-1")
			p.remove(p.sealed(p.files.Revocations.Raw))
			p.folder(1)
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 2, Why: "no such file"}},
		"revocations that are nowhere": {func(p *place) {
			p.revoke(1, "acme-1")
			p.remove(p.sealed(p.files.Revocations.Raw), filepath.Join(p.home, "trust"))
		}, 0, all, 0, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Why: "no such file or directory; what revocations 1 revoke is not known"}},
		"two histories": {func(p *place) {
			p.revoke(1, "other-1")
			p.files.Revocations = verify.RoleFile{}
			p.revoke(1, "acme-1")
		}, 1, all, 0, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Why: "two histories", Lost: []string{"key " + verifytest.KeyID("acme-1")}}},
		"two histories, and no ledger": {func(p *place) {
			p.revoke(1, "other-1")
			p.files.Revocations = verify.RoleFile{}
			p.revoke(1, "acme-1")
		}, 1, none, 0, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Why: "two histories", Unsure: "trust/ alone", Lost: []string{"key " + verifytest.KeyID("acme-1")}}},
		"a signature that is lost and not needed": {func(p *place) {
			p.policy(2, "policy", "reviewer")
			p.revoke(1, "acme-1")
			p.remove(p.sealed(p.files.Policy.Signatures[1].Data), filepath.Join(p.home, "trust"))
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 2, Revocations: 1}},
		"a signature that is lost and needed": {func(p *place) {
			p.policy(2, "policy")
			p.revoke(1, "acme-1")
			p.remove(p.sealed(p.files.Policy.Signatures[0].Data), filepath.Join(p.home, "trust"))
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 2, Revocations: 1, Why: "signed by 0 of the 1 keys"}},
		"roots by a key that was revoked from later on": {func(p *place) {
			p.leaver()
		}, 0, all, 3, api.NewerTrust{Root: 3, Policy: 1, Revocations: 2}},
		"roots by a key that was revoked, and one of them is lost": {func(p *place) {
			p.leaver()
			p.remove(p.sealed(p.files.Roots[2].Raw), filepath.Join(p.home, "trust"))
		}, 0, all, 2, api.NewerTrust{Root: 3, Policy: 1, Revocations: 2, Why: "no such file"}},
		"a root by a key that was revoked, in trust/ alone": {func(p *place) {
			p.leaver()
		}, 0, 2, 2, api.NewerTrust{Root: 3, Policy: 1, Revocations: 2, Why: "without revoked keys", Unsure: "trust/ alone"}},
		"what somebody has put into trust/": {func(p *place) {
			p.revoke(1, "reviewer")
			p.files.Revocations = verify.RoleFile{}
			p.policy(9, "reviewer")
			p.had = p.had[:2]
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "trust/ has newer files"}},
		"what somebody has put into trust/, and no ledger": {func(p *place) {
			p.policy(9, "reviewer")
		}, 0, none, 1, api.NewerTrust{Root: 1, Policy: 9, Unsure: "trust/ alone"}},
		"revocations, though the policy does not follow any more": {func(p *place) {
			p.policy(2, "reviewer")
			p.revoke(1, "acme-1")
			p.had[0] = revoked(p.t, p.had[0], "reviewer")
			p.files = p.had[0].files
			p.revoke(3, "reviewer", "acme-1")
			p.files.Policy = p.had[1].files.Policy
			p.change()
			p.had = slices.Delete(p.had, 3, 4) // both at once
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 2, Revocations: 3, Why: "without revoked keys"}},
		"nothing can be read": {func(p *place) {
			p.revoke(1, "acme-1")
			p.remove(filepath.Join(p.home, "trust", "policy.toml.signatures"))
		}, 0, none, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "nor trust/"}},
		"nothing can be read, nor what revokes": {func(p *place) {
			p.revoke(1, "acme-1")
			p.remove(filepath.Join(p.home, "trust", "revocations.toml.signatures"))
		}, 0, none, 0, api.NewerTrust{Unsure: "believed again", Lost: []string{"key " + verifytest.KeyID("acme-1")}}},
		"a part can be read, and trust/ cannot": {func(p *place) {
			p.revoke(1, "acme-1")
			p.revoke(2, "acme-1", "other-1")
			p.remove(filepath.Join(p.home, "trust"))
		}, 0, 2, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "nor trust/"}},
		"a part can be read, and trust/ has older files": {func(p *place) {
			p.revoke(1, "acme-1")
			p.revoke(2, "acme-1", "other-1")
			p.folder(0)
		}, 0, 2, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "other files than"}},
		"a part can be read, and trust/ has the rest": {func(p *place) {
			p.revoke(1, "acme-1")
			p.revoke(2, "acme-1", "other-1")
		}, 0, 2, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 2, Unsure: "trust/ alone"}},
		"a part can be read, and trust/ has the same": {func(p *place) {
			p.revoke(1, "acme-1")
			p.revoke(2, "acme-1", "other-1")
			p.folder(1)
		}, 1, 2, 0, api.NewerTrust{Unsure: "trust/ alone"}},
		"nothing can be read, and trust/ has what the copy has": {func(p *place) {
			p.revoke(1, "acme-1")
			p.folder(0)
		}, 0, none, 0, api.NewerTrust{Unsure: "trust/ alone"}},
		"all can be read, and trust/ has newer files": {func(p *place) {
			p.revoke(1, "acme-1")
			p.had = p.had[:1]
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "trust/ has newer files"}},
		"all can be read, and trust/ has newer files, damaged": {func(p *place) {
			p.revoke(1, "acme-1")
			p.root(2, []string{"second"}, "root", "second")
			p.policy(2, "policy")
			p.had = p.had[:1]
			p.remove(filepath.Join(p.home, "trust", "policy.toml.signatures"), filepath.Join(p.home, "trust", "root", "2.toml.signatures"))
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "trust/ has newer files"}},
		"all can be read, and trust/ has newer revocations that are damaged": {func(p *place) {
			p.revoke(1, "acme-1")
			p.had = p.had[:1]
			p.remove(filepath.Join(p.home, "trust", "revocations.toml.signatures"), filepath.Join(p.home, "trust", "root"))
		}, 0, all, 0, api.NewerTrust{Unsure: "trust/ has newer files", Lost: []string{"key " + verifytest.KeyID("acme-1")}}},
		"all can be read, and trust/ has newer files of another site": {func(p *place) {
			p.elsewhere("reviewer")
		}, 0, all, 0, api.NewerTrust{Unsure: "trust/ has newer files"}},
		"nothing can be read, and trust/ is of another site": {func(p *place) {
			p.elsewhere("reviewer")
		}, 0, none, 0, api.NewerTrust{Unsure: "begins with the root of another site"}},
		"trust/ is of another site, whose revocations are by the same key": {func(p *place) {
			p.elsewhere("revocation")
		}, 0, all, 1, api.NewerTrust{Root: 1, Policy: 1, Revocations: 1, Unsure: "trust/ has newer files"}},
		"ledger and trust/ are lost, and sealed files are here": {func(p *place) {
			p.revoke(1, "acme-1")
			p.remove(filepath.Join(p.home, "trust"), filepath.Join(p.home, "ledger.db"))
		}, 0, none, 0, api.NewerTrust{Unsure: "nor trust/"}},
		"a fresh place": {func(p *place) {
			p.leave("")
		}, 0, none, 0, api.NewerTrust{Unsure: "nothing is left"}},
		"a fresh place but for a checkpoint": {func(p *place) {
			p.leave(noteName)
		}, 0, none, 0, api.NewerTrust{Unsure: "nor trust/"}},
		"a fresh place with the key of a newer root": {func(p *place) {
			p.leave("")
			p.key(rootKey, "stranger")
		}, 0, none, 0, api.NewerTrust{Unsure: "keys/root.key has no role"}},
		"a fresh place with the root's key": {func(p *place) {
			p.leave("")
			p.key(rootKey, "root")
		}, 0, none, 0, api.NewerTrust{Unsure: "nothing is left"}},
		"the key of a newer root":         {func(p *place) { p.key(rootKey, "stranger") }, 0, all, 0, api.NewerTrust{Unsure: "keys/root.key has no role"}},
		"a rotation that was cut off":     {func(p *place) { p.key(nextKey, "stranger") }, 0, all, 0, api.NewerTrust{}},
		"the next key of who knows where": {func(p *place) { p.key(nextKey, "stranger") }, 0, none, 0, api.NewerTrust{Unsure: "keys/root.key.next has no role"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			c.story(p)
			var changes []ledger.TrustChange
			for _, x := range p.had {
				changes = append(changes, x.Change(""))
			}
			history := changes[:c.from+1]
			if strings.Contains(name, "two histories") {
				changes = append(slices.Clone(changes[:1]), changes[2:]...)
			}
			h := had{p.home, changes[:min(c.known, len(changes))], c.known == all, freshPlace(p.home)}
			got := newerTrust(p.had[c.from], history, h, verifytest.Now())
			if got == nil {
				got = &carry{}
			}
			g, w := got.told, c.want
			if len(got.steps) != c.steps || g.Root != w.Root || g.Policy != w.Policy || g.Revocations != w.Revocations || !slices.Equal(g.Lost, w.Lost) && w.Lost != nil {
				t.Errorf("%d steps, %+v; want %d, %+v", len(got.steps), g, c.steps, w)
			}
			if (g.Why == "") != (w.Why == "") || (g.Unsure == "") != (w.Unsure == "") || !strings.Contains(g.Why, w.Why) || !strings.Contains(g.Unsure, w.Unsure) {
				t.Errorf("why %q, unsure %q; want %q and %q", g.Why, g.Unsure, w.Why, w.Unsure)
			}
		})
	}
}

// revoked is trust with a key revoked, by revocations of serial 2.
func revoked(t *testing.T, in *inForce, key string) *inForce {
	t.Helper()
	f := in.files
	f.Revocations = verifytest.Signed(manifests.EncodeRevocations(&manifests.Revocations{
		Serial: 2, RootVersion: 1, Issued: verifytest.Created(), NextUpdate: verifytest.Now(),
		Revoked: []manifests.Revocation{{Key: verifytest.KeyID(key), Reason: "lost"}},
	}), "revocation")
	trust, err := verify.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return &inForce{trust, f}
}

// elsewhere has trust/ of another site, with revocations by a key in it.
func (p *place) elsewhere(by string) {
	other := verifytest.NewTrust()
	other.Root.Issued = other.Root.Issued.Add(time.Second)
	other.Root.Roles["revocation"] = manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM(by)}}
	files := other.Files()
	files.Revocations = verifytest.Signed(files.Revocations.Raw, by)
	if err := writeTrust(filepath.Join(p.home, "trust"), files); err != nil {
		p.t.Fatal(err)
	}
}

// leave has nothing in the home but one file.
func (p *place) leave(file string) {
	p.remove(p.home)
	err := os.MkdirAll(p.home, 0o700)
	if err == nil && file != "" {
		err = os.WriteFile(filepath.Join(p.home, file), nil, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// key has a key in a file of keys/.
func (p *place) key(file, name string) {
	raw, err := verify.MarshalPrivateKey(verifytest.Key(name))
	if err == nil {
		err = os.MkdirAll(filepath.Join(p.home, "keys"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(p.home, "keys", file), raw, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// An entry may say more of the files that it names than they do: each step is newer all the same,
// and there is an end.
func TestAWayEndsWhereAnEntryLies(t *testing.T) {
	p := newPlace(t)
	own := p.had[0]
	lie := own.Change("")
	lie.RevocationSerial, lie.PolicySerial = 99, lie.PolicySerial+1
	h := had{home: p.home, changes: []ledger.TrustChange{own.Change(""), lie}, whole: true}
	c := newerTrust(own, []ledger.TrustChange{own.Change("")}, h, time.Now())
	if c == nil || len(c.steps) > 0 || !strings.Contains(c.told.Why, "not newer") {
		t.Errorf("%+v", c)
	}
}
