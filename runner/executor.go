package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/telemetry"
)

// Causes with which the context of an attempt is cancelled; an executor finds
// out with [context.Cause] why it is asked to stop.
var (
	ErrCancelled = errors.New("runner: cancelled")     // somebody asked for the end of the run
	ErrShutdown  = errors.New("runner: shutting down") // we stop; the attempt is interrupted
	ErrRevoked   = errors.New("runner: trust no longer allows it")
	// ErrAborted is an [ErrCancelled] that leaves no time to end in.
	ErrAborted = fmt.Errorf("runner: aborted: %w", ErrCancelled)
)

// An Executor starts the process of one attempt, enforces its limits, and
// reports what it saw. It knows nothing of stores and decides no outcome.
type Executor interface {
	// Tier is the strongest tier in which attempts run here.
	Tier() string
	// Execute runs one task to its end. When ctx is cancelled it sends SIGTERM,
	// waits for the task's grace, and kills everything the task started. It
	// returns only when no process of the task is left, or says so in the
	// report. An error means that the task never ran, by a fault of ours.
	Execute(ctx context.Context, t Task) (Report, error)
}

// Content is bytes with a known digest. Open may be called more than once; the
// receiver hashes what it reads and refuses anything else.
type Content struct {
	SHA256 string
	Size   int64
	Open   func() (io.ReadCloser, error)
}

// Placed is a file that the task finds read-only below its folder.
type Placed struct {
	Path string // slash-separated, relative, below one of bundle/, data/, inputs/
	Mode string // "0644" or "0755"
	Content
}

// Task is everything that one attempt needs.
type Task struct {
	RunID, StepID  string
	Owner          string // whose attempts may follow one another in one place: a plugin of a tenant
	Attempt        int
	Dir            string       // the attempt's workspace: absolute, empty, 0700, once MakeDir was called
	MakeDir        func() error // nil: Dir is there
	Runtime        manifests.Runtime
	Entry          Content // the program; the bytes that run are the bytes that are hashed
	Interpreter    *Interpreter
	Args           []string
	Request        []byte // JSON, for stdin and $STELLA_INPUT
	Files          []Placed
	Secrets        []SecretFile
	Redact         *telemetry.Redactor // nil without secrets: lines pass through it before anything else is done with them
	IdempotencyKey string
	SourceDate     time.Time // $SOURCE_DATE_EPOCH: when the run was started
	Determinism    string    // wasm: fixed | real
	Network        string    // none | loopback
	Limits         manifests.Limits
	Timeout        time.Duration // 0: none; measured on the monotonic clock
	Grace          time.Duration
	Aborted        <-chan struct{} // closed: Grace is over, whatever has begun to end the task; may be nil
	// Log receives each line of output, without its line feed, in the order in
	// which it came; never concurrently. It must not keep line.
	Log func(stream string, at time.Time, line []byte)
	// Progress receives what the task says of itself. May be nil.
	Progress func(fraction float64, message string)
}

// Interpreter is a program of the host that runs a script; the plan froze its
// digest.
type Interpreter struct{ Path, SHA256 string }

// Stop says which cause of ours ended a task, before its exit code is looked at.
type Stop string

// Causes of ours. Empty: it ended by itself.
const (
	StopCancel    Stop = "cancel"
	StopShutdown  Stop = "shutdown"
	StopRevoked   Stop = "revoked"
	StopDeadline  Stop = "deadline"
	StopMemory    Stop = "memory"    // the kernel or the runtime refused memory
	StopResource  Stop = "resource"  // CPU, file, output or workspace limit
	StopWASM      Stop = "wasm"      // module that cannot be instantiated: wrong imports, no entry
	StopTrap      Stop = "trap"      // wasm trap
	StopUnstarted Stop = "unstarted" // exec itself failed: not a program for this machine
)

// Report is what an executor saw of one task.
type Report struct {
	Tier     string
	Fences   []ledger.Fence
	Stop     Stop
	Detail   string // of Stop: the limit, the missing import, the trap
	ExitCode *int   // nil when it was killed by a signal or never started
	Signal   string // SIGKILL, SIGSEGV, …
	Output   Output
	Usage    ledger.Usage
	Dropped  int64 // bytes of output that the log cap cut
	Leftover int   // processes that had to be killed after the program ended
}

// Output is what a task wrote to $STELLA_OUTPUT.
type Output struct {
	Values    map[string]json.RawMessage // canonical JSON
	Artifacts []ArtifactFile
	Error     *PluginError
	Fault     string // why the file breaks the contract; "" when it does not
	Truncated bool   // the last line had no line feed and was dropped
}

// ArtifactFile is a file that the task hands over. Open reads it from below
// the task's folder without following links; it fails on anything but a
// regular file with one name.
type ArtifactFile struct {
	Name, MediaType string
	Open            func() (io.ReadCloser, error)
}

// PluginError is an error line: {"error":{"code","message","retryable","retryAfterMs"}}.
type PluginError struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMs int64  `json:"retryAfterMs"`
}
