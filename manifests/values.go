package manifests

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
)

// maxInt is the largest integer of our formats: every JSON reader keeps it
// whole (FORMATS section 0).
const maxInt = 1<<53 - 1

// maxDuration bounds every duration: ten years of 365 days.
const maxDuration = 10 * 365 * 24 * time.Hour

const (
	hashRule     = "a SHA-256 as 64 lower-case hex digits"
	timeRule     = `a time in quotes such as "2026-11-22T00:00:00.000000000Z", from 1970 on`
	durationRule = `a duration such as "90s", "5m" or "1h30m"`
	sizeRule     = `bytes, or a size such as "256MiB" (B, KiB, MiB, GiB)`
	lineRule     = "one line of text"
)

func isName() rule   { return rule{ValidName, nameRule} }
func isStepID() rule { return rule{ValidStepID, idRule} }
func isField() rule  { return rule{validField, fieldRule} }
func isVersion() rule {
	return rule{ValidVersion, versionRule}
}
func isHash() rule { return rule{func(s string) bool { return validHex(s, 64) }, hashRule} }
func isSiteID() rule {
	return rule{func(s string) bool { return validHex(s, 32) }, "32 lower-case hex digits"}
}
func isHostPath() rule {
	return rule{validHostPath, "an absolute path in its shortest form"}
}

// isRecipient is the form of age's public keys; that each is one is seen when it is used.
func isRecipient() rule {
	return rule{func(s string) bool {
		rest, ok := strings.CutPrefix(s, "age1")
		return ok && len(s) <= 4096 && len(rest) >= 58 && strings.Trim(rest, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
	}, "a public key of age, age1…"}
}

func isLine(most int) rule {
	return rule{func(s string) bool { return s != "" && len(s) <= most && plain(s) },
		fmt.Sprintf("%s, at most %d bytes", lineRule, most)}
}
func isProse() rule {
	return rule{func(s string) bool { return s != "" && len(s) <= 4096 && prose(s) }, "text of at most 4096 bytes"}
}

// instant reads a time. It is zero when absent or wrong.
func (t *table) instant(key string) time.Time {
	t.mark(key)
	if d, ok := t.values[key].(time.Time); ok {
		t.fault(key, "want a string, found "+found(d), "want "+timeRule)
		return time.Time{}
	}
	s, ok := take[string](t, key, "a string")
	if !ok {
		return time.Time{}
	}
	at, err := stamp.Parse(s)
	if err != nil || at.Unix() < 0 {
		t.fault(key, show(s)+" is not a time of our form", "want "+timeRule)
		return time.Time{}
	}
	return at
}

// after reports the key later unless it is after the key earlier; a key that is
// absent or wrong is passed over.
func (t *table) after(laterKey string, later time.Time, earlierKey string, earlier time.Time) {
	if !later.IsZero() && !earlier.IsZero() && !later.After(earlier) {
		t.fault(laterKey, "must be after "+earlierKey, "")
	}
}

// duration reads a duration above zero, of whole milliseconds.
func (t *table) duration(key string, otherwise, most time.Duration) time.Duration {
	t.mark(key)
	if v, ok := t.values[key]; ok {
		if _, ok := v.(string); !ok {
			t.fault(key, "want a string, found "+found(v), "want "+durationRule)
			return otherwise
		}
	}
	s, ok := take[string](t, key, "a string")
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil || strings.HasPrefix(s, "+"):
		t.fault(key, show(s)+" is not a duration", "want "+durationRule)
	case d <= 0:
		t.fault(key, show(s)+" is not above zero", "")
	case d%time.Millisecond != 0:
		t.fault(key, show(s)+" is not a whole number of milliseconds", "")
	case d > most:
		t.fault(key, show(s)+" is too long", "at most "+formatDuration(most))
	default:
		return d
	}
	return otherwise
}

// formatDuration writes d the short way: 1h30m, not 1h30m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size reads a number of bytes above zero.
func (t *table) size(key string, otherwise int64) int64 {
	t.mark(key)
	switch v := t.values[key].(type) {
	case nil:
		return otherwise
	case int64:
		if v >= 1 && v <= maxInt {
			return v
		}
		t.fault(key, fmt.Sprintf("%d is out of range", v), "want "+sizeRule)
	case string:
		if n, ok := parseSize(v); ok {
			return n
		}
		t.fault(key, show(v)+" is not a size", "want "+sizeRule)
	default:
		t.fault(key, "want a size, found "+found(v), "want "+sizeRule)
	}
	return otherwise
}

