package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// pageSize is how many keys one read transaction visits.
const pageSize = 500

// StartRun writes the first entry of a run, and what else is to be in the same
// transaction. If the token of the run is taken, it returns the run that has it
// and [ErrTokenTaken], and writes nothing: the caller judges whether it is the
// same start.
func (db *DB) StartRun(run state.Run, start *ledger.RunStart, more []state.Proposal, along ...state.Batch) (state.Run, error) {
	first := state.Proposal{Type: ledger.RunStarted, Actor: run.Actor, Data: start}
	proposals, err := encoded(append([]state.Proposal{first}, more...))
	if err != nil {
		return state.Run{}, err
	}
	var out state.Run
	err = db.update(func(tx *Tx) error {
		id := tx.get(bTokens, pair(run.Tenant, run.RunToken))
		if id != nil {
			taken, err := tx.run(string(id))
			if err != nil {
				return err
			}
			out = *taken
			return ErrTokenTaken
		}
		if _, err := tx.run(run.RunID); !errors.Is(err, ErrNotFound) {
			return errors.Join(err, fmt.Errorf("store: run %s exists", run.RunID))
		}
		for _, p := range proposals {
			if _, err := tx.append(runEntry(&run, p)); err != nil {
				return err
			}
		}
		for _, b := range along {
			if _, err := tx.batch(b); err != nil {
				return err
			}
		}
		now, err := tx.run(run.RunID)
		if err == nil {
			out = *now
		}
		return err
	})
	return out, err
}

// Commit writes entries of one run in one transaction and returns the run
// after them. An entry that the state machine does not allow is a
// *[state.TransitionError], and nothing is written.
func (db *DB) Commit(runID string, proposals ...state.Proposal) (run state.Run, err error) {
	if proposals, err = encoded(proposals); err != nil {
		return state.Run{}, err
	}
	err = db.update(func(tx *Tx) error {
		run, err = tx.batch(state.Batch{RunID: runID, Proposals: proposals})
		return err
	})
	return run, err
}

// encoded encodes the data of proposals where the caller runs: the goroutine that
// writes has enough to do.
func encoded(proposals []state.Proposal) ([]state.Proposal, error) {
	list := make([]state.Proposal, len(proposals))
	for i, p := range proposals {
		e, err := ledger.Encode(p.Type, p.Data)
		if err != nil {
			return nil, err
		}
		p.Data = e
		list[i] = p
	}
	return list, nil
}

func (tx *Tx) batch(b state.Batch) (state.Run, error) {
	run, err := tx.run(b.RunID)
	if errors.Is(err, ErrNotFound) {
		err = unknownRun(b.RunID)
	}
	if err != nil {
		return state.Run{}, err
	}
	for _, p := range b.Proposals {
		if _, err := tx.append(runEntry(run, p)); err != nil {
			return *run, err
		}
	}
	if run, err = tx.run(b.RunID); err != nil {
		return state.Run{}, err
	}
	return *run, nil
}

// Run reads one run.
func (db *DB) Run(id string) (state.Run, error) {
	var run state.Run
	err := db.view(func(t *bolt.Tx) (err error) {
		if run, err = readRun(t, id); errors.Is(err, ErrNotFound) {
			return unknownRun(id)
		}
		return err
	})
	return run, err
}

// RunByToken reads the run that a token started.
func (db *DB) RunByToken(tenant, token string) (state.Run, error) {
	var run state.Run
	err := db.view(func(t *bolt.Tx) (err error) {
		id := t.Bucket(bTokens).Get(pair(tenant, token))
		if id == nil {
			return fmt.Errorf("run token: %w", ErrNotFound)
		}
		run, err = indexedRun(t, string(id))
		return err
	})
	return run, err
}

// Steps reads the records of a run's steps, by step id. Steps that nothing has
// happened to have none.
func (db *DB) Steps(runID string) (map[string]state.Step, error) {
	steps := map[string]state.Step{}
	err := scan(db, bRecords, []byte(runID+stepPart), func(t *bolt.Tx, k, v []byte) error {
		var s state.Step
		if err := getJSON(t, bRecords, k, &s); err != nil {
			return err
		}
		steps[s.StepID] = s
		return nil
	})
	return steps, err
}

// Step reads the record of one step; [ErrNotFound] before anything has happened to it.
func (db *DB) Step(runID, stepID string) (state.Step, error) {
	var s state.Step
	err := db.view(func(t *bolt.Tx) error { return getJSON(t, bRecords, stepRecord(runID, stepID), &s) })
	return s, err
}

