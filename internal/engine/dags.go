package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// PublishDAG makes the DAG of an admitted bundle startable.
func (s *site) PublishDAG(_ context.Context, ref string) (api.DAG, error) {
	e := s.e
	e.gate.RLock() // what the DAG needs is not given up before the entry names it
	defer e.gate.RUnlock()
	rec, err := e.bundleOf(ref)
	if err != nil {
		return api.DAG{}, err
	}
	if err := here(rec); err != nil {
		return api.DAG{}, err
	}
	d, text, err := e.dagSpec(rec.Digest)
	if err != nil {
		return api.DAG{}, faults(api.CodeDAGInvalid, ref+": the spec is not valid", err)
	}
	if _, err := e.db.DAG(d.ID, d.Version); store.IsNotFound(err) { // what was published once may have keys that are refused now
		if _, err := manifests.ParseDAG(ref, text); err != nil {
			return api.DAG{}, faults(api.CodeDAGInvalid, ref+": the spec is not valid", err)
		}
	}
	if _, err := e.sealed.Judge(rec.Digest); err != nil {
		return api.DAG{}, judged(ref, err)
	}
	v := rec.Admission.Verdict
	if err := named(d, v.Name, v.Version); err != nil {
		return api.DAG{}, err
	}
	if err := e.plannable(d, rec.Digest); err != nil {
		return api.DAG{}, err
	}
	out, err := e.db.PublishDAG(s.actor, &ledger.DAGPublication{
		DAGID: d.ID, Version: d.Version, Digest: rec.Digest, Spec: runner.Hash(text), Publisher: v.Publisher,
	})
	e.sched.changed() // a schedule may have waited for a version
	if errors.Is(err, store.ErrDAGTaken) {
		return api.DAG{}, &api.Error{Code: api.CodeDAGIDTaken, Message: err.Error(), Hint: "a fix is a new version of the publisher's own DAG"}
	}
	if err != nil {
		return api.DAG{}, dbError(err)
	}
	return showDAG(out, d.Description), nil
}

// here refuses a bundle whose contents were given up.
func here(rec store.BundleRecord) error {
	if rec.Removed == 0 {
		return nil
	}
	return &api.Error{
		Code:    api.CodeConflict,
		Message: fmt.Sprintf("the contents of %s were given up by a collection, entry %d", rec.Ref(), rec.Removed),
		Hint:    "bring them back: stella bundle import of the same bundle",
	}
}

// plannable reports every fault that would keep a DAG from being started.
func (e *Engine) plannable(d *manifests.DAG, digest string) error {
	all := runner.Validate(d)
	var plan *runner.PlanError
	if _, err := e.newPlan(d, digest); errors.As(err, &plan) {
		all = append(all, plan.Faults...)
	} else if err != nil {
		return dbError(err)
	}
	if len(all) > 0 {
		return faults(api.CodeDAGInvalid, "the DAG cannot be started", all)
	}
	return nil
}

func showDAG(r store.DAGRecord, description string) api.DAG {
	out := api.DAG{
		DAGID: r.DAGID, Version: r.Version, Digest: r.Digest, Publisher: r.Publisher, Description: description,
		Enabled: r.Enabled, PublishedUTC: r.Time, Seq: r.Seq,
	}
	if w := r.Switched; w != nil {
		out.SwitchedUTC, out.SwitchedBy, out.SwitchReason = w.Time, w.Actor, w.Reason
	}
	return out
}

// ListDAGs lists the published versions, by id and then newest version first.
func (s *site) ListDAGs(_ context.Context, q api.DAGQuery) ([]api.DAG, error) {
	recs, err := s.e.db.DAGs(q.DAGID)
	if err != nil {
		return nil, dbError(err)
	}
	slices.SortFunc(recs, byIDThenNewest)
	out := []api.DAG{}
	for _, r := range recs {
		if q.Active && !r.Enabled {
			continue
		}
		d, _, err := s.e.dagSpec(r.Digest)
		if err != nil {
			return nil, dbError(err)
		}
		out = append(out, showDAG(r, d.Description))
	}
	return out, nil
}

func byIDThenNewest(a, b store.DAGRecord) int {
	if c := strings.Compare(a.DAGID, b.DAGID); c != 0 {
		return c
	}
	return manifests.CompareVersions(b.Version, a.Version)
}

// ShowDAG shows one version, enabled or not, or the highest enabled one.
func (s *site) ShowDAG(_ context.Context, id, version string) (api.DAGDetail, error) {
	rec, err := s.e.db.DAG(id, version)
	if version == "" {
		rec, err = s.e.findDAG(id, "")
	}
	if err != nil {
		return api.DAGDetail{}, dbError(err)
	}
	d, text, err := s.e.dagSpec(rec.Digest)
	if err != nil {
		return api.DAGDetail{}, dbError(err)
	}
	return api.DAGDetail{DAG: showDAG(rec, d.Description), Spec: string(text)}, nil
}
