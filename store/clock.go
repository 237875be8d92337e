package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// The clock is what an attacker who holds no key can still set (THREATS 12). It
// is held against the times on record: behind them, or far ahead of them,
// nothing is written until somebody accepts a time that he has typed.

// ErrClockAhead says that the clock is too far ahead of the ledger.
var ErrClockAhead = errors.New("store: the clock is far ahead of the ledger")

// How far the clock may lie behind the last entry, and behind a time that a log or
// timestamp authority has given, which may itself be ahead of the clock.
const (
	clockSlack   = 5 * time.Minute
	trustedSlack = 10 * time.Minute
)

// defaultGap is how far it may be ahead where [DB.SetMaxGap] was not called.
const defaultGap = 90 * 24 * time.Hour

// Keys of bMeta: of [clockRecord], a projection, and of the clock of the last
// entry that was written while an accepted time counted, which no entry says.
var (
	kClock     = []byte("clock")
	kClockSeen = []byte("clockseen")
)

// clockRecord is what entries say of the clock besides their own times.
type clockRecord struct {
	Accepted string `json:"accepted,omitempty"` // the clock that was accepted; it counts until entries are later than Above
	Above    string `json:"above,omitempty"`    // time of the entry before it was accepted
	Trusted  string `json:"trusted,omitempty"`  // latest time that a log or TSA gave an admitted bundle
}

// clock is what the clock is held against. The DB's mutex guards it.
type clock struct {
	gap      time.Duration
	accepted time.Time // zero once entries are later again
	trusted  time.Time
	seen     time.Time // the clock when it was last found right in this process, with its monotonic reading
}

// SetMaxGap sets how far the clock may be ahead.
func (db *DB) SetMaxGap(d time.Duration) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.clock.gap = d
}

// Clock is the time to judge by: the machine's, and never below a time that is
// on record, so that a clock that was set back revives nothing. It is
// [ErrClockBehind] or [ErrClockAhead] where the machine's is not believed.
func (db *DB) Clock() (time.Time, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	now := db.now()
	last, _ := stamp.Parse(db.lastTime) // it was parsed when it was read or made
	if err := db.clock.check(now, last); err != nil {
		return time.Time{}, err
	}
	if latest := db.clock.latest(db.clock.floor(last)); latest.After(now) {
		return latest, nil
	}
	return now.Round(0), nil
}

// floor is the latest time on record that still counts.
func (c *clock) floor(last time.Time) time.Time {
	if !c.accepted.IsZero() {
		return c.accepted
	}
	return last
}

// check holds now against the times on record. While the process runs, its
// monotonic clock vouches for the time that passes without an entry.
func (c *clock) check(now, last time.Time) error {
	floor := c.floor(last)
	behind := floor.Sub(now) > clockSlack || c.accepted.IsZero() && c.trusted.Sub(now) > trustedSlack
	if behind {
		return fmt.Errorf("%w: it says %s, the record says %s", ErrClockBehind, stamp.Format(now), stamp.Format(c.latest(floor)))
	}
	from, passed := floor, time.Duration(0)
	if monotonic := c.seen != c.seen.Round(0); monotonic {
		from, passed = c.seen.Round(0), now.Sub(c.seen)
	}
	if gap := now.Round(0).Sub(from) - passed; gap > c.gap && now.Sub(floor) > c.gap {
		return fmt.Errorf("%w: it says %s, the record says %s, and at most %s may lie between", ErrClockAhead, stamp.Format(now), stamp.Format(floor), c.gap)
	}
	if c.seen.IsZero() {
		c.seen = now
	}
	return nil
}

// latest is the later of the floor and the newest trusted time, which counts
// unless the record is known to be wrong.
func (c *clock) latest(floor time.Time) time.Time {
	if c.accepted.IsZero() && c.trusted.After(floor) {
		return c.trusted
	}
	return floor
}

// wrote notes the clock of an entry that is on disk: it is the new anchor, and
// where an accepted time counts, that goes on with it.
func (c *clock) wrote(now time.Time) {
	c.seen = now
	if !c.accepted.IsZero() && now.After(c.accepted) {
		c.accepted = now.Round(0)
	}
}

// loadClock reads what the entries say of the clock.
func (db *DB) loadClock(t *bolt.Tx) error {
	db.clock = clock{gap: defaultGap}
	return db.loadRecord(t)
}

