package export_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// row are the archives of windows that meet at these entries.
func (s *site) row(at ...int) (paths []string) {
	s.t.Helper()
	for i := range at[1:] {
		paths = append(paths, saved(s.t, s.archive(window(at[i], at[i+1]))))
	}
	return paths
}

// lastRow is what the last table says about a check.
func lastRow(out, check string) string {
	return rowOf(out[strings.LastIndex(out, "archive  "):], check)
}

// However the archives of an honest site are cut, and wherever the auditor begins.
func TestRowsOfAnHonestSiteAreVerified(t *testing.T) {
	s := busySite(t)
	for _, at := range [][]int{{0, 4, 5, 20}, {0, 9, 20}, {7, 12, 13, 17, 22}, {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {0, 1, 22}, {12, 18, 20}} {
		if verdict, _, out := audit(t, s.auditor(), s.row(at...)...); verdict != string(export.Verified) || strings.Count(out, "\nVERIFIED") != len(at)-1 {
			t.Errorf("%v: %s\n%s", at, verdict, out)
		}
	}
}

// Who has read the entries of a run in one archive knows when the next one tells it
// another beginning, or says that it has begun in a window that does not have it.
func TestRowsTellOneBeginningOfARun(t *testing.T) {
	s := busySite(t)
	forged := func(at, from, to int) []byte {
		other := retold(t, func(seq int, e *ledger.Envelope, data any) any {
			if seq == at {
				e.Actor = "uid:1001(eve)"
			}
			return data
		})
		k := takeApart(t, s, s.archive(window(from, to)))
		lie := takeApart(t, other, other.archive(window(from, to)))
		for _, p := range []string{runs, traces, metrics, logs} {
			k.files[p] = lie.files[p]
		}
		return k.pack(k.assemble())
	}
	late := func(s *site) *site { // something about run A comes long after its end
		s.notes, s.sizes = s.notes[:2], s.sizes[:2]
		s.add(s.step(ledger.ApprovalRefused, runA, "match", 2), &ledger.ApprovalRefusal{Decision: "continue", Code: "ALREADY_DECIDED"})
		s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
		s.checkpoint()
		return s
	}
	ended := late(busySite(t))
	for name, tc := range map[string]struct {
		honest []string
		last   []byte
		want   string
	}{
		"the first entry is another":                   {s.row(0, 7), forged(4, 7, 20), "failed"},
		"so it is two archives later":                  {s.row(0, 7, 9), forged(4, 9, 20), "failed"},
		"an entry from before them all":                {s.row(6, 7), forged(5, 7, 20), "ok"},
		"a run that had ended, and is named once more": {ended.row(0, 20), late(busySite(t)).archive(window(20, 25)), "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			path := saved(t, tc.last)
			_, _, out := audit(t, s.auditor(), append(slices.Clone(tc.honest), path)...)
			if row := lastRow(out, "runs"); !strings.HasPrefix(row, tc.want) {
				t.Errorf("%s, want %s\n%s", row, tc.want, out)
			}
			if verdict, _, out := audit(t, s.auditor(), path); verdict != string(export.Verified) {
				t.Errorf("alone: %s\n%s", verdict, out)
			}
		})
	}
}

// What a checkpoint covers behind its window is compared once an archive shows it, though a
// small one lies between.
func TestRowsKeepCheckpointsInMind(t *testing.T) {
	s := busySite(t)
	other := retold(t, func(seq int, e *ledger.Envelope, data any) any {
		if seq >= 6 {
			e.Actor = strings.Replace(e.Actor, "ada", "eve", 1)
		}
		return data
	})
	other.notes, other.sizes = other.notes[1:], other.sizes[1:] // the operator signs no tree of 9 entries again
	first := s.row(0, 4)                                        // its checkpoint covers 9
	for name, tc := range map[string]struct {
		paths         []string
		verdict, want string
	}{
		"nothing between":        {append(slices.Clone(first), other.row(4, 20)...), "FAILED", "failed"},
		"a small one between":    {append(slices.Clone(first), other.row(4, 5, 20)...), "FAILED", "failed"},
		"two small ones between": {append(slices.Clone(first), other.row(4, 5, 6, 20)...), "FAILED", "failed"},
		"nobody has come so far": {append(slices.Clone(first), other.row(4, 5, 6)...), "VERIFIED", "ok"},
		"honest, small ones":     {s.row(0, 4, 5, 6, 20), "VERIFIED", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, _, out := audit(t, s.auditor(), tc.paths...)
			row := lastRow(out, "meets")
			if verdict != tc.verdict || !strings.HasPrefix(row, tc.want) {
				t.Errorf("%s, %s\n%s", verdict, row, out)
			}
			if name == "nobody has come so far" && !strings.Contains(row, "not compared") {
				t.Errorf("it does not say what is open: %s", row)
			}
		})
	}
}

// Each archive of a row has things of its own that are known to be withheld.
func TestRowsHaveACountOfWhatIsWithheldEach(t *testing.T) {
	s := busySite(t)
	s.entries[15].Data, s.entries[15].Withheld = nil, "erased"
	paths := s.row(0, 9, 16, 20) // the run of entry 15 goes on in the third
	for known, want := range map[string]string{"0,1,1": "VERIFIED", "0": "INCOMPLETE", "0,1,0": "INCOMPLETE", "1,1": "", "0,1,1,0": "", "0,,1": "", "0,-1,1": ""} {
		verdict, _, out := auditWith(t, s.auditor(), []string{"-withheld", known}, paths...)
		if verdict != want {
			t.Errorf("%s: %q, want %q\n%s", known, verdict, want, out)
		}
	}
}
