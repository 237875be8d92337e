// Package osv reads advisories in the Open Source Vulnerability format and
// decides whether one of them speaks of a given version. It knows the orders
// of Go modules, the Go toolchain and Debian packages, and refuses to guess
// about others. It does no I/O of its own and starts no goroutine.
package osv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Limits of one record.
const (
	maxRecordBytes = 4 << 20
	maxAffected    = 10_000
	maxEvents      = 20_000
)

// Errors of records.
var (
	ErrTooLarge = errors.New("osv: record is too large")
	ErrRecord   = errors.New("osv: not a valid record")
)

// Record is one advisory: the facts, without the prose.
type Record struct {
	SchemaVersion string      `json:"schema_version,omitempty"`
	ID            string      `json:"id"`
	Modified      string      `json:"modified"` // RFC 3339; year 1 where the source gives none
	Published     string      `json:"published,omitempty"`
	Withdrawn     string      `json:"withdrawn,omitempty"`
	Aliases       []string    `json:"aliases,omitempty"`  // the same fault elsewhere
	Related       []string    `json:"related,omitempty"`  // other faults
	Upstream      []string    `json:"upstream,omitempty"` // faults that this one passes on: CVEs of a DSA
	Severity      []Severity  `json:"severity,omitempty"`
	Affected      []Affected  `json:"affected,omitempty"`
	References    []Reference `json:"references,omitempty"`
}

// Severity is a score in the notation that Type names: CVSS_V3, CVSS_V4.
type Severity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

// Affected is one package with the versions that have the fault.
type Affected struct {
	Package  Package    `json:"package"`
	Severity []Severity `json:"severity,omitempty"`
	Ranges   []Range    `json:"ranges,omitempty"`
	Versions []string   `json:"versions,omitempty"`
}

// Package is a name within an ecosystem: "Go", or "Debian:12" with a release.
type Package struct {
	Ecosystem string `json:"ecosystem"`
	Name      string `json:"name"`
	PURL      string `json:"purl,omitempty"`
}

// RangeType is the kind of a range's versions.
type RangeType string

// Range types of the format. Ranges of GIT speak of commits, which a bill does
// not have.
const (
	RangeSemver    RangeType = "SEMVER"
	RangeEcosystem RangeType = "ECOSYSTEM"
	RangeGit       RangeType = "GIT"
)

// Range is a list of events on a line of versions.
type Range struct {
	Type   RangeType `json:"type"`
	Repo   string    `json:"repo,omitempty"`
	Events []Event   `json:"events"`
}

// Event is a point on the line; exactly one field is set.
type Event struct {
	Introduced   string `json:"introduced,omitempty"` // "0" is before every version
	Fixed        string `json:"fixed,omitempty"`
	LastAffected string `json:"last_affected,omitempty"`
	Limit        string `json:"limit,omitempty"` // "*" is after every version
}

// Reference is a link; its type is a word of the format: ADVISORY, FIX, WEB.
type Reference struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// Decode reads one record and checks it: an id, times of RFC 3339, events of
// exactly one kind, and version numbers that the range's order can compare.
// Fields that are not in [Record] are dropped.
func Decode(r io.Reader) (Record, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxRecordBytes+1))
	if err != nil {
		return Record{}, err
	}
	if len(raw) > maxRecordBytes {
		return Record{}, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxRecordBytes)
	}
	var rec Record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return Record{}, fmt.Errorf("%w: %v", ErrRecord, err)
	}
	if err := rec.check(); err != nil {
		return Record{}, fmt.Errorf("%w: %.80q: %w", ErrRecord, rec.ID, err)
	}
	return rec, nil
}

func (r *Record) check() error {
	if r.ID == "" || len(r.ID) > 200 || strings.ContainsAny(r.ID, " \t\r\n/\\") {
		return errors.New("id is missing or not a name")
	}
	for _, t := range []struct{ name, value string }{
		{"modified", r.Modified}, {"published", r.Published}, {"withdrawn", r.Withdrawn},
	} {
		if t.value == "" && t.name != "modified" {
			continue
		}
		if _, err := time.Parse(time.RFC3339Nano, t.value); err != nil {
			return fmt.Errorf("%s is not a time", t.name)
		}
	}
	if len(r.Affected) > maxAffected {
		return fmt.Errorf("more than %d affected packages", maxAffected)
	}
	events := 0
	for _, a := range r.Affected {
		for _, rg := range a.Ranges {
			if events += len(rg.Events); events > maxEvents {
				return fmt.Errorf("more than %d events", maxEvents)
			}
			if err := rg.check(a.Package); err != nil {
				return fmt.Errorf("package %.80q: %w", a.Package.Name, err)
			}
		}
	}
	return nil
}

func (r Range) check(p Package) error {
	order := orderOf(r.Type, p)
	introduced := false
	for _, e := range r.Events {
		kind, version, err := e.only()
		if err != nil {
			return err
		}
		introduced = introduced || kind == introducedEvent
		if order == nil || kind == introducedEvent && version == "0" || kind == limitEvent && version == "*" {
			continue
		}
		if err := order.check(version); err != nil {
			return err
		}
	}
	if !introduced {
		return errors.New("range without an introduced event")
	}
	return nil
}

// IsWithdrawn says whether its publisher took the record back.
func (r Record) IsWithdrawn() bool { return r.Withdrawn != "" }
