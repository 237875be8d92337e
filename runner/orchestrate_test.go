package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// says is an executor whose steps give their parameters back as outputs.
func says(_ context.Context, t runner.Task) (runner.Report, error) {
	var req struct{ Params map[string]json.RawMessage }
	if err := json.Unmarshal(t.Request, &req); err != nil {
		return runner.Report{}, err
	}
	r := exit(0)
	r.Output.Values = req.Params
	return r, nil
}

// background lets the runner work until the test ends.
func (w *world) background() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.r.Run(ctx, false) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the runner: %v", err)
		}
	})
}

// until waits for a run to look as wanted.
func (w *world) until(id string, ok func(state.Run, map[string]state.Step) bool) (state.Run, map[string]state.Step) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed, _ := w.db.Changed()
		run, err := w.db.Run(id)
		if err != nil {
			w.t.Fatal(err)
		}
		steps, err := w.db.Steps(id)
		if err != nil {
			w.t.Fatal(err)
		}
		if ok(run, steps) {
			return run, steps
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("it does not come: run %+v, steps %+v", run, steps)
		}
	}
}

func (w *world) ended(id string) (state.Run, map[string]state.Step) {
	w.t.Helper()
	return w.until(id, func(r state.Run, _ map[string]state.Step) bool { return r.Status.Ended() })
}

func (w *world) blob(digest string) string {
	w.t.Helper()
	raw, err := w.sealed.Read(digest, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(raw)
}

func TestItemsRunBesideEachOtherWithinBounds(t *testing.T) {
	w := newWorld(t, says)
	w.r = w.runner(8)
	d := dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 8
		d.Inputs = map[string]manifests.Input{"hosts": {Type: "array"}}
		d.Steps[0].ForEach, d.Steps[0].MaxParallel = "${ inputs.hosts }", 3
		d.Steps[0].With = map[string]any{"host": "${ item }", "n": "${ index }"}
		d.Steps[1].With = map[string]any{"all": "${ steps.a.outputs.items.map(x, x.host) }"}
		d.Outputs = map[string]any{"last": "${ steps.b.outputs.all[4] }"}
	}, "a", "b<a")
	got, steps := w.finish(w.start(d, `{"hosts":["u","v","w","x","y"]}`).RunID)
	if got.Status != state.Completed || w.blob(got.OutputsHash) != `{"last":"y"}` {
		t.Fatalf("the run is %s %s %s: %v", got.Status, got.FailureReason, got.Message, steps)
	}
	if w.exec.most > 3 {
		t.Errorf("%d items at a time, at most 3 are allowed", w.exec.most)
	}
	if got.Items != 5 || got.Counts[state.Completed] != 7 || got.Pending() != 0 {
		t.Errorf("counts are %+v of %d items, %d pending", got.Counts, got.Items, got.Pending())
	}
}

func TestTooManyItemsAndNoList(t *testing.T) {
	for _, c := range []struct {
		list   string
		reason state.Code
	}{{`"${ inputs.x }"`, state.ExpressionInvalid}, {"", state.TooManyItems}} {
		w := newWorld(t, ok)
		d := dag(func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"x": {Type: "integer"}}
			d.Steps[0].ForEach = "${ inputs.x }"
			if c.list == "" {
				d.Steps[0].ForEach = make([]any, 1001)
			}
		}, "a")
		got, _ := w.finish(w.start(d, `{"x":1}`).RunID)
		if got.Status != state.Failed || got.FailureReason != string(c.reason) {
			t.Errorf("the run is %s %s, want %s", got.Status, got.FailureReason, c.reason)
		}
	}
	w := newWorld(t, ok)
	d := dag(func(d *manifests.DAG) { d.Steps[0].ForEach = []any{} }, "a", "b<a")
	if got, steps := w.finish(w.start(d, `{}`).RunID); got.Status != state.Completed {
		t.Errorf("an empty list: %s %v", got.Status, steps)
	}
}

