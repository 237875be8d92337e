package export

import (
	"errors"
	"fmt"

	"github.com/stellarun/stella/internal/ustar"
)

// Verdict is the judgement of an archive. The strings reach JSON and scripts.
type Verdict string

// Verdicts, from the best to the worst. The command line's exit codes are 0, 8,
// 5 and 7.
const (
	Verified        Verdict = "VERIFIED"        // everything was checked against keys from outside, and holds
	Incomplete      Verdict = "INCOMPLETE"      // what is there holds; something was withheld, or cannot be judged with what was given
	Unauthenticated Verdict = "UNAUTHENTICATED" // consistent in itself; who made it is not known, or another than the auditor's site
	Failed          Verdict = "FAILED"          // something does not hold
)

// Status is the outcome of one check.
type Status string

// Outcomes of checks.
const (
	OK      Status = "ok"
	Bad     Status = "failed"
	Skipped Status = "skipped"
)

// Check is one check of an archive.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Proves string `json:"proves"`           // what it proves when it is ok
	Detail string `json:"detail,omitempty"` // why it failed or was skipped; what it counted
	File   string `json:"file,omitempty"`   // where it failed
	Line   int64  `json:"line,omitempty"`   // of that file's content, from 1: the first bad one
	Hint   string `json:"hint,omitempty"`   // what to get, where it was skipped for want of it
}

// Report is what [Verify] found: every check, in the order in which they were
// made.
type Report struct {
	Verdict Verdict  `json:"verdict"`
	Checks  []Check  `json:"checks"`
	Summary *Summary `json:"summary,omitempty"` // nil if the manifest could not be read

	// Witnessed is how many of the witnesses that were named have signed a tree that holds
	// the window, and Witnesses who they are. With none nobody can tell two ledgers of one
	// operator apart.
	Witnessed int       `json:"witnessed"`
	Witnesses []Witness `json:"witnesses,omitempty"`

	// Epochs are those that begin in the window: the ledger was restored from a snapshot or
	// recovered from damage, and may have lost entries.
	Epochs []Epoch `json:"epochs,omitempty"`

	// TrustRoot is the root that the trust files of the window begin with; nil where none of
	// its entries says.
	TrustRoot *TrustRoot `json:"trustRoot,omitempty"`

	// OtherReadme says that README.txt is not what this stella writes: it is of another
	// version, or the words of whoever signed the archive. It tells people what to type.
	OtherReadme bool `json:"otherReadme,omitempty"`
}

// Witness is one who has signed, and when he says so.
type Witness struct {
	Name string `json:"name"`
	Time string `json:"time"`
}

// TrustRoot is a root.toml. Where none was expected, it is the site's own word.
type TrustRoot struct {
	Version  int64  `json:"version"`
	Digest   string `json:"digest"`             // SHA-256, hex
	Expected string `json:"expected,omitempty"` // the digest that the auditor knows
}

// Epoch is the beginning of one.
type Epoch struct {
	Seq   int64  `json:"seq"`
	Time  string `json:"time"`
	Epoch int64  `json:"epoch,omitempty"` // absent, as Cause, if the data is withheld
	Cause string `json:"cause,omitempty"` // restored | recovered
}

// Summary is what an archive says of itself.
type Summary struct {
	Schema   string           `json:"schema"`
	Origin   string           `json:"origin"`
	Window   Window           `json:"window"`
	Ledger   Range            `json:"ledger"`
	Stella   string           `json:"stella"`
	Bytes    int64            `json:"bytes"` // of all files, or of the tar
	Files    int              `json:"files"`
	Evidence int              `json:"evidence"` // sealed files among them
	Records  map[string]int64 `json:"records"`  // path → lines
	Withheld []Withheld       `json:"withheld"`
	Dropped  map[string]int64 `json:"dropped"`
}

func summarise(m *Manifest, c *container) *Summary {
	s := &Summary{
		Schema: m.Schema, Origin: m.Origin, Window: m.Window, Ledger: m.Ledger, Stella: m.Stella,
		Bytes: c.bytes, Files: len(c.members), Records: map[string]int64{}, Withheld: m.Withheld, Dropped: m.Dropped,
	}
	for _, f := range m.Files {
		if f.Records != nil {
			s.Records[f.Path] = *f.Records
		}
		if _, ok := evidenceSum(f.Path); ok {
			s.Evidence++
		}
	}
	return s
}

// Show returns what the archive at path, a tar or a folder, says of itself. It
// checks the form of container and manifest and nothing else: all of it may be
// lies. identity is for one that is encrypted, else nil.
func Show(path string, identity []byte) (*Summary, error) {
	c, err := openContainer(path, identity)
	if err != nil {
		var form *ustar.FormError
		if errors.As(err, &form) {
			return nil, fmt.Errorf("export: %s is not an archive: %w", path, err)
		}
		return nil, err
	}
	defer c.close()
	raw, err := c.small(manifestPath, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("export: %s: %w", manifestPath, err)
	}
	return summarise(m, c), nil
}

// badLine is a failed check that knows where it failed.
type badLine struct {
	file string
	line int64 // 0: the file as a whole
	err  error
}

func (e *badLine) Error() string { return e.err.Error() }

func (e *badLine) Unwrap() error { return e.err }

func badFile(path string, err error) error { return &badLine{file: path, err: err} }

// skip is the error of a check that was not made. If it hides something, the
// archive is not verified without it.
type skip struct {
	why   string
	hides Verdict // the best verdict that is possible without the check
	hint  string
}

func (e *skip) Error() string { return e.why }

// foreign is the error of a check that holds with the keys inside the archive,
// but not with those of the auditor: as if somebody else had made it.
type foreign struct{ err error }

func (e *foreign) Error() string { return e.err.Error() }

func (e *foreign) Unwrap() error { return e.err }

// judge is the verdict of a report's checks, given the best that the skipped
// ones allow. Where the archive is consistent, and no more than its keys are
// others than the auditor's, it is not damaged: nobody vouches for it.
func (v *verifier) judge() Verdict {
	verdict := v.best
	for _, c := range v.report.Checks {
		switch {
		case c.Status == Bad && v.foreign[c.Name]:
			verdict = worse(verdict, Unauthenticated)
		case c.Status == Bad:
			return Failed
		}
	}
	return verdict
}

// worse returns the worse of two verdicts.
func worse(a, b Verdict) Verdict {
	for _, v := range []Verdict{Failed, Unauthenticated, Incomplete} {
		if a == v || b == v {
			return v
		}
	}
	return Verified
}
