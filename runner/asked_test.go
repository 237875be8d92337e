package runner_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// An end that was asked for, and whose process died before it was passed on to the
// sub-run, can be asked for again.
func TestAnEndThatDidNotReachASubRunCanBeAskedForAgain(t *testing.T) {
	for what, end := range endings {
		for _, cut := range []bool{false, true} {
			t.Run(what+map[bool]string{true: " cut short", false: ""}[cut], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, hangs)
					w.child(nil, "c")
					d := parent(nil, "sub")
					run := w.start(d, "{}")
					ctx, cancel := context.WithCancel(context.Background())
					done := make(chan error)
					go func() { done <- w.r.Run(ctx, false) }()
					synctest.Wait()
					cancel()
					<-done
					w.reopen()
					if cut { // the entry that asked, and then the process was killed
						p := state.Proposal{Type: ledger.RunCancelRequested, Actor: "uid:7", Data: &ledger.Note{}}
						switch what {
						case "fail":
							p.Type, p.Data = ledger.RunFailRequested, &ledger.RunFailing{Code: "FAILED_BY_HAND"}
						case "abort":
							p.Type = ledger.RunAbortRequested
						}
						if _, err := w.db.Commit(run.RunID, p); err != nil {
							t.Fatal(err)
						}
					}
					now, _ := w.look(run.RunID)
					w.r = w.idle()
					if _, err := end(w, w.opened(now, d)); err != nil {
						t.Fatal(err)
					}
					got, _ := w.look(run.RunID)
					child, _ := w.look(w.childOf(run, "sub"))
					if !got.Status.Ended() || child.Status != state.Cancelled {
						t.Errorf("the run is %s, its sub-run %s", got.Status, child.Status)
					}
				})
			})
		}
	}
}

// asking leaves a run behind whose sub-run waits for people, and that nobody executes; an
// end was asked for, and its process died before the sub-run heard of it.
func asking(t *testing.T, asked state.Proposal) (w *world, d *manifests.DAG, run, child string) {
	t.Helper()
	w = newWorld(t, ok)
	w.child(func(d *manifests.DAG) {
		d.Steps[0].Plugin, d.Steps[0].Action = nil, ""
		d.Steps[0].Checkpoint = &manifests.Checkpoint{Question: "ok?", Options: []manifests.Option{{Label: "y", Decision: "continue"}}}
		d.Steps, d.OnCancel = d.Steps[:1], d.Steps[1:]
	}, "ask", "tidy")
	d = parent(nil, "sub")
	run = w.start(d, "{}").RunID
	if err := w.r.RunUnattended(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, _ := w.look(run)
	child = w.childOf(now, "sub")
	w.r = w.runner(1)
	if _, err := w.db.Commit(run, asked); err != nil {
		t.Fatal(err)
	}
	return w, d, run, child
}

// The sub-run of a run that was failed is told why.
func TestASubRunIsToldWhyItsRunWasFailed(t *testing.T) {
	w, d, run, child := asking(t, state.Proposal{Type: ledger.RunFailRequested, Actor: "uid:7", Data: &ledger.RunFailing{Code: "FAILED_BY_HAND", Reason: "because"}})
	now, _ := w.look(run)
	if _, err := w.r.Fail(w.opened(now, d), "uid:7", state.FailedByHand, "because"); err != nil {
		t.Fatal(err)
	}
	if c, _ := w.look(child); !c.CancelRequested() || !strings.HasSuffix(c.CancelReason, ": because") {
		t.Errorf("it is %s, because %q", c.Status, c.CancelReason)
	}
}

// A cancel of a run that was aborted before leaves its sub-run no time either.
func TestACancelAfterAnAbortIsOne(t *testing.T) {
	w, d, run, child := asking(t, state.Proposal{Type: ledger.RunAbortRequested, Actor: "uid:7", Data: &ledger.Note{Reason: "because"}})
	now, _ := w.look(run)
	if _, err := w.r.Cancel("uid:7", "x", w.opened(now, d)); err != nil {
		t.Fatal(err)
	}
	if c, steps := w.look(child); !c.Aborted || steps["tidy"] == "completed" {
		t.Errorf("it is %s, aborted %v, %v", c.Status, c.Aborted, steps)
	}
}
