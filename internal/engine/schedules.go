package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/schedule"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// maxCatchUp bounds how late a missed instant may still be started.
const maxCatchUp = 366 * 24 * time.Hour

// maxInstants bounds how many coming instants one answer lists.
const maxInstants = 1000

// AddSchedule adds a schedule, after checking all that a start would check of
// what it knows: a fault that is found at night is found too late.
func (s *site) AddSchedule(_ context.Context, req api.ScheduleRequest) (api.Schedule, error) {
	e := s.e
	add, canonical, err := s.addition(req)
	if err != nil {
		return api.Schedule{}, err
	}
	e.sched.mu.Lock()
	defer e.sched.mu.Unlock()
	e.gate.RLock() // the inputs are not given up before the entry names them
	defer e.gate.RUnlock()
	rec, err := e.db.Schedule(s.tenant, add.Name)
	if err == nil {
		return s.addedBefore(rec, add, req.Anchor != "")
	}
	if !store.IsNotFound(err) {
		return api.Schedule{}, dbError(err)
	}
	dag, err := e.findDAG(add.DAGID, add.Version)
	if err != nil {
		return api.Schedule{}, err
	}
	d, _, err := e.dagSpec(dag.Digest)
	if err != nil {
		return api.Schedule{}, dbError(err)
	}
	if err := runner.CheckInputs(d, canonical); err != nil {
		return api.Schedule{}, dbError(err)
	}
	if _, err := e.sealed.Put(canonical); err != nil {
		return api.Schedule{}, dbError(err)
	}
	rec, err = e.db.AddSchedule(s.actor, s.tenant, add)
	if errors.Is(err, store.ErrTooManySchedules) {
		return api.Schedule{}, &api.Error{Code: api.CodeConflict, Message: err.Error(), Hint: "stella orch schedule list"}
	}
	if err != nil {
		return api.Schedule{}, dbError(err)
	}
	e.sched.changed()
	return s.showSchedule(rec)
}

// addition checks a request and makes the entry of it, with its canonical inputs.
func (s *site) addition(req api.ScheduleRequest) (*ledger.ScheduleAddition, []byte, error) {
	if !manifests.ValidName(req.Name) {
		return nil, nil, invalid("the name of a schedule is [a-z0-9][a-z0-9.-]{0,62}, not %q", req.Name)
	}
	if err := checkStart(&api.StartRequest{DAGID: req.DAGID, Metadata: req.Metadata}); err != nil {
		return nil, nil, err
	}
	canonical, hash, err := runner.CanonicalInputs(req.Inputs)
	if err != nil {
		return nil, nil, &api.Error{Code: api.CodeInputsInvalid, Message: err.Error()}
	}
	if req.Overlap == "" {
		req.Overlap = api.OverlapSkip
	}
	switch {
	case !slices.Contains([]string{api.OverlapSkip, api.OverlapQueue, api.OverlapCancel, api.OverlapAllow}, req.Overlap):
		return nil, nil, invalid("overlap is skip, queue, cancel-running or allow, not %q", req.Overlap)
	case req.CatchUpMs < 0 || req.CatchUpMs > maxCatchUp.Milliseconds():
		return nil, nil, invalid("the catch-up window is 0 to %s", maxCatchUp)
	case req.EveryMs < 0 || req.EveryMs > schedule.MaxEvery.Milliseconds():
		return nil, nil, invalid("an interval is %s to %s", schedule.MinEvery, schedule.MaxEvery)
	}
	now := s.e.opt.Now()
	add := &ledger.ScheduleAddition{
		Name: req.Name, DAGID: req.DAGID, Version: req.Version, Cron: strings.Join(strings.Fields(req.Cron), " "), Zone: req.Zone,
		EveryMs: req.EveryMs, Anchor: req.Anchor, InputsHash: hash, CatchUpMs: req.CatchUpMs, Overlap: req.Overlap, Metadata: req.Metadata,
	}
	if add.EveryMs > 0 && add.Anchor == "" {
		add.Anchor = stamp.Format(now.Truncate(time.Second).Add(time.Duration(add.EveryMs) * time.Millisecond))
	}
	sched, err := parsed(add)
	if err != nil {
		return nil, nil, invalid("%v", err)
	}
	if sched.Next(now).IsZero() {
		return nil, nil, invalid("no instant of the schedule comes within five years")
	}
	return add, canonical, nil
}

// parsed is when a schedule fires.
func parsed(d *ledger.ScheduleAddition) (*schedule.Schedule, error) {
	spec := schedule.Spec{Cron: d.Cron, Zone: d.Zone, Every: time.Duration(d.EveryMs) * time.Millisecond}
	if d.Anchor != "" {
		var err error
		if spec.Anchor, err = stamp.Parse(d.Anchor); err != nil {
			return nil, err
		}
	}
	return schedule.New(spec)
}

