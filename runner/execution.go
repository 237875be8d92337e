package runner

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// phase is which group of steps may run.
type phase int

const (
	ordinary phase = iota
	onFailure
	onCancel
)

// node is one step of an open run.
type node struct {
	step       *manifests.Step
	plan       *PlanStep
	phase      phase
	needs      []*node
	dependents []*node
	waiting    int // needs that have not ended

	status        state.Status
	reason        state.Code
	claimed       bool // a worker has it
	live          bool // queued, claimed or running; counted in execution.live
	attempt       int
	failures      int
	interruptions int
	infra         int
	due           time.Time
	outputs       any            // of the attempt that succeeded
	artifacts     map[string]any // name → {"name","sha256","size","mediaType"}
}

// settled says whether the step satisfies the needs of others.
func (n *node) settled() bool {
	switch n.status {
	case state.Completed:
		return true
	case state.Skipped:
		return n.reason == state.ConditionFalse || n.reason == state.StepDisabled
	case state.Failed:
		return n.step.ContinueOnError && n.reason != state.Indeterminate
	}
	return false
}

// execution is the model of one open run. Whoever changes the run holds mu,
// decides on the model, and commits what it decided before letting go.
type execution struct {
	mu     sync.Mutex
	run    state.Run
	dag    *manifests.DAG
	plan   *Plan
	prog   *program
	inputs map[string]any

	nodes    []*node // topological, ties by step id
	byID     map[string]*node
	live     int                                // steps that are queued, claimed or running
	left     int                                // ordinary steps that have not ended
	cancels  map[string]context.CancelCauseFunc // by step, of attempts under way
	failed   *node                              // the step that fails the run, nil while none does
	late     bool                               // the run's own deadline has passed
	timeout  bool                               // and it passed before any step had failed the run
	ended    bool
	detached bool // nobody here executes it; the model lives for one decision

	todo   []*node // ended, their dependents not looked at yet
	fresh  []*node // queued, not handed to the dispatcher yet
	batch  []state.Proposal
	timers []*time.Timer
	slots  int    // attempts it may still start; guarded by the runner's mu
	parked []item // waits for a slot; guarded by the runner's mu
}

// newExecution builds the model of a run whose steps have the given records.
func newExecution(run state.Run, d *manifests.DAG, p *Plan, prog *program, inputs map[string]any, records map[string]state.Step) (*execution, error) {
	e := &execution{
		run: run, dag: d, plan: p, prog: prog, inputs: inputs,
		byID: map[string]*node{}, cancels: map[string]context.CancelCauseFunc{},
	}
	for ph, list := range [][]manifests.Step{ordinary: d.Steps, onFailure: d.OnFailure, onCancel: d.OnCancel} {
		for i := range list {
			n := &node{step: &list[i], plan: p.Step(list[i].ID), phase: phase(ph), status: state.Pending}
			if n.plan == nil {
				return nil, fmt.Errorf("runner: step %s is not in the plan", n.step.ID)
			}
			if rec, ok := records[n.step.ID]; ok {
				n.status, n.reason = rec.Status, state.Code(rec.Reason)
				if rec.Status == state.Failed { // its reason is in words
					n.reason = state.Code(rec.ErrorCode)
				}
				n.attempt, n.failures, n.interruptions, n.infra = rec.Attempt, rec.Failures, rec.Interruptions, rec.InfraFaults
				n.due = rec.DueTime()
			}
			if n.live = n.status == state.Queued || n.status == state.Running; n.live {
				e.live++
			}
			if n.phase == ordinary && !n.status.Ended() {
				e.left++
			}
			e.byID[n.step.ID] = n
			e.nodes = append(e.nodes, n)
		}
	}
	for _, n := range e.nodes {
		for _, id := range n.step.Needs {
			need, ok := e.byID[id]
			if !ok {
				return nil, fmt.Errorf("runner: step %s needs the unknown step %s", n.step.ID, id)
			}
			n.needs = append(n.needs, need)
			need.dependents = append(need.dependents, n)
			if !need.status.Ended() {
				n.waiting++
			}
		}
	}
	if err := e.sortNodes(); err != nil {
		return nil, err
	}
	e.late = run.TimedOutUTC != ""
	e.timeout = e.late
	for _, n := range e.nodes {
		if n.phase != ordinary || n.status != state.Failed || n.settled() {
			continue
		}
		ended := records[n.step.ID].EndedUTC
		if e.failed == nil || ended < records[e.failed.step.ID].EndedUTC {
			e.failed = n
		}
		if e.late && ended <= run.TimedOutUTC {
			e.timeout = false // it had failed before its deadline
		}
	}
	return e, nil
}

