package runner_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// repair is a run of a random shape that is ended while much of it is under way, and that
// somebody then brings to its completion, step by step.
type repair struct {
	g     *gambler
	w     *world
	d     *manifests.DAG
	run   string
	needs map[string][]string
	stop  func()
	still sync.RWMutex // held for writing while somebody decides

	mu    sync.Mutex // guards what follows
	first bool       // until the run has ended for the first time
	begun map[string]int
	named map[string]int // how often somebody has said that it may do again what it has done
	wrong string
	read  map[string]string // when all that comes before a step or an item had ended as that began
	alone map[string]bool   // steps that somebody has done again without what was built upon them
	left  int               // attempts, after which none fails any more, and nobody does again what is done
}

// once says whether a step or an item must not be done twice: those that may begin with i.
func once(id string) bool { return id[0] != 'i' }

// done says whether what comes after a step may begin, or an item needs nothing more.
func done(s string) bool {
	return s == "completed" || strings.HasPrefix(s, "skipped SKIPPED_BY_HAND")
}

// over says whether a step is done, or has failed by itself and may.
func (r *repair) over(steps map[string]string, id string) bool {
	of, _, _ := strings.Cut(id, ".")
	return done(steps[id]) || done(steps[of]) && strings.HasPrefix(steps[of], "skipped") || strings.Contains(steps[id], "STEP_REJECTED") ||
		strings.Contains(steps[id], string(state.ChildFailed)) // of an item that has
}

func (r *repair) attempt(ctx context.Context, task runner.Task) (runner.Report, error) {
	key := task.StepID
	if task.RunID != r.run {
		below, _ := r.w.db.Run(task.RunID)
		key = below.ParentStepID + "/" + key
	}
	r.still.RLock()
	r.still.RUnlock()
	r.g.note("  %s.%d begins", key, task.Attempt)
	_, steps := r.w.look(r.run)
	r.mu.Lock()
	r.begun[key]++
	if r.begun[key] > 1+r.named[key] && once(task.StepID) {
		r.wrong = fmt.Sprintf("%s was begun %d times", key, r.begun[key])
	}
	if task.RunID == r.run {
		r.reads(key)
		r.ahead(steps, key, true, false)
	}
	first := r.first && task.StepID != "ik"
	r.mu.Unlock()
	wait := time.Duration(r.g.IntN(3)) * 20 * time.Second
	if first && r.g.IntN(2) == 0 {
		wait = time.Hour
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return runner.Report{Stop: runner.StopShutdown}, nil
	}
	r.mu.Lock()
	r.left--
	fails := r.left > 0 && task.StepID != "ik" && task.RunID == r.run && r.g.IntN(3) == 0
	r.mu.Unlock()
	if first && r.g.IntN(6) == 0 || !first && fails {
		r.mu.Lock()
		r.named[key]++ // it has failed by itself, and has done nothing
		r.mu.Unlock()
		return exit(65), nil
	}
	return exit(0), nil
}

