package manifests

import (
	"cmp"
	"strings"
)

const (
	versionRule = "a semantic version such as 1.4.0, without a leading v"
	maxVersion  = 128
)

// ValidVersion tells whether s is a version of Semantic Versioning 2.0.0:
// major.minor.patch, no leading zeros, no leading v, at most 128 bytes.
func ValidVersion(s string) bool {
	if len(s) > maxVersion {
		return false
	}
	core, pre, build := splitVersion(s)
	if strings.Count(core, ".") != 2 {
		return false
	}
	for n := range strings.SplitSeq(core, ".") {
		if !isNumber(n) {
			return false
		}
	}
	return validIdentifiers(pre, true) && validIdentifiers(build, false)
}

// CompareVersions orders two valid versions by the precedence of Semantic
// Versioning 2.0.0 section 11, and versions of the same precedence by their
// build metadata, so that only equal strings compare as 0 and the highest of a
// set is always one version.
func CompareVersions(a, b string) int {
	coreA, preA, buildA := splitVersion(a)
	coreB, preB, buildB := splitVersion(b)
	if c := compareIdentifiers(coreA, coreB); c != 0 {
		return c
	}
	switch {
	case preA == preB:
	case preA == "": // a release comes after its pre-releases
		return 1
	case preB == "":
		return -1
	default:
		if c := compareIdentifiers(preA[1:], preB[1:]); c != 0 {
			return c
		}
	}
	return cmp.Compare(buildA, buildB)
}

// splitVersion cuts s into core, "-pre-release" and "+build"; the last two keep
// their sign and are empty when absent.
func splitVersion(s string) (core, pre, build string) {
	if i := strings.IndexByte(s, '+'); i >= 0 {
		s, build = s[:i], s[i:]
	}
	if i := strings.IndexByte(s, '-'); i >= 0 {
		s, pre = s[:i], s[i:]
	}
	return s, pre, build
}

// validIdentifiers checks a signed part of [splitVersion]. Numbers of a
// pre-release have no leading zeros; those of build metadata may.
func validIdentifiers(part string, numbers bool) bool {
	if part == "" {
		return true
	}
	for id := range strings.SplitSeq(part[1:], ".") {
		if id == "" || !only(id, func(c byte) bool { return isBareChar(c) && c != '_' }) {
			return false
		}
		if numbers && only(id, isDigit) && !isNumber(id) {
			return false
		}
	}
	return true
}

// isNumber tells whether s is a decimal number without leading zeros.
func isNumber(s string) bool {
	return s != "" && only(s, isDigit) && (s == "0" || s[0] != '0')
}

func compareIdentifiers(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if c := compareIdentifier(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b)) // one has more identifiers, or both are done
}

func compareIdentifier(x, y string) int {
	numX, numY := only(x, isDigit), only(y, isDigit)
	switch {
	case numX && numY: // no leading zeros: the longer number is the larger
		if c := cmp.Compare(len(x), len(y)); c != 0 {
			return c
		}
	case numX:
		return -1
	case numY:
		return 1
	}
	return cmp.Compare(x, y)
}
