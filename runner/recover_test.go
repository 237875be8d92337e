package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// idle is a runner that executes nothing, as most commands have one.
func (w *world) idle() *runner.Runner {
	return runner.New(runner.Options{Store: w.db, Sealed: w.sealed, Now: w.now})
}

// takesX gives the action go a schema for its parameters and outputs: an integer x.
func (w *world) takesX() {
	raw := []byte(`{"type":"object","properties":{"x":{"type":"integer"}},"additionalProperties":false}`)
	digest, err := w.sealed.Put(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	w.sealed.plugin.Files = append(w.sealed.plugin.Files, manifests.File{Path: "x.json", SHA256: digest, Size: int64(len(raw)), Mode: "0644"})
	w.sealed.plugin.Plugin.Actions["go"] = manifests.Action{Idempotent: true, Params: "x.json", Outputs: "x.json"}
}

func codeOf(err error) string {
	var decision *runner.DecisionError
	var conflict *runner.ConflictError
	var request *runner.RequestError
	switch {
	case errors.As(err, &decision):
		return decision.Code
	case errors.As(err, &conflict):
		return "CONFLICT"
	case errors.As(err, &request):
		return "INVALID"
	case err != nil:
		return err.Error()
	}
	return ""
}

// A decision that comes too late does not count, whoever was there or not when the
// time was over; the approval is closed by it.
func TestADecisionAfterItsTimeClosesTheApproval(t *testing.T) {
	at := time.Now()
	w := newWorld(t, says)
	w.now = func() time.Time { return at }
	w.r = w.runner(1)
	d := gated(1, func(d *manifests.DAG) { d.Steps[1].Checkpoint.Expires = time.Hour })
	run := w.start(d, "{}")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.r.Run(ctx, false) }()
	s := w.asked(run.RunID, "b")
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	at = at.Add(time.Hour)
	r, o := w.idle(), w.opened(run, d)
	for range 2 {
		if _, err := r.Decide(o, decision(s, "uid:7", "continue")); codeOf(err) != "APPROVAL_EXPIRED" {
			t.Errorf("Decide = %v, want APPROVAL_EXPIRED", err)
		}
	}
	got, steps := w.look(run.RunID)
	recs, _ := w.db.Steps(run.RunID)
	if got.Status != state.Cancelled || recs["b"].Approval.Status != state.ApprovalExpired || len(recs["b"].Approval.Decisions) != 0 {
		t.Errorf("the run is %s, the approval %+v: %v", got.Status, recs["b"].Approval, steps)
	}
}

// Whoever started a run has started its sub-runs.
func TestTheStarterIsExcludedInSubRunsToo(t *testing.T) {
	w := newWorld(t, ok)
	w.child(func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action = nil, ""
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "go on?", ExcludeStarter: true}
	}, "ask")
	d := parent(nil, "sub")
	run := w.start(d, "{}") // by uid:0(root)
	w.background()
	_, steps := w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool { return s["sub"].Child != nil })
	child := steps["sub"].Child.RunID
	s := w.asked(child, "ask")
	rec, err := w.db.Run(child)
	if err != nil {
		t.Fatal(err)
	}
	o := w.opened(rec, w.sealed.dags["child@1.0.0"])
	if _, err := w.r.Decide(o, decision(s, "uid:0(admin)", "continue")); codeOf(err) != "STARTER_EXCLUDED" {
		t.Errorf("the starter's decision: %v", err)
	}
	if _, err := w.r.Decide(o, decision(s, "uid:8", "continue")); err != nil {
		t.Error(err)
	}
	if got, _ := w.ended(run.RunID); got.Status != state.Completed {
		t.Errorf("the run is %s", got.Status)
	}
}

