package engine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Trust only goes forward: a key that was revoked stays revoked. A snapshot, or what is saved of
// a ledger, may be from before changes of trust that the home still has, with all files and
// signatures. What its ledger says was in force comes in force again, in the new epoch; only where
// not all of that ledger can be read does trust/ say so. The key of a root that was replaced is
// gone, besides: without its successor nobody could change anything.

// A carry is trust of a home that is newer than that of a ledger which takes its place.
type carry struct {
	steps []*inForce
	told  api.NewerTrust // says what of it is not in force behind the last of them, and why
}

// had is what a home had of trust.
type had struct {
	home    string
	changes []ledger.TrustChange // that its ledger names, the oldest first
	whole   bool                 // there are no others
	fresh   bool                 // there never was a ledger, as far as could be seen before the restore began
}

// newerTrust finds what a home had beyond own, which is in force by the copy that takes the place
// of its ledger; nil where that is nothing. history are the changes of that copy, own's the last.
func newerTrust(own *inForce, history []ledger.TrustChange, h had, now time.Time) *carry {
	c, last := &carry{}, own
	want, unsure := h.last(own)
	is := func(x ledger.TrustChange) bool { return x.Ref() == want.Ref() }
	if want != nil && !slices.ContainsFunc(history, is) {
		var fault error
		c.steps, fault = reach(own, h.changes, *want, h.files(), now)
		last = end(own, c.steps)
		c.told.Root, c.told.Policy, c.told.Revocations = want.RootVersion, want.PolicySerial, want.RevocationSerial
		if last.Ref() != want.Ref() {
			c.told.Why = fault.Error()
		}
	}
	claim := h.claim()
	if claim.beyond(last.Ref()) && (want == nil || claim.beyond(want.Ref())) {
		unsure = cmp.Or(unsure, "trust/ has newer files than the ledger that is replaced says there were")
	}
	if next := claim.follow(last, now); next != nil {
		c.steps, last = append(c.steps, next), next
		if c.told.Why == "" {
			c.told.Root, c.told.Policy, c.told.Revocations = next.Ref().RootVersion, next.Ref().PolicySerial, next.Ref().RevocationSerial
		}
	}
	c.tellLost(last, want, claim, h)
	if c.told.Unsure = unsure; c.told.Why == "" { // else it is known to have had a newer one
		c.told.Unsure = cmp.Or(h.strangeKey(last), unsure)
	}
	if len(c.steps) == 0 && c.told.Why == "" && c.told.Unsure == "" {
		return nil
	}
	return c
}

// tellLost lists what was revoked, as far as that can be read, and is not where last is in force.
func (c *carry) tellLost(last *inForce, want *ledger.TrustChange, claim trustClaim, h had) {
	if c.told.Why != "" && want.Revocations != last.Ref().Revocations {
		raw, err := h.files()(want.Revocations)
		if err != nil {
			c.told.Why += fmt.Sprintf("; what revocations %d revoke is not known", want.RevocationSerial)
		}
		c.told.Lost = revokesMore(raw, last.Revocations())
	}
	if claim.revocations > last.Ref().RevocationSerial {
		c.told.Lost = append(c.told.Lost, revokesMore(claim.revoked.Raw, last.Revocations())...)
	}
	slices.Sort(c.told.Lost)
	c.told.Lost = slices.Compact(c.told.Lost)
	c.told.Lost = c.told.Lost[:min(len(c.told.Lost), maxLost)]
}

// claim is what trust/ says of itself, nothing in a fresh place.
func (h had) claim() trustClaim {
	if h.fresh {
		return trustClaim{}
	}
	return claimOf(filepath.Join(h.home, "trust"))
}

// last is what was in force in the home, nil where nothing says so; unsure is why there may have
// been another. Only a ledger that is whole says which was the last, and even that may be a copy
// from before: what trust/ claims shows it.
func (h had) last(own *inForce) (want *ledger.TrustChange, unsure string) {
	if n := len(h.changes); n > 0 {
		want = &h.changes[n-1]
	}
	if h.fresh {
		return want, "nothing is left of the ledger that this replaces; what was revoked after the snapshot is believed again"
	}
	if h.whole && want != nil {
		return want, ""
	}
	files, err := readTrust(filepath.Join(h.home, "trust"))
	var there *verify.Trust
	if err == nil {
		there, err = verify.Load(files)
	}
	if err == nil && !bytes.Equal(files.Roots[0].Raw, own.files.Roots[0].Raw) {
		err = errors.New("it begins with the root of another site")
	}
	if err != nil {
		unsure = fmt.Sprintf("not all of the ledger that is replaced can be read, nor trust/: %v", err)
		if want == nil {
			unsure += "; what was revoked since is believed again"
		}
		return want, unsure
	}
	is := there.Change("")
	if want == nil || want.Ref() == is.Ref() || follows(is.Ref(), want.Ref()) {
		return &is, "not all of the ledger that is replaced can be read, and trust/ alone says that this was the last"
	}
	return want, "not all of the ledger that is replaced can be read, and trust/ has other files than what can"
}

