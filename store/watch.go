package store

import "sync"

// runWatch wakes those who wait for one run. DB.mu guards it.
type runWatch struct {
	n       int // who wait
	changed chan struct{}
}

// WatchRun returns a channel that is closed at the next commit that moves the
// run, whether or not there is such a run. The caller reads the run after it has
// called WatchRun, and calls stop in any case.
func (db *DB) WatchRun(id string) (changed <-chan struct{}, stop func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	w := db.watches[id]
	if w == nil {
		w = &runWatch{changed: make(chan struct{})}
		db.watches[id] = w
	}
	w.n++
	return w.changed, func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		if w.n--; w.n == 0 && db.watches[id] == w {
			delete(db.watches, id)
		}
	}
}

// wake wakes those who wait for one of these runs; db.mu is held.
func (db *DB) wake(moved *records) {
	for id, w := range db.watches {
		if moved.runs[id] != nil {
			close(w.changed)
			delete(db.watches, id)
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
