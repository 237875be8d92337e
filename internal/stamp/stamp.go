// Package stamp is the one text form of a point in time: RFC 3339 in UTC with
// exactly nine fractional digits and a Z. It reads no clock.
package stamp

import (
	"fmt"
	"time"
)

// Layout is the form, in the terms of package time.
const Layout = "2006-01-02T15:04:05.000000000Z"

// Format returns t in UTC in the one accepted form.
func Format(t time.Time) string { return t.UTC().Format(Layout) }

// Parse accepts exactly what Format prints and nothing else. It reads the fixed
// form by hand: every entry of a ledger has a time.
func Parse(s string) (time.Time, error) {
	if t, ok := parse(s); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("stamp: %q is not a time of the form %s", s, Layout)
}

func parse(s string) (time.Time, bool) {
	const form = "0000-00-00T00:00:00.000000000Z"
	if len(s) != len(form) {
		return time.Time{}, false
	}
	for i := range len(form) {
		if form[i] != '0' && s[i] != form[i] || form[i] == '0' && (s[i] < '0' || s[i] > '9') {
			return time.Time{}, false
		}
	}
	year, month, day := number(s[:4]), number(s[5:7]), number(s[8:10])
	hour, minute, second := number(s[11:13]), number(s[14:16]), number(s[17:19])
	if month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, number(s[20:29]), time.UTC)
	return t, t.Day() == day // else the month is shorter
}

// number reads decimal digits.
func number(s string) (n int) {
	for i := range len(s) {
		n = 10*n + int(s[i]-'0')
	}
	return n
}
