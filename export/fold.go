package export

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// story is all entries of one run before the end of a window, in order.
type story struct {
	runID   string
	entries []entry
	bytes   int
}

// add appends the next entry.
func (s *story) add(e entry) error {
	env := e.Envelope
	if env.RunID != s.runID {
		return fmt.Errorf("entry %d belongs to run %.40q", env.Seq, env.RunID)
	}
	if n := len(s.entries); n > 0 {
		if last := s.entries[n-1].Envelope; last.Seq >= env.Seq || last.Time > env.Time {
			return fmt.Errorf("entry %d does not follow entry %d", env.Seq, last.Seq)
		}
		if first := s.entries[0].Envelope; first.Tenant != env.Tenant || first.DAGID != env.DAGID || first.DAGVersion != env.DAGVersion || first.TraceID != env.TraceID {
			return fmt.Errorf("entry %d is of another tenant, DAG, version or trace than entry %d of the same run", env.Seq, first.Seq)
		}
	}
	if begins := env.Type == ledger.RunStarted; begins != (len(s.entries) == 0) && !e.unknown {
		return fmt.Errorf("entry %d is %s: a run begins with %s, and only once", env.Seq, env.Type, ledger.RunStarted)
	}
	if s.bytes += len(e.envelope) + len(e.data); s.bytes > maxRun/2 {
		return fmt.Errorf("run %s: %w", s.runID, ErrTooLarge)
	}
	s.entries = append(s.entries, e)
	return nil
}

// changes is what package telemetry derives from.
func (s *story) changes() []state.Change {
	out := make([]state.Change, len(s.entries))
	for i, e := range s.entries {
		out[i] = e.Change
	}
	return out
}

// key is the run's place among others.
func (s *story) key() runKey {
	k := runKey{runID: s.runID}
	for _, e := range s.entries {
		if e.Envelope.Type == ledger.AttemptStarted {
			k.started = e.Envelope.Time
			break
		}
	}
	return k
}

// runKey orders runs by startedUtc, then runId. It is read from envelopes, so
// that withheld data moves no line; a run without an attempt comes first.
type runKey struct{ started, runID string }

func compareRuns(a, b runKey) int {
	return cmp.Or(cmp.Compare(a.started, b.started), cmp.Compare(a.runID, b.runID))
}

// errUnknown is the error of a run that holds entries of a newer stella.
var errUnknown = errors.New("it has entries of a type that this stella does not know")

// line is the run's line of runs.ndjson, without line feed. An entry that the
// machine of package state does not allow is its error.
func (s *story) line() ([]byte, error) {
	line := runLine{RunID: s.runID, Events: make([]runEvent, len(s.entries))}
	hidden := false
	for i, e := range s.entries {
		if e.unknown {
			return nil, errUnknown
		}
		hidden = hidden || e.withheld != ""
		line.Events[i] = runEvent{Data: e.data, Envelope: e.envelope}
	}
	if !hidden {
		if err := s.fold(&line); err != nil {
			return nil, err
		}
	}
	raw, err := jcs.Marshal(line)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", s.runID, err)
	}
	if len(raw) > maxRun {
		return nil, fmt.Errorf("run %s: %w", s.runID, ErrTooLarge)
	}
	return raw, nil
}

// fold fills run and steps.
func (s *story) fold(line *runLine) error {
	_, err := s.foldAll(line)
	return err
}

// foldAll fills run and steps, and returns the attempts, by step and number.
func (s *story) foldAll(line *runLine) ([]state.Attempt, error) {
	var run *state.Run
	var all []state.Attempt
	steps, attempts := map[string]*state.Step{}, map[string]*state.Attempt{}
	for _, e := range s.entries {
		id := e.Envelope.StepID
		v := state.View{Run: run, Step: steps[id], Attempt: attempts[id]}
		if err := state.Apply(&v, e.Change); err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Envelope.Seq, err)
		}
		run = v.Run
		if id != "" {
			if _, began := e.Data.(*ledger.AttemptStart); began && attempts[id] != nil {
				all = append(all, *attempts[id])
			}
			steps[id], attempts[id] = v.Step, v.Attempt
		}
	}
	for _, a := range attempts {
		if a != nil {
			all = append(all, *a)
		}
	}
	line.Run = run
	for _, step := range steps {
		line.Steps = append(line.Steps, *step)
	}
	slices.SortFunc(line.Steps, func(a, b state.Step) int { return cmp.Compare(a.StepID, b.StepID) })
	slices.SortFunc(all, func(a, b state.Attempt) int {
		return cmp.Or(cmp.Compare(a.StepID, b.StepID), cmp.Compare(a.Attempt, b.Attempt))
	})
	return all, nil
}
