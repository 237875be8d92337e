package store

// The one writer of a site: what waits shares a transaction and a sync (see [Tx] for what
// one of them may do).

// maxBatch bounds how many writes share one transaction.
const maxBatch = 512

type request struct {
	fn   func(*Tx) error
	done chan error
}

func (db *DB) start() { go db.write() }

// write is the one writer. It ends when quit is closed and nothing waits.
func (db *DB) write() {
	defer close(db.written)
	for {
		select {
		case r := <-db.requests:
			db.commit(db.gather(r))
		case f := <-db.between:
			f()
		case <-db.quit:
			return
		}
	}
}

// gather takes what is waiting behind first, without waiting for more.
func (db *DB) gather(first request) []request {
	batch := []request{first}
	for len(batch) < maxBatch {
		select {
		case r := <-db.requests:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// still runs fn while nothing is written.
func (db *DB) still(fn func() error) (err error) {
	done := make(chan struct{})
	select {
	case db.between <- func() { defer close(done); err = fn() }:
		<-done
		return err
	case <-db.quit:
		return ErrClosed
	}
}

// update runs fn in a transaction of the writer and returns once it is on
// disk. When fn fails, what it wrote is undone and nothing of it is kept.
func (db *DB) update(fn func(*Tx) error) error {
	r := request{fn: fn, done: make(chan error, 1)}
	select {
	case db.requests <- r:
		return <-r.done
	case <-db.quit:
		return ErrClosed
	}
}

// Refuse lets nothing be written any more, as a write that has failed with this error
// does.
func (db *DB) Refuse(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.failed == nil {
		db.failed = err
		close(db.broken)
	}
}

// Failed is closed when a write has failed, after which nothing more is
// accepted: whoever holds the site should end, and open it anew.
func (db *DB) Failed() <-chan struct{} { return db.broken }

// Failure is why, nil while nothing has failed.
func (db *DB) Failure() error {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.failed
}