// addedBefore answers an addition whose name is taken.
func (s *site) addedBefore(rec store.ScheduleRecord, add *ledger.ScheduleAddition, anchored bool) (api.Schedule, error) {
	have := rec.ScheduleAddition
	if !anchored && have.EveryMs == add.EveryMs {
		add.Anchor = have.Anchor // it was chosen when the schedule was added
	}
	var differs []string
	for _, f := range []struct{ name, have, want string }{
		{"dagId", have.DAGID, add.DAGID}, {"version", have.Version, add.Version}, {"cron", have.Cron, add.Cron}, {"zone", have.Zone, add.Zone},
		{"everyMs", fmt.Sprint(have.EveryMs), fmt.Sprint(add.EveryMs)}, {"anchor", have.Anchor, add.Anchor},
		{"inputsHash", have.InputsHash, add.InputsHash}, {"catchUpMs", fmt.Sprint(have.CatchUpMs), fmt.Sprint(add.CatchUpMs)},
		{"overlap", have.Overlap, add.Overlap},
	} {
		if f.have != f.want {
			differs = append(differs, fmt.Sprintf("%s is %q, it was %q", f.name, f.want, f.have))
		}
	}
	if !maps.Equal(have.Metadata, add.Metadata) {
		differs = append(differs, "the metadata differ")
	}
	if len(differs) == 0 {
		return s.showSchedule(rec)
	}
	return api.Schedule{}, &api.Error{
		Code: api.CodeConflict, Message: fmt.Sprintf("there is a schedule %s, and it is another: %s", add.Name, strings.Join(differs, "; ")),
		Faults: differs, Hint: "stella orch schedule remove " + add.Name + ", then add it",
	}
}

// ListSchedules lists the schedules of the tenant by name.
func (s *site) ListSchedules(_ context.Context, q api.ScheduleQuery) ([]api.Schedule, error) {
	if q.State != "" && !slices.Contains([]string{api.ScheduleActive, api.SchedulePaused, api.ScheduleStopped}, q.State) {
		return nil, invalid("a state is active, paused or stopped, not %q", q.State)
	}
	recs, err := s.e.db.Schedules(s.tenant)
	if err != nil {
		return nil, dbError(err)
	}
	out := []api.Schedule{}
	for _, rec := range recs {
		if q.DAGID != "" && rec.DAGID != q.DAGID {
			continue
		}
		shown, err := s.showSchedule(rec)
		if err != nil {
			return nil, err
		}
		if q.State == "" || q.State == shown.State {
			out = append(out, shown)
		}
	}
	return out, nil
}

// ShowSchedule shows one schedule with its inputs.
func (s *site) ShowSchedule(_ context.Context, name string) (api.ScheduleDetail, error) {
	rec, err := s.e.db.Schedule(s.tenant, name)
	if err != nil {
		return api.ScheduleDetail{}, dbError(err)
	}
	shown, err := s.showSchedule(rec)
	if err != nil {
		return api.ScheduleDetail{}, err
	}
	inputs, err := s.e.db.Blobs().Read(rec.InputsHash, runner.MaxInputsBytes)
	return api.ScheduleDetail{Schedule: shown, Inputs: json.RawMessage(inputs)}, dbError(err)
}

// NextInstants lists the coming instants of a schedule.
func (s *site) NextInstants(_ context.Context, name string, n int) ([]string, error) {
	if n < 0 || n > maxInstants {
		return nil, invalid("count is 1 to %d", maxInstants)
	}
	rec, err := s.e.db.Schedule(s.tenant, name)
	if err != nil {
		return nil, dbError(err)
	}
	sched, err := parsed(&rec.ScheduleAddition)
	if err != nil {
		return nil, internal(err)
	}
	out := []string{}
	for at := s.e.from(rec); len(out) < max(1, n); {
		if at = sched.Next(at); at.IsZero() {
			break
		}
		out = append(out, stamp.Format(at))
	}
	return out, nil
}

// from is the time after which instants of a schedule are still to come.
func (e *Engine) from(rec store.ScheduleRecord) time.Time {
	now := e.opt.Now()
	if cursor, err := stamp.Parse(rec.Cursor); err == nil && cursor.After(now) {
		return cursor
	}
	return now
}

