package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// ErrHeld says that a lock is not free, or not held by whom it was said to be.
var ErrHeld = errors.New("store: the lock is held by another")

func lockKey(tenant, kind, name string) []byte {
	return []byte(tenant + "\x00" + kind + "\x00" + name)
}

// projectLocks moves the locks that an attempt or a sub-run takes or gives back.
func (tx *Tx) projectLocks(env ledger.Envelope, run *state.Run, view state.View, data any) error {
	switch d := data.(type) {
	case *ledger.AttemptStart:
		return tx.take(env, d.Locks)
	case *ledger.AttemptEnd:
		return tx.giveBack(run.Tenant, view.Attempt.Start.Locks, func(h state.LockHolder) bool {
			return h.RunID == run.RunID && h.StepID == env.StepID && h.Attempt == env.Attempt
		})
	case *ledger.SubrunStart:
		return tx.take(env, d.Locks)
	case *ledger.SubrunEnd:
		return tx.giveBackOf(run.Tenant, view.Step.Child, d.Left)
	case *ledger.StepInvalidation:
		if c := view.Step.Child; c != nil && c.Status == "" { // its sub-run counts no more
			return tx.giveBackOf(run.Tenant, c, d.Leaves == c.RunID)
		}
	}
	return nil
}

// giveBackOf gives back what a step held for a sub-run that it does not wait for any
// more. One that was left to itself goes on under it until it has ended, whichever
// process sees to that; one that has ended meanwhile, or was reopened since, does not.
func (tx *Tx) giveBackOf(tenant string, c *state.Child, left bool) error {
	if left {
		child, err := tx.run(c.RunID)
		if err != nil || !child.Status.Ended() && child.ReopenedUTC <= c.LeftUTC {
			return err
		}
	}
	return tx.giveBack(tenant, c.Locks, func(h state.LockHolder) bool { return h.Fence == c.Fence })
}

// giveBackGivenUp gives back what a step held for a run that it had given up and that
// has ended.
func (tx *Tx) giveBackGivenUp(run *state.Run) error {
	if run.ParentRunID == "" {
		return nil
	}
	step, err := tx.step(run.ParentRunID, run.ParentStepID)
	if err != nil {
		return err
	}
	c := step.Child
	if c == nil || c.RunID != run.RunID || c.Status == "" && step.Status == state.Running { // the step gives it back
		return nil
	}
	return tx.giveBackOf(run.Tenant, c, false)
}

func (tx *Tx) take(env ledger.Envelope, locks []ledger.Lock) error {
	for _, l := range locks {
		rec, err := tx.lock(env.Tenant, l.Kind, l.Name)
		if err != nil {
			return err
		}
		if l.Kind == "lock" && len(rec.Holders) > 0 {
			h := rec.Holders[0] // whoever gave it out here was mistaken
			return fmt.Errorf("%w: %w", ErrHeld, &state.HeldError{Lock: l.Name, RunID: h.RunID, StepID: h.StepID})
		}
		rec.Holders = append(rec.Holders, state.LockHolder{
			RunID: env.RunID, StepID: env.StepID, Attempt: env.Attempt, Weight: l.Weight, Fence: env.Seq, SinceUTC: env.Time,
		})
		if err := tx.putJSON(bLocks, lockKey(env.Tenant, l.Kind, l.Name), rec); err != nil {
			return err
		}
	}
	return nil
}

// giveBack takes away the holders that are meant. One that is gone has lost the
// lock before.
func (tx *Tx) giveBack(tenant string, locks []ledger.Lock, meant func(state.LockHolder) bool) error {
	for _, l := range locks {
		rec, err := tx.lock(tenant, l.Kind, l.Name)
		if err != nil {
			return err
		}
		if err := tx.without(rec, meant); err != nil {
			return err
		}
	}
	return nil
}

// without writes a lock without the holders that are meant.
func (tx *Tx) without(rec state.LockRecord, meant func(state.LockHolder) bool) error {
	n := len(rec.Holders)
	rec.Holders = slices.DeleteFunc(rec.Holders, meant)
	key := lockKey(rec.Tenant, rec.Kind, rec.Name)
	switch {
	case len(rec.Holders) == n:
		return nil
	case len(rec.Holders) == 0:
		return tx.delete(bLocks, key)
	}
	return tx.putJSON(bLocks, key, rec)
}

func (tx *Tx) lock(tenant, kind, name string) (state.LockRecord, error) {
	rec := state.LockRecord{Tenant: tenant, Kind: kind, Name: name}
	err := getJSON(tx.bolt, bLocks, lockKey(tenant, kind, name), &rec)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return rec, err
}

// projectLoss takes a lock away from its holder.
func (tx *Tx) projectLoss(env ledger.Envelope, d *ledger.LockLoss) error {
	rec, err := tx.lock(env.Tenant, d.Kind, d.Name)
	if err != nil {
		return err
	}
	return tx.without(rec, func(h state.LockHolder) bool { return h.Fence == d.Fence })
}

