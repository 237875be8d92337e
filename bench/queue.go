package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/stellarun/stella/server/api"
)

// queueing is a daemon of a site whose one plugin is /bin/true.
type queueing struct {
	*daemon
	waits []float64 // from start to first step, in seconds
}

func newQueueing(e *env, l *lab) (*queueing, error) {
	d, err := l.real(e)
	if err != nil {
		return nil, err
	}
	return &queueing{daemon: d}, nil
}

// run starts n runs by so many clients, and waits for the last one's end.
func (q *queueing) run(n, clients int, wait bool) error {
	ids := make([]string, n)
	err := spread(clients, n, func(i int) error {
		res, err := q.StartRun(context.Background(), api.StartRequest{DAGID: "bench"})
		if err != nil {
			return err
		}
		ids[i] = res.Run.RunID
		if wait {
			_, err = q.WaitRun(context.Background(), ids[i])
		}
		return err
	})
	if err != nil {
		return err
	}
	q.waits = q.waits[:0]
	for _, id := range ids {
		r, err := q.WaitRun(context.Background(), id)
		if err != nil {
			return err
		}
		if r.Status != "completed" {
			return fmt.Errorf("run %s is %s: %s", id, r.Status, r.FailureReason)
		}
		q.waits = append(q.waits, between(r.CreatedUTC, r.StartedUTC).Seconds())
	}
	return nil
}

func (q *queueing) waited() string {
	return fmt.Sprintf("from start to first step: p50 %s, p99 %s", ms(quantile(q.waits, .5)), ms(quantile(q.waits, .99)))
}

// benchQueue fills the queue of a daemon with two workers.
func benchQueue(e *env) (work, error) {
	const n = 400
	l, err := processes(e)
	if err != nil {
		return work{}, err
	}
	q, err := newQueueing(e, l)
	if err != nil {
		return work{}, err
	}
	return work{
		ours: func() error {
			begun := time.Now()
			err := q.run(n, 4, false)
			e.notes = []string{fmt.Sprintf("%.0f runs/s in the last round; %s (most of it in the queue)", n/time.Since(begun).Seconds(), q.waited())}
			return err
		},
		theirs: func() error { return spread(2, n, func(int) error { return exec.Command(truth).Run() }) },
		close:  q.end,
	}, nil
}

// benchLatency starts runs one after the other.
func benchLatency(e *env) (work, error) {
	const n = 100
	l, err := processes(e)
	if err != nil {
		return work{}, err
	}
	q, err := newQueueing(e, l)
	if err != nil {
		return work{}, err
	}
	return work{
		ours: func() error {
			err := q.run(n, 1, true)
			e.notes = []string{q.waited()}
			return err
		},
		theirs: func() error { return spread(1, n, func(int) error { return exec.Command(truth).Run() }) },
		close:  q.end,
	}, nil
}

// benchScaleQueue compares queued runs of two sites, one with many ended runs.
func benchScaleQueue(runs int) func(*env) (work, error) {
	return func(e *env) (work, error) {
		const n = 200
		few, many, err := twoSites(e, runs)
		if err != nil {
			return work{}, err
		}
		a, err := newQueueing(e, many)
		if err != nil {
			return work{}, err
		}
		b, err := newQueueing(e, few)
		if err != nil {
			return work{}, errors.Join(err, a.end())
		}
		return work{
			ours: func() error {
				begun := time.Now()
				err := a.run(n, 4, false)
				e.notes = append(e.notes[:0], fmt.Sprintf("%.0f runs/s in the last round; the daemon has %.0f MiB of anonymous memory", n/time.Since(begun).Seconds(), a.anon()))
				return err
			},
			theirs: func() error { return b.run(n, 4, false) },
			close:  func() error { return errors.Join(a.end(), b.end()) },
		}, nil
	}
}
