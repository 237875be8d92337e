package state

import "github.com/stellarun/stella/ledger"

// Proposal is an entry that somebody wants written: everything but what the
// writer adds (seq, time, salt, and for entries of a run its identity).
type Proposal struct {
	Type    ledger.Type
	Actor   string
	StepID  string
	Attempt int
	Data    any // pointer to the struct that package ledger names for Type
}

// Batch is entries of one run that are written together.
type Batch struct {
	RunID     string
	Proposals []Proposal
}
