package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

const truth = "/bin/true"

// spec is a DAG of n steps of the plugin of [lab.oneStep]: a chain, or all
// behind the first.
func spec(id string, n int, chain bool, parallel int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "schema = \"stella.dag/1\"\ndag_id = %q\nversion = \"1.0.0\"\n[limits]\nmax_parallel_steps = %d\n", id, parallel)
	for i := range n {
		fmt.Fprintf(&b, "[[step]]\nid = \"s%d\"\nplugin = \"acme/bench-true@1.0.0\"\naction = \"run\"\n", i)
		switch {
		case chain && i > 0:
			fmt.Fprintf(&b, "needs = [\"s%d\"]\n", i-1)
		case !chain && i > 0 && n >= 1000:
			fmt.Fprintf(&b, "needs = [\"s0\"]\n")
		}
	}
	return b.Bytes()
}

// publish imports and publishes a DAG.
func (l *lab) publish(dir, id string, text []byte) error {
	path, err := l.bundle(dir, id, map[string][]byte{
		"stella.toml": manifest("dag", id, "1.0.0", "[dag]\nspec = \"dag.toml\"\n"), "dag.toml": text,
	})
	if err != nil {
		return err
	}
	return l.with(nil, func(e *engine.Engine) error {
		if _, err := siteOf(e).ImportBundle(context.Background(), api.ImportRequest{Path: path}, nil); err != nil {
			return err
		}
		_, err := siteOf(e).PublishDAG(context.Background(), "acme/"+id+"@1.0.0")
		return err
	})
}

// processes is a lab whose one plugin is /bin/true.
func processes(e *env) (*lab, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(truth)
	if err != nil {
		return nil, skipped(err.Error())
	}
	return l, l.oneStep(e.dir, raw)
}

// benchMany runs DAGs of 100 processes, whole process.
func benchMany(chain bool) func(*env) (work, error) {
	return func(e *env) (work, error) {
		const n = 100
		l, err := processes(e)
		if err != nil {
			return work{}, err
		}
		callers := 2
		if chain {
			callers = 1
		}
		return work{
			ours: func() error {
				return quiet(exec.Command(e.stella, "--home", l.home, "orch", "run", "start", "--dag-id", "bench-many"))
			},
			theirs: func() error {
				return spread(callers, n, func(int) error { return exec.Command(truth).Run() })
			},
		}, l.publish(e.dir, "bench-many", spec("bench-many", n, chain, 2))
	}
}

// benchDAG compares a step of a large DAG with one of a small DAG. The durations
// that it compares are those of a hundred steps.
func benchDAG(chain bool) func(*env) (work, error) {
	return func(e *env) (work, error) {
		const small, large, part = 100, 10_000, 100
		l, err := newLab(e.dir)
		if err != nil {
			return work{}, err
		}
		config := manifests.EncodeSite(&manifests.Site{AllowPlain: true, Workers: 2, MaxParallelSteps: 2})
		err = errors.Join(
			os.WriteFile(filepath.Join(l.home, "site.toml"), config, 0o644),
			l.oneStep(e.dir, []byte("#!/bin/true\n")),
			l.publish(e.dir, "bench-small", spec("bench-small", small, chain, 2)),
			l.publish(e.dir, "bench-large", spec("bench-large", large, chain, 2)))
		if err != nil {
			return work{}, err
		}
		d, err := l.null()
		if err != nil {
			return work{}, err
		}
		base := d.anon()
		run := func(dag string, n int, watch func(id string) string) (time.Duration, error) {
			stop := d.peak()
			begun := time.Now()
			res, err := d.StartRun(context.Background(), api.StartRequest{DAGID: dag})
			if err != nil {
				return 0, err
			}
			started, note := time.Since(begun), ""
			if watch != nil {
				note = watch(res.Run.RunID)
			}
			r, err := d.WaitRun(context.Background(), res.Run.RunID)
			if err != nil || r.Status != state.Completed {
				return 0, fmt.Errorf("run %s: %s %s: %w", r.RunID, r.Status, r.FailureReason, err)
			}
			most := stop()
			if watch != nil {
				e.notes = []string{note, fmt.Sprintf("its start took %s; the daemon's anonymous memory at most %.0f MiB (%.0f before the first run; aim: below 150)", ms(started.Seconds()), most, base)}
			}
			return between(r.CreatedUTC, r.EndedUTC) * part / time.Duration(n), nil
		}
		return work{
			measured: func() (ours, theirs time.Duration, err error) {
				if theirs, err = run("bench-small", small, nil); err != nil {
					return 0, 0, err
				}
				ours, err = run("bench-large", large, func(id string) string { return watchStatus(e, l, id) })
				return ours, theirs, err
			},
			close: d.end,
		}, nil
	}
}

// watchStatus asks for the status of a run a few times while it is going on.
func watchStatus(e *env, l *lab, id string) string {
	var took []float64
	for range 10 {
		begun := time.Now()
		if err := quiet(exec.Command(e.stella, "--home", l.home, "orch", "run", "status", id)); err != nil {
			return err.Error()
		}
		took = append(took, time.Since(begun).Seconds())
	}
	return fmt.Sprintf("run status meanwhile, whole process: median %s, most %s (aim: below 50 ms)", ms(quantile(took, .5)), ms(quantile(took, 1)))
}

// between is the time from one stamp to another.
func between(a, b string) time.Duration {
	x, _ := stamp.Parse(a)
	y, _ := stamp.Parse(b)
	return y.Sub(x)
}
