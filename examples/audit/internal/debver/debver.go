// Package debver is the version numbers of Debian packages and their order, as
// Debian policy 5.6.12 defines them. It is pure.
package debver

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// ErrVersion is the error of text that is not a Debian version number.
var ErrVersion = errors.New("debver: not a version")

// Version is a version number in its three parts, as Debian policy 5.6.12
// takes it apart. The zero value is no version; use [Parse].
type Version struct {
	epoch    string // decimal without leading zeros; "" is 0
	upstream string
	revision string // "" sorts like "0", as the policy says
}

// maxVersion bounds a version number in bytes.
const maxVersion = 1024

// Parse takes s apart: [epoch:]upstream[-revision]. The last hyphen
// begins the revision. Like dpkg it accepts an upstream part that does not
// begin with a digit, for there are packages that have one.
func Parse(s string) (Version, error) {
	if len(s) > maxVersion {
		return Version{}, fmt.Errorf("%w: %d bytes", ErrVersion, len(s))
	}
	var v Version
	rest := s
	if epoch, after, ok := strings.Cut(s, ":"); ok {
		if epoch == "" || !all(epoch, isDigit) {
			return Version{}, fmt.Errorf("%w: %q: epoch is not a number", ErrVersion, s)
		}
		v.epoch, rest = strings.TrimLeft(epoch, "0"), after
	}
	v.upstream = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		v.upstream, v.revision = rest[:i], rest[i+1:]
		if v.revision == "" {
			return Version{}, fmt.Errorf("%w: %q: empty revision", ErrVersion, s)
		}
	}
	if v.upstream == "" {
		return Version{}, fmt.Errorf("%w: %q: empty upstream part", ErrVersion, s)
	}
	if !all(v.upstream, isUpstream) || !all(v.revision, isRevision) {
		return Version{}, fmt.Errorf("%w: %q: forbidden character", ErrVersion, s)
	}
	return v, nil
}

// Compare returns -1, 0 or +1 as v is before, the same as or after w: epochs
// as numbers, then the upstream parts, then the revisions.
func (v Version) Compare(w Version) int {
	return cmp.Or(
		compareNumbers(v.epoch, w.epoch),
		compareParts(v.upstream, w.upstream),
		compareParts(v.revision, w.revision),
	)
}

// Compare compares two version numbers in text form.
func Compare(a, b string) (int, error) {
	v, err := Parse(a)
	if err != nil {
		return 0, err
	}
	w, err := Parse(b)
	if err != nil {
		return 0, err
	}
	return v.Compare(w), nil
}

// compareParts is the algorithm of policy 5.6.12: from left to right, by
// turns, the longest part without digits and the longest part of digits.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a = span(a, false)
		y, b = span(b, false)
		if c := compareLetters(x, y); c != 0 {
			return c
		}
		x, a = span(a, true)
		y, b = span(b, true)
		if c := compareNumbers(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// span cuts off the longest prefix of s whose characters are all digits, or
// all not.
func span(s string, digits bool) (prefix, rest string) {
	i := 0
	for i < len(s) && isDigit(s[i]) == digits {
		i++
	}
	return s[:i], s[i:]
}

// compareLetters compares two parts without digits: a tilde before the end of
// the part, the end before letters, letters before everything else.
func compareLetters(a, b string) int {
	for i := 0; i < len(a) || i < len(b); i++ {
		if c := cmp.Compare(rank(a, i), rank(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func rank(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case isLetter(s[i]):
		return int(s[i])
	default:
		return int(s[i]) + 256
	}
}

// compareNumbers compares decimal numbers of any length; none is 0.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isRevision(c byte) bool {
	return isDigit(c) || isLetter(c) || c == '.' || c == '+' || c == '~'
}

func isUpstream(c byte) bool { return isRevision(c) || c == '-' || c == ':' }
