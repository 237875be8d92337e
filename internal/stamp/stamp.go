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

// Parse accepts exactly what Format prints and nothing else.
func Parse(s string) (time.Time, error) {
	t, err := time.Parse(Layout, s)
	if err != nil || t.Format(Layout) != s {
		return time.Time{}, fmt.Errorf("stamp: %q is not a time of the form %s", s, Layout)
	}
	return t, nil
}
