package manifests

import (
	"fmt"
	"strings"
)

// Rules of names, as messages say them.
const (
	nameRule  = "a lower-case letter or digit, then at most 62 of a-z 0-9 . -"
	idRule    = "1 to 63 of a-z 0-9 _ -"
	fieldRule = "a letter or _, then at most 62 letters, digits, _ or -"
	pathRule  = "at most 255 of A-Z a-z 0-9 . _ + @ - and /, relative, no part empty, . or .."
	refRule   = "publisher/name@version"
)

// ValidName tells whether s may name a publisher, bundle, DAG, tenant, secret,
// lock or semaphore: [a-z0-9][a-z0-9.-]{0,62}.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return only(s, func(c byte) bool { return isLowerDigit(c) || c == '.' || c == '-' })
}

// ValidStepID tells whether s may name a step, action or fence:
// [a-z0-9_-]{1,63}.
func ValidStepID(s string) bool {
	return s != "" && len(s) <= 63 && only(s, func(c byte) bool { return isLowerDigit(c) || c == '_' || c == '-' })
}

// ValidRunToken tells whether a caller may use s as a run token: 1 to 128
// printable ASCII characters other than space, not beginning with "stella:",
// which is kept for tokens that stella makes itself (THREATS 36).
func ValidRunToken(s string) bool {
	if s == "" || len(s) > 128 || strings.HasPrefix(s, "stella:") {
		return false
	}
	return only(s, func(c byte) bool { return c >= 0x21 && c <= 0x7e })
}

// ValidPath tells whether s may be the path of a file in a bundle (FORMATS
// section 1). It says nothing of other paths: see the checks of [ParseBundle].
func ValidPath(s string) bool { return PathRule(s) == "" }

// PathRule is the rule that s breaks as a path of a file in a bundle, "" for
// none. One that leads elsewhere is a traversal, whatever else it is.
func PathRule(s string) Rule {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return RuleTraversal
		}
	}
	if len(s) > 255 || !only(s, func(c byte) bool { return isBareChar(c) || c == '.' || c == '+' || c == '@' || c == '/' }) {
		return RuleForbidden
	}
	return ""
}

// validField tells whether s may name an input or output: it is a key that
// CEL reads.
func validField(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || isDigit(s[0]) {
		return false
	}
	return isBare(s)
}

// validHex tells whether s is exactly n lower-case hex digits.
func validHex(s string, n int) bool {
	return len(s) == n && only(s, func(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' })
}

// validHostPath tells whether s is an absolute path in its shortest form.
func validHostPath(s string) bool {
	if s == "/" {
		return true
	}
	if len(s) < 2 || len(s) > 4095 || s[0] != '/' {
		return false
	}
	for part := range strings.SplitSeq(s[1:], "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return false
		}
	}
	return plain(s)
}

// ParseRef reads publisher/name@version.
func ParseRef(s string) (Ref, error) {
	var r Ref
	publisher, rest, slash := strings.Cut(s, "/")
	name, version, at := strings.Cut(rest, "@")
	switch {
	case !slash || !at:
		return r, fmt.Errorf("manifests: %s is not %s", show(s), refRule)
	case !ValidName(publisher):
		return r, fmt.Errorf("manifests: %s: publisher: want %s", show(s), nameRule)
	case !ValidName(name):
		return r, fmt.Errorf("manifests: %s: name: want %s", show(s), nameRule)
	case !ValidVersion(version):
		return r, fmt.Errorf("manifests: %s: version: want %s", show(s), versionRule)
	}
	return Ref{Publisher: publisher, Name: name, Version: version}, nil
}

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool      { return c >= '0' && c <= '9' }
func isLowerDigit(c byte) bool { return c >= 'a' && c <= 'z' || isDigit(c) }
