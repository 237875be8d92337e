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

// What a command that cared for runs names in the end: the run in which something went
// wrong, and the command that helps there.

// maxBelow bounds how far down a failure is followed.
const maxBelow = 32

// lowest is the run in which a run has failed: itself, or the sub-run that has failed in
// the step for which it failed, and so on down. What cannot be read ends the search.
func lowest(ctx context.Context, r *reached, d api.RunDetail) api.RunDetail {
	for range maxBelow {
		if d.Status != state.Failed || d.FailedStep == "" {
			return d
		}
		if d.LeftOut > 0 {
			whole, err := r.GetRun(ctx, d.RunID)
			if err != nil {
				return d
			}
			d = whole
		}
		i := slices.IndexFunc(d.StepList, func(st api.StepInfo) bool { return st.StepID == d.FailedStep })
		if i < 0 || d.StepList[i].Child == nil {
			return d
		}
		below, err := r.RunOverview(ctx, d.StepList[i].Child.RunID)
		if err != nil || below.Status != state.Failed { // cancelled for its parent, or mended since
			return d
		}
		d = below
	}
	return d
}

// failedWhere is the hint after a run that has not ended well, which failed in the lowest.
func failedWhere(d, lowest api.RunDetail) string {
	id := lowest.RunID
	hint := "stella orch run inspect " + id + " says why; stella orch run logs " + id + " what it wrote"
	if id != d.RunID {
		hint = fmt.Sprintf("it failed in its sub-run %s of %s: %s", id, lowest.DAGID, hint)
	}
	return hint
}

// toldByParent says whether the end of a run is told by that of its parent, which is among
// those that are told of.
func toldByParent(d api.RunDetail, all []api.RunDetail) bool {
	return d.ReopenedUTC == "" && slices.ContainsFunc(all, func(x api.RunDetail) bool { return x.RunID == d.ParentRunID })
}

// interrupted says how things go on after a signal.
func (e *execution) interrupted(ctx context.Context, r *reached, err error) error {
	if !errors.Is(context.Cause(ctx), errInterrupted) {
		return err
	}
	out := &outcome{exit: exitInterrupted, err: api.Error{Code: codeInterrupted}}
	if r.held == nil {
		out.err.Message = "interrupted; what was begun goes on in the process that executes it"
		out.err.Hint = "stella orch run list --active"
		return out
	}
	ctx = context.WithoutCancel(ctx)
	var open, ended []api.RunDetail
	for _, run := range e.runs {
		d, err := r.RunOverview(ctx, run.RunID)
		switch {
		case err == nil && d.Status.Ended():
			ended = append(ended, d)
		case err == nil:
			open = append(open, d)
		default: // it is looked at again by whoever resumes it
			open = append(open, api.RunDetail{Run: run})
		}
	}
	ended = slices.DeleteFunc(slices.Clone(ended), func(d api.RunDetail) bool { return toldByParent(d, slices.Concat(open, ended)) })
	out.err.Message, out.err.Hint, out.err.Faults = left(ctx, r, open, ended)
	return out
}

// left says in what state a signal has left runs, and what helps. One that was executing
// what may not be repeated has ended by that.
func left(ctx context.Context, r *reached, open, ended []api.RunDetail) (message, hint string, lines []string) {
	var hints []string
	switch len(open) {
	case 0:
	case 1:
		hints = append(hints, "stella orch run resume "+open[0].RunID)
	default:
		hints = append(hints, "stella orch run resume --all")
	}
	for _, d := range ended {
		line := fmt.Sprintf("run %s is %s", d.RunID, d.Status)
		if why := reason(d.Run); why != "" {
			line += ": " + why
		}
		lines = append(lines, line)
		if h := afterEnd(ctx, r, d); !slices.Contains(hints, h) && (d.Status == state.Failed || len(ended)+len(open) == 1) {
			hints = append(hints, h)
		}
	}
	hint = strings.Join(hints, "; ")
	switch {
	case len(ended) == 0:
		return "interrupted; nothing is lost", hint, nil
	case len(ended) == 1 && len(open) == 0:
		return "interrupted; " + lines[0], hint, nil
	}
	return fmt.Sprintf("interrupted; %s open, and %s ended:", count(len(open), "run is", "runs are"), count(len(ended), "has", "have")), hint, lines
}

// afterEnd is the command for a run that has ended.
func afterEnd(ctx context.Context, r *reached, d api.RunDetail) string {
	if d.Status != state.Failed {
		return "stella orch run status " + d.RunID
	}
	switch low := lowest(ctx, r, d); state.Code(low.FailureReason) {
	case state.Indeterminate, state.PoisonPill:
		return "stella orch queue dead names the step, and what lets it go on once it is known what it did"
	default:
		return "stella orch run inspect " + low.RunID + " says why; stella orch run retry " + d.RunID + " tries again"
	}
}
