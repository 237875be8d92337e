package store

import (
	"sync"

	"github.com/stellarun/stella/runner/state"
)

// WatchEnd returns a channel that receives the run when it ends, and a function
// that must be called in any case. The caller reads the run after it has called
// WatchEnd: it may have ended already.
func (db *DB) WatchEnd(id string) (ended <-chan state.Run, stop func()) {
	c := make(chan state.Run, 1)
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.watches[id] == nil {
		db.watches[id] = map[chan<- state.Run]struct{}{}
	}
	db.watches[id][c] = struct{}{}
	return c, func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		if delete(db.watches[id], c); len(db.watches[id]) == 0 {
			delete(db.watches, id)
		}
	}
}

// wake tells those who wait for the end of one of these runs; db.mu is held.
func (db *DB) wake(moved *records) {
	if len(db.watches) == 0 {
		return
	}
	for id, run := range moved.runs {
		if !run.Status.Ended() {
			continue
		}
		for c := range db.watches[id] {
			select {
			case c <- *run: // there is room for one
			default: // it ends again, and nobody has looked
			}
		}
	}
}

// bundleCache holds records of bundles as they are on disk, since every attempt
// asks for some. It is emptied when one changes.
type bundleCache struct {
	mu       sync.Mutex // guards what follows
	emptied  int        // how often
	byDigest map[string]BundleRecord
}

// maxCachedBundles bounds it.
const maxCachedBundles = 1024

// get returns the record of a digest, and a mark for put where it is not there.
func (c *bundleCache) get(digest string) (rec BundleRecord, ok bool, mark int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rec, ok = c.byDigest[digest]
	return rec, ok, c.emptied
}

// put keeps a record that was read after get had returned the mark.
func (c *bundleCache) put(digest string, rec BundleRecord, mark int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.emptied != mark {
		return // it may be older than what changed
	}
	if c.byDigest == nil || len(c.byDigest) == maxCachedBundles {
		c.byDigest = map[string]BundleRecord{}
	}
	c.byDigest[digest] = rec
}

func (c *bundleCache) empty() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.emptied++
	c.byDigest = nil
}
