package export_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

func forked(t *testing.T) []deed {
	s := busySite(t)
	other := retold(t, func(seq int, e *ledger.Envelope, data any) any {
		if seq >= 11 {
			e.Actor = strings.Replace(e.Actor, "ada", "bob", 1)
		}
		return data
	})
	w := witnessOf(t, "w.example/a", 1)
	return []deed{
		{
			what:     "two ledgers of one site: the auditor has a note of the one",
			archives: [][]byte{other.archive(window(4, 20))},
			opt:      previous(t, s.notes[1], other, 21),
			want:     export.Failed, check: "previous", alone: export.Verified,
		},
		{
			what:     "two ledgers of one site: a witness has signed the one",
			archives: [][]byte{other.archive(window(4, 20))},
			opt: func(o *export.VerifyOptions) {
				o.Cosigned, o.Witnesses, o.MinWitnesses = cosigned(t, s.notes[1], w), []ledger.Witness{w.Witness}, 1
			},
			want: export.Failed, check: "witnesses", alone: export.Verified,
		},
		{
			what:     "two ledgers of one site: no witness has signed this one",
			archives: [][]byte{other.archive(window(4, 20))},
			opt: func(o *export.VerifyOptions) {
				o.Cosigned, o.Witnesses, o.MinWitnesses = other.notes[1], []ledger.Witness{w.Witness}, 1
			},
			want: export.Incomplete, check: "witnesses", alone: export.Verified,
		},
	}
}

func ownKeys(t *testing.T) []deed {
	forger := busySite(t)
	forger.logKey, forger.siteKey = ed25519.NewKeyFromSeed(make([]byte, 32)), p256(t, 12)
	forger.notes, forger.sizes = nil, nil
	forger.checkpoint()
	s := busySite(t)
	return []deed{
		{
			what:     "keys that are not those of the site",
			archives: [][]byte{forger.archive(window(4, 20))},
			want:     export.Unauthenticated, check: "keys", alone: export.Unauthenticated,
		},
		{
			what: "the site's keys inside, another's signatures",
			archives: [][]byte{forge(t, forger, window(4, 20), func(k *kit) {
				k.files["keys/log.pub"], k.files["keys/site.pub"] = s.auditor().LogKey, s.auditor().SiteKey
			})},
			want: export.Failed, check: "signature", alone: export.Failed,
		},
	}
}

func skippedArchive(t *testing.T) []deed {
	s := busySite(t)
	other := retold(t, func(seq int, e *ledger.Envelope, data any) any {
		if seq == 2 {
			e.Actor = "uid:1(eve)"
		}
		return data
	})
	eve := func(from, to int) *site {
		return retold(t, func(seq int, e *ledger.Envelope, data any) any {
			if seq >= from && seq < to {
				e.Actor = "uid:1001(eve)"
			}
			return data
		})
	}
	late, begun := eve(6, 24), eve(4, 5)
	late.notes, late.sizes = late.notes[1:], late.sizes[1:] // no tree of 9 entries is signed again
	return []deed{
		{
			what:     "the archive of the weeks between is not handed over",
			archives: [][]byte{s.archive(window(0, 4)), s.archive(window(9, 20))},
			want:     export.Failed, check: "meets", alone: export.Verified,
		},
		{
			what:     "a small one between hides that what the first checkpoint covers was told again",
			archives: [][]byte{s.archive(window(0, 4)), late.archive(window(4, 5)), late.archive(window(5, 20))},
			want:     export.Failed, check: "meets", alone: export.Verified,
		},
		{
			what: "the second tells another beginning of a run",
			archives: [][]byte{s.archive(window(0, 7)), forge(t, s, window(7, 20), func(k *kit) {
				again := takeApart(t, begun, begun.archive(window(7, 20)))
				for _, p := range []string{runs, metrics, traces} {
					k.files[p] = again.files[p]
				}
			})},
			want: export.Failed, check: "runs", alone: export.Verified,
		},
		{
			what:     "the archive before is of another history",
			archives: [][]byte{s.archive(window(0, 4)), other.archive(window(4, 20))},
			want:     export.Failed, check: "meets", alone: export.Verified,
		},
	}
}

