package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/schedule"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// maxSleep bounds how long the scheduler sleeps. It is not there to look for
// work: a timer does not notice that the clock was set, or that the machine
// slept, and an instant that has come by that is not to wait for hours.
const maxSleep = time.Minute

// scheduler starts runs at the instants of schedules. One goroutine, in a
// daemon, deals with all of them: it sleeps until the next instant, until a
// schedule or a DAG version changes, or, where a schedule waits for the end of a
// run, until the ledger grows.
type scheduler struct {
	e    *Engine
	wake chan struct{} // holds one: schedules or DAG versions have changed

	// mu is held from the decision about an instant until it is recorded, and
	// while schedules are changed; before the gate of the engine.
	mu sync.Mutex

	armed []*armed // by tenant and name; of the one goroutine
}

// armed is what the scheduler remembers of a schedule between two looks at it.
type armed struct {
	tenant, name string
	seq          int64 // of the entry that sched is made from
	sched        *schedule.Schedule
	at           time.Time // when to look at it again; zero: not because of the time
	behind       string    // the run that it waits for
	halted       bool      // there was no version to start when it was looked at
	stopped      time.Time // until when that was so
}

func newScheduler(e *Engine) *scheduler {
	return &scheduler{e: e, wake: make(chan struct{}, 1)}
}

// changed makes the scheduler look at all schedules.
func (s *scheduler) changed() {
	select {
	case s.wake <- struct{}{}:
	default: // it has not looked yet since somebody called last
	}
}

// run deals with instants until ctx is done.
func (s *scheduler) run(ctx context.Context) {
	s.changed()
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	for {
		grown, _ := s.e.db.Changed() // before looking, so that no end of a run is missed
		next, waiting := s.settle(ctx)
		timer.Reset(s.untilNext(next))
		if !waiting {
			grown = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-s.e.stop: // nothing more is accepted
			return
		case <-s.wake:
			s.load()
		case <-timer.C:
		case <-grown:
		}
	}
}

func (s *scheduler) untilNext(next time.Time) time.Duration {
	if next.IsZero() {
		return maxSleep
	}
	return max(0, min(next.Sub(s.e.opt.Now()), maxSleep))
}

// load takes over which schedules there are, and looks at all of them.
func (s *scheduler) load() {
	now := s.e.opt.Now()
	recs, err := s.e.db.Schedules("")
	if err != nil {
		s.e.opt.Log.Error("the schedules cannot be read", "error", err)
		return
	}
	known := make(map[string]*armed, len(s.armed))
	for _, a := range s.armed {
		known[a.tenant+"/"+a.name] = a
	}
	s.armed = s.armed[:0:0]
	for _, rec := range recs {
		a := known[rec.Tenant+"/"+rec.Name]
		if a == nil {
			a = &armed{tenant: rec.Tenant, name: rec.Name}
		}
		a.at, a.behind = now, ""
		s.armed = append(s.armed, a)
	}
}

// settle deals with everything that is due, a step of each schedule at a time,
// and says when the next instant comes and whether a schedule waits for a run.
func (s *scheduler) settle(ctx context.Context) (next time.Time, waiting bool) {
	for busy := true; busy && ctx.Err() == nil; {
		busy = false
		for _, a := range s.armed {
			if s.due(a) && s.step(ctx, a) {
				busy = true
			}
		}
	}
	for _, a := range s.armed {
		waiting = waiting || a.behind != ""
		if !a.at.IsZero() && (next.IsZero() || a.at.Before(next)) {
			next = a.at
		}
	}
	return next, waiting
}

// due says whether a schedule is to be looked at.
func (s *scheduler) due(a *armed) bool {
	if a.behind != "" {
		run, err := s.e.db.Run(a.behind)
		return err != nil || run.Status.Ended()
	}
	return !a.at.IsZero() && !a.at.After(s.e.opt.Now())
}

// step does one thing about a schedule, and says whether there may be more to
// do at once.
func (s *scheduler) step(ctx context.Context, a *armed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.e.opt.Now()
	more, err := s.decided(ctx, a, now)
	if err != nil {
		if ctx.Err() == nil {
			s.e.opt.Log.Error("a schedule cannot be dealt with now", "tenant", a.tenant, "schedule", a.name, "error", err)
		}
		a.at, a.behind = now.Add(maxSleep), ""
		return false
	}
	if more {
		a.at = now
	}
	return more
}

// decided looks at a schedule as it is now, and does what it asks for.
func (s *scheduler) decided(ctx context.Context, a *armed, now time.Time) (bool, error) {
	a.at, a.behind = time.Time{}, ""
	rec, err := s.e.db.Schedule(a.tenant, a.name)
	if store.IsNotFound(err) || err == nil && rec.Paused != nil {
		return false, nil // a change wakes us
	}
	if err != nil {
		return false, err
	}
	if err := a.take(rec); err != nil {
		return false, err
	}
	why, err := s.e.stopped(rec)
	if err != nil {
		return false, err
	}
	if a.halt(why != "", now); a.halted {
		return false, nil // a change wakes us
	}
	cursor, err := stamp.Parse(rec.Cursor)
	if err != nil {
		return false, err
	}
	first := a.sched.Next(cursor)
	if first.IsZero() || first.After(now) {
		a.at = first
		return false, nil
	}
	// After a crash between a start and its record the token finds the run.
	run, err := s.e.db.RunByToken(rec.Tenant, scheduleToken(rec.Name, first))
	if err == nil {
		return true, s.record(rec, started(first, run.RunID))
	}
	if !store.IsNotFound(err) {
		return false, err
	}
	sit := situation{now: now, sched: a.sched, rec: rec, cursor: cursor, stopped: a.stopped}
	if sit.began, sit.ended, err = s.lastRun(rec); err != nil {
		return false, err
	}
	return s.carryOut(ctx, a, rec, decide(sit))
}

