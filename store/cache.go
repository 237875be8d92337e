package store

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// CacheRecord is the projection of outputs that are kept for steps that would do
// the same again.
type CacheRecord struct {
	Key         string            `json:"key"`
	Tenant      string            `json:"tenant"`
	DAGID       string            `json:"dagId"`
	RunID       string            `json:"runId"` // that made them, with step and attempt
	StepID      string            `json:"stepId"`
	Attempt     int               `json:"attempt"`
	InputsHash  string            `json:"inputsHash"`
	OutputsHash string            `json:"outputsHash,omitempty"`
	Artifacts   []ledger.Artifact `json:"artifacts,omitempty"`
	StoredUTC   string            `json:"storedUtc"`
	ExpiresUTC  string            `json:"expiresUtc"`
	Hits        int               `json:"hits"`
}

// dropped bounds how many expired records one entry takes along.
const dropped = 4

// projectCache keeps what an attempt has made, or counts a hit. Each record that
// comes takes a few along that have expired, so that they do not pile up.
func (tx *Tx) projectCache(env ledger.Envelope, run *state.Run, attempt *state.Attempt, data any) error {
	switch d := data.(type) {
	case *ledger.AttemptEnd:
		if d.CacheKey == "" {
			return nil
		}
		if err := tx.dropExpired(env.Time); err != nil {
			return err
		}
		return tx.cache(CacheRecord{
			Key: d.CacheKey, Tenant: run.Tenant, DAGID: run.DAGID, RunID: run.RunID, StepID: env.StepID, Attempt: env.Attempt,
			InputsHash: attempt.Start.InputsHash, OutputsHash: d.OutputsHash, Artifacts: d.Artifacts, StoredUTC: env.Time, ExpiresUTC: d.CacheExpires,
		})
	case *ledger.CacheHit:
		var rec CacheRecord
		err := getJSON(tx.bolt, bCache, []byte(d.Key), &rec)
		if err != nil || rec.StoredUTC != d.Stored {
			if errors.Is(err, ErrNotFound) {
				err = nil // cleared meanwhile
			}
			return err
		}
		rec.Hits++
		return tx.putJSON(bCache, []byte(d.Key), rec)
	}
	return nil
}

func (tx *Tx) cache(rec CacheRecord) error {
	if err := tx.uncache(rec.Key); err != nil {
		return err
	}
	return errors.Join(tx.putJSON(bCache, []byte(rec.Key), rec), tx.put(bCacheAge, pair(rec.ExpiresUTC, rec.Key), []byte{}))
}

func (tx *Tx) uncache(key string) error {
	var old CacheRecord
	err := getJSON(tx.bolt, bCache, []byte(key), &old)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(tx.delete(bCache, []byte(key)), tx.delete(bCacheAge, pair(old.ExpiresUTC, key)))
}

func (tx *Tx) dropExpired(now string) error {
	for range dropped {
		k, _ := tx.bolt.Bucket(bCacheAge).Cursor().First()
		if k == nil || string(k) >= now {
			return nil
		}
		_, key, _ := bytes.Cut(k, []byte{0})
		if err := tx.uncache(string(key)); err != nil {
			return err
		}
	}
	return nil
}

// Cached reads what is kept under a key at a time; [ErrNotFound] if nothing is.
func (db *DB) Cached(key, now string) (CacheRecord, error) {
	var rec CacheRecord
	err := db.view(func(t *bolt.Tx) error { return getJSON(t, bCache, []byte(key), &rec) })
	if err == nil && rec.ExpiresUTC <= now {
		err = ErrNotFound
	}
	return rec, err
}

// CachedOutputs is [DB.Cached] as package runner asks for it.
func (db *DB) CachedOutputs(key, now string) (ledger.CacheHit, bool, error) {
	rec, err := db.Cached(key, now)
	if errors.Is(err, ErrNotFound) {
		return ledger.CacheHit{}, false, nil
	}
	return ledger.CacheHit{
		Key: rec.Key, RunID: rec.RunID, StepID: rec.StepID, Attempt: rec.Attempt, InputsHash: rec.InputsHash,
		OutputsHash: rec.OutputsHash, Artifacts: rec.Artifacts, Stored: rec.StoredUTC, Expires: rec.ExpiresUTC,
	}, err == nil, err
}

// CacheRecords reads what is kept, of one tenant and of one DAG if they are named.
func (db *DB) CacheRecords(tenant, dagID string) ([]CacheRecord, error) {
	var out []CacheRecord
	err := scan(db, bCache, nil, func(t *bolt.Tx, k, _ []byte) error {
		var rec CacheRecord
		if err := getJSON(t, bCache, k, &rec); err != nil {
			return err
		}
		if (tenant == "" || rec.Tenant == tenant) && (dagID == "" || rec.DAGID == dagID) {
			out = append(out, rec)
		}
		return nil
	})
	return out, err
}

// ClearCache forgets what is kept of a tenant, or of one of its DAGs, and returns
// how much that was.
func (db *DB) ClearCache(actor, tenant string, d ledger.CacheClearing) (int, error) {
	recs, err := db.CacheRecords(tenant, d.DAGID)
	if err != nil {
		return 0, err
	}
	d.Count = len(recs)
	return d.Count, db.update(func(tx *Tx) error {
		e := siteEntry(ledger.CacheCleared, actor, &d)
		e.envelope.Tenant = tenant
		_, err := tx.append(e)
		return err
	})
}

func (tx *Tx) projectClearing(env ledger.Envelope, d *ledger.CacheClearing) error {
	var keys []string
	c := tx.bolt.Bucket(bCache).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		var rec CacheRecord
		if err := getJSON(tx.bolt, bCache, k, &rec); err != nil {
			return err
		}
		if rec.Tenant == env.Tenant && (d.DAGID == "" || rec.DAGID == d.DAGID) {
			keys = append(keys, rec.Key)
		}
	}
	for _, key := range keys {
		if err := tx.uncache(key); err != nil {
			return err
		}
	}
	return nil
}