func TestAFailedItemFailsItsStepAndRetryRepeatsOnlyIt(t *testing.T) {
	bad := true
	w := newWorld(t, nil)
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if bad && task.StepID == "a.1" {
			return exit(3), nil
		}
		return says(ctx, task)
	}
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].ForEach = []any{int64(0), int64(1), int64(2)}
	}, "a", "b<a")
	run := w.start(d, `{}`)
	got, steps := w.finish(run.RunID)
	want := map[string]string{
		"a": "failed STEP_FAILEDitem a.1", "a.0": "completed", "a.1": "failed STEP_FAILED", "a.2": "skipped RUN_FAILING", "b": "skipped UPSTREAM_FAILED",
	}
	if diff := cmp.Diff(want, steps); diff != "" || got.FailedStep != "a" {
		t.Fatalf("failed step %s (-want +got):\n%s", got.FailedStep, diff)
	}
	bad = false
	w.r = w.runner(1)
	if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7"}); err != nil {
		t.Fatal(err)
	}
	got, steps = w.finish(run.RunID)
	if got.Status != state.Completed || got.Generation != 2 || steps["a.2"] != "completed" {
		t.Errorf("after the retry the run is %s, generation %d: %v", got.Status, got.Generation, steps)
	}
	if diff := cmp.Diff([]string{"a.0.1", "a.1.1", "a.1.2", "a.2.1", "b.1"}, w.exec.seen); diff != "" {
		t.Errorf("executed (-want +got):\n%s", diff)
	}
}

// child is a DAG that another starts.
func (w *world) child(change func(*manifests.DAG), steps ...string) {
	d := dag(change, steps...)
	d.ID = "child"
	w.sealed.publish(d)
}

func parent(change func(*manifests.DAG), steps ...string) *manifests.DAG {
	return dag(func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "child@1.0.0"
		if change != nil {
			change(d)
		}
	}, steps...)
}

func TestASubRunGivesItsOutputsToItsStep(t *testing.T) {
	w := newWorld(t, says)
	w.child(func(d *manifests.DAG) {
		d.Inputs = map[string]manifests.Input{"x": {Type: "string", Required: true}}
		d.Steps[0].With = map[string]any{"y": "${ inputs.x }!"}
		d.Outputs = map[string]any{"z": "${ steps.c.outputs.y }"}
	}, "c")
	d := parent(func(d *manifests.DAG) {
		d.Steps[0].With = map[string]any{"x": "hello"}
		d.Outputs = map[string]any{"got": "${ steps.sub.outputs.z }"}
	}, "sub", "b<sub")
	run := w.start(d, "{}")
	got, steps := w.finish(run.RunID)
	if got.Status != state.Completed || w.blob(got.OutputsHash) != `{"got":"hello!"}` {
		t.Fatalf("the run is %s %s: %v", got.Status, got.Message, steps)
	}
	recs, _ := w.db.Steps(run.RunID)
	child, err := w.db.Run(recs["sub"].Child.RunID)
	if err != nil || child.ParentRunID != run.RunID || child.ParentStepID != "sub" || child.Depth != 1 || child.TraceID != run.TraceID {
		t.Errorf("the child is %+v, %v", child, err)
	}
}

func TestAFailedSubRunFailsItsStepWithItsError(t *testing.T) {
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) { return exit(65), nil })
	w.child(nil, "c")
	d := parent(nil, "sub", "b<sub")
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	recs, _ := w.db.Steps(run.RunID)
	if got.Status != state.Failed || got.FailureReason != "orchestration.child.failed" || !strings.Contains(recs["sub"].Reason, "STEP_REJECTED in c") {
		t.Errorf("the run is %s %s, its step says %q", got.Status, got.FailureReason, recs["sub"].Reason)
	}
	// the cause is mended: the parent's retry starts a new child
	w.exec.run = ok
	w.r = w.runner(1)
	if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "sub"}); err != nil {
		t.Fatal(err)
	}
	if got, steps := w.finish(run.RunID); got.Status != state.Completed {
		t.Errorf("after the retry: %s %v", got.Status, steps)
	}
}

func TestADisabledChildIsNotStarted(t *testing.T) {
	w := newWorld(t, ok)
	w.child(nil, "c")
	d := parent(nil, "sub")
	run := w.start(d, "{}")
	w.sealed.disabled["child@1.0.0"] = true
	got, _ := w.finish(run.RunID)
	if got.FailureReason != string(state.ChildRefused) {
		t.Errorf("the run is %s %s", got.Status, got.FailureReason)
	}
}

