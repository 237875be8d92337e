package store

import "time"

// A Pace lets commits go before long work that reads the ledger. What has the processor on which
// an answer of the disk arrives delays it: beside an export some commits would take several
// times as long. So the work is done in short pieces, and after each it waits for the end of a
// commit that is under way. Not for several goroutines at once.
type Pace struct {
	db   *DB
	last time.Time // the end of the last pause
}

// Beside commits without a pause, however slow, the work has about a sixth of the time: a pause
// ends half a millisecond late.
const (
	workPiece = 500 * time.Microsecond
	mostPause = 2 * time.Millisecond
)

// Pace is that of a work that begins.
func (db *DB) Pace() *Pace { return &Pace{db, time.Now()} }

// Step comes between two steps of the work, each of which is shorter than a piece.
func (p *Pace) Step() {
	commit := p.db.committing.Load()
	if commit == nil || time.Since(p.last) < workPiece {
		return
	}
	most := time.NewTimer(mostPause)
	defer most.Stop()
	select {
	case <-*commit:
	case <-most.C:
	}
	p.last = time.Now()
}

// commits says that a commit is under way, until end is called.
func (db *DB) commits() (end func()) {
	c := make(chan struct{})
	db.committing.Store(&c)
	return func() {
		db.committing.Store(nil)
		close(c)
	}
}
