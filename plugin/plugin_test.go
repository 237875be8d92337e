package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// attempt is the folder and environment of one attempt, as stella makes them.
type attempt struct {
	dir string
	env map[string]string
}

func newAttempt(t *testing.T, params string) attempt {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir) // serve changes the working directory; this restores it
	for _, d := range []string{"work", "artifacts", "secrets", "inputs"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	request, err := json.Marshal(Request{
		API: API, RunID: "run", StepID: "step", Attempt: 2, Params: json.RawMessage(params),
		Inputs: map[string]Input{"abc": {Path: "inputs/abc", SHA256: "abc", Size: 2}}, Secrets: []string{"db"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"input.json": string(request), "output.jsonl": "", "inputs/abc": "in", "secrets/db": "hush", "secrets/other": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return attempt{dir, map[string]string{
		"STELLA_API": "1", "STELLA_INPUT": dir + "/input.json", "STELLA_OUTPUT": dir + "/output.jsonl",
		"STELLA_WORKSPACE": dir + "/work", "STELLA_ARTIFACTS": dir + "/artifacts", "STELLA_SECRETS": dir + "/secrets",
		"STELLA_DEADLINE": "2026-11-22T00:00:00.000000001Z",
	}}
}

// serve runs a plugin and returns its exit code, its output lines, and stderr.
func (a attempt) serve(t *testing.T, run func(context.Context, *Call) error) (int, string, string) {
	t.Helper()
	var stderr bytes.Buffer
	code := serve(run, func(k string) string { return a.env[k] }, &stderr)
	raw, err := os.ReadFile(filepath.Join(a.dir, "output.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return code, string(raw), stderr.String()
}

func TestACallFromBeginningToEnd(t *testing.T) {
	a := newAttempt(t, `{"n":3}`)
	code, out, stderr := a.serve(t, func(_ context.Context, c *Call) error {
		var p struct{ N int }
		if err := c.Params(&p); err != nil {
			return err
		}
		f, err := c.Input("abc")
		if err != nil {
			return err
		}
		defer f.Close()
		in, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		secret, err := c.Secret("db")
		if err != nil {
			return err
		}
		d, ok := c.Deadline()
		wd, err := os.Getwd()
		if err != nil {
			return err
		}
		if !ok || d.Nanosecond() != 1 || string(secret) != "hush" || filepath.Base(wd) != "work" || c.Request.Attempt != 2 {
			return fmt.Errorf("deadline %v %v, secret %q, cwd %s, attempt %d", d, ok, secret, wd, c.Request.Attempt)
		}
		if err := c.Progress(0.5, "half"); err != nil {
			return err
		}
		w, err := c.Artifact("a/b.txt", "text/plain")
		if err != nil {
			return err
		}
		if _, err := w.Write([]byte("x")); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		return c.Output("sum", map[string]any{"n": p.N, "in": string(in)})
	})
	want := `{"progress":0.5,"message":"half"}
{"artifact":{"name":"a/b.txt","path":"a/b.txt","mediaType":"text/plain"}}
{"output":{"sum":{"in":"in","n":3}}}
`
	if code != 0 || out != want || stderr != "" {
		t.Errorf("exit %d, stderr %q, output\n%s\nwant\n%s", code, stderr, out, want)
	}
}

func TestErrorsBecomeLinesAndExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
		line string
	}{
		"plain": {errors.New("broken"), ExitFailed, `{"error":{"code":"FAILED","message":"broken"}}`},
		"retryable, rounded up": {fmt.Errorf("db: %w", Retryable(errors.New("busy"), 1500*time.Microsecond)), ExitRetryable,
			`{"error":{"code":"RETRYABLE","message":"db: busy","retryable":true,"retryAfterMs":2}}`},
		"rejected": {Rejectf("no such %s", "thing"), ExitRejected, `{"error":{"code":"REJECTED","message":"no such thing"}}`},
		"named":    {&Error{Code: "DISK", Message: "full"}, ExitFailed, `{"error":{"code":"DISK","message":"full"}}`},
		"a code that is none": {&Error{Code: "a b", Message: "x"}, ExitFailed,
			`{"error":{"code":"FAILED","message":"x"}}`},
		"rejected and retryable": {&Error{Code: "X", Rejected: true, Retryable: true}, ExitRejected,
			`{"error":{"code":"X","message":""}}`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttempt(t, `{}`)
			code, out, stderr := a.serve(t, func(context.Context, *Call) error { return c.err })
			if code != c.code || out != c.line+"\n" || stderr == "" {
				t.Errorf("exit %d, stderr %q, output %s, want %d and %s", code, stderr, out, c.code, c.line)
			}
		})
	}
}

func TestALongMessageIsCutBetweenCharacters(t *testing.T) {
	a := newAttempt(t, `{}`)
	_, out, _ := a.serve(t, func(context.Context, *Call) error { return errors.New(strings.Repeat("ü", MaxMessage)) })
	var l struct{ Error struct{ Message string } }
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err)
	}
	if m := l.Error.Message; len(m) > MaxMessage || len(m) < MaxMessage-1 || strings.Trim(m, "ü") != "" {
		t.Errorf("%d bytes", len(m))
	}
}

