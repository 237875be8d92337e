package server_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stellarun/stella/server/api"
)

func (f *fake) DisableDAG(_ context.Context, id, version string, req api.DAGSwitch) (api.DAGSwitched, error) {
	if id != "audit" {
		return api.DAGSwitched{}, notFound("DAG " + id)
	}
	return api.DAGSwitched{DAG: api.DAG{DAGID: id, Version: version, SwitchReason: req.Reason}, DryRun: req.DryRun, ActiveRuns: 2}, nil
}

func (f *fake) EnableDAG(_ context.Context, id, version string, req api.DAGSwitch) (api.DAGSwitched, error) {
	return api.DAGSwitched{DAG: api.DAG{DAGID: id, Version: version, SwitchReason: req.Reason, Enabled: true}, Schedules: []string{"nightly"}}, nil
}

func (f *fake) AddSchedule(_ context.Context, req api.ScheduleRequest) (api.Schedule, error) {
	if req.Cron == "bad" {
		return api.Schedule{}, &api.Error{Code: api.CodeInvalid, Message: "cron"}
	}
	return api.Schedule{ScheduleSpec: req.ScheduleSpec, State: "active", Seq: 3, InputsHash: string(req.Inputs)}, nil
}

func (f *fake) ListSchedules(_ context.Context, q api.ScheduleQuery) ([]api.Schedule, error) {
	if q.State == "paused" {
		return nil, nil
	}
	return []api.Schedule{{ScheduleSpec: api.ScheduleSpec{Name: "nightly", DAGID: q.DAGID}, State: q.State, Why: "<&>"}}, nil
}

func (f *fake) ShowSchedule(_ context.Context, name string) (api.ScheduleDetail, error) {
	if name == "nope" {
		return api.ScheduleDetail{}, notFound("schedule " + name)
	}
	return api.ScheduleDetail{Schedule: api.Schedule{ScheduleSpec: api.ScheduleSpec{Name: name}}, Inputs: json.RawMessage(`{"a":"<&>"}`)}, nil
}

func (f *fake) NextInstants(_ context.Context, name string, count int) ([]string, error) {
	return []string{name, fmt.Sprint(count)}, nil
}

func (f *fake) PauseSchedules(_ context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return report("pause", sel), nil
}

func (f *fake) ResumeSchedules(_ context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	return report("resume", sel), nil
}

func (f *fake) RemoveSchedules(_ context.Context, sel api.ScheduleSelection) (api.ScheduleReport, error) {
	if sel.Name == "nope" {
		return api.ScheduleReport{}, notFound("schedule " + sel.Name)
	}
	return report("remove", sel), nil
}

// report says what was asked for.
func report(verb string, sel api.ScheduleSelection) api.ScheduleReport {
	return api.ScheduleReport{DryRun: sel.DryRun, Unchanged: 2, Changed: []api.Schedule{{
		ScheduleSpec: api.ScheduleSpec{Name: verb + sel.Name, DAGID: sel.DAGID, Version: sel.Version}, Why: fmt.Sprint(sel.Reason, sel.All),
	}}}
}
