package runner

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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

// node is one step of an open run, or one item of a step with for_each.
type node struct {
	id         string // of the step, or id.N of an item
	step       *manifests.Step
	plan       *PlanStep
	phase      phase
	needs      []*node
	dependents []*node // by step id
	waiting    int     // needs that are not over
	over       bool    // it has ended, and so has all that comes before it
	locks      []ledger.Lock

	parent *node // of an item: its step
	index  int
	item   any
	items  []*node // of a step that was expanded
	every  []*node // items, and after them those that its list has had before
	list   string  // digest of their list
	left   int     // of the items: have not ended
	fed    int     // of the items: were looked at for queueing

	status        state.Status
	reason        state.Code
	why           string // of a failure, in words
	order         int    // when it ended, among the others
	now           bool   // it ended in this generation of the run
	claimed       bool   // a worker is about to begin it, or has
	worker        bool   // a worker has not let go of it yet
	live          bool   // queued, claimed, running or expanded; counted in execution.live
	attempt       int
	failures      int
	interruptions int
	infra         int
	due           time.Time
	after         time.Time // of a pending step: not to be claimed before
	afresh        bool      // somebody wants it done again: nothing is taken from the cache
	repeat        bool      // what it has done may be done twice: somebody has said so since it was begun last
	overlay       string    // digest of a merge patch on its parameters
	again         bool      // restarted by hand: the interruption does not count, and may repeat what is not idempotent
	secret        bool      // an attempt of it was given a secret
	given         []string  // the secrets of the attempt under way
	child         string    // run that it has started and that has not ended
	former        string    // run that it does not wait for any more, and that is under way still: it begins nothing before
	approval      *state.Approval
	outputs       any            // of what succeeded
	outputsHash   string         //
	artifacts     map[string]any // name → {"name","sha256","size","mediaType"}

	round atomic.Int32 // how often it has left or entered the queue
	at    *gate        // where it waits, nil for a worker; guarded by the runner's mu
}

// byID is the order of ids, those of items by their number.
func byID(a, b *node) int {
	if a.parent != nil && a.parent == b.parent {
		return cmp.Compare(a.index, b.index)
	}
	return cmp.Compare(a.id, b.id)
}

// settled says whether the step satisfies the needs of others.
func (n *node) settled() bool {
	switch n.status {
	case state.Completed:
		return true
	case state.Skipped:
		return n.reason == state.ConditionFalse || n.reason == state.StepDisabled || n.reason == state.SkippedByHand
	case state.Failed:
		return n.step.ContinueOnError && n.reason != state.Indeterminate && !state.Stopped(n.reason)
	}
	return false
}

// mayFollow says whether all that a step needs is as it should be: what was passed over stands
// for what it needs itself.
func (n *node) mayFollow(seen map[*node]bool) bool {
	for _, x := range n.needs {
		if !x.settled() || x.lacksItems() || x.byHand() && !seen[x] && !x.mayFollow(seen) {
			return false
		}
		seen[x] = true
	}
	return true
}

// gate says whether the step runs nothing itself and only waits for people.
func (n *node) gate() bool { return n.step.Plugin == nil && n.step.DAG == "" }

// idempotent says whether an action may be started again after an interruption.
func (n *node) idempotent(action manifests.Action) bool {
	return action.Idempotent && n.step.Idempotent
}

// execution is the model of one open run. Whoever changes the run holds mu,
// decides on the model, and commits what it decided before letting go.
//
// While nobody holds mu and the run is open, this holds; the tests of random
// histories check it (Invariants in export_test.go):
//   - live, asked and left count what they say; a node is live if and only if it is
//     queued or running, has an approval if and only if it waits for people, and
//     waits for as many needs as have not ended.
//   - failing: an ordinary step that nothing makes up for is failed and now. late: the
//     run has timed out on record. timeout: late, and no step had failed it before.
//   - swept, in a run that is stopping: no step is pending that may not begin any more and
//     whose phase has begun. Whoever lets one become so takes swept back.
//   - cancels has the attempts under way and nothing else; their nodes are claimed and
//     running. strays are those whose end is on record already; a node's former is a
//     sub-run of which that holds: the run neither ends nor begins to clean up before
//     them. again: one of them is being stopped to be queued anew, and goes with
//     its end, whatever that is.
//   - todo, batch, freed and later are empty: what was decided is written and done.
//   - detached: it is not among the runner's execs; the others are until they end.
type execution struct {
	r *Runner

	// What follows never changes.
	runID, tenant string
	parent        string // run whose step parentStep has started it; "" for none
	parentStep    string
	replayOf      string
	priority      int64
	dag           *manifests.DAG
	plan          *Plan
	prog          *program
	inputs        map[string]any

	mu        sync.Mutex
	run       state.Run
	nodes     []*node // topological, ties by step id; without items
	byID      map[string]*node
	live      int                                // steps that are queued, claimed, running or expanded
	asked     int                                // steps that wait for people
	left      int                                // ordinary steps that have not ended
	ends      int                                // counts up with each end
	cancels   map[string]context.CancelCauseFunc // by step, of attempts under way
	strays    map[*node]stray                    // attempts that were taken back and have yet to end
	failing   bool                               // an ordinary step has failed in this generation, and nothing makes up for it
	late      bool                               // the run's own deadline has passed
	timeout   bool                               // and it passed before any step had failed the run
	swept     bool                               // what had not started when the run began to end has been ended
	deadline  time.Time                          // of the run, zero without one; on the monotonic clock
	chained   time.Time                          // when something was last done about its being stuck
	chainWait time.Duration                      // how long that is given
	workers   int                                // that have not let go of their steps yet
	untold    bool                               // it has ended, and its parent is to be told
	gaveUp    *FaultError                        // it was given up: nothing is decided about it any more
	detached  bool                               // nobody here executes it; the model lives for one decision

	todo  []*node // ended, their dependents not looked at yet
	fresh []*node // queued, not handed to the dispatcher yet
	batch []state.Proposal
	twice []string // what is done again and is not idempotent, of what is only tried
	freed []freed  // their sub-runs are over; what they held is given back once that is on record
	later []func() // concerns other runs: done without the lock

	ended atomic.Bool
	given atomic.Bool  // gaveUp is set
	apart atomic.Int32 // how many strays there are
	moved atomic.Int64 // when something last happened, since the runner began
	slots gate         // attempts and sub-runs at a time; guarded by the runner's mu

	then bornThen // of a replay

	tmu    sync.Mutex // guards timers
	timers map[*timer]struct{}
}