func (db *DB) loadRecord(t *bolt.Tx) error {
	rec, err := clockOf(t)
	if err != nil {
		return err
	}
	db.clock.set(rec, db.lastTime, string(t.Bucket(bMeta).Get(kClockSeen)))
	return nil
}

func clockOf(t *bolt.Tx) (clockRecord, error) {
	var rec clockRecord
	if err := getJSON(t, bMeta, kClock, &rec); err != nil && !errors.Is(err, ErrNotFound) {
		return rec, err
	}
	return rec, nil
}

// moveClock takes over what a transaction says of the clock, or that an
// accepted time has served. The caller holds mu, and db.lastTime is that of the
// transaction.
func (db *DB) moveClock() error {
	return db.view(func(t *bolt.Tx) error {
		return db.loadRecord(t)
	})
}

// set takes over a record, when last is the time of the last entry, and seen the clock that it
// was written by.
func (c *clock) set(rec clockRecord, last, seen string) {
	c.trusted, _ = stamp.Parse(rec.Trusted)
	c.accepted, c.seen = time.Time{}, time.Time{}
	if rec.Accepted != "" && last <= rec.Above {
		c.accepted, _ = stamp.Parse(rec.Accepted)
		if at, err := stamp.Parse(seen); err == nil && at.After(c.accepted) {
			c.accepted = at
		}
	}
}

// AcceptTime records that the machine's clock is right although it is not near
// the last entry: typed is what somebody reads from another clock, and must be
// within ten minutes of it.
func (db *DB) AcceptTime(actor, reason string, typed time.Time) (int64, error) {
	now := db.now()
	if err := Near(now, typed); err != nil {
		return 0, err
	}
	var seq int64
	err := db.update(func(tx *Tx) error {
		tx.accepting = true
		env, err := tx.append(siteEntry(ledger.ClockAccepted, actor, &ledger.ClockAcceptance{
			Before: tx.lastTime, Accepted: stamp.Format(typed), Clock: stamp.Format(now), Reason: reason,
		}))
		tx.accepting = false
		seq = env.Seq
		return err
	})
	return seq, err
}

// Near is [ErrClockTyped] where a typed time is not that of the machine.
func Near(now, typed time.Time) error {
	const near = 10 * time.Minute
	if d := now.Sub(typed); d > near || d < -near {
		return fmt.Errorf("%w: it says %s, and %s was typed", ErrClockTyped, stamp.Format(now), stamp.Format(typed))
	}
	return nil
}

// ErrClockTyped says that a typed time is not the machine's.
var ErrClockTyped = errors.New("store: the clock is not what was typed")

// projectClock moves the record of the clock by an accepted time.
func (tx *Tx) projectClock(env ledger.Envelope, d *ledger.ClockAcceptance) error {
	rec, err := clockOf(tx.bolt)
	if err != nil {
		return err
	}
	rec.Accepted, rec.Above = d.Clock, env.Time
	if tx.get(bMeta, kClockSeen) != nil {
		if err := tx.delete(bMeta, kClockSeen); err != nil {
			return err
		}
	}
	return tx.putClock(rec)
}

// projectTrusted moves it by the trusted time of an admission.
func (tx *Tx) projectTrusted(at string) error {
	if at == "" {
		return nil
	}
	rec, err := clockOf(tx.bolt)
	if err != nil || at <= rec.Trusted {
		return err
	}
	rec.Trusted = at
	return tx.putClock(rec)
}

func (tx *Tx) putClock(rec clockRecord) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	tx.clockMoved = true
	return tx.put(bMeta, kClock, raw)
}

// stampEntry is the time of the next entry: the clock's, and never below the
// last one's.
func (tx *Tx) stampEntry() (string, error) {
	now := tx.db.now()
	last, err := stamp.Parse(tx.lastTime)
	if tx.lastTime != "" && err != nil {
		return "", err
	}
	if tx.lastTime != "" && !tx.accepting {
		tx.db.mu.Lock()
		err := tx.db.clock.check(now, last)
		accepted := tx.db.clock.accepted
		tx.db.mu.Unlock()
		if err != nil {
			return "", err
		}
		if !accepted.IsZero() {
			seen := now
			if accepted.After(seen) { // it never falls, by however little
				seen = accepted
			}
			if err := tx.put(bMeta, kClockSeen, []byte(stamp.Format(seen))); err != nil {
				return "", err
			}
		}
	}
	tx.now = now
	at := stamp.Format(now)
	if at < tx.lastTime {
		at = tx.lastTime
	}
	return at, nil
}
