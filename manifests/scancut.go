package manifests

import "bytes"

// A span is a part of a file's bytes.
type span struct{ start, end int }

// cut takes note that what stands from start to the current position is not to
// be read.
func (s *scanner) cut(start int) { s.cuts = append(s.cuts, span{start, s.pos}) }

// endCut ends the lines below a header whose name was taken.
func (s *scanner) endCut() {
	if s.lost >= 0 {
		s.cut(s.lost)
		s.lost = -1
	}
}

// kept returns the file without the cuts. Spaces stand in their place, so that
// each line keeps its number.
func (s *scanner) kept() []byte {
	if len(s.cuts) == 0 {
		return s.raw
	}
	text := bytes.Clone(s.raw)
	for _, c := range s.cuts {
		for i, b := range text[c.start:c.end] {
			if b != '\n' {
				text[c.start+i] = ' '
			}
		}
	}
	return text
}
