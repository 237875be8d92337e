package store

// EraseUnasked erases entries that nobody has agreed to erase.
func EraseUnasked(db *DB, seqs ...int64) error {
	opt := Options{erase: map[int64]bool{}}
	for _, seq := range seqs {
		opt.erase[seq] = true
	}
	return db.still(func() error {
		path, err := place(db.home)
		if err != nil {
			return err
		}
		return db.moveTo(path+newSuffix, path, opt, db.upgrade)
	})
}
