package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// ListCache implements [api.Cache].
func (s *site) ListCache(_ context.Context, q api.CacheQuery) ([]api.CacheEntry, error) {
	recs, err := s.e.db.CacheRecords(s.tenant, q.DAGID)
	if err != nil {
		return nil, dbError(err)
	}
	now := s.e.opt.Now()
	out := []api.CacheEntry{}
	for _, r := range recs {
		until, err := stamp.Parse(r.ExpiresUTC)
		if err != nil || !until.After(now) {
			continue // it goes with one of the next that come
		}
		out = append(out, api.CacheEntry{
			Key: r.Key, DAGID: r.DAGID, RunID: r.RunID, StepID: r.StepID, Attempt: r.Attempt, InputsHash: r.InputsHash,
			OutputsHash: r.OutputsHash, Artifacts: len(r.Artifacts), StoredUTC: r.StoredUTC, ExpiresUTC: r.ExpiresUTC,
			TTLMs: until.Sub(now).Milliseconds(), Hits: r.Hits,
		})
	}
	slices.SortFunc(out, func(a, b api.CacheEntry) int { return strings.Compare(b.StoredUTC, a.StoredUTC) })
	return out, nil
}

// ClearCache implements [api.Cache].
func (s *site) ClearCache(_ context.Context, req api.CacheClearing) (api.CacheCleared, error) {
	out := api.CacheCleared{DAGID: req.DAGID, DryRun: req.DryRun}
	recs, err := s.e.db.CacheRecords(s.tenant, req.DAGID)
	if err != nil {
		return out, dbError(err)
	}
	if out.Count = len(recs); req.DryRun || out.Count == 0 {
		return out, nil
	}
	out.Count, err = s.e.db.ClearCache(s.actor, s.tenant, ledger.CacheClearing{DAGID: req.DAGID, Reason: clip(req.Reason)})
	return out, dbError(err)
}

// forgetRefused forgets what was made by bundles that trust refuses now, with all
// that is kept of their DAGs (THREATS 15). A hit is judged anew anyway; this leaves
// nothing behind that only waits for its time to be over.
func (e *Engine) forgetRefused(refused []api.RefusedBundle) error {
	if len(refused) == 0 {
		return nil
	}
	why := map[string]string{}
	for _, b := range refused {
		why[b.Digest] = b.Reason
	}
	recs, err := e.db.CacheRecords("", "")
	if err != nil {
		return err
	}
	type part struct{ tenant, dag string }
	done := map[part]bool{}
	for _, rec := range recs {
		if done[part{rec.Tenant, rec.DAGID}] {
			continue
		}
		reason, err := e.refusedMaker(rec, why)
		if err != nil {
			return err
		}
		if reason == "" {
			continue
		}
		done[part{rec.Tenant, rec.DAGID}] = true
		d := ledger.CacheClearing{DAGID: rec.DAGID, Reason: "trust does not allow any more what made it: " + reason}
		if _, err := e.db.ClearCache("system:engine", rec.Tenant, d); err != nil {
			return err
		}
	}
	return nil
}

// refusedMaker says why what made an entry is refused, "" if it is not.
func (e *Engine) refusedMaker(rec store.CacheRecord, why map[string]string) (string, error) {
	run, err := e.db.Run(rec.RunID)
	if err != nil {
		return "", err
	}
	p, err := e.plan(run.PlanHash)
	if err != nil {
		return "", err
	}
	made := []string{run.DAGDigest}
	id, _, _ := strings.Cut(rec.StepID, ".")
	if st := p.Step(id); st != nil && st.Plugin != nil {
		made = append(made, st.Plugin.Digest)
		for _, data := range st.Data {
			made = append(made, data.Digest)
		}
	}
	for _, digest := range made {
		if why[digest] != "" {
			return why[digest], nil
		}
	}
	return "", nil
}
