package engine

import (
	"errors"
	"time"

	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// JudgedAsOf gives a refusal that the time decides about the hint that fits it
// where somebody chose the time: no clock is to blame then. Other errors stay as
// they are.
func JudgedAsOf(err error, at time.Time) error {
	var known *api.Error
	if !errors.As(err, &known) || known.Refusal == nil {
		return err
	}
	if timely(known.Refusal.Reason) {
		known.Hint = hintAsOf(at)
		known.Refusal.Hint = known.Hint
	}
	ReportAsOf(known.Refusal.Report, at)
	return err
}

// ReportAsOf does the same for the checks of a report; nil has none.
func ReportAsOf(r *api.Report, at time.Time) {
	for i := 0; r != nil && i < len(r.Checks); i++ {
		if timely(r.Checks[i].Reason) {
			r.Checks[i].Hint = hintAsOf(at)
		}
	}
}

func hintAsOf(at time.Time) string {
	return "it was judged as of " + at.UTC().Format(time.RFC3339) + ": without --as-of it is judged now"
}

// timely says whether the time of a judgement decides about a reason.
func timely(reason string) bool {
	switch verify.Reason(reason) {
	case verify.TrustedTimeAhead, verify.RootExpired, verify.PolicyExpired, verify.RevocationsExpired,
		verify.KeyNotYetValid, verify.KeyExpired, verify.NotYetValid, verify.Expired:
		return true
	}
	return false
}
