// Package schedule says at which instants something recurs: by five fields of
// cron in a time zone, or at an interval from an anchor. It is pure: it reads no
// clock, starts nothing, and knows nothing of what happens at an instant.
//
// Cron is matched against the local clock. A local time that a zone jumps over
// comes at the instant of the jump, one that it passes twice comes at the first;
// so what recurs daily comes once a day, whatever the zone does.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a machine need not have the zones

	"github.com/robfig/cron/v3"
)

// Limits of a spec.
const (
	MaxCron  = 256 // bytes
	MinEvery = time.Second
	MaxEvery = 366 * 24 * time.Hour
	maxZone  = 64 // bytes
	maxYear  = 9999
	maxScan  = 100_000 // instants that one call of Due walks over
)

// Spec is when something recurs. Exactly one of Cron and Every is set; Zone
// belongs to Cron, and empty means UTC; Anchor belongs to Every.
type Spec struct {
	Cron   string // five fields, or @yearly @annually @monthly @weekly @daily @midnight @hourly
	Zone   string // IANA name
	Every  time.Duration
	Anchor time.Time // the first instant; required
}

// Schedule is a spec that was understood. It may be used from any goroutine.
type Schedule struct {
	cron   cron.Schedule // of walls; nil for an interval
	zone   *time.Location
	every  int64 // seconds
	anchor int64 // Unix
}

// New checks a spec. Its errors are for whoever wrote it.
func New(spec Spec) (*Schedule, error) {
	switch {
	case (spec.Cron == "") == (spec.Every == 0):
		return nil, errors.New("give cron or an interval, one of the two")
	case spec.Cron == "":
		return interval(spec)
	case !spec.Anchor.IsZero():
		return nil, errors.New("an anchor belongs to an interval; cron has none")
	}
	if err := checkCron(spec.Cron); err != nil {
		return nil, err
	}
	zone, err := location(spec.Zone)
	if err != nil {
		return nil, err
	}
	parsed, err := cron.ParseStandard(spec.Cron)
	if err != nil {
		return nil, fmt.Errorf("cron %q: %v", spec.Cron, err)
	}
	// A leap year: what does not come in the five that are searched never does.
	if parsed.Next(time.Date(2023, 12, 31, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("cron %q: there is no such day", spec.Cron)
	}
	return &Schedule{cron: parsed, zone: zone}, nil
}

func interval(spec Spec) (*Schedule, error) {
	switch {
	case spec.Zone != "":
		return nil, errors.New("a zone belongs to cron; an interval is the same everywhere")
	case spec.Every < MinEvery || spec.Every > MaxEvery:
		return nil, fmt.Errorf("an interval is %s to %s, not %s", MinEvery, MaxEvery, spec.Every)
	case spec.Every%time.Second != 0:
		return nil, fmt.Errorf("an interval is whole seconds, not %s", spec.Every)
	case spec.Anchor.IsZero():
		return nil, errors.New("an interval needs an anchor")
	case spec.Anchor.Nanosecond() != 0:
		return nil, errors.New("an anchor is a whole second")
	case spec.Anchor.Year() < 1970 || spec.Anchor.Year() > maxYear:
		return nil, fmt.Errorf("the anchor %s is out of range", spec.Anchor.Format(time.RFC3339))
	}
	return &Schedule{every: int64(spec.Every / time.Second), anchor: spec.Anchor.Unix()}, nil
}

// checkCron refuses what the parser would take and nobody should write: its
// own zones and intervals, which have their places in a spec, and holes in lists.
func checkCron(text string) error {
	if len(text) > MaxCron {
		return fmt.Errorf("cron has at most %d bytes", MaxCron)
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return fmt.Errorf("cron %q is not plain text", text)
		}
	}
	switch {
	case strings.Contains(text, "="):
		return fmt.Errorf("cron %q: the zone is given by itself", text)
	case strings.HasPrefix(text, "@every"):
		return fmt.Errorf("cron %q: an interval is given by itself", text)
	case strings.HasPrefix(text, "@"):
		return nil
	}
	for field := range strings.FieldsSeq(text) {
		if strings.HasPrefix(field, ",") || strings.HasSuffix(field, ",") || strings.Contains(field, ",,") {
			return fmt.Errorf("cron %q: %s has a hole", text, field)
		}
	}
	return nil
}