// freshPlace says that there never was a ledger in this home, as far as can be seen.
func freshPlace(home string) bool {
	return !slices.ContainsFunc([]string{"ledger.db", noteName, "sealed", "trust"}, func(name string) bool {
		return !gone(filepath.Join(home, name))
	})
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// follows says whether the files of a could follow those of b.
func follows(a, b ledger.TrustRef) bool {
	older := a.RootVersion < b.RootVersion || a.PolicySerial < b.PolicySerial || a.RevocationSerial < b.RevocationSerial
	return !older && (a.RootVersion > b.RootVersion || a.PolicySerial > b.PolicySerial || a.RevocationSerial > b.RevocationSerial)
}

// reach is the way from own to a change, by as few steps as there can be: each root is signed by
// the one before. Dates are left alone: what has expired lets nothing in, and what it revokes is
// revoked. It ends where it can go no further, and fault is why; nil at the end.
func reach(own *inForce, changes []ledger.TrustChange, want ledger.TrustChange, files func(digest string) ([]byte, error), now time.Time) (steps []*inForce, fault error) {
	all := append(slices.Clone(changes), want)
	if steps, fault = way(own, all, files, now); fault == nil {
		return steps, nil
	}
	// A key may have signed a root, and be revoked since. That the roots were in force which the
	// ledger names is known: they come first, what it revokes behind them, and last what trust/
	// alone has.
	var roots []ledger.TrustChange
	for _, x := range changes {
		x.Revocations, x.RevocationSerial = own.Ref().Revocations, own.Ref().RevocationSerial
		roots = append(roots, x)
	}
	var other []*inForce
	var why error
	for _, to := range [][]ledger.TrustChange{roots, changes, all} {
		var more []*inForce
		more, why = way(end(own, other), to, files, now)
		other = append(other, more...)
	}
	if follows(end(own, other).Ref(), end(own, steps).Ref()) {
		return other, why
	}
	return steps, fault
}

// way takes steps from own towards the last of these changes, each as far as it can go.
func way(own *inForce, changes []ledger.TrustChange, files func(digest string) ([]byte, error), now time.Time) (steps []*inForce, fault error) {
	if len(changes) == 0 {
		return nil, nil
	}
	want := changes[len(changes)-1]
	for end(own, steps).Ref() != want.Ref() {
		next, fault := step(end(own, steps), changes, files, now)
		if n := end(own, steps).Ref().RootVersion; next == nil && want.RootVersion > n+1 {
			fault = fmt.Errorf("root %d is in force, and what root %d came with is not known", n, n+1)
		}
		if next == nil {
			return steps, fault
		}
		steps = append(steps, next)
	}
	return steps, nil
}

// end is what is in force at the end of a way from own.
func end(own *inForce, steps []*inForce) *inForce {
	if n := len(steps); n > 0 {
		return steps[n-1]
	}
	return own
}

// step is the newest of these changes that follows what is in force; else newer revocations alone,
// of which nothing shall be lost because a policy does not follow. fault is that of the newest.
func step(last *inForce, changes []ledger.TrustChange, files func(digest string) ([]byte, error), now time.Time) (next *inForce, fault error) {
	try := func(f verify.Files, err error) *inForce {
		var t *verify.Trust
		if err == nil {
			t, err = last.Follow(f, now)
		}
		if err == nil && !follows(t.Ref(), last.Ref()) { // the ledger says more of its files than they do
			err = errors.New("its files are not newer than what is in force")
		}
		if fault = cmp.Or(fault, err); err != nil {
			return nil
		}
		return &inForce{t, f}
	}
	for _, x := range slices.Backward(changes) {
		if x.RootVersion > last.Ref().RootVersion+1 || !follows(x.Ref(), last.Ref()) {
			continue
		}
		if next := try(filesBehind(last, x, files)); next != nil {
			return next, nil
		}
	}
	for _, x := range slices.Backward(changes) {
		if x.RevocationSerial <= last.Ref().RevocationSerial {
			continue
		}
		is := last.Ref()
		x.Root, x.Policy, x.TrustedRoot = is.Root, is.Policy, is.TrustedRoot
		if next := try(filesBehind(last, x, files)); next != nil {
			return next, nil
		}
	}
	return nil, cmp.Or(fault, errors.New("it does not follow what is in force: there are two histories"))
}

// filesBehind are the files of a change that comes behind what is in force: that one's, and what is
// new with those signatures that are here. There may be more than have to sign.
func filesBehind(last *inForce, x ledger.TrustChange, files func(digest string) ([]byte, error)) (f verify.Files, err error) {
	f = last.files
	f.Roots = slices.Clone(f.Roots)
	read := func(digest string) (raw []byte) {
		if digest != "" && err == nil {
			raw, err = files(digest)
		}
		return raw
	}
	is := last.Ref()
	if x.Root != is.Root {
		f.Roots = append(f.Roots, verify.RoleFile{Raw: read(x.Root)})
	}
	if x.Policy != is.Policy {
		f.Policy = verify.RoleFile{Raw: read(x.Policy)}
	}
	if x.Revocations != is.Revocations {
		f.Revocations = verify.RoleFile{Raw: read(x.Revocations)}
	}
	if x.TrustedRoot != is.TrustedRoot {
		f.TrustedRoot = read(x.TrustedRoot)
	}
	for _, digest := range x.Signatures {
		raw, err := files(digest)
		if err != nil {
			continue
		}
		if s, err := readRoleSignature(raw); err == nil {
			s.attach(&f)
		}
	}
	return f, err
}

// files reads the trust files of a home by their digests: sealed, or what trust/ has.
func (h had) files() func(digest string) ([]byte, error) {
	loose := map[string]string{} // digest → path, since a chain of roots may be long
	_ = filepath.WalkDir(filepath.Join(h.home, "trust"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.Type().IsRegular():
			return nil
		case len(loose) == maxRootChain*(1+maxSignatures):
			return fs.SkipAll
		}
		if raw, err := fsx.ReadFile(path, maxTrustFile); err == nil {
			loose[bundle.Digest(raw)] = path
		}
		return nil
	})
	return func(digest string) ([]byte, error) {
		if _, err := ledger.ParseHash(digest); err != nil {
			return nil, err
		}
		path := cmp.Or(loose[digest], filepath.Join(h.home, "sealed", "sha256", digest[:2], digest))
		raw, err := fsx.ReadFile(path, maxTrustFile)
		if err == nil && bundle.Digest(raw) != digest {
			err = fmt.Errorf("%s is another file than it was", path)
		}
		return raw, err
	}
}