func TestCancelPassesDownToASubRun(t *testing.T) {
	begun := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, _ runner.Task) (runner.Report, error) {
		close(begun)
		<-ctx.Done()
		return runner.Report{Stop: runner.StopCancel}, nil
	})
	w.child(nil, "c")
	d := parent(nil, "sub", "b<sub")
	run := w.start(d, "{}")
	w.background()
	<-begun
	if _, err := w.r.Cancel("uid:7", "enough", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	got, steps := w.ended(run.RunID)
	child, _ := w.ended(steps["sub"].Child.RunID)
	if got.Status != state.Cancelled || child.Status != state.Cancelled || steps["sub"].Status != state.Cancelled {
		t.Errorf("the run is %s, its child %s, its step %s", got.Status, child.Status, steps["sub"].Status)
	}
}

func TestASubRunGoesOnAfterACrash(t *testing.T) {
	begun := make(chan struct{})
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		close(begun)
		select {}
	})
	w.child(nil, "c")
	d := parent(func(d *manifests.DAG) { d.Steps[0].Locks = []string{"l"} }, "sub", "b<sub")
	run := w.start(d, "{}")
	go w.r.Run(context.Background(), true)
	<-begun
	w.exec = &fake{run: ok}
	w.reopen()
	active, err := w.db.ActiveRuns()
	if err != nil || len(active) != 2 {
		t.Fatalf("%d runs are open, %v", len(active), err)
	}
	for _, r := range active {
		of := d
		if r.DAGID == "child" {
			of = w.sealed.dags["child@1.0.0"]
		}
		if _, err := w.r.Recover(context.Background(), w.opened(r, of)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	if got, steps := w.finish(run.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s: %v", got.Status, steps)
	}
	if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
		t.Errorf("locks are held still: %+v, %v", held, err)
	}
}

func gated(quorum int, change func(*manifests.DAG)) *manifests.DAG {
	return dag(func(d *manifests.DAG) {
		d.Steps[1].Checkpoint = &manifests.Checkpoint{Question: "go on with ${ steps.b.outputs.x }?", Quorum: quorum}
		d.Steps[1].With = map[string]any{"x": int64(1)}
		if change != nil {
			change(d)
		}
	}, "a", "b<a", "c<b")
}

func (w *world) asked(id, step string) state.Step {
	w.t.Helper()
	_, steps := w.until(id, func(r state.Run, s map[string]state.Step) bool {
		return r.Status == state.Checkpoint && s[step].Status == state.CheckpointPending
	})
	return steps[step]
}

func decision(s state.Step, actor, what string) runner.Decision {
	return runner.Decision{StepID: s.StepID, Attempt: s.Approval.Attempt, PlanHash: s.Approval.Request.PlanHash, Actor: actor, Decision: what}
}

func TestPeopleDecide(t *testing.T) {
	w := newWorld(t, says)
	d := gated(2, nil)
	run := w.start(d, "{}")
	w.background()
	s := w.asked(run.RunID, "b")
	if s.Approval.Request.Question != "go on with 1?" {
		t.Errorf("the question is %q", s.Approval.Request.Question)
	}
	o := w.opened(run, d)
	refused := func(d runner.Decision, code string) {
		t.Helper()
		var e *runner.DecisionError
		if _, err := w.r.Decide(o, d); !errors.As(err, &e) || e.Code != code {
			t.Errorf("Decide(%+v) = %v, want %s", d, err, code)
		}
	}
	stale := decision(s, "uid:7(x)", "continue")
	stale.PlanHash = strings.Repeat("0", 64)
	refused(stale, "STALE")
	if _, err := w.r.Decide(o, decision(s, "uid:7(x)", "continue")); err != nil {
		t.Fatal(err)
	}
	refused(decision(s, "uid:7(renamed)", "abort"), "ALREADY_DECIDED")
	if run, _ := w.db.Run(run.RunID); run.Status != state.Checkpoint {
		t.Errorf("one of two is enough: the run is %s", run.Status)
	}
	yes := decision(s, "uid:8(y)", "continue")
	if _, err := w.r.Decide(o, yes); err != nil {
		t.Fatal(err)
	}
	got, steps := w.ended(run.RunID)
	if got.Status != state.Completed || len(steps["b"].Approval.Decisions) != 2 || steps["b"].Approval.Status != state.ApprovalApproved {
		t.Errorf("the run is %s, the approval %+v", got.Status, steps["b"].Approval)
	}
	refused(decision(s, "uid:9(z)", "abort"), "ALREADY_DECIDED")
}

