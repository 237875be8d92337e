package store

import (
	"encoding/binary"
	"errors"
	"maps"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Keys of bRecords. What belongs to a run lies together, so that an entry that moves
// several records of it rewrites few pages:
//
//	runId                                 → state.Run
//	runId /a/ stepId / attempt, 4 bytes   → state.Attempt
//	runId /l/ seq, 8 bytes                → nothing: the entries of the run
//	runId /s/ stepId                      → state.Step
const (
	attemptPart = "/a/"
	entryPart   = "/l/"
	stepPart    = "/s/"
)

func attemptRecord(runID, stepID string, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte(runID+attemptPart+stepID+"/"), uint32(n))
}

func entryRecord(runID string, seq int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(runID+entryPart), uint64(seq))
}

func stepRecord(runID, stepID string) []byte { return []byte(runID + stepPart + stepID) }

// readRun reads the record of a run; [ErrNotFound] where there is none.
func readRun(t *bolt.Tx, id string) (run state.Run, err error) {
	if strings.Contains(id, "/") { // the key of something else
		return run, ErrNotFound
	}
	err = getJSON(t, bRecords, []byte(id), &run)
	return run, err
}

// indexedRun reads the record of a run that an index leads to: without it the ledger is damaged.
func indexedRun(t *bolt.Tx, id string) (state.Run, error) {
	run, err := readRun(t, id)
	return run, indexed(err, "record of run %s", printable([]byte(id)))
}

// indexed is what reading a record has ended with that an index leads to: where none is there,
// damage.
func indexed(err error, format string, a ...any) error {
	if errors.Is(err, ErrNotFound) {
		return damaged(errMissing, format, a...)
	}
	return err
}

// records are runs, steps and attempts in the form in which entries move them.
// They are decoded once and encoded once a request, however many of its entries
// move them; [state.Apply] replaces what it changes, so that a record that was
// handed out stays as it is.
type records struct {
	runs     map[string]*state.Run
	steps    map[string]*state.Step    // by stepRecord
	attempts map[string]*state.Attempt // by attemptRecord
}

func newRecords() *records {
	return &records{map[string]*state.Run{}, map[string]*state.Step{}, map[string]*state.Attempt{}}
}

// maxRecords bounds how many steps, and how many attempts, of open runs are kept
// from one transaction to the next.
const maxRecords = 1 << 14

// takeOver adds newer records to those that are kept for the next transaction:
// of runs that go on, what has not ended.
func (r *records) takeOver(newer *records) {
	if len(r.steps) > maxRecords || len(r.attempts) > maxRecords || len(r.runs) > maxRecords {
		*r = *newRecords()
	}
	for id, run := range newer.runs {
		if r.runs[id] = run; run.Status.Ended() {
			delete(r.runs, id)
		}
	}
	for key, step := range newer.steps {
		if r.steps[key] = step; step.Status.Ended() {
			delete(r.steps, key)
		}
	}
	for key, a := range newer.attempts {
		if r.attempts[key] = a; a.End != nil {
			delete(r.attempts, key)
		}
	}
}

// run reads a run as it is in this transaction; [ErrNotFound] where there is
// none.
func (tx *Tx) run(id string) (*state.Run, error) {
	for _, r := range tx.layers() {
		if run := r.runs[id]; run != nil {
			return run, nil
		}
	}
	run, err := readRun(tx.bolt, id)
	if err != nil {
		return nil, err
	}
	return &run, nil
}

func (tx *Tx) step(runID, stepID string) (*state.Step, error) {
	key := stepRecord(runID, stepID)
	for _, r := range tx.layers() {
		if step := r.steps[string(key)]; step != nil {
			return step, nil
		}
	}
	var step state.Step
	if err := getJSON(tx.bolt, bRecords, key, &step); err != nil {
		return nil, err
	}
	return &step, nil
}

func (tx *Tx) attempt(runID, stepID string, n int) (*state.Attempt, error) {
	key := attemptRecord(runID, stepID, n)
	for _, r := range tx.layers() {
		if a := r.attempts[string(key)]; a != nil {
			return a, nil
		}
	}
	var a state.Attempt
	if err := getJSON(tx.bolt, bRecords, key, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// layers are the records that are newer than those on disk, the newest first.
func (tx *Tx) layers() []*records {
	if tx.kept == nil {
		return []*records{tx.moved, tx.before}
	}
	return []*records{tx.moved, tx.before, tx.kept}
}

// view reads what an entry of a run moves.
func (tx *Tx) view(env ledger.Envelope) (v state.View, err error) {
	absent := func(err error) error {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	if v.Run, err = tx.run(env.RunID); err != nil || env.StepID == "" {
		return v, absent(err)
	}
	if v.Step, err = tx.step(env.RunID, env.StepID); err != nil || env.Attempt == 0 {
		return v, absent(err)
	}
	v.Attempt, err = tx.attempt(env.RunID, env.StepID, env.Attempt)
	return v, absent(err)
}

// flush writes the records that the request under way has moved.
func (tx *Tx) flush() error {
	m := tx.moved
	for id, run := range m.runs {
		if err := tx.putJSON(bRecords, []byte(id), run); err != nil {
			return err
		}
	}
	for key, step := range m.steps {
		if err := tx.putJSON(bRecords, []byte(key), step); err != nil {
			return err
		}
	}
	for key, a := range m.attempts {
		if err := tx.putJSON(bRecords, []byte(key), a); err != nil {
			return err
		}
	}
	maps.Copy(tx.before.runs, m.runs)
	maps.Copy(tx.before.steps, m.steps)
	maps.Copy(tx.before.attempts, m.attempts)
	tx.forget()
	return nil
}

// forget drops what the request under way has moved.
func (tx *Tx) forget() {
	if len(tx.moved.runs)+len(tx.moved.steps)+len(tx.moved.attempts) > 0 {
		tx.moved = newRecords()
	}
}