// sortNodes puts the nodes in topological order, ties by step id.
func (e *execution) sortNodes() error {
	indegree := map[*node]int{}
	var ready nodeHeap
	for _, n := range e.nodes {
		if indegree[n] = len(n.needs); len(n.needs) == 0 {
			ready.push(n)
		}
	}
	order := make([]*node, 0, len(e.nodes))
	for len(ready) > 0 {
		n := ready.pop()
		order = append(order, n)
		for _, d := range n.dependents {
			if indegree[d]--; indegree[d] == 0 {
				ready.push(d)
			}
		}
	}
	if len(order) != len(e.nodes) {
		return fmt.Errorf("runner: the steps of %s form a cycle", e.dag.ID)
	}
	e.nodes = order
	return nil
}

// propose adds an entry to the batch.
func (e *execution) propose(t ledger.Type, n *node, data any) {
	p := state.Proposal{Type: t, Actor: "system:runner", Data: data}
	if n != nil {
		p.StepID = n.step.ID
		if t == ledger.AttemptStarted || t == ledger.AttemptEnded {
			p.Attempt = n.attempt
		}
	}
	e.batch = append(e.batch, p)
}

// stopping says whether no further ordinary step may start.
func (e *execution) stopping() bool {
	return e.run.CancelRequested() || e.late || e.failed != nil && e.dag.FailFast
}

// phaseNow is the group whose steps may run now: cleanup starts when every
// ordinary step has ended.
func (e *execution) phaseNow() phase {
	switch {
	case e.left > 0:
		return ordinary
	case e.run.CancelRequested():
		return onCancel
	case e.failed != nil || e.late:
		return onFailure
	}
	return ordinary
}

// end moves a step to its end.
func (e *execution) end(n *node, t ledger.Type, to state.Status, code state.Code, data ledger.StepEnd) {
	n.status, n.reason = to, code
	if n.phase == ordinary {
		e.left--
	}
	if n.live {
		n.live = false
		e.live--
	}
	switch to {
	case state.Failed:
		data.ErrorCode = string(code)
		if n.phase == ordinary && !n.settled() && e.failed == nil {
			e.failed = n
		}
	case state.Skipped, state.Cancelled:
		data.Reason = string(code)
	}
	e.propose(t, n, &data)
	e.todo = append(e.todo, n)
}

// queue makes a step claimable, at once or when due has come.
func (e *execution) queue(n *node, reason string, due time.Time) {
	n.status, n.due = state.Queued, due
	if !n.live {
		n.live = true
		e.live++
	}
	q := ledger.StepQueue{Reason: reason}
	if !due.IsZero() {
		q.Due = stamp.Format(due)
	}
	e.propose(ledger.StepQueued, n, &q)
	e.fresh = append(e.fresh, n)
}

// begin queues what can run when a run starts or is taken up again.
func (e *execution) begin(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for _, n := range e.nodes {
		switch {
		case n.status == state.Queued:
			e.fresh = append(e.fresh, n)
		case n.phase == ordinary && n.status == state.Pending && n.waiting == 0:
			e.consider(ctx, n)
		}
	}
}

// consider decides about a pending step whose needs have all ended.
func (e *execution) consider(ctx context.Context, n *node) {
	for _, need := range n.needs {
		if !need.settled() {
			e.end(n, ledger.StepSkipped, state.Skipped, state.UpstreamFailed, ledger.StepEnd{})
			return
		}
	}
	if n.phase == ordinary && e.stopping() {
		return // the sweep takes it
	}
	if n.step.Disabled {
		e.end(n, ledger.StepSkipped, state.Skipped, state.StepDisabled, ledger.StepEnd{})
		return
	}
	if x := e.prog.when[n.step.ID]; x != nil {
		v, err := x.eval(ctx, e.scope())
		ok, isBool := v.(bool)
		switch {
		case err != nil || !isBool:
			e.end(n, ledger.StepFailed, state.Failed, state.ExpressionInvalid, ledger.StepEnd{Reason: "when"})
			return
		case !ok:
			e.end(n, ledger.StepSkipped, state.Skipped, state.ConditionFalse, ledger.StepEnd{})
			return
		}
	}
	e.queue(n, "ready", time.Time{})
}

