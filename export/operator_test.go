package export_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// deed is what a dishonest operator hands over: archives in the order of their
// windows, made and signed with every key of the site.
type deed struct {
	what     string
	archives [][]byte
	opt      func(o *export.VerifyOptions) // what the auditor has beside the keys
	want     export.Verdict
	check    string // that names it
	// alone is the verdict without what opt gives: where it is VERIFIED, an
	// archive and keys cannot show it, and only a note that somebody kept, a
	// witness, or the archive before can.
	alone export.Verdict
}

// THREATS, the dishonest operator: twelve forgeries with all keys of the site.
// stella-audit names each; what only a note, a witness or the archive before
// shows is said by alone.
func TestTheDishonestOperator(t *testing.T) {
	for name, d := range map[string]func(*testing.T) []deed{
		"honest control":            honestControl,
		"1 trimmed edges":           trimmedEdges,
		"2 withheld run":            withheldRun,
		"3 re-init":                 initialisedAgain,
		"4 home restored with note": restoredHome,
		"5 recover after damage":    recovered,
		"6 fork":                    forked,
		"7 own keys":                ownKeys,
		"8 skipped archive":         skippedArchive,
		"9 clock forward and back":  clockMoved,
		"10 kill after exec":        killedAfterExec,
		"11 lost logs":              lostLogs,
		"12 masked id":              maskedID,
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range d(t) {
				var paths []string
				for _, raw := range d.archives {
					paths = append(paths, saved(t, raw))
				}
				keys := busySite(t).auditor()
				with := keys
				if d.opt != nil {
					d.opt(&with)
				}
				verdict, _, out := audit(t, with, paths...)
				if row := rowOf(out[lastTable(out):], d.check); verdict != string(d.want) || d.check != "" && !strings.HasPrefix(row, "failed") && !strings.HasPrefix(row, "missing") {
					t.Errorf("%s: %s, %s: %q; want %s\n%s", d.what, verdict, d.check, row, d.want, out)
				}
				if alone, _, out := audit(t, keys, paths[len(paths)-1]); alone != string(d.alone) {
					t.Errorf("%s, with keys and the last archive alone: %s, want %s\n%s", d.what, alone, d.alone, out)
				}
			}
		})
	}
}

// lastTable is where the table of the last archive begins.
func lastTable(out string) int { return strings.LastIndex(out, "archive  ") }

// previous is an auditor who has kept a note. Where he needs a proof too, liar
// gives the best that he can make, from the tree of size entries; without one
// the verdict is INCOMPLETE.
func previous(t *testing.T, note []byte, liar *site, size int64) func(*export.VerifyOptions) {
	return func(o *export.VerifyOptions) {
		o.Previous = note
		c, err := ledger.ParseCheckpoint(note)
		if err != nil {
			t.Fatal(err)
		}
		known := min(c.Size, liar.Size())
		o.Consistency = liar.consistency(size, known)
		o.Consistency.From, o.Consistency.To = min(size, c.Size), max(size, c.Size)
		if len(o.Consistency.Proof) == 0 {
			o.Consistency.Proof = []ledger.Hash{{}}
		}
	}
}

// retold is busySite told again, with entries changed or, where tell returns
// nil, left out; those after it move up. Every tree head is signed anew.
func retold(t *testing.T, tell func(seq int, e *ledger.Envelope, data any) any) *site {
	t.Helper()
	honest, s := busySite(t), newSite(t)
	s.blobs, s.segments = honest.blobs, honest.segments
	for i, e := range honest.entries[1:] {
		env, data := opened(t, e)
		if data = tell(i+1, &env, data); data == nil {
			s.at = s.at.Add(time.Second)
			continue
		}
		at := s.at
		if moved, err := stamp.Parse(env.Time); err == nil {
			s.at = moved
		}
		s.add(env, data)
		s.at = at.Add(time.Second)
		if size := len(s.entries); size == 9 || size == 21 {
			s.checkpoint()
		}
	}
	s.checkpoint()
	return s
}

