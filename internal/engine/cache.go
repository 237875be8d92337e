package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
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