// advance draws every consequence of what has ended, up to the end of the run.
func (e *execution) advance(ctx context.Context, r *Runner) error {
	// Whoever asked may go away: that must not decide what the run becomes.
	ctx = context.WithoutCancel(ctx)
	for {
		for len(e.todo) > 0 {
			n := e.todo[0]
			e.todo = e.todo[1:]
			next := slices.Clone(n.dependents)
			slices.SortFunc(next, func(a, b *node) int { return cmp.Compare(a.step.ID, b.step.ID) })
			for _, d := range next {
				if d.waiting--; d.waiting == 0 && d.status == state.Pending && d.phase == n.phase {
					e.consider(ctx, d)
				}
			}
		}
		if e.stopping() {
			e.sweep()
		}
		if len(e.todo) > 0 {
			continue
		}
		if e.live > 0 || e.ended {
			return nil
		}
		more, err := e.finish(ctx, r)
		if err != nil || !more {
			return err
		}
	}
}

// sweep ends what has not started, once nothing ordinary may start any more.
func (e *execution) sweep() {
	for _, n := range e.nodes {
		if n.phase != ordinary || n.claimed || n.status != state.Pending && n.status != state.Queued {
			continue
		}
		switch {
		case e.run.CancelRequested():
			e.end(n, ledger.StepCancelled, state.Cancelled, state.RunCancelled, ledger.StepEnd{})
		case e.late:
			e.end(n, ledger.StepSkipped, state.Skipped, state.RunTimeout, ledger.StepEnd{})
		default:
			e.end(n, ledger.StepSkipped, state.Skipped, state.RunFailing, ledger.StepEnd{})
		}
	}
}

// finish is called when nothing is queued or running: it starts the cleanup steps
// or ends the run. It returns whether there is more to advance.
func (e *execution) finish(ctx context.Context, r *Runner) (more bool, err error) {
	now := e.phaseNow()
	started := false
	for _, n := range e.nodes {
		if n.phase != now {
			continue
		}
		if n.status == state.Pending && n.waiting == 0 && now != ordinary {
			e.consider(ctx, n)
			started = true
		}
	}
	if started {
		return true, nil
	}
	for _, n := range e.nodes {
		if n.phase == now && n.status == state.Pending {
			e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(state.UnreachableSteps), FailedStep: n.step.ID})
			return false, nil
		}
	}
	switch {
	case e.run.CancelRequested():
		e.endRun(ledger.RunCancelled, state.Cancelled, ledger.RunEnd{FailureReason: string(state.RunCancelled)})
	case e.timeout:
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(state.RunTimeout)})
	case e.failed != nil:
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(e.failed.reason), FailedStep: e.failed.step.ID})
	default:
		return false, e.complete(ctx, r)
	}
	return false, nil
}

// complete seals the outputs of the run and ends it.
func (e *execution) complete(ctx context.Context, r *Runner) error {
	v, err := e.prog.outputs.eval(ctx, e.scope())
	if err != nil {
		e.endRun(ledger.RunFailed, state.Failed, ledger.RunEnd{FailureReason: string(state.ExpressionInvalid)})
		return nil
	}
	hash, err := r.seal(v)
	if err != nil {
		return err
	}
	e.endRun(ledger.RunCompleted, state.Completed, ledger.RunEnd{OutputsHash: hash})
	return nil
}

func (e *execution) endRun(t ledger.Type, to state.Status, end ledger.RunEnd) {
	e.run.Status, e.ended = to, true
	e.propose(t, nil, &end)
	for _, timer := range e.timers {
		timer.Stop()
	}
}

// scope is what expressions see at this moment.
func (e *execution) scope() Scope {
	steps := make(map[string]any, len(e.nodes))
	for _, n := range e.nodes {
		outputs, artifacts := n.outputs, n.artifacts
		if outputs == nil {
			outputs = map[string]any{}
		}
		if artifacts == nil {
			artifacts = map[string]any{}
		}
		steps[n.step.ID] = map[string]any{"status": string(n.status), "outputs": outputs, "artifacts": artifacts}
	}
	return Scope{Inputs: e.inputs, Steps: steps, Run: map[string]any{
		"runId": e.run.RunID, "dagId": e.run.DAGID, "dagVersion": e.run.DAGVersion, "tenant": e.run.Tenant,
		"createdUtc": e.run.CreatedUTC, "runToken": e.run.RunToken,
	}}
}

// nodeHeap is a heap by step id.
type nodeHeap []*node

func (h *nodeHeap) push(n *node) {
	i, _ := slices.BinarySearchFunc(*h, n, func(a, b *node) int { return cmp.Compare(b.step.ID, a.step.ID) })
	*h = slices.Insert(*h, i, n)
}

// pop takes the smallest id, which stands last.
func (h *nodeHeap) pop() *node {
	n := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return n
}
