package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// hands is a clock that a test sets. Its times have no monotonic reading, as
// after a restart.
type hands struct{ at time.Time }

func (h *hands) now() time.Time { return h.at }

func clockSite(t *testing.T) (*store.DB, *hands, string) {
	t.Helper()
	h := &hands{time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)}
	home := newHome(t)
	return createAt(t, home, h.now), h, home
}

func note(db *store.DB) error {
	_, err := db.Append(ledger.SiteStopped, "uid:1", &ledger.SiteStop{Reason: "x"})
	return err
}

func TestTheClockIsHeldAgainstTheRecord(t *testing.T) {
	db, h, _ := clockSite(t)
	start := h.at
	db.SetMaxGap(24 * time.Hour)
	for _, c := range []struct {
		name string
		move time.Duration
		want error
	}{
		{"the same", 0, nil},
		{"five minutes back", -5 * time.Minute, nil},
		{"more", -5*time.Minute - time.Second, store.ErrClockBehind},
		{"a day on", 24 * time.Hour, nil},
		{"more than another", 48*time.Hour + time.Second, store.ErrClockAhead},
		{"back by hours", 12 * time.Hour, store.ErrClockBehind},
		{"right again", 25 * time.Hour, nil},
	} {
		h.at = start.Add(c.move)
		if _, err := db.Clock(); !errors.Is(err, c.want) {
			t.Errorf("%s: Clock: %v, want %v", c.name, err, c.want)
		}
		if err := note(db); !errors.Is(err, c.want) {
			t.Errorf("%s: an entry: %v, want %v", c.name, err, c.want)
		}
	}
}

// A judgement never uses a time before one that is on record.
func TestTheTimeToJudgeByNeverFalls(t *testing.T) {
	db, h, _ := clockSite(t)
	last := h.at
	h.at = last.Add(-4 * time.Minute)
	if now, err := db.Clock(); err != nil || !now.Equal(last) {
		t.Errorf("%v, %v, want %v", now, err, last)
	}
}

func TestATypedTimeIsAccepted(t *testing.T) {
	db, h, home := clockSite(t)
	start := h.at
	h.at = start.Add(-48 * time.Hour)
	if _, err := db.AcceptTime("uid:1", "battery", start); !errors.Is(err, store.ErrClockTyped) {
		t.Errorf("a time that the clock does not show: %v", err)
	}
	if _, err := db.AcceptTime("uid:1", "battery", h.at.Add(9*time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also after the site is opened anew
		if now, err := db.Clock(); err != nil || !now.Equal(h.at) && now.Sub(h.at) > 9*time.Minute {
			t.Errorf("%v, %v, want %v", now, err, h.at)
		}
		if err := note(db); err != nil {
			t.Error(err)
		}
		if got := db.LastTime(); !got.Equal(start) {
			t.Errorf("an entry of %v; times must not fall below %v", got, start)
		}
		db = reopen(t, db, home, h)
	}
	h.at = h.at.Add(-time.Hour)
	if err := note(db); !errors.Is(err, store.ErrClockBehind) {
		t.Errorf("behind the accepted time: %v", err)
	}
	// The accepted time goes on with the entries, which say no time of their own.
	h.at = start.Add(-24 * time.Hour)
	if err := note(db); err != nil {
		t.Fatal(err)
	}
	db = reopen(t, db, home, h)
	h.at = h.at.Add(-time.Hour)
	if err := note(db); !errors.Is(err, store.ErrClockBehind) {
		t.Errorf("behind the last entry, which has no time of its own: %v", err)
	}
	// Nor is it walked back a little at a time.
	h.at = start.Add(-24 * time.Hour)
	if err := note(db); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.at = h.at.Add(-4 * time.Minute)
		_ = note(db) // the first is within five minutes
		db = reopen(t, db, home, h)
	}
	if err := note(db); !errors.Is(err, store.ErrClockBehind) {
		t.Errorf("twelve minutes back in three steps: %v", err)
	}
	// Once entries are later again, they are the floor.
	h.at = start.Add(time.Hour)
	if err := note(db); err != nil {
		t.Fatal(err)
	}
	h.at = start
	if err := note(db); !errors.Is(err, store.ErrClockBehind) {
		t.Errorf("the accepted time still counts: %v", err)
	}
}

func reopen(t *testing.T, db *store.DB, home string, h *hands) *store.DB {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(home, store.Options{Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	return db
}

// While a process runs, its monotonic clock vouches for time without entries.
func TestAnIdleProcessIsNoJump(t *testing.T) {
	began := time.Now()
	shift := time.Duration(0)
	db := createAt(t, newHome(t), func() time.Time { return began.Add(shift) }) // Add moves the monotonic reading too
	db.SetMaxGap(24 * time.Hour)
	if err := note(db); err != nil {
		t.Fatal(err)
	}
	shift = 1000 * time.Hour
	if err := note(db); err != nil {
		t.Errorf("after an idle month: %v", err)
	}
}
