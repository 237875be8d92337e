package sandbox_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/sandbox"
)

func TestExitCodesAreReportedAsTheyAre(t *testing.T) {
	for _, code := range []int{0, 1, 65, 75, 125, 126, 137, 255} {
		task, rec := task(t, "exit", strconv.Itoa(code))
		rep := execute(t, task)
		exited(t, rep, code, rec)
		if rep.Signal != "" || rep.Leftover != 0 {
			t.Errorf("exit %d: signal %q, leftover %d, want none", code, rep.Signal, rep.Leftover)
		}
	}
}

func TestASignalOfItsOwnIsNamed(t *testing.T) {
	for sig, name := range map[syscall.Signal]string{
		syscall.SIGKILL: "SIGKILL", syscall.SIGSEGV: "SIGSEGV", syscall.SIGTERM: "SIGTERM", syscall.SIGUSR2: "SIGUSR2",
	} {
		task, _ := task(t)
		shell(t, &task, fmt.Sprintf("kill -%d $$; sleep 100", int(sig)))
		rep := execute(t, task)
		if rep.ExitCode != nil || rep.Signal != name || rep.Stop != "" {
			t.Errorf("%s: exit code %v, signal %q, stop %q", name, rep.ExitCode, rep.Signal, rep.Stop)
		}
	}
}

func TestKernelLimitsAreResourceLimits(t *testing.T) {
	for sig, name := range map[syscall.Signal]string{syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ"} {
		task, _ := task(t)
		shell(t, &task, fmt.Sprintf("kill -%d $$; sleep 100", int(sig)))
		rep := execute(t, task)
		if rep.Stop != runner.StopResource || rep.Signal != name {
			t.Errorf("%s: stop %q, signal %q", name, rep.Stop, rep.Signal)
		}
	}
}

// shell makes of a task one that runs a script with /bin/sh.
func shell(t testing.TB, task *runner.Task, script string) {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Skipf("no /bin/sh here: %v", err)
	}
	task.Entry = bytesContent([]byte(script + "\n"))
	task.Interpreter = &runner.Interpreter{Path: path, SHA256: file(t, path).SHA256}
}

func TestWhatAProgramFindsAroundItself(t *testing.T) {
	task, rec := task(t, "look")
	task.Timeout = time.Hour
	task.Limits = manifests.Limits{Memory: 1 << 30, Workspace: 1 << 20}
	now := time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC)
	// What stella itself has must not show through.
	leak, err := syscall.Dup(1)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	rep, err := sandbox.New(sandbox.Options{Now: func() time.Time { return now }}).Execute(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	exited(t, rep, 0, rec)
	d := task.Dir
	want := []string{
		"env PATH=/usr/bin:/bin", "env HOME=" + d + "/work", "env TMPDIR=" + d + "/tmp",
		"env LANG=C.UTF-8", "env TZ=UTC", "env SOURCE_DATE_EPOCH=1790000000",
		"env STELLA_API=1", "env STELLA_RUN_ID=" + task.RunID, "env STELLA_STEP_ID=step",
		"env STELLA_ATTEMPT=1", "env STELLA_IDEMPOTENCY_KEY=key",
		"env STELLA_INPUT=" + d + "/input.json", "env STELLA_OUTPUT=" + d + "/output.jsonl",
		"env STELLA_WORKSPACE=" + d + "/work", "env STELLA_ARTIFACTS=" + d + "/artifacts",
		"env STELLA_SECRETS=" + d + "/secrets", "env STELLA_BUNDLE=" + d + "/bundle",
		"env STELLA_DEADLINE=2026-11-22T02:02:03.000000004Z",
		"cwd " + d + "/work", "argv0 plugin",
		"fd 0", "fd 1", "fd 2",
		"SigIgn: 0000000000000000", "SigBlk: 0000000000000000", "Umask: 0022",
		"nonblock 0 false", "nonblock 1 false", "nonblock 2 false",
		"pdeathsig 9", "leader true",
		"limit core 0 0", "limit data 1073741824 1073741824", "limit fsize 1048576 1048576",
		`stdin {"api":1,"params":{}} EOF`,
	}
	got := rec.lines["stdout"]
	sortLimits(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// sortLimits sorts the lines that come in the order of a map.
func sortLimits(lines []string) {
	from := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, "limit ") })
	if from >= 0 {
		slices.Sort(lines[from : from+3])
	}
}

