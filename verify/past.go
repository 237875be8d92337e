package verify

import (
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// Past is what a site believed at some time of its past. Only sealed evidence is judged under
// it, by somebody who has no site.
type Past struct {
	trust  *Trust
	siteID string
}

// Recall loads the trust files that an entry of a ledger names by their digests: the newest root
// alone, and extension.toml, empty without one. Whether the roles have signed them is not asked:
// a [Lineage] is, of the entries that put them in force. An error says that no site can have believed
// these files.
func Recall(files Files, extension []byte, siteID string) (*Past, error) {
	t, err := load(files, true)
	if err == nil && len(extension) > 0 {
		t, err = t.Extended(RoleFile{Raw: extension}, siteID)
	}
	return &Past{t, siteID}, err
}

// Lifted is p under an extension that is not at hand, so that nothing of its trust expires: all
// else is judged the same. A refusal is a [*RejectError].
func (p *Past) Lifted(digest string) (*Past, error) {
	next := *p.trust
	if _, ok := next.root.Roles[RoleBreakGlass]; !ok {
		return nil, extensionRefused("root %d has no break_glass role", next.root.Version)
	}
	next.extension = &manifests.Extension{Root: next.ref.Root, Policy: next.ref.Policy, Revocations: next.ref.Revocations, Until: never}
	next.ref.Extension = digest
	return &Past{&next, p.siteID}, nil
}

// never is behind all times that can be written.
var never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Judge judges the evidence of an admission as the site has done at now, but for floors, and
// for the version of stella that a manifest may demand. A refusal is a [*RejectError].
func (p *Past) Judge(manifest []byte, signatures, attestations [][]byte, now time.Time) (*ledger.Verdict, error) {
	e := Evidence{Manifest: manifest}
	for _, raw := range signatures {
		id, _, err := SignerID(raw)
		if err != nil {
			return nil, reject(SignatureMalformed, bundle.Digest(raw), "%v", err).because(err)
		}
		e.Signatures = append(e.Signatures, bundle.Attached{ID: id, Data: raw})
	}
	for _, raw := range attestations {
		e.Attestations = append(e.Attestations, bundle.Attached{ID: bundle.Digest(raw), Data: raw})
	}
	return p.trust.Rejudge(e, p.siteID, "", now)
}
