package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// maxQueued bounds how many steps of one run are looked at that nobody executes.
const maxQueued = 10_000

// lookAgain is how long a wait for the queue lets entries come before it looks
// again.
const lookAgain = 50 * time.Millisecond

// scope is the tenant that a question about the queue is about; "" is all.
func (s *site) scope(all bool) string {
	if all {
		return ""
	}
	return s.tenant
}

// QueueStatus implements [api.Queue].
func (s *site) QueueStatus(_ context.Context, q api.QueueQuery) (api.QueueStatus, error) {
	return s.queueStatus(s.scope(q.All))
}

func (s *site) queueStatus(tenant string) (api.QueueStatus, error) {
	e := s.e
	info := e.runner.Queue(tenant)
	v := queueView{
		out: api.QueueStatus{
			Tenant: tenant, Mode: e.opt.Mode, Executes: e.opt.Executes && e.opt.Executor != nil, Workers: info.Workers,
			Depth: info.Depth, Delayed: info.Delayed, Executing: info.Executing, AtRest: true,
			Paused: stops(info.State.Paused, tenant), Draining: stops(info.State.Draining, tenant),
		},
		now: e.opt.Now(), oldest: info.Oldest, tenants: map[string]*api.QueueTenant{}, waits: maps.Clone(info.Waits),
	}
	for name, t := range info.Tenants {
		*v.tenant(name) = api.QueueTenant{Tenant: name, Depth: t.Depth, Delayed: t.Delayed, Executing: t.Executing}
	}
	runs, err := e.db.ActiveRuns()
	if err != nil {
		return v.out, dbError(err)
	}
	parents := map[string]bool{}
	for _, run := range runs {
		parents[run.ParentRunID] = true
	}
	for _, run := range runs {
		if tenant != "" && run.Tenant != tenant {
			continue
		}
		executed := e.runner.Executes(run.RunID)
		if !executed { // it may have ended since
			if run, err = e.db.Run(run.RunID); err != nil {
				return v.out, dbError(err)
			}
			if run.Status.Ended() {
				continue
			}
		}
		rests := atRest(run, parents[run.RunID])
		v.out.Runs++
		v.tenant(run.Tenant).Runs++
		v.out.AtRest = v.out.AtRest && rests
		if executed || rests {
			continue
		}
		v.out.Unattended++
		steps, err := e.db.LiveSteps(run.RunID, maxQueued)
		if err != nil {
			return v.out, dbError(err)
		}
		v.unattended(run, steps)
	}
	return v.result(), nil
}

// atRest says whether nothing of an open run is queued or under way: it waits for
// people, itself or in a sub-run.
func atRest(run state.Run, parent bool) bool {
	return run.Open == 0 && run.Counts[state.Queued] == 0 && (run.Waiting > 0 || parent)
}

// queueView gathers a status.
type queueView struct {
	out     api.QueueStatus
	now     time.Time
	oldest  time.Time
	tenants map[string]*api.QueueTenant
	waits   map[string]int
}

func (v *queueView) tenant(name string) *api.QueueTenant {
	t := v.tenants[name]
	if t == nil {
		t = &api.QueueTenant{Tenant: name}
		v.tenants[name] = t
	}
	return t
}

// unattended adds what a run has queued that nobody executes.
func (v *queueView) unattended(run state.Run, steps []state.Step) {
	t := v.tenant(run.Tenant)
	for _, st := range steps {
		if st.Status != state.Queued {
			continue
		}
		if st.DueTime().After(v.now) {
			v.out.Delayed++
			t.Delayed++
			continue
		}
		v.out.Depth++
		t.Depth++
		v.waits["somebody who executes the run"]++
		if at, err := stamp.Parse(st.QueuedUTC); err == nil && (v.oldest.IsZero() || at.Before(v.oldest)) {
			v.oldest = at
		}
	}
}

