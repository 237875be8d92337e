package runner

import (
	"fmt"

	"github.com/stellarun/stella/runner/state"
)

// Verdict is what an attempt's report means.
type Verdict struct {
	Outcome      state.Outcome
	Code         state.Code
	Retryable    bool // by the step's retry rule
	RetryAfterMs int64
	Message      string
}

// Classify turns what an executor saw into an outcome: causes of ours first
// (cancel, shutdown, deadline, limits), then the exit code, then the outputs.
// invalid says what is wrong with the outputs, "" when they satisfy the
// action's schema.
func Classify(r Report, invalid string) Verdict {
	switch r.Stop {
	case StopCancel:
		return Verdict{Outcome: state.OutcomeCancelled}
	case StopShutdown:
		return Verdict{Outcome: state.Interrupted}
	case StopRevoked:
		return Verdict{Outcome: state.Rejected, Code: state.StepRejected, Message: r.Detail}
	case StopDeadline:
		return Verdict{Outcome: state.TimedOut, Code: state.Timeout, Retryable: true, Message: r.Detail}
	case StopMemory:
		return Verdict{Outcome: state.OOM, Code: state.OutOfMemory, Message: r.Detail}
	case StopResource:
		return Verdict{Outcome: state.OutcomeFailed, Code: state.ResourceLimit, Message: r.Detail}
	case StopWASM, StopUnstarted:
		return Verdict{Outcome: state.OutcomeFailed, Code: state.BundleInvalid, Message: r.Detail}
	case StopTrap:
		return Verdict{Outcome: state.Crashed, Code: state.StepCrashed, Retryable: true, Message: r.Detail}
	}
	if r.ExitCode == nil {
		return Verdict{Outcome: state.Crashed, Code: state.StepCrashed, Retryable: true, Message: "died of " + r.Signal}
	}
	v := classifyExit(*r.ExitCode)
	e := r.Output.Error
	switch {
	case v.Outcome == state.Succeeded && e != nil:
		v = Verdict{Outcome: state.OutcomeFailed, Code: state.StepFailed, Retryable: true}
	case v.Outcome == state.Succeeded && r.Output.Fault != "":
		return Verdict{Outcome: state.OutcomeFailed, Code: state.ContractViolation, Message: r.Output.Fault}
	case v.Outcome == state.Succeeded && invalid != "":
		return Verdict{Outcome: state.OutcomeFailed, Code: state.ContractViolation, Message: invalid}
	}
	if r.Output.Fault != "" { // what it meant to say is lost; that it did, and what was wrong, is not
		v.Message += "; its output counts for nothing: " + r.Output.Fault
	}
	if e == nil || v.Code != state.StepFailed && v.Code != state.StepRetryable {
		return v
	}
	v.Message = e.Message
	if e.Code != "" {
		v.Message = e.Code + ": " + e.Message
	}
	if e.Retryable {
		v.Code = state.StepRetryable
	}
	if v.Code == state.StepRetryable {
		v.RetryAfterMs = max(0, e.RetryAfterMs)
	}
	return v
}

// classifyExit is the exit code column of the contract's section 8.
func classifyExit(code int) Verdict {
	msg := fmt.Sprintf("exit code %d", code)
	switch code {
	case 0:
		return Verdict{Outcome: state.Succeeded}
	case 64, 65, 78:
		return Verdict{Outcome: state.Rejected, Code: state.StepRejected, Message: msg}
	case 75:
		return Verdict{Outcome: state.OutcomeFailed, Code: state.StepRetryable, Retryable: true, Message: msg}
	case 126, 127:
		return Verdict{Outcome: state.OutcomeFailed, Code: state.BundleInvalid, Message: msg}
	}
	return Verdict{Outcome: state.OutcomeFailed, Code: state.StepFailed, Retryable: true, Message: msg}
}
