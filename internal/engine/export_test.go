package engine

import (
	"context"
	"slices"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// Nudge writes entries of a run that change nothing.
func Nudge(e *Engine, runID string, n int) error {
	_, err := e.db.Commit(runID, slices.Repeat([]state.Proposal{{Type: ledger.RunNudged, Actor: "x", Data: &ledger.Nudge{}}}, n)...)
	return err
}

// TailBack are the newest entries that match, among so many where all are looked at.
func TailBack(e *Engine, q api.LedgerQuery, limit int, most int64) ([]api.LedgerLine, error) {
	return (&site{e: e, tenant: e.site.DefaultTenant}).tailBack(context.Background(), q, limit, most)
}

// StartForSchedule starts what a schedule would start at an instant, and
// records nothing of the schedule: a kill in between leaves that.
func StartForSchedule(e *Engine, name string, at time.Time, req api.StartRequest) (api.StartResult, error) {
	req.RunToken = scheduleToken(name, at)
	s := &site{e: e, actor: "schedule:" + name, tenant: e.site.DefaultTenant}
	return s.start(context.Background(), req)
}