func TestParamsAreStrict(t *testing.T) {
	for _, params := range []string{`{"n":1,"m":2}`, `{"n":"1"}`, `[]`} {
		a := newAttempt(t, params)
		code, _, _ := a.serve(t, func(_ context.Context, c *Call) error {
			var p struct{ N int }
			return c.Params(&p)
		})
		if code != ExitRejected {
			t.Errorf("%s: exit %d, want %d", params, code, ExitRejected)
		}
	}
}

func TestWhatTheContractForbidsIsAnErrorAtOnce(t *testing.T) {
	for name, try := range map[string]func(*Call) error{
		"a key twice":           func(c *Call) error { c.Output("k", 1); return c.Output("k", 2) },
		"a large value":         func(c *Call) error { return c.Output("k", strings.Repeat("x", MaxValue)) },
		"what JSON has no form": func(c *Call) error { return c.Output("k", func() {}) },
		"too many keys":         func(c *Call) error { return repeat(MaxKeys+1, func(i int) error { return c.Output(fmt.Sprint(i), i) }) },
		"too much output": func(c *Call) error {
			return repeat(20, func(i int) error { return c.Output(fmt.Sprint(i), strings.Repeat("x", 60<<10)) })
		},
		"an artifact above":      func(c *Call) error { _, err := c.Artifact("../x", ""); return err },
		"an absolute artifact":   func(c *Call) error { _, err := c.Artifact("/x", ""); return err },
		"a space in a name":      func(c *Call) error { _, err := c.Artifact("a b", ""); return err },
		"an artifact twice":      func(c *Call) error { c.Artifact("a", ""); _, err := c.Artifact("a", ""); return err },
		"progress beyond 1":      func(c *Call) error { return c.Progress(1.5, "") },
		"progress below 0":       func(c *Call) error { return c.Progress(-0.1, "") },
		"an input not given":     func(c *Call) error { _, err := c.Input("def"); return err },
		"a secret not granted":   func(c *Call) error { _, err := c.Secret("other"); return err },
		"a secret by its path":   func(c *Call) error { _, err := c.Secret("../input.json"); return err },
		"an artifact's own part": func(c *Call) error { c.Artifact("a", ""); _, err := c.Artifact("a/b", ""); return err },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttempt(t, `{}`)
			var err error
			_, out, _ := a.serve(t, func(_ context.Context, c *Call) error { err = try(c); return nil })
			if err == nil {
				t.Error("accepted")
			}
			if len(out) > MaxOutput {
				t.Errorf("%d bytes were written", len(out))
			}
		})
	}
}

func repeat(n int, f func(int) error) error {
	for i := range n {
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}

func TestAProgramThatStellaDidNotStartSaysSo(t *testing.T) {
	for _, drop := range []string{"STELLA_WORKSPACE", "STELLA_INPUT", "STELLA_OUTPUT", "STELLA_API"} {
		a := newAttempt(t, `{}`)
		delete(a.env, drop)
		code, _, stderr := a.serve(t, func(context.Context, *Call) error { t.Error("it ran"); return nil })
		if code != ExitFailed || !strings.Contains(stderr, drop) {
			t.Errorf("without %s: exit %d, %q", drop, code, stderr)
		}
	}
}

func TestARequestOfAnotherAPIIsRefused(t *testing.T) {
	a := newAttempt(t, `{}`)
	if err := os.WriteFile(a.env["STELLA_INPUT"], []byte(`{"api":2}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := a.serve(t, func(context.Context, *Call) error { return nil }); code != ExitFailed {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// TestUnknownRequestFieldsAreIgnored: requests may gain fields.
func TestUnknownRequestFieldsAreIgnored(t *testing.T) {
	a := newAttempt(t, `{}`)
	if err := os.WriteFile(a.env["STELLA_INPUT"], []byte(`{"api":1,"params":{},"later":true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := a.serve(t, func(context.Context, *Call) error { return nil }); code != 0 {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
