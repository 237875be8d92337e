package export_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// An entry that does not say whose it is would be in no run: both demand of each type
// what it is about, and nothing that it is not about.
func TestBothDemandWhatEntriesAreAbout(t *testing.T) {
	of := func(id string, edit func(e *ledger.Envelope)) func(seq int, e *ledger.Envelope, data any) any {
		return func(_ int, e *ledger.Envelope, data any) any {
			if e.RunID == id {
				edit(e)
			}
			return data
		}
	}
	at := func(n int, edit func(e *ledger.Envelope)) func(seq int, e *ledger.Envelope, data any) any {
		return func(seq int, e *ledger.Envelope, data any) any {
			if seq == n {
				edit(e)
			}
			return data
		}
	}
	for name, tell := range map[string]func(seq int, e *ledger.Envelope, data any) any{
		"a run belongs to no run":                of(runA, func(e *ledger.Envelope) { e.RunID = "" }),
		"nor does anything of it":                of(runA, func(e *ledger.Envelope) { e.RunID, e.StepID, e.Attempt = "", "", 0 }),
		"an end of a step is of no step":         at(13, func(e *ledger.Envelope) { e.StepID = "" }),
		"an end of a run is of a step":           at(17, func(e *ledger.Envelope) { e.StepID = "match" }),
		"a start of a run is of an attempt":      at(9, func(e *ledger.Envelope) { e.Attempt = 1 }),
		"an attempt has no number":               at(6, func(e *ledger.Envelope) { e.Attempt = 0 }),
		"what is queued is an attempt":           at(10, func(e *ledger.Envelope) { e.Attempt = 1 }),
		"a refusal at the door belongs to a run": at(2, func(e *ledger.Envelope) { e.RunID = runB }),
		"a refusal at the door is of a step":     at(2, func(e *ledger.Envelope) { e.StepID = "match" }),
		"the entry before the window":            at(3, func(e *ledger.Envelope) { e.RunID = runB }),
		"the entry behind the window":            at(20, func(e *ledger.Envelope) { e.RunID = "" }),
	} {
		t.Run(name, func(t *testing.T) {
			w := window(0, 20)
			if name == "the entry before the window" {
				w = window(4, 20)
			}
			r := check(t, boundTo(t, retold(t, tell), w), busySite(t).auditor())
			if r.Verdict != export.Failed || !slices.ContainsFunc(failed(r), func(c string) bool { return c == "envelopes" || c == "window" }) {
				t.Error(explain(r))
			}
		})
	}
}

// boundTo is an archive of busySite with the lines of a ledger of as many entries that no
// site would make an archive of.
func boundTo(t *testing.T, s *site, w export.Window) []byte {
	t.Helper()
	honest := busySite(t)
	k := takeApart(t, honest, honest.archive(w))
	first, count := k.manifest.Ledger.FirstSeq, k.manifest.Ledger.Count
	swap := map[string]string{}
	var heads, lines []string
	for i, e := range s.entries[:first+count] {
		swap[string(honest.entries[i].Envelope)], swap[string(honest.entries[i].Data)] = string(e.Envelope), string(e.Data)
		if int64(i) >= first {
			heads, lines = append(heads, string(e.Envelope)), append(lines, string(e.Data))
		}
	}
	k.setLines(envelopes, heads)
	k.setLines(data, lines)
	for old, with := range swap {
		k.files[runs] = bytes.ReplaceAll(k.files[runs], []byte(old), []byte(with))
	}
	k.bind(s, first, count)
	return k.pack(k.assemble())
}
