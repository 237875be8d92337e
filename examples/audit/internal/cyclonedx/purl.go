package cyclonedx

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// PURL is a package URL: pkg:type/namespace/name@version?qualifiers#subpath.
type PURL struct {
	Type      string // lower case
	Namespace string // segments with slashes between them; may be empty
	Name      string
	Version   string
	// Qualifiers with an empty value are left out.
	Qualifiers map[string]string
}

// ErrNotPURL is the error of text that is not a package URL.
var ErrNotPURL = errors.New("cyclonedx: not a package URL")

// String writes p in the one canonical form.
func (p PURL) String() string {
	var b strings.Builder
	b.WriteString("pkg:" + p.Type + "/")
	for segment := range strings.SplitSeq(p.Namespace, "/") {
		if segment != "" {
			b.WriteString(escape(segment) + "/")
		}
	}
	b.WriteString(escape(p.Name))
	if p.Version != "" {
		b.WriteString("@" + escape(p.Version))
	}
	mark := "?"
	for _, key := range slices.Sorted(maps.Keys(p.Qualifiers)) {
		if value := p.Qualifiers[key]; value != "" {
			b.WriteString(mark + strings.ToLower(key) + "=" + escape(value))
			mark = "&"
		}
	}
	return b.String()
}

// escape leaves what the specification says must not be encoded: letters,
// digits, and . - _ ~ and the colon.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if isPlain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_~:", c) >= 0
}

// ParsePURL reads a package URL. It drops the subpath.
func ParsePURL(s string) (PURL, error) {
	rest, ok := strings.CutPrefix(s, "pkg:")
	if !ok || len(s) > 4096 {
		return PURL{}, fmt.Errorf("%w: %.80q", ErrNotPURL, s)
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	kind, path, ok := strings.Cut(strings.TrimLeft(rest, "/"), "/")
	if !ok || !isKey(kind) {
		return PURL{}, fmt.Errorf("%w: %.80q: no type", ErrNotPURL, s)
	}
	p := PURL{Type: strings.ToLower(kind)}
	path, version := cutVersion(path)
	var parts []string
	for segment := range strings.SplitSeq(path, "/") {
		if segment != "" {
			parts = append(parts, segment)
		}
	}
	if len(parts) == 0 {
		return PURL{}, fmt.Errorf("%w: %.80q: no name", ErrNotPURL, s)
	}
	var bad bool
	for i := range parts {
		parts[i] = unescape(parts[i], &bad)
	}
	p.Name, p.Namespace = parts[len(parts)-1], strings.Join(parts[:len(parts)-1], "/")
	p.Version = unescape(version, &bad)
	p.Qualifiers = parseQualifiers(query, &bad)
	if bad {
		return PURL{}, fmt.Errorf("%w: %.80q: a percent sign or a qualifier is broken", ErrNotPURL, s)
	}
	return p, nil
}

// cutVersion cuts at the last @ of the last segment.
func cutVersion(path string) (name, version string) {
	if i := strings.LastIndexByte(path, '@'); i > strings.LastIndexByte(path, '/') {
		return path[:i], path[i+1:]
	}
	return path, ""
}

func parseQualifiers(query string, bad *bool) map[string]string {
	if query == "" {
		return nil
	}
	q := map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if !isKey(key) {
			*bad = true
		} else if value = unescape(value, bad); value != "" {
			q[strings.ToLower(key)] = value
		}
	}
	return q
}

// isKey: a type or the name of a qualifier.
func isKey(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isPlain(c) && c != '+' || c == '~' || c == ':' {
			return false
		}
	}
	return s != ""
}

func unescape(s string, bad *bool) string {
	out, err := url.PathUnescape(s)
	if err != nil {
		*bad = true
	}
	return out
}
