package engine

import (
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/schedule"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Reasons for which instants of a schedule start nothing. They reach the
// ledger: never change or reuse one.
const (
	skipOverlap  = "OVERLAP"  // the last run was open
	skipMissed   = "MISSED"   // nobody was there, and the catch-up window is over
	skipDisabled = "DISABLED" // there was no enabled version to start
	skipRefused  = "REFUSED"  // the start was refused
)

const (
	// onTime is how late an instant may be dealt with without having been
	// missed: a daemon that is started anew must not cost a night's run.
	onTime = time.Minute
	// maxWaiting bounds how many instants of a schedule are started late, after
	// a time in which nobody was there or behind a run; the newest ones are.
	maxWaiting = 100
)

// A situation is everything that decides about the next instant of a schedule.
type situation struct {
	now     time.Time
	sched   *schedule.Schedule
	rec     store.ScheduleRecord
	cursor  time.Time // of rec
	began   time.Time // when the last run was started; zero where there is none
	ended   time.Time // when it has ended; zero while it is open
	stopped time.Time // until when it is known that there was no version to start
}

// A move is what is done next about a schedule: an instant is started, or
// instants are skipped, or there is something to wait for.
type move struct {
	start  time.Time
	skip   *ledger.ScheduleFiring // without its name
	cancel bool                   // wait for the last run, and ask for its end
}

func (m move) waits() bool { return m.start.IsZero() && m.skip == nil }

// decide is what is done next, where at least one instant is due. It moves one
// step: whoever carried it out asks again.
func decide(s situation) move {
	if s.rec.Overlap != api.OverlapAllow && !s.began.IsZero() {
		first := s.sched.Next(s.cursor)
		made := first.Before(s.began) // the last run made up for one before it
		switch open := s.ended.IsZero(); {
		case made && open:
			return move{} // one after the other; none has come while the other one was open
		case made:
			return move{start: first} // it was in time when the other one was started
		case open:
			return s.behind()
		}
		// Instants that came while the last run was open have waited for it, or
		// are to be skipped; how late they are is no question then.
		if during := s.sched.Due(s.cursor, s.ended, s.keep()); during.Earlier > 0 {
			return skipEarlier(during, skipOverlap)
		} else if len(during.Newest) > 0 {
			return s.afterRun(during)
		}
	}
	due := s.sched.Due(s.cursor, s.now, maxWaiting)
	late := 0 // of the newest ones, that come too late
	for late < len(due.Newest) && !s.inTime(due.Newest[late], late == len(due.Newest)-1) {
		late++
	}
	if due.Earlier == 0 && late == 0 {
		return move{start: due.Newest[0]}
	}
	return skipLate(due, late, s.stopped)
}

// behind is what is done while the last run is open.
func (s situation) behind() move {
	switch s.rec.Overlap {
	case api.OverlapCancel:
		return move{cancel: true}
	case api.OverlapSkip:
		// The first time it is recorded at once, so that it is seen; what comes
		// until the run ends is then one entry, however many instants that are.
		if s.rec.LastReason != skipOverlap {
			return skipEarlier(s.sched.Due(s.cursor, s.now, 0), skipOverlap)
		}
	}
	return move{}
}

// keep is how many instants that came during the last run are kept.
func (s situation) keep() int {
	switch s.rec.Overlap {
	case api.OverlapQueue:
		return maxWaiting
	case api.OverlapCancel:
		return 1
	}
	return 0
}

// afterRun is what is done about instants that have waited for the last run.
func (s situation) afterRun(during schedule.Due) move {
	first := during.Newest[0]
	if s.rec.Overlap == api.OverlapCancel && !s.sched.Next(first).After(s.now) {
		return move{skip: firing(first, first, 1, skipOverlap)} // a newer one has taken its place
	}
	return move{start: first}
}

// inTime says whether an instant that has passed is still started.
func (s situation) inTime(at time.Time, newest bool) bool {
	late := s.now.Sub(at)
	if late <= time.Duration(s.rec.CatchUpMs)*time.Millisecond && s.rec.CatchUpMs > 0 {
		return true
	}
	return newest && late <= onTime && at.After(s.stopped)
}

func skipEarlier(d schedule.Due, reason string) move {
	return move{skip: firing(d.First, d.Last, d.Earlier, reason)}
}

// skipLate skips all that are not kept, and the first ones of those that are.
func skipLate(d schedule.Due, late int, stopped time.Time) move {
	first, last := d.First, d.Last
	if late > 0 {
		last = d.Newest[late-1]
	}
	if d.Earlier == 0 {
		first = d.Newest[0]
	}
	reason := skipMissed
	if !first.After(stopped) {
		reason = skipDisabled
	}
	return move{skip: firing(first, last, d.Earlier+int64(late), reason)}
}

func firing(first, last time.Time, n int64, reason string) *ledger.ScheduleFiring {
	d := &ledger.ScheduleFiring{Instant: stamp.Format(last), Count: n, Reason: reason}
	if n > 1 {
		d.First = stamp.Format(first)
	}
	return d
}
