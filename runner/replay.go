package runner

import (
	"fmt"
	"maps"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// maxDiffers bounds how many differences one entry lists: each has at most 512 bytes,
// an entry 64 KiB.
const maxDiffers = 100

// A replay runs what an ended run ran, from the same sealed bundles with the same
// inputs, and takes nothing from the cache. When it has ended, every output is
// compared: the two runs say the same if each step ended in the same way and gave
// the same bytes. That is written together with the end: no end of a process comes
// between the two.

// Compare holds a replay against the run that it repeats.
func (r *Runner) Compare(replay state.Run) (*ledger.RunComparison, error) {
	is, err := r.opt.Store.Steps(replay.RunID)
	if err != nil {
		return nil, err
	}
	return r.compare(replay, is, nil)
}

// compare does it with the records of its steps. The batch is what those know of and
// the store does not yet.
func (r *Runner) compare(replay state.Run, is map[string]state.Step, batch []state.Proposal) (*ledger.RunComparison, error) {
	first, err := r.opt.Store.Run(replay.ReplayOf)
	if err != nil {
		return nil, err
	}
	was, err := r.opt.Store.Steps(first.RunID)
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
		c.field(id, "status", statusOf(was[id]), statusOf(is[id]))
		c.field(id, "outputsHash", was[id].OutputsHash, is[id].OutputsHash)
		c.artifacts(id, r.artifactsMade(first.RunID, was[id], nil), r.artifactsMade(replay.RunID, is[id], batch))
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

// artifacts compares what a step handed over.
func (c *comparison) artifacts(id string, before, after map[string]string) {
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
}

// statusOf is how a step ended; what was done by hand counts as it did then.
func statusOf(s state.Step) string {
	if s.Status == "" {
		return string(state.Pending)
	}
	return string(s.Status)
}

// artifactsMade are the digests of what a step handed over, by name. The end of its
// attempt may be in a batch that is not written yet.
func (r *Runner) artifactsMade(runID string, s state.Step, batch []state.Proposal) map[string]string {
	out := map[string]string{}
	var list []ledger.Artifact
	switch {
	case s.Status != state.Completed:
	case s.Cached != nil:
		list = s.Cached.Artifacts
	case s.Attempt > 0 && s.Child == nil:
		if end := r.attemptEnd(runID, s, batch); end != nil {
			list = end.Artifacts
		}
	}
	for _, a := range list {
		out[a.Name] = a.SHA256
	}
	return out
}

// attemptEnd is the end of a step's last attempt, nil of a gate, which has none.
func (r *Runner) attemptEnd(runID string, s state.Step, batch []state.Proposal) *ledger.AttemptEnd {
	for _, p := range batch {
		if end, ok := p.Data.(*ledger.AttemptEnd); ok && p.StepID == s.StepID && p.Attempt == s.Attempt {
			return end
		}
	}
	a, err := r.opt.Store.Attempt(runID, s.StepID, s.Attempt)
	if err != nil {
		return nil
	}
	return a.End
}

// compared adds to what ends a run how it compares, if it is a replay. That the first
// run cannot be read keeps it from nothing else.
func (r *Runner) compared(run state.Run, batch []state.Proposal) []state.Proposal {
	if run.ReplayOf == "" {
		return batch
	}
	run, steps, err := r.after(run, batch)
	var c *ledger.RunComparison
	if err == nil {
		c, err = r.compare(run, steps, batch)
	}
	if err != nil {
		r.opt.Log.Error("a replay could not be compared", "runId", run.RunID, "error", err)
		return batch
	}
	return append(batch, state.Proposal{Type: ledger.RunCompared, Actor: "system:runner", Data: c})
}

// after is the records of a run as they will be with a batch. A run that the store
// does not have yet has no entries.
func (r *Runner) after(run state.Run, batch []state.Proposal) (_ state.Run, steps map[string]state.Step, err error) {
	x := &tried{run: run, is: map[string]state.Step{}}
	if run.Entries == 0 {
		x.run.Status = state.Planning
	} else {
		if x.run, err = r.opt.Store.Run(run.RunID); err == nil {
			steps, err = r.opt.Store.Steps(run.RunID)
		}
		if err != nil {
			return run, nil, err
		}
		maps.Copy(x.is, steps)
	}
	t := &trial{Store: r.opt.Store, r: r}
	for _, p := range batch {
		if err := t.apply(x, p); err != nil {
			return run, nil, fmt.Errorf("runner: run %s: %w", run.RunID, err)
		}
	}
	return x.run, x.is, nil
}
