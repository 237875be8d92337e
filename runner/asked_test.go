package runner_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stellarun/stella/ledger"
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