func TestApprovalThatIsRejectedOrExpires(t *testing.T) {
	for _, expire := range []bool{false, true} {
		w := newWorld(t, says)
		d := gated(1, func(d *manifests.DAG) {
			if expire {
				d.Steps[1].Checkpoint.Expires = 30 * time.Millisecond
			}
		})
		run := w.start(d, "{}")
		w.background()
		want := state.ApprovalExpired
		if !expire {
			want = state.ApprovalRejected
			if _, err := w.r.Decide(w.opened(run, d), decision(w.asked(run.RunID, "b"), "uid:7", "abort")); err != nil {
				t.Fatal(err)
			}
		}
		got, steps := w.ended(run.RunID)
		if got.Status != state.Cancelled || steps["b"].Approval.Status != want || steps["c"].Status != state.Cancelled && steps["c"].Status != state.Skipped {
			t.Errorf("the run is %s, the approval %s, c is %s", got.Status, steps["b"].Approval.Status, steps["c"].Status)
		}
	}
}

func TestRetryGoesBackToAnEarlierStep(t *testing.T) {
	w := newWorld(t, says)
	d := gated(1, nil)
	run := w.start(d, "{}")
	w.background()
	s := w.asked(run.RunID, "b")
	back := decision(s, "uid:7", "retry")
	back.BackTo, back.Modifications = "a", json.RawMessage(`{"extra":true}`)
	if _, err := w.r.Decide(w.opened(run, d), back); err != nil {
		t.Fatal(err)
	}
	_, steps := w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
		return s["b"].Status == state.CheckpointPending && s["b"].Attempt == 2
	})
	if w.blob(steps["a"].OutputsHash) != `{"extra":true}` {
		t.Errorf("the first step gave %s", w.blob(steps["a"].OutputsHash))
	}
	change := decision(steps["b"], "uid:7", "continue")
	change.Modifications = json.RawMessage(`{"x":5}`)
	if _, err := w.r.Decide(w.opened(run, d), change); err != nil {
		t.Fatal(err)
	}
	got, steps := w.ended(run.RunID)
	if got.Status != state.Completed || !got.Overridden || w.blob(steps["b"].OutputsHash) != `{"x":5}` {
		t.Errorf("the run is %s, overridden %v, b gave %s", got.Status, got.Overridden, w.blob(steps["b"].OutputsHash))
	}
}

func TestAGateRunsNothing(t *testing.T) {
	w := newWorld(t, ok)
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action = nil, ""
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "begin?", ExcludeStarter: true, Approvers: []string{"uid:7", "uid:0(root)"}}
	}, "a", "b<a")
	run := w.start(d, "{}")
	w.background()
	s := w.asked(run.RunID, "a")
	for _, c := range []struct{ actor, code string }{{"uid:0(root)", "STARTER_EXCLUDED"}, {"uid:8", "NOT_APPROVER"}, {"uid:7(a)", ""}} {
		var e *runner.DecisionError
		if _, err := w.r.Decide(w.opened(run, d), decision(s, c.actor, "continue")); errors.As(err, &e) != (c.code != "") || e != nil && e.Code != c.code {
			t.Errorf("%s: %v, want %q", c.actor, err, c.code)
		}
	}
	if got, steps := w.ended(run.RunID); got.Status != state.Completed || len(w.exec.seen) != 1 {
		t.Errorf("the run is %s: %v", got.Status, steps)
	}
}

func TestTheSameWorkIsDoneOnce(t *testing.T) {
	w := newWorld(t, says)
	make := func(x int64) *manifests.DAG {
		return dag(func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"x": {Type: "integer"}}
			d.Steps[0].Cache = &manifests.Cache{TTL: time.Hour}
			d.Steps[0].With = map[string]any{"x": "${ inputs.x }"}
		}, "a")
	}
	first := w.start(make(1), `{"x":1}`)
	second := w.start(make(1), `{"x":1}`)
	other := w.start(make(2), `{"x":2}`)
	w.finish(first.RunID)
	if len(w.exec.seen) != 2 {
		t.Fatalf("executed: %v", w.exec.seen)
	}
	steps, _ := w.db.Steps(second.RunID)
	c := steps["a"].Cached
	if c == nil || c.RunID != first.RunID || c.StepID != "a" || w.blob(steps["a"].OutputsHash) != `{"x":1}` {
		t.Errorf("the second run's step is %+v", steps["a"])
	}
	if run, _ := w.db.Run(other.RunID); run.Status != state.Completed {
		t.Errorf("the other run is %s", run.Status)
	}
	if recs, err := w.db.CacheRecords("default", ""); err != nil || len(recs) != 2 || recs[0].Hits+recs[1].Hits != 1 {
		t.Errorf("kept: %+v, %v", recs, err)
	}
}

