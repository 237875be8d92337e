package runner_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// model is what runs may do, told from their entries alone and without the code
// that projects them.
type model struct {
	dags map[string]*manifests.DAG
	runs map[string]*modelRun
	size int64 // entries read
	lost bool  // somebody has taken a lock away: who had it may go on for a while
}

type modelRun struct {
	site       *model
	dag        *manifests.DAG
	parent     string // with the step in it that it was started by
	parentStep string
	first      int64
	begun      bool
	ended      state.Status
	generation int
	stopping   bool // somebody asked for its end, or its deadline has passed
	aborted    bool
	cancelled  bool
	noCleanup  bool // it was failed while it cleaned up
	alone      bool // reopened: no step waits for it, or holds a lock for it
	mends      bool // reopened for its cleanup alone
	steps      map[string]*modelStep
}

type modelStep struct {
	status   state.Status
	step     *manifests.Step
	ordinary bool
	phase    int // see phaseOf
	item     bool
	count    int // of its items
	reason   state.Code
	ended    int // the generation in which it did
	attempt  int
	open     bool
	outcome  state.Outcome // of its last attempt
	asked    bool
	decided  map[string]int // decision → how many people
	people   map[string]bool
	quorum   int
	child    string
	lost     bool       // it has lost its lock
	below    state.Code // for which its last sub-run waits for a person
	once     string     // of that sub-run: a step that no rule does again
	failures int        // since it was pending last
	again    bool       // a person has taken it upon himself since the last attempt, or sub-run
	last     string     // its last sub-run
	stale    bool       // what it reads is done again, while it was under way or waited for people
	anew     bool       // what it reads is done again: none of its items stays completed
}

func newModel() *model {
	return &model{dags: map[string]*manifests.DAG{}, runs: map[string]*modelRun{}}
}

// read takes over the entries that are new.
func (m *model) read(db *store.DB) error {
	if db.Size() < m.size {
		return fmt.Errorf("the ledger has %d entries, and had %d", db.Size(), m.size)
	}
	for l, err := range db.Entries(m.size, db.Size()) {
		if err != nil {
			return err
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			return err
		}
		line, err := ledger.ParseData(l.Data)
		if err != nil {
			return err
		}
		data, err := ledger.DecodeData(env.Type, line.Data)
		if err != nil {
			return err
		}
		m.size = env.Seq + 1
		m.lost = m.lost || env.Type == ledger.LockForced || env.Type == ledger.LockReclaimed
		if env.RunID == "" {
			continue
		}
		if err := m.add(env, data); err != nil {
			return fmt.Errorf("entry %d, %s of step %q, attempt %d, by %s: %w\n%s", env.Seq, env.Type, env.StepID, env.Attempt, env.Actor, err, m.story(db, env.RunID))
		}
	}
	return nil
}

// story is what has happened to a run.
func (m *model) story(db *store.DB, id string) string {
	var b strings.Builder
	for l := range db.RunEntries(id) {
		env, _ := ledger.ParseEnvelope(l.Envelope)
		data, _ := ledger.ParseData(l.Data)
		fmt.Fprintf(&b, "   %d %s %s %s %d by %s %s\n", env.Seq, env.Time[11:23], env.Type, env.StepID, env.Attempt, env.Actor, data.Data)
	}
	return b.String()
}

func (m *model) add(env ledger.Envelope, data any) error {
	r := m.runs[env.RunID]
	if d, ok := data.(*ledger.RunStart); ok {
		if r != nil {
			return fmt.Errorf("it was started before")
		}
		dag := m.dags[env.DAGID]
		m.runs[env.RunID] = &modelRun{site: m, dag: dag, parent: d.Parent, parentStep: d.ParentStep, first: env.Seq, generation: 1, steps: map[string]*modelStep{}}
		return expect(d.Steps == len(dag.Steps)+len(dag.OnFailure)+len(dag.OnCancel), "it counts %d steps", d.Steps)
	}
	switch {
	case r == nil:
		return fmt.Errorf("no such run")
	case r.ended != "" && env.Type != ledger.ApprovalRefused && env.Type != ledger.RunReopened:
		return fmt.Errorf("the run is %s", r.ended)
	case env.StepID == "":
		if _, ok := data.(*ledger.RunEnd); ok {
			for id, sub := range m.runs {
				if sub.parent == env.RunID && sub.ended == "" && !sub.alone {
					return fmt.Errorf("its sub-run %s goes on", id)
				}
			}
		}
		return r.add(env, data)
	}
	s, err := r.step(env.StepID)
	if err != nil {
		return err
	}
	return s.add(r, env, data)
}

