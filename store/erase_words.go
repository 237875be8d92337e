package store

import (
	"bytes"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

// shortWords are those that nobody looks for elsewhere, in bytes: they are everywhere.
const shortWords = 4

// SameWords finds other entries in which people have said what they have said in these, word by
// word or as a part of it: stella itself takes the reason of a run's end on to its sub-runs, and
// who is named once is named again. At most [ledger.MaxErased] are found, from the oldest on. Data
// that is agreed to be erased has no words. All entries are read; what was found before one that
// cannot be is returned with the error.
func (db *DB) SameWords(seqs []int64) (also []int64, err error) {
	var words []string
	var written [][]byte // the same as they stand in a data line
	for _, seq := range seqs {
		l, err := db.Entry(seq)
		if err != nil {
			return nil, err
		}
		said, err := l.said()
		if err != nil {
			return nil, err
		}
		for _, w := range said {
			if len(w) < shortWords || slices.Contains(words, w) {
				continue
			}
			text, err := jcs.Marshal(w)
			if err != nil {
				return nil, err
			}
			words, written = append(words, w), append(written, text[1:len(text)-1])
		}
	}
	if len(words) == 0 {
		return nil, nil
	}
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			return also, err
		}
		if slices.Contains(seqs, l.Seq) || !slices.ContainsFunc(written, func(w []byte) bool { return bytes.Contains(l.Data, w) }) {
			continue
		}
		said, err := l.said()
		if err != nil {
			return also, err
		}
		same := func(s string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
		}
		if slices.ContainsFunc(said, same) {
			if also = append(also, l.Seq); len(also) == ledger.MaxErased {
				break
			}
		}
	}
	return also, nil
}

// said is what people have said in an entry; nothing where that was erased.
func (l Lines) said() ([]string, error) {
	if l.Data == nil {
		return nil, nil
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil {
		return nil, err
	}
	line, err := ledger.ParseData(l.Data)
	if err != nil {
		return nil, err
	}
	return ledger.Said(env.Type, line.Data)
}
