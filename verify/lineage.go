package verify

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// RoleSignature is a signature over a trust file, read and not verified.
type RoleSignature struct {
	file *file
	data bundle.Attached
}

// ReadRoleSignature reads a file of FILE.signatures/. A refusal is a [*RejectError].
func ReadRoleSignature(raw []byte) (*RoleSignature, error) {
	digest := bundle.Digest(raw)
	if len(raw) > bundle.MaxSignature {
		return nil, reject(SignatureMalformed, digest, "it has more than %d bytes", bundle.MaxSignature)
	}
	f, err := parse(raw)
	if err != nil {
		return nil, reject(SignatureMalformed, digest, "%v", err).because(err)
	}
	return &RoleSignature{f, bundle.Attached{ID: f.id, Data: raw}}, nil
}

// signedFile is a trust file with those of signatures that are over it, by a key of whatever kind.
func signedFile(raw []byte, signatures []*RoleSignature) RoleFile {
	f := RoleFile{Raw: raw}
	short, long := sha256.Sum256(raw), sha512.Sum384(raw)
	for _, s := range signatures {
		if s.file.overDigest(short[:], crypto.SHA256) || s.file.overDigest(long[:], crypto.SHA384) {
			f.Signatures = append(f.Signatures, s.data)
		}
	}
	return f
}

// Lineage is the trust that one entry of a ledger has put in force, for somebody who has no
// site and follows the trust files from entry to entry. It never changes.
type Lineage struct {
	trust  *Trust
	files  Files // Roots is the newest alone: what came before it has been verified
	hidden bool  // changes that are not known came after it
	gap    bool
}

// Follow verifies the trust files that an entry puts in force as what follows l; l is nil for
// the first, which is held to itself alone. files has the newest root alone, and no signatures;
// signatures are all that the entry names, each of which counts for the file that it is over.
// The roles must have signed the files, with keys that l had not revoked at now. Dates are left
// alone: what has expired lets nothing in. A refusal is a [*RejectError].
func (l *Lineage) Follow(files Files, signatures []*RoleSignature, now time.Time) (*Lineage, error) {
	root := signedFile(files.Roots[0].Raw, signatures)
	newest, err := manifests.ParseRoot("root.toml", root.Raw)
	if err != nil {
		return nil, reject(TrustInvalid, "root.toml", "%v", err).because(err)
	}
	next := &Lineage{files: files}
	if next.files.Roots, next.gap, err = l.lead(root, newest.Version); err != nil {
		return nil, err
	}
	next.files.Policy = signedFile(files.Policy.Raw, signatures)
	if len(files.Revocations.Raw) > 0 {
		next.files.Revocations = signedFile(files.Revocations.Raw, signatures)
	}
	if l != nil && !l.hidden {
		next.trust, err = l.trust.Follow(next.files, now)
	} else {
		next.trust, err = l.load(next.files)
	}
	if err != nil {
		return nil, err
	}
	next.newestOnly()
	return next, nil
}

// lead gives the roots from that of l to the next one, and says whether some between them are
// hidden. The same root is verified as any file that an entry names again.
func (l *Lineage) lead(root RoleFile, version int64) (roots []RoleFile, gap bool, err error) {
	if l == nil || l.trust.ref.Root == bundle.Digest(root.Raw) {
		return []RoleFile{root}, false, nil
	}
	switch last := l.trust.root.Version; {
	case version == last+1:
		return []RoleFile{l.files.Roots[0], root}, false, nil
	case version <= last:
		return nil, false, reject(TrustRollback, "root.toml", "it is root %d, root %d was in force", version, last)
	case !l.hidden:
		return nil, false, reject(TrustInvalid, "root.toml", "it is root %d, root %d was in force: none can be passed over", version, last)
	}
	return []RoleFile{root}, true, nil
}

// newestOnly forgets the roots before the last, which have been verified.
func (l *Lineage) newestOnly() {
	last := len(l.trust.roots) - 1
	l.trust.roots, l.files.Roots = l.trust.roots[last:], l.files.Roots[last:]
}

// Partly is Follow for an entry of which files are withheld: root, and policy, hold as far as
// they are there. What it returns has all else from l, and is [Lineage.Hidden].
func (l *Lineage) Partly(files Files, signatures []*RoleSignature, now time.Time) (*Lineage, error) {
	if len(files.Roots[0].Raw) == 0 {
		return l.Hidden(), nil
	}
	root := signedFile(files.Roots[0].Raw, signatures)
	newest, err := manifests.ParseRoot("root.toml", root.Raw)
	if err != nil {
		return nil, reject(TrustInvalid, "root.toml", "%v", err).because(err)
	}
	roots, _, err := l.lead(root, newest.Version)
	if err != nil {
		return nil, err
	}
	t := &Trust{revocations: new(manifests.Revocations)}
	if l != nil {
		before := *l.trust
		t, before.root, before.roots, before.signatures = &before, nil, nil, nil
	}
	next := &Lineage{trust: t, files: Files{Roots: roots, Policy: signedFile(files.Policy.Raw, signatures)}, hidden: true}
	if err = t.loadRoots(roots); err == nil && len(files.Policy.Raw) > 0 {
		err = t.loadPolicy(next.files.Policy)
	}
	if err != nil {
		return nil, reject(TrustInvalid, "", "%v", err).because(err)
	}
	if l == nil {
		return nil, nil
	}
	if err = l.trust.serials(t); err == nil && !l.hidden {
		err = l.trust.unrevoked(next.files, t, now)
	}
	next.newestOnly()
	return next, err
}

// load loads what follows l, of which nothing but serials is held to l.
func (l *Lineage) load(files Files) (*Trust, error) {
	t, err := Load(files)
	if err != nil {
		return nil, reject(TrustInvalid, "", "%v", err).because(err)
	}
	if l != nil {
		err = l.trust.serials(t)
	}
	return t, err
}

// Extend verifies an extension of the trust that l has put in force, signed with keys that l had
// not revoked at now.
func (l *Lineage) Extend(raw []byte, signatures []*RoleSignature, siteID string, now time.Time) (*manifests.Extension, error) {
	f := signedFile(raw, signatures)
	f.Signatures = slices.DeleteFunc(f.Signatures, func(s bundle.Attached) bool { return l.trust.Revoked(s.ID, now) })
	t, err := l.trust.Extended(f, siteID)
	if err != nil {
		return nil, err
	}
	return t.extension, nil
}

// Hidden is l behind changes of which nothing is known.
func (l *Lineage) Hidden() *Lineage {
	if l == nil {
		return nil
	}
	next := *l
	next.hidden = true
	return &next
}

// Gap says whether a root between this one and the one before is hidden, so that nobody can
// tell whether the one before has let it follow.
func (l *Lineage) Gap() bool { return l.gap }

// Trust is what was put in force.
func (l *Lineage) Trust() *Trust { return l.trust }

// String names the root.
func (l *Lineage) String() string {
	return fmt.Sprintf("root %d (sha256:%s)", l.trust.ref.RootVersion, l.trust.ref.Root)
}