func TestALockIsHeldByOneAtATime(t *testing.T) {
	w := newWorld(t, nil)
	holding := map[string]bool{}
	w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
		held, err := w.db.Locks("default")
		if err != nil || len(held) == 0 {
			return runner.Report{}, fmt.Errorf("locks: %v, %w", held, err)
		}
		w.exec.mu.Lock()
		defer w.exec.mu.Unlock()
		holding[task.RunID] = true
		return exit(0), nil
	}
	w.r = w.runner(4)
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Locks = []string{"db"}
	}, "a")
	var ids []string
	for range 6 {
		ids = append(ids, w.start(d, "{}").RunID)
	}
	w.finish(ids[0])
	if w.exec.most != 1 || len(holding) != 6 {
		t.Errorf("%d at a time, %d of 6 runs", w.exec.most, len(holding))
	}
	if held, err := w.db.Locks(""); err != nil || len(held) != 0 {
		t.Errorf("held in the end: %+v, %v", held, err)
	}
}

// stubborn is an executor that ends when it is told to, and counts.
func stubborn(begun chan string) func(context.Context, runner.Task) (runner.Report, error) {
	return func(ctx context.Context, task runner.Task) (runner.Report, error) {
		begun <- fmt.Sprintf("%s.%d", task.StepID, task.Attempt)
		if task.Attempt > 1 {
			return exit(0), nil
		}
		<-ctx.Done()
		stop := runner.StopShutdown
		if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
			stop = runner.StopCancel
		}
		return runner.Report{Stop: stop}, nil
	}
}

func TestRestartAndResetBeginAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(w *world, o runner.Opened, repeat bool) (state.Run, error)
		gen  int
	}{
		{"restart", func(w *world, o runner.Opened, repeat bool) (state.Run, error) {
			return w.r.Restart(o, "uid:7", "hangs", "", repeat)
		}, 1},
		{"reset", func(w *world, o runner.Opened, repeat bool) (state.Run, error) {
			return w.r.Reset(o, runner.Reset{Actor: "uid:7", Reason: "hangs", Repeat: repeat})
		}, 2},
	} {
		for _, action := range []string{"go", "once"} {
			t.Run(c.name+" "+action, func(t *testing.T) {
				begun := make(chan string, 4)
				w := newWorld(t, stubborn(begun))
				d := dag(func(d *manifests.DAG) { d.Steps[0].Action = action }, "a", "b<a")
				run := w.start(d, "{}")
				w.background()
				<-begun
				var conflict *runner.ConflictError
				if _, err := c.act(w, w.opened(run, d), false); (action == "once") != errors.As(err, &conflict) || err != nil && conflict == nil {
					t.Fatalf("without repeat: %v", err)
				}
				if action == "once" {
					if _, err := c.act(w, w.opened(run, d), true); err != nil {
						t.Fatal(err)
					}
				}
				if again := <-begun; again != "a.2" {
					t.Errorf("then %s began", again)
				}
				<-begun // b.1 ends by being stopped
				if _, err := w.r.Cancel("uid:7", "", w.opened(run, d)); err != nil {
					t.Fatal(err)
				}
				got, steps := w.ended(run.RunID)
				if got.Generation != c.gen || steps["a"].Status != state.Completed || steps["a"].Interruptions != 0 {
					t.Errorf("generation %d, a: %+v", got.Generation, steps["a"])
				}
			})
		}
	}
}

