package store

import "github.com/stellarun/stella/ledger"

// RecordWorkspaces writes that workspaces were removed. They are no part of the
// state, so nothing follows from the entry.
func (db *DB) RecordWorkspaces(actor string, d *ledger.WorkspaceRemoval) (int64, error) {
	return db.Append(ledger.WorkspacesRemoved, actor, d)
}