func expect(ok bool, format string, a ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, a...)
}

func (r *modelRun) step(id string) (*modelStep, error) {
	if s := r.steps[id]; s != nil {
		return s, nil
	}
	of, item := stepOf(id), strings.Contains(id, ".")
	for i, list := range [][]manifests.Step{r.dag.Steps, r.dag.OnFailure, r.dag.OnCancel} {
		for j := range list {
			if list[j].ID == of {
				r.steps[id] = &modelStep{status: state.Pending, step: &list[j], ordinary: i == 0, phase: i, item: item}
				return r.steps[id], nil
			}
		}
	}
	return nil, fmt.Errorf("no step %s", id)
}

// stepOf is the step of an item, or the step itself.
func stepOf(id string) string {
	of, _, _ := strings.Cut(id, ".")
	return of
}

func (r *modelRun) add(env ledger.Envelope, data any) error {
	switch d := data.(type) {
	case *ledger.RunGeneration:
		if d.Generation != r.generation+1 {
			return fmt.Errorf("generation %d follows %d", d.Generation, r.generation)
		}
		r.generation = d.Generation
		if env.Type == ledger.RunReopened {
			was := r.ended
			r.ended, r.stopping, r.begun, r.alone, r.noCleanup, r.mends = "", r.stopping && d.Cleanup, true, true, false, d.Cleanup
			return expect(was == state.Failed && person(env.Actor), "a run that was %q is reopened", was)
		}
		return expect(person(env.Actor), "nobody asked for it")
	case *ledger.RunFailing:
		r.stopping, r.noCleanup = true, d.Cleanup
	case *ledger.Nudge:
	case *ledger.Note:
		if env.Type != ledger.RunResumed {
			r.stopping = true
		}
		r.cancelled = r.cancelled || env.Type == ledger.RunCancelRequested || env.Type == ledger.RunAbortRequested
		r.aborted = r.aborted || env.Type == ledger.RunAbortRequested
	case *ledger.RunEnd:
		return r.end(env.Type)
	}
	return nil
}

// passes says whether what was passed over stands for what it needs itself.
func (r *modelRun) passes(s *modelStep, seen map[*modelStep]bool) bool {
	if seen[s] || s.reason != state.SkippedByHand {
		return true
	}
	seen[s] = true
	for _, id := range s.step.Needs {
		if x, err := r.step(id); err != nil || !x.settled() || !r.passes(x, seen) {
			return false
		}
	}
	return true
}

// end is the end of a run: nothing of it is under way, and what it leaves behind
// goes with how it ended.
func (r *modelRun) end(t ledger.Type) error {
	r.ended = map[ledger.Type]state.Status{ledger.RunCompleted: state.Completed, ledger.RunFailed: state.Failed, ledger.RunCancelled: state.Cancelled}[t]
	for id, s := range r.steps {
		if s.status == state.Queued || s.status == state.Running || s.status == state.CheckpointPending {
			return fmt.Errorf("step %s is %s", id, s.status)
		}
	}
	if err := expect((t == ledger.RunCancelled) == r.cancelled || t == ledger.RunFailed && r.cancelled, "its end was asked for: %v", r.cancelled); err != nil {
		return err
	}
	if t == ledger.RunCancelled && r.aborted {
		return nil
	}
	for i := range r.dag.Steps {
		s, err := r.step(r.dag.Steps[i].ID)
		if err != nil {
			return err
		}
		if !s.status.Ended() || t == ledger.RunCompleted && !s.settled() {
			return fmt.Errorf("step %s is %s %s", s.step.ID, s.status, s.reason)
		}
	}
	for i := range r.dag.OnFailure {
		s, err := r.step(r.dag.OnFailure[i].ID)
		if err != nil {
			return err
		}
		if t == ledger.RunFailed && !r.cancelled && !s.status.Ended() {
			return fmt.Errorf("step %s, which cleans up after a failure, is %s", s.step.ID, s.status)
		}
	}
	return expect(t != ledger.RunCompleted || len(r.dag.Outputs) == 0, "it has outputs that cannot be")
}

