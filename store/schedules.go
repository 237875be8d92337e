package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// maxSchedules bounds the schedules of one tenant.
const maxSchedules = 1000

// Errors about schedules that callers branch on.
var (
	ErrScheduleTaken    = errors.New("store: there is a schedule of this name")
	ErrTooManySchedules = fmt.Errorf("store: a tenant has at most %d schedules", maxSchedules)
	ErrInstantPassed    = errors.New("store: the instant was dealt with before")
)

// ScheduleRecord is the projection of a schedule.
type ScheduleRecord struct {
	Tenant string `json:"tenant"`
	ledger.ScheduleAddition
	Added  Switched  `json:"added"`
	Paused *Switched `json:"paused,omitempty"`
	// Resumed is who let it fire again last: with who added it, that is whose runs it starts.
	Resumed *Switched `json:"resumed,omitempty"`
	// Cursor is the last instant that was dealt with, or the time from which on
	// instants count: none up to it fires any more.
	Cursor  string `json:"cursor"`
	Fired   int64  `json:"fired,omitempty"`   // runs
	Skipped int64  `json:"skipped,omitempty"` // instants that started none
	// Of the newest entry about an instant.
	LastInstant   string `json:"lastInstant,omitempty"`
	LastReason    string `json:"lastReason,omitempty"`
	LastErrorCode string `json:"lastErrorCode,omitempty"`
	LastRunID     string `json:"lastRunId,omitempty"` // the newest run, which may be of an earlier instant
}

