package store

import (
	"encoding/json"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// kNotePaths is the key of bMeta that holds, as a JSON array, where copies of
// checkpoint.note have been written outside the home.
var kNotePaths = []byte("notepaths")

// NotePaths lists where copies of checkpoint.note have been written, sorted.
func (db *DB) NotePaths() (paths []string, err error) {
	err = db.view(func(t *bolt.Tx) error {
		raw := t.Bucket(bMeta).Get(kNotePaths)
		if raw == nil {
			return nil
		}
		if err := json.Unmarshal(raw, &paths); err != nil {
			return damaged(err, "meta %s", kNotePaths)
		}
		return nil
	})
	return paths, err
}

// PutNotePaths replaces that list; it writes only when the list changes.
func (db *DB) PutNotePaths(paths []string) error {
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	old, err := db.NotePaths()
	if err != nil || slices.Equal(old, paths) {
		return err
	}
	raw, err := json.Marshal(paths)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return db.update(func(tx *Tx) error { return tx.put(bMeta, kNotePaths, raw) })
}
