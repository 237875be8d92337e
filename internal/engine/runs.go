package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// StartRun starts a run, or finds the one that the same start has made before.
func (s *site) StartRun(ctx context.Context, req api.StartRequest) (api.StartResult, error) {
	if strings.HasPrefix(req.RunToken, "stella:") {
		return api.StartResult{}, invalid("run tokens that begin with stella: are reserved")
	}
	return s.start(ctx, req)
}

// start is StartRun for any token. The token is looked up before anything else
// is looked at.
func (s *site) start(ctx context.Context, req api.StartRequest) (api.StartResult, error) {
	e := s.e
	canonical, hash, err := runner.CanonicalInputs(req.Inputs)
	if err != nil {
		return api.StartResult{}, &api.Error{Code: api.CodeInputsInvalid, Message: err.Error()}
	}
	named := req.RunToken != "" && !strings.HasPrefix(req.RunToken, "stella:")
	if err := checkStart(&req); err != nil {
		return api.StartResult{}, err
	}
	run, err := e.db.RunByToken(s.tenant, req.RunToken)
	switch {
	case err == nil:
		return s.again(ctx, run, req, hash)
	case !store.IsNotFound(err):
		return api.StartResult{}, dbError(err)
	}
	e.gate.RLock() // what the plan needs is not given up before the run names it
	defer e.gate.RUnlock()
	if err := s.accepts(named); err != nil {
		return api.StartResult{}, err
	}
	start, err := s.plan(req)
	if err != nil {
		return api.StartResult{}, err
	}
	start.Inputs = canonical
	run, err = e.runner.StartRun(ctx, start)
	if errors.Is(err, store.ErrTokenTaken) { // somebody was faster
		return s.again(ctx, run, req, hash)
	}
	if err != nil {
		return api.StartResult{}, dbError(err)
	}
	return api.StartResult{Run: run}, nil
}

// maxPriority bounds the priority of a run, as that of a step is bounded.
const maxPriority = 1_000_000

// checkStart checks the fields of a start and fills in what the caller left
// out.
func checkStart(req *api.StartRequest) error {
	switch {
	case req.DAGID == "":
		return invalid("a start needs a DAG id")
	case req.RunToken == "":
		req.RunToken = runner.NewRunToken(time.Now())
	case !manifests.ValidRunToken(strings.TrimPrefix(req.RunToken, "stella:")): // our own have the prefix
		return invalid("a run token has 1 to 128 printable ASCII characters without spaces")
	}
	if req.TraceID == "" {
		req.TraceID = runner.NewTraceID()
	}
	if !isHex(req.TraceID, 32) {
		return invalid("a trace id has 32 hex digits")
	}
	if req.Priority < -maxPriority || req.Priority > maxPriority {
		return invalid("a priority is %d to %d", -maxPriority, maxPriority)
	}
	n := 0
	for k, v := range req.Metadata {
		n += len(k) + len(v)
	}
	if len(req.Metadata) > 64 || n > 16<<10 {
		return invalid("metadata has at most 64 keys and 16 KiB")
	}
	return nil
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// plan finds the DAG version and freezes what it runs.
func (s *site) plan(req api.StartRequest) (runner.Start, error) {
	e := s.e
	start := runner.Start{
		Tenant: s.tenant, Actor: s.actor, RunToken: req.RunToken, TraceID: req.TraceID, Pinned: req.Version,
		Metadata: req.Metadata, Priority: req.Priority, Behalf: s.behalf, Trust: e.currentTrust().Ref(),
	}
	if err := e.executes(); err != nil {
		return start, err
	}
	rec, err := e.findDAG(req.DAGID, req.Version)
	if err != nil {
		return start, err
	}
	if _, err := e.sealed.Judge(rec.Digest); err != nil {
		return start, judged(rec.DAGID+" "+rec.Version, err)
	}
	if start.DAG, _, err = e.dagSpec(rec.Digest); err != nil {
		return start, dbError(err)
	}
	start.Plan, err = e.newPlan(start.DAG, rec.Digest)
	return start, dbError(err)
}

// judged turns a refusal of sealed evidence into what the API says.
func judged(what string, err error) error {
	var r *refused
	if !errors.As(err, &r) {
		return dbError(err)
	}
	return &api.Error{
		Code: api.Code(r.Reason()), Message: what + " may not be used now: " + r.Error(), Hint: r.err.Hint,
		Refusal: refusalOf(r.err),
	}
}

// again answers a start whose token is taken: with its run if the start is
// the same, else with a conflict that names the difference.
func (s *site) again(ctx context.Context, run state.Run, req api.StartRequest, inputsHash string) (api.StartResult, error) {
	if err := conflicting(run, req, inputsHash); err != nil {
		return api.StartResult{}, err
	}
	if s.e.opt.Mode == ModeForeground && !run.Status.Ended() {
		// The caller waits for the run; if a crash has left it, it goes on here.
		o, err := s.e.opened(run)
		if err == nil && !s.e.runner.Executes(run.RunID) {
			err = s.e.runner.Resume(ctx, s.actor, o)
		}
		if err != nil && !errors.Is(err, runner.ErrEnded) {
			return api.StartResult{}, dbError(err)
		}
		if run, err = s.e.db.Run(run.RunID); err != nil {
			return api.StartResult{}, dbError(err)
		}
	}
	return api.StartResult{Run: run, Replayed: true}, nil
}

// ListRuns pages through the runs of the tenant, newest first.
func (s *site) ListRuns(ctx context.Context, q api.RunQuery) (api.RunPage, error) {
	size := q.PageSize
	switch {
	case size == 0:
		size = 50
	case size < 0 || size > 500:
		return api.RunPage{}, invalid("page_size is 1 to 500")
	}
	if q.PageToken != "" && len(q.PageToken) != 36 {
		return api.RunPage{}, invalid("the page token is not one of ours")
	}
	if q.Status != "" && !slices.Contains(state.RunStatuses(), q.Status) {
		return api.RunPage{}, invalid("the status of a run is %s, not %q", strings.Join(state.RunStatuses(), ", "), q.Status)
	}
	filter := store.RunFilter{Tenant: s.tenant, Open: q.Active || openStatus(q.Status), Keep: func(r *state.Run) bool {
		return (!q.Active || !r.Status.Ended()) && (q.DAGID == "" || r.DAGID == q.DAGID) &&
			(q.Status == "" || string(r.Status) == q.Status)
	}}
	runs, next, err := s.e.db.RunPage(ctx, filter, q.PageToken, size)
	if err != nil && ctx.Err() == nil {
		err = dbError(err)
	}
	if err != nil {
		return api.RunPage{}, err
	}
	if runs == nil {
		runs = []state.Run{}
	}
	return api.RunPage{Runs: runs, NextPageToken: next}, nil
}

// openStatus says whether only runs that have not ended have a status.
func openStatus(s string) bool {
	return s == string(state.Planning) || s == string(state.Running) || s == string(state.Checkpoint)
}

// CancelRun asks for the end of a run.
func (s *site) CancelRun(_ context.Context, id, reason string) (state.Run, error) {
	run, err := s.run(id)
	if err != nil {
		return state.Run{}, err
	}
	o, _ := s.e.opened(run) // what cannot be read, the runner finds in it
	out, err := s.e.runner.Cancel(s.actor, reason, o)
	if errors.Is(err, runner.ErrEnded) {
		return out, ended(out)
	}
	return out, dbError(err)
}

// TryCancelRun says what CancelRun would do.
func (s *site) TryCancelRun(_ context.Context, id, reason string) (api.Recovered, error) {
	return s.recover(id, true, func(r *runner.Runner, o runner.Opened) (state.Run, error) {
		run, err := r.Cancel(s.actor, reason, o)
		return already(run, state.Cancelled, err)
	})
}

// ResumeRun lets an open run, or all of them, go on here.
func (s *site) ResumeRun(ctx context.Context, id string) ([]state.Run, error) {
	if id == "" {
		runs, err := s.e.db.ActiveRuns()
		if err != nil {
			return nil, dbError(err)
		}
		runs = slices.DeleteFunc(runs, func(r state.Run) bool { return r.Tenant != s.tenant })
		return s.e.resume(ctx, s.actor, runs, false)
	}
	run, err := s.run(id)
	if err != nil {
		return nil, err
	}
	if run.Status.Ended() {
		return nil, ended(run)
	}
	return s.e.resume(ctx, s.actor, []state.Run{run}, false)
}

func (e *Engine) resumeAll(ctx context.Context, actor string) error {
	runs, err := e.db.ActiveRuns()
	if err != nil {
		return dbError(err)
	}
	_, err = e.resume(ctx, actor, runs, true)
	return err
}

// together is how many runs are taken up at a time: what is written of them shares
// a sync of the disk.
const together = 64

// each calls f for all runs that ask for it, for some at a time.
func each(runs []state.Run, wanted func(state.Run) bool, f func(int, state.Run)) {
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, together)
	for i, run := range runs {
		if !wanted(run) {
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			f(i, run)
			<-places
		})
	}
}

