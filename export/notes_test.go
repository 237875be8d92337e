package export_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// A note has one form for both; what is none is a mistake of the auditor's, and no verdict.
func TestBothReadNotesInOneForm(t *testing.T) {
	s := busySite(t)
	tar := saved(t, s.archive(window(4, 20)))
	good := string(s.notes[0])
	own := good[strings.Index(good, "— "):]
	lines := func(n int) (out string) {
		for i := range n {
			out += fmt.Sprintf("— w%d AAAAAAAA\n", i)
		}
		return out
	}
	for name, tc := range map[string]struct {
		note string
		want string // the verdict, "" for none
	}{
		"as it is":                   {good, "VERIFIED"},
		"with a line of another":     {good + "— x AAAAAAAA\n", "VERIFIED"},
		"with lines of 99 others":    {good + lines(99), "VERIFIED"},
		"with lines of 100 others":   {good + lines(100), ""},
		"its line twice":             {good + own, ""},
		"a line of another twice":    {good + "— x AAAAAAAA\n— x AAAAAAAA\n", ""},
		"a line without a name":      {good + "—  AAAAAAAA\n", ""},
		"a name with +":              {good + "— a+b AAAAAAAA\n", ""},
		"a name with a blank":        {good + "— a\u00a0b AAAAAAAA\n", ""},
		"a name that is not UTF-8":   {good + "— \xff AAAAAAAA\n", ""},
		"a name with a control":      {good + "— a\x01 AAAAAAAA\n", ""},
		"a name with a tab":          {good + "— a\tb AAAAAAAA\n", ""},
		"another's line comes first": {strings.Replace(good, "— ", "— x AAAAAAAA\n— ", 1), ""},
		"a second line of its own":   {good + strings.Replace(own, "A", "B", 1), ""},
		"a short signature":          {good[:strings.Index(good, "— ")] + own[:strings.LastIndex(own, " ")] + " AAAAAAAA\n", ""},
		"a tree of nothing":          {strings.Replace(good, "\n9\n", "\n0\n", 1), ""},
		"an empty line at the end":   {good + "\n", ""},
		"no line feed at the end":    {strings.TrimSuffix(good, "\n"), ""},
		"a carriage return":          {strings.Replace(good, "\n", "\r\n", 1), ""},
		"a fourth line in the text":  {strings.Replace(good, "\n\n", "\nx\n\n", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			opt := s.auditor()
			opt.Previous = []byte(tc.note)
			r, err := export.Verify(context.Background(), tar, opt)
			verdict, _, out := audit(t, opt, tar)
			if verdict != tc.want || errors.Is(err, export.ErrNote) != (tc.want == "") || err == nil && string(r.Verdict) != tc.want {
				t.Errorf("stella-audit %q, verify %v\n%s", verdict, err, out)
			}
		})
	}
}

// Whose key is not given, or is another's, is not accused for that; what two notes of one key
// say is held against whoever has it.
func TestBothJudgeNotesByTheKeyOfTheLog(t *testing.T) {
	s := busySite(t)
	w := witnessOf(t, "w.example/a", 1)
	tar := s.archive(window(4, 20))
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	note := func(size int64, key ed25519.PrivateKey) []byte {
		return mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: size}, key)
	}
	for name, tc := range map[string]struct {
		set  func(o *export.VerifyOptions)
		want export.Verdict
	}{
		"no key, a good note":       {func(o *export.VerifyOptions) { o.LogKey, o.Previous = nil, s.notes[0] }, export.Unauthenticated},
		"no key, another history":   {func(o *export.VerifyOptions) { o.LogKey, o.Previous = nil, note(5, s.logKey) }, export.Failed},
		"another key, a good note":  {func(o *export.VerifyOptions) { o.LogKey, o.Previous = publicPEM(t, other.Public()), s.notes[0] }, export.Unauthenticated},
		"another key, its own note": {func(o *export.VerifyOptions) { o.LogKey, o.Previous = publicPEM(t, other.Public()), note(5, other) }, export.Failed},
		"a note of another key":     {func(o *export.VerifyOptions) { o.Previous = note(5, other) }, export.Failed},
		"witnessed, no key": {func(o *export.VerifyOptions) {
			o.LogKey, o.Cosigned, o.MinWitnesses = nil, cosigned(t, s.notes[1], w), 1
		}, export.Unauthenticated},
		"witnessed, another key": {func(o *export.VerifyOptions) {
			o.LogKey, o.Cosigned, o.MinWitnesses = publicPEM(t, other.Public()), cosigned(t, s.notes[1], w), 1
		}, export.Unauthenticated},
		"witnessed, another history":              {func(o *export.VerifyOptions) { o.LogKey, o.Cosigned = nil, note(21, s.logKey) }, export.Failed},
		"cosigned, of another key":                {func(o *export.VerifyOptions) { o.Cosigned = note(21, other) }, export.Failed},
		"cosigned, of another key, and too small": {func(o *export.VerifyOptions) { o.Cosigned = note(9, other) }, export.Verified},
		"the same, and one is demanded":           {func(o *export.VerifyOptions) { o.Cosigned, o.MinWitnesses = note(9, other), 1 }, export.Incomplete},
	} {
		t.Run(name, func(t *testing.T) {
			opt := s.auditor()
			opt.Witnesses = []ledger.Witness{w.Witness}
			tc.set(&opt)
			if r := check(t, tar, opt); r.Verdict != tc.want {
				t.Error(explain(r))
			}
		})
	}
}