// before are all that come before a step.
func (r *repair) before(id string) []string {
	seen := map[string]bool{}
	todo := r.needs[id]
	for ; len(todo) > 0; todo = todo[1:] {
		if !seen[todo[0]] {
			seen[todo[0]] = true
			todo = append(slices.Clone(todo), r.needs[todo[0]]...)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// reads notes what a step or an item reads as it begins.
func (r *repair) reads(id string) {
	recs, _ := r.w.db.Steps(r.run)
	of, _, _ := strings.Cut(id, ".")
	r.read[id] = ""
	for _, x := range r.before(of) {
		r.read[id] += x + "@" + recs[x].EndedUTC + " "
	}
}

// mixed finds items of a step that has completed which have read what had ended at different times.
func (r *repair) mixed(steps map[string]string) string {
	for _, p := range r.d.Steps {
		first := ""
		for i := range 3 {
			id := fmt.Sprintf("%s.%d", p.ID, i)
			switch {
			case p.ForEach == nil || steps[p.ID] != "completed" || steps[id] != "completed":
			case first == "":
				first = id
			case r.read[first] != r.read[id]:
				return fmt.Sprintf("%s has read %s, and %s %s", first, r.read[first], id, r.read[id])
			}
		}
	}
	return ""
}

// ahead finds something before a step that begins which is not done: what it needs, also through
// steps that were passed over, lacks no item, and nothing before that has been stopped or has lost its turn.
// Behind what has completed a step may be done again that somebody has begun without what was built upon it.
func (r *repair) ahead(steps map[string]string, id string, needed, behind bool) {
	id, _, _ = strings.Cut(id, ".")
	for _, x := range r.needs[id] {
		for i := range 3 {
			if s := steps[fmt.Sprintf("%s.%d", x, i)]; needed && strings.HasPrefix(s, "skipped RUN_") && !done(steps[x]) {
				r.wrong = fmt.Sprintf("%s, or what comes after it, begins while %s.%d is %s", id, x, i, s)
			}
		}
		if !r.over(steps, x) && !(behind && r.alone[x]) {
			r.wrong = fmt.Sprintf("%s, or what comes after it, begins while %s is %s", id, x, steps[x])
		}
		r.ahead(steps, x, needed && done(steps[x]) && strings.HasPrefix(steps[x], "skipped"), behind || steps[x] == "completed")
	}
}

// calm lets somebody decide while no attempt goes on: what is taken back of a refused decision is
// what was said for it, and not what an attempt has said meanwhile.
func (r *repair) calm(decide func() bool) bool {
	synctest.Wait()
	r.still.Lock()
	defer r.still.Unlock()
	return decide()
}

// shape draws the DAG.
func (r *repair) shape() {
	g := r.g
	names, list := []string{"a", "b", "i1", "e", "f", "i2"}, []string{}
	for i, id := range names {
		for _, x := range names[:i] {
			if g.IntN(3) == 0 {
				r.needs[id] = append(r.needs[id], x)
			}
		}
		if len(r.needs[id]) > 0 {
			id += "<" + strings.Join(r.needs[id], ",")
		}
		list = append(list, id)
	}
	r.d = dag(func(d *manifests.DAG) {
		d.FailFast, d.MaxParallelSteps = g.IntN(2) == 0, 2+g.IntN(4)
		if g.IntN(3) == 0 {
			d.Timeout = 3 * time.Minute
		}
		for i := range d.Steps {
			r.step(&d.Steps[i])
		}
		if g.IntN(2) == 0 {
			d.OnFailure = dag(nil, "ik").Steps
		}
	}, list...)
}

func (r *repair) step(s *manifests.Step) {
	g := r.g
	s.AllowSkip, s.ContinueOnError = g.IntN(3) > 0, g.IntN(4) == 0
	if once(s.ID) {
		s.Action = "once"
	}
	if g.IntN(3) == 0 {
		s.Checkpoint = &manifests.Checkpoint{Question: "?", Required: g.IntN(3) == 0}
	}
	switch g.IntN(5) {
	case 0, 1:
		s.ForEach, s.MaxParallel = []any{"a", "b", "c"}, 1+g.IntN(3)
	case 2:
		if s.ID == "e" {
			s.Plugin, s.Action, s.DAG = nil, "", "child@1.0.0"
		}
		if g.IntN(2) == 0 {
			s.ForEach, s.MaxParallel = []any{"a", "b", "c"}, 1+g.IntN(3)
		}
	}
	g.note("step %s needs %v skip %v each %v/%d checkpoint %+v continue %v sub %q", s.ID, s.Needs, s.AllowSkip, s.ForEach, s.MaxParallel, s.Checkpoint, s.ContinueOnError, s.DAG)
}

// restart lets another process go on, where nothing is under way.
func (r *repair) restart(t *testing.T) {
	synctest.Wait()
	now, steps := r.w.look(r.run)
	if all := fmt.Sprint(steps); now.Status.Ended() || strings.Contains(all, "running") || strings.Contains(all, "queued") {
		return
	}
	r.g.note("restart")
	if r.stop(); !now.Status.Ended() {
		r.stop = r.w.again(t, r.run, r.d, 8)
	}
}

// broken are the steps and items that the end of the run has stopped, or kept from their turn
// or approval, and those that have failed; in any order.
func (r *repair) broken(steps map[string]string, recs map[string]state.Step) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(recs)) {
		s := recs[id]
		of, _, item := strings.Cut(id, ".")
		if id != "ik" && !(item && done(steps[of])) && (s.Status == state.Failed || s.Status == state.Skipped && state.LostTurn(state.Code(s.Reason))) {
			ids = append(ids, id)
		}
	}
	for i := len(ids) - 1; i > 0; i-- {
		j := r.g.IntN(i + 1)
		ids[i], ids[j] = ids[j], ids[i]
	}
	return ids
}

// mend takes one of them: passes it over, where that may be, else begins it again by name. A
// retry without a name says nothing of what has been done.
func (r *repair) mend(ids []string) bool {
	o := r.w.asIs(r.run, r.d)
	if r.g.IntN(4) == 0 {
		err := second(r.w.r.Retry(o, runner.Retry{Actor: "uid:7"}))
		if r.g.note("retry: %v", err); err == nil {
			return true
		}
	}
	if r.restless() && r.g.IntN(3) > 0 && r.redo() {
		return true
	}
	for _, id := range ids {
		err := second(r.w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: id}))
		if r.g.note("skip %s: %v", id, err); err == nil {
			return true
		}
	}
	for _, repeat := range []bool{false, true} { // with that nothing is done twice but what is named
		for _, id := range ids {
			before := r.says(repeat, id)
			err := second(r.w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: id, Repeat: repeat, Only: repeat}))
			if r.g.note("retry %s, repeat %v: %v", id, repeat, err); err == nil {
				return true
			}
			r.mu.Lock()
			r.named = before
			r.mu.Unlock()
		}
	}
	return false
}

