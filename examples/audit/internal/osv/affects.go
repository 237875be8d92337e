package osv

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

type eventKind int

// Kinds in the order in which events at the same version take effect: a fix
// before what brings the fault back, and that before the last version that has
// it, so that [introduced 2, last_affected 2] is version 2 alone.
const (
	fixedEvent eventKind = iota
	introducedEvent
	lastAffectedEvent
	limitEvent
)

var errEvent = errors.New("event must have exactly one of introduced, fixed, last_affected, limit")

// only returns the one field of e that is set.
func (e Event) only() (kind eventKind, version string, err error) {
	n := 0
	for k, v := range [...]string{e.Fixed, e.Introduced, e.LastAffected, e.Limit} {
		if v != "" {
			kind, version = eventKind(k), v
			n++
		}
	}
	if n != 1 {
		return 0, "", errEvent
	}
	return kind, version, nil
}

// Subject is what a record is asked about: a package in one version. Ecosystem
// may have a release: "Debian:12".
type Subject struct{ Ecosystem, Name, Version string }

// Verdict is what a record says of a subject.
type Verdict struct {
	Affected bool
	Fixed    string     // the version that ends the range the subject is in; "" when the record names none
	Severity []Severity // of the package, or else of the record
	// Unknown says that the record names the package with ranges in an order
	// that is not known here, and nothing else settled the matter.
	Unknown bool
}

// Names says whether r speaks of the package at all.
func (r Record) Names(ecosystem, name string) bool {
	return slices.ContainsFunc(r.Affected, func(a Affected) bool { return a.Package.matches(ecosystem, name) })
}

// Judge evaluates r for s as the format's specification says: affected is a
// version that is listed, or that lies in a range. A version that its order
// cannot read is an error of kind [ErrVersion]. Withdrawn records are judged
// like others; see [Record.IsWithdrawn].
func (r Record) Judge(s Subject) (Verdict, error) {
	var unknown bool
	for _, a := range r.Affected {
		if !a.Package.matches(s.Ecosystem, s.Name) {
			continue
		}
		v, err := a.judge(s.Version)
		if err != nil {
			return Verdict{}, err
		}
		if v.Affected {
			if v.Severity = a.Severity; len(v.Severity) == 0 {
				v.Severity = r.Severity
			}
			return v, nil
		}
		unknown = unknown || v.Unknown
	}
	return Verdict{Unknown: unknown}, nil
}

// matches: a record without a release speaks of all releases.
func (p Package) matches(ecosystem, name string) bool {
	base, _, _ := strings.Cut(ecosystem, ":")
	return p.Name == name && (p.Ecosystem == ecosystem || p.Ecosystem == base)
}

func (a Affected) judge(version string) (Verdict, error) {
	v := Verdict{Affected: slices.Contains(a.Versions, version)}
	var fault error
	for _, r := range a.Ranges {
		if r.Type == RangeGit {
			continue
		}
		o := orderOf(r.Type, a.Package)
		if o == nil {
			v.Unknown = true
			continue
		}
		if err := o.check(version); err != nil {
			fault = err
			continue
		}
		if in, fixed := r.contains(version, zeroFirst{o}); in {
			return Verdict{Affected: true, Fixed: fixed}, nil
		}
	}
	if v.Affected {
		return Verdict{Affected: true}, nil
	}
	return v, fault
}

type point struct {
	kind    eventKind
	version string
}

// contains is IncludedInRanges of the specification for one range. It also
// gives the fix that ends the interval which version is in.
func (r Range) contains(version string, o order) (in bool, fixed string) {
	var points []point
	limits, before := 0, false
	for _, e := range r.Events {
		kind, v, err := e.only()
		if err != nil {
			panic("osv: range was not checked")
		}
		if kind != limitEvent {
			points = append(points, point{kind, v})
			continue
		}
		limits++
		before = before || v == "*" || o.compare(version, v) < 0
	}
	if limits > 0 && !before {
		return false, ""
	}
	slices.SortStableFunc(points, func(a, b point) int {
		return cmp.Or(o.compare(a.version, b.version), cmp.Compare(a.kind, b.kind))
	})
	for _, p := range points {
		c := o.compare(version, p.version)
		switch {
		case p.kind == introducedEvent && c >= 0:
			in = true
		case p.kind == fixedEvent && c >= 0, p.kind == lastAffectedEvent && c > 0:
			in = false
		case p.kind == fixedEvent && in && fixed == "":
			fixed = p.version
		}
	}
	if !in {
		return false, ""
	}
	return true, fixed
}

// Compare orders two versions of a package as advisories about it do. Where
// there is no such order here the error is of kind [ErrVersion].
func Compare(p Package, a, b string) (int, error) {
	o := orderOf(RangeSemver, p)
	if base, _, _ := strings.Cut(p.Ecosystem, ":"); base != "Go" {
		o = orderOf(RangeEcosystem, p)
	}
	if o == nil {
		return 0, ErrVersion
	}
	if err := errors.Join(o.check(a), o.check(b)); err != nil {
		return 0, err
	}
	return o.compare(a, b), nil
}