func location(name string) (*time.Location, error) {
	switch {
	case name == "":
		return time.UTC, nil
	case name == "Local" || len(name) > maxZone:
		return nil, fmt.Errorf("the zone %q is not a name such as Europe/Berlin", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no zone %q; they have names such as Europe/Berlin", name)
	}
	return zone, nil
}

// Next is the first instant after a time, in UTC; zero if there is none within
// five years.
func (s *Schedule) Next(after time.Time) time.Time {
	var next time.Time
	if s.cron == nil {
		next = s.nextInterval(after)
	} else {
		next = s.nextCron(after)
	}
	if next.Year() > maxYear {
		return time.Time{}
	}
	return next
}

func (s *Schedule) nextInterval(after time.Time) time.Time {
	// Seconds, and not durations, which end after 292 years.
	at := after.Unix() // rounded down: an instant in the same second is not after it
	if at < s.anchor {
		return time.Unix(s.anchor, 0).UTC()
	}
	n := (at-s.anchor)/s.every + 1
	return time.Unix(s.anchor+n*s.every, 0).UTC()
}

func (s *Schedule) nextCron(after time.Time) time.Time {
	// The instants of walls never fall as walls grow, so those before the wall
	// of after are not after it. Some behind it may not be either: the clock was
	// set back, and they have come already, or it jumped over them.
	for wall := s.wall(after); ; {
		if wall = s.cron.Next(wall); wall.IsZero() {
			return time.Time{}
		}
		if at := s.instant(wall); at.After(after) {
			return at
		}
	}
}

// wall is what a local clock shows at t, written as if it were UTC.
func (s *Schedule) wall(t time.Time) time.Time {
	return t.UTC().Add(offset(t.In(s.zone)))
}

func offset(t time.Time) time.Duration {
	_, sec := t.Zone()
	return time.Duration(sec) * time.Second
}

// instant is when a local clock shows wall for the first time, or jumps over it.
func (s *Schedule) instant(wall time.Time) time.Time {
	near := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, s.zone)
	from, to := near.ZoneBounds()
	var first time.Time
	for _, t := range []time.Time{near, from.Add(-time.Nanosecond), to} { // of the offset of now, before, after
		at := wall.Add(-offset(t.In(s.zone)))
		if s.wall(at).Equal(wall) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if !first.IsZero() {
		return first
	}
	for _, jump := range []time.Time{from, to} {
		before := offset(jump.Add(-time.Nanosecond).In(s.zone))
		if !wall.Before(jump.UTC().Add(before)) && wall.Before(s.wall(jump)) {
			return jump.UTC()
		}
	}
	return near.UTC() // a zone with changes closer together than its jumps are wide: there is none
}

// Due is the instants of a span of time, of which the newest are listed and
// those before them counted.
type Due struct {
	Earlier     int64     // instants before the listed ones
	First, Last time.Time // of the earlier ones; zero where there are none
	Newest      []time.Time
	More        bool // the span was not walked to its end: ask again from Last on
}

// Due walks over the instants after one time until another, which is included,
// and keeps the newest ones.
func (s *Schedule) Due(after, until time.Time, keep int) Due {
	var d Due
	at := s.Next(after)
	if s.cron == nil && !at.IsZero() && !at.After(until) {
		if n := (until.Unix() - at.Unix()) / s.every; n >= int64(keep) { // more than keep: count them at once
			d.Earlier, d.First = n+1-int64(keep), at
			d.Last = at.Add(time.Duration((d.Earlier-1)*s.every) * time.Second)
			at = s.Next(d.Last)
		}
	}
	for ; !at.IsZero() && !at.After(until); at = s.Next(at) {
		if d.More = d.Earlier == maxScan && s.cron != nil; d.More {
			d.Newest = nil
			return d
		}
		if d.Newest = append(d.Newest, at); len(d.Newest) > keep {
			if d.Earlier++; d.Earlier == 1 {
				d.First = d.Newest[0]
			}
			d.Last, d.Newest = d.Newest[0], d.Newest[1:]
		}
	}
	return d
}
