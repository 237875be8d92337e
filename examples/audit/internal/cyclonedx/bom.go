// Package cyclonedx writes and reads software bills of materials in the JSON
// form of CycloneDX 1.6. What it writes depends on the content alone: it is
// sorted, and its serial number is derived. It does no I/O of its own.
package cyclonedx

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MediaType is the media type of a bill.
const MediaType = "application/vnd.cyclonedx+json"

const (
	format      = "CycloneDX"
	specVersion = "1.6"
)

// Component types that are used here.
const (
	TypeApplication = "application"
	TypeLibrary     = "library"
	TypeSystem      = "operating-system"
	TypeDevice      = "device"
)

// BOM is one bill. [Encode] sorts what it writes; the order here is free.
type BOM struct {
	Timestamp    string // RFC 3339; when the inventory was taken
	Tool         Component
	Subject      Component // what the bill is about
	Components   []Component
	Dependencies map[string][]string // bom-ref → bom-refs it needs
}

// Component is one part.
type Component struct {
	Type       string      `json:"type"`
	Ref        string      `json:"bom-ref,omitempty"` // unique in a bill
	Publisher  string      `json:"publisher,omitempty"`
	Name       string      `json:"name"`
	Version    string      `json:"version,omitempty"`
	Hashes     []Hash      `json:"hashes,omitempty"`
	PURL       string      `json:"purl,omitempty"`
	Components []Component `json:"components,omitempty"` // read only: parts of the part
	Properties []Property  `json:"properties,omitempty"`
}

// Hash is a digest; Algorithm is a name of the specification: SHA-256.
type Hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// Property is a name with a value; a name may come more than once.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Values returns the values of the properties called name.
func (c Component) Values(name string) []string {
	var out []string
	for _, p := range c.Properties {
		if p.Name == name {
			out = append(out, p.Value)
		}
	}
	return out
}

// Value returns the first value of the property called name, or "".
func (c Component) Value(name string) string {
	for _, p := range c.Properties {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

type document struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Serial       string       `json:"serialNumber,omitempty"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []Component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string     `json:"timestamp,omitempty"`
	Tools     *tools     `json:"tools,omitempty"`
	Component *Component `json:"component,omitempty"`
}

type tools struct {
	Components []Component `json:"components"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// Encode returns b as JSON. It fails when a bom-ref is empty, comes twice, or
// is needed but not there.
func Encode(b BOM) ([]byte, error) {
	doc := document{
		Format: format, SpecVersion: specVersion, Version: 1,
		Metadata: metadata{Timestamp: b.Timestamp, Tools: &tools{[]Component{b.Tool}}, Component: &b.Subject},
	}
	known := map[string]bool{b.Subject.Ref: true}
	doc.Components = slices.Clone(b.Components)
	for i, c := range doc.Components {
		if c.Ref == "" || known[c.Ref] {
			return nil, fmt.Errorf("cyclonedx: bom-ref %q of %s is empty or comes twice", c.Ref, c.Name)
		}
		known[c.Ref] = true
		doc.Components[i].Properties = slices.SortedFunc(slices.Values(c.Properties), func(a, b Property) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
		})
	}
	slices.SortFunc(doc.Components, func(a, b Component) int { return cmp.Compare(a.Ref, b.Ref) })
	if doc.Components == nil {
		doc.Components = []Component{}
	}
	doc.Dependencies = []dependency{}
	for ref, needs := range b.Dependencies {
		needs = slices.Compact(slices.Sorted(slices.Values(needs)))
		for _, r := range append([]string{ref}, needs...) {
			if !known[r] {
				return nil, fmt.Errorf("cyclonedx: dependency on unknown bom-ref %q", r)
			}
		}
		doc.Dependencies = append(doc.Dependencies, dependency{ref, needs})
	}
	slices.SortFunc(doc.Dependencies, func(a, b dependency) int { return cmp.Compare(a.Ref, b.Ref) })
	body, err := marshal(doc)
	if err != nil {
		return nil, err
	}
	doc.Serial = serial(body)
	return marshal(doc)
}

// serial derives the serial number from the bill without one: an RFC 9562
// UUID of version 8 over its SHA-256, so that equal bills have equal numbers.
func serial(body []byte) string {
	u := sha256.Sum256(body)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("cyclonedx: %w", err)
	}
	return b.Bytes(), nil
}

// Limits of a bill that is read.
const (
	maxBytes      = 64 << 20
	maxComponents = 500_000
	maxNesting    = 16
)

// ErrNotBOM is the error of bytes that are no bill of a version read here.
var ErrNotBOM = errors.New("cyclonedx: not a CycloneDX bill of version 1.5 or 1.6")

// ErrTooLarge is the error of a bill beyond the limits.
var ErrTooLarge = errors.New("cyclonedx: bill is too large")

// Bill is what is read of a bill: its subject and all parts, parts of parts
// included.
type Bill struct {
	Timestamp  string
	Subject    Component
	Components []Component
}

// Decode reads a bill of 64 MiB at most.
func Decode(r io.Reader) (Bill, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return Bill{}, err
	}
	if len(raw) > maxBytes {
		return Bill{}, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxBytes)
	}
	var doc struct {
		Format      string `json:"bomFormat"`
		SpecVersion string `json:"specVersion"`
		Metadata    struct {
			Timestamp string    `json:"timestamp"`
			Component Component `json:"component"`
		} `json:"metadata"`
		Components []Component `json:"components"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return Bill{}, fmt.Errorf("%w: %v", ErrNotBOM, err)
	}
	if doc.Format != format || doc.SpecVersion != "1.5" && doc.SpecVersion != specVersion {
		return Bill{}, fmt.Errorf("%w: %.40q %.40q", ErrNotBOM, doc.Format, doc.SpecVersion)
	}
	b := Bill{Timestamp: doc.Metadata.Timestamp, Subject: doc.Metadata.Component}
	if b.Components, err = flatten(nil, doc.Components, 0); err != nil {
		return Bill{}, err
	}
	return b, nil
}

func flatten(out, in []Component, depth int) ([]Component, error) {
	if depth > maxNesting || len(out)+len(in) > maxComponents {
		return nil, fmt.Errorf("%w: components", ErrTooLarge)
	}
	for _, c := range in {
		parts := c.Components
		c.Components = nil
		var err error
		if out, err = flatten(append(out, c), parts, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}
