package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// Where nothing of a run is left that moves without people, a command that was not
// told to wait for them ends, and says whom the run waits for and what decides.

// errPeople ends a watch of runs that only people let go on.
var errPeople = errors.New("only people let the runs go on")

// people says whether a run that is open waits for people alone, itself or in its
// sub-runs: a line for each approval.
func people(ctx context.Context, r *reached, d api.RunDetail) (lines []string, err error) {
	for _, st := range d.StepList {
		switch {
		case st.Status == state.CheckpointPending && st.Approval != nil:
			lines = append(lines, decides(d, st))
		case st.GivenUp != "" && st.Status != state.Running: // the run waits for that, and the step begins nothing before
			more, err := below(ctx, r, st.GivenUp)
			if err != nil || len(more) == 0 {
				return nil, err
			}
			lines = append(lines, more...)
		case st.Status == state.Queued || st.Status == state.Running && st.Open:
			return nil, nil
		case st.Status == state.Running && st.Child != nil && st.Child.Status == "":
			more, err := below(ctx, r, st.Child.RunID)
			if err != nil || len(more) == 0 {
				return nil, err
			}
			lines = append(lines, more...)
		}
	}
	if d.Status.Ended() {
		return nil, nil
	}
	return lines, nil
}

// below says whether a sub-run waits for people alone.
func below(ctx context.Context, r *reached, id string) ([]string, error) {
	d, err := r.GetRun(ctx, id)
	if err != nil {
		return nil, err
	}
	return people(ctx, r, d)
}

// decides says for whom a step waits, and which command decides.
func decides(d api.RunDetail, st api.StepInfo) string {
	var options []string
	for _, o := range st.Approval.Request.Options {
		if !slices.Contains(options, o.Decision) {
			options = append(options, o.Decision)
		}
	}
	return fmt.Sprintf("run %s of %s, step %s, waits for %s; to decide: stella orch approvals decide %s --decision %s",
		d.RunID, d.DAGID, st.StepID, st.Waiting, state.ApprovalID(d.RunID, st.StepID, st.Approval.Attempt), strings.Join(options, "|"))
}

// open is the outcome of a command whose runs have not all ended: they wait for
// people, or this process was asked to stop.
func (e *execution) open(ctx context.Context, r *reached, details []api.RunDetail) *outcome {
	var lines, waiting []string
	for _, d := range details {
		if d.Status.Ended() {
			continue
		}
		more, err := people(ctx, r, d)
		if err != nil || len(more) == 0 || e.watch.stay {
			return &outcome{exit: exitInterrupted, err: api.Error{
				Code: codeInterrupted, Message: "this process was asked to stop; run " + d.RunID + " is not lost",
				TraceID: d.TraceID, Hint: "stella orch run resume " + d.RunID,
			}}
		}
		for _, line := range more {
			if !slices.Contains(lines, line) { // of a sub-run that was resumed by itself
				lines = append(lines, line)
			}
		}
		waiting = append(waiting, d.RunID)
	}
	if len(waiting) == 0 {
		return nil
	}
	what, again := fmt.Sprintf("run %s waits for people", waiting[0]), waiting[0]
	if n := len(waiting); n > 1 {
		what, again = fmt.Sprintf("%d runs wait for people", n), "--all"
	}
	return &outcome{exit: exitWaiting, err: api.Error{
		Code: codeWaiting, Message: what + ", and nothing else is left to do", Faults: lines,
		Hint: "after their decision: stella orch run resume " + again + "; with --wait a command waits for it",
	}}
}

// ends is the outcome of a command that cared for runs: one that has failed comes
// before those that are open. Of replays it says how they compare.
func (e *execution) ends(ctx context.Context, a *app, r *reached, details []api.RunDetail) error {
	compared, err := comparisons(ctx, r, details)
	if err != nil {
		return err
	}
	if a.opt.output == outTable {
		for _, d := range details {
			renderComparison(a.stdout, compared[d.RunID])
		}
	}
	failed, open := e.failed(ctx, r, details, compared), e.open(ctx, r, details)
	switch {
	case failed == nil && open == nil:
		return a.stdout.err
	case failed == nil:
		return open
	case open != nil:
		a.stderr.note("%s", open.err.Message)
		for _, line := range open.err.Faults {
			a.stderr.note("  %s", line)
		}
	}
	return failed
}

// left says whether a watch that is not told to stay has nothing left to see: each
// run has ended, or waits for people.
func (w *watcher) left(ctx context.Context, r *reached) (bool, error) {
	if w.stay {
		return false, nil
	}
	for _, run := range w.runs {
		d, err := r.RunOverview(ctx, run.RunID)
		if err != nil || d.Status.Ended() {
			if err != nil {
				return false, err
			}
			continue
		}
		if d, err = r.GetRun(ctx, run.RunID); err != nil {
			return false, err
		}
		if lines, err := people(ctx, r, d); err != nil || len(lines) == 0 {
			return false, err
		}
	}
	return true, nil
}