// restless says whether attempts still fail, and what is done is still done again.
func (r *repair) restless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left > 0
}

// redo does again any step or item, done or not, by any of the commands.
func (r *repair) redo() bool {
	o, id := r.w.asIs(r.run, r.d), r.d.Steps[r.g.IntN(len(r.d.Steps))].ID
	of := id
	if r.g.IntN(4) == 0 {
		id += fmt.Sprintf(".%d", r.g.IntN(3))
	}
	what, only, repeat := []string{"retry", "retry", "reset", "skip", "downstream"}[r.g.IntN(5)], r.g.IntN(3) == 0, r.g.IntN(3) == 0
	repeat = repeat && only // else it is about all
	return r.unless(func() (err error) {
		if what != "skip" { // which begins nothing of it
			r.says(repeat, id)
		}
		switch what {
		case "retry":
			err = second(r.w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: id, Only: only, Repeat: repeat}))
		case "reset":
			err = second(r.w.r.Reset(o, runner.Reset{Actor: "uid:7", StepID: id, Only: only, Repeat: repeat}))
		case "skip":
			err = second(r.w.r.Skip(o, runner.Skip{Actor: "uid:7", StepID: id, Only: only, Repeat: repeat, Output: []byte(`{"v":1}`)}))
		default:
			for _, s := range r.d.Steps {
				if slices.Contains(r.before(s.ID), of) {
					r.says(repeat, s.ID)
				}
			}
			err = second(r.w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: id, Only: only, Repeat: repeat, Downstream: true}))
		}
		if r.mu.Lock(); err == nil && (only || what != "downstream") { // what has completed behind it stays
			r.alone[of] = true
		}
		r.mu.Unlock()
		r.g.note("%s %s, only %v, repeat %v: %v", what, id, only, repeat, err)
		return err
	})
}

// goBack lets somebody decide that what waits for him is done again.
func (r *repair) goBack(rec state.Step) bool {
	x := decision(rec, "uid:9", "retry")
	x.Downstream = r.g.IntN(2) == 0
	return r.unless(func() error {
		r.says(false, rec.StepID)
		if all := r.before(rec.StepID); len(all) > 0 && r.g.IntN(2) == 0 {
			x.BackTo = all[r.g.IntN(len(all))]
			r.says(false, x.BackTo)
		}
		err := second(r.w.r.Decide(r.w.asIs(r.run, r.d), x))
		r.g.note("%s goes back to %q, downstream %v: %v", rec.StepID, x.BackTo, x.Downstream, err)
		return err
	})
}