func (v *queueView) result() api.QueueStatus {
	out := v.out
	if !v.oldest.IsZero() {
		out.OldestUTC, out.OldestMs = stamp.Format(v.oldest), max(0, v.now.Sub(v.oldest).Milliseconds())
	}
	out.Tenants, out.Waits = []api.QueueTenant{}, []api.QueueWait{}
	for _, name := range slices.Sorted(maps.Keys(v.tenants)) {
		out.Tenants = append(out.Tenants, *v.tenants[name])
	}
	for what, n := range v.waits {
		out.Waits = append(out.Waits, api.QueueWait{For: what, Steps: n})
	}
	slices.SortFunc(out.Waits, func(a, b api.QueueWait) int {
		if a.Steps != b.Steps {
			return b.Steps - a.Steps
		}
		return strings.Compare(a.For, b.For)
	})
	return out
}

// stops lists who has stopped what, as far as it is a tenant's business.
func stops(notes map[string]state.QueueNote, tenant string) []api.QueueStop {
	out := []api.QueueStop{}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		if n := notes[name]; tenant == "" || name == "" || name == tenant {
			out = append(out, api.QueueStop{Tenant: name, Actor: n.Actor, TimeUTC: n.TimeUTC, Reason: n.Reason})
		}
	}
	return out
}

// PauseQueue implements [api.Queue].
func (s *site) PauseQueue(_ context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	if req.Reason == "" {
		return api.QueueChanged{}, invalid("pausing the queue needs a reason")
	}
	return s.changeQueue(ledger.QueuePaused, req, func(q state.QueueState, tenant string) bool { return stopped(q.Paused, tenant) })
}

// DrainQueue implements [api.Queue]. When it returns, no start that was accepted is
// still to be written.
func (s *site) DrainQueue(_ context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	s.e.gate.Lock()
	defer s.e.gate.Unlock()
	return s.changeQueue(ledger.QueueDraining, req, func(q state.QueueState, tenant string) bool { return stopped(q.Draining, tenant) })
}

// ResumeQueue implements [api.Queue].
func (s *site) ResumeQueue(_ context.Context, req api.QueueRequest) (api.QueueChanged, error) {
	return s.changeQueue(ledger.QueueResumed, req, func(q state.QueueState, tenant string) bool {
		return !stopped(q.Paused, tenant) && !stopped(q.Draining, tenant)
	})
}

func stopped(notes map[string]state.QueueNote, tenant string) bool {
	_, ok := notes[tenant]
	return ok
}

// changeQueue records a change, unless so says that nothing would change.
func (s *site) changeQueue(t ledger.Type, req api.QueueRequest, so func(state.QueueState, string) bool) (out api.QueueChanged, err error) {
	tenant := s.scope(req.All)
	s.e.stopping.Lock() // the order of the entries is that in which the runner hears of them
	defer s.e.stopping.Unlock()
	q, err := s.e.db.Queue()
	if err != nil {
		return out, dbError(err)
	}
	if out.Changed = !so(q, tenant); out.Changed {
		if q, err = s.e.db.ChangeQueue(t, s.actor, ledger.QueueChange{Tenant: tenant, Reason: clip(req.Reason)}); err != nil {
			return out, dbError(err)
		}
		s.e.runner.StopQueue(q)
	}
	out.Status, err = s.queueStatus(tenant)
	return out, err
}

// accepts refuses a start while the queue of the tenant drains; named says whether it has a
// token that the caller knows.
func (s *site) accepts(named bool) error {
	note, draining := s.e.runner.Draining(s.tenant)
	if !draining {
		return nil
	}
	msg := fmt.Sprintf("no run is started: the queue is drained by %s since %s", note.Actor, note.TimeUTC)
	if note.Reason != "" {
		msg += ": " + note.Reason
	}
	again := "try again later"
	if named {
		again += ", with the same token"
	}
	return &api.Error{Code: api.CodeQueueDraining, Message: msg, Hint: again + "; stella orch queue resume ends the drain"}
}

// patience is how long runs may be without anybody who executes them until a wait
// for the queue gives up: a daemon that has just begun takes them up one by one.
const patience = 3 * time.Second