// Whoever has a schedule or a replay start a run has started it.
func TestWhoHasARunStartedIsExcludedAsItsStarter(t *testing.T) {
	w := newWorld(t, ok)
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action = nil, ""
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "go on?", ExcludeStarter: true}
	}, "ask")
	w.sealed.publish(d)
	p, err := runner.NewPlan(d, dagDigest(d), w.sealed)
	if err != nil {
		t.Fatal(err)
	}
	run, err := w.r.StartRun(context.Background(), runner.Start{
		Tenant: "default", Actor: "schedule:s", Behalf: []string{"uid:0(root)", "uid:7(ann)"}, RunToken: runner.NewRunToken(time.Now()), TraceID: runner.NewTraceID(),
		DAG: d, Plan: p, Inputs: []byte("{}"),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.background()
	s := w.asked(run.RunID, "ask")
	for who, want := range map[string]string{"schedule:s": "STARTER_EXCLUDED", "uid:0(toor)": "STARTER_EXCLUDED", "uid:7": "STARTER_EXCLUDED"} {
		if _, err := w.r.Decide(w.opened(run, d), decision(s, who, "continue")); codeOf(err) != want {
			t.Errorf("%s decides: %v, want %s", who, err, want)
		}
	}
	if _, err := w.r.Decide(w.opened(run, d), decision(s, "uid:8", "continue")); err != nil {
		t.Error(err)
	}
}

// What an action would not take is refused when it is given, not when it runs.
func TestInputsByHandAreHeldAgainstTheSchema(t *testing.T) {
	w := newWorld(t, nil)
	w.takesX()
	bad := true
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if bad && task.StepID == "a" {
			return exit(3), nil
		}
		return says(ctx, task)
	}
	d := gated(1, func(d *manifests.DAG) { d.Steps[0].With = map[string]any{"x": int64(1)} })
	run := w.start(d, "{}")
	got, _ := w.finish(run.RunID)
	bad = false
	w.r = w.runner(1)
	w.background()
	o := w.opened(got, d)
	retry := func(input string) error {
		_, err := w.r.Retry(o, runner.Retry{Actor: "uid:7", Input: json.RawMessage(input)})
		return err
	}
	for _, input := range []string{`{"x":"two"}`, `{"y":2}`, `[]`, `{"x":1,"x":2}`} {
		if err := retry(input); codeOf(err) != "INVALID" {
			t.Errorf("input %s: %v", input, err)
		}
	}
	if err := retry(`{"x":2}`); err != nil {
		t.Fatal(err)
	}
	s := w.asked(run.RunID, "b")
	for what, fields := range map[string]string{"continue": `{"x":"two"}`, "retry": `{"y":null,"z":1}`, "abort": `{"x":3}`} {
		m := decision(s, "uid:7", what)
		m.Modifications = json.RawMessage(fields)
		if _, err := w.r.Decide(o, m); codeOf(err) != "INVALID" {
			t.Errorf("%s with %s: %v", what, fields, err)
		}
	}
	m := decision(s, "uid:7", "retry")
	m.Modifications, m.BackTo, m.Option = json.RawMessage(`{"x":5}`), "a", "retry"
	if _, err := w.r.Decide(o, m); err != nil {
		t.Fatal(err)
	}
	w.until(run.RunID, func(_ state.Run, s map[string]state.Step) bool {
		return s["b"].Status == state.CheckpointPending && s["b"].Attempt == 2
	})
	recs, _ := w.db.Steps(run.RunID)
	if out := w.blob(recs["a"].OutputsHash); out != `{"x":5}` {
		t.Errorf("a gave %s", out)
	}
}

// What is stopped because somebody gave the run up has failed: a retry begins with it.
func TestARunThatWasFailedByHandCanBeRetried(t *testing.T) {
	begun := make(chan string, 4)
	w := newWorld(t, stubborn(begun))
	d := dag(nil, "a", "b<a")
	run := w.start(d, "{}")
	w.background()
	<-begun
	if _, err := w.r.Fail(w.opened(run, d), "uid:7", state.FailedByHand, "hopeless"); err != nil {
		t.Fatal(err)
	}
	got, _ := w.ended(run.RunID)
	_, steps := w.look(run.RunID)
	want := map[string]string{"a": "failed FAILED_BY_HAND", "b": "skipped RUN_FAILING"}
	if diff := cmp.Diff(want, steps); diff != "" || got.Status != state.Failed {
		t.Fatalf("the run is %s (-want +got):\n%s", got.Status, diff)
	}
	if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7"}); err != nil {
		t.Fatal(err)
	}
	if again := <-begun; again != "a.2" {
		t.Errorf("%s began", again)
	}
	<-begun // b.1, which waits to be stopped
	if _, err := w.r.Cancel("uid:7", "", w.opened(run, d)); err != nil {
		t.Fatal(err)
	}
	w.ended(run.RunID)
}

