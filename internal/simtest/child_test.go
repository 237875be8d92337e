package simtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// What the child is told by its environment.
const (
	envHome  = "STELLA_SIM_HOME"
	envTrace = "STELLA_SIM_TRACE" // where the executor without processes leaves its lines
)

// TestMain is one of the processes that are killed, if it is told so: a daemon like
// the real one, but without processes, and with a socket for each of three people.
// Or it becomes a program whose system calls end as a test says.
func TestMain(m *testing.M) {
	if os.Getenv(envGate) != "" {
		fmt.Fprintln(os.Stderr, "the launcher:", launch(os.Args[1:]))
		os.Exit(3)
	}
	if home := os.Getenv(envHome); home != "" {
		if err := daemon(home, os.Getenv(envTrace)); err != nil {
			fmt.Fprintln(os.Stderr, "the daemon:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func daemon(home, trace string) error {
	ctx := context.Background()
	opt := engine.Options{
		Home: home, Mode: engine.ModeDaemon, Executes: true, Version: "0.1.0", Executor: &quick{trace: trace},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	e, err := engine.Open(ctx, opt)
	for late := time.Now().Add(10 * time.Second); isLocked(err) && time.Now().Before(late); { // like the real one
		time.Sleep(time.Millisecond)
		e, err = engine.Open(ctx, opt)
	}
	if err != nil {
		return err
	}
	stop, served, err := serve(ctx, e, home)
	if err != nil {
		return err
	}
	err = e.Execute(ctx, engine.Forever)
	stop()
	for range people {
		err = errors.Join(err, <-served)
	}
	return errors.Join(err, e.Close())
}

func isLocked(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.CodeLocked
}

const people = 3

// person is who speaks at a socket.
func person(i int) string { return fmt.Sprintf("uid:%d(p%d)", 1000+i, i) }

func socket(home string, i int) string {
	return filepath.Join(filepath.Dir(home), fmt.Sprintf("p%d.sock", i))
}

// serve lets each person have a socket of the site.
func serve(ctx context.Context, e *engine.Engine, home string) (stop func(), served chan error, err error) {
	ctx, stop = context.WithCancel(ctx)
	served = make(chan error, people)
	var all [people]net.Listener
	for i := range people {
		if all[i], err = server.Listen(socket(home, i)); err != nil {
			stop()
			return nil, nil, err
		}
	}
	for i, l := range all {
		go func() {
			served <- server.Serve(ctx, l, server.Options{
				Site: func(p api.Principal) api.Site {
					p.Name = person(i)
					return e.As(p)
				},
				Cookie: e.Cookie(), Owner: os.Geteuid(), Tenant: e.DefaultTenant(), Drain: time.Second,
			})
		}()
	}
	return stop, served, nil
}

// quick is an executor without processes: an attempt is a line in a file, and a
// while. Like a process it ends with its parent.
type quick struct{ trace string }

// Tier implements [runner.Executor].
func (*quick) Tier() string { return "plain" }

// Execute implements [runner.Executor].
func (q *quick) Execute(ctx context.Context, t runner.Task) (runner.Report, error) {
	line := fmt.Sprintf("began %s %s %d", t.RunID, t.StepID, t.Attempt)
	for _, s := range t.Secrets {
		line += " " + string(s.Value)
	}
	if err := appendLine(q.trace, line+"\n"); err != nil {
		return runner.Report{}, err
	}
	code := 0
	r := runner.Report{Tier: "plain", ExitCode: &code}
	switch t.Args[0] {
	case "slow", "once":
		h := fnv.New32()
		fmt.Fprint(h, t.RunID, t.StepID, t.Attempt)
		while := time.NewTimer(time.Duration(20+h.Sum32()%200) * time.Millisecond)
		defer while.Stop()
		select {
		case <-while.C:
		case <-ctx.Done():
			r.Stop, r.ExitCode = runner.StopShutdown, nil
			if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
				r.Stop = runner.StopCancel
			}
		}
	case "flaky":
		if t.Attempt < 3 {
			code = 75
		}
	case "bad":
		code = 65
	case "list":
		r.Output.Values = map[string]json.RawMessage{"items": json.RawMessage("[0,1,2,3]")}
	}
	return r, nil
}

// appendLine adds a line to a file that others add lines to.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
