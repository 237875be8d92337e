package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

func internal(err error) *api.Error { return &api.Error{Code: api.CodeInternal, Message: err.Error()} }

func damaged(format string, a ...any) *api.Error {
	return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf(format, a...),
		Hint: "keep the home folder as it is and make a copy of it before anything else; then stella maintenance recover --dry-run says how far the ledger is intact, and stella maintenance snapshots what can be restored"}
}

// helpsDamaged says what can be done with a run that cannot be read.
func helpsDamaged(runID string) string {
	return fmt.Sprintf("put the file back from a snapshot, or end the run: stella orch run abort %s --reason TEXT, or run fail", runID)
}

// helpsSpoiled says what brings a sealed file of a bundle back.
const helpsSpoiled = "stella bundle import of the same bundle brings it back; stella bundle audit names all that is damaged"

// helpsSecret says what can be done with a secret whose file is lost or damaged.
const helpsSecret = "put its file back from a snapshot; or stella secret rotate NAME --tenant TENANT sets it anew, and stella secret remove NAME --tenant TENANT --version N ends the one that is damaged"

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
		Hint: "restore " + dir + " from a copy, or let stella maintenance recover make it anew of sealed files, unless its files are newer; nothing runs until it is what the ledger names"}
}

func openError(home string, err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		e := &api.Error{Code: api.CodeLocked, Message: "another process holds " + home, Hint: "it answers on its socket; see: stella daemon status"}
		if _, yes := Migrating(home); yes {
			return MigratingError(home)
		}
		return e
	case errors.Is(err, store.ErrRestoring):
		return restoringError(home)
	case errors.Is(err, store.ErrNoSite) && ledgerLost(home) != nil:
		return ledgerLost(home)
	case errors.Is(err, store.ErrNoSite):
		return &api.Error{Code: api.CodeNoSite, Message: "there is no site in " + home,
			Hint: "make one with: stella init --home " + home}
	case errors.Is(err, store.ErrNewerSchema):
		return &api.Error{Code: api.CodeNewer, Message: "the site in " + home + " was written by a newer stella (" +
			strings.TrimPrefix(err.Error(), store.ErrNewerSchema.Error()+": ") + ")", Hint: "use the stella that wrote it, or a newer one; the site is as it was"}
	case errors.Is(err, store.ErrUnsynced):
		text := err.Error()
		if file := (*fs.PathError)(nil); errors.As(err, &file) {
			text = file.Error()
		}
		return &api.Error{Code: api.CodeNotWritable, Message: "the site in " + home + " is in the form of this stella now, but its folder could not be synced: " + text,
			Hint: "see to the disk (dmesg says more), then try again; nothing that was acknowledged is lost"}
	case Unwritable(home, err) != nil:
		return Unwritable(home, err)
	}
	return damaged("%v", err)
}

// ledgerLost is what is said of a home that has what a site has, but no ledger, or an empty
// file of it: nil for any other. A new site that moves into its home brings the ledger last.
func ledgerLost(home string) error {
	fi, err := os.Lstat(filepath.Join(home, ledgerName))
	what, hint := "missing", "restore a snapshot: "
	switch {
	case err == nil && fi.Size() == 0:
		what = "empty"
	case err == nil && fi.Mode()&fs.ModeSymlink != 0 && dangling(filepath.Join(home, ledgerName)):
		what, hint = "a link to nothing", "see that the disk it leads to is mounted; else restore a snapshot: "
	case err == nil || !missing(err):
		return nil
	}
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(home, name))
		return err == nil
	}
	if has(workName) || !slices.ContainsFunc([]string{"keys", "trust", noteName}, has) {
		return nil
	}
	return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf("ledger.db of the site in %s is %s", home, what), Hint: hint + restoreCommand(home)}
}

