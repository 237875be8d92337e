package runner

import (
	"errors"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// maxDiffers bounds how many differences one entry lists.
const maxDiffers = 100

// A replay runs what an ended run ran, from the same sealed bundles with the same
// inputs, and takes nothing from the cache. When it has ended, every output is
// compared: the two runs say the same if each step ended in the same way and gave
// the same bytes.

// Compare holds a replay against the run that it repeats.
func (r *Runner) Compare(replay state.Run) (*ledger.RunComparison, error) {
	first, err := r.opt.Store.Run(replay.ReplayOf)
	if err != nil {
		return nil, err
	}
	was, err := r.opt.Store.Steps(first.RunID)
	if err != nil {
		return nil, err
	}
	is, err := r.opt.Store.Steps(replay.RunID)
	if err != nil {
		return nil, err
	}
	c := &comparison{RunComparison: ledger.RunComparison{With: first.RunID}}
	c.field("", "status", string(first.Status), string(replay.Status))
	c.field("", "outputsHash", first.OutputsHash, replay.OutputsHash)
	ids := map[string]bool{}
	for id := range was {
		ids[id] = true
	}
	for id := range is {
		ids[id] = true
	}
	for _, id := range sortedKeys(ids) {
		if err := r.compareStep(c, first.RunID, replay.RunID, id, was[id], is[id]); err != nil {
			return nil, err
		}
	}
	c.Steps, c.Same = len(ids), c.n == 0
	return &c.RunComparison, nil
}

type comparison struct {
	ledger.RunComparison
	n int // differences, listed or not
}

func (c *comparison) field(step, field, was, is string) {
	if was == is {
		return
	}
	if c.n++; c.n <= maxDiffers {
		c.Differs = append(c.Differs, ledger.Difference{StepID: step, Field: field, Was: was, Is: is})
	}
}

func (r *Runner) compareStep(c *comparison, first, replay, id string, was, is state.Step) error {
	c.field(id, "status", statusOf(was), statusOf(is))
	c.field(id, "outputsHash", was.OutputsHash, is.OutputsHash)
	before, err := r.artifactsMade(first, was)
	if err != nil {
		return err
	}
	after, err := r.artifactsMade(replay, is)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	for _, name := range sortedKeys(names) {
		c.field(id, "artifact "+name, before[name], after[name])
	}
	return nil
}

// statusOf is how a step ended; what was done by hand counts as it did then.
func statusOf(s state.Step) string {
	if s.Status == "" {
		return string(state.Pending)
	}
	return string(s.Status)
}

// artifactsMade are the digests of what a step handed over, by name.
func (r *Runner) artifactsMade(runID string, s state.Step) (map[string]string, error) {
	out := map[string]string{}
	var list []ledger.Artifact
	switch {
	case s.Status != state.Completed:
	case s.Cached != nil:
		list = s.Cached.Artifacts
	case s.Attempt > 0 && s.Child == nil:
		a, err := r.opt.Store.Attempt(runID, s.StepID, s.Attempt)
		if err != nil || a.End == nil {
			return out, nil // a gate, which has no attempts
		}
		list = a.End.Artifacts
	}
	for _, a := range list {
		out[a.Name] = a.SHA256
	}
	return out, nil
}

// compared records how a replay that has ended compares. The caller holds e.mu.
func (r *Runner) compared(e *execution) {
	if e.run.ReplayOf == "" {
		return
	}
	run := e.run
	e.later = append(e.later, func() {
		c, err := r.Compare(run)
		if err == nil {
			_, err = r.opt.Store.Commit(run.RunID, state.Proposal{Type: ledger.RunCompared, Actor: "system:runner", Data: c})
		}
		if err != nil && !errors.Is(err, ErrStopping) {
			r.opt.Log.Error("a replay could not be compared", "runId", run.RunID, "error", err)
		}
	})
}