func (s *modelStep) settled() bool {
	switch s.status {
	case state.Completed:
		return true
	case state.Skipped:
		return s.reason == state.ConditionFalse || s.reason == state.StepDisabled || s.reason == state.SkippedByHand
	case state.Failed:
		switch s.reason {
		case state.Indeterminate, state.RunTimeout, state.FailedByHand, state.Stalled, state.TooManyEntries:
			return false
		}
		return s.step.ContinueOnError
	}
	return false
}

// failed says whether a step has failed the run: in this generation, and at all.
func (r *modelRun) failed() (now, ever bool) {
	for _, x := range r.steps {
		if x.ordinary && !x.item && x.status == state.Failed && !x.settled() {
			now, ever = now || x.ended == r.generation, true
		}
	}
	return now, ever
}

// mayBegin says why a step may not begin now: what it needs comes first, nothing
// ordinary begins in a run that is ending, and cleanup only in one.
func (r *modelRun) mayBegin(s *modelStep) error {
	now, ever := r.failed()
	switch {
	case r.aborted:
		return fmt.Errorf("the run was aborted")
	case s.ordinary && (r.stopping || now && r.dag.FailFast):
		return fmt.Errorf("the run is ending")
	case s.phase == 1 && (r.cancelled || r.noCleanup), s.phase == 2 && !r.cancelled:
		return fmt.Errorf("it is not its turn to clean up: cancelled %v, given up %v", r.cancelled, r.noCleanup)
	}
	for _, id := range s.step.Needs {
		if need, err := r.step(id); err != nil || !need.settled() || !r.passes(need, map[*modelStep]bool{}) {
			return fmt.Errorf("it needs %s, which is %s %s", id, need.status, need.reason)
		}
	}
	for id, x := range r.steps {
		if s.ordinary && x.phase > 0 && !x.item && x.status != state.Pending && x.reason != state.SkippedByHand {
			return fmt.Errorf("the run cleans up: %s is %s", id, x.status)
		}
	}
	if s.ordinary {
		return nil
	}
	for i := range r.dag.Steps {
		x, _ := r.step(r.dag.Steps[i].ID)
		if !x.status.Ended() {
			return fmt.Errorf("step %s is %s", x.step.ID, x.status)
		}
		ever = ever || !x.settled()
	}
	return expect(ever || r.stopping, "there is nothing to clean up")
}

// compare holds what the store says of runs, steps and locks against the model.
func (m *model) compare(db *store.DB, b *box) error {
	inside := map[string]bool{}
	for _, x := range b.list(nil) {
		inside[fmt.Sprint(x.task.RunID, x.task.StepID, x.task.Attempt)] = true
	}
	for id, r := range m.runs {
		run, err := db.Run(id)
		if err != nil {
			return err
		}
		steps, err := db.Steps(id)
		if err != nil {
			return err
		}
		if err := r.compare(run, steps); err != nil {
			return fmt.Errorf("run %s: %w", id, err)
		}
		for stepID, s := range r.steps {
			if s.open && !inside[fmt.Sprint(id, stepID, s.attempt)] {
				return fmt.Errorf("attempt %d of step %s of run %s is under way on record alone", s.attempt, stepID, id)
			}
		}
	}
	if err := m.exclusive(b); err != nil {
		return err
	}
	return m.compareLocks(db)
}