// WaitQueue implements [api.Queue].
func (s *site) WaitQueue(ctx context.Context, q api.QueueQuery) (api.QueueStatus, error) {
	attended := s.e.opt.Now()
	for {
		changed, _ := s.e.db.Changed()
		st, err := s.queueStatus(s.scope(q.All))
		if err != nil || st.AtRest {
			return st, err
		}
		if st.Unattended == 0 || !st.Executes {
			attended = s.e.opt.Now()
		}
		if err := halted(st, s.e.opt.Now().Sub(attended)); err != nil {
			return st, err
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		case <-s.e.closing:
			return st, &api.Error{Code: api.CodeStopping, Message: "the site is being closed", Hint: "what is open goes on with the daemon"}
		case <-ctx.Done():
			return st, ctx.Err()
		}
		select { // many entries come at a time
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// open says in words how many runs are open.
func open(runs int) string {
	if runs == 1 {
		return "1 run is open"
	}
	return fmt.Sprintf("%d runs are open", runs)
}

// halted says why what is queued never gets done.
func halted(st api.QueueStatus, unattended time.Duration) error {
	e := &api.Error{Code: api.CodeConflict}
	switch {
	case !st.Executes:
		e.Message, e.Hint = "nobody executes steps here, and "+open(st.Runs), "stella daemon start, or stella orch run resume --all"
	case st.Unattended > 0 && unattended > patience:
		e.Message, e.Hint = fmt.Sprintf("nobody executes %d of the open runs", st.Unattended), "stella orch run resume --all"
	case len(st.Paused) > 0:
		e.Message, e.Hint = "the queue is paused by "+st.Paused[0].Actor+": nothing that is queued gets done", "stella orch queue resume, then drain again"
	default:
		return nil
	}
	return e
}

// asksRepeat says whether a step is begun again only by who takes it upon himself: its
// sub-run has done what is not idempotent. Whatever else keeps it from that is told to
// who tries.
func (s *site) asksRepeat(run state.Run, stepID string) bool {
	o, err := s.e.opened(run)
	if err != nil {
		return false
	}
	retry := func(repeat bool) error {
		_, err := s.e.runner.Try(o, func(r *runner.Runner) (state.Run, error) {
			return r.Retry(o, runner.Retry{Actor: s.actor, StepID: stepID, Repeat: repeat})
		})
		return err
	}
	return retry(false) != nil && retry(true) == nil
}

// ListDead implements [api.Queue].
func (s *site) ListDead(_ context.Context, limit int) ([]api.DeadStep, error) {
	switch {
	case limit == 0:
		limit = 50
	case limit < 0 || limit > 1000:
		return nil, invalid("a limit is 1 to 1000")
	}
	dead, err := s.e.db.DeadSteps(s.tenant, limit)
	if err != nil {
		return nil, dbError(err)
	}
	out := []api.DeadStep{}
	for _, d := range dead {
		x := api.DeadStep{
			RunID: d.Run.RunID, DAGID: d.Run.DAGID, DAGVersion: d.Run.DAGVersion, StepID: d.Step.StepID, Attempt: d.Step.Attempt,
			Interruptions: d.Step.Interruptions, ErrorCode: d.Step.ErrorCode, EndedUTC: d.Step.EndedUTC,
			Message: d.Step.Reason, // of one that has no attempts of its own
		}
		if a, err := s.e.db.Attempt(d.Run.RunID, d.Step.StepID, d.Step.Attempt); err == nil && a.End != nil {
			x.Message = a.End.Message
		}
		step, _, _ := strings.Cut(d.Step.StepID, ".")
		x.Next = fmt.Sprintf("stella orch run retry %s --step %s", d.Run.RunID, d.Step.StepID)
		if spec, _, err := s.e.dagSpec(d.Run.DAGDigest); err == nil {
			st := findStep(spec, step)
			if st != nil && st.DAG != "" && s.asksRepeat(d.Run, d.Step.StepID) {
				x.Next += " --repeat"
			}
			if st != nil && st.AllowSkip {
				x.AllowSkip = true
				x.Next += fmt.Sprintf(", or stella orch run skip %s --step %s --reason TEXT", d.Run.RunID, d.Step.StepID)
			}
		}
		out = append(out, x)
	}
	return out, nil
}
