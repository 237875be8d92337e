package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// DisableDAG keeps a version from being started. With the version before it
// enabled, that is a rollback: unpinned starts take that one from then on.
func (s *site) DisableDAG(_ context.Context, id, version string, req api.DAGSwitch) (api.DAGSwitched, error) {
	if req.Reason == "" {
		return api.DAGSwitched{}, invalid("disabling a DAG version needs a reason")
	}
	return s.switchDAG(id, version, req, false)
}

// EnableDAG lets a version be started again.
func (s *site) EnableDAG(_ context.Context, id, version string, req api.DAGSwitch) (api.DAGSwitched, error) {
	return s.switchDAG(id, version, req, true)
}

func (s *site) switchDAG(id, version string, req api.DAGSwitch, enable bool) (api.DAGSwitched, error) {
	e := s.e
	e.gate.Lock() // no start that has chosen the version is still to be written
	defer e.gate.Unlock()
	rec, err := e.db.DAG(id, version)
	if err != nil {
		return api.DAGSwitched{}, dbError(err)
	}
	out := api.DAGSwitched{DryRun: req.DryRun, Changed: rec.Enabled != enable, Schedules: []string{}}
	if out.ActiveRuns, err = e.activeRunsOf(id, version); err != nil {
		return out, err
	}
	recs, err := e.db.DAGs(id)
	if err != nil {
		return out, dbError(err)
	}
	after := slices.Clone(recs)
	for i := range after {
		if after[i].Version == version {
			after[i].Enabled = enable
		}
	}
	if next, ok := newestEnabled(after); ok {
		out.Next = next.Version
	}
	if out.Changed {
		if out.Schedules, err = s.schedulesHeld(id, version, recs); err != nil {
			return out, err
		}
	}
	if !req.DryRun {
		rec, out.Changed, err = e.db.SwitchDAG(s.actor, enable, &ledger.DAGSwitch{DAGID: id, Version: version, Reason: clip(req.Reason)})
		if err != nil {
			return out, dbError(err)
		}
		e.sched.changed()
	}
	d, _, err := e.dagSpec(rec.Digest)
	if err != nil {
		return out, dbError(err)
	}
	out.DAG = showDAG(rec, d.Description)
	return out, nil
}

// activeRunsOf counts the runs of a DAG version that have not ended, of all
// tenants.
func (e *Engine) activeRunsOf(id, version string) (int, error) {
	runs, err := e.db.ActiveRuns()
	if err != nil {
		return 0, dbError(err)
	}
	n := 0
	for _, r := range runs {
		if r.DAGID == id && r.DAGVersion == version {
			n++
		}
	}
	return n, nil
}

// newestEnabled picks the highest version that is enabled.
func newestEnabled(recs []store.DAGRecord) (store.DAGRecord, bool) {
	enabled := slices.DeleteFunc(slices.Clone(recs), func(r store.DAGRecord) bool { return !r.Enabled })
	if len(enabled) == 0 {
		return store.DAGRecord{}, false
	}
	return slices.MinFunc(enabled, byIDThenNewest), true
}

// findDAG finds a version that may be started, or with "" the highest enabled
// one.
func (e *Engine) findDAG(id, version string) (store.DAGRecord, error) {
	if version != "" {
		rec, err := e.db.DAG(id, version)
		if err != nil {
			return rec, dbError(err)
		}
		if !rec.Enabled {
			return rec, disabled(rec)
		}
		return rec, nil
	}
	recs, err := e.db.DAGs(id)
	if err != nil {
		return store.DAGRecord{}, dbError(err)
	}
	if rec, ok := newestEnabled(recs); ok {
		return rec, nil
	}
	if name, version, ok := strings.Cut(id, "@"); ok && len(recs) == 0 {
		return store.DAGRecord{}, notFound("the id of a DAG has no version in it: --dag-id %s --version %s", name, version)
	}
	if len(recs) == 0 {
		return store.DAGRecord{}, notFound("there is no enabled version of the DAG %q; see: stella orch dag list", id)
	}
	return store.DAGRecord{}, disabled(slices.MinFunc(recs, byIDThenNewest))
}

// disabled says that a version may not be started, who decided so, and why.
func disabled(rec store.DAGRecord) *api.Error {
	out := &api.Error{
		Code: api.CodeDAGDisabled, Message: fmt.Sprintf("%s %s is disabled", rec.DAGID, rec.Version),
		Hint: fmt.Sprintf("stella orch dag enable %s@%s", rec.DAGID, rec.Version),
	}
	if w := rec.Switched; w != nil {
		out.Message += fmt.Sprintf(" by %s since %s: %s", w.Actor, w.Time, w.Reason)
	}
	return out
}
