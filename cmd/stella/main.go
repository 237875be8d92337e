// Package main is the command stella: it reads arguments, makes one call to a
// site or to a package below, and renders what comes back. It decides nothing
// that another program could not decide by the same calls. Whoever holds the
// site serves its socket; see connect.go.
//
// Output has rules. Results go to stdout, everything else to stderr as
// "stella: what: why", with a line "hint: " where there is an obvious next
// command. Text that may have come from a bundle, a plugin or another machine
// is escaped by the one writer in render.go. Progress is shown on a terminal
// only.
//
// Goroutines: one waits for signals, one serves the socket while this process
// holds a site, and one executes the runs of a foreground start.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/garbage"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// version and commit are set by the linker and never written by the program.
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

// Exit codes. They are part of the interface: docs/cli.md lists them.
const (
	exitDone        = 0
	exitFailed      = 1   // invalid or failed request
	exitAuth        = 2   // not allowed, or tenant missing
	exitEnded       = 3   // rejected, cancel first of all: the run has ended already
	exitRunFailed   = 4   // the run itself failed or was cancelled
	exitRefused     = 5   // refused by verification, or evidence that nobody vouches for
	exitLocked      = 6   // site locked or unreachable
	exitDamaged     = 7   // ledger, archive or store damaged
	exitIncomplete  = 8   // evidence incomplete
	exitWaiting     = 9   // runs are open that only people let go on
	exitInterrupted = 130 // by a signal
)

// Codes of errors that only a command has; all others are those of package api.
const (
	codeInterrupted api.Code = "INTERRUPTED"     // by a signal
	codeUnreachable api.Code = "UNREACHABLE"     // nobody answers at the socket
	codeNotRunning  api.Code = "NOT_RUNNING"     // no daemon
	codeRunFailed   api.Code = "RUN_FAILED"      // the run failed or was cancelled
	codeWaiting     api.Code = "WAITING"         // nothing is left that moves without people
	codeArchive     api.Code = "ARCHIVE_VERDICT" // the archive is not VERIFIED
	codeFileInvalid api.Code = "FILE_INVALID"    // a file that was to be checked has faults
	codeNotReady    api.Code = "NOT_READY"       // something that was looked at cannot be started
	codeDifferent   api.Code = "DIFFERENT"       // two things that were compared, and --exit-code
	codeNote        api.Code = "NOTE_REFUSED"    // a tree head that the key of the log has not signed
	codeProof       api.Code = "PROOF_INVALID"   // a proof that does not hold
	codeForked      api.Code = "TREE_FORKED"     // a tree head that does not extend the one before
)

// errInterrupted is the cause with which a signal ends the context.
var errInterrupted = errors.New("interrupted")

// exitCode is the exit code of each code of an error; [api.Refusal]s come first.
func exitCode(code api.Code) int {
	switch code {
	case api.CodeTenantRequired, api.CodeForbidden, api.CodeUnauthenticated, api.CodeNotApprover, api.CodeStarterExcluded:
		return exitAuth
	case api.CodeRunEnded:
		return exitEnded
	case api.CodeTrustChanged:
		return exitRefused
	case api.CodeLocked, api.CodeNotWritable, api.CodeNotExecuting, api.CodeStopping, api.CodeRestoring:
		return exitLocked
	case api.CodeDamaged, api.CodeFloorLost, api.CodeFloorAhead:
		return exitDamaged
	case api.CodeArchiveAway, api.CodeArchiveUnreadable:
		return exitIncomplete
	case api.CodeInvalid, api.CodeNotFound, api.CodeRunTokenConflict, api.CodeConflict, api.CodeDAGInvalid,
		api.CodeInputsInvalid, api.CodeDAGIDTaken, api.CodeDAGDisabled, api.CodePlainForbidden, api.CodeWindowOpen, api.CodeNoSite, api.CodeNewer,
		api.CodeQueueDraining, api.CodeSiteExists, api.CodeClockBehind, api.CodeClockAhead, api.CodeNoSpace, api.CodeMedium, api.CodeInternal,
		api.CodeAlreadyDecided, api.CodeStale, api.CodeApprovalExpired, api.CodeNotCompleted:
		return exitFailed
	}
	return exitFailed
}

// An outcome is an error with an exit code of its own: the request was done,
// and what it found is not good.
type outcome struct {
	exit int
	err  api.Error
}

func (o *outcome) Error() string { return o.err.Error() }

func main() {
	sandbox.WASMMain()
	garbage.PutOff()
	os.Exit(start(newApp()))
}

func start(a *app) int {
	args := os.Args[1:]
	if isVerify(args) { // holds nothing that would have to be let go in order
		return run(context.Background(), a, args)
	}
	ctx, stop := withSignals(context.Background())
	defer stop()
	return run(ctx, a, args)
}

// isVerify says whether the arguments begin with the command that scripts call
// for each of many files. It is made ready alone, and without a signal handler,
// because a start costs more than a verification: docs/rationale.md.
func isVerify(args []string) bool { return len(args) > 0 && args[0] == "verify" }

// withSignals returns a context that SIGINT and SIGTERM end; a second signal
// ends the process at once.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel(nil)
	}
}

// run executes one command line and returns its exit code. It alone turns
// errors into text.
func run(ctx context.Context, a *app, args []string) int {
	root := newRootCmd(a, args...)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	a.stderr.clearProgress()
	if err == nil {
		err = a.stdout.err
	}
	if err == nil {
		return exitDone
	}
	code, e := judge(ctx, err)
	a.renderError(what(cmd), e)
	a.tellParent(code, e)
	return code
}

// what names the command for an error: its path below the root.
func what(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return ""
	}
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return path
}

// judge finds the exit code of an error, and the form in which it is shown.
func judge(ctx context.Context, err error) (int, *api.Error) {
	var known *api.Error
	var silent *server.SilentError
	var out *outcome
	switch {
	case errors.As(err, &out):
		return out.exit, &out.err
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted, &api.Error{Code: codeInterrupted, Message: errInterrupted.Error()}
	case errors.As(err, &known):
		if known.Refusal != nil {
			return exitRefused, known
		}
		return exitCode(known.Code), known
	case errors.As(err, &silent):
		return exitLocked, hangs(silent)
	case errors.Is(err, server.ErrUnreachable):
		return exitLocked, &api.Error{Code: codeUnreachable, Message: err.Error(), Hint: "stella daemon status"}
	}
	return exitFailed, &api.Error{Code: api.CodeInvalid, Message: err.Error()}
}
