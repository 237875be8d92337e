package plugin

import (
	"errors"
	"fmt"
	"time"
)

// An Error is a failure that the plugin names. Return one from the function
// given to [Main]; it is written as an error line and decides the exit code.
type Error struct {
	Code    string // [A-Za-z0-9_.-]{1,64}; "FAILED" when empty
	Message string // cut at [MaxMessage] bytes
	// Rejected means that the parameters are at fault: the attempt is never
	// repeated. It excludes Retryable.
	Rejected   bool
	Retryable  bool
	RetryAfter time.Duration // with Retryable: not before; rounded up to milliseconds
	Err        error         // may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Message
	case e.Message == "":
		return e.Err.Error()
	}
	return e.Message + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Retryable says that the same attempt may succeed later, after at least the
// given time. It is nil if err is.
func Retryable(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &Error{Code: "RETRYABLE", Retryable: true, RetryAfter: max(0, after), Err: err}
}

// Rejectf says that the parameters are at fault and no repetition will help.
func Rejectf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: "REJECTED", Rejected: true, Err: err}
}

// asError gives any failure the form of an error line.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		named := *e
		named.Message = cut(err.Error(), MaxMessage)
		if !validCode(named.Code) {
			named.Code = "FAILED"
		}
		return &named
	}
	return &Error{Code: "FAILED", Message: cut(err.Error(), MaxMessage)}
}

// exitCode is the code that goes with an error.
func exitCode(e *Error) int {
	switch {
	case e.Rejected:
		return ExitRejected
	case e.Retryable:
		return ExitRetryable
	}
	return ExitFailed
}

// validCode is [A-Za-z0-9_.-]{1,64}.
func validCode(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
