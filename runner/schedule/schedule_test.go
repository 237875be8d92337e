package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/runner/schedule"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustNew(t *testing.T, spec schedule.Spec) *schedule.Schedule {
	t.Helper()
	s, err := schedule.New(spec)
	if err != nil {
		t.Fatalf("New(%+v) = %v", spec, err)
	}
	return s
}

func TestNextInstants(t *testing.T) {
	anchor := at(t, "2026-03-01T00:00:07Z")
	for _, c := range []struct {
		name  string
		spec  schedule.Spec
		after string
		want  string // in order, with spaces between
	}{
		{"daily in UTC", schedule.Spec{Cron: "30 2 * * *"}, "2026-03-28T02:30:00Z",
			"2026-03-29T02:30:00Z 2026-03-30T02:30:00Z"},
		{"a fraction of a second after", schedule.Spec{Cron: "30 2 * * *"}, "2026-03-28T02:30:00.5Z", "2026-03-29T02:30:00Z"},
		{"a fraction of a second before", schedule.Spec{Cron: "30 2 * * *"}, "2026-03-28T02:29:59.999Z", "2026-03-28T02:30:00Z"},
		{"@hourly", schedule.Spec{Cron: "@hourly"}, "2026-03-28T02:30:00Z", "2026-03-28T03:00:00Z 2026-03-28T04:00:00Z"},
		{"the 29th of February", schedule.Spec{Cron: "0 0 29 2 *"}, "2026-03-28T02:30:00Z", "2028-02-29T00:00:00Z"},
		// 29 March 2026, 02:00 becomes 03:00: 01:00Z.
		{"a local time that does not exist comes at the jump", schedule.Spec{Cron: "30 2 * * *", Zone: "Europe/Berlin"}, "2026-03-28T00:00:00Z",
			"2026-03-28T01:30:00Z 2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"all that a jump leaves out comes once", schedule.Spec{Cron: "*/20 2,3 * * *", Zone: "Europe/Berlin"}, "2026-03-29T00:00:00Z",
			"2026-03-29T01:00:00Z 2026-03-29T01:20:00Z 2026-03-29T01:40:00Z 2026-03-30T00:00:00Z"},
		// 25 October 2026, 03:00 becomes 02:00: 01:00Z.
		{"a local time that exists twice comes once", schedule.Spec{Cron: "30 2 * * *", Zone: "Europe/Berlin"}, "2026-10-24T12:00:00Z",
			"2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"also when it is asked for between the two", schedule.Spec{Cron: "30 2 * * *", Zone: "Europe/Berlin"}, "2026-10-25T01:10:00Z",
			"2026-10-26T01:30:00Z"},
		{"an hourly one waits for two hours then", schedule.Spec{Cron: "0 * * * *", Zone: "Europe/Berlin"}, "2026-10-24T23:30:00Z",
			"2026-10-25T00:00:00Z 2026-10-25T02:00:00Z"},
		{"a midnight that does not exist", schedule.Spec{Cron: "0 0 * * *", Zone: "America/Sao_Paulo"}, "2018-11-03T12:00:00Z",
			"2018-11-04T03:00:00Z 2018-11-05T02:00:00Z"},
		{"half an hour", schedule.Spec{Cron: "15 2 * * *", Zone: "Australia/Lord_Howe"}, "2026-10-03T00:00:00Z",
			"2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		{"a day that does not exist", schedule.Spec{Cron: "0 12 * * *", Zone: "Pacific/Apia"}, "2011-12-29T12:00:00Z",
			"2011-12-29T22:00:00Z 2011-12-30T10:00:00Z 2011-12-30T22:00:00Z"},
		{"an interval from its anchor", schedule.Spec{Every: 90 * time.Second, Anchor: anchor}, "2026-03-01T00:00:06Z",
			"2026-03-01T00:00:07Z 2026-03-01T00:01:37Z"},
		{"an interval long after", schedule.Spec{Every: time.Hour, Anchor: anchor}, "2126-03-01T10:00:07Z", "2126-03-01T11:00:07Z"},
		{"an interval long before", schedule.Spec{Every: time.Hour, Anchor: anchor}, "1926-03-01T10:00:07Z", "2026-03-01T00:00:07Z"},
		{"an interval a fraction after", schedule.Spec{Every: time.Second, Anchor: anchor}, "2026-03-01T00:00:08.9Z", "2026-03-01T00:00:09Z"},
	} {
		s, now := mustNew(t, c.spec), at(t, c.after)
		for _, want := range strings.Fields(c.want) {
			now = s.Next(now)
			if got := now.Format(time.RFC3339); got != want {
				t.Errorf("%s: %+v after %s: %s, want %s", c.name, c.spec, c.after, got, want)
			}
		}
	}
}

func TestNothingComesAfterTheYear9999(t *testing.T) {
	for _, spec := range []schedule.Spec{{Cron: "@yearly"}, {Every: time.Hour, Anchor: at(t, "2026-03-01T00:00:00Z")}} {
		if got := mustNew(t, spec).Next(at(t, "9999-12-31T23:59:59Z")); !got.IsZero() {
			t.Errorf("%+v: %v", spec, got)
		}
	}
}