// resume lets runs go on here, those that others have started after those. One that
// cannot be taken up is an error where it alone was asked for, and not where all are
// meant that there are.
func (e *Engine) resume(ctx context.Context, actor string, runs []state.Run, all bool) ([]state.Run, error) {
	errs := make([]error, len(runs))
	for _, child := range []bool{false, true} {
		each(runs, func(run state.Run) bool { return child == (run.ParentRunID != "") }, func(i int, run state.Run) {
			o, _ := e.opened(run) // what cannot be read, the runner finds in it
			err := e.runner.Resume(ctx, actor, o)
			if errs[i] = err; err == nil {
				e.refused.Delete(run.RunID)
			}
		})
	}
	out := []state.Run{}
	for i, run := range runs {
		err := errs[i]
		if errors.Is(err, runner.ErrEnded) {
			continue
		}
		if err != nil && (all || len(runs) > 1) && e.db.Failure() == nil && !errors.Is(err, runner.ErrStopping) && !errors.Is(err, runner.ErrNotExecuting) {
			e.refused.Store(run.RunID, err)
			e.opt.Log.Error("a run cannot be taken up", "runId", run.RunID, "error", err, "help", "stella orch run status "+run.RunID)
			continue // the site, and the others, are not to suffer for it
		}
		if err != nil {
			return out, dbError(err)
		}
		if run, err = e.db.Run(run.RunID); err != nil {
			return out, dbError(err)
		}
		out = append(out, run)
	}
	return out, nil
}

// WaitRun waits for the end of a run.
func (s *site) WaitRun(ctx context.Context, id string) (state.Run, error) {
	ended, stop := s.e.db.WatchEnd(id)
	defer stop()
	run, err := s.run(id)
	if err != nil || run.Status.Ended() {
		return run, err
	}
	select {
	case run = <-ended:
		return run, nil
	case <-s.e.closing:
		return run, &api.Error{Code: api.CodeStopping, Message: "the site is being closed", Hint: "the run goes on with: stella orch run resume " + id}
	case <-ctx.Done():
	}
	if now, err := s.run(id); err == nil {
		run = now // as it is by now
	}
	return run, ctx.Err()
}
