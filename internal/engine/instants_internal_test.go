package engine

import (
	"testing"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/schedule"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// TestWhatIsDoneAboutInstants is the whole decision: an hourly schedule whose
// instants up to 10:00 were dealt with.
func TestWhatIsDoneAboutInstants(t *testing.T) {
	day := func(clock string) time.Time {
		if clock == "" {
			return time.Time{}
		}
		at, err := time.Parse("2006-01-02 15:04:05", "2026-11-22 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		name    string
		now     string
		overlap string
		catchUp time.Duration
		began   string
		open    bool
		ended   string
		stopped string
		last    string // reason of the newest entry

		start  string
		skip   string // first last
		count  int64
		reason string
		waits  bool
		cancel bool
	}{
		{name: "in time", now: "11:00:00", start: "11:00:00"},
		{name: "a little late", now: "11:00:59", start: "11:00:00"},
		{name: "missed by more", now: "11:01:01", skip: "11:00:00 11:00:00", count: 1, reason: "MISSED"},
		{name: "several were missed, and the newest is in time", now: "14:00:30", skip: "11:00:00 13:00:00", count: 3, reason: "MISSED"},
		{name: "several were missed", now: "14:30:00", skip: "11:00:00 14:00:00", count: 4, reason: "MISSED"},
		{name: "all within the window", now: "14:30:00", catchUp: 4 * time.Hour, start: "11:00:00"},
		{name: "the window holds its edge", now: "14:00:00", catchUp: 3 * time.Hour, start: "11:00:00"},
		{name: "some before the window", now: "14:30:00", catchUp: 2 * time.Hour, skip: "11:00:00 12:00:00", count: 2, reason: "MISSED"},
		{name: "a window that ends before the newest", now: "14:30:00", catchUp: 20 * time.Minute, skip: "11:00:00 14:00:00", count: 4, reason: "MISSED"},
		{name: "a window shorter than a little late", now: "14:00:30", catchUp: 20 * time.Second, skip: "11:00:00 13:00:00", count: 3, reason: "MISSED"},

		{name: "there was no version", now: "11:00:30", stopped: "11:00:20", skip: "11:00:00 11:00:00", count: 1, reason: "DISABLED"},
		{name: "there was none for hours", now: "14:00:30", stopped: "14:00:20", skip: "11:00:00 14:00:00", count: 4, reason: "DISABLED"},
		{name: "there was none, within the window", now: "14:00:30", stopped: "14:00:20", catchUp: 4 * time.Hour, start: "11:00:00"},
		{name: "there was none long ago", now: "11:00:00", stopped: "09:00:00", start: "11:00:00"},

		{name: "skip behind an open run", now: "12:00:00", open: true, skip: "11:00:00 12:00:00", count: 2, reason: "OVERLAP"},
		{name: "skip behind an open run again", now: "12:00:00", open: true, last: "OVERLAP", waits: true},
		{name: "skip what came during a run", now: "14:00:00", ended: "13:30:00", last: "OVERLAP", skip: "11:00:00 13:00:00", count: 3, reason: "OVERLAP"},
		{name: "behind a run that makes up for one before", now: "14:00:00", began: "13:59:59", open: true, catchUp: time.Hour, waits: true},
		{name: "after it the next one, however late that has become", now: "14:30:00", began: "13:59:59", ended: "14:29:00", catchUp: time.Hour, start: "11:00:00"},
		{name: "also if the one between was refused", now: "14:30:00", began: "13:59:59", ended: "14:29:00", last: "REFUSED", start: "11:00:00"},
		{name: "the run ended before", now: "11:00:00", ended: "10:59:59", start: "11:00:00"},

		{name: "queue behind an open run", now: "14:00:00", overlap: api.OverlapQueue, open: true, waits: true},
		{name: "queue: what has waited starts, however late", now: "14:30:00", overlap: api.OverlapQueue, ended: "14:29:00", start: "11:00:00"},
		{name: "queue: what came after the run is late", now: "14:30:00", overlap: api.OverlapQueue, ended: "10:29:00", skip: "11:00:00 14:00:00", count: 4, reason: "MISSED"},

		{name: "cancel an open run", now: "11:00:00", overlap: api.OverlapCancel, open: true, waits: true, cancel: true},
		{name: "cancel: the newest has waited", now: "13:00:10", overlap: api.OverlapCancel, ended: "13:00:05", skip: "11:00:00 12:00:00", count: 2, reason: "OVERLAP"},
		{name: "cancel: it starts, however late", now: "11:40:00", overlap: api.OverlapCancel, ended: "11:30:00", start: "11:00:00"},
		{name: "cancel: a newer one takes its place", now: "12:00:00", overlap: api.OverlapCancel, ended: "11:30:00", skip: "11:00:00 11:00:00", count: 1, reason: "OVERLAP"},

		{name: "allow beside an open run", now: "11:00:00", overlap: api.OverlapAllow, open: true, start: "11:00:00"},
		{name: "allow: no run excuses being late", now: "14:30:00", overlap: api.OverlapAllow, ended: "14:29:00", skip: "11:00:00 14:00:00", count: 4, reason: "MISSED"},
	} {
		sched, err := schedule.New(schedule.Spec{Cron: "@hourly"})
		if err != nil {
			t.Fatal(err)
		}
		if c.overlap == "" {
			c.overlap = api.OverlapSkip
		}
		if c.began == "" && (c.open || c.ended != "") {
			c.began = "10:00:00"
		}
		s := situation{
			now: day(c.now), sched: sched, cursor: day("10:00:00"), began: day(c.began), ended: day(c.ended), stopped: day(c.stopped),
			rec: store.ScheduleRecord{
				ScheduleAddition: ledger.ScheduleAddition{Overlap: c.overlap, CatchUpMs: c.catchUp.Milliseconds()}, LastReason: c.last,
			},
		}
		m := decide(s)
		if !m.start.Equal(day(c.start)) || m.waits() != c.waits || m.cancel != c.cancel || (m.skip != nil) != (c.skip != "") {
			t.Errorf("%s: %+v, skip %+v", c.name, m, m.skip)
			continue
		}
		if m.skip == nil {
			continue
		}
		first, last := day(c.skip[:8]), day(c.skip[9:])
		want := ledger.ScheduleFiring{Instant: stamp.Format(last), Count: c.count, Reason: c.reason}
		if c.count > 1 {
			want.First = stamp.Format(first)
		}
		if *m.skip != want {
			t.Errorf("%s: skipped %+v, want %+v", c.name, *m.skip, want)
		}
	}
}

// TestNoMoreThanAHundredAreMadeUpFor holds the bounds.
func TestNoMoreThanAHundredAreMadeUpFor(t *testing.T) {
	cursor := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	sched, err := schedule.New(schedule.Spec{Every: time.Second, Anchor: cursor})
	if err != nil {
		t.Fatal(err)
	}
	now := cursor.Add(1000 * time.Second)
	for overlap, reason := range map[string]string{api.OverlapAllow: skipMissed, api.OverlapQueue: skipOverlap} {
		m := decide(situation{now: now, sched: sched, cursor: cursor, began: cursor, ended: now, rec: store.ScheduleRecord{
			ScheduleAddition: ledger.ScheduleAddition{Overlap: overlap, CatchUpMs: time.Hour.Milliseconds()},
		}})
		if m.skip == nil || m.skip.Count != 900 || m.skip.Reason != reason || m.skip.Instant != stamp.Format(cursor.Add(900*time.Second)) {
			t.Errorf("%s: %+v, skip %+v; want 900 skipped", overlap, m, m.skip)
		}
	}
}