// An abort reaches the sub-runs as an abort: nothing of them cleans up.
func TestAbortPassesDown(t *testing.T) {
	begun := make(chan string, 4)
	w := newWorld(t, stubborn(begun))
	w.child(func(d *manifests.DAG) { d.OnCancel = dag(nil, "tidy").Steps }, "c")
	d := parent(nil, "sub")
	run := w.start(d, "{}")
	w.background()
	<-begun
	if _, err := w.r.Abort(w.opened(run, d), "uid:7", "now"); err != nil {
		t.Fatal(err)
	}
	_, steps := w.ended(run.RunID)
	child, steps := w.ended(steps["sub"].Child.RunID)
	if child.FailureReason != string(state.RunAborted) || steps["tidy"].Status != "" {
		t.Errorf("the child is %s %s: %+v", child.Status, child.FailureReason, steps["tidy"])
	}
}

// A trial says what would be done by the code that does it, and leaves no trace.
func TestTry(t *testing.T) {
	begun := make(chan string, 8)
	w := newWorld(t, stubborn(begun))
	w.child(nil, "c")
	d := dag(func(d *manifests.DAG) {
		d.MaxParallelSteps = 4
		d.Steps[2].Plugin, d.Steps[2].Action, d.Steps[2].DAG = nil, "", "child@1.0.0"
		d.Steps[3].Plugin, d.Steps[3].Action, d.Steps[3].Checkpoint = nil, "", &manifests.Checkpoint{Question: "?"}
	}, "a", "b<a", "sub", "gate")
	w.r = w.runner(4)
	run := w.start(d, "{}")
	w.background()
	first := []string{<-begun, <-begun}
	w.asked(run.RunID, "gate")
	o, before := w.opened(run, d), w.db.Size()
	try := func(f func(*runner.Runner) (state.Run, error)) (string, []string) {
		t.Helper()
		eff, err := w.r.Try(o, f)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, x := range eff.Steps {
			text := strings.TrimSpace(x.StepID + " " + string(x.From) + ">" + string(x.To) + " " + string(x.Code))
			if x.Stopped > 0 {
				text += " stopped"
			}
			out = append(out, text)
		}
		if len(eff.Subruns) > 0 {
			out = append(out, "a sub-run ends")
		}
		return string(eff.Run.Status), out
	}
	for _, c := range []struct {
		name string
		do   func(*runner.Runner) (state.Run, error)
		run  string
		want []string
	}{
		{"abort", func(r *runner.Runner) (state.Run, error) { return r.Abort(o, "uid:7", "x") }, "running", []string{
			"a running>cancelled RUN_CANCELLED stopped", "b pending>cancelled RUN_CANCELLED", "gate checkpoint_pending>cancelled RUN_CANCELLED", "a sub-run ends",
		}},
		{"fail", func(r *runner.Runner) (state.Run, error) { return r.Fail(o, "uid:7", state.FailedByHand, "x") }, "running", []string{
			"a running>failed FAILED_BY_HAND stopped", "b pending>skipped RUN_FAILING", "gate checkpoint_pending>skipped RUN_FAILING", "a sub-run ends",
		}},
		{"restart", func(r *runner.Runner) (state.Run, error) { return r.Restart(o, "uid:7", "x", "", false) }, "checkpoint", []string{"a running>queued stopped"}},
		{"reset", func(r *runner.Runner) (state.Run, error) {
			return r.Reset(o, runner.Reset{Actor: "uid:7", Reason: "x"})
		}, "checkpoint", []string{
			"a running>queued stopped", "sub running>queued", "a sub-run ends",
		}},
	} {
		status, got := try(c.do)
		if diff := cmp.Diff(c.want, got); diff != "" || status != c.run {
			t.Errorf("%s: the run would be %s, want %s (-want +got):\n%s", c.name, status, c.run, diff)
		}
	}
	if _, err := w.r.Try(o, func(r *runner.Runner) (state.Run, error) { return r.Retry(o, runner.Retry{StepID: "a"}) }); codeOf(err) != "CONFLICT" {
		t.Errorf("a trial of what is refused: %v", err)
	}
	if after := w.db.Size(); after != before {
		t.Errorf("trials have written %d entries", after-before)
	}
	if _, err := w.r.Abort(o, "uid:7", "over"); err != nil {
		t.Fatal(err)
	}
	if got, steps := w.ended(run.RunID); got.Status != state.Cancelled {
		t.Errorf("%v began; the run is %s: %+v", first, got.Status, steps)
	}
}