func TestAScriptRunsWithItsInterpreter(t *testing.T) {
	task, rec := task(t, "a b", "$HOME")
	shell(t, &task, `printf '%s\n' "$1" "$2"; cat; ls /proc/self/fd | wc -l; cat "$STELLA_BUNDLE/lib/x"`)
	task.Files = []runner.Placed{{Path: "bundle/lib/x", Mode: "0644", Content: bytesContent([]byte("library\n"))}}
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	// 0, 1, 2, the script's own descriptor, and the one of ls itself.
	if want, got := "a b\n$HOME\n"+`{"api":1,"params":{}}5`+"\nlibrary", rec.stdout(); got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
}

func TestAnInterpreterOfTheBundle(t *testing.T) {
	for _, below := range []string{"", "absolute"} {
		task, rec := task(t)
		program := file(t, evil())
		path := "bundle/bin/interp"
		if below != "" {
			path = task.Dir + "/" + path
		}
		task.Files = []runner.Placed{{Path: "bundle/bin/interp", Mode: "0755", Content: program}}
		task.Interpreter = &runner.Interpreter{Path: path, SHA256: program.SHA256}
		task.Entry = bytesContent([]byte("script"))
		rep := execute(t, task)
		exited(t, rep, 64, rec) // the test program does not know the behaviour "/proc/self/fd/3"
		if got, want := strings.Join(rec.order, "\n"), fmt.Sprintf("[%q %q]", path, "/proc/self/fd/3"); !strings.Contains(got, want) {
			t.Errorf("output %q, want %s", got, want)
		}
	}
}

// TestTheBytesThatRunAreTheBytesThatWereHashed: each way to bring in other
// bytes is refused with the name of what differs, and nothing runs.
func TestTheBytesThatRunAreTheBytesThatWereHashed(t *testing.T) {
	other := bytesContent([]byte("#!/bin/sh\necho swapped"))
	open := func(raw string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(raw)), nil }
	}
	for name, c := range map[string]struct {
		change func(*runner.Task)
		what   string
	}{
		"the entry's source was swapped": {func(x *runner.Task) { x.Entry.Open = other.Open }, "entry"},
		"the entry grew": {func(x *runner.Task) {
			good := x.Entry
			x.Entry.Open = func() (io.ReadCloser, error) {
				r, err := good.Open()
				return struct {
					io.Reader
					io.Closer
				}{io.MultiReader(r, strings.NewReader("more")), r}, err
			}
		}, "entry"},
		"one byte of a file differs": {func(x *runner.Task) {
			c := bytesContent([]byte("abc"))
			c.Open = open("abd")
			x.Files = []runner.Placed{{Path: "inputs/x", Mode: "0644", Content: c}}
		}, "inputs/x"},
		"a file was cut": {func(x *runner.Task) {
			c := bytesContent([]byte("abc"))
			c.Open = open("ab")
			x.Files = []runner.Placed{{Path: "data/x", Mode: "0644", Content: c}}
		}, "data/x"},
		"another interpreter than planned": {func(x *runner.Task) {
			shell(t, x, "echo hello")
			x.Interpreter.SHA256 = other.SHA256
		}, "interpreter"},
		"another interpreter than planned, in the bundle": {func(x *runner.Task) {
			x.Files = []runner.Placed{{Path: "bundle/i", Mode: "0755", Content: x.Entry}}
			x.Interpreter = &runner.Interpreter{Path: "bundle/i", SHA256: other.SHA256}
		}, "interpreter"},
	} {
		t.Run(name, func(t *testing.T) {
			task, rec := task(t, "write-work")
			c.change(&task)
			_, err := sandbox.New(sandbox.Options{}).Execute(t.Context(), task)
			var de *sandbox.DigestError
			if !errors.As(err, &de) || !strings.HasPrefix(de.What, c.what) {
				t.Errorf("Execute: %v, want a DigestError about %s", err, c.what)
			}
			if len(rec.order) > 0 {
				t.Errorf("something ran: %q", rec.order)
			}
		})
	}
}

