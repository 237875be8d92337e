package main

import (
	"bytes"
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

func TestTextIsEscaped(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 漢 text":            "plain ü 漢 text",
		"\x1b[31mred\x1b[0m":        `\x1b[31mred\x1b[0m`,
		"\x1b]0;title\a":            `\x1b]0;title\x07`,
		"two\nlines\r":              `two\nlines\x0d`,
		"a\tb":                      `a\tb`,
		"\u009b31m":                 `\x9b31m`,
		"abc\u202ecba\u2066":        `abc\u{202e}cba\u{2066}`,
		"zero\u200bwidth\ufeff":     `zero\u{200b}width\u{feff}`,
		"line\u2028separator":       `line\u{2028}separator`,
		"not \xff\xfe utf-8":        `not \xff\xfe utf-8`,
		"tag\U000e0041\U000f0000":   `tag\u{e0041}\u{f0000}`,
		"the replacement \ufffd ok": "the replacement \ufffd ok",
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCountsAreInWordsThatFit(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{count(1, "finding is", "findings are"), "1 finding is"},
		{count(0, "finding is", "findings are"), "0 findings are"},
		{count(int64(2), "finding is", "findings are"), "2 findings are"},
		{notAll(api.MediaReport{Imports: make([]api.ImportItem, 3), Refused: 1}).Error(), "NOT_ALL_ADMITTED: of 3 bundles 1 was refused"},
		{notAll(api.MediaReport{Imports: make([]api.ImportItem, 3), Failed: 2}).Error(), "NOT_ALL_ADMITTED: of 3 bundles 2 could not be taken in"},
		{notAll(api.MediaReport{Imports: make([]api.ImportItem, 3), Refused: 2, Failed: 1}).Error(),
			"NOT_ALL_ADMITTED: of 3 bundles 2 were refused and 1 could not be taken in"},
		{progressLine(api.MediaEvent{File: 1, Files: 3}), "importing 1 of 3"},
		{progressLine(api.MediaEvent{File: 2, Files: 3, Done: 512, Total: 1024}), "importing 2 of 3:  50% of 1.0 KiB"},
	} {
		if c.got != c.want {
			t.Errorf("it says %q, want %q", c.got, c.want)
		}
	}
}

// FuzzEscape: whatever comes in, what goes out is UTF-8 in which no rune is
// hostile; and what is harmless already stays as it is.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "a\nb", "\xc3\x28", "\u202e", "\U000e0001", "\x9b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := escape(s)
		if !utf8.ValidString(out) {
			t.Errorf("escape(%q) = %q is not UTF-8", s, out)
		}
		if i := strings.IndexFunc(out, hostile); i >= 0 {
			t.Errorf("escape(%q) = %q is hostile at %d", s, out, i)
		}
		if escape(out) != out {
			t.Errorf("escape is not idempotent for %q", s)
		}
	})
}

// TestEveryWayOutEscapes holds all writers of a screen to the rule.
func TestEveryWayOutEscapes(t *testing.T) {
	const evil = "a\x1b[31mb\nstella: forged"
	for name, write := range map[string]func(*screen){
		"printf":  func(s *screen) { s.printf("%s|%v|%q\n", evil, errors.New(evil), evil) },
		"note":    func(s *screen) { s.note("%s", evil) },
		"table":   func(s *screen) { s.table([]string{"H"}, [][]string{{evil}}) },
		"fields":  func(s *screen) { s.fields("name", evil) },
		"text":    func(s *screen) { s.text("x\x1b[31m\ty\n") },
		"exact":   func(s *screen) { s.terminal = true; s.exact([]byte("x\x1b[31m\n")) },
		"list":    func(s *screen) { s.printf("%v\n", []string{evil}) },
		"json":    func(s *screen) { _ = s.json(evil, false) },
		"typed":   func(s *screen) { s.printf("%s\n", api.Code(evil)) },
		"pointer": func(s *screen) { s.printf("%v\n", &api.Error{Code: "X", Message: evil}) },
	} {
		var out bytes.Buffer
		write(&screen{w: &out})
		if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\nstella:") {
			t.Errorf("%s let something through: %q", name, out.String())
		}
	}
}

func TestColoursAreForTerminalsAlone(t *testing.T) {
	for color, want := range map[bool]string{false: "completed\n", true: "\x1b[32mcompleted\x1b[0m\n"} {
		var out bytes.Buffer
		(&screen{w: &out, color: color}).table([]string{}, [][]string{})
		out.Reset()
		(&screen{w: &out, color: color}).fields("", "completed")
		if got := strings.TrimLeft(out.String(), " "); got != want {
			t.Errorf("color=%v: %q, want %q", color, got, want)
		}
	}
}