// AddSchedule adds a schedule. Where the name is taken it returns the one that
// has it, with [ErrScheduleTaken], and the caller judges whether it is the same.
func (db *DB) AddSchedule(actor, tenant string, d *ledger.ScheduleAddition) (ScheduleRecord, error) {
	var rec ScheduleRecord
	err := db.update(func(tx *Tx) error {
		rec = ScheduleRecord{}
		err := getJSON(tx.bolt, bSchedules, pair(tenant, d.Name), &rec)
		if err == nil {
			return ErrScheduleTaken
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		n := 0
		prefix := pair(tenant, "")
		c := tx.bolt.Bucket(bSchedules).Cursor()
		for k, _ := c.Seek(prefix); k != nil && string(k[:min(len(k), len(prefix))]) == string(prefix); k, _ = c.Next() {
			n++
		}
		if n >= maxSchedules {
			return ErrTooManySchedules
		}
		if _, err := tx.append(scheduleEntry(ledger.ScheduleAdded, actor, tenant, d, d)); err != nil {
			return err
		}
		return getJSON(tx.bolt, bSchedules, pair(tenant, d.Name), &rec)
	})
	return rec, err
}

// SwitchSchedules pauses, resumes or removes schedules of a tenant, all of them
// or none, and returns those that it changed: as they are now, or as they were
// before they were removed.
func (db *DB) SwitchSchedules(t ledger.Type, actor, tenant, reason string, names ...string) ([]ScheduleRecord, error) {
	var out []ScheduleRecord
	err := db.update(func(tx *Tx) error {
		out = nil
		for _, name := range names {
			var rec ScheduleRecord
			if err := getJSON(tx.bolt, bSchedules, pair(tenant, name), &rec); err != nil {
				return unknownSchedule(name, err)
			}
			if paused := rec.Paused != nil; t == ledger.SchedulePaused && paused || t == ledger.ScheduleResumed && !paused {
				continue
			}
			if _, err := tx.append(scheduleEntry(t, actor, tenant, &rec.ScheduleAddition, &ledger.ScheduleSwitch{Name: name, Reason: reason})); err != nil {
				return err
			}
			if t != ledger.ScheduleRemoved {
				rec = ScheduleRecord{}
				if err := getJSON(tx.bolt, bSchedules, pair(tenant, name), &rec); err != nil {
					return err
				}
			}
			out = append(out, rec)
		}
		if len(out) == 0 {
			return errUnchanged
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		err = nil
	}
	return out, err
}

// RecordFiring records what came of instants of a schedule, which must be the
// one that entry seq has added. Instants go forward only: [ErrInstantPassed].
func (db *DB) RecordFiring(actor, tenant string, seq int64, d *ledger.ScheduleFiring) (ScheduleRecord, error) {
	var rec ScheduleRecord
	err := db.update(func(tx *Tx) error {
		rec = ScheduleRecord{}
		err := getJSON(tx.bolt, bSchedules, pair(tenant, d.Name), &rec)
		switch {
		case err != nil:
			return unknownSchedule(d.Name, err)
		case rec.Added.Seq != seq:
			return unknownSchedule(d.Name, ErrNotFound)
		case d.Instant <= rec.Cursor:
			return fmt.Errorf("%w: %s of %s", ErrInstantPassed, d.Instant, d.Name)
		}
		if _, err := tx.append(scheduleEntry(ledger.ScheduleFired, actor, tenant, &rec.ScheduleAddition, d)); err != nil {
			return err
		}
		rec = ScheduleRecord{}
		return getJSON(tx.bolt, bSchedules, pair(tenant, d.Name), &rec)
	})
	return rec, err
}

// Schedule reads one schedule.
func (db *DB) Schedule(tenant, name string) (ScheduleRecord, error) {
	var rec ScheduleRecord
	err := db.view(func(t *bolt.Tx) error {
		return unknownSchedule(name, getJSON(t, bSchedules, pair(tenant, name), &rec))
	})
	return rec, err
}

// Schedules reads the schedules of a tenant, or of all when it is "", by tenant
// and name.
func (db *DB) Schedules(tenant string) ([]ScheduleRecord, error) {
	var prefix []byte
	if tenant != "" {
		prefix = pair(tenant, "")
	}
	var out []ScheduleRecord
	err := scan(db, bSchedules, prefix, func(t *bolt.Tx, k, _ []byte) error {
		var rec ScheduleRecord
		if err := getJSON(t, bSchedules, k, &rec); err != nil {
			return err
		}
		out = append(out, rec)
		return nil
	})
	return out, err
}

func unknownSchedule(name string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("schedule %q: %w", name, ErrNotFound)
	}
	return err
}

func scheduleEntry(t ledger.Type, actor, tenant string, of *ledger.ScheduleAddition, data any) entry {
	return entry{ledger.Envelope{Type: t, Actor: actor, V: 1, Tenant: tenant, DAGID: of.DAGID, DAGVersion: of.Version}, data}
}

func (tx *Tx) projectSchedule(env ledger.Envelope, data any) error {
	if d, ok := data.(*ledger.ScheduleAddition); ok {
		return tx.putJSON(bSchedules, pair(env.Tenant, d.Name), ScheduleRecord{
			Tenant: env.Tenant, ScheduleAddition: *d, Added: *switchedBy(env, ""), Cursor: env.Time,
		})
	}
	var name string
	switch d := data.(type) {
	case *ledger.ScheduleSwitch:
		name = d.Name
	case *ledger.ScheduleFiring:
		name = d.Name
	}
	var rec ScheduleRecord
	if err := getJSON(tx.bolt, bSchedules, pair(env.Tenant, name), &rec); err != nil {
		return unknownSchedule(name, err)
	}
	switch d := data.(type) {
	case *ledger.ScheduleSwitch:
		if env.Type == ledger.ScheduleRemoved {
			return tx.delete(bSchedules, pair(env.Tenant, name))
		}
		rec.switched(env, d)
	case *ledger.ScheduleFiring:
		rec.came(d)
	}
	return tx.putJSON(bSchedules, pair(env.Tenant, name), rec)
}

func (r *ScheduleRecord) switched(env ledger.Envelope, d *ledger.ScheduleSwitch) {
	if env.Type == ledger.SchedulePaused {
		r.Paused = switchedBy(env, d.Reason)
		return
	}
	r.Resumed = switchedBy(env, d.Reason)
	r.Paused, r.Cursor = nil, max(r.Cursor, env.Time) // what fell into the pause is past
}

func (r *ScheduleRecord) came(d *ledger.ScheduleFiring) {
	r.Cursor, r.LastInstant, r.LastReason, r.LastErrorCode = d.Instant, d.Instant, d.Reason, d.ErrorCode
	if d.RunID == "" {
		r.Skipped += d.Count
		return
	}
	r.Fired++
	r.LastRunID = d.RunID
}