func TestSpecsThatAreRefused(t *testing.T) {
	anchor := at(t, "2026-03-01T00:00:00Z")
	for name, spec := range map[string]schedule.Spec{
		"nothing":                   {},
		"both":                      {Cron: "@daily", Every: time.Hour, Anchor: anchor},
		"four fields":               {Cron: "* * * *"},
		"six fields":                {Cron: "* * * * * *"},
		"a minute too many":         {Cron: "60 * * * *"},
		"a step of nothing":         {Cron: "*/0 * * * *"},
		"a day that never comes":    {Cron: "0 0 31 2 *"},
		"a list of nothing":         {Cron: ", * * * *"},
		"a hole in a list":          {Cron: "1,,2 * * * *"},
		"a zone in the text":        {Cron: "TZ=UTC * * * * *"},
		"a zone that would panic":   {Cron: "TZ=UTC"},
		"an interval in the text":   {Cron: "@every 1h"},
		"an unknown word":           {Cron: "@reboot"},
		"a line end":                {Cron: "* * * *\n*"},
		"a long text":               {Cron: "0 0 1 1 " + strings.Repeat("1,", 150) + "1"},
		"the machine's zone":        {Cron: "@daily", Zone: "Local"},
		"an unknown zone":           {Cron: "@daily", Zone: "Europe/Atlantis"},
		"a zone that is a path":     {Cron: "@daily", Zone: "../../etc/passwd"},
		"an anchor for cron":        {Cron: "@daily", Anchor: anchor},
		"an interval without one":   {Every: time.Hour},
		"an interval with a zone":   {Every: time.Hour, Anchor: anchor, Zone: "Europe/Berlin"},
		"less than a second":        {Every: time.Second - 1, Anchor: anchor},
		"a second and a half":       {Every: 1500 * time.Millisecond, Anchor: anchor},
		"less than nothing":         {Every: -time.Hour, Anchor: anchor},
		"more than a year":          {Every: schedule.MaxEvery + time.Second, Anchor: anchor},
		"an anchor with a fraction": {Every: time.Hour, Anchor: anchor.Add(1)},
		"an anchor long ago":        {Every: time.Hour, Anchor: at(t, "0300-03-01T00:00:00Z")},
	} {
		if s, err := schedule.New(spec); err == nil {
			t.Errorf("%s: New(%+v) = %v, want an error", name, spec, s)
		}
	}
}

// TestZonesAgainstTheirClocks walks a minute at a time over days on which zones
// change, as somebody would who watches the local clock.
func TestZonesAgainstTheirClocks(t *testing.T) {
	for _, c := range []struct{ zone, day string }{
		{"America/New_York", "2026-03-08T00:00:00Z"}, {"America/New_York", "2026-11-01T00:00:00Z"},
		{"Europe/Berlin", "2026-03-29T00:00:00Z"}, {"Europe/Berlin", "2026-10-25T00:00:00Z"},
		{"Australia/Lord_Howe", "2026-04-04T00:00:00Z"}, {"Australia/Lord_Howe", "2026-10-03T00:00:00Z"},
		{"America/Sao_Paulo", "2018-11-04T00:00:00Z"}, {"America/Havana", "2026-11-01T00:00:00Z"},
		{"Pacific/Apia", "2011-12-30T00:00:00Z"}, {"Africa/Casablanca", "2026-02-15T00:00:00Z"},
		{"Antarctica/Troll", "2026-03-29T00:00:00Z"}, {"Asia/Kathmandu", "2026-03-29T00:00:00Z"},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		from := at(t, c.day).Add(-48 * time.Hour)
		for _, spec := range []string{"* * * * *", "*/7 1-3 * * *", "30 2 * * *", "0 0 * * *", "59 23 * * *"} {
			s := mustNew(t, schedule.Spec{Cron: spec, Zone: c.zone})
			plain := mustNew(t, schedule.Spec{Cron: spec})
			next := s.Next(from)
			shown := wallOf(from.In(zone)) // the latest that the clock has shown
			for now := from.Add(time.Minute); now.Before(from.Add(96 * time.Hour)); now = now.Add(time.Minute) {
				wall := wallOf(now.In(zone))
				due := wall.After(shown) && !plain.Next(shown).After(wall)
				if wall.After(shown) {
					shown = wall
				}
				if comes := next.Equal(now); comes != due {
					t.Fatalf("%s in %s at %s (%s): comes is %v, want %v", spec, c.zone, now.Format(time.RFC3339), wall, comes, due)
				}
				if due {
					next = s.Next(now)
				}
			}
		}
	}
}

func wallOf(t time.Time) time.Time {
	_, sec := t.Zone()
	return t.UTC().Add(time.Duration(sec) * time.Second)
}

