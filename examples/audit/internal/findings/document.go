// Package findings matches bills of materials with advisories and holds the
// document that comes of it. Matching is a pure function of its inputs: no
// clock, no order of reading, no network.
package findings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// Schema is the first field of the document.
const Schema = "audit.findings/1"

// MediaType is the media type of the document.
const MediaType = "application/json"

// maxBytes bounds a document that is read.
const maxBytes = 64 << 20

// ErrNotFindings is the error of bytes that are no document of this schema.
var ErrNotFindings = errors.New("findings: not a document of " + Schema)

// Document is the result of one audit. Lists are sorted.
type Document struct {
	Schema    string    `json:"schema"`
	Generated string    `json:"generated"` // RFC 3339: when the run was started
	Bills     []BillRef `json:"bills"`
	Database  Database  `json:"database"`
	Counts    Counts    `json:"counts"`
	Findings  []Finding `json:"findings"` // by package, then advisory
	Upgrades  []Upgrade `json:"upgrades"` // by package
	Skipped   []Skipped `json:"skipped"`  // what could not be judged
}

// BillRef names a bill that was read.
type BillRef struct {
	Name       string `json:"name"`
	SHA256     string `json:"sha256"`
	Subject    string `json:"subject"`
	System     string `json:"system,omitempty"` // the operating system it lists, with its version
	Taken      string `json:"taken,omitempty"`  // RFC 3339
	Components int    `json:"components"`
}

// Database describes the advisories that were read.
type Database struct {
	Ref       string `json:"ref,omitempty"`    // the data bundle: publisher/name@version
	Digest    string `json:"digest,omitempty"` // its digest
	Records   int    `json:"records"`
	Withdrawn int    `json:"withdrawn"` // of these, taken back and not used
}

// Counts sums up a document.
type Counts struct {
	Packages int `json:"packages"` // judged: distinct name and version
	Affected int `json:"affected"` // of these, with findings
	Findings int `json:"findings"`
	Fixable  int `json:"fixable"` // findings that a later version ends
	Skipped  int `json:"skipped"`
}

// Package is what advisories speak of: a Go module, or a Debian source package.
type Package struct {
	Ecosystem string `json:"ecosystem"`
	Name      string `json:"name"`
	Version   string `json:"version"`
}

// Finding is one fault of one package in one version.
type Finding struct {
	Package    Package     `json:"package"`
	Advisory   string      `json:"advisory"`
	Aliases    []string    `json:"aliases,omitempty"`
	Covers     []string    `json:"covers,omitempty"` // faults that the advisory sums up
	Fixed      string      `json:"fixed,omitempty"`  // first version without the fault, on this line
	Severity   Severity    `json:"severity"`
	Published  string      `json:"published,omitempty"`
	Where      []string    `json:"where"` // paths of programs, or installed binary packages
	References []Reference `json:"references,omitempty"`
}

// Severity is the rating that the record carries.
type Severity struct {
	Level  osv.Level `json:"level"`
	Score  string    `json:"score,omitempty"` // base score with one decimal
	Vector string    `json:"vector,omitempty"`
}

// Reference is a link of the record.
type Reference struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// Upgrade is what to do about one package.
type Upgrade struct {
	Package  Package  `json:"package"`
	To       string   `json:"to,omitempty"` // no record here speaks of this version with a fix
	Findings int      `json:"findings"`
	Unfixed  int      `json:"unfixed"` // of these, without a fixed version
	Where    []string `json:"where"`
}

// Reason says why a part was not judged.
type Reason string

// Reasons. They reach disk: never change or reuse.
const (
	NoVersion        Reason = "no_version"        // built from a folder, not from a release
	NoModules        Reason = "no_modules"        // a program whose build kept no list of what is in it
	UnknownVersion   Reason = "unknown_version"   // not a version number of its ecosystem
	UnknownEcosystem Reason = "unknown_ecosystem" // no order of versions is known for it
	UnknownOrder     Reason = "unknown_order"     // a record about it orders versions in a way not known here
)

// Skipped is a part that was not judged.
type Skipped struct {
	Package Package  `json:"package"`
	Reason  Reason   `json:"reason"`
	Where   []string `json:"where,omitempty"`
}

// Encode writes d as JSON, indented.
func Encode(d Document) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("findings: %w", err)
	}
	return b.Bytes(), nil
}

// Decode reads a document of 64 MiB at most.
func Decode(r io.Reader) (Document, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return Document{}, err
	}
	if len(raw) > maxBytes {
		return Document{}, fmt.Errorf("%w: more than %d bytes", ErrNotFindings, maxBytes)
	}
	var d Document
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("%w: %v", ErrNotFindings, err)
	}
	if rest := strings.TrimSpace(string(raw[dec.InputOffset():])); rest != "" {
		return Document{}, fmt.Errorf("%w: bytes after the end", ErrNotFindings)
	}
	if d.Schema != Schema {
		return Document{}, fmt.Errorf("%w: schema %.80q", ErrNotFindings, d.Schema)
	}
	return d, nil
}
