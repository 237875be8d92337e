package store

import "context"

// WithMapped returns options under which so many bytes of ledger.db are mapped at first.
func WithMapped(opt Options, n int) Options {
	opt.hooks.mapped = n
	return opt
}

// Write has the writer run f in a transaction, in which put keeps n bytes.
func (db *DB) Write(f func(put func(n int) error) error) error {
	return db.update(func(tx *Tx) error {
		return f(func(n int) error {
			raw := make([]byte, n)
			return tx.putSmall(map[string][]byte{hexSum(raw): raw})
		})
	})
}

// Freeze begins a snapshot in a folder, and ends it.
func (db *DB) Freeze(to string) error {
	read, err := db.freeze(&copier{ctx: context.Background(), from: db.home, to: to, digests: map[string]bool{}, dirs: map[string]bool{to: true}})
	if err != nil {
		return err
	}
	return read.Rollback()
}