// unless takes back what was said where it was refused, and says whether it was not.
func (r *repair) unless(f func() error) bool {
	before := r.says(false)
	err := f()
	if err != nil {
		r.mu.Lock()
		r.named = before
		r.mu.Unlock()
	}
	return err == nil
}

// says notes that steps or items may do again what they have done, with repeat also in their sub-runs,
// and returns what was said before.
func (r *repair) says(repeat bool, ids ...string) (before map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before = maps.Clone(r.named)
	for _, id := range ids {
		for x := range r.begun {
			of, _, below := strings.Cut(x, "/")
			if (of == id || strings.HasPrefix(of, id+".")) && (repeat || !below) {
				r.named[x] = r.begun[x]
			}
		}
	}
	return before
}

// decide lets somebody say yes now and then.
func (r *repair) decide(recs map[string]state.Step) {
	for _, id := range slices.Sorted(maps.Keys(recs)) {
		if recs[id].Status == state.CheckpointPending && r.restless() && r.g.IntN(3) == 0 && r.goBack(recs[id]) {
			return
		}
		if recs[id].Status == state.CheckpointPending && r.g.IntN(2) == 0 {
			_, err := r.w.r.Decide(r.w.asIs(r.run, r.d), decision(recs[id], "uid:9", "continue"))
			r.g.note("continue %s: %v", id, err)
		}
	}
}

// look says what is wrong with the run, and whether it is completed.
func (r *repair) look() (wrong string, completed bool) {
	if err := r.w.r.Invariants(); err != nil {
		return err.Error(), false
	}
	now, steps := r.w.look(r.run)
	r.g.note("run %s %s of %q: %v", now.Status, now.FailureReason, now.FailedStep, steps)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong != "" || now.Status != state.Completed {
		return r.wrong, false
	}
	if mixed := r.mixed(steps); mixed != "" {
		return mixed, true
	}
	for id, s := range steps {
		if id != "ik" && !r.over(steps, id) {
			return fmt.Sprintf("completed, and %s is %s", id, s), true
		}
	}
	return "", true
}

// Whatever the shape: what the end of a run has stopped, or kept from its turn or approval, is
// passed over or begun again one by one, in any order. Nothing is done twice that nobody has
// named, nothing begins ahead of what comes before it, and the run completes.
func TestWhatTheEndOfARunHasStoppedIsMended(t *testing.T) {
	gamble(t, func(t *testing.T, g *gambler) string {
		r := &repair{g: g, w: newWorld(t, nil), needs: map[string][]string{}, first: true, begun: map[string]int{}, named: map[string]int{}, read: map[string]string{}, alone: map[string]bool{}, left: 25}
		r.w.exec.run = stops(r.attempt)
		r.w.child(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "c", "id<c")
		r.shape()
		r.w.r = r.w.runner(8)
		r.run = r.w.start(r.d, "{}").RunID
		r.stop = r.w.executing()
		defer func() { r.stop() }()
		time.Sleep(time.Duration(20+g.IntN(100)) * time.Second)
		if r.d.Timeout == 0 {
			_, _ = r.w.r.Fail(r.w.asIs(r.run, r.d), "uid:7", state.FailedByHand, "x") // unless it has ended
		}
		time.Sleep(10 * time.Minute)
		r.mu.Lock()
		r.first = false
		r.mu.Unlock()
		r.d.Timeout = 0
		for range 80 {
			if g.IntN(6) == 0 {
				r.restart(t)
			}
			if wrong, completed := r.look(); wrong != "" || completed {
				return wrong
			}
			now, steps := r.w.look(r.run)
			recs, _ := r.w.db.Steps(r.run)
			r.calm(func() bool { r.decide(recs); return true })
			if ids := r.broken(steps, recs); now.Status == state.Failed && !r.calm(func() bool { return r.mend(ids) }) {
				return fmt.Sprintf("nothing is taken of %v", ids)
			}
			time.Sleep(time.Duration(g.IntN(4)) * time.Minute)
		}
		_, steps := r.w.look(r.run)
		return fmt.Sprintf("it does not complete: %v", steps)
	})
}