func clockMoved(t *testing.T) []deed {
	s := busySite(t)
	late := retold(t, func(_ int, e *ledger.Envelope, data any) any {
		at, err := stamp.Parse(e.Time)
		if err != nil {
			t.Fatal(err)
		}
		e.Time = stamp.Format(at.Add(time.Hour))
		return data
	})
	return []deed{
		{
			what: "the clock is set back between two entries",
			archives: [][]byte{lyingArchive(t, func(e *ledger.Envelope) {
				if e.Seq == 12 {
					e.Time = second(5)
				}
			})},
			want: export.Failed, check: "envelopes", alone: export.Failed,
		},
		{
			what: "the clock is set forward, and back: what was done meanwhile is of another month",
			archives: [][]byte{lyingArchive(t, func(e *ledger.Envelope) {
				if e.Seq == 12 {
					e.Time = second(1000)
				}
			})},
			want: export.Failed, check: "envelopes", alone: export.Failed,
		},
		{
			// The time of an entry is what the site says: one that lies, and lies always in one direction, no proof shows.
			// That the entry was there before a witness signed, his note shows.
			what:     "the ledger is told again with later times",
			archives: [][]byte{late.archive(export.Window{From: stamp.Format(start.Add(time.Hour)), To: stamp.Format(start.Add(time.Hour + 15*time.Second))})},
			opt:      previous(t, s.notes[1], late, 21),
			want:     export.Failed, check: "previous", alone: export.Verified,
		},
	}
}

// lyingArchive is the honest archive, bound to a ledger in which entries lie.
func lyingArchive(t *testing.T, lie func(e *ledger.Envelope)) []byte {
	t.Helper()
	honest, liar := busySite(t), newSite(t)
	for _, e := range honest.entries[1:] {
		env, err := ledger.ParseEnvelope(e.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		was := env.Time
		lie(&env)
		line := bytes.Replace(e.Envelope, []byte(was), []byte(env.Time), 1)
		liar.append(ledger.Entry{Envelope: line, Data: e.Data})
	}
	liar.checkpoint()
	return forge(t, honest, window(4, 20), func(k *kit) {
		lines := k.lines(envelopes)
		for i := range lines {
			lines[i] = string(liar.entries[4+i].Envelope)
		}
		k.setLines(envelopes, lines)
		k.bind(liar, 4, 16)
	})
}

func killedAfterExec(t *testing.T) []deed {
	s := busySite(t)
	// What run A has done is taken out: it waits.
	other := retold(t, func(seq int, e *ledger.Envelope, data any) any {
		if e.RunID == runA && seq > 5 {
			return nil
		}
		return data
	})
	return []deed{
		{
			what: "stella is killed behind a program, and the attempt is taken out of the archive",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) {
				k.drop(2, envelopes, data)
				k.manifest.Ledger.Count--
				k.editWindow(func(w *windowJSON) { w.Count-- })
			})},
			want: export.Failed, check: "envelopes", alone: export.Failed,
		},
		{
			what: "the attempt is taken out of its run",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) {
				event := `,{"data":` + string(s.entries[6].Data) + `,"envelope":` + string(s.entries[6].Envelope) + `}`
				k.replace(runs, event, "")
			})},
			want: export.Failed, check: "runs", alone: export.Failed,
		},
		{
			what:     "the attempt is taken out of the ledger, after a note had left that has it",
			archives: [][]byte{other.archive(window(4, 17))},
			opt:      previous(t, s.notes[0], other, other.Size()),
			want:     export.Failed, check: "previous", alone: export.Verified,
		},
	}
}

func lostLogs(t *testing.T) []deed {
	s, gone := busySite(t), busySite(t)
	for digest := range gone.segments {
		gone.gone[digest] = "lost"
	}
	return []deed{
		{
			what:     "log lines are not in the archive",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) { k.files[logs] = nil })},
			want:     export.Failed, check: "logs", alone: export.Failed,
		},
		{
			what: "an attempt's output is another",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) {
				k.files[logs] = bytes.ReplaceAll(k.files[logs], []byte("oh no"), []byte("fine!"))
			})},
			want: export.Failed, check: "logs", alone: export.Failed,
		},
		{
			what:     "logs are declared as lost",
			archives: [][]byte{gone.archive(window(4, 20))},
			want:     export.Incomplete, check: "withheld", alone: export.Incomplete,
		},
	}
}

func maskedID(t *testing.T) []deed {
	s := busySite(t)
	mask := func(paths ...string) []byte {
		return forge(t, s, window(4, 20), func(k *kit) {
			for _, p := range paths {
				k.files[p] = bytes.ReplaceAll(k.files[p], []byte("uid:1000(ada)"), []byte("[redacted:ada:0]"))
			}
		})
	}
	return []deed{
		{what: "who it was is masked in the envelopes", archives: [][]byte{mask(envelopes)}, want: export.Failed, check: "root", alone: export.Failed},
		{what: "who it was is masked everywhere", archives: [][]byte{mask(envelopes, runs, data)}, want: export.Failed, check: "root", alone: export.Failed},
		{what: "who it was is masked in the runs", archives: [][]byte{mask(runs)}, want: export.Failed, check: "runs", alone: export.Failed},
		{
			what: "a token is masked in the data",
			archives: [][]byte{forge(t, s, window(4, 20), func(k *kit) {
				k.files[data] = bytes.ReplaceAll(k.files[data], []byte("t-"+runB), []byte("[redacted:t:0]"))
			})},
			want: export.Failed, check: "data", alone: export.Failed,
		},
	}
}
