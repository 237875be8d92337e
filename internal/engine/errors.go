package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

func internal(err error) *api.Error { return &api.Error{Code: api.CodeInternal, Message: err.Error()} }

func damaged(format string, a ...any) *api.Error {
	return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf(format, a...),
		Hint: "keep the home folder as it is and make a copy of it before anything else"}
}

// helpsDamaged says what can be done with a run that cannot be read.
func helpsDamaged(runID string) string {
	return fmt.Sprintf("put the file back from a snapshot, or end the run: stella orch run abort %s --reason TEXT, or run fail", runID)
}

// helpsGivenUp says what can be done with a run that was given up for a fault of ours.
const helpsGivenUp = "stella daemon restart takes it up again from its records; other runs go on. Please report the line of daemon.log"

func invalid(format string, a ...any) *api.Error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, a...)}
}

func notFound(format string, a ...any) *api.Error {
	return &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf(format, a...)}
}

// faults makes an error of everything that is wrong with a file.
func faults(code api.Code, message string, err error) *api.Error {
	e := &api.Error{Code: code, Message: message}
	var f manifests.Faults
	if errors.As(err, &f) {
		for _, x := range f {
			e.Faults = append(e.Faults, x.String())
		}
		return e
	}
	e.Message += ": " + err.Error()
	return e
}

// trustChanged says that trust files are not what the ledger names: in one line,
// and in a line of its own each thing that is wrong with them.
func trustChanged(dir string, err error) *api.Error {
	lines := strings.Split(err.Error(), "\n") // that is how joined errors and faults are written
	return &api.Error{Code: api.CodeTrustChanged, Message: "trust: " + lines[0], Faults: lines[1:],
		Hint: "restore " + dir + " from a copy; nothing runs until it is what the ledger names"}
}

func openError(home string, err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		e := &api.Error{Code: api.CodeLocked, Message: "another process holds " + home, Hint: "it answers on its socket; see: stella daemon status"}
		if Migrating(home) {
			e.Hint = "it is bringing the site up to the form of this stella, which can take a while: wait, then try again"
		}
		return e
	case errors.Is(err, store.ErrNoSite):
		return &api.Error{Code: api.CodeNoSite, Message: "there is no site in " + home,
			Hint: "make one with: stella init --home " + home}
	case errors.Is(err, store.ErrNewerSchema):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: "use the stella that wrote it, or a newer one"}
	case readOnly(err):
		return notWritable(home, err)
	case noSpace(err):
		return unwritten(err)
	case outside(err):
		return notWritable(home, err)
	}
	return damaged("%v", err)
}

// Migrating says whether a site is being brought up to the form of a newer stella: whoever
// does that answers nobody until it is done.
func Migrating(home string) bool { return store.Migrating(home) }

// outside says whether err comes from the system and is about no content: something is
// mounted on a file, a limit of the process, memory, a disk that fails. Files that are
// missing, or are none, and what the store calls damage are damage.
func outside(err error) bool {
	var damage *store.Damage
	var errno syscall.Errno
	if errors.As(err, &damage) || !errors.As(err, &errno) {
		return false
	}
	return !slices.Contains([]syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.EINVAL}, errno)
}

// readOnly says whether err is about permissions or a read-only file system,
// which are no damage.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func notWritable(home string, err error) *api.Error {
	e := &api.Error{Code: api.CodeNotWritable, Message: fmt.Sprintf("%s cannot be written to: %v", home, err)}
	switch {
	case errors.Is(err, syscall.EROFS):
		e.Hint = "mount it read-write: reading commands need that too"
	case outside(err) && !errors.Is(err, fs.ErrPermission):
		e.Hint = "the site is as it was; remove what is in the way, then try again"
	default:
		e.Hint = fmt.Sprintf("it must belong to user %d, or stella must be started as its owner", os.Geteuid())
	}
	return e
}

// dbError turns what the store or the runner says into what the API says.
func dbError(err error) error {
	var known *api.Error
	var illegal *state.TransitionError
	var plan *runner.PlanError
	var inputs *runner.InputsError
	var damage *store.Damage
	var run *runner.DamageError
	var fault *runner.FaultError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault):
		return &api.Error{Code: api.CodeInternal, Message: strings.TrimPrefix(fault.Error(), "runner: "), Hint: helpsGivenUp}
	case errors.As(err, &run):
		return &api.Error{Code: api.CodeDamaged, Message: strings.TrimPrefix(run.Error(), "runner: "), Hint: helpsDamaged(run.RunID)}
	case byHand(err) != nil:
		return byHand(err)
	case errors.As(err, &known):
		return known
	case unwritten(err) != nil:
		return unwritten(err)
	case errors.As(err, &damage):
		return damaged("%v", err) // before what it wraps: a sealed file that is missing is no wrong request
	case errors.Is(err, store.ErrNotFound):
		return notFound("%s", strings.TrimSuffix(err.Error(), ": "+store.ErrNotFound.Error())+" is not here")
	case clockError(err) != nil:
		return clockError(err)
	case errors.Is(err, runner.ErrStopping), errors.Is(err, store.ErrClosed):
		return &api.Error{Code: api.CodeStopping, Message: "the site is being closed", Hint: "try again"}
	case errors.Is(err, runner.ErrNotExecuting):
		return &api.Error{Code: api.CodeNotExecuting, Message: "the process that holds the site executes no steps", Hint: "try again"}
	case errors.Is(err, runner.ErrEnded):
		return &api.Error{Code: api.CodeRunEnded, Message: "the run has ended"}
	case errors.As(err, &plan):
		return faults(api.CodeDAGInvalid, "the DAG cannot be planned", plan.Faults)
	case errors.As(err, &inputs):
		return &api.Error{Code: api.CodeInputsInvalid, Message: "the inputs are not what the DAG asks for", Faults: inputs.Faults}
	case errors.As(err, &illegal):
		return &api.Error{Code: api.CodeConflict, Message: illegal.Error()}
	case errors.Is(err, store.ErrDigest):
		return damaged("%v", err)
	}
	return internal(err)
}
