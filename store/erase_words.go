package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

const (
	shortWords = 4    // bytes of words that nobody looks for elsewhere: they are everywhere
	manyWords  = 1000 // each is looked for in each entry
)

// SameWords finds other entries in which people have said what they have said in these, word by
// word or as a part of it: stella itself takes the reason of a run's end on to its sub-runs, and
// who is named once is named again. At most [ledger.MaxErased] are found, from the oldest on. Data
// that is agreed to be erased has no words. All entries are read; an error says why not all were
// looked through, for not all words, or that there may be more, and comes with what was found.
func (db *DB) SameWords(ctx context.Context, seqs []int64) (also []int64, err error) {
	words, all, err := db.words(seqs)
	if len(words) == 0 || err != nil {
		return nil, err
	}
	written := make([][]byte, len(words)) // as they stand in a data line
	for i, w := range words {
		text, err := jcs.Marshal(w)
		if err != nil {
			return nil, err
		}
		written[i] = text[1 : len(text)-1]
	}
	for l, err := range db.Entries(0, db.Size()) {
		if err == nil {
			err = ctx.Err()
		}
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
				return also, fmt.Errorf("store: there may be more than %d", len(also))
			}
		}
	}
	if !all {
		err = fmt.Errorf("store: there are more than %d different texts: name fewer entries at once", manyWords)
	}
	return also, err
}

// words are what people have said in entries, each once, and as many as can be looked for.
func (db *DB) words(seqs []int64) (words []string, all bool, err error) {
	seen := map[string]bool{}
	for _, seq := range seqs {
		l, err := db.Entry(seq)
		if err != nil {
			return nil, false, err
		}
		said, err := l.said()
		if err != nil {
			return nil, false, err
		}
		for _, w := range said {
			if len(w) < shortWords || seen[w] {
				continue
			}
			if len(words) == manyWords {
				return words, false, nil
			}
			seen[w], words = true, append(words, w)
		}
	}
	return words, true, nil
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
