package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/runner/state"
)

// Why something is not done by hand, in the same words and with the same error for
// the same cause, whatever was asked for; with the command that helps instead.

// closedTo says why a run takes nothing by hand, nil if it does: [ErrEnded] where it
// is final, a conflict where it is being ended.
func (e *execution) closedTo(what string) error {
	switch {
	case e.run.Status == state.Failed:
		return nil // a retry, skip or reset reopens it
	case e.run.Status.Ended():
		return e.hasEnded()
	case e.run.CancelRequested(), e.run.FailRequested(), e.late:
		return e.ending("nothing is to " + what)
	}
	return nil
}

func (e *execution) hasEnded() error {
	return fmt.Errorf("%w: run %s is %s", ErrEnded, e.runID, e.run.Status)
}

// ending says that something comes too late for an open run.
func (e *execution) ending(what string) error {
	c := &ConflictError{Text: fmt.Sprintf("run %s is being ended: %s", e.runID, what), Hint: "wait for its end; a run that has failed can be reopened"}
	if e.run.CancelRequested() {
		c.Hint = "wait for its end, or end it at once: stella orch run abort " + e.runID + " --reason TEXT"
	}
	return c
}

func itemNamed(n *node) error {
	return &RequestError{Text: fmt.Sprintf("%s is an item: name its step %s; only retry and skip are about single items", n.id, n.parent.id)}
}

func (e *execution) noStep(id string) error {
	return &RequestError{Text: "run " + e.runID + " has no step " + id}
}

// noFailedStep says that somebody has to name a step. Of a run that has failed at its
// outputs it names those that they read.
func (e *execution) noFailedStep() error {
	code := state.Code(e.run.FailureReason)
	if e.run.Status != state.Failed || code != state.ExpressionInvalid && code != state.ResourceLimit {
		return conflict("run %s has no failed step; name the one that is meant", e.runID)
	}
	c := &ConflictError{Text: fmt.Sprintf("run %s has failed at its outputs, and none of its steps has: name the one that is to give something else", e.runID)}
	named := e.prog.outputs.named()
	if named.whole {
		named.steps = e.prog.before(nil)
	}
	read := slices.Compact(slices.Sorted(slices.Values(named.steps)))
	step := "STEP"
	switch len(read) {
	case 0:
		c.Hint = "they read no step: a new version of the DAG is needed, stella orch dag publish, and a run of that"
		return c
	case 1:
		step = read[0]
	}
	c.Hint = fmt.Sprintf("they read %s: %s; what no step can mend needs a new version of the DAG", listed(read), e.givesElse(step))
	return c
}

// givesElse is the command with which a step that has ended gives something else.
func (e *execution) givesElse(step string) string {
	n := e.byID[step]
	switch {
	case n != nil && n.byHand():
		return fmt.Sprintf("stella orch run skip %s --step %s --reason TEXT --set NAME=VALUE", e.runID, step)
	case n != nil && n.status == state.Skipped:
		return "which was skipped, and gives nothing"
	case n != nil && slices.ContainsFunc(n.items, func(x *node) bool { return x.status == state.Skipped }):
		return fmt.Sprintf("stella orch run skip %s --step %s.N --reason TEXT --set NAME=VALUE gives an item that was passed over something else", e.runID, step)
	case n != nil && len(n.items) > 0:
		return fmt.Sprintf("stella orch run retry %s --step %s.N begins one item again, --step %s all of them (--dry-run shows before what that does)", e.runID, step, step)
	}
	return fmt.Sprintf("stella orch run retry %s --step %s", e.runID, step)
}

// listed joins names, a few of many.
func listed(names []string) string {
	const most = 8
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}

// overtaken says that a step is not to begin any more: the run cleans up already, or has
// come to another end than the one that the step cleans up after.
func (e *execution) overtaken(n *node) error {
	switch {
	case n.phase == onCancel && e.run.Status == state.Failed:
		return conflict("step %s cleans up after a cancel, and run %s has failed", n.id, e.runID)
	case n.phase != ordinary || e.run.Status.Ended() || e.phaseNow() == ordinary:
		return nil
	}
	return &ConflictError{Text: fmt.Sprintf("run %s has failed and cleans up: step %s is not to run beside that", e.runID, n.id),
		Hint: "wait for the end of the run; then it can be reopened"}
}

// underWay says that a step is in somebody's hands, and what gets it out of them.
func (e *execution) underWay(n *node) error {
	if !n.claimed && n.status != state.Queued && n.status != state.Running {
		return nil
	}
	c := &ConflictError{Text: fmt.Sprintf("step %s is %s: something is under way with it already", n.id, n.status)}
	reset := fmt.Sprintf("stella orch run reset %s --step %s", e.runID, n.id)
	switch {
	case n.child != "":
		c.Text = fmt.Sprintf("step %s is %s: it is run %s", n.id, n.status, n.child)
		c.Hint = fmt.Sprintf("wait for it, or stella orch run restart %s; %s ends it and starts another", n.child, reset)
	case n.status == state.Queued && !n.claimed:
		c.Hint = fmt.Sprintf("wait for it, or stella orch run nudge %s ends its waiting time; else %s", e.runID, reset)
	default:
		c.Hint = fmt.Sprintf("wait for it, or stop it: stella orch run restart %s --step %s, or %s", e.runID, n.id, reset)
	}
	return c
}

