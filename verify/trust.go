package verify

import (
	"crypto/ecdsa"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// MaxTrustedRoot is how many bytes a trusted_root.json may have.
const MaxTrustedRoot = 4 << 20

const maxRoots = 1024 // in the chain

// A TrustError says which trust file is not valid, and why.
type TrustError struct {
	File string // as on disk below trust/: root/2.toml, policy.toml, …
	Err  error
}

func (e *TrustError) Error() string { return e.File + ": " + e.Err.Error() }
func (e *TrustError) Unwrap() error { return e.Err }

// Trust is what a site believes. It never changes, and may be used by several
// goroutines at once.
type Trust struct {
	root        *manifests.Root
	policy      *manifests.Policy
	policyText  []byte
	revocations *manifests.Revocations // never nil
	ref         ledger.TrustRef
	roots       []string // digests of the chain
	signatures  []string // digests of all role signatures
	publishers  map[string]*publisher
	keys        map[string]*namedKey // by id
	material    root.TrustedMaterial // of trusted_root.json; empty without
	extension   *manifests.Extension // nil without one
	recalled    bool                 // it is of a [Past]: nothing asks who has signed its files
}

// namedKey is a key that a trust file names: roles, or one publisher.
type namedKey struct {
	id        string
	hint      string // as a Sigstore bundle writes the id
	pub       *ecdsa.PublicKey
	roles     []string
	publisher *publisher
	window    manifests.PublisherKey
	verifier  root.TimeConstrainedVerifier
}

// publisher is a policy entry, made ready.
type publisher struct {
	manifests.Publisher
	identities []*identity
	attesters  []attester // like Require.Attestations
}

// Load verifies the chain of roots, each by the thresholds of itself and of the
// one before, then policy and revocations by the roles of the last root. It
// checks no dates: an expired trust still judges its own successor. Errors are
// [*TrustError].
func Load(files Files) (*Trust, error) { return load(files, false) }

// load is Load. Of recalled files it takes for granted that they are signed.
func load(files Files, recalled bool) (*Trust, error) {
	t := &Trust{recalled: recalled, keys: map[string]*namedKey{}, publishers: map[string]*publisher{}, revocations: new(manifests.Revocations)}
	if err := t.loadRoots(files.Roots); err != nil {
		return nil, err
	}
	if err := t.loadPolicy(files.Policy); err != nil {
		return nil, &TrustError{"policy.toml", err}
	}
	if err := t.loadRevocations(files.Revocations); err != nil {
		return nil, &TrustError{"revocations.toml", err}
	}
	if err := t.loadMaterial(files.TrustedRoot); err != nil {
		return nil, &TrustError{"trusted_root.json", err}
	}
	for i := range t.policy.Publishers {
		if err := t.addPublisher(&t.policy.Publishers[i]); err != nil {
			return nil, &TrustError{"policy.toml", fmt.Errorf("publisher %s: %w", t.policy.Publishers[i].Name, err)}
		}
	}
	slices.Sort(t.signatures)
	t.signatures = slices.Compact(t.signatures)
	return t, nil
}

// loadRoots verifies the chain and takes the role keys of its last root.
func (t *Trust) loadRoots(files []RoleFile) error {
	if len(files) == 0 || len(files) > maxRoots {
		return &TrustError{"root", fmt.Errorf("%d roots; at least 1 and at most %d are expected", len(files), maxRoots)}
	}
	for i, f := range files {
		r, err := t.nextRoot(f)
		if err != nil {
			name := "root"
			switch {
			case r != nil:
				name = fmt.Sprintf("root/%d.toml", r.Version)
			case t.root != nil:
				name = fmt.Sprintf("root/%d.toml", t.root.Version+1)
			}
			return &TrustError{name, err}
		}
		t.root = r
		t.roots = append(t.roots, bundle.Digest(files[i].Raw))
	}
	t.ref.Root, t.ref.RootVersion = t.roots[len(t.roots)-1], t.root.Version
	keys, err := roleKeys(t.root)
	if err != nil {
		return &TrustError{fmt.Sprintf("root/%d.toml", t.root.Version), err}
	}
	t.keys = keys
	return nil
}

// nextRoot verifies f as the successor of the last root, or as the first.
func (t *Trust) nextRoot(f RoleFile) (*manifests.Root, error) {
	if t.root != nil {
		if err := t.signed(f, t.root, RoleRoot); err != nil {
			return nil, fmt.Errorf("by the root before: %w", err)
		}
	}
	r, err := manifests.ParseRoot("root.toml", f.Raw)
	if err != nil {
		return nil, err
	}
	if err := t.signed(f, r, RoleRoot); err != nil {
		return r, err
	}
	switch {
	case t.root == nil:
	case r.Version != t.root.Version+1:
		return r, fmt.Errorf("its version is %d, %d is expected", r.Version, t.root.Version+1)
	case r.FleetID != t.root.FleetID:
		return r, fmt.Errorf("its fleet_id is not that of the root before")
	case r.Issued.Before(t.root.Issued):
		return r, fmt.Errorf("it was issued before the root before")
	}
	return r, nil
}

// roleKeys makes the keys of all roles ready.
func roleKeys(r *manifests.Root) (map[string]*namedKey, error) {
	keys := map[string]*namedKey{}
	for _, role := range []string{RoleRoot, RolePolicy, RoleRevocation, RoleBreakGlass} {
		for _, pem := range r.Roles[role].Keys {
			k, err := newKey(pem)
			if err != nil {
				return nil, fmt.Errorf("role %s: %w", role, err)
			}
			if known := keys[k.id]; known != nil {
				k = known
			}
			k.roles = append(k.roles, role)
			keys[k.id] = k
		}
	}
	return keys, nil
}

// signed checks that the role's threshold of distinct keys signed f. Signatures
// by others are left alone; one by a key of the role that fails is an error.
func (t *Trust) signed(f RoleFile, r *manifests.Root, role string) error {
	if t.recalled {
		return nil
	}
	keys, err := roleKeys(r)
	if err != nil {
		return err
	}
	if len(f.Signatures) > bundle.MaxSignatures {
		return fmt.Errorf("%d signatures, the limit is %d", len(f.Signatures), bundle.MaxSignatures)
	}
	signers := map[string]bool{}
	for _, s := range f.Signatures {
		signer, err := verifyRole(f.Raw, s, keys)
		if err != nil {
			return err
		}
		if signer == nil {
			continue
		}
		t.signatures = append(t.signatures, bundle.Digest(s.Data))
		if slices.Contains(signer.roles, role) {
			signers[signer.id] = true
		}
	}
	if want := r.Roles[role].Threshold; len(signers) < want {
		return fmt.Errorf("signed by %d of the %d keys that role %s of root %d demands", len(signers), want, role, r.Version)
	}
	return nil
}

// verifyRole verifies one signature over raw; nil if its key is not in keys.
func verifyRole(raw []byte, s bundle.Attached, keys map[string]*namedKey) (*namedKey, error) {
	if len(s.Data) > bundle.MaxSignature {
		return nil, fmt.Errorf("signature %s has more than %d bytes", s.ID, bundle.MaxSignature)
	}
	f, err := parse(s.Data)
	if err != nil {
		return nil, fmt.Errorf("signature %s: %w", s.ID, err)
	}
	k := keys[f.id]
	switch {
	case f.id != s.ID:
		return nil, fmt.Errorf("signature %s is by key %s", s.ID, f.id)
	case f.isStatement():
		return nil, fmt.Errorf("signature %s is a statement", s.ID)
	case k == nil || f.leaf != nil:
		return nil, nil
	}
	m := k.material(nil)
	if what := (demands{}).extra(f); what != "" {
		return nil, fmt.Errorf("signature %s brings %s that nothing verifies", s.ID, what)
	}
	if !f.over(raw, m.hash()) {
		return nil, fmt.Errorf("signature %s is over other bytes", s.ID)
	}
	if _, err := f.verify(raw, demands{}, m); err != nil {
		return nil, fmt.Errorf("signature %s: %w", s.ID, err)
	}
	return k, nil
}

func (t *Trust) loadPolicy(f RoleFile) error {
	if err := t.signed(f, t.root, RolePolicy); err != nil {
		return err
	}
	p, err := manifests.ParsePolicy("policy.toml", f.Raw)
	if err != nil {
		return err
	}
	if p.RootVersion > t.root.Version {
		return fmt.Errorf("it belongs to root %d, the newest here is %d", p.RootVersion, t.root.Version)
	}
	t.policy, t.policyText = p, f.Raw
	t.ref.Policy, t.ref.PolicySerial = bundle.Digest(f.Raw), p.Serial
	return nil
}

func (t *Trust) loadRevocations(f RoleFile) error {
	if len(f.Raw) == 0 {
		return nil
	}
	if err := t.signed(f, t.root, RoleRevocation); err != nil {
		return err
	}
	r, err := manifests.ParseRevocations("revocations.toml", f.Raw)
	if err != nil {
		return err
	}
	if r.RootVersion > t.root.Version {
		return fmt.Errorf("it belongs to root %d, the newest here is %d", r.RootVersion, t.root.Version)
	}
	t.revocations = r
	t.ref.Revocations, t.ref.RevocationSerial = bundle.Digest(f.Raw), r.Serial
	return nil
}

// loadMaterial reads trusted_root.json, which the policy pins by its digest.
func (t *Trust) loadMaterial(raw []byte) error {
	t.material = &root.BaseTrustedMaterial{}
	want := t.policy.TrustedRootSHA256
	switch {
	case want == "" && len(raw) == 0:
		return nil
	case want == "":
		return fmt.Errorf("the policy names no trusted_root_sha256")
	case len(raw) == 0:
		return fmt.Errorf("the policy names %s, and there is none", want)
	case len(raw) > MaxTrustedRoot:
		return fmt.Errorf("%d bytes, the limit is %d", len(raw), MaxTrustedRoot)
	case bundle.Digest(raw) != want:
		return fmt.Errorf("its SHA-256 is %s, the policy names %s", bundle.Digest(raw), want)
	}
	tr, err := root.NewTrustedRootFromJSON(raw)
	if err != nil {
		return err
	}
	t.material, t.ref.TrustedRoot = tr, want
	return nil
}

// Ref names the trust files, for verdicts and entries.
func (t *Trust) Ref() ledger.TrustRef { return t.ref }

// Change is the entry that puts this trust in force.
func (t *Trust) Change(reason string) ledger.TrustChange {
	return ledger.TrustChange{
		Root: t.ref.Root, RootVersion: t.ref.RootVersion,
		Policy: t.ref.Policy, PolicySerial: t.ref.PolicySerial,
		Revocations: t.ref.Revocations, RevocationSerial: t.ref.RevocationSerial,
		TrustedRoot: t.ref.TrustedRoot, Signatures: slices.Clone(t.signatures), Reason: reason,
	}
}

// Root is the newest root. It is not to be changed.
func (t *Trust) Root() *manifests.Root { return t.root }

// Policy is the policy in force. It is not to be changed.
func (t *Trust) Policy() *manifests.Policy { return t.policy }

// Revocations are those in force. They are not to be changed.
func (t *Trust) Revocations() *manifests.Revocations { return t.revocations }

// Publisher is the policy entry of a publisher, nil if there is none. It is not
// to be changed.
func (t *Trust) Publisher(name string) *manifests.Publisher {
	if p := t.publishers[name]; p != nil {
		return &p.Publisher
	}
	return nil
}

// Successor verifies files as what follows t, at now: the same chain of roots
// or one that goes on from it, serials that never fall, and the same serial
// only with the same bytes. A refusal is a [*RejectError].
func (t *Trust) Successor(files Files, now time.Time) (*Trust, error) {
	next, err := t.Follow(files, now)
	if err != nil {
		return nil, err
	}
	if err := next.fresh(t, now); err != nil {
		return nil, err
	}
	return next, nil
}

// Follow is [Trust.Successor] but for the dates of the files.
func (t *Trust) Follow(files Files, now time.Time) (*Trust, error) {
	next, err := Load(files)
	if err != nil {
		return nil, reject(TrustInvalid, "", "%v", err).because(err)
	}
	if len(next.roots) < len(t.roots) || !slices.Equal(next.roots[:len(t.roots)], t.roots) {
		return nil, reject(TrustRollback, "root.toml", "the chain of roots does not go on from the one in force")
	}
	if err := t.serials(next); err != nil {
		return nil, err
	}
	if err := t.unrevoked(files, next, now); err != nil {
		return nil, err
	}
	if err := next.keepsRoles(); err != nil {
		return nil, err
	}
	return next, nil
}

// serials refuses policy and revocations that are older than those of t.
func (t *Trust) serials(next *Trust) error {
	a, b := t.ref, next.ref
	if err := notOlder("policy.toml", a.PolicySerial, b.PolicySerial, a.Policy, b.Policy); err != nil {
		return err
	}
	if a.Revocations == "" && b.Revocations == "" { // none has the serial 0
		return nil
	}
	return notOlder("revocations.toml", a.RevocationSerial, b.RevocationSerial, a.Revocations, b.Revocations)
}

// keepsRoles refuses revocations that leave a role fewer keys than must sign, now
// or later: nobody could change trust any more, nor take them back.
func (t *Trust) keepsRoles() error {
	for _, role := range []string{RoleRoot, RolePolicy, RoleRevocation} {
		if left, want := t.KeysLeft(role, t.revocations.Revoked), t.root.Roles[role].Threshold; left < want {
			return reject(TrustInvalid, "revocations.toml", "they leave role %s %d keys of the %d that must sign: another key takes the place of one that is revoked first", role, left, want)
		}
	}
	return nil
}

// KeysLeft is the number of keys of a role that revocations do not name, from
// whatever time on.
func (t *Trust) KeysLeft(role string, revoked []manifests.Revocation) int {
	left := 0
	for id, k := range t.keys {
		named := func(r manifests.Revocation) bool { return r.Key == id }
		if slices.Contains(k.roles, role) && !slices.ContainsFunc(revoked, named) {
			left++
		}
	}
	return left
}

// unrevoked checks that what files bring anew is signed by enough keys that t has
// not revoked. What is in force already is history: it was signed before.
func (t *Trust) unrevoked(files Files, next *Trust, now time.Time) error {
	check := func(name string, f RoleFile, r *manifests.Root, role string) error {
		var left []bundle.Attached
		for _, s := range f.Signatures {
			if !t.Revoked(s.ID, now) {
				left = append(left, s)
			}
		}
		scratch := &Trust{}
		if err := scratch.signed(RoleFile{f.Raw, left}, r, role); err != nil {
			return reject(TrustInvalid, name, "without revoked keys it is %v", err)
		}
		return nil
	}
	by := t.root
	for _, f := range files.Roots[len(t.roots):] {
		if err := check("root.toml", f, by, RoleRoot); err != nil {
			return err
		}
		r, err := manifests.ParseRoot("root.toml", f.Raw)
		if err != nil {
			return reject(TrustInvalid, "root.toml", "%v", err).because(err)
		}
		if err := check("root.toml", f, r, RoleRoot); err != nil {
			return err
		}
		by = r
	}
	if next.ref.Policy != t.ref.Policy {
		if err := check("policy.toml", files.Policy, by, RolePolicy); err != nil {
			return err
		}
	}
	if next.ref.Revocations != t.ref.Revocations {
		return check("revocations.toml", files.Revocations, by, RoleRevocation)
	}
	return nil
}

// fresh checks the dates of the files that before did not have. What it had may
// have expired: a new file must not wait for the others.
func (t *Trust) fresh(before *Trust, now time.Time) error {
	old := []string{before.ref.Root, before.ref.Policy, before.ref.Revocations}
	if err := t.ahead(now, old...); err != nil {
		return err
	}
	for _, e := range t.expiries() {
		if passed(e.at, now) && !slices.Contains(old, e.digest) {
			return reject(e.reason, e.file, "its %s was %s", e.what, utc(e.at))
		}
	}
	return nil
}

// notOlder compares the serials of a trust file and of the one that follows.
func notOlder(file string, have, got int64, digest, gotDigest string) error {
	switch {
	case got < have:
		return reject(TrustRollback, file, "its serial is %d, %d is in force", got, have)
	case got == have && digest != gotDigest:
		return reject(TrustRollback, file, "serial %d is in force with other bytes", have)
	case got-have > maxJump:
		return reject(TrustRollback, file, "its serial %d is more than %d above %d", got, maxJump, have)
	}
	return nil
}

// inForce checks the dates of the trust files.
func (t *Trust) inForce(now time.Time) error {
	if err := t.ahead(now); err != nil {
		return err
	}
	for _, e := range t.expiries() {
		if passed(e.at, now) {
			return reject(e.reason, e.file, "its %s was %s", e.what, utc(e.at))
		}
	}
	return nil
}

// ahead refuses trust files that were issued after the clock, but for those with
// the digests of known ones.
func (t *Trust) ahead(now time.Time, known ...string) error {
	issued := []struct {
		file, digest string
		at           time.Time
	}{
		{"root.toml", t.ref.Root, t.root.Issued}, {"policy.toml", t.ref.Policy, t.policy.Issued},
		{"revocations.toml", t.ref.Revocations, t.revocations.Issued},
	}
	for _, f := range issued {
		if f.at.After(now.Add(clockSlack)) && !slices.Contains(known, f.digest) {
			return reject(TrustedTimeAhead, f.file, "it was issued at %s, the clock says %s", utc(f.at), utc(now))
		}
	}
	return nil
}

// passed says whether the time at is reached. The zero time never is.
func passed(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
