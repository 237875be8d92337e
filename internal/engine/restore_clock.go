package engine

import (
	"errors"
	"time"

	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// typedNow refuses a time that somebody types from another clock and that is not the machine's.
func typedNow(typed, now time.Time) error {
	if typed.IsZero() {
		return nil
	}
	return clockError(store.Near(now, typed))
}

// acceptable says which time has to be accepted before anything can be written to the copy that
// takes the place of a ledger, zero for none: a snapshot may be old, and the ledger may have known
// a later time than the clock says, which nobody gets rid of in this way. The first of these
// folders that has a site.toml says how far the clock may be ahead.
func (k *surroundings) acceptable(db *store.DB, typed, now time.Time, sites ...string) (time.Time, error) {
	if site := firstSite(sites...); site != nil {
		db.SetMaxGap(site.MaxGap)
	}
	_, far := db.Clock()
	if far == nil {
		far = k.behind(now)
	}
	var known *api.Error
	switch {
	case far == nil:
		return time.Time{}, nil
	case !typed.IsZero():
		return typed, nil
	case errors.As(clockError(far), &known):
		known.Hint = "the site is as it was; set the clock, or where it is right say what another clock shows: stella maintenance restore-snapshot, or recover, with --accept-time TIME"
		return typed, known
	}
	return typed, far
}
