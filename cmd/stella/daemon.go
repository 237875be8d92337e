package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

const (
	daemonPatience    = 30 * time.Second // for a daemon to serve
	migrationPatience = 2 * time.Minute  // for one that brings the site up to date to write something
	daemonLook        = 20 * time.Millisecond
	maxDaemonLog      = 16 << 20 // beyond it a new log is begun; one old one is kept
)

func newDaemonCmd(a *app) *cobra.Command {
	return group("daemon", "The process that holds a site for long",
		"Start and stop the process that holds the site, executes runs, and serves all commands.",
		newDaemonStartCmd(a), newDaemonStopCmd(a), newDaemonRestartCmd(a), newDaemonStatusCmd(a))
}

func newDaemonStartCmd(a *app) *cobra.Command {
	var foreground, recovers bool
	var parent int
	c := &cobra.Command{
		Use:   "start",
		Short: "Start the daemon",
		Long: "Start the daemon and return when it serves; its log is logs/daemon.log in the home. With\n" +
			"--foreground the daemon is this process, and its log goes to stderr: that is for service\n" +
			"managers. Runs that were interrupted go on at once.\n\n" +
			"SIGTERM interrupts what executes, which goes on at the next start; `stella daemon stop`\n" +
			"waits for it instead.\n\n" +
			"--recover first goes on with what is intact of a ledger that is damaged, as\n" +
			"`stella maintenance recover` does: it asks, and leaves a sound ledger alone.",
		Example: "  stella daemon start\n  stella daemon start --foreground\n  stella daemon start --recover",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if recovers {
				if err := a.recoverFirst(c.Context()); err != nil {
					return err
				}
			}
			if foreground {
				a.parent = inherited(parent)
				return runDaemon(c.Context(), a)
			}
			return runDaemonStart(c.Context(), a)
		},
	}
	c.Flags().BoolVar(&foreground, "foreground", false, "be the daemon")
	c.Flags().BoolVar(&recovers, "recover", false, "first recover a ledger that is damaged")
	c.Flags().IntVar(&parent, "parent", 0, "`DESCRIPTOR` of the process that waits until it serves")
	_ = c.Flags().MarkHidden("parent")
	return c
}

// recoverFirst recovers a ledger that is damaged, and says on stderr what came of it.
func (a *app) recoverFirst(ctx context.Context) error {
	res, err := a.recoverLedger(ctx, engine.RecoverOptions{Reason: "daemon start --recover"})
	if err != nil {
		return err
	}
	if !a.opt.quiet {
		renderRecovery(a.stderr, res)
	}
	return nil
}

// beDaemon holds and serves the site until it is asked to end, or cannot go on. It says
// whether it had taken up what is open: until then somebody waits for it who is told why not.
func (a *app) beDaemon(ctx context.Context, pause pause, log *slog.Logger) (up bool, err error) {
	h, err := a.holdWithPatience(ctx, engine.Options{Mode: engine.ModeDaemon, Executes: true}, pause, log)
	if err != nil {
		return false, err
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
	err = errors.Join(err, <-served, h.engine.Close(), h.box.Close())
	if err == nil {
		log.Info("stopped")
	}
	return h.engine.TakenUp(), err
}

func notForSocket() error {
	return invalid("a daemon serves the socket of its own home; --api-url is for those who ask it")
}

// A pause waits, and says whether to go on.
type pause func(context.Context, time.Duration) bool

// holdWithPatience opens the site when the command that holds it has ended.
func (a *app) holdWithPatience(ctx context.Context, opt engine.Options, pause pause, log *slog.Logger) (*held, error) {
	deadline := a.now().Add(a.patience)
	for {
		h, err := a.hold(ctx, opt, log)
		var e *api.Error
		if err == nil || !errors.As(err, &e) || e.Code != api.CodeLocked || a.now().After(deadline) {
			return h, err
		}
		if !pause(ctx, lastWait) {
			return nil, context.Cause(ctx)
		}
	}
}

// daemonState is what daemon start and status print.
type daemonState struct {
	Running    bool   `json:"running"`
	Stopping   bool   `json:"stopping,omitempty"` // and running until it has ended
	Silent     bool   `json:"silent,omitempty"`   // and running: it answers nobody
	Waiting    bool   `json:"waiting,omitempty"`  // until there is room on the disk
	PID        int    `json:"pid,omitempty"`
	StartedUTC string `json:"startedUtc,omitempty"`
	Version    string `json:"version,omitempty"`
	ActiveRuns int    `json:"activeRuns"`
	Executing  int    `json:"executing"`
	Socket     string `json:"socket,omitempty"`
	Log        string `json:"log,omitempty"`

	Disk *api.Disk `json:"disk,omitempty"`
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
		ActiveRuns: st.ActiveRuns, Executing: st.Executing, Socket: path, Log: log, Disk: &st.Disk,
	}
	does := "running"
	if st.Refuses != nil {
		d.Stopping, does = true, "stopping, begins nothing"
	}
	return a.emit(d, func(s *screen) {
		s.fields("daemon", fmt.Sprintf("%s, pid %d, since %s", does, d.PID, seconds(d.StartedUTC)), "stella", d.Version, "disk", roomText(*d.Disk),
			"runs", fmt.Sprintf("%d active, %s executing", d.ActiveRuns, count(d.Executing, "attempt", "attempts")), "socket", d.Socket, "log", d.Log)
	})
}