// LoseLock records that a holder has lost a lock; [ErrHeld] if it holds it no
// more. The type is [ledger.LockReclaimed] or [ledger.LockForced].
func (db *DB) LoseLock(t ledger.Type, actor, tenant string, d ledger.LockLoss) error {
	return db.update(func(tx *Tx) error {
		rec, err := tx.lock(tenant, d.Kind, d.Name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(rec.Holders, func(h state.LockHolder) bool { return h.Fence == d.Fence }) {
			return fmt.Errorf("%w: %s", ErrHeld, d.Name)
		}
		e := siteEntry(t, actor, &d)
		e.envelope.Tenant = tenant
		_, err = tx.append(e)
		return err
	})
}

// Locks reads what is held, of one tenant, or with "" of all.
func (db *DB) Locks(tenant string) ([]state.LockRecord, error) {
	var out []state.LockRecord
	var prefix []byte
	if tenant != "" {
		prefix = pair(tenant, "")
	}
	err := scan(db, bLocks, prefix, func(t *bolt.Tx, k, _ []byte) error {
		var rec state.LockRecord
		if err := getJSON(t, bLocks, k, &rec); err != nil {
			return err
		}
		out = append(out, rec)
		return nil
	})
	return out, err
}

func (tx *Tx) projectQueue(env ledger.Envelope, d *ledger.QueueChange) error {
	q, err := queueOf(tx.bolt)
	if err != nil {
		return err
	}
	note := state.QueueNote{Actor: env.Actor, TimeUTC: env.Time, Reason: d.Reason}
	switch env.Type {
	case ledger.QueuePaused:
		q.Paused = with(q.Paused, d.Tenant, note)
	case ledger.QueueDraining:
		q.Draining = with(q.Draining, d.Tenant, note)
	default:
		delete(q.Paused, d.Tenant)
		delete(q.Draining, d.Tenant)
	}
	return tx.putJSON(bMeta, kQueue, q)
}

func with(m map[string]state.QueueNote, key string, note state.QueueNote) map[string]state.QueueNote {
	if m == nil {
		m = map[string]state.QueueNote{}
	}
	m[key] = note
	return m
}

func queueOf(t *bolt.Tx) (state.QueueState, error) {
	var q state.QueueState
	err := getJSON(t, bMeta, kQueue, &q)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return q, err
}

// Queue reads what is paused and what is drained.
func (db *DB) Queue() (q state.QueueState, err error) {
	err = db.view(func(t *bolt.Tx) error {
		q, err = queueOf(t)
		return err
	})
	return q, err
}

// ChangeQueue records a change of the queue and returns what holds now.
func (db *DB) ChangeQueue(t ledger.Type, actor string, d ledger.QueueChange) (q state.QueueState, err error) {
	err = db.update(func(tx *Tx) error {
		e := siteEntry(t, actor, &d)
		e.envelope.Tenant = d.Tenant
		if _, err := tx.append(e); err != nil {
			return err
		}
		q, err = queueOf(tx.bolt)
		return err
	})
	return q, err
}

// A StepRef names a step of a run.
type StepRef struct {
	Run  state.Run
	Step state.Step
}

// DeadSteps reads the steps of a tenant that only a person lets go on, of the
// oldest runs first, at most limit.
func (db *DB) DeadSteps(tenant string, limit int) ([]StepRef, error) {
	var out []StepRef
	err := db.steps(bDead, nil, func(run state.Run, step state.Step) bool {
		if final := run.Status == state.Completed || run.Status == state.Cancelled; run.Tenant == tenant && !final {
			out = append(out, StepRef{run, step})
		}
		return len(out) < limit
	})
	return out, err
}

// LiveSteps reads the steps of a run that do something, wait for people or have
// failed, at most limit, by step id.
func (db *DB) LiveSteps(runID string, limit int) ([]state.Step, error) {
	var out []state.Step
	err := db.steps(bLive, []byte(runID+"/"), func(_ state.Run, step state.Step) bool {
		out = append(out, step)
		return len(out) < limit
	})
	return out, err
}

var errEnough = errors.New("enough")

// steps visits the steps that an index names until visit has had enough.
func (db *DB) steps(index, prefix []byte, visit func(state.Run, state.Step) bool) error {
	var run state.Run
	err := scan(db, index, prefix, func(t *bolt.Tx, k, _ []byte) error {
		runID, stepID, _ := strings.Cut(string(k), "/")
		if run.RunID != runID {
			var err error
			if run, err = indexedRun(t, runID); err != nil {
				return err
			}
		}
		var step state.Step
		err := getJSON(t, bRecords, stepRecord(runID, stepID), &step)
		if err := indexed(err, "record of step %s", printable(k)); err != nil {
			return err
		}
		if !visit(run, step) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
