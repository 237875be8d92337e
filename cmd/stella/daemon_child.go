package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// A daemonChild is the daemon as its parent sees it.
type daemonChild struct {
	pid   int
	log   string
	from  int64       // where its part of the log begins
	ended chan error  // receives when it has ended
	pipe  *os.File    // our end
	told  chan []byte // receives what it has handed over, once it is done with that
}

// maxEnding is the most that a daemon hands over.
const maxEnding = 256 << 10

// An ending is what a daemon hands over to its parent that ends before it serves. Its log
// says so too, where it can be written.
type ending struct {
	Exit  int       `json:"exit"`
	Error api.Error `json:"error"`
}

// inherited is the descriptor on which a daemon tells its parent, nil without one. Nothing
// that is started here gets it.
func inherited(fd int) *os.File {
	if fd <= 2 {
		return nil
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "parent")
}

// tellParent hands over why this process ends. Nobody may be there to read it any more.
func (a *app) tellParent(exit int, e *api.Error) {
	if a.parent == nil {
		return
	}
	if raw, err := json.Marshal(ending{exit, *e}); err == nil {
		_, _ = a.parent.Write(raw)
	}
	_ = a.parent.Close()
}

// keepDescriptors lets no process that is started from now on have what our caller
// has left open for us: a lock file or a pipe would not be free before the daemon
// ends. What stella opens itself is not inherited anyway.
func keepDescriptors() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("own descriptors: %w", err)
	}
	for _, d := range open {
		if fd, err := strconv.Atoi(d.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// spawn starts the daemon in a session of its own, without our descriptors.
func (a *app) spawn(path string) (*daemonChild, error) {
	log, from, err := openLog(path)
	if err != nil {
		if known := engine.Unwritable(a.opt.home, err); known != nil {
			return nil, known
		}
		return nil, fmt.Errorf("log: %w", err)
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own executable: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	defer w.Close()
	cmd := exec.Command(self, "daemon", "start", "--foreground", "--parent", "3", "--home", a.opt.home)
	cmd.Dir = "/" // a daemon keeps no file system busy
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keepDescriptors(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the daemon: %w", err), r.Close())
	}
	c := &daemonChild{pid: cmd.Process.Pid, log: path, from: from, ended: make(chan error, 1), pipe: r, told: make(chan []byte, 1)}
	go func() { c.ended <- cmd.Wait() }() // both end with the daemon, or with us
	go func() {
		raw, _ := io.ReadAll(io.LimitReader(r, maxEnding)) // what is torn is no ending
		c.told <- raw
	}()
	return c, nil
}

// openLog opens the log of a daemon, and says where what comes now begins.
func openLog(path string) (log *os.File, from int64, err error) {
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxDaemonLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	if log, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600); err != nil {
		return nil, 0, err
	}
	if from, err = log.Seek(0, io.SeekEnd); err != nil {
		return nil, 0, errors.Join(err, log.Close())
	}
	return log, from, nil
}

// untilServed waits until the child answers at the socket, and has taken up the runs
// that are open: until then it may end for a fault of theirs.
func (a *app) untilServed(ctx context.Context, c *daemonChild) (api.SiteStatus, error) {
	late, work := time.After(daemonPatience), progress{}
	for {
		st, err := a.asked(ctx)
		serves := err == nil && st.PID == c.pid
		if serves && !st.Opening {
			return st, nil
		}
		select {
		case <-time.After(daemonLook):
		case err := <-c.ended:
			return st, c.failure(err)
		case <-late:
			if serves { // it takes up many runs, and answers meanwhile
				return st, nil
			}
			if work.goesOn(engine.Migrating(a.opt.home)) { // for as long as the ledger is
				late = time.After(migrationPatience)
				continue
			}
			return st, &api.Error{Code: api.CodeLocked, Message: fmt.Sprintf("the daemon (pid %d) does not answer yet", c.pid), Hint: "see " + c.log}
		case <-ctx.Done():
			return st, context.Cause(ctx)
		}
	}
}

// A progress is how far a migration was when somebody looked.
type progress struct{ written time.Time }

// goesOn says whether a migration has written something since the last look.
func (p *progress) goesOn(written time.Time, migrates bool) bool {
	if !migrates || written.Equal(p.written) {
		return false
	}
	p.written = written
	return true
}

// failure is why the daemon ended before it served: what it has handed over, or, where
// somebody has killed it, the last thing that it said, with its exit code.
func (c *daemonChild) failure(err error) error {
	out := &outcome{exit: exitFailed, err: api.Error{Code: codeNotRunning, Message: "the daemon ended at once", Hint: "see " + c.log}}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		out.exit = exit.ExitCode()
	}
	_ = c.pipe.SetReadDeadline(time.Now().Add(time.Second)) // it has ended: nothing more comes
	var told ending
	if json.Unmarshal(<-c.told, &told) == nil && told.Exit > 0 {
		return &outcome{exit: told.Exit, err: told.Error}
	}
	f, err := os.Open(c.log)
	if err != nil {
		return out
	}
	defer f.Close()
	said, err := io.ReadAll(io.NewSectionReader(f, c.from, 64<<10))
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(said)) {
		if text, ok := strings.CutPrefix(line, "stella: daemon start: "); ok {
			out.err.Message = strings.TrimSpace(text)
		}
		if text, ok := strings.CutPrefix(line, "hint: "); ok {
			out.err.Hint = strings.TrimSpace(text)
		}
	}
	return out
}