func runDaemonStart(ctx context.Context, a *app) error {
	if a.opt.apiURL != "" {
		return notForSocket()
	}
	st, err := a.asked(ctx)
	switch {
	case err == nil && st.Mode == engine.ModeDaemon && st.Refuses != nil:
		return st.Refuses
	case err == nil && st.Mode == engine.ModeDaemon:
		a.stderr.note("note: the daemon was running already")
		return a.renderStarted(st, "")
	case err != nil && !errors.Is(err, server.ErrUnreachable):
		return err
	}
	if pid := a.waits(); pid != 0 {
		full := waitsForRoom(pid)
		return &full
	}
	if err := a.needOwner(); err != nil { // before there is a log that is not its
		return err
	}
	log := filepath.Join(a.opt.home, "logs", "daemon.log")
	child, err := a.spawn(log)
	if err != nil {
		return err
	}
	st, err = a.untilServed(ctx, child)
	if holder, bad := a.asked(ctx); err != nil && bad == nil && holder.Mode == engine.ModeForeground {
		return foreground(a, holder)
	}
	if err != nil {
		return err
	}
	return a.renderStarted(st, log)
}

// foreground is what is to be said of a command that executes runs while there is no daemon.
func foreground(a *app, st api.SiteStatus) *api.Error {
	return &api.Error{Code: api.CodeLocked, Message: fmt.Sprintf("a command (pid %d) holds %s, and executes its runs until they have ended", st.PID, a.opt.home),
		Hint: "wait for it; or stella daemon restart, which lets what executes come to its end, and goes on with the runs"}
}

func newDaemonStopCmd(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon",
		Long: "Stop the daemon and return when it has ended. It begins nothing more, waits for the\n" +
			"attempts under way, signs a checkpoint and lets the site go. With --force it interrupts\n" +
			"the attempts; their runs go on at the next start. Without a daemon nothing is done. A process\n" +
			"that brings the site up to the form of a newer stella answers nobody, and ends at SIGTERM.",
		Example: "  stella daemon stop\n  stella daemon stop --force",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDaemonStop(c.Context(), a, force) },
	}
	c.Flags().BoolVar(&force, "force", false, "interrupt what executes")
	return c
}

// found is asked for a command that changes something. A process that holds the site and
// answers nobody, since it begins, ends or hangs, is waited for, as long as by any command;
// one that brings the site up to date is not.
func (a *app) found(ctx context.Context) (api.SiteStatus, error) {
	deadline := a.now().Add(a.patience)
	for {
		st, err := a.asked(ctx)
		if !errors.Is(err, server.ErrUnreachable) {
			return st, err
		}
		locked, migrates := a.mute()
		if locked == nil {
			return st, err
		}
		if migrates || a.now().After(deadline) {
			return st, locked
		}
		select {
		case <-time.After(lastWait):
		case <-ctx.Done():
			return st, context.Cause(ctx)
		}
	}
}