// Attempts reads the attempts of a run, or of one of its steps, by step and
// number.
func (db *DB) Attempts(runID, stepID string) ([]state.Attempt, error) {
	prefix := runID + attemptPart
	if stepID != "" {
		prefix += stepID + "/"
	}
	var out []state.Attempt
	err := scan(db, bRecords, []byte(prefix), func(t *bolt.Tx, k, _ []byte) error {
		var a state.Attempt
		if err := getJSON(t, bRecords, k, &a); err != nil {
			return err
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// Attempt reads one attempt.
func (db *DB) Attempt(runID, stepID string, n int) (state.Attempt, error) {
	var a state.Attempt
	err := db.view(func(t *bolt.Tx) error { return getJSON(t, bRecords, attemptRecord(runID, stepID, n), &a) })
	return a, err
}

// HasArtifact says whether a run of the tenant has made an artifact.
func (db *DB) HasArtifact(tenant, digest string) (has bool, err error) {
	err = db.view(func(t *bolt.Tx) error {
		has = t.Bucket(bArtifacts).Get(pair(tenant, digest)) != nil
		return nil
	})
	return has, err
}

// ActiveRuns reads the runs that have not ended, oldest first.
func (db *DB) ActiveRuns() ([]state.Run, error) {
	var runs []state.Run
	err := scan(db, bActive, nil, func(t *bolt.Tx, k, _ []byte) error {
		r, err := indexedRun(t, string(k))
		if err != nil {
			return err
		}
		runs = append(runs, r)
		return nil
	})
	return runs, err
}

// A RunFilter says which runs a page is of.
type RunFilter struct {
	Tenant string
	Open   bool                  // only runs that have not ended: those are found however many have
	Keep   func(*state.Run) bool // nil keeps all
}

// RunPage reads runs of a tenant, newest first, from the run after cursor on
// (from the newest when it is ""). It looks on until limit runs are found or there
// are no more, a short transaction at a time; next is "" when there are no more.
func (db *DB) RunPage(ctx context.Context, f RunFilter, cursor string, limit int) (runs []state.Run, next string, err error) {
	bucket, prefix := bTenantRuns, pair(f.Tenant, "")
	if f.Open {
		bucket, prefix = bActive, nil
	}
	for ctx.Err() == nil {
		n := 0
		err = db.view(func(t *bolt.Tx) error {
			c := t.Bucket(bucket).Cursor()
			for k := seekBefore(c, prefix, cursor); k != nil && bytes.HasPrefix(k, prefix) && n < pageSize; k, _ = c.Prev() {
				n++
				cursor = string(k[len(prefix):])
				r, err := indexedRun(t, cursor)
				if err != nil {
					return err
				}
				if r.Tenant == f.Tenant && (f.Keep == nil || f.Keep(&r)) {
					runs = append(runs, r)
				}
				if len(runs) == limit {
					return nil
				}
			}
			return nil
		})
		switch {
		case err != nil:
			return nil, "", err
		case len(runs) == limit:
			return runs, cursor, nil
		case n < pageSize:
			return runs, "", nil
		}
	}
	return nil, "", ctx.Err()
}

// seekBefore stands on the last key of the prefix that lies before cursor.
func seekBefore(c *bolt.Cursor, prefix []byte, cursor string) []byte {
	end := append(bytes.Clone(prefix), cursor...)
	if cursor == "" {
		end = append(bytes.Clone(prefix), 0xff)
	}
	if k, _ := c.Seek(end); k == nil {
		k, _ = c.Last()
		return k
	}
	k, _ := c.Prev()
	return k
}

// scan visits the keys of a bucket with a prefix, in order, a page a
// transaction.
func scan(db *DB, bucket, prefix []byte, visit func(t *bolt.Tx, k, v []byte) error) error {
	from := prefix
	for {
		n := 0
		err := db.view(func(t *bolt.Tx) error {
			c := t.Bucket(bucket).Cursor()
			k, v := c.Seek(from)
			for ; k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
				if n == pageSize {
					from = bytes.Clone(k)
					return nil
				}
				n++
				if err := visit(t, k, v); err != nil {
					return err
				}
			}
			n = 0 // the end
			return nil
		})
		if err != nil || n == 0 {
			return err
		}
	}
}
