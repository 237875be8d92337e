package store

// WithUnit returns options under which a new database has pages of n bytes.
func WithUnit(opt Options, n int) Options {
	opt.hooks.unit = n
	return opt
}

// WithPart returns options under which CheckBytes takes n entries a transaction.
func WithPart(opt CheckOptions, n int64) CheckOptions {
	opt.part = n
	return opt
}