// maxLost bounds what is told of lost revocations.
const maxLost = 100

// revokesMore lists what a file revokes that others do not.
func revokesMore(raw []byte, others *manifests.Revocations) (lost []string) {
	r, err := manifests.ParseRevocations("revocations.toml", raw)
	if err != nil {
		return nil
	}
	name := func(x manifests.Revocation) string {
		switch {
		case x.Key != "":
			return "key " + x.Key
		case x.Manifest != "":
			return "manifest " + x.Manifest
		case x.Blob != "":
			return "file " + x.Blob
		}
		return "identity " + x.SAN + " of " + x.Issuer
	}
	for _, x := range r.Revoked {
		same := func(y manifests.Revocation) bool { return name(x) == name(y) && !y.From.After(x.From) }
		if len(lost) < maxLost && !slices.ContainsFunc(others.Revoked, same) {
			lost = append(lost, name(x))
		}
	}
	return lost
}

// strangeKey says that the home has the key of a root that t does not come from; it is "" where
// nothing shows that there was one.
func (h had) strangeKey(t *inForce) string {
	for _, name := range []string{rootKey, nextKey} {
		k, err := readSigningKey(filepath.Join(h.home, "keys", name))
		if err != nil || hasRole(t.files.Roots, k.id) || name == nextKey && h.whole { // of a rotation that was cut off
			continue
		}
		return fmt.Sprintf("keys/%s has no role in root %d, nor in one before: the home may have had a newer root", name, t.Ref().RootVersion)
	}
	return ""
}

// hasRole says whether one of these roots, which were verified, names a key.
func hasRole(roots []verify.RoleFile, id string) bool {
	return slices.ContainsFunc(roots, func(f verify.RoleFile) bool {
		r, err := manifests.ParseRoot("root.toml", f.Raw)
		if err != nil {
			return false
		}
		for _, role := range r.Roles {
			for _, pem := range role.Keys {
				if pub, err := verify.ParsePublicKey([]byte(pem)); err == nil && verify.KeyID(pub) == id {
					return true
				}
			}
		}
		return false
	})
}

// putInForce does so in db with newer trust, one entry for each step, and says what came of it;
// nil where there is none.
func (c *carry) putInForce(db *store.DB, actor string) (*api.NewerTrust, error) {
	if c == nil {
		return nil, nil
	}
	for _, next := range c.steps {
		if err := sealTrust(db.Blobs(), next.files); err != nil {
			return nil, err
		}
		entry := next.Change("trust does not go back with the ledger")
		var err error
		if c.told.Seq, err = db.Append(ledger.TrustChanged, actor, &entry); err != nil {
			return nil, err
		}
		if err := writeTrust(filepath.Join(db.Home(), "trust"), next.files); err != nil {
			return nil, err
		}
	}
	return &c.told, nil
}

func (c *carry) tell() *api.NewerTrust {
	if c == nil {
		return nil
	}
	return &c.told
}
