package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

const (
	daemonPatience = 30 * time.Second // for a daemon to serve
	daemonLook     = 20 * time.Millisecond
	maxDaemonLog   = 16 << 20 // beyond it a new log is begun; one old one is kept
)

func newDaemonCmd(a *app) *cobra.Command {
	return group("daemon", "The process that holds a site for long",
		"Start and stop the process that holds the site, executes runs, and serves all commands.",
		newDaemonStartCmd(a), newDaemonStopCmd(a), newDaemonRestartCmd(a), newDaemonStatusCmd(a))
}

func newDaemonStartCmd(a *app) *cobra.Command {
	var foreground bool
	c := &cobra.Command{
		Use:   "start",
		Short: "Start the daemon",
		Long: "Start the daemon and return when it serves; its log is logs/daemon.log in the home. With\n" +
			"--foreground the daemon is this process, and its log goes to stderr: that is for service\n" +
			"managers. Runs that were interrupted go on at once.\n\n" +
			"SIGTERM interrupts what executes, which goes on at the next start; `stella daemon stop`\n" +
			"waits for it instead.",
		Example: "  stella daemon start\n  stella daemon start --foreground",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if foreground {
				return runDaemon(c.Context(), a)
			}
			return runDaemonStart(c.Context(), a)
		},
	}
	c.Flags().BoolVar(&foreground, "foreground", false, "be the daemon")
	return c
}

// runDaemon is the daemon: it holds the site until it is asked to end.
func runDaemon(ctx context.Context, a *app) error {
	if err := a.needHome(); err != nil {
		return err
	}
	if a.opt.apiURL != "" {
		return notForSocket()
	}
	log := a.log(true)
	h, err := a.holdWithPatience(ctx, engine.Options{Mode: engine.ModeDaemon, Executes: true}, log)
	if err != nil {
		return err
	}
	path, _ := a.socketPath()
	log.Info("serving", "home", a.opt.home, "socket", path, "version", version, "pid", os.Getpid())
	executing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan error, 1)
	go func() { // a daemon that nobody can reach must not go on
		err := <-h.served
		if err != nil {
			cancel(err)
		}
		served <- err
	}()
	err = h.execute(executing, engine.Forever)
	log.Info("stopping")
	h.stop()
	h.force()
	err = errors.Join(err, <-served, h.engine.Close())
	if err == nil {
		log.Info("stopped")
	}
	return err
}

func notForSocket() error {
	return invalid("a daemon serves the socket of its own home; --api-url is for those who ask it")
}

