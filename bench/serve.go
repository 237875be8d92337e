package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// serving is the word that a server says when it can be reached.
const serving = "serving"

// serve is a daemon whose attempts do nothing. It is a process of its own because
// a site does not speak with the descendants of the process that holds it, and so
// that its memory is its own. It ends at the end of its standard input.
func serve(home string) error {
	e, err := engine.Open(context.Background(), engine.Options{
		Home: home, Mode: engine.ModeDaemon, Executes: true, Executor: null{}, Version: "0.0.0",
	})
	if err != nil {
		return err
	}
	l, err := server.Listen(engine.SocketPath(home))
	if err != nil {
		return errors.Join(err, e.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	served, executed := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- server.Serve(ctx, l, server.Options{
			Site:   func(p api.Principal) api.Site { return e.As(p) },
			Cookie: e.Cookie(), Owner: os.Getuid(), Tenant: e.DefaultTenant(),
		})
	}()
	go func() { executed <- e.Execute(ctx, engine.Forever) }()
	fmt.Println(serving)
	_, err = io.Copy(io.Discard, os.Stdin)
	stop()
	return errors.Join(err, <-executed, <-served, e.Close())
}

// daemon is a process that holds a site, and a client of it.
type daemon struct {
	*server.Client
	cmd   *exec.Cmd
	stdin io.Closer
}

// null starts a daemon whose attempts do nothing.
func (l *lab) null() (*daemon, error) {
	return l.daemon(exec.Command("/proc/self/exe", "-serve", l.home))
}

// real starts stella's own.
func (l *lab) real(e *env) (*daemon, error) {
	return l.daemon(exec.Command(e.stella, "--home", l.home, "daemon", "start", "--foreground"))
}

func (l *lab) daemon(cmd *exec.Cmd) (*daemon, error) {
	cookie, err := os.ReadFile(filepath.Join(l.home, "keys", "cookie"))
	if err != nil {
		return nil, err
	}
	d := &daemon{cmd: cmd, Client: server.NewClient(server.ClientOptions{Socket: engine.SocketPath(l.home), Cookie: cookie})}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	d.stdin = in
	log, err := os.Create(filepath.Join(filepath.Dir(l.home), "daemon.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for range 2000 {
		if _, err = d.Status(context.Background()); err == nil {
			return d, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.Join(err, d.end())
}

// end ends the process in order.
func (d *daemon) end() error {
	d.Close()
	d.stdin.Close()
	d.cmd.Process.Signal(os.Interrupt)
	return d.cmd.Wait()
}

// peak looks at the anonymous memory of the process until stop is called, which
// returns the most that it was seen to have, in MiB. What is mapped of ledger.db
// and the program is the page cache's.
func (d *daemon) peak() (stop func() float64) {
	quit, most := make(chan struct{}), make(chan float64)
	go func() {
		peak := d.anon()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = max(peak, d.anon())
			case <-quit:
				most <- peak
				return
			}
		}
	}()
	return func() float64 {
		close(quit)
		return <-most
	}
}

// anon is its anonymous memory now, in MiB.
func (d *daemon) anon() float64 { return float64(procStatus(d.cmd.Process.Pid, "RssAnon:")) / 1024 }