// newExecution builds the model of a run whose steps have the given records.
func newExecution(run state.Run, d *manifests.DAG, p *Plan, prog *program, inputs map[string]any, records map[string]state.Step) (*execution, error) {
	e := &execution{
		runID: run.RunID, tenant: run.Tenant, parent: run.ParentRunID, parentStep: run.ParentStepID, replayOf: run.ReplayOf, priority: run.Priority, run: run, dag: d, plan: p, prog: prog, inputs: inputs,
		byID: map[string]*node{}, cancels: map[string]context.CancelCauseFunc{}, strays: map[*node]stray{}, timers: map[*timer]struct{}{},
	}
	e.ended.Store(run.Status.Ended())
	for ph, list := range [][]manifests.Step{ordinary: d.Steps, onFailure: d.OnFailure, onCancel: d.OnCancel} {
		for i := range list {
			n := &node{id: list[i].ID, step: &list[i], plan: p.Step(list[i].ID), phase: phase(ph), status: state.Pending, locks: locksOf(&list[i])}
			if n.plan == nil {
				return nil, fmt.Errorf("runner: step %s is not in the plan", n.step.ID)
			}
			if rec, ok := records[n.id]; ok {
				e.restore(n, rec)
			}
			if n.phase == ordinary && !n.status.Ended() {
				e.left++
			}
			e.byID[n.id] = n
			e.nodes = append(e.nodes, n)
		}
	}
	if err := e.link(); err != nil {
		return nil, err
	}
	e.late = run.TimedOutUTC != ""
	e.timeout = e.late
	for _, n := range e.nodes {
		if n.phase != ordinary || n.status != state.Failed || n.settled() {
			continue
		}
		e.failing = e.failing || n.now
		if e.late && !n.stopped() && records[n.id].EndedUTC <= run.TimedOutUTC {
			e.timeout = false // it had failed before its deadline
		}
	}
	return e, nil
}

// restore takes over what is on record of a step.
func (e *execution) restore(n *node, rec state.Step) {
	n.status, n.reason = rec.Status, state.Code(rec.Reason)
	if rec.Status == state.Failed { // its reason is in words
		n.reason, n.why = state.Code(rec.ErrorCode), rec.Reason
	}
	n.attempt, n.failures, n.interruptions, n.infra = rec.Attempt, rec.Failures, rec.Interruptions, rec.InfraFaults
	n.due, n.after, n.overlay, n.outputsHash = rec.DueTime(), stampOrZero(rec.After), rec.Overlay, rec.OutputsHash
	n.now = rec.Status.Ended() && rec.Generation == e.run.Generation
	n.list, n.afresh, n.repeat = rec.Items, rec.Afresh, rec.Repeat
	if rec.Status == state.Running && rec.Child != nil && rec.Child.Status == "" && !rec.Open {
		n.child = rec.Child.RunID
	}
	if n.live = n.status == state.Queued || n.status == state.Running; n.live {
		e.live++
	}
	if n.status == state.CheckpointPending {
		e.asked++
		n.approval, n.outputsHash = rec.Approval, rec.Approval.Request.OutputsHash
	}
}

// restoreOrder numbers the steps and items that have ended by their times.
func (e *execution) restoreOrder(records map[string]state.Step) {
	var done []*node
	for _, n := range e.all() {
		if n.status.Ended() {
			done = append(done, n)
		}
	}
	rank := func(n *node) int { // while the clock stands
		switch {
		case n.parent != nil: // an item is rather outdated than not
			return 0
		case n.step.ForEach != nil: // with a step that fails the run ends one whose items lose their turn
			return 2
		}
		return 1
	}
	slices.SortStableFunc(done, func(a, b *node) int {
		return cmp.Or(cmp.Compare(records[a.id].EndedUTC, records[b.id].EndedUTC), cmp.Compare(rank(a), rank(b)))
	})
	for i, n := range done {
		n.order = i + 1
	}
	e.ends = len(done)
}