type unit struct {
	name  string
	bytes int64
}

// units are those of sizes, the largest first.
func units() []unit {
	return []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// ParseSize reads a size as the languages of a site write it: a whole number, and B,
// KiB, MiB or GiB.
func ParseSize(s string) (int64, bool) { return parseSize(s) }

func parseSize(s string) (int64, bool) {
	for _, u := range units() {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		if !isNumber(digits) {
			return 0, false
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		return n * u.bytes, err == nil && n >= 1 && n <= maxInt/u.bytes
	}
	return 0, false
}

// formatSize writes n in the largest unit that leaves no fraction; short is
// false where that is the byte.
func formatSize(n int64) (s string, short bool) {
	for _, u := range units() {
		if u.bytes > 1 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name, true
		}
	}
	return strconv.FormatInt(n, 10) + "B", false
}

// fraction reads a number that may be written with or without a point.
func (t *table) fraction(key string, otherwise float64, ok func(float64) bool, want string) float64 {
	t.mark(key)
	var f float64
	switch v := t.values[key].(type) {
	case nil:
		return otherwise
	case int64:
		f = float64(v)
	case float64:
		f = v
	default:
		t.fault(key, "want a number, found "+found(v), "want "+want)
		return otherwise
	}
	if !ok(f) { // comparisons that must hold: NaN fails them
		t.fault(key, strconv.FormatFloat(f, 'g', -1, 64)+" is out of range", "want "+want)
		return otherwise
	}
	return f
}

// limits reads a table of limits.
func (t *table) limits(key string) Limits {
	s := t.sub(key)
	if s == nil {
		return Limits{}
	}
	defer s.done()
	return Limits{
		Memory:    s.size("memory", 0),
		CPU:       s.fraction("cpu", 0, func(f float64) bool { return f > 0 && f <= 4096 }, "more than 0, at most 4096 processors"),
		PIDs:      s.integer("pids", 0, 1, 1<<22),
		Timeout:   s.duration("timeout", 0, maxDuration),
		Workspace: s.size("workspace", 0),
		Log:       s.size("log", 0),
	}
}

// free reads a value of any shape, as JSON knows it: string, int64, float64,
// bool, []any or map[string]any. It is nil when absent or wrong.
func (t *table) free(key string) any {
	t.mark(key)
	v, ok := t.values[key]
	if !ok {
		return nil
	}
	return t.json(v, t.node.kids[key], 1)
}

func (t *table) json(value any, n *node, depth int) any {
	if n.kind != scalarNode && depth > maxNesting {
		t.broke(RuleShape, n.line, n.path(), fmt.Sprintf("lists and tables stand more than %d deep in each other", maxNesting), "")
		return nil
	}
	switch v := value.(type) {
	case string, bool:
		return v
	case int64:
		if v > maxInt || v < -maxInt {
			t.add(n.line, n.path(), fmt.Sprintf("%d is beyond what JSON carries unchanged", v), "write it as a string")
		}
		return v
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.add(n.line, n.path(), "JSON has no such number", "write it as a string")
		}
		return v
	case []any:
		all := make([]any, len(v))
		for i, e := range v {
			all[i] = t.json(e, n.elems[i], depth+1)
		}
		return all
	case []map[string]any:
		all := make([]any, len(v))
		for i, e := range v {
			all[i] = t.json(e, n.elems[i], depth+1)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all[name] = t.json(v[name], n.kids[name], depth+1)
		}
		return all
	}
	t.add(n.line, n.path(), "want a value that JSON has, found "+found(value), "put it in quotes")
	return nil
}

// fields reads a table of free values, nil when it is absent or empty.
func (t *table) fields(key string, names rule) map[string]any {
	s := t.sub(key)
	if s == nil || len(s.values) == 0 {
		return nil
	}
	all := make(map[string]any, len(s.values))
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if !names.ok(name) {
			s.fault(name, "the name is not allowed", "want "+names.want)
		}
		all[name] = s.free(name)
	}
	return all
}

// equal tells whether two free values are the same; 1 and 1.0 are.
func equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			if w, ok := b[k]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case int64:
		if f, ok := b.(float64); ok {
			return float64(a) == f
		}
	case float64:
		if i, ok := b.(int64); ok {
			return a == float64(i)
		}
	}
	return a == b
}