// withPeople says that a step waits for people.
func (e *execution) withPeople(n *node) error {
	return &ConflictError{Text: "step " + n.id + " waits for people", Hint: fmt.Sprintf("stella orch approvals decide %s --decision retry; stella orch run reset %s --step %s takes it out of their hands",
		state.ApprovalID(e.runID, n.id, n.attempt), e.runID, n.id)}
}

// asksAbout says that a step waits for people, and what they are asked is built on one
// that is to be done again.
func (e *execution) asksAbout(x, on *node, instead string) error {
	id := state.ApprovalID(e.runID, x.id, x.attempt)
	return &ConflictError{Text: fmt.Sprintf("step %s waits for people, and what they are asked, %s, is built on what step %s has given", x.id, id, on.id),
		Hint: fmt.Sprintf("decide it first: stella orch approvals decide %s; or %s", id, instead)}
}

// builtUpon says that something that depends on a step is under way, each attempt of which
// reads what the step gives, or that people are asked about that, and what to do instead.
func (e *execution) builtUpon(n *node, instead string) error {
	for _, x := range e.downstream(n) {
		if err := e.underWay(x); err != nil {
			return err
		}
		if x.status == state.CheckpointPending {
			return e.asksAbout(x, n, instead)
		}
	}
	return nil
}

// onlyStopped says that a step would be stopped and not begun again, since nothing
// ordinary begins any more in its run.
func (e *execution) onlyStopped(n *node) error {
	switch {
	case !e.over(n.phase):
		return nil
	case e.run.CancelRequested() || e.run.FailRequested() || e.late:
		return e.ending("step " + n.id + " would be stopped, and not begun again")
	}
	c := &ConflictError{Text: fmt.Sprintf("run %s is failing, and begins nothing more: step %s would be stopped, and not begun again", e.runID, n.id)}
	if x := e.firstFailed(); x != nil {
		c.Hint = fmt.Sprintf("stella orch run retry %s --step %s lets it go on", e.runID, x.id)
	}
	return c
}

// nothingToRestart says what becomes of a step, or of a run, in which no attempt is
// under way, and what moves it.
func (e *execution) nothingToRestart(stepID string) error {
	c := &ConflictError{Text: "nothing is under way in run " + e.runID + " that could be begun again",
		Hint: "stella orch run status " + e.runID + " says what it waits for; resume lets an interrupted run go on"}
	for _, n := range e.all() {
		switch {
		case stepID != "" && n.id != stepID && (n.parent == nil || n.parent.id != stepID):
		case n.child != "":
			return e.underWay(n)
		case n.id != stepID:
		case n.status == state.CheckpointPending:
			return e.withPeople(n)
		case n.status == state.Queued && !n.claimed:
			c.Hint = "stella orch run nudge " + e.runID + " ends its waiting time"
		case n.status == state.Failed:
			c.Hint = fmt.Sprintf("stella orch run retry %s --step %s", e.runID, n.id)
		}
	}
	return c
}

// held says that a step would not begin, since another that it needs has failed.
func (e *execution) held(n *node, again ...*node) error {
	x := n.heldBy(again, map[*node]bool{})
	if x == nil {
		return nil
	}
	return &ConflictError{Text: fmt.Sprintf("step %s needs step %s, which has failed: it would not begin", n.id, x.id),
		Hint: fmt.Sprintf("stella orch run retry %s --step %s; what needs that gets its turn then", e.runID, x.id)}
}

// heldBy is a step that has failed, is not among those that are begun again, and that
// this one needs.
func (n *node) heldBy(again []*node, seen map[*node]bool) *node {
	for _, x := range n.owner().needs {
		if seen[x] || x.settled() && !x.byHand() || slices.Contains(again, x) {
			continue
		}
		seen[x] = true
		if x.status == state.Failed {
			return x
		}
		if y := x.heldBy(again, seen); y != nil {
			return y
		}
	}
	return nil
}

// failingBeside says that a step would not begin again, since another that is left as it
// is fails the run.
func (e *execution) failingBeside(n *node, q Retry) error {
	if e.run.Status.Ended() || !e.dag.FailFast || n.phase != ordinary {
		return nil
	}
	var behind []*node
	for _, x := range e.nodes {
		if x == n.owner() || x.phase != ordinary || x.status != state.Failed || !x.now || x.settled() {
			continue
		}
		if q.Downstream && behind == nil {
			behind = e.downstream(n.owner())
		}
		if !slices.Contains(behind, x) {
			c := &ConflictError{Text: fmt.Sprintf("step %s has failed, and run %s is failing: step %s would not begin again", x.id, e.runID, n.id),
				Hint: "wait for the end of the run, which can then be reopened"}
			if n.status != state.Failed { // else that would be refused for this one
				c.Hint += "; or stella orch run retry " + e.runID + " --step " + x.id
			}
			return c
		}
	}
	return nil
}
