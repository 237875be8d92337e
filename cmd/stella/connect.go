package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// How a command finds its site: it tries the socket; if nobody serves it, it
// opens the site itself, and serves the socket while it holds it. Who loses
// the lock tries socket and lock again, for the
// patience of the app.
const (
	firstWait = 5 * time.Millisecond
	lastWait  = 150 * time.Millisecond
)

// A reached site is one behind the socket, or one that this process holds.
type reached struct {
	api.Site
	held *held // nil behind the socket
}

// withSite gives f the site, for anything but executing. f may be called again
// when the process that held the site went away meanwhile.
func (a *app) withSite(ctx context.Context, f func(context.Context, *reached) error) error {
	return a.reach(ctx, engine.Options{Mode: engine.ModeCommand}, f)
}

// withExecutor is withSite for a command that executes runs where nobody else
// does.
func (a *app) withExecutor(ctx context.Context, f func(context.Context, *reached) error) error {
	return a.reach(ctx, engine.Options{Mode: engine.ModeForeground, Executes: true}, f)
}

func (a *app) reach(ctx context.Context, opt engine.Options, f func(context.Context, *reached) error) error {
	if err := a.needHome(); err != nil {
		return err
	}
	wait, deadline := firstWait, a.now().Add(a.patience)
	for {
		began := a.now()
		err := a.once(ctx, opt, f)
		if ctx.Err() != nil || !comesBack(err, opt.Executes) {
			return err
		}
		now := a.now()
		if now.Sub(began) > time.Second { // it was reached, and has gone: a new search
			wait, deadline = firstWait, now.Add(a.patience)
		}
		if now.After(deadline) {
			return err
		}
		pause := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
		wait = min(2*wait, lastWait)
	}
}

// hangs is what is said of a process that holds the site and does not answer even that it is
// there. What it was asked for it may still do, if it goes on.
func hangs(s *server.SilentError) *api.Error {
	e := &api.Error{Code: api.CodeLocked, Message: fmt.Sprintf("the process that holds the site (pid %d) has not answered for %v", s.PID, s.For),
		Hint: fmt.Sprintf("it hangs: kill -QUIT %d makes it say where before it ends; SIGKILL is safe", s.PID)}
	switch processState(s.PID) {
	case "T", "t":
		e.Hint = fmt.Sprintf("it was stopped by a signal (SIGSTOP, ^Z): kill -CONT %d lets it go on", s.PID)
	case "": // no process that is seen from here: it is in another container
		e.Hint = "it hangs: see to it where it runs; SIGKILL is safe"
	}
	return e
}

// comesBack says whether the same request may succeed a little later.
func comesBack(err error, executes bool) bool {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code == api.CodeLocked || e.Code == api.CodeStopping || executes && e.Code == api.CodeNotExecuting
	}
	return errors.Is(err, server.ErrUnreachable)
}

// once tries the socket, then the lock.
func (a *app) once(ctx context.Context, opt engine.Options, f func(context.Context, *reached) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if c != nil && !a.socketGone() {
		err := f(ctx, &reached{Site: c})
		c.Close()
		if !errors.Is(err, server.ErrUnreachable) || a.opt.apiURL != "" {
			return err
		}
	}
	h, err := a.hold(ctx, opt, a.log(false))
	if err != nil {
		return err
	}
	p := api.Principal{Name: server.LocalPrincipal(os.Getuid()), Tenant: a.opt.tenant}
	err = f(ctx, &reached{Site: h.site(p), held: h})
	err = h.engine.Help(context.WithoutCancel(ctx), err)
	if err == nil && h.engine.Unkempt() {
		a.stderr.note("note: the disk is full, so what a process that died has left behind could not be put in order: it is shown as it was")
	}
	return errors.Join(err, h.release())
}

// socketGone says that nobody can serve the site, which saves asking.
func (a *app) socketGone() bool {
	path, err := a.socketPath()
	if err != nil || a.opt.apiURL != "" {
		return false
	}
	_, err = os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// client returns a client of the site's socket, or nil where there is no site
// to have one.
func (a *app) client() (*server.Client, error) {
	cookie, err := fsx.ReadFile(filepath.Join(a.opt.home, "keys", "cookie"), 4<<10)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if a.opt.apiURL != "" {
			return nil, &api.Error{Code: api.CodeNoSite, Message: "there is no site in " + a.opt.home,
				Hint: "the socket of --api-url asks for the cookie in the home of its site: name that with --home"}
		}
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, notOwner(a.opt.home)
	case err != nil:
		return nil, fmt.Errorf("cookie: %w", err)
	}
	owner, err := ownerOf(a.opt.home)
	if err != nil {
		return nil, err
	}
	path, err := a.socketPath()
	if err != nil {
		return nil, err
	}
	return server.NewClient(server.ClientOptions{
		Socket: path, Cookie: cookie, Tenant: a.opt.tenant, Traceparent: a.opt.traceparent, Owners: []int{owner, 0},
		Patience: a.patience,
	}), nil
}