// TestASourceThatIsSwappedWhileItIsRead opens the right file the first time and
// another one afterwards: a caller that hashes first and copies then.
func TestASourceThatIsSwappedWhileItIsRead(t *testing.T) {
	task, _ := task(t, "write-work")
	good, calls := task.Entry, 0
	task.Entry.Open = func() (io.ReadCloser, error) {
		if calls++; calls > 1 {
			return io.NopCloser(strings.NewReader("#!/bin/sh\n")), nil
		}
		return good.Open()
	}
	rep, err := sandbox.New(sandbox.Options{}).Execute(t.Context(), task)
	if err != nil || rep.ExitCode == nil || *rep.ExitCode != 0 || calls != 1 {
		t.Errorf("Execute: %v, %d opens: want the bytes of the one and only open to run", err, calls)
	}
}

func TestARunningProgramCannotBeChanged(t *testing.T) {
	task, rec := task(t, "write-self")
	exited(t, execute(t, task), 0, rec)
	if want, got := "open true\nseals true", rec.stdout(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatIsNoProgramIsUnstarted(t *testing.T) {
	elf, err := os.ReadFile(evil())
	if err != nil {
		t.Fatal(err)
	}
	foreign := slices.Clone(elf)
	foreign[18] ^= 0xff // e_machine
	for name, raw := range map[string][]byte{
		"text": []byte("hello"), "nothing": nil, "another machine's": foreign,
		"a script without an interpreter": []byte("#!/bin/sh\necho hello"),
	} {
		t.Run(name, func(t *testing.T) {
			task, rec := task(t)
			task.Entry = bytesContent(raw)
			rep := execute(t, task)
			if rep.Stop != runner.StopUnstarted || rep.Detail == "" || rep.ExitCode != nil || len(rec.order) > 0 {
				t.Errorf("stop %q (%s), exit code %v, output %q", rep.Stop, rep.Detail, rep.ExitCode, rec.order)
			}
		})
	}
}

func TestFilesOutsideOfTheirFoldersAreRefused(t *testing.T) {
	for _, path := range []string{"x", "work/x", "bundle/../work/x", "../x", "/etc/x", "bundle", "bundle/", "bundle//x", "secrets/x", ""} {
		task, _ := task(t, "exit", "0")
		task.Files = []runner.Placed{{Path: path, Mode: "0644", Content: bytesContent([]byte("x"))}}
		if _, err := sandbox.New(sandbox.Options{}).Execute(t.Context(), task); err == nil {
			t.Errorf("a file at %q was accepted", path)
		}
	}
}

func TestPlacedFilesAreReadOnlyCopies(t *testing.T) {
	task, rec := task(t, "exit", "0")
	sum := sha256.Sum256([]byte("data"))
	task.Files = []runner.Placed{
		{Path: "bundle/a/b/tool", Mode: "0755", Content: bytesContent([]byte("tool"))},
		{Path: "inputs/" + hex.EncodeToString(sum[:]), Mode: "0644", Content: bytesContent([]byte("data"))},
	}
	exited(t, execute(t, task), 0, rec)
	for path, want := range map[string]os.FileMode{
		"bundle/a/b/tool": 0o555, "inputs/" + hex.EncodeToString(sum[:]): 0o444, "input.json": 0o444,
	} {
		info, err := os.Stat(filepath.Join(task.Dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestAnEndedContextStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(runner.ErrRevoked)
	task, rec := task(t, "write-work")
	rep := executeCtx(t, ctx, task)
	if rep.Stop != runner.StopRevoked || rep.ExitCode != nil || len(rec.order) > 0 {
		t.Errorf("stop %q, exit code %v", rep.Stop, rep.ExitCode)
	}
	if _, err := os.Stat(filepath.Join(task.Dir, "work")); err == nil {
		t.Error("the folder was prepared")
	}
}

func TestMemoryOfAProgramIsBounded(t *testing.T) {
	task, rec := task(t, "hog", strconv.Itoa(512<<20))
	task.Limits.Memory = 192 << 20
	rep := execute(t, task)
	exited(t, rep, 3, rec)
	if got := rec.stdout(); got != "cannot allocate memory" {
		t.Errorf("got %q", got)
	}
}
