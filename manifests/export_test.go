package manifests

import (
	"maps"
	"slices"
)

// Limits that tests go up to.
const (
	MaxFaults = maxFaults
	MaxItems  = maxItems
	MaxLine   = maxLine
)

// Keys returns the full path and kind of everything that the scan recorded,
// sorted: "a.b value", "a list", "a[0] value", "t table", "s tables".
func Keys(raw []byte) []string {
	tree, _ := scan(&report{}, raw, MaxBytes)
	var all []string
	var walk func(n *node)
	walk = func(n *node) {
		if n.parent != nil {
			all = append(all, n.path()+" "+[]string{"value", "list", "table", "tables"}[n.kind])
		}
		for _, k := range slices.Sorted(maps.Keys(n.kids)) {
			walk(n.kids[k])
		}
		for _, e := range n.elems {
			walk(e)
		}
	}
	walk(tree)
	slices.Sort(all)
	return all
}

// Join is how Keys makes a path longer.
func Join(path, part string) string { return join(path, part) }

// Distance is the number of typing errors between two keys.
func Distance(a, b string) int { return distance(a, b) }

// CheckTemplate checks the ${ } of a text.
func CheckTemplate(s string) error { return checkTemplate(s) }

// SecretName tells whether a key names a secret.
func SecretName(key string) bool { return secretName(key) }

// Kept is the text that is read of raw, without what is set for a second time,
// and the number of faults; nil where there are others.
func Kept(raw []byte) (text []byte, faults int) {
	r := &report{}
	_, text = scan(r, raw, MaxBytes)
	return text, len(r.faults)
}

// Agree tells whether what the scan sees in one text is what the parser sees in
// another; ok is false where one of them refuses its text.
func Agree(scanned, parsed []byte) (same, ok bool) {
	r := &report{}
	tree, _ := scan(r, scanned, MaxBytes)
	values, fault := decode(parsed)
	if len(r.faults) > 0 || fault != nil {
		return false, false
	}
	return agree(tree, values), true
}