// What somebody says about an approval of the past is refused, whatever the step
// does now; and nobody takes away what was begun again meanwhile.
func TestDecisionsMeetWhatWasBegunAgain(t *testing.T) {
	begun := make(chan string, 8)
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		begun <- task.StepID
		if task.Attempt == 2 {
			<-ctx.Done()
			stop := runner.StopShutdown
			if errors.Is(context.Cause(ctx), runner.ErrCancelled) {
				stop = runner.StopCancel
			}
			return runner.Report{Stop: stop}, nil
		}
		return says(ctx, task)
	})
	d := gated(1, nil)
	run := w.start(d, "{}")
	w.background()
	s := w.asked(run.RunID, "b")
	o := w.opened(run, d)
	// a and b are to be done again, and a is under way when an answer to the first question comes.
	back := decision(s, "uid:7", "retry")
	back.BackTo = "a"
	if _, err := w.r.Decide(o, back); err != nil {
		t.Fatal(err)
	}
	for <-begun != "a" || <-begun != "b" || <-begun != "a" {
		t.Fatal("the steps begin in another order")
	}
	if _, err := w.r.Decide(o, decision(s, "uid:8", "continue")); codeOf(err) != "ALREADY_DECIDED" {
		t.Errorf("an answer to what was asked before: %v", err)
	}
	if _, err := w.r.Restart(o, "uid:7", "", "a", false); err != nil {
		t.Fatal(err)
	}
	w.until(run.RunID, func(_ state.Run, steps map[string]state.Step) bool { return steps["b"].Open })
	if _, err := w.r.Decide(o, decision(s, "uid:9", "continue")); codeOf(err) != "ALREADY_DECIDED" {
		t.Errorf("an answer while the next attempt is under way: %v", err)
	}
	if _, err := w.r.Cancel("uid:7", "", o); err != nil {
		t.Fatal(err)
	}
	w.ended(run.RunID)
}

// A run that was failed before any of its steps had is retried with what was given up.
func TestWhatWasGivenUpGetsItsTurn(t *testing.T) {
	w := newWorld(t, ok)
	d := dag(nil, "a", "b<a")
	run := w.start(d, "{}") // nobody executes it yet
	o := w.opened(run, d)
	if _, err := w.r.Fail(o, "uid:7", state.FailedByHand, "not today"); err != nil {
		t.Fatal(err)
	}
	got, steps := w.look(run.RunID)
	if got.Status != state.Failed || steps["a"] != "skipped RUN_FAILING" {
		t.Fatalf("the run is %s: %v", got.Status, steps)
	}
	if _, err := w.r.Retry(o, runner.Retry{Actor: "uid:7", Input: json.RawMessage(`{"x":1}`)}); err != nil {
		t.Fatal(err)
	}
	got, steps = w.finish(run.RunID)
	recs, _ := w.db.Steps(run.RunID)
	if got.Status != state.Completed || recs["a"].Overlay == "" {
		t.Errorf("the run is %s, overlay %q: %v", got.Status, recs["a"].Overlay, steps)
	}
}

