package store

import "github.com/stellarun/stella/ledger"

// RecordWorkspaces writes that workspaces were removed. They are no part of the
// state, so nothing follows from the entry.
func (db *DB) RecordWorkspaces(actor string, d *ledger.WorkspaceRemoval) (int64, error) {
	var seq int64
	err := db.update(func(tx *Tx) error {
		env, err := tx.append(siteEntry(ledger.WorkspacesRemoved, actor, d))
		seq = env.Seq
		return err
	})
	return seq, err
}
