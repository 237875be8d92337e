package runner_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// bounded refuses what is written beyond a number of commits, if that is set.
type bounded struct {
	runner.Store
	n, most int
}

func (b *bounded) Commit(id string, p ...state.Proposal) (state.Run, error) {
	if b.most > 0 {
		if b.n++; b.n > b.most {
			return state.Run{}, errors.New("it writes without end")
		}
	}
	return b.Store.Commit(id, p...)
}

// A run that was reopened for its cleanup, has written too much, and is cancelled or aborted
// then, ends: what bounds it asks for no other end of it.
func TestTheEndOfARunThatHasWrittenTooMuch(t *testing.T) {
	for _, how := range []string{"cancel", "abort"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const most = 30
				ends := endsWith(map[string][]int{"k": {65}}, nil)
				w := newWorld(t, stops(func(ctx context.Context, task runner.Task) (runner.Report, error) {
					if task.StepID == "a" || task.StepID == "k" && task.Attempt == 2 {
						<-ctx.Done()
						time.Sleep(5 * time.Second)
					}
					return ends(ctx, task)
				}))
				b := &bounded{Store: w.db}
				w.with(func(o *runner.Options) { o.Store, o.MaxEntries = b, most })
				d := dag(func(d *manifests.DAG) { d.OnFailure, d.OnCancel = dag(nil, "k").Steps, dag(nil, "oc").Steps }, "a")
				run := w.start(d, "{}")
				w.background()
				time.Sleep(time.Minute)
				if err := second(w.r.Fail(w.asIs(run.RunID, d), "uid:7", state.FailedByHand, "stop")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				w.retry(t, run.RunID, d, runner.Retry{StepID: "k"})
				time.Sleep(time.Minute)
				for now, _ := w.look(run.RunID); now.Entries < 2*most; now, _ = w.look(run.RunID) {
					if err := second(w.r.Nudge(w.asIs(run.RunID, d), "uid:7", "")); err != nil {
						t.Fatal(err)
					}
				}
				b.most = 200
				var err error
				if how == "cancel" {
					err = second(w.r.Cancel("uid:7", "no", w.asIs(run.RunID, d)))
				} else {
					err = second(w.r.Abort(w.asIs(run.RunID, d), "uid:7", "no"))
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				if now, _ := w.look(run.RunID); now.Status != state.Cancelled || now.Entries > 3*most {
					t.Errorf("the run is %s with %d entries", now.Status, now.Entries)
				}
			})
		})
	}
}
