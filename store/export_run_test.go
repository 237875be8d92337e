package store

// BeforeTold runs f as in the moment in which so many entries are on disk that the size
// that is told does not count yet.
func BeforeTold(db *DB, entries int64, f func()) {
	add := func(n int64) {
		db.mu.Lock()
		db.size += n
		db.mu.Unlock()
	}
	add(-entries)
	defer add(entries)
	f()
}