func TestAbortAndFailEndARunAtOnce(t *testing.T) {
	for _, abort := range []bool{true, false} {
		begun := make(chan string, 4)
		w := newWorld(t, stubborn(begun))
		d := dag(func(d *manifests.DAG) {
			d.OnCancel, d.OnFailure = dag(nil, "tidy").Steps, dag(nil, "mend").Steps
		}, "a", "b<a")
		run := w.start(d, "{}")
		w.background()
		<-begun
		var err error
		if abort {
			_, err = w.r.Abort(w.opened(run, d), "uid:7", "now")
		} else {
			_, err = w.r.Fail(w.opened(run, d), "uid:7", state.FailedByHand, "hopeless")
		}
		if err != nil {
			t.Fatal(err)
		}
		if !abort {
			if next := <-begun; next != "mend.1" {
				t.Errorf("%s began", next)
			}
			if _, err := w.r.Abort(w.opened(run, d), "uid:7", "now"); err != nil {
				t.Fatal(err)
			}
		}
		got, steps := w.ended(run.RunID)
		if got.Status != state.Cancelled || got.FailureReason != string(state.RunAborted) || steps["tidy"].Status != "" {
			t.Errorf("abort %v: the run is %s %s: %v", abort, got.Status, got.FailureReason, steps)
		}
	}
}

func TestSkipWithAnOutput(t *testing.T) {
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(65), nil
		}
		return says(ctx, task)
	})
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].AllowSkip = true
		d.Steps[1].With = map[string]any{"y": "${ steps.a.outputs.x }"}
		d.OnFailure = dag(nil, "mend").Steps
	}, "a", "b<a", "c")
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	w.r = w.runner(1)
	var conflict *runner.ConflictError
	if _, err := w.r.Skip(w.opened(got, d), runner.Skip{Actor: "uid:7", StepID: "c"}); !errors.As(err, &conflict) {
		t.Errorf("a step that may not be skipped: %v", err)
	}
	if _, err := w.r.Skip(w.opened(got, d), runner.Skip{Actor: "uid:7", Output: json.RawMessage(`{"x":4}`)}); err != nil {
		t.Fatal(err)
	}
	got, steps := w.finish(run.RunID)
	want := map[string]string{"a": "skipped SKIPPED_BY_HAND", "b": "completed", "c": "completed", "mend": "pending"}
	if got.Status != state.Completed || !got.Overridden || cmp.Diff(want, steps) != "" {
		t.Errorf("the run is %s, overridden %v: %v", got.Status, got.Overridden, steps)
	}
	recs, _ := w.db.Steps(run.RunID)
	if w.blob(recs["b"].OutputsHash) != `{"y":4}` {
		t.Errorf("b gave %s", w.blob(recs["b"].OutputsHash))
	}
}

func TestWhatIsFinalOrUnderWayIsLeftAlone(t *testing.T) {
	begun := make(chan string, 4)
	w := newWorld(t, stubborn(begun))
	d := dag(nil, "a")
	run := w.start(d, "{}")
	w.background()
	<-begun
	refused := func(what string, err error) {
		t.Helper()
		var conflict *runner.ConflictError
		if !errors.As(err, &conflict) && !errors.Is(err, runner.ErrEnded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.r.Retry(w.opened(run, d), runner.Retry{Actor: "x", StepID: "a"})
	refused("retry of what is under way", err)
	if _, err := w.r.Cancel("x", "", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	got, _ := w.ended(run.RunID)
	o := w.opened(got, d)
	_, err = w.r.Retry(o, runner.Retry{Actor: "x", StepID: "a"})
	refused("retry of a cancelled run", err)
	_, err = w.r.Skip(o, runner.Skip{Actor: "x", StepID: "a"})
	refused("skip", err)
	_, err = w.r.Nudge(o, "x", "")
	refused("nudge", err)
	_, err = w.r.Restart(o, "x", "", "", true)
	refused("restart", err)
	_, err = w.r.Reset(o, runner.Reset{Actor: "x", StepID: "a", Repeat: true})
	refused("reset", err)
	_, err = w.r.Abort(o, "x", "")
	refused("abort", err)
	_, err = w.r.Fail(o, "x", state.FailedByHand, "")
	refused("fail", err)
}

func TestARunThatWritesWithoutEndFails(t *testing.T) {
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) { return exit(75), nil })
	w.r = runner.New(runner.Options{
		Store: w.db, Sealed: w.sealed, Executor: w.exec, Workers: 1, MaxEntries: 50,
		RunsDir: w.home + "/runs", LogsDir: w.home + "/logs", HMACKey: []byte("k"), Owner: "test",
	})
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Retry = manifests.Retry{MaxAttempts: 1000, Backoff: time.Microsecond, MaxBackoff: time.Microsecond}
	}, "a", "b<a")
	got, _ := w.finish(w.start(d, "{}").RunID)
	if got.Status != state.Failed || got.FailureReason != string(state.TooManyEntries) || got.Entries > 60 {
		t.Errorf("the run is %s %s after %d entries", got.Status, got.FailureReason, got.Entries)
	}
}

