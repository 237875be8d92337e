package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Warm implements [api.Cache]. What it reads stays with this process: manifests,
// what their signatures are worth, specs, digests of interpreters, expressions and
// schemas; programs stay with the machine, as long as it has memory to spare.
func (s *site) Warm(ctx context.Context, req api.WarmRequest) (api.WarmReport, error) {
	e := s.e
	recs, err := e.toWarm(req)
	if err != nil {
		return api.WarmReport{}, err
	}
	w := warming{
		e: e, out: api.WarmReport{DAGs: []api.WarmDAG{}, Kept: e.opt.Mode != ModeCommand},
		seen: map[string]bool{}, bundles: map[string]bool{}, schemas: map[string]bool{},
	}
	for _, rec := range recs {
		if err := w.dag(ctx, rec); err != nil {
			return w.out, dbError(err)
		}
	}
	w.out.Bundles, w.out.Schemas = len(w.bundles), len(w.schemas)
	return w.out, nil
}

// toWarm are the DAG versions that are meant.
func (e *Engine) toWarm(req api.WarmRequest) ([]store.DAGRecord, error) {
	switch {
	case req.Version != "" && req.DAGID == "":
		return nil, invalid("a version needs a DAG id")
	case req.Version != "":
		rec, err := e.db.DAG(req.DAGID, req.Version)
		return []store.DAGRecord{rec}, dbError(err)
	case req.DAGID != "":
		rec, err := e.findDAG(req.DAGID, "")
		return []store.DAGRecord{rec}, err
	}
	all, err := e.db.DAGs("")
	if err != nil {
		return nil, dbError(err)
	}
	var out []store.DAGRecord
	slices.SortFunc(all, byIDThenNewest)
	for _, rec := range all {
		if rec.Enabled && (len(out) == 0 || out[len(out)-1].DAGID != rec.DAGID) {
			out = append(out, rec)
		}
	}
	return out, nil
}

// warming is one pass over DAG versions.
type warming struct {
	e                      *Engine
	out                    api.WarmReport
	seen, bundles, schemas map[string]bool
}

// dag looks at one version, then at those that its steps start.
func (w *warming) dag(ctx context.Context, rec store.DAGRecord) error {
	if err := ctx.Err(); err != nil || w.seen[rec.Digest] {
		return err
	}
	w.seen[rec.Digest] = true
	x := api.WarmDAG{DAGID: rec.DAGID, Version: rec.Version, Digest: rec.Digest}
	err := w.ready(ctx, rec, &x)
	var why *api.Error
	switch {
	case err == nil:
		x.Ready = true
		w.out.Ready++
	case errors.As(dbError(err), &why) && why.Code != api.CodeInternal:
		x.Code, x.Hint, x.Faults = string(why.Code), why.Hint, why.Faults
		if len(x.Faults) == 0 {
			x.Faults = []string{why.Message}
		}
	default:
		return err
	}
	w.out.DAGs = append(w.out.DAGs, x)
	return w.below(ctx, rec)
}

// ready reads and judges what a version needs; the error is why it cannot be started.
func (w *warming) ready(ctx context.Context, rec store.DAGRecord, x *api.WarmDAG) error {
	if !rec.Enabled {
		return disabled(rec)
	}
	if _, err := w.e.sealed.Judge(rec.Digest); err != nil {
		return judged(rec.DAGID+" "+rec.Version, err)
	}
	d, _, err := w.e.dagSpec(rec.Digest)
	if err != nil {
		return err
	}
	p, err := w.e.newPlan(d, rec.Digest)
	if err != nil {
		return err
	}
	x.Steps = len(p.Steps)
	schemas, err := w.e.runner.Warm(d, p)
	if err != nil {
		return err
	}
	for _, sum := range schemas {
		w.schemas[sum] = true
	}
	for _, st := range p.Steps {
		if st.Plugin != nil {
			if err := w.program(ctx, st.Plugin.Digest); err != nil {
				return err
			}
		}
		for _, data := range st.Data {
			w.bundles[data.Digest] = true
		}
	}
	return nil
}

// program reads the files of a plugin.
func (w *warming) program(ctx context.Context, digest string) error {
	if w.bundles[digest] {
		return nil
	}
	w.bundles[digest] = true
	m, err := w.e.sealed.Manifest(digest)
	if err != nil {
		return err
	}
	for _, file := range m.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := w.e.sealed.Open(file.SHA256)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, f)
		f.Close()
		if err != nil {
			return err
		}
		w.out.Programs += n
	}
	return nil
}

// below looks at the versions that the steps of one start.
func (w *warming) below(ctx context.Context, rec store.DAGRecord) error {
	d, _, err := w.e.dagSpec(rec.Digest)
	if err != nil {
		return nil // it was said
	}
	for _, st := range runner.Order(d) {
		if st.DAG == "" {
			continue
		}
		id, version, _ := strings.Cut(st.DAG, "@")
		if sub, err := w.e.db.DAG(id, version); err == nil {
			if err := w.dag(ctx, sub); err != nil {
				return err
			}
		}
	}
	return nil
}
