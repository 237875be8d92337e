package manifests

import (
	"strings"
)

// nearest says which of the known keys was meant, or which there are.
func nearest(key string, known []string) string {
	folded := foldKey(key)
	for _, k := range known {
		if foldKey(k) == folded {
			return "write " + k + "; keys are lower-case with _"
		}
	}
	if best := Nearest(key, known); best != "" {
		return "did you mean " + best + "?"
	}
	if len(known) > 0 && len(known) <= 12 {
		return "known here: " + strings.Join(known, ", ")
	}
	return ""
}

// Nearest is the one of the known names that is most like a name, "" if none is.
func Nearest(name string, known []string) string {
	best, least := "", 1+min(len(name), 24)/3
	if len(name) <= 40 {
		for _, k := range known {
			if d := distance(name, k); d < least {
				best, least = k, d
			}
		}
	}
	return best
}

// foldKey takes away what tells spellings of one name apart.
func foldKey(key string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(key))
}

// distance is the number of letters to change, add, leave out or swap with
// their neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
