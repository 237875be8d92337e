package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

func addition(name string) *ledger.ScheduleAddition {
	return &ledger.ScheduleAddition{Name: name, DAGID: "audit", Cron: "@daily", InputsHash: digest, Overlap: "skip"}
}

// The check at the end replays all this, and compares.
func TestAScheduleGoesThroughItsLife(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	db := createAt(t, newHome(t), func() time.Time { return now })
	rec, err := db.AddSchedule("uid:1(ann)", "default", addition("nightly"))
	if err != nil || rec.Cursor != stamp.Format(now) || rec.Added.Actor != "uid:1(ann)" || rec.Tenant != "default" {
		t.Fatalf("AddSchedule = %+v, %v", rec, err)
	}
	if again, err := db.AddSchedule("x", "default", addition("nightly")); !errors.Is(err, store.ErrScheduleTaken) || again.Added != rec.Added {
		t.Errorf("its name once more: %+v, %v", again, err)
	}
	if _, err := db.AddSchedule("x", "other", addition("nightly")); err != nil {
		t.Errorf("its name in another tenant: %v", err)
	}
	began := now
	at := func(h int) string { return stamp.Format(began.Add(time.Duration(h) * time.Hour)) }
	fire := func(want error, d ledger.ScheduleFiring) store.ScheduleRecord {
		t.Helper()
		d.Name = "nightly"
		got, err := db.RecordFiring("schedule:nightly", "default", rec.Added.Seq, &d)
		if !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", d, err, want)
		}
		return got
	}
	fire(store.ErrInstantPassed, ledger.ScheduleFiring{Instant: at(0), Count: 1, RunID: "r0"})
	fire(nil, ledger.ScheduleFiring{Instant: at(1), Count: 1, RunID: "r1"})
	fire(store.ErrInstantPassed, ledger.ScheduleFiring{Instant: at(1), Count: 1, RunID: "r2"})
	got := fire(nil, ledger.ScheduleFiring{Instant: at(4), First: at(2), Count: 3, Reason: "REFUSED", ErrorCode: "EXPIRED"})
	if got.Fired != 1 || got.Skipped != 3 || got.LastRunID != "r1" || got.LastReason != "REFUSED" || got.LastErrorCode != "EXPIRED" || got.Cursor != at(4) {
		t.Errorf("after three that were refused: %+v", got)
	}
	if got = fire(nil, ledger.ScheduleFiring{Instant: at(5), Count: 1, RunID: "r5"}); got.LastReason != "" || got.LastErrorCode != "" {
		t.Errorf("after one that was started: %+v", got)
	}
	if _, err := db.RecordFiring("x", "default", rec.Added.Seq+1, &ledger.ScheduleFiring{Name: "nightly", Instant: at(6), Count: 1, RunID: "r6"}); !store.IsNotFound(err) {
		t.Errorf("an instant of another one of the name: %v", err)
	}
	now = now.Add(8 * time.Hour)
	change := func(typ ledger.Type, n int) []store.ScheduleRecord {
		t.Helper()
		before := db.Size()
		out, err := db.SwitchSchedules(typ, "uid:1(ann)", "default", "why", "nightly")
		if err != nil || len(out) != n || db.Size()-before != int64(n) {
			t.Errorf("%s: %+v, %v, %d entries", typ, out, err, db.Size()-before)
		}
		return out
	}
	change(ledger.ScheduleResumed, 0)
	if out := change(ledger.SchedulePaused, 1); out[0].Paused == nil || out[0].Paused.Reason != "why" || out[0].Cursor != at(5) {
		t.Errorf("paused: %+v", out)
	}
	change(ledger.SchedulePaused, 0)
	now = now.Add(time.Hour)
	if out := change(ledger.ScheduleResumed, 1); out[0].Paused != nil || out[0].Cursor != stamp.Format(now) {
		t.Errorf("resumed: %+v; what fell into the pause is not past", out)
	}
	change(ledger.ScheduleRemoved, 1)
	if _, err := db.SwitchSchedules(ledger.ScheduleRemoved, "x", "default", "", "nightly"); !store.IsNotFound(err) {
		t.Errorf("removed again: %v", err)
	}
	all, err := db.Schedules("")
	if err != nil || len(all) != 1 || all[0].Tenant != "other" {
		t.Errorf("what is left: %+v, %v", all, err)
	}
}

// A change of several schedules is one of all of them, or of none.
func TestSchedulesChangeTogether(t *testing.T) {
	db := create(t, newHome(t))
	for _, name := range []string{"a", "b"} {
		if _, err := db.AddSchedule("x", "default", addition(name)); err != nil {
			t.Fatal(err)
		}
	}
	before := db.Size()
	if _, err := db.SwitchSchedules(ledger.ScheduleRemoved, "x", "default", "", "a", "b", "c"); !store.IsNotFound(err) {
		t.Errorf("with one that is not there: %v", err)
	}
	if all, err := db.Schedules("default"); err != nil || len(all) != 2 || db.Size() != before {
		t.Errorf("left are %+v, %v", all, err)
	}
}

func TestATenantHasSoManySchedules(t *testing.T) {
	db := create(t, newHome(t))
	const most = 1000
	var wg sync.WaitGroup
	for i := range most {
		wg.Go(func() {
			if _, err := db.AddSchedule("x", "default", addition(fmt.Sprintf("s%d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := db.AddSchedule("x", "default", addition("more")); !errors.Is(err, store.ErrTooManySchedules) {
		t.Errorf("one more: %v", err)
	}
	if _, err := db.AddSchedule("x", "default2", addition("more")); err != nil {
		t.Errorf("in another tenant: %v", err)
	}
}
