package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// gambler draws what becomes of attempts and what people do, and notes it.
type gambler struct {
	alone bool // nobody names more than one step at a time

	mu    sync.Mutex // guards what follows
	rand  *rand.Rand
	story []string
}

// IntN is a number below n.
func (g *gambler) IntN(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rand.IntN(n)
}

func (g *gambler) note(format string, a ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.story = append(g.story, fmt.Sprintf(format, a...))
}

// attempt takes a while, if nobody stops it, and ends in some way.
func (g *gambler) attempt(ctx context.Context) (runner.Report, error) {
	select {
	case <-time.After(time.Duration(g.IntN(4)) * 20 * time.Second):
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), runner.ErrCancelled) || errors.Is(context.Cause(ctx), runner.ErrAborted) {
			return runner.Report{Stop: runner.StopCancel}, nil
		}
		return runner.Report{Stop: runner.StopShutdown}, nil
	}
	switch g.IntN(12) {
	case 0:
		return exit(1), nil
	case 1:
		return exit(65), nil
	case 2:
		return runner.Report{Stop: runner.StopShutdown}, nil
	case 3:
		return runner.Report{Stop: runner.StopResource}, nil
	case 4:
		return runner.Report{}, errors.New("infra")
	}
	return exit(0), nil
}

func told(rep runner.Report, err error) string {
	if err != nil || rep.ExitCode == nil {
		return fmt.Sprint(rep.Stop, err)
	}
	return fmt.Sprintf("exit %d %s", *rep.ExitCode, rep.Output.Values["list"])
}

// act lets somebody do something to a step of a run.
func (g *gambler) act(r *runner.Runner, o runner.Opened, step string, repeat bool) {
	what, err := "", error(nil)
	switch g.IntN(10) {
	case 0:
		what, err = "skip", second(r.Skip(o, runner.Skip{Actor: "uid:7", StepID: step, Repeat: repeat}))
	case 1:
		what, err = "reset", second(r.Reset(o, runner.Reset{Actor: "uid:7", StepID: step, Repeat: repeat}))
	case 2:
		what, err = "restart", second(r.Restart(o, "uid:7", "", step, repeat))
	case 3:
		what, err = "retry --downstream", second(r.Retry(o, runner.Retry{Actor: "uid:7", StepID: step, Repeat: repeat, Downstream: !g.alone}))
	case 4:
		what, err = "retry --delay", second(r.Retry(o, runner.Retry{Actor: "uid:7", StepID: step, Repeat: repeat, Delay: time.Minute}))
	case 5:
		what, err = "nudge", second(r.Nudge(o, "uid:7", ""))
	case 6:
		what, err = "fail", second(r.Fail(o, "uid:7", state.FailedByHand, "x"))
	default:
		what, err = "retry", second(r.Retry(o, runner.Retry{Actor: "uid:7", StepID: step, Repeat: repeat}))
	}
	if err == nil {
		g.note("%s of %s in %s %s, repeat %v", what, step, o.Run.DAGID, o.Run.RunID, repeat)
	}
}

// decide lets somebody say something about what waits for people, or nothing.
func (g *gambler) decide(r *runner.Runner, o runner.Opened, steps map[string]state.Step, repeat bool) {
	for _, id := range slices.Sorted(maps.Keys(steps)) {
		if steps[id].Status != state.CheckpointPending || g.IntN(3) == 0 {
			continue
		}
		d := decision(steps[id], "uid:7", "continue")
		if g.IntN(2) == 0 {
			d.Decision, d.BackTo, d.Downstream, d.Repeat = "retry", []string{"", "x", "each"}[g.IntN(3)], g.IntN(3) == 0, repeat
		}
		if _, err := r.Decide(o, d); err == nil {
			g.note("%s of %s, back to %q, downstream %v, repeat %v", d.Decision, id, d.BackTo, d.Downstream, d.Repeat)
		}
	}
}

// gamble plays f with what a seed gives. Where f says what is wrong, so does the test.
func gamble(t *testing.T, f func(t *testing.T, g *gambler) (wrong string)) {
	rapid.Check(t, func(rt *rapid.T) {
		g := &gambler{rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))}
		wrong := ""
		synctest.Test(t, func(t *testing.T) { wrong = f(t, g) })
		if wrong != "" {
			rt.Fatalf("%s\nafter\n  %s", wrong, strings.Join(g.story, "\n  "))
		}
	})
}