// showSchedule says what a schedule is and does, and why it does not fire.
func (s *site) showSchedule(rec store.ScheduleRecord) (api.Schedule, error) {
	out := api.Schedule{
		ScheduleSpec: api.ScheduleSpec{
			Name: rec.Name, DAGID: rec.DAGID, Version: rec.Version, Cron: rec.Cron, Zone: rec.Zone, EveryMs: rec.EveryMs,
			Anchor: rec.Anchor, CatchUpMs: rec.CatchUpMs, Overlap: rec.Overlap, Metadata: rec.Metadata,
		},
		InputsHash: rec.InputsHash, State: api.ScheduleActive, Seq: rec.Added.Seq, AddedUTC: rec.Added.Time, AddedBy: rec.Added.Actor,
		Fired: rec.Fired, Skipped: rec.Skipped, LastUTC: rec.LastInstant, LastReason: rec.LastReason, LastErrorCode: rec.LastErrorCode,
		LastRunID: rec.LastRunID,
	}
	if rec.LastRunID != "" {
		run, err := s.e.db.Run(rec.LastRunID)
		if err != nil {
			return out, dbError(err)
		}
		out.LastRunStatus = string(run.Status)
	}
	if p := rec.Paused; p != nil {
		out.State, out.Why = api.SchedulePaused, fmt.Sprintf("paused by %s at %s", p.Actor, p.Time)
		if p.Reason != "" {
			out.Why += ": " + p.Reason
		}
		return out, nil
	}
	why, err := s.e.stopped(rec)
	if err != nil {
		return out, err
	}
	if why != "" {
		out.State, out.Why = api.ScheduleStopped, why
		return out, nil
	}
	sched, err := parsed(&rec.ScheduleAddition)
	if err != nil {
		return out, internal(err)
	}
	if next := sched.Next(s.e.from(rec)); !next.IsZero() {
		out.NextUTC = stamp.Format(next)
	}
	return out, nil
}

// stopped says why there is nothing that a schedule could start, "" where
// there is.
func (e *Engine) stopped(rec store.ScheduleRecord) (string, error) {
	_, err := e.findDAG(rec.DAGID, rec.Version)
	var known *api.Error
	if errors.As(err, &known) && (known.Code == api.CodeDAGDisabled || known.Code == api.CodeNotFound) {
		return known.Message, nil
	}
	return "", err
}

// schedulesHeld names the schedules of all tenants that disabling a DAG version
// stops, or that enabling it lets fire again; recs are the versions of the DAG.
func (s *site) schedulesHeld(id, version string, recs []store.DAGRecord) ([]string, error) {
	only := !slices.ContainsFunc(recs, func(r store.DAGRecord) bool { return r.Enabled && r.Version != version })
	all, err := s.e.db.Schedules("")
	if err != nil {
		return nil, dbError(err)
	}
	var names []string
	for _, rec := range all {
		if rec.DAGID != id || rec.Paused != nil || rec.Version != version && (rec.Version != "" || !only) {
			continue
		}
		if rec.Tenant == s.tenant {
			names = append(names, rec.Name)
		} else {
			names = append(names, rec.Tenant+"/"+rec.Name)
		}
	}
	return names, nil
}

// PauseSchedules keeps schedules from firing.
func (s *site) PauseSchedules(_ context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return s.switchSchedules(ledger.SchedulePaused, sel)
}

// ResumeSchedules lets them fire again.
func (s *site) ResumeSchedules(_ context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return s.switchSchedules(ledger.ScheduleResumed, sel)
}

// RemoveSchedules removes them. When it returns, none of them fires any more.
func (s *site) RemoveSchedules(_ context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return s.switchSchedules(ledger.ScheduleRemoved, sel)
}

func (s *site) switchSchedules(t ledger.Type, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	e := s.e
	out := api.ScheduleReport{DryRun: sel.DryRun, Changed: []api.Schedule{}}
	e.sched.mu.Lock() // not between an instant and the record of it
	defer e.sched.mu.Unlock()
	recs, err := s.selected(sel)
	if err != nil {
		return out, err
	}
	var names []string
	for _, rec := range recs {
		if paused := rec.Paused != nil; t == ledger.SchedulePaused && paused || t == ledger.ScheduleResumed && !paused {
			out.Unchanged++
			continue
		}
		names = append(names, rec.Name)
	}
	if !sel.DryRun {
		recs, err = e.db.SwitchSchedules(t, s.actor, s.tenant, clip(sel.Reason), names...)
		if err != nil {
			return out, dbError(err)
		}
		e.sched.changed()
	}
	for _, rec := range recs {
		if !slices.Contains(names, rec.Name) {
			continue
		}
		shown, err := s.showSchedule(rec)
		if err != nil {
			return out, err
		}
		out.Changed = append(out.Changed, shown)
	}
	return out, nil
}

// selected reads the schedules that a selection names.
func (s *site) selected(sel api.ScheduleSelection) ([]store.ScheduleRecord, error) {
	ways := 0
	for _, given := range []bool{sel.Name != "", sel.DAGID != "", sel.All} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return nil, invalid("name a schedule, a DAG, or all; one of the three")
	case sel.Version != "" && sel.DAGID == "":
		return nil, invalid("a version needs its DAG")
	case sel.Name != "":
		rec, err := s.e.db.Schedule(s.tenant, sel.Name)
		return []store.ScheduleRecord{rec}, dbError(err)
	}
	recs, err := s.e.db.Schedules(s.tenant)
	return slices.DeleteFunc(recs, func(r store.ScheduleRecord) bool {
		return !sel.All && (r.DAGID != sel.DAGID || sel.Version != "" && r.Version != sel.Version)
	}), dbError(err)
}