// exclusive: what is under way, whatever the record says of it, is so under a lock of
// its step or of the steps that its run is a part of, and nothing else is under that.
func (m *model) exclusive(b *box) error {
	under := map[string]string{} // lock → who
	for _, x := range b.list(m.order()) {
		id, who := x.task.StepID, fmt.Sprint(x.task.RunID, x.task.StepID, x.task.Attempt)
		for r := m.runs[x.task.RunID]; r != nil; r = m.runs[r.parent] {
			s, err := r.step(id)
			if err != nil {
				return err
			}
			for _, lock := range s.step.Locks {
				if other := under[lock]; other != "" && other != who && !m.lost {
					return fmt.Errorf("%s and %s are under way under lock %s", other, who, lock)
				}
				under[lock] = who
			}
			if r.alone {
				break
			}
			id, who = r.parentStep, fmt.Sprint(r.parent, r.parentStep)+" by "+x.task.RunID
		}
	}
	return nil
}

func (r *modelRun) compare(run state.Run, steps map[string]state.Step) error {
	want := state.Run{Generation: r.generation, Status: r.ended, Counts: map[state.Status]int{}}
	for id, s := range r.steps {
		rec, ok := steps[id]
		if !ok {
			rec.Status = state.Pending
		}
		if rec.Status != s.status || rec.Attempt != s.attempt || rec.Open != s.open {
			return fmt.Errorf("step %s is %s, attempt %d, on record; it should be %s, attempt %d", id, rec.Status, rec.Attempt, s.status, s.attempt)
		}
		if s.status != state.Pending {
			want.Counts[s.status]++
		}
		if s.open {
			want.Open++
		}
		if s.asked {
			want.Waiting++
		}
	}
	switch {
	case want.Status != "":
	case want.Waiting > 0:
		want.Status = state.Checkpoint
	case r.begun:
		want.Status = state.Running
	default:
		want.Status = state.Planning
	}
	got := state.Run{Generation: run.Generation, Status: run.Status, Counts: maps.Clone(run.Counts), Open: run.Open, Waiting: run.Waiting}
	if got.Counts == nil {
		got.Counts = map[state.Status]int{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("the run on record (-model +record):\n%s", diff)
	}
	return expect(run.Pending() >= 0, "%d steps are pending", run.Pending())
}

// givenUp says whether a step holds something for a sub-run that it has given up and
// that goes on.
func (m *model) givenUp(h state.LockHolder) bool {
	for id, r := range m.runs {
		if r.parent == h.RunID && r.parentStep == h.StepID && r.ended == "" && m.runs[h.RunID].steps[h.StepID].child != id {
			return true
		}
	}
	return false
}

// compareLocks: a lock has one holder, a semaphore no more than its capacity, and
// whoever holds something does something.
func (m *model) compareLocks(db *store.DB) error {
	held, err := db.Locks("")
	if err != nil {
		return err
	}
	holders := map[string]bool{}
	for _, rec := range held {
		for _, h := range rec.Holders {
			holders[h.RunID+h.StepID+rec.Name] = true
		}
	}
	for id, r := range m.runs { // also when its step does not wait for it any more
		if r.parent == "" || r.ended != "" || r.alone || m.lost {
			continue
		}
		for _, lock := range m.runs[r.parent].steps[r.parentStep].step.Locks {
			if !holders[r.parent+r.parentStep+lock] {
				return fmt.Errorf("run %s goes on, and its step %s does not hold %s", id, r.parentStep, lock)
			}
		}
	}
	for _, rec := range held {
		sum := int64(0)
		for _, h := range rec.Holders {
			sum += h.Weight
			r := m.runs[h.RunID]
			s := r.steps[h.StepID]
			if s == nil || !m.givenUp(h) && (s.attempt != h.Attempt || !s.open && s.child == "") {
				return fmt.Errorf("%s %s is held by attempt %d of step %s, which does nothing", rec.Kind, rec.Name, h.Attempt, h.StepID)
			}
			if !slices.Contains(s.step.Locks, rec.Name) && s.step.Semaphores[rec.Name] != h.Weight {
				return fmt.Errorf("step %s holds %d of %s", h.StepID, h.Weight, rec.Name)
			}
		}
		if most := map[string]int64{"lock": 1, "semaphore": 3}[rec.Kind]; sum > most {
			return fmt.Errorf("%d of %s %s are held, there are %d", sum, rec.Kind, rec.Name, most)
		}
	}
	return nil
}
