package export_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
)

// What a line of runs.ndjson holds costs neither judge more than its length: archives like these
// anybody can make, without a key that the auditor knows.
func TestRunLinesAreNotDearerThanTheyAreLong(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(4, 20))
	deep := func(n int, text string) string { return strings.Repeat("[", n) + text + strings.Repeat("]", n) }
	for name, tc := range map[string]struct{ old, with, says string }{
		"64 deep":                     {`,"run":{`, `,"run":{"a":` + deep(62, "") + `,`, ""},
		"65 deep":                     {`,"run":{`, `,"run":{"a":` + deep(63, "") + `,`, "64 deep"},
		"thousands deep":              {`,"run":{`, `,"run":{"a":` + deep(9900, `"`+strings.Repeat("x", 4<<20)+`"`) + `,`, "64 deep"},
		"an event of many values":     {`"events":[`, `"events":[{"data":[` + strings.Repeat("{},", 1<<20) + `0]},`, "event is too large"},
		"many events that are none":   {`"events":[`, `"events":[` + strings.Repeat("0,", 2<<20), "event is too large"},
		"many events without members": {`"events":[`, `"events":[` + strings.Repeat("{},", 2<<20), "no JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, original)
			k.replace(runs, tc.old, tc.with)
			path := filepath.Join(t.TempDir(), "archive.tar")
			if err := os.WriteFile(path, k.pack(k.assemble()), 0o600); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := export.Verify(context.Background(), path, s.auditor())
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if got := failed(r); r.Verdict != export.Failed || len(got) != 1 || got[0] != "runs" {
				t.Errorf("failed %v, want runs alone\n%s", got, explain(r))
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 150 {
				t.Errorf("%d MiB were allocated", used)
			}
			verdict, _, out := audit(t, s.auditor(), path)
			if row := rowOf(out, "runs"); tc.says != "" && (verdict != "FAILED" || !strings.Contains(row, tc.says)) {
				t.Errorf("stella-audit: %s: %s, want FAILED: %s", verdict, row, tc.says)
			}
		})
	}
}
