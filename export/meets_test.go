package export_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// The checkpoint of an archive covers entries behind its window. The next archive has them: who
// writes others in their place, or gives them up, is found with nothing but the two.
func TestTheCheckpointOfTheArchiveBeforeBindsTheNext(t *testing.T) {
	stops := func(s *site, n int, reason string) {
		for range n {
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: reason})
		}
	}
	first := newSite(t)
	stops(first, 9, "x")
	first.checkpoint() // size 10
	before := first.archive(window(0, 5))
	for name, tc := range map[string]struct {
		kept int // entries of the first month's ledger that the next one has
		to   int // the end of the second window
		want string
	}{
		"all of them":                           {10, 15, "ok"},
		"those of the window":                   {5, 15, "failed"},
		"all but the last":                      {9, 15, "failed"},
		"others, and the window ends too early": {9, 7, "ok"}, // only a proof could tell
	} {
		t.Run(name, func(t *testing.T) {
			next := newSite(t)
			for _, e := range first.entries[1:tc.kept] {
				next.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
			}
			next.at = start.Add(time.Duration(tc.kept) * time.Second)
			stops(next, 20-tc.kept, "y")
			next.checkpoint()
			var paths []string
			for _, raw := range [][]byte{before, next.archive(window(5, tc.to))} {
				path := filepath.Join(t.TempDir(), "archive.tar")
				if err := os.WriteFile(path, raw, 0o600); err != nil {
					t.Fatal(err)
				}
				paths = append(paths, path)
			}
			verdict, _, out := audit(t, first.auditor(), paths...)
			row := rowOf(out[strings.LastIndex(out, "archive  "):], "meets")
			if !strings.HasPrefix(row, tc.want) || (verdict == string(export.Failed)) != (tc.want == "failed") {
				t.Errorf("%s, meets %s, want %s\n%s", verdict, row, tc.want, out)
			}
		})
	}
}