// While a run cleans up after its failure, its steps have had their turn.
func TestARetryWaitsForTheCleanup(t *testing.T) {
	mending, mended := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(_ context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "mend" {
			mending <- struct{}{}
			<-mended
			return exit(0), nil
		}
		return exit(3), nil
	})
	d := dag(func(d *manifests.DAG) { d.OnFailure, d.Steps[0].AllowSkip = dag(nil, "mend").Steps, true }, "a")
	run := w.start(d, "{}")
	w.background()
	<-mending
	o := w.opened(run, d)
	if _, err := w.r.Retry(o, runner.Retry{Actor: "uid:7"}); codeOf(err) != "CONFLICT" {
		t.Errorf("a retry: %v", err)
	}
	if _, err := w.r.Skip(o, runner.Skip{Actor: "uid:7"}); codeOf(err) != "CONFLICT" {
		t.Errorf("a skip: %v", err)
	}
	mended <- struct{}{}
	w.ended(run.RunID)
	if _, err := w.r.Retry(o, runner.Retry{Actor: "uid:7"}); err != nil {
		t.Fatal(err)
	}
	<-mending // the cleanup of the second failure
	mended <- struct{}{}
	if got, _ := w.until(run.RunID, func(r state.Run, _ map[string]state.Step) bool { return r.Generation == 2 && r.Status.Ended() }); got.Status != state.Failed {
		t.Errorf("the run is %s", got.Status)
	}
}

// An abort ends the cleanup too, with those of its items that have not begun.
func TestAbortEndsItemsOfTheCleanup(t *testing.T) {
	begun := make(chan string, 8)
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.StepID == "a" {
			return exit(3), nil
		}
		begun <- task.StepID
		<-ctx.Done()
		return runner.Report{Stop: runner.StopCancel}, nil
	})
	d := dag(func(d *manifests.DAG) {
		d.OnFailure = dag(func(d *manifests.DAG) { d.Steps[0].ForEach = []any{int64(1), int64(2), int64(3)} }, "mend", "more<mend").Steps
	}, "a")
	run := w.start(d, "{}")
	w.background()
	<-begun
	if _, err := w.r.Abort(w.opened(run, d), "uid:7", "now"); err != nil {
		t.Fatal(err)
	}
	got, steps := w.ended(run.RunID)
	_, words := w.look(run.RunID)
	if got.Status != state.Cancelled || steps["mend.2"].Status != state.Cancelled {
		t.Errorf("the run is %s: %v", got.Status, words)
	}
}

// A restart is on record when it is answered: a crash before the attempt has ended begins
// it again as well.
func TestARestartThatACrashCutsShortIsOne(t *testing.T) {
	w := newWorld(t, nil)
	begun := make(chan bool, 9)
	release := make(chan bool)
	w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
		if task.Attempt == 1 {
			begun <- true
			<-release
			return runner.Report{Stop: runner.StopShutdown}, nil
		}
		return exit(0), nil
	}
	d := dag(func(d *manifests.DAG) { d.Steps[0].Action = "once" }, "a")
	run := w.start(d, "{}")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.r.Run(ctx, false) }()
	<-begun
	if err := second(w.r.Restart(w.opened(run, d), "uid:7", "", "", true)); err != nil {
		t.Fatal(err)
	}
	// the process dies: its store is closed
	w.db.Close()
	close(release)
	stop()
	<-done
	w.reopen()
	now, _ := w.look(run.RunID)
	if _, err := w.r.Recover(context.Background(), w.opened(now, d)); err != nil {
		t.Fatal(err)
	}
	now, _ = w.look(run.RunID)
	if err := w.r.Resume(context.Background(), "uid:7", w.opened(now, d)); err != nil {
		t.Fatal(err)
	}
	got, steps := w.finish(run.RunID)
	if recs, _ := w.db.Steps(run.RunID); got.Status != state.Completed || recs["a"].Interruptions != 0 {
		t.Errorf("the run is %s, %v, %d interruptions", got.Status, steps, recs["a"].Interruptions)
	}
}
