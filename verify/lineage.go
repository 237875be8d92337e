package verify

import (
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// Lineage is the trust that one entry of a ledger has put in force, for somebody who has no
// site and follows the trust files from entry to entry. It never changes.
type Lineage struct {
	trust *Trust
	files Files // Roots is the chain as far back as it is known
	gap   bool
}

// Follow verifies the trust files that an entry puts in force as what follows l; l is nil for
// the first, which is held to itself alone. files has the newest root alone, and no signatures;
// signatures are all that the entry names, each of which counts for the file that it is over.
// The roles must have signed the files, with keys that l had not revoked at now. Dates are left
// alone: what has expired lets nothing in. A refusal is a [*RejectError].
func (l *Lineage) Follow(files Files, signatures [][]byte, now time.Time) (*Lineage, error) {
	newest, err := manifests.ParseRoot("root.toml", files.Roots[0].Raw)
	if err != nil {
		return nil, reject(TrustInvalid, "root.toml", "%v", err).because(err)
	}
	next := &Lineage{files: files}
	if err := next.assign(signatures); err != nil {
		return nil, err
	}
	if l != nil {
		last := l.trust.root.Version
		switch {
		case l.trust.ref.Root == bundle.Digest(files.Roots[0].Raw):
			next.files.Roots = l.files.Roots
		case newest.Version == last+1:
			next.files.Roots = slices.Concat(l.files.Roots, next.files.Roots)
		case newest.Version > last:
			next.gap = true
		default:
			return nil, reject(TrustRollback, "root.toml", "it is root %d, root %d was in force", newest.Version, last)
		}
	}
	if l != nil && !next.gap {
		next.trust, err = l.trust.follow(next.files, now)
		return next, err
	}
	if next.trust, err = Load(next.files); err != nil {
		return nil, reject(TrustInvalid, "", "%v", err).because(err)
	}
	if l != nil {
		err = l.trust.serials(next.trust)
	}
	return next, err
}

// assign gives each file the signatures that are over it. Those over files that are not here,
// which are roots of before, are left out.
func (l *Lineage) assign(signatures [][]byte) error {
	roots := []RoleFile{{Raw: l.files.Roots[0].Raw}}
	files := []*RoleFile{&roots[0], &l.files.Policy, &l.files.Revocations}
	for _, raw := range signatures {
		f, a, err := roleSignature(raw)
		if err != nil {
			return err
		}
		for _, file := range files {
			if len(file.Raw) > 0 && f.overAny(file.Raw) {
				file.Signatures = append(file.Signatures, a)
			}
		}
	}
	l.files.Roots = roots
	return nil
}

// roleSignature reads a signature over a trust file.
func roleSignature(raw []byte) (*file, bundle.Attached, error) {
	digest := bundle.Digest(raw)
	if len(raw) > bundle.MaxSignature {
		return nil, bundle.Attached{}, reject(SignatureMalformed, digest, "it has more than %d bytes", bundle.MaxSignature)
	}
	f, err := parse(raw)
	if err != nil {
		return nil, bundle.Attached{}, reject(SignatureMalformed, digest, "%v", err).because(err)
	}
	return f, bundle.Attached{ID: f.id, Data: raw}, nil
}

// overAny says whether f is a signature over raw, by a key of whatever kind.
func (f *file) overAny(raw []byte) bool {
	return f.over(raw, crypto.SHA256) || f.over(raw, crypto.SHA384)
}

// Extend verifies an extension of the trust that l has put in force.
func (l *Lineage) Extend(raw []byte, signatures [][]byte, siteID string) error {
	x := RoleFile{Raw: raw}
	for _, s := range signatures {
		f, a, err := roleSignature(s)
		if err != nil {
			return err
		}
		if f.overAny(raw) {
			x.Signatures = append(x.Signatures, a)
		}
	}
	_, err := l.trust.Extended(x, siteID)
	return err
}

// Gap says whether a root between this one and the one before is not known, so that nobody
// can tell whether the one before has let it follow.
func (l *Lineage) Gap() bool { return l.gap }

// Trust is what was put in force.
func (l *Lineage) Trust() *Trust { return l.trust }

// String names the root.
func (l *Lineage) String() string {
	return fmt.Sprintf("root %d (sha256:%s)", l.trust.ref.RootVersion, l.trust.ref.Root)
}