// link joins the steps by their needs and puts them in order.
func (e *execution) link() error {
	for _, n := range e.nodes {
		for _, id := range n.step.Needs {
			need, ok := e.byID[id]
			if !ok {
				return fmt.Errorf("runner: step %s needs the unknown step %s", n.id, id)
			}
			n.needs = append(n.needs, need)
			need.dependents = append(need.dependents, n)
		}
	}
	for _, n := range e.nodes {
		slices.SortFunc(n.dependents, byID)
	}
	if err := e.sortNodes(); err != nil {
		return err
	}
	for _, n := range e.nodes {
		for _, need := range n.needs {
			if !need.over {
				n.waiting++
			}
		}
		n.over = n.status.Ended() && n.waiting == 0
	}
	return nil
}

// sortNodes puts the nodes in topological order, ties by step id.
func (e *execution) sortNodes() error {
	indegree := make(map[*node]int, len(e.nodes))
	var ready nodeHeap
	for _, n := range e.nodes {
		if indegree[n] = len(n.needs); len(n.needs) == 0 {
			ready = append(ready, n)
		}
	}
	heap.Init(&ready)
	order := make([]*node, 0, len(e.nodes))
	for len(ready) > 0 {
		n := heap.Pop(&ready).(*node)
		order = append(order, n)
		for _, d := range n.dependents {
			if indegree[d]--; indegree[d] == 0 {
				heap.Push(&ready, d)
			}
		}
	}
	if len(order) != len(e.nodes) {
		return fmt.Errorf("runner: the steps of %s form a cycle", e.dag.ID)
	}
	e.nodes = order
	return nil
}

// nodeHeap is a heap by step id.
type nodeHeap []*node

func (h nodeHeap) Len() int           { return len(h) }
func (h nodeHeap) Less(i, j int) bool { return byID(h[i], h[j]) < 0 }
func (h nodeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *nodeHeap) Push(x any)        { *h = append(*h, x.(*node)) }

func (h *nodeHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	*h = (*h)[:last]
	return n
}

// all are the nodes in order, each step's items after it, also those that its list has
// no more: something may be left of them.
func (e *execution) all() []*node {
	out := make([]*node, 0, len(e.nodes))
	for _, n := range e.nodes {
		out = append(append(out, n), n.every...)
	}
	return out
}

// find finds a step or an item.
func (e *execution) find(id string) *node {
	if n := e.byID[id]; n != nil {
		return n
	}
	step, number, _ := strings.Cut(id, ".")
	i, err := strconv.Atoi(number)
	if n := e.byID[step]; n != nil && err == nil && i >= 0 && i < len(n.items) {
		return n.items[i]
	}
	return nil
}

// touch notes that something happens.
func (e *execution) touch() { e.moved.Store(int64(e.r.opt.Now().Sub(e.r.begun))) }

// idle is for how long nothing has, on the monotonic clock.
func (e *execution) idle() time.Duration {
	return e.r.opt.Now().Sub(e.r.begun) - time.Duration(e.moved.Load())
}

// propose adds an entry to the batch.
func (e *execution) propose(t ledger.Type, n *node, data any) {
	e.proposeBy("system:runner", t, n, data)
}

func (e *execution) proposeBy(actor string, t ledger.Type, n *node, data any) {
	p := state.Proposal{Type: t, Actor: actor, Data: data}
	if n != nil {
		p.StepID = n.id
		switch t {
		case ledger.AttemptStarted, ledger.AttemptEnded, ledger.SubrunStarted, ledger.SubrunEnded, ledger.StepExpanded, ledger.StepCached,
			ledger.ApprovalRequested, ledger.ApprovalDecided, ledger.ApprovalRefused, ledger.ApprovalClosed:
			p.Attempt = n.attempt
		}
	}
	e.batch = append(e.batch, p)
}

// timer is one that ends with the run.
type timer struct {
	*time.Timer
	over func() // called once, when it has done its work or was stopped; may be nil
}

// after calls f when a time has passed, unless the run has ended before.
func (e *execution) after(wait time.Duration, f, over func()) {
	e.tmu.Lock()
	defer e.tmu.Unlock()
	t := &timer{over: over}
	t.Timer = time.AfterFunc(wait, func() {
		e.tmu.Lock()
		delete(e.timers, t)
		e.tmu.Unlock()
		f()
		if over != nil {
			over()
		}
	})
	e.timers[t] = struct{}{}
}

// setEnded ends the model: it decides nothing any more.
func (e *execution) setEnded() {
	e.ended.Store(true)
	e.tmu.Lock()
	defer e.tmu.Unlock()
	for t := range e.timers {
		if t.Stop() && t.over != nil {
			t.over()
		}
	}
	clear(e.timers)
}

func stampOrZero(s string) time.Time {
	st := state.Step{Due: s}
	return st.DueTime()
}