func dangling(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// restoreCommand is what restores the newest snapshot, also where the home has none.
func restoreCommand(home string) string {
	const command = "stella maintenance restore-snapshot --latest"
	if all, err := Snapshots(home, ""); err == nil && len(all) == 0 {
		return command + " --from DIR, with the folder where snapshots of it are kept"
	}
	return command
}

// Unwritable is what a command says of a home that the system does not let be written to,
// nil where err is about something else.
func Unwritable(home string, err error) error {
	switch {
	case err == nil:
		return nil
	case readOnly(err):
		return notWritable(home, err)
	case noSpace(err):
		return unwritten(err)
	case outside(err):
		return notWritable(home, err)
	}
	return nil
}

// Migrating says whether a site is being brought up to the form of a newer stella, and when
// something of that was written last: whoever does that answers nobody until it is done.
func Migrating(home string) (written time.Time, yes bool) { return store.Migrating(home) }

// MigratingError is what is said meanwhile.
func MigratingError(home string) *api.Error {
	return &api.Error{Code: api.CodeLocked, Message: "another process holds " + home,
		Hint: "it is bringing the site up to the form of this stella, which can take a while: wait, then try again"}
}

// Locked says whether a process holds a site, as far as this user may know: one that
// answers nobody yet, or hangs.
func Locked(home string) bool { return store.Locked(home) }

// outside says whether err comes from the system and is about no content: something is
// mounted on a file, a limit of the process, memory, a disk that fails. Files that are
// missing, or are none, and what the store calls damage are damage.
func outside(err error) bool {
	var damage *store.Damage
	var errno syscall.Errno
	if errors.As(err, &damage) || !errors.As(err, &errno) {
		return false
	}
	return !among(err, syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.EINVAL)
}

// readOnly says whether err is about permissions or a read-only file system,
// which are no damage.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func notWritable(home string, err error) *api.Error {
	e := &api.Error{Code: api.CodeNotWritable, Message: fmt.Sprintf("%s cannot be written to: %v", home, err)}
	switch {
	case diskFails(err):
		e.Message, e.Hint = fmt.Sprintf("the disk of %s fails: %v", home, err), helpsDisk
	case errors.Is(err, syscall.EROFS):
		e.Hint = "mount it read-write: reading commands need that too"
	case errors.Is(err, fs.ErrPermission) || !outside(err):
		e.Hint = fmt.Sprintf("it must belong to user %d, or stella must be started as its owner", os.Geteuid())
	case among(err, syscall.EBUSY, syscall.EEXIST, syscall.ENOTEMPTY, syscall.EXDEV, syscall.ETXTBSY):
		e.Hint = "the site is as it was; remove what is in the way, then try again"
	case among(err, syscall.EFBIG, syscall.ENOMEM, syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE):
		e.Hint = "the site is as it was; raise the limit (ulimit -a), or free memory, then try again"
	default:
		e.Hint = "the site is as it was; see to what the system says, then try again"
	}
	return e
}

// helpsDisk is the hint about a disk that fails.
const helpsDisk = "the site is as it was; see to the disk (dmesg says more), or copy the home to another one (ddrescue copies what can be read), then try again"

func diskFails(err error) bool {
	return among(err, syscall.EIO, syscall.ENXIO, syscall.ENODEV, syscall.EREMOTEIO, syscall.EUCLEAN, syscall.ESTALE, syscall.ETIMEDOUT)
}

// notRead is what is said of a file of the home that a site is opened with, and whose reading
// has failed with err: other, unless it is the disk that fails.
func notRead(home string, err error, other *api.Error) error {
	if diskFails(err) {
		return notWritable(home, err)
	}
	if damage := (*store.Damage)(nil); errors.As(err, &damage) {
		return damaged("%v", err)
	}
	return other
}

// among says whether err is one of what the system says.
func among(err error, list ...syscall.Errno) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(list, errno)
}

// adding says more of what an error has left.
func adding(err error, format string, a ...any) error {
	said := &api.Error{}
	if known := (*api.Error)(nil); errors.As(err, &known) {
		*said = *known
	} else {
		*said = *internal(err)
	}
	said.Message += "; " + fmt.Sprintf(format, a...)
	return said
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
	var spoiled *spoiledError
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
	case archiveAway(err) != nil:
		return archiveAway(err)
	case errors.As(err, &spoiled):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: helpsSpoiled}
	case errors.Is(err, store.ErrSecretFile):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: helpsSecret}
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
	case diskFails(err):
		return &api.Error{Code: api.CodeNotWritable, Message: "the disk fails: " + err.Error(), Hint: helpsDisk}
	}
	return internal(err)
}