// opened is an entry taken apart.
func opened(t *testing.T, e export.Entry) (ledger.Envelope, any) {
	t.Helper()
	env, err := ledger.ParseEnvelope(e.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ledger.ParseData(e.Data)
	if err != nil {
		t.Fatal(err)
	}
	data, err := ledger.DecodeData(env.Type, line.Data)
	if err != nil {
		t.Fatal(err)
	}
	return env, data
}

// forge takes the archive of a window apart and signs what is made of it.
func forge(t *testing.T, s *site, w export.Window, f func(k *kit)) []byte {
	t.Helper()
	k := takeApart(t, s, s.archive(w))
	f(k)
	return k.pack(k.assemble())
}

func honestControl(t *testing.T) []deed {
	s := busySite(t)
	w := witnessOf(t, "w.example/a", 1)
	return []deed{{
		what:     "two archives that meet, a note and a witness",
		archives: [][]byte{s.archive(window(0, 9)), s.archive(window(9, 20))},
		opt: func(o *export.VerifyOptions) {
			o.Previous = s.notes[0]
			o.Cosigned, o.Witnesses, o.MinWitnesses = cosigned(t, s.notes[1], w), []ledger.Witness{w.Witness}, 1
			// The first archive is of the tree of that note: nothing to prove.
			o.CosignedConsistency = s.consistency(21, s.sizes[0])
		},
		want: export.Verified, alone: export.Verified,
	}}
}

func trimmedEdges(t *testing.T) []deed {
	s := busySite(t)
	return []deed{
		{
			what: "the first entries of the window are left out, and the window begins later by name only",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) {
				k.drop(0, envelopes, data)
				k.manifest.Ledger.FirstSeq, k.manifest.Ledger.Count = 5, 15
				k.editWindow(func(w *windowJSON) { w.First, w.Count = 5, 15 })
				k.bind(s, 5, 15)
			})},
			want: export.Failed, check: "edges", alone: export.Failed,
		},
		{
			what:     "the window says that it ends later than it does",
			archives: [][]byte{forge(t, s, window(4, 17), func(k *kit) { k.manifest.Window.To = second(19) })},
			want:     export.Failed, check: "edges", alone: export.Failed,
		},
		{
			what: "the last entry is left out, with the proof of the others",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) {
				k.drop(15, envelopes, data)
				k.manifest.Ledger.Count--
				k.editWindow(func(w *windowJSON) { w.Count-- })
			})},
			want: export.Failed, check: "root", alone: export.Failed,
		},
	}
}

func withheldRun(t *testing.T) []deed {
	s := busySite(t)
	other := retold(t, func(_ int, e *ledger.Envelope, data any) any {
		if e.RunID == runB {
			return nil
		}
		return data
	})
	return []deed{
		{
			what:     "a run has no line, its entries are there",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) { k.drop(0, runs) })},
			want:     export.Failed, check: "runs", alone: export.Failed,
		},
		{
			what: "a run has no line, and its entries say that they are of none",
			archives: [][]byte{boundTo(t, retold(t, func(_ int, e *ledger.Envelope, data any) any {
				if e.RunID == runA {
					e.RunID = ""
				}
				return data
			}), window(4, 20))},
			want: export.Failed, check: "envelopes", alone: export.Failed,
		},
		{
			what:     "a run never was: the ledger is told again without it",
			archives: [][]byte{other.archive(window(4, 17))},
			opt:      previous(t, s.notes[1], other, 19),
			want:     export.Failed, check: "previous", alone: export.Verified,
		},
		{
			what:     "the same, and the site gives no proof",
			archives: [][]byte{other.archive(window(4, 17))},
			opt:      func(o *export.VerifyOptions) { o.Previous = s.notes[1] },
			want:     export.Incomplete, check: "previous", alone: export.Verified,
		},
	}
}