// take parses a schedule when it is new or another one of its name.
func (a *armed) take(rec store.ScheduleRecord) error {
	if a.sched != nil && a.seq == rec.Added.Seq {
		return nil
	}
	sched, err := parsed(&rec.ScheduleAddition)
	if err != nil {
		return err
	}
	a.sched, a.seq, a.halted, a.stopped = sched, rec.Added.Seq, false, time.Time{}
	return nil
}

// halt notes that there is no version to start, or that there is one again.
func (a *armed) halt(halted bool, now time.Time) {
	if a.halted && !halted {
		a.stopped = now
	}
	a.halted = halted
}

// lastRun says when the newest run of a schedule began and ended; zero where
// there is none, and where it has not.
func (s *scheduler) lastRun(rec store.ScheduleRecord) (began, ended time.Time, err error) {
	if rec.LastRunID == "" {
		return began, ended, nil
	}
	run, err := s.e.db.Run(rec.LastRunID)
	if err == nil {
		began, err = stamp.Parse(run.CreatedUTC)
	}
	if err == nil && run.Status.Ended() {
		ended, err = stamp.Parse(run.EndedUTC)
	}
	return began, ended, err
}

func (s *scheduler) carryOut(ctx context.Context, a *armed, rec store.ScheduleRecord, m move) (bool, error) {
	switch {
	case m.skip != nil:
		m.skip.Name = rec.Name
		return true, s.record(rec, m.skip)
	case m.waits():
		a.behind = rec.LastRunID
		if m.cancel {
			return false, s.cancelRunning(ctx, rec)
		}
		return false, nil
	}
	d, err := s.start(ctx, rec, m.start)
	if err != nil || d == nil {
		return err == nil, err
	}
	d.Name = rec.Name
	return true, s.record(rec, d)
}

// cancelRunning asks for the end of the run that stands in the way.
func (s *scheduler) cancelRunning(ctx context.Context, rec store.ScheduleRecord) error {
	run, err := s.e.db.Run(rec.LastRunID)
	if err != nil || run.Status.Ended() || run.CancelRequested() {
		return err
	}
	_, err = s.as(rec).CancelRun(ctx, run.RunID, "the next instant of its schedule has come")
	var known *api.Error
	if errors.As(err, &known) && known.Code == api.CodeRunEnded {
		return nil
	}
	return err
}

// as is the site as a schedule acts in it, for who added it and who lets it fire.
func (s *scheduler) as(rec store.ScheduleRecord) *site {
	behalf := []string{rec.Added.Actor}
	if by := rec.Resumed; by != nil && state.Person(by.Actor) != state.Person(rec.Added.Actor) {
		behalf = append(behalf, by.Actor)
	}
	return &site{e: s.e, actor: "schedule:" + rec.Name, tenant: rec.Tenant, behalf: behalf}
}

// start starts the run of an instant, and says what came of it: nil if it is
// to be looked at anew.
func (s *scheduler) start(ctx context.Context, rec store.ScheduleRecord, at time.Time) (*ledger.ScheduleFiring, error) {
	inputs, err := s.e.db.Blobs().Read(rec.InputsHash, runner.MaxInputsBytes)
	if err != nil {
		return nil, err
	}
	res, err := s.as(rec).start(ctx, api.StartRequest{
		DAGID: rec.DAGID, Version: rec.Version, Inputs: inputs, RunToken: scheduleToken(rec.Name, at), Metadata: rec.Metadata,
	})
	if err == nil {
		return started(at, res.Run.RunID), nil
	}
	var known *api.Error
	switch {
	case !errors.As(err, &known) || passes(known):
		return nil, err
	case known.Code == api.CodeDAGDisabled:
		return nil, nil // meanwhile
	}
	d := firing(at, at, 1, skipRefused)
	d.ErrorCode, d.Message = string(known.Code), clip(known.Message)
	return d, nil
}

// passes says whether an error is about the process or the machine, so that the
// same start may succeed a little later.
func passes(e *api.Error) bool {
	switch e.Code {
	case api.CodeStopping, api.CodeNotExecuting, api.CodeLocked, api.CodeNoSpace, api.CodeClockBehind, api.CodeClockAhead,
		api.CodeNotWritable, api.CodeInternal:
		return true
	}
	return false
}

func started(at time.Time, runID string) *ledger.ScheduleFiring {
	return &ledger.ScheduleFiring{Instant: stamp.Format(at), Count: 1, RunID: runID}
}

// record writes what came of instants.
func (s *scheduler) record(rec store.ScheduleRecord, d *ledger.ScheduleFiring) error {
	d.Name = rec.Name
	_, err := s.e.db.RecordFiring("schedule:"+rec.Name, rec.Tenant, rec.Added.Seq, d)
	if err == nil && d.RunID == "" {
		s.e.opt.Log.Warn("a schedule started nothing", "tenant", rec.Tenant, "schedule", rec.Name, "reason", d.Reason,
			"instants", d.Count, "last", d.Instant, "code", d.ErrorCode)
	}
	return err
}

// scheduleToken is the run token of an instant. Callers cannot use it.
func scheduleToken(name string, at time.Time) string {
	return "stella:sched:" + name + ":" + stamp.Format(at)
}