// mute is what is to be said of a process that holds the site and answers nobody, nil where
// there is none.
func (a *app) mute() (locked *api.Error, migrates bool) {
	if a.opt.apiURL != "" { // the socket is that of another site, for all we know
		return nil, false
	}
	if _, yes := engine.Migrating(a.opt.home); yes {
		return engine.MigratingError(a.opt.home), true
	}
	if !engine.Locked(a.opt.home) {
		return nil, false
	}
	return &api.Error{Code: api.CodeLocked, Message: "another process holds " + a.opt.home + " and does not answer",
		Hint: "it begins, ends or hangs: try again; fuser -v " + filepath.Join(a.opt.home, "ledger.db") + " names it"}, false
}

func runDaemonStop(ctx context.Context, a *app, force bool) error {
	if err := a.needHome(); err != nil {
		return err
	}
	if was, err := a.stopWaiting(ctx); was || err != nil { // whoever holds the site meanwhile
		return err
	}
	st, err := a.found(ctx)
	switch {
	case errors.Is(err, server.ErrUnreachable) || err == nil && st.Mode == engine.ModeCommand:
		if was, err := a.stopWaiting(ctx); was || err != nil {
			return err
		}
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
		st, err := c.Status(ctx)
		if silent := (*server.SilentError)(nil); errors.As(err, &silent) {
			return err
		}
		if err == nil && st.PID == pid && st.Executing > 0 && !said {
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
	state := processState(pid)
	return state == "" || state == "Z"
}

// processState is the letter that the system has for what a process does, "" where it has ended.
func processState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return cmp.Or(state, "?")
}

func newDaemonRestartCmd(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "restart",
		Short: "Stop the daemon and start it again",
		Long: "Stop the daemon as `stella daemon stop` does, and start it: with this program and what\n" +
			"site.toml says now. Runs that are open go on. Without a daemon it is started. One that waits\n" +
			"for room on the disk goes on waiting (exit 1): nothing could be started in its place.",
		Example: "  stella daemon restart\n  stella daemon restart --force",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if pid := a.waits(); pid != 0 {
				full := waitsForRoom(pid)
				return &full
			}
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
		Use:   "status",
		Short: "Say whether the daemon runs",
		Long: "Say whether the daemon runs. It never opens the site. Exit 0 if it runs; 6 if not, and while it\n" +
			"stops or does not answer; 1 while the disk is full and it waits until there is room.",
		Example: "  stella daemon status",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDaemonStatus(c.Context(), a) },
	}
}

func runDaemonStatus(ctx context.Context, a *app) error {
	st, err := a.asked(ctx)
	var silent *server.SilentError
	switch {
	case err == nil && st.Mode == engine.ModeDaemon:
		err := a.renderDaemon(st, "")
		if err == nil && st.Refuses != nil {
			return st.Refuses
		}
		return err
	case errors.As(err, &silent):
		return errors.Join(err, a.emit(daemonState{Running: true, Silent: true, PID: silent.PID}, func(s *screen) {
			s.fields("daemon", fmt.Sprintf("not answering, pid %d", silent.PID))
		}))
	case err != nil && !errors.Is(err, server.ErrUnreachable):
		return err
	}
	locked, _ := a.mute()
	if pid := a.waits(); pid != 0 {
		return a.renderWaiting(pid)
	}
	if err := a.emit(daemonState{}, func(s *screen) {
		switch {
		case err != nil && locked != nil:
			s.fields("daemon", "not answering")
		default:
			s.fields("daemon", "not running")
		}
	}); err != nil {
		return err
	}
	if err != nil && locked != nil {
		return locked
	}
	out := &outcome{exit: exitLocked, err: api.Error{Code: codeNotRunning, Message: "no daemon is running", Hint: "stella daemon start"}}
	if err == nil {
		out.err.Message = fmt.Sprintf("no daemon is running; the %s with pid %d holds the site", st.Mode, st.PID)
		out.err.Hint = ""
		if st.Mode == engine.ModeForeground {
			out.err.Hint = foreground(a, st).Hint
		}
	}
	return out
}
