package verify

import (
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
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