// socketPath is where the site is served: one path, by whatever links the home
// was named.
func (a *app) socketPath() (string, error) {
	if url := a.opt.apiURL; url != "" {
		if strings.Contains(url, "://") && !strings.HasPrefix(url, "unix://") {
			return "", invalid("--api-url takes the path of a socket; %q is not one", url)
		}
		return absolute(strings.TrimPrefix(url, "unix://"))
	}
	home, err := filepath.EvalSymlinks(a.opt.home)
	if err != nil {
		return "", fmt.Errorf("home: %w", err)
	}
	return engine.SocketPath(home), nil
}

func ownerOf(path string) (int, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("home: %w", err)
	}
	return int(fi.Sys().(*syscall.Stat_t).Uid), nil
}

// needOwner refuses a home that belongs to another user: what root writes there, its owner
// could not write again. A home that is not there belongs to nobody.
func (a *app) needOwner() error {
	if owner, err := ownerOf(a.opt.home); err == nil && owner != os.Geteuid() {
		return notOwner(a.opt.home)
	}
	return nil
}

func notOwner(home string) error {
	e := &api.Error{Code: api.CodeForbidden, Message: "the site in " + home + " belongs to another user"}
	if uid, err := ownerOf(home); err == nil {
		e.Hint = fmt.Sprintf("run the command as its owner, %s", server.LocalPrincipal(uid))
	}
	return e
}

// held is a site that this process holds and serves.
type held struct {
	engine *engine.Engine
	box    io.Closer          // what executes attempts
	stop   context.CancelFunc // ends serving
	served chan error
	forced context.Context // done when somebody asked for the end by force
	force  context.CancelFunc
}

// stoppable is a held site whose Stop by force also ends one that was asked
// for in peace before and hangs.
type stoppable struct {
	api.Site
	force context.CancelFunc
}

// Stop implements [api.Host].
func (s stoppable) Stop(ctx context.Context, force bool) error {
	err := s.Site.Stop(ctx, force)
	if err == nil && force {
		s.force()
	}
	return err
}

func (h *held) site(p api.Principal) api.Site { return stoppable{h.engine.As(p), h.force} }

// execute runs steps until there is nothing left to do, ctx is done, or
// somebody asks for the end.
func (h *held) execute(ctx context.Context, until engine.Until) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.forced, cancel)()
	return h.engine.Execute(ctx, until)
}

// hold opens the site and begins to serve its socket.
func (a *app) hold(ctx context.Context, opt engine.Options, log *slog.Logger) (*held, error) {
	if err := a.needOwner(); err != nil {
		return nil, err
	}
	opt.Home, opt.Version, opt.Commit, opt.Log, opt.Now = a.opt.home, version, commit, log, a.now
	opt.Migrating = func(entries int64) {
		if opt.Mode == engine.ModeDaemon {
			log.Info("an older stella wrote this site: it is put into the form of this one", "entries", entries)
			return
		}
		a.stderr.note("note: an older stella wrote this site: its %d entries are put into the form of this one, which can take a while", entries)
	}
	h := &held{served: make(chan error, 1), box: io.NopCloser(nil)}
	if opt.Executes {
		box := sandbox.New(sandbox.Options{Now: a.now, Keep: 4})
		opt.Executor, h.box, opt.Begun = box, box, &a.begun
		opt.Ready = func() error { // else a start is recorded that nobody could reach
			l, err := a.listen()
			if err == nil {
				err = l.Close() // it listens once the site is in order
			}
			return err
		}
	}
	e, err := engine.Open(ctx, opt)
	if errors.Is(err, errInterrupted) {
		err = &outcome{exit: exitInterrupted, err: api.Error{Code: codeInterrupted, Message: "interrupted; the site is as it was"}}
	}
	if err != nil {
		return nil, errors.Join(err, h.box.Close())
	}
	l, err := a.listen()
	if err != nil {
		return nil, errors.Join(err, e.Close(), h.box.Close())
	}
	h.engine = e
	h.forced, h.force = context.WithCancel(context.Background())
	// Requests under way outlive a signal: what is being executed ends first.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	served := server.Options{
		Site: h.site, Cookie: e.Cookie(), Owner: os.Geteuid(), Tenant: e.DefaultTenant(), Log: log,
	}
	if opt.Mode == engine.ModeCommand {
		served.Drain = time.Second // others' long work is better done by themselves
	}
	go func() { h.served <- server.Serve(serving, l, served) }()
	return h, nil
}

// listen makes the socket, and the folder for it where that is not the home.
func (a *app) listen() (net.Listener, error) {
	path, err := a.socketPath()
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if uid, err := ownerOf(dir); err != nil || uid != os.Geteuid() {
		return nil, &api.Error{Code: api.CodeForbidden, Message: "the folder of the socket, " + dir + ", belongs to another user",
			Hint: "set XDG_RUNTIME_DIR, or use a home with a shorter path"}
	}
	return server.Listen(path)
}

// release ends what was begun by hold: the socket first, then the site.
func (h *held) release() error {
	h.stop()
	h.force()
	box := make(chan error, 1)
	go func() { box <- h.box.Close() }()
	return errors.Join(<-h.served, h.engine.Close(), <-box)
}
