package sandbox_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/sandbox"
)

// A change is how somebody gets other bytes to lie where verified ones lay.
type change struct {
	name string
	make func(t *testing.T, path string, raw []byte)
}

func changes() []change {
	return []change{
		{"swapped", func(t *testing.T, path string, raw []byte) {
			mode := os.FileMode(0o755)
			if info, err := os.Stat(path); err == nil {
				mode = info.Mode().Perm()
			}
			if err := errors.Join(os.WriteFile(path+".new", raw, mode), os.Rename(path+".new", path)); err != nil {
				t.Error(err)
			}
		}},
		{"rewritten in place", func(t *testing.T, path string, raw []byte) {
			if err := os.Chmod(path, 0o775); err != nil {
				t.Error(err)
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := f.Write(raw); err != nil {
				t.Error(err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}},
		{"removed", func(t *testing.T, path string, _ []byte) {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}},
	}
}

// A victim is a task that runs or reads a file on disk. good says that it ran
// with the bytes that were verified; the others leave a mark.
type victim struct {
	name  string
	make  func(t *testing.T, path, mark string) (runner.Task, *recorder)
	evil  func(mark string) []byte
	other func(rep runner.Report, rec *recorder) bool // whether other bytes were used
}

func victims() []victim {
	script := func(mark string) []byte { return []byte("#!/bin/sh\ntouch " + mark + "\n") }
	saidEvil := func(_ runner.Report, rec *recorder) bool { return strings.Contains(rec.stdout(), "evil") }
	never := func(runner.Report, *recorder) bool { return false }
	exitWith := func(code int) []byte {
		return wasmModule{imports: []wasmImport{procExit()}, min: 1, body: slices.Concat(i32(code), call(0))}.encode()
	}
	put := func(t *testing.T, path string, raw []byte) runner.Content {
		if err := os.WriteFile(path, raw, 0o775); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o775); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return file(t, path)
	}
	read := func(t *testing.T, path string) []byte {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Skip(err)
		}
		return raw
	}
	return []victim{
		{"a binary", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := task(t, "exit", "0")
			x.Entry = put(t, path, read(t, evil()))
			return x, rec
		}, script, never},
		{"a script", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := task(t)
			shell(t, &x, "")
			x.Entry = put(t, path, []byte("exit 0\n"))
			return x, rec
		}, script, never},
		{"an interpreter of the host", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := task(t)
			shell(t, &x, "exit 0")
			c := put(t, path, read(t, x.Interpreter.Path))
			x.Interpreter = &runner.Interpreter{Path: path, SHA256: c.SHA256}
			return x, rec
		}, script, never},
		{"an interpreter of the bundle", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := task(t)
			shell(t, &x, "exit 0")
			c := put(t, path, read(t, x.Interpreter.Path))
			x.Files = []runner.Placed{{Path: "bundle/sh", Mode: "0755", Content: c}}
			x.Interpreter = &runner.Interpreter{Path: "bundle/sh", SHA256: c.SHA256}
			return x, rec
		}, script, never},
		{"a module", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := wasmTask(t, nil)
			x.Entry = put(t, path, exitWith(0))
			return x, rec
		}, func(string) []byte { return exitWith(9) }, func(rep runner.Report, _ *recorder) bool { return rep.ExitCode != nil && *rep.ExitCode == 9 }},
		{"a file of the bundle", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := task(t)
			shell(t, &x, `. "$STELLA_BUNDLE/lib.sh"`)
			x.Files = []runner.Placed{{Path: "bundle/lib.sh", Mode: "0644", Content: put(t, path, []byte("true\n"))}}
			return x, rec
		}, script, never},
		{"data", func(t *testing.T, path, _ string) (runner.Task, *recorder) {
			x, rec := task(t)
			shell(t, &x, "cat "+x.Dir+"/data/acme/list")
			x.Files = []runner.Placed{{Path: "data/acme/list", Mode: "0644", Content: put(t, path, []byte("good\n"))}}
			return x, rec
		}, func(string) []byte { return []byte("evil\n") }, saidEvil},
	}
}

// moments are when the file is changed: before anybody looks at it, while it is
// read, and after it was hashed, before the process exists.
var moments = []string{"before", "while it is read", "before the start"}

// TestOtherBytesNeverRun changes what an attempt runs and reads, in every way
// and at every moment: it fails with the error that says so, having run nothing,
// or it runs what was verified.
func TestOtherBytesNeverRun(t *testing.T) {
	for _, v := range victims() {
		for _, c := range changes() {
			for _, moment := range moments {
				t.Run(v.name+" "+c.name+" "+moment, func(t *testing.T) { attack(t, v, c, moment) })
			}
		}
	}
}

func attack(t *testing.T, v victim, c change, moment string) {
	dir := t.TempDir()
	path, mark := filepath.Join(dir, "sealed"), filepath.Join(dir, "mark")
	x, rec := v.make(t, path, mark)
	done := false
	strike := func() {
		if !done {
			done = true
			c.make(t, path, v.evil(mark))
		}
	}
	box := sandbox.Options{Look: 5 * time.Millisecond}
	switch moment {
	case "before":
		strike()
	case "while it is read":
		during := func(c *runner.Content) {
			if c.Open == nil {
				return
			}
			open := c.Open
			c.Open = func() (io.ReadCloser, error) {
				r, err := open()
				return &struckReader{r, strike}, err
			}
		}
		during(&x.Entry)
		for i := range x.Files {
			during(&x.Files[i].Content)
		}
	case "before the start":
		// The clock is read for the program's environment, once all is prepared.
		box.Now = func() time.Time { strike(); return time.Now() }
	}
	s := sandbox.New(box)
	if wasmSlack > 0 {
		s.SetWASMSlack(wasmSlack)
	}
	rep, err := s.Execute(t.Context(), x)
	if !done {
		t.Fatal("nothing was changed")
	}
	if _, serr := os.Stat(mark); serr == nil || v.other(rep, rec) {
		t.Fatalf("other bytes were run: %v, %+v", err, rep)
	}
	var digest *sandbox.DigestError
	switch {
	case errors.As(err, &digest), errors.Is(err, os.ErrNotExist):
		if moment == "before the start" {
			t.Errorf("%v, but all was hashed before", err)
		}
	case err != nil:
		t.Errorf("Execute = %v, want a digest that does not fit", err)
	case moment == "before":
		t.Errorf("it ran with bytes that are gone: %+v", rep)
	default:
		exited(t, rep, 0, rec)
	}
}

// struckReader strikes once its first bytes are read.
type struckReader struct {
	io.ReadCloser
	strike func()
}

func (r *struckReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), 3)])
	r.strike()
	return n, err
}
