package store

// Held is what one transaction of a migration has held in memory.
type Held struct {
	Records int   // of runs, steps and attempts
	Bytes   int64 // of the pages that it has made
}

// WithMigration returns options under which a migration takes so many entries a
// transaction (0: as many as always) and tells what each has held once it is done; the last
// call, with nothing, comes when the new database has taken the place of the old one.
func WithMigration(opt Options, page int, moved func(Held)) Options {
	opt.hooks.page = page
	opt.hooks.moved = func(tx *Tx) {
		if tx == nil {
			moved(Held{})
			return
		}
		stats := tx.bolt.Stats()
		moved(Held{len(tx.before.runs) + len(tx.before.steps) + len(tx.before.attempts), stats.GetPageAlloc()})
	}
	return opt
}

// WithOpened returns options under which f is called when a file is open and not yet locked.
func WithOpened(opt Options, f func()) Options {
	opt.hooks.opened = f
	return opt
}

// WithRename returns options under which a migration renames by f.
func WithRename(opt Options, f func(from, to string) error) Options {
	opt.hooks.rename = f
	return opt
}