// apiCodes reads the codes of package api out of its source, so that a new
// one cannot be forgotten here.
func apiCodes(t *testing.T) []api.Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "server", "api", "error.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []api.Code
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || !strings.HasPrefix(v.Names[0].Name, "Code") {
			return true
		}
		s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, api.Code(s))
		return true
	})
	if len(out) < 20 {
		t.Fatalf("found only %d codes", len(out))
	}
	return out
}

func TestErrorsHaveTheirExitCodes(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"an invalid request", t.Context(), invalid("x"), 1},
		{"an unknown error", t.Context(), errors.New("x"), 1},
		{"a refusal", t.Context(), &api.Error{Code: "EXPIRED", Refusal: &api.Refusal{}}, 5},
		{"a refusal that has another code", t.Context(), &api.Error{Code: api.CodeNotFound, Refusal: &api.Refusal{}}, 5},
		{"a locked site", t.Context(), &api.Error{Code: api.CodeLocked}, 6},
		{"a wrapped error", t.Context(), errors.Join(errors.New("x"), &api.Error{Code: api.CodeDamaged}), 7},
		{"a signal", interrupted, context.Canceled, 130},
		{"an outcome", t.Context(), &outcome{exit: 8}, 8},
		{"an outcome after a signal", interrupted, &outcome{exit: 4}, 4},
	} {
		if got, _ := judge(c.ctx, c.err); got != c.want {
			t.Errorf("%s: exit %d, want %d", c.name, got, c.want)
		}
	}
}

// newTestApp is an app that writes to buffers.
func newTestApp(home string) (*app, *bytes.Buffer, *bytes.Buffer) {
	var stdout, stderr bytes.Buffer
	env := map[string]string{"STELLA_HOME": home}
	a := newApp()
	a.stdout, a.stderr = &screen{w: &stdout}, &screen{w: &stderr}
	a.getenv = func(k string) string { return env[k] }
	return a, &stdout, &stderr
}

// tempHome is a home that can be removed again: sealed folders are read-only.
func tempHome(t *testing.T, elem ...string) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o700)
			}
			return err
		})
	})
	return filepath.Join(append([]string{dir}, elem...)...)
}