// holdWithPatience opens the site when the command that holds it has ended.
func (a *app) holdWithPatience(ctx context.Context, opt engine.Options, log *slog.Logger) (*held, error) {
	deadline := a.now().Add(a.patience)
	for {
		h, err := a.hold(ctx, opt, log)
		var e *api.Error
		if err == nil || !errors.As(err, &e) || e.Code != api.CodeLocked || a.now().After(deadline) {
			return h, err
		}
		select {
		case <-time.After(lastWait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// daemonState is what daemon start and status print.
type daemonState struct {
	Running    bool   `json:"running"`
	PID        int    `json:"pid,omitempty"`
	StartedUTC string `json:"startedUtc,omitempty"`
	Version    string `json:"version,omitempty"`
	ActiveRuns int    `json:"activeRuns"`
	Executing  int    `json:"executing"`
	Socket     string `json:"socket,omitempty"`
	Log        string `json:"log,omitempty"`
}

// asked asks the socket who serves it. The error is [server.ErrUnreachable]
// where nobody does.
func (a *app) asked(ctx context.Context) (api.SiteStatus, error) {
	if err := a.needHome(); err != nil {
		return api.SiteStatus{}, err
	}
	c, err := a.client()
	if err != nil {
		return api.SiteStatus{}, err
	}
	if c == nil {
		return api.SiteStatus{}, &api.Error{Code: api.CodeNoSite, Message: "there is no site in " + a.opt.home,
			Hint: "stella init --home " + a.opt.home}
	}
	defer c.Close()
	return c.Status(ctx)
}

// renderStarted is renderDaemon for a command that has started it.
func (a *app) renderStarted(st api.SiteStatus, log string) error {
	if a.silent(false) {
		return nil
	}
	return a.renderDaemon(st, log)
}

func (a *app) renderDaemon(st api.SiteStatus, log string) error {
	path, err := a.socketPath()
	if err != nil {
		return err
	}
	d := daemonState{
		Running: true, PID: st.PID, StartedUTC: st.StartedUTC, Version: st.Version,
		ActiveRuns: st.ActiveRuns, Executing: st.Executing, Socket: path, Log: log,
	}
	return a.emit(d, func(s *screen) {
		s.fields("daemon", fmt.Sprintf("running, pid %d, since %s", d.PID, seconds(d.StartedUTC)), "stella", d.Version,
			"runs", fmt.Sprintf("%d active, %s executing", d.ActiveRuns, count(d.Executing, "attempt", "attempts")), "socket", d.Socket, "log", d.Log)
	})
}

func runDaemonStart(ctx context.Context, a *app) error {
	if a.opt.apiURL != "" {
		return notForSocket()
	}
	st, err := a.asked(ctx)
	switch {
	case err == nil && st.Mode == engine.ModeDaemon:
		a.stderr.note("note: the daemon was running already")
		return a.renderStarted(st, "")
	case err != nil && !errors.Is(err, server.ErrUnreachable):
		return err
	}
	log := filepath.Join(a.opt.home, "logs", "daemon.log")
	child, err := a.spawn(log)
	if err != nil {
		return err
	}
	st, err = a.untilServed(ctx, child)
	if err != nil {
		return err
	}
	return a.renderStarted(st, log)
}

// A daemonChild is the daemon as its parent sees it.
type daemonChild struct {
	pid   int
	log   string
	from  int64      // where its part of the log begins
	ended chan error // receives when it has ended
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
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxDaemonLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own executable: %w", err)
	}
	cmd := exec.Command(self, "daemon", "start", "--foreground", "--home", a.opt.home)
	cmd.Dir = "/" // a daemon keeps no file system busy
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keepDescriptors(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	c := &daemonChild{pid: cmd.Process.Pid, log: path, from: from, ended: make(chan error, 1)}
	go func() { c.ended <- cmd.Wait() }() // ends with the daemon, or with us
	return c, nil
}

// untilServed waits until the child answers at the socket, and has taken up the runs
// that are open: until then it may end for a fault of theirs.
func (a *app) untilServed(ctx context.Context, c *daemonChild) (api.SiteStatus, error) {
	late := time.After(daemonPatience)
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
			if engine.Migrating(a.opt.home) { // as long as the ledger is
				late = time.After(daemonPatience)
				continue
			}
			return st, &api.Error{Code: api.CodeLocked, Message: fmt.Sprintf("the daemon (pid %d) does not answer yet", c.pid), Hint: "see " + c.log}
		case <-ctx.Done():
			return st, context.Cause(ctx)
		}
	}
}

// failure is why the daemon ended before it served: the last thing that it
// said, with its exit code.
func (c *daemonChild) failure(err error) error {
	out := &outcome{exit: exitFailed, err: api.Error{Code: codeNotRunning, Message: "the daemon ended at once", Hint: "see " + c.log}}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		out.exit = exit.ExitCode()
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

func newDaemonStopCmd(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon",
		Long: "Stop the daemon and return when it has ended. It accepts nothing more, waits for the\n" +
			"attempts under way, signs a checkpoint and lets the site go. With --force it interrupts\n" +
			"the attempts; their runs go on at the next start. Without a daemon nothing is done.",
		Example: "  stella daemon stop\n  stella daemon stop --force",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDaemonStop(c.Context(), a, force) },
	}
	c.Flags().BoolVar(&force, "force", false, "interrupt what executes")
	return c
}

func runDaemonStop(ctx context.Context, a *app, force bool) error {
	st, err := a.asked(ctx)
	switch {
	case errors.Is(err, server.ErrUnreachable) || err == nil && st.Mode == engine.ModeCommand:
		a.stderr.note("note: no daemon was running")
		return nil
	case err != nil:
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Stop(ctx, force); err != nil && !errors.Is(err, server.ErrUnreachable) {
		return err
	}
	pid, said := st.PID, false
	for {
		if gone(pid) {
			a.stderr.note("stopped")
			return nil
		}
		if st, err := c.Status(ctx); err == nil && st.PID == pid && st.Executing > 0 && !said {
			a.stderr.note("%s", waiting(st.Executing, force))
			said = true
		}
		select {
		case <-time.After(daemonLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waiting says what a daemon does before it ends.
func waiting(attempts int, force bool) string {
	what := count(attempts, "attempt", "attempts")
	if force {
		return "interrupting " + what
	}
	return "waiting for " + what + "; --force interrupts"
}

// gone says whether a process has ended. A zombie has: only its parent is slow.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func newDaemonRestartCmd(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "restart",
		Short: "Stop the daemon and start it again",
		Long: "Stop the daemon as `stella daemon stop` does, and start it: with this program and what\n" +
			"site.toml says now. Runs that are open go on. Without a daemon it is started.",
		Example: "  stella daemon restart\n  stella daemon restart --force",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := runDaemonStop(c.Context(), a, force); err != nil {
				return err
			}
			return runDaemonStart(c.Context(), a)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "interrupt what executes")
	return c
}

func newDaemonStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Say whether the daemon runs",
		Long:    "Say whether the daemon runs. It never opens the site. Exit 0 if it runs, 6 if not.",
		Example: "  stella daemon status",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDaemonStatus(c.Context(), a) },
	}
}

func runDaemonStatus(ctx context.Context, a *app) error {
	st, err := a.asked(ctx)
	switch {
	case err == nil && st.Mode == engine.ModeDaemon:
		return a.renderDaemon(st, "")
	case err != nil && !errors.Is(err, server.ErrUnreachable):
		return err
	}
	if err := a.emit(daemonState{}, func(s *screen) { s.fields("daemon", "not running") }); err != nil {
		return err
	}
	out := &outcome{exit: exitLocked, err: api.Error{Code: codeNotRunning, Message: "no daemon is running", Hint: "stella daemon start"}}
	if err == nil {
		out.err.Message = fmt.Sprintf("no daemon is running; the %s with pid %d holds the site", st.Mode, st.PID)
		out.err.Hint = ""
	}
	return out
}