// What people are asked about has a number of its own each time, also where no
// attempt stands before it; and what is done again is not taken from the cache.
func TestApprovalsOfItemsAndOfCachedStepsCanBeDecided(t *testing.T) {
	for _, cached := range []bool{false, true} {
		w := newWorld(t, says)
		d := dag(func(d *manifests.DAG) {
			d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "well?"}
			d.Steps[0].With = map[string]any{"x": int64(1)}
			if cached {
				d.Steps[0].Cache = &manifests.Cache{TTL: time.Hour}
			} else {
				d.Steps[0].ForEach = []any{int64(1), int64(2)}
			}
		}, "a")
		w.background()
		var s state.Step
		var run state.Run
		for range 2 { // the second finds what the first has kept
			run = w.start(d, "{}")
			s = w.asked(run.RunID, "a")
			if _, _, _, ok := state.ParseApprovalID(state.ApprovalID(run.RunID, "a", s.Approval.Attempt)); !ok {
				t.Fatalf("cached %v: the approval of attempt %d has no id", cached, s.Approval.Attempt)
			}
		}
		if (s.Cached != nil) != cached {
			t.Errorf("cached %v: %+v", cached, s.Cached)
		}
		if _, err := w.r.Decide(w.opened(run, d), decision(s, "uid:7", "retry")); err != nil {
			t.Fatal(err)
		}
		_, steps := w.until(run.RunID, func(_ state.Run, now map[string]state.Step) bool {
			return now["a"].Status == state.CheckpointPending && now["a"].Approval.Attempt == 2
		})
		if steps["a"].Cached != nil {
			t.Errorf("what was to be done again came from the cache: %+v", steps["a"].Cached)
		}
		var late *runner.DecisionError
		if _, err := w.r.Decide(w.opened(run, d), decision(s, "uid:8", "continue")); !errors.As(err, &late) {
			t.Errorf("a decision about the first round: %v", err)
		}
		if _, err := w.r.Decide(w.opened(run, d), decision(steps["a"], "uid:7", "continue")); err != nil {
			t.Fatal(err)
		}
		if got, _ := w.ended(run.RunID); got.Status != state.Completed {
			t.Errorf("cached %v: the run is %s", cached, got.Status)
		}
	}
}

// The plan of a sub-run is kept while a run may need it, and not longer.
func TestPlansAreKeptForAsLongAsTheyAreNeeded(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		close(begun)
		<-release
		return exit(0), nil
	})
	w.child(nil, "c")
	run := w.start(parent(nil, "sub"), "{}")
	ran := make(chan error, 1)
	go func() { ran <- w.r.Run(t.Context(), true) }()
	<-begun
	if _, plans, _, _ := w.r.Kept(); plans != 2 {
		t.Errorf("%d plans are kept of a run and its sub-run", plans)
	}
	close(release)
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if got, _ := w.look(run.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s", got.Status)
	}
	if gates, plans, _, _ := w.r.Kept(); gates+plans != 0 {
		t.Errorf("afterwards %d gates and %d plans", gates, plans)
	}
}

// A runner that is not to wait for people waits for everything else: for a step that
// is tried again later, in the run itself and in a sub-run.
func TestARunnerThatDoesNotWaitForPeople(t *testing.T) {
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "later" && task.Attempt == 1 {
			return exit(75), nil
		}
		return exit(0), nil
	})
	w.child(func(d *manifests.DAG) {
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "good?", Expires: time.Hour}
		d.Steps[1].Retry = manifests.Retry{MaxAttempts: 2, Backoff: 20 * time.Millisecond, MaxBackoff: time.Second}
	}, "ask", "later")
	d := parent(nil, "sub")
	run := w.start(d, "{}")
	if err := w.r.RunUnattended(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, _ := w.look(run.RunID)
	child, steps := w.look(w.childOf(run, "sub"))
	if got.Status != state.Running || child.Status != state.Checkpoint || steps["later"] != "completed" {
		t.Errorf("the run is %s, its sub-run %s: %v", got.Status, child.Status, steps)
	}
	if _, err := w.tryStart(d, "{}"); !errors.Is(err, runner.ErrStopping) {
		t.Errorf("a start after that: %v", err)
	}
}