func TestWhatIsDue(t *testing.T) {
	anchor := at(t, "2026-03-01T00:00:00Z")
	for _, c := range []struct {
		name    string
		spec    schedule.Spec
		after   time.Time
		span    time.Duration
		keep    int
		earlier int64
		newest  int
		more    bool
	}{
		{"nothing yet", schedule.Spec{Every: time.Hour, Anchor: anchor}, anchor, time.Hour - 1, 3, 0, 0, false},
		{"one", schedule.Spec{Every: time.Hour, Anchor: anchor}, anchor, time.Hour, 3, 0, 1, false},
		{"as many as are kept", schedule.Spec{Every: time.Hour, Anchor: anchor}, anchor, 3 * time.Hour, 3, 0, 3, false},
		{"one more", schedule.Spec{Every: time.Hour, Anchor: anchor}, anchor, 4 * time.Hour, 3, 1, 3, false},
		{"none kept", schedule.Spec{Every: time.Hour, Anchor: anchor}, anchor, 4 * time.Hour, 0, 4, 0, false},
		{"a year of seconds", schedule.Spec{Every: time.Second, Anchor: anchor}, anchor, 365 * 24 * time.Hour, 100, 365*86400 - 100, 100, false},
		{"cron, one more", schedule.Spec{Cron: "@hourly"}, anchor, 4 * time.Hour, 3, 1, 3, false},
		{"cron, none kept", schedule.Spec{Cron: "@hourly"}, anchor, 4 * time.Hour, 0, 4, 0, false},
		{"cron, too many for one walk", schedule.Spec{Cron: "* * * * *"}, anchor, 200_000 * time.Minute, 100, 100_000, 0, true},
	} {
		s := mustNew(t, c.spec)
		d := s.Due(c.after, c.after.Add(c.span), c.keep)
		if d.Earlier != c.earlier || len(d.Newest) != c.newest || d.More != c.more {
			t.Errorf("%s: %d earlier, %d newest, more %v; want %d, %d, %v", c.name, d.Earlier, len(d.Newest), d.More, c.earlier, c.newest, c.more)
		}
		checkDue(t, c.name, s, d, c.after)
	}
}

// checkDue holds that nothing lies between the parts of what is due.
func checkDue(t *testing.T, name string, s *schedule.Schedule, d schedule.Due, after time.Time) {
	t.Helper()
	last := after
	if d.Earlier > 0 {
		if !d.First.Equal(s.Next(after)) || d.Last.Before(d.First) || (d.Earlier == 1) != d.First.Equal(d.Last) {
			t.Errorf("%s: %d earlier ones from %v to %v; the first is %v", name, d.Earlier, d.First, d.Last, s.Next(after))
		}
		last = d.Last
	}
	for _, n := range d.Newest {
		if want := s.Next(last); !n.Equal(want) {
			t.Errorf("%s: after %v comes %v, want %v", name, last, n, want)
		}
		last = n
	}
}

// FuzzNext: whatever is accepted, the next instant is later, none lies before
// it, and later questions have no earlier answers.
func FuzzNext(f *testing.F) {
	for _, text := range []string{"* * * * *", "30 2 * * *", "@daily", "*/5 1-3,7 1 jan-mar mon", "0 0 29 2 *", "TZ=", "1,,2 * * * *", "60 * * * *", "@every 1s", "? * * * ?"} {
		f.Add(text, "Europe/Berlin", int64(0), int64(1774746000), int64(3600))
		f.Add(text, "", int64(0), int64(1792889999), int64(86400*400))
	}
	f.Add("", "", int64(90), int64(1774746000), int64(1))
	f.Add("", "Local", int64(-1), int64(1)<<60, int64(-1))
	f.Fuzz(func(t *testing.T, text, zone string, every, unix, step int64) {
		spec := schedule.Spec{Cron: text, Zone: zone, Every: time.Duration(every) * time.Second}
		if every != 0 {
			spec.Anchor = time.Unix(1774746007, 0)
		}
		s, err := schedule.New(spec)
		if err != nil {
			t.Skip(err)
		}
		const end = 250_000_000_000 // the year 9892
		a := time.Unix(((unix%end)+end)%end, 0)
		b := a.Add(time.Duration(((step%1_000_000)+1_000_000)%1_000_000) * time.Second)
		na, nb := s.Next(a), s.Next(b)
		if na.IsZero() || nb.IsZero() {
			if !strings.Contains(text, "29") { // years without a leap day last for eight at most, five are searched
				t.Fatalf("%+v: nothing comes after %v or %v", spec, a, b)
			}
			t.Skip("too far ahead")
		}
		if !na.After(a) || !nb.After(b) {
			t.Errorf("%+v: after %v comes %v, after %v %v", spec, a, na, b, nb)
		}
		if nb.Before(na) {
			t.Errorf("%+v: after %v comes %v, but after the later %v comes %v", spec, a, na, b, nb)
		}
		if b.Before(na) && !nb.Equal(na) {
			t.Errorf("%+v: %v lies between %v and %v, but %v comes after it", spec, b, a, na, nb)
		}
		if na.Nanosecond() != 0 || na.Location() != time.UTC {
			t.Errorf("%+v: %v is no whole second in UTC", spec, na)
		}
		checkDue(t, "due", s, s.Due(a, a.Add(time.Hour), 3), a)
	})
}