// Each decision asks about all that it begins again: what looks once more where something
// begins finds nothing that nobody was asked about. And everything ends.
func TestNothingBeginsThatNobodyWasAskedAbout(t *testing.T) {
	gamble(t, func(t *testing.T, g *gambler) string {
		w := newWorld(t, nil)
		w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
			rep, err := g.attempt(ctx)
			if ok := err == nil && rep.ExitCode != nil && *rep.ExitCode == 0; ok && task.StepID == "x" {
				list := []string{`["a","b"]`, `["a","b"]`, `["a","b","c"]`, `["d"]`, `[]`, `7`}[g.IntN(6)]
				rep.Output = runner.Output{Values: map[string]json.RawMessage{"list": json.RawMessage(list)}}
			} else if ok && task.StepID == "z" && g.IntN(2) == 0 {
				rep = exit(65)
			}
			g.note("  %s.%d: %s", task.StepID, task.Attempt, told(rep, err))
			return rep, err
		}
		d := dag(func(d *manifests.DAG) {
			d.FailFast, d.MaxParallelSteps = g.IntN(2) == 0, 3
			for i := range d.Steps {
				s := &d.Steps[i]
				s.AllowSkip, s.ContinueOnError, s.Retry.MaxAttempts = g.IntN(2) == 0, g.IntN(6) == 0, 1+g.IntN(2)
				if s.ID != "x" {
					s.Action = "once"
				}
			}
			for _, i := range []int{1, 2, 3} { // y, each, z
				if g.IntN(3) == 0 {
					d.Steps[i].Checkpoint = &manifests.Checkpoint{Question: "?", Required: true}
				}
			}
			d.Steps[2].AllowSkip, d.Steps[2].ForEach, d.Steps[2].MaxParallel = true, "${ steps.x.outputs.list }", 1+g.IntN(2)
		}, "x", "y", "each<x,y", "z<each", "v")
		w.r = w.runner(4)
		run := w.start(d, "{}")
		w.background()
		steps := []string{"x", "y", "each", "each.0", "each.1", "each.2", "z", "v", ""}
		for range 40 {
			time.Sleep(time.Duration(g.IntN(3)) * 30 * time.Second)
			now, _ := w.look(run.RunID)
			recs, _ := w.db.Steps(run.RunID)
			for id, s := range recs {
				if strings.Contains(s.Reason, "nobody has said") {
					return id + ": " + s.Reason
				}
			}
			g.decide(w.r, w.opened(now, d), recs, g.IntN(3) == 0)
			g.act(w.r, w.opened(now, d), steps[g.IntN(len(steps))], g.IntN(3) == 0)
			synctest.Wait()
			if err := w.r.Invariants(); err != nil {
				return err.Error()
			}
		}
		for range 100 {
			time.Sleep(2 * time.Minute)
			now, _ := w.look(run.RunID)
			recs, _ := w.db.Steps(run.RunID)
			for _, s := range recs {
				if s.Status == state.CheckpointPending {
					_, _ = w.r.Decide(w.opened(now, d), decision(s, "uid:7", "continue"))
				}
			}
		}
		if now, steps := w.look(run.RunID); !now.Status.Ended() {
			return fmt.Sprint("it hangs: ", steps)
		}
		return ""
	})
}

// tree is a run with all below it, also what others have followed.
func (w *world) tree(runID string) []state.Run {
	run, steps := w.look(runID)
	out := []state.Run{run}
	for _, id := range slices.Sorted(maps.Keys(steps)) {
		for i := range 1000 {
			child, err := w.db.RunByToken(run.Tenant, fmt.Sprintf("stella:sub:%s:%s:%d", runID, id, i+1))
			if err != nil && i > 20 {
				break
			} else if err == nil {
				out = append(out, w.tree(child.RunID)...)
			}
		}
	}
	return out
}

