package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// fill adds runs that have ended, copies of one that was run, by the store's own
// way: many at once, so that one sync is for hundreds of them.
func (l *lab) fill(n int) error {
	model, err := l.model()
	if err != nil {
		return err
	}
	db, err := store.Open(l.home, store.Options{})
	if err != nil {
		return err
	}
	return errors.Join(spread(512, n, func(int) error {
		run := model.run
		run.RunID, run.RunToken = runID(), runner.NewRunToken(time.Now())
		start := model.start
		start.RunToken = run.RunToken
		_, err := db.StartRun(run, &start, model.rest)
		return err
	}), db.Close())
}

// model is a run, and what its entries say.
type model struct {
	run   state.Run
	start ledger.RunStart
	rest  []state.Proposal
}

// model runs the one step once and takes the entries of that.
func (l *lab) model() (m model, err error) {
	x, err := l.open(null{}, 2)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	if err := x.run("bench"); err != nil {
		return m, err
	}
	s := siteOf(x.Engine)
	page, err := s.ListRuns(context.Background(), api.RunQuery{PageSize: 1})
	if err != nil {
		return m, err
	}
	all, err := s.InspectRun(context.Background(), page.Runs[0].RunID)
	if err != nil {
		return m, err
	}
	m.run = all.Run
	for i, line := range all.Entries {
		env, err := ledger.ParseEnvelope([]byte(line.Envelope))
		if err != nil {
			return m, err
		}
		d, err := ledger.ParseData([]byte(line.Data))
		if err != nil {
			return m, err
		}
		data, err := ledger.DecodeData(env.Type, d.Data)
		if err != nil {
			return m, err
		}
		if i == 0 {
			m.start = *data.(*ledger.RunStart)
			continue
		}
		m.rest = append(m.rest, state.Proposal{Type: env.Type, Actor: env.Actor, StepID: env.StepID, Attempt: env.Attempt, Data: data})
	}
	return m, nil
}

// runID makes a UUIDv7, as runs have it.
func runID() string {
	t := runner.NewTraceID()
	ms := fmt.Sprintf("%012x", time.Now().UnixMilli())
	return ms[:8] + "-" + ms[8:12] + "-7" + t[1:4] + "-8" + t[5:8] + "-" + t[8:20]
}

// twoSites are two sites that differ in how many runs have ended: 10, and runs.
// The large one is made once and kept for later rounds, where STELLA_BENCH_CACHE
// names a folder.
func twoSites(e *env, runs int) (few, many *lab, err error) {
	raw, err := os.ReadFile(truth)
	if err != nil {
		return nil, nil, skipped(err.Error())
	}
	make := func(dir string, n int) (*lab, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		l, err := newLab(dir)
		if err != nil {
			return nil, err
		}
		return l, errors.Join(l.oneStep(dir, raw), l.fill(n))
	}
	if few, err = make(filepath.Join(e.dir, "few"), 10); err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(e.dir, "many")
	if cache := os.Getenv("STELLA_BENCH_CACHE"); cache != "" {
		dir = filepath.Join(cache, strconv.Itoa(runs))
		if _, err := os.Stat(filepath.Join(dir, "whole")); err == nil {
			return few, &lab{home: filepath.Join(dir, "site")}, nil
		}
		removeAll(dir)
	}
	begun := time.Now()
	if many, err = make(dir, runs); err != nil {
		return nil, nil, err
	}
	e.note("the store of %d runs took %s to make", runs, time.Since(begun).Round(time.Second))
	return few, many, os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
}

// benchScale compares runs of two sites, one with many ended runs.
func benchScale(runs int) func(*env) (work, error) {
	return func(e *env) (work, error) {
		const n, clients = 2048, 16
		few, many, err := twoSites(e, runs)
		if err != nil {
			return work{}, err
		}
		a, err := many.open(null{}, clients)
		if err != nil {
			return work{}, err
		}
		b, err := few.open(null{}, clients)
		if err != nil {
			return work{}, errors.Join(err, a.close())
		}
		if fi, err := os.Stat(filepath.Join(many.home, "ledger.db")); err == nil {
			e.note("its ledger.db has %.1f GiB, %d entries", float64(fi.Size())/(1<<30), a.size())
		}
		one := func(o *open) func() error {
			return func() error { return spread(clients, n, func(int) error { return o.run("bench") }) }
		}
		return work{ours: one(a), theirs: one(b), close: func() error { return errors.Join(a.close(), b.close()) }}, nil
	}
}

// written is how many bytes this process has caused to be written to disk.
func written() int64 {
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// benchGrowth measures what an entry costs in bytes, at several lengths of the
// ledger: one client, so that nothing is shared.
func benchGrowth(e *env) (work, error) {
	const n = 200 // runs that are measured
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	if err := l.oneStep(e.dir, []byte("#!/bin/true\n")); err != nil {
		return work{}, err
	}
	var first, last float64
	have := 0
	for _, entries := range []int{100, 1000, 10_000, 100_000} {
		if want := entries / entriesOfRun; want > have {
			if err := l.fill(want - have); err != nil {
				return work{}, err
			}
			have = want
		}
		x, err := l.open(null{}, 2)
		if err != nil {
			return work{}, err
		}
		size, bytes := x.size(), written()
		err = spread(1, n, func(int) error { return x.run("bench") })
		changes := float64(x.size() - size)
		per := float64(written()-bytes) / changes
		e.note("with %6d entries: %.0f bytes written an entry; ledger.db has %.0f for each", size, per, float64(fileSize(l.home))/float64(x.size()))
		if err = errors.Join(err, x.close()); err != nil {
			return work{}, err
		}
		if first == 0 {
			first = per
		}
		last, have = per, have+n
	}
	return work{measured: func() (ours, theirs time.Duration, err error) {
		return time.Duration(last) * time.Nanosecond, time.Duration(first) * time.Nanosecond, nil
	}}, nil
}

func fileSize(home string) int64 {
	fi, err := os.Stat(filepath.Join(home, "ledger.db"))
	if err != nil {
		return 0
	}
	return fi.Size()
}

// benchIdle measures the memory of stella's daemon when it has nothing to do.
func benchIdle(e *env) (work, error) {
	one := func(dir string, n int) (float64, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		l, err := newLab(dir)
		if err != nil {
			return 0, err
		}
		if err := errors.Join(l.oneStep(dir, []byte("#!/bin/true\n")), l.fill(n)); err != nil {
			return 0, err
		}
		d, err := l.real(e)
		if err != nil {
			return 0, err
		}
		time.Sleep(2 * time.Second)
		mib := d.anon()
		e.note("with %5d ended runs: %.1f MiB of anonymous memory (aim: at most 40)", n, mib)
		return mib, d.end()
	}
	few, err := one(filepath.Join(e.dir, "few"), 0)
	if err != nil {
		return work{}, err
	}
	many, err := one(filepath.Join(e.dir, "many"), 10_000)
	return work{measured: func() (ours, theirs time.Duration, _ error) {
		return time.Duration(many * 1e3), time.Duration(few * 1e3), nil
	}}, err
}
