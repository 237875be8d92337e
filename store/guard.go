package store

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// guard makes a *[Damage] of what a damaged page of ledger.db leads to in fn: bbolt panics, or
// reads memory that is not there. Any other panic goes on: it is a mistake of ours.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if !isFault(p) && !inBolt() {
				panic(p)
			}
			err = damaged(fmt.Errorf("they lead astray: %v", p), "pages of ledger.db")
		}
	}()
	return fn()
}

// isFault says whether a panic is for memory that could not be read, nil excepted.
func isFault(p any) bool {
	_, ok := p.(interface {
		runtime.Error
		Addr() uintptr
	})
	return ok
}

// inBolt says whether what has just panicked is a function of bbolt.
func inBolt() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for panicked := false; ; {
		f, more := frames.Next()
		if ours := !strings.HasPrefix(f.Function, "runtime."); panicked && ours {
			return strings.HasPrefix(f.Function, "go.etcd.io/bbolt")
		}
		panicked = panicked || f.Function == "runtime.gopanic"
		if !more {
			return false
		}
	}
}

// errStuck says that bbolt holds locks that nobody gives back any more.
var errStuck = &Damage{"pages of ledger.db", errors.New("what they led to could not be ended")}

// begin begins a transaction. Where bbolt goes astray in that, it keeps its locks.
func (db *DB) begin(b *base, writable bool) (t *bolt.Tx, err error) {
	if db.stuck.Load() {
		return nil, errStuck
	}
	err = guard(func() (err error) { t, err = b.Begin(writable); return err })
	db.stuckBy(err)
	return t, err
}

// rollBack ends a transaction that may have ended already, or have led astray.
func (db *DB) rollBack(t *bolt.Tx) { db.stuckBy(guard(t.Rollback)) }

func (db *DB) stuckBy(err error) {
	if damage := (*Damage)(nil); errors.As(err, &damage) {
		db.stuck.Store(true)
	}
}

// view runs fn in a transaction that reads.
func (db *DB) view(fn func(*bolt.Tx) error) error {
	return db.viewFile(func(t *bolt.Tx, _ *os.File) error { return fn(t) })
}

// viewFile is view for who looks at the pages of the transaction in the file.
func (db *DB) viewFile(fn func(*bolt.Tx, *os.File) error) error {
	for {
		b := db.base.Load()
		t, err := db.begin(b, false)
		if err == bolt.ErrDatabaseNotOpen && db.base.Load() != b { // another took its place a moment ago
			continue
		}
		if err != nil {
			return err
		}
		defer db.rollBack(t)
		return guard(func() error { return fn(t, b.file) })
	}
}

// closeBase closes the database; where its locks cannot be had, the end of the process does.
func (db *DB) closeBase() error {
	if db.stuck.Load() {
		return nil
	}
	return db.base.Load().Close()
}