// What a step of a sub-run has done is done once for each item of the step above, by
// whatever rules and people, as long as nobody names it or says that it be repeated.
func TestNothingBelowIsDoneTwiceUnasked(t *testing.T) {
	gamble(t, func(t *testing.T, g *gambler) string {
		w := newWorld(t, nil)
		g.alone = true               // who names what comes after a step has named charge
		charged := map[string]int{}  // by the step at the top
		refunded := map[string]int{} // by the run that was cleaned up after
		above := func(runID string) string {
			for {
				r, err := w.db.Run(runID)
				if err != nil {
					t.Fatal(err)
				}
				if p, _ := w.db.Run(r.ParentRunID); p.DAGID == "d" {
					return r.ParentStepID
				}
				runID = r.ParentRunID
			}
		}
		w.exec.run = func(ctx context.Context, task runner.Task) (runner.Report, error) {
			rep, err := g.attempt(ctx)
			failed := rep.ExitCode != nil && *rep.ExitCode != 0
			once := task.StepID == "charge" || task.StepID == "refund"
			if once && err == nil && !failed {
				run, _ := w.db.Run(task.RunID)
				item := above(task.RunID)
				g.mu.Lock()
				if task.StepID == "charge" {
					charged[item]++
				} else {
					refunded[run.ParentRunID]++
				}
				g.mu.Unlock()
			}
			if !once && err == nil && !failed && g.IntN(2) == 0 {
				rep = exit([]int{1, 65}[g.IntN(2)])
			}
			g.note("  %s.%d in %s: %s", task.StepID, task.Attempt, task.RunID, told(rep, err))
			return rep, err
		}
		rule := func(s *manifests.Step) {
			s.AllowSkip = g.IntN(2) == 0
			s.Retry = manifests.Retry{MaxAttempts: 1 + g.IntN(3), Backoff: time.Minute, MaxBackoff: time.Minute}
		}
		grand := dag(func(d *manifests.DAG) {
			d.ID, d.Steps[1].Action = "grand", "once"
			rule(&d.Steps[1])
		}, "first", "charge<first", "after<charge")
		child := dag(func(d *manifests.DAG) {
			d.ID = "child"
			d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "grand@1.0.0"
			rule(&d.Steps[0])
			d.OnFailure = dag(func(d *manifests.DAG) {
				d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "clean@1.0.0"
				rule(&d.Steps[0])
			}, "k").Steps
		}, "mid", "after<mid")
		clean := dag(func(d *manifests.DAG) {
			d.ID, d.Steps[1].Action = "clean", "once"
			rule(&d.Steps[1])
		}, "first", "refund<first", "after<refund")
		w.sealed.publish(clean)
		top := dag(func(d *manifests.DAG) {
			d.FailFast = g.IntN(2) == 0
			d.Steps[0].Plugin, d.Steps[0].Action, d.Steps[0].DAG = nil, "", "child@1.0.0"
			if g.IntN(2) == 0 {
				d.Steps[0].ForEach = []any{int64(0), int64(1)}
			}
			rule(&d.Steps[0])
		}, "sub", "other")
		w.sealed.publish(grand)
		w.sealed.publish(child)
		dags := map[string]*manifests.DAG{"grand": grand, "child": child, "clean": clean, "d": top}
		steps := map[string][]string{"grand": {"first", "after"}, "child": {"mid", "after", "k", ""}, "clean": {"first", "after"}, "d": {"sub", "sub.0", "sub.1", "other", ""}}
		w.r = w.runner(4)
		run := w.start(top, "{}")
		w.background()
		for range 60 {
			time.Sleep(time.Duration(g.IntN(3)) * 30 * time.Second)
			runs := w.tree(run.RunID)
			r := runs[g.IntN(len(runs))]
			g.act(w.r, w.opened(r, dags[r.DAGID]), steps[r.DAGID][g.IntN(len(steps[r.DAGID]))], false)
			g.mu.Lock()
			done, undone := maps.Clone(charged), maps.Clone(refunded)
			g.mu.Unlock()
			for id, n := range undone {
				if r, _ := w.look(id); n > r.Generation { // at most once for each end
					return fmt.Sprintf("refund was done %d times in generation %d of %s", n, r.Generation, id)
				}
			}
			for item, n := range done {
				if n > 1 {
					return fmt.Sprintf("charge was done %d times below %s", n, item)
				}
			}
		}
		return ""
	})
}
