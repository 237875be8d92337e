package ledger

import "strings"

// A Subject is what the entries of a type are about. Their envelopes name it and what it
// is a part of, and nothing below it: an entry that hid its run would be in no run.
type Subject int

// Subjects, the larger first.
const (
	OfSite    Subject = iota
	OfRun             // runId
	OfStep            // runId, stepId
	OfAttempt         // runId, stepId, attempt
)

// Subject is what entries of a type are about.
func (t Type) Subject() Subject {
	family, _, _ := strings.Cut(string(t), ".")
	switch {
	case t == StepExpanded, t == StepCached, family == "attempt", family == "subrun", family == "approval":
		return OfAttempt
	case family == "step", family == "repeat":
		return OfStep
	case family == "run":
		return OfRun
	}
	return OfSite
}

// CheckSubject refuses an envelope that names less or more than entries of its type are
// about. Of types and versions that this stella does not know it says nothing.
func (e *Envelope) CheckSubject() error {
	if !e.Known() {
		return nil
	}
	of := e.Type.Subject()
	for _, m := range []struct {
		name  string
		there bool
		of    Subject
	}{{"runId", e.RunID != "", OfRun}, {"stepId", e.StepID != "", OfStep}, {"attempt", e.Attempt != 0, OfAttempt}} {
		if m.there != (of >= m.of) {
			return malformed("envelope", "%s %s %s", e.Type, map[bool]string{true: "with", false: "without"}[m.there], m.name)
		}
	}
	return nil
}
