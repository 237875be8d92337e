package runner_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
)

// gone is a refusal with a reason.
type gone struct{}

func (gone) Error() string  { return "it is revoked" }
func (gone) Reason() string { return "REVOKED_MANIFEST" }

// ending lets an attempt go on until it is told to stop.
func ending(ctx context.Context, _ runner.Task) (runner.Report, error) {
	select {
	case <-ctx.Done():
		return runner.Report{Stop: runner.StopRevoked}, nil
	case <-time.After(10 * time.Second):
		return exit(0), nil
	}
}

// What trust refuses ends while it is under way, with the reason; what it still
// allows goes on.
func TestRejudgeEndsWhatIsRevoked(t *testing.T) {
	started := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
		close(started)
		return ending(ctx, task)
	})
	run := w.start(dag(nil, "a", "b"), "{}")
	go func() {
		<-started
		if n := w.r.Rejudge(); n != 0 {
			t.Errorf("%d attempts were ended that trust allows", n)
		}
		w.sealed.refuse(gone{})
		if n := w.r.Rejudge(); n != 1 {
			t.Errorf("%d attempts were ended, want 1", n)
		}
	}()
	got, steps := w.finish(run.RunID)
	if got.FailureReason != "REVOKED_MANIFEST" || !strings.HasPrefix(steps["a"], "failed") {
		t.Errorf("the run failed with %s: %v", got.FailureReason, steps)
	}
	a, err := w.db.Attempt(run.RunID, "a", 1)
	if err != nil || a.End == nil || a.End.Outcome != "rejected" || a.End.ErrorCode != "REVOKED_MANIFEST" {
		t.Errorf("%+v, %v", a, err)
	}
}

// An attempt that was judged before trust changed, and is claimed afterwards, is
// judged again: no process comes of it.
func TestAnAttemptBetweenJudgementAndClaim(t *testing.T) {
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		t.Error("a process was started")
		return exit(0), nil
	})
	plugin := strings.Repeat("1", 64)
	w.sealed.judged = func(digest string) (ledger.TrustRef, error) {
		if digest != plugin {
			return ledger.TrustRef{}, nil
		}
		w.sealed.judged = nil // the next judgement finds the new trust
		w.sealed.refuse(gone{})
		w.r.Rejudge()
		return ledger.TrustRef{}, nil // what the old trust says
	}
	got, _ := w.finish(w.start(dag(nil, "a"), "{}").RunID)
	if got.FailureReason != "REVOKED_MANIFEST" {
		t.Errorf("the run failed with %s", got.FailureReason)
	}
}