func initialisedAgain(t *testing.T) []deed {
	s, fresh := busySite(t), newSite(t)
	grown := retold(t, func(seq int, _ *ledger.Envelope, data any) any {
		if seq == 2 {
			return nil
		}
		return data
	})
	fresh.at = s.at
	fresh.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	fresh.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "y"})
	fresh.checkpoint()
	// Within a ledger, a second entry 0 is no entry.
	twice := newSite(t)
	twice.add(ledger.Envelope{Type: ledger.SiteInitialized, Actor: "system:init"}, &ledger.SiteInit{
		SiteID: siteID, Root: twice.blob("root"), Policy: twice.policy(),
		Keys: map[string]string{"log": spki(t, twice.logKey.Public()), "site": spki(t, &twice.siteKey.PublicKey)},
	})
	twice.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	twice.checkpoint()
	other := newSite(t)
	other.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	other.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	other.checkpoint()
	return []deed{
		{
			what:     "the site begins again with the same id and keys",
			archives: [][]byte{fresh.archive(window(0, 25))},
			opt:      previous(t, s.notes[0], fresh, 3),
			want:     export.Failed, check: "previous", alone: export.Verified,
		},
		{
			what:     "the site begins again, and has grown beyond the note",
			archives: [][]byte{grown.archive(window(0, 20))},
			opt:      previous(t, s.notes[0], grown, 21),
			want:     export.Failed, check: "previous", alone: export.Verified,
		},
		{
			what: "a ledger that is initialized twice",
			archives: [][]byte{forge(t, other, window(0, 2), func(k *kit) {
				for path, line := range map[string][]byte{envelopes: twice.entries[1].Envelope, data: twice.entries[1].Data} {
					lines := k.lines(path)
					lines[1] = string(line)
					k.setLines(path, lines)
				}
				k.bind(twice, 0, 2)
			})},
			want: export.Failed, check: "envelopes", alone: export.Failed,
		},
	}
}

func restoredHome(t *testing.T) []deed {
	s := busySite(t)
	// The home is that of entry 13, with the note of that time; then other things happen in it.
	copied := newSite(t)
	for _, e := range s.entries[1:13] {
		copied.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
	}
	copied.blobs, copied.segments, copied.at = s.blobs, s.segments, s.at
	copied.checkpoint()
	for range 10 {
		copied.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	}
	copied.checkpoint()
	return []deed{{
		what:     "an old copy of the home goes on under the same origin",
		archives: [][]byte{copied.archive(export.Window{From: second(9), To: second(30)})},
		opt:      previous(t, s.notes[1], copied, 23), // a note of 21 entries
		want:     export.Failed, check: "previous", alone: export.Verified,
	}}
}

func recovered(t *testing.T) []deed {
	s := busySite(t)
	begun := func(size int64) (*site, []byte) {
		next := newSite(t)
		for _, e := range s.entries[1:13] {
			next.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
		}
		next.blobs, next.segments, next.at, next.origin = s.blobs, s.segments, s.at, ledger.Origin(siteID, 2)
		root, err := ledger.TreeHash(13, next)
		if err != nil {
			t.Fatal(err)
		}
		next.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, &ledger.EpochStart{
			Epoch: 2, Cause: "recovered", OldOrigin: s.origin, Size: size, Root: ledger.HexHash(root), Reason: "the disk failed",
		})
		for range 10 {
			next.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
		}
		next.checkpoint()
		return next, next.archive(export.Window{From: second(9), To: second(30)})
	}
	next, archive := begun(13)
	_, lying := begun(21)
	return []deed{
		{
			what:     "damage is claimed, and the ledger goes on from an earlier entry in a new epoch",
			archives: [][]byte{archive},
			opt:      previous(t, s.notes[1], next, 24),
			want:     export.Failed, check: "previous", alone: export.Verified, // the table says that an epoch begins
		},
		{
			what:     "the new epoch says that it has adopted more than it has",
			archives: [][]byte{lying},
			want:     export.Failed, check: "data", alone: export.Failed,
		},
	}
}
