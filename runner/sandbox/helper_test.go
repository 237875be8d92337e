package sandbox_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/sandbox"
)

// runID is this process's own: programs are swept by it, and not those of other tests.
var runID = fmt.Sprintf("0198a2c4-0000-7000-8000-%012d", os.Getpid())

// built is where the program of testdata/evil lies, compiled once.
var built string

func TestMain(m *testing.M) {
	sandbox.WASMMain()
	if len(os.Args) > 1 && os.Args[1] == executorMarker {
		os.Exit(executorMain(os.Args[2:]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if built = os.Getenv(builtVariable); built != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sandbox-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // a test runs as another user
	built = dir
	return m.Run()
}

// evil returns the compiled program.
var evil = sync.OnceValue(func() string {
	path := filepath.Join(built, "evil")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/evil")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("building the test program: %v\n%s", err, out))
	}
	return path
})

// file is the content of a file, which must not change.
func file(t testing.TB, path string) runner.Content {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := bytesContent(raw)
	c.Open = func() (io.ReadCloser, error) { return os.Open(path) }
	return c
}

func bytesContent(raw []byte) runner.Content {
	sum := sha256.Sum256(raw)
	return runner.Content{
		SHA256: hex.EncodeToString(sum[:]), Size: int64(len(raw)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil },
	}
}

// recorder keeps what a task logged.
type recorder struct {
	mu      sync.Mutex
	lines   map[string][]string // by stream
	order   []string            // both streams
	waiting map[string]chan string
	busy    atomic.Bool
	broken  atomic.Bool // log was called twice at a time
}

func newRecorder() *recorder {
	return &recorder{lines: make(map[string][]string), waiting: make(map[string]chan string)}
}

// log is a task's Log. It notices when it is called twice at a time.
func (r *recorder) log(stream string, _ time.Time, line []byte) {
	if !r.busy.CompareAndSwap(false, true) {
		r.broken.Store(true)
	}
	runtime.Gosched() // lets the other stream try
	defer r.busy.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := string(line)
	r.lines[stream] = append(r.lines[stream], s)
	r.order = append(r.order, s)
	for prefix, c := range r.waiting {
		if strings.HasPrefix(s, prefix) {
			c <- s
			delete(r.waiting, prefix)
		}
	}
}

// saw returns a channel that receives the first line with this prefix.
func (r *recorder) saw(prefix string) <-chan string {
	c := make(chan string, 1)
	r.mu.Lock()
	r.waiting[prefix] = c
	r.mu.Unlock()
	return c
}

func (r *recorder) stdout() string { return strings.Join(r.lines["stdout"], "\n") }

// task is an attempt of the test program with these arguments.
func task(t testing.TB, args ...string) (runner.Task, *recorder) {
	t.Helper()
	rec := newRecorder()
	return runner.Task{
		RunID: runID, StepID: "step", Attempt: 1,
		Dir: t.TempDir(), Runtime: manifests.RuntimeExec, Entry: file(t, evil()), Args: args,
		Request: []byte(`{"api":1,"params":{}}`), IdempotencyKey: "key",
		SourceDate: time.Unix(1_790_000_000, 0), Determinism: "fixed", Network: "none",
		Grace: 5 * time.Second, Log: rec.log,
	}, rec
}

// execute runs a task and fails the test where nothing ran.
func execute(t testing.TB, task runner.Task) runner.Report {
	t.Helper()
	return executeCtx(t, t.Context(), task)
}

func executeCtx(t testing.TB, ctx context.Context, task runner.Task) runner.Report {
	t.Helper()
	return executeIn(t, box(), ctx, task)
}

// box is where tests execute: what one leaves in an init process, the next meets.
var box = sync.OnceValue(func() *sandbox.Sandbox { return newBox(2) })

// newBox is a sandbox that looks often and keeps so many init processes.
func newBox(keep int) *sandbox.Sandbox {
	s := sandbox.New(sandbox.Options{Look: 5 * time.Millisecond, Keep: keep})
	if wasmSlack > 0 {
		s.SetWASMSlack(wasmSlack)
	}
	return s
}

func executeIn(t testing.TB, s *sandbox.Sandbox, ctx context.Context, task runner.Task) runner.Report {
	t.Helper()
	rep, err := s.Execute(ctx, task)
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	return rep
}

// exited fails the test unless the program ended by itself with this code.
func exited(t testing.TB, rep runner.Report, code int, rec *recorder) {
	t.Helper()
	if rep.ExitCode == nil || *rep.ExitCode != code || rep.Stop != "" {
		got := "none"
		if rep.ExitCode != nil {
			got = fmt.Sprint(*rep.ExitCode)
		}
		t.Fatalf("exit code %s, signal %q, stop %q (%s), want exit code %d\n%s",
			got, rep.Signal, rep.Stop, rep.Detail, code, strings.Join(rec.order, "\n"))
	}
}
