package main

import (
	"fmt"
	"os"
	"strings"
)

// Words of a correction.
const (
	reviewOmit     = "omit"     // the entry does not fix the fault, whatever it seems to say
	reviewComplete = "complete" // the entry completes the fix of an earlier one
)

// correction is what a person found who read an entry.
type correction struct {
	word, source, version, cve string
	used                       bool
}

// readReview reads lines of the form "WORD SOURCE VERSION CVE # reason".
func readReview(path string) ([]correction, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []correction
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		line, reason, _ := strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 4 || words[0] != reviewOmit && words[0] != reviewComplete || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s:%d: omit or complete, SOURCE VERSION CVE # reason is wanted", path, n)
		}
		out = append(out, correction{word: words[0], source: words[1], version: words[2], cve: words[3]})
	}
	return out, nil
}

// correct returns the word of the correction for a fault in an entry, "" when
// there is none, and marks it as used.
func correct(review []correction, e *entry, cve string) string {
	for i := range review {
		c := &review[i]
		if c.source == e.source && c.version == e.version && c.cve == cve {
			c.used = true
			return c.word
		}
	}
	return ""
}