// TestALockedSiteIsGivenUp: somebody holds the site and answers nobody.
func TestALockedSiteIsGivenUp(t *testing.T) {
	home := tempHome(t, "home")
	if _, err := engine.Init(home, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	holder, err := engine.Open(t.Context(), engine.Options{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	a, stdout, stderr := newTestApp(home)
	a.patience = 300 * time.Millisecond
	began := time.Now()
	if code := run(t.Context(), a, []string{"status"}); code != exitLocked {
		t.Errorf("exit %d, want %d", code, exitLocked)
	}
	if d := time.Since(began); d < a.patience {
		t.Errorf("it gave up after %v, patience is %v", d, a.patience)
	}
	if stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "stella: status: another process holds") || !strings.Contains(stderr.String(), "\nhint: ") {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}

	// It is there as soon as the other lets go.
	a, stdout, _ = newTestApp(home)
	done := make(chan int, 1)
	go func() { done <- run(t.Context(), a, []string{"status", "--output", "json"}) }()
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != exitDone || !strings.Contains(stdout.String(), `"siteId"`) {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

// TestALongHomeHasItsSocketElsewhere: a socket's path has at most 107 bytes.
func TestALongHomeHasItsSocketElsewhere(t *testing.T) {
	runtime, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	home := tempHome(t, strings.Repeat("x", 100), "home")
	a, _, _ := newTestApp(home)
	if code := run(t.Context(), a, []string{"init", "--quiet"}); code != exitDone {
		t.Fatalf("init: exit %d", code)
	}
	h, err := a.hold(t.Context(), engine.Options{Mode: engine.ModeCommand}, a.log(false))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.release(); err != nil {
			t.Error(err)
		}
	}()
	if names, err := filepath.Glob(filepath.Join(runtime, "stella-*.sock")); err != nil || len(names) != 1 {
		t.Errorf("sockets in the runtime folder: %v, %v", names, err)
	}
	b, stdout, stderr := newTestApp(home)
	if code := run(t.Context(), b, []string{"status", "--output", "json"}); code != exitDone || !strings.Contains(stdout.String(), `"mode": "command"`) {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestWordsFitWhatIsThere(t *testing.T) {
	for got, want := range map[string]string{
		codeAnd("STEP_FAILED", "exit 3"):              "STEP_FAILED: exit 3",
		codeAnd("STEP_FAILED", ""):                    "STEP_FAILED",
		codeAnd("", "stella ended"):                   "stella ended",
		waiting(1, false):                             "waiting for 1 attempt; --force interrupts",
		waiting(2, false):                             "waiting for 2 attempts; --force interrupts",
		waiting(1, true):                              "interrupting 1 attempt",
		about("x", &api.Error{Message: "no"}).Error(): (&api.Error{Message: "x: no"}).Error(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestAReceiptThatCannotBeWritten lies at the site all the same, and the error
// says where.
func TestAReceiptThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stick")
	path := filepath.Join(dir, "r.json")
	rep := api.MediaReport{Receipt: []byte("{}"), ReceiptSHA256: strings.Repeat("ab", 32)}
	if err := writable(path); err == nil {
		t.Errorf("%s is writable, and its folder is not there", path)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writable(path); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("trying left %v behind (%v)", left, err)
	}
	if err := os.Remove(dir); err != nil { // it is pulled out during the import
		t.Fatal(err)
	}
	var known *api.Error
	if err := writeReceipt(path, rep); !errors.As(err, &known) || !strings.Contains(known.Hint, "sealed/") || !strings.Contains(known.Hint, rep.ReceiptSHA256) {
		t.Errorf("writeReceipt = %v", err)
	}
}

// TestRunsOfOneMomentAreToldApart: what lines about several runs begin with.
func TestRunsOfOneMomentAreToldApart(t *testing.T) {
	run := func(id string) state.Run { return state.Run{RunID: id} }
	for _, c := range []struct {
		runs []state.Run
		want string
	}{
		{[]state.Run{run("01935b1e-aaaa-7000-8000-0123456789ab")}, "01935b1e-aaa"},
		{[]state.Run{run("01935b1e-aaaa-7000-8000-0123456789ab"), run("11935b1e-aaaa-7000-8000-0123456789ab")}, "01935b1e-aaa"},
		{[]state.Run{run("01935b1e-aaaa-7000-8000-0123456789ab"), run("01935b1e-aaaa-7a01-8000-0123456789ab"), run("01935b1e-aaaa-7000-8001-0123456789ab")},
			"01935b1e-aaaa-7000-8000"},
	} {
		w := watcher{wide: apart(c.runs)}
		got := map[string]bool{}
		for _, r := range c.runs {
			got[w.label(r.RunID)] = true
		}
		if w.label(c.runs[0].RunID) != c.want || len(got) != len(c.runs) {
			t.Errorf("labels %v, want %d of which one is %s", got, len(c.runs), c.want)
		}
	}
}

// TestAnEntryAboutALockNamesIt, whether its data is there or erased.
func TestAnEntryAboutALockNamesIt(t *testing.T) {
	for data, want := range map[string]string{
		`{"data":{"fence":7,"kind":"lock","name":"merge","runId":"r","stepId":"sub"},"salt":"00","seq":9}`: "lock merge, from r sub",
		"": "",
	} {
		l := api.LedgerLine{Seq: 9, Envelope: []byte(`{"actor":"system:runner","type":"lock.reclaimed"}`), Data: []byte(data)}
		if row := entryRow(l); row[len(row)-1] != want {
			t.Errorf("%q: %q", data, row)
		}
	}
}

func TestWhyARunDidNotComplete(t *testing.T) {
	failed := state.Run{Status: state.Failed, FailureReason: "STEP_FAILED", FailedStep: "build"}
	again := failed
	again.Reopen("2026-01-01T00:00:00.000Z", true)
	for want, r := range map[string]state.Run{
		"STEP_FAILED in build":         failed,
		"RUN_TIMEOUT":                  {Status: state.Failed, FailureReason: "RUN_TIMEOUT"},
		"":                             again, // it cleans up again, and keeps the step for which it failed
		"cancelled by uid:7: too late": {Status: state.Cancelled, CancelledBy: "uid:7", CancelReason: "too late"},
		"cancelled by uid:7":           {Status: state.Cancelled, CancelledBy: "uid:7"},
	} {
		if got := reason(r); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	if again.FailedStep == "" {
		t.Error("the run has no failed step: nothing was tried")
	}
}
