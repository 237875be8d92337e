package store

import "io"

// WithRead returns options under which a recovery reads ledger.db through hook.
func WithRead(opt Options, hook func(io.ReaderAt) io.ReaderAt) Options {
	opt.hooks.read = hook
	return opt
}
