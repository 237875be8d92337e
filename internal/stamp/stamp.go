// Package stamp is the one text form of a point in time: RFC 3339 in UTC with
// exactly nine fractional digits and a Z. It reads no clock.
package stamp

import (
	"fmt"
	"time"
)

// Layout is the form, in the terms of package time.
const Layout = "2006-01-02T15:04:05.000000000Z"

const form = "0000-00-00T00:00:00.000000000Z"

// Format returns t in UTC in the one accepted form, which it writes by hand: every entry
// of a ledger has a time.
func Format(t time.Time) string {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.Format(Layout)
	}
	hour, minute, second := t.Clock()
	b := [len(form)]byte([]byte(form))
	put(b[:4], year)
	put(b[5:7], int(month))
	put(b[8:10], day)
	put(b[11:13], hour)
	put(b[14:16], minute)
	put(b[17:19], second)
	put(b[20:29], t.Nanosecond())
	return string(b[:])
}

// put writes a number of as many digits as b has.
func put(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// Parse accepts exactly what Format prints of years to 9999 and nothing else. It reads the
// form by hand too.
func Parse(s string) (time.Time, error) {
	if t, ok := parse(s); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("stamp: %q is not a time of the form %s", s, Layout)
}

func parse(s string) (time.Time, bool) {
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
