package ledger_test

import (
	"errors"
	"testing"

	"github.com/stellarun/stella/ledger"
)

func TestCheckSubject(t *testing.T) {
	of := func(t ledger.Type, run, step string, attempt int) ledger.Envelope {
		return ledger.Envelope{Type: t, V: 1, RunID: run, StepID: step, Attempt: attempt}
	}
	for _, e := range []ledger.Envelope{
		of(ledger.SiteStopped, "", "", 0), of(ledger.ScheduleFired, "", "", 0), of(ledger.LockForced, "", "", 0), of(ledger.RunStarted, "r", "", 0),
		of(ledger.StepQueued, "r", "s", 0), of(ledger.RepeatWithdrawn, "r", "s", 0), of(ledger.AttemptStarted, "r", "s", 1), of(ledger.SubrunEnded, "r", "s", 2),
		of(ledger.StepCached, "r", "s", 1), of(ledger.StepExpanded, "r", "s", 1), of(ledger.ApprovalRefused, "r", "s", 1),
		of("moon.landed", "", "s", 0), {Type: ledger.AttemptEnded, V: 2},
	} {
		if err := e.CheckSubject(); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
	for _, e := range []ledger.Envelope{
		of(ledger.RunStarted, "", "", 0), of(ledger.RunCompleted, "r", "s", 0), of(ledger.RunFailed, "r", "", 1), of(ledger.StepQueued, "r", "", 0), of(ledger.StepQueued, "", "s", 0),
		of(ledger.StepFailed, "r", "s", 1), of(ledger.AttemptEnded, "r", "s", 0), of(ledger.AttemptEnded, "r", "", 1), of(ledger.AttemptEnded, "", "s", 1), of(ledger.RepeatWithdrawn, "r", "", 0),
		of(ledger.StepCached, "r", "s", 0), of(ledger.SiteStopped, "r", "", 0), of(ledger.SiteStopped, "", "s", 0), of(ledger.SiteStopped, "", "", 1),
	} {
		var form *ledger.FormError
		if err := e.CheckSubject(); !errors.As(err, &form) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// A new type is given its subject on purpose.
func TestSubjectOfEveryType(t *testing.T) {
	n := map[ledger.Subject]int{}
	for _, info := range ledger.Types() {
		n[info.Type.Subject()]++
	}
	if n[ledger.OfRun] != 16 || n[ledger.OfStep] != 7 || n[ledger.OfAttempt] != 10 {
		t.Errorf("%v of %d types", n, len(ledger.Types()))
	}
}
