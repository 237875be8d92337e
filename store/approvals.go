package store

import (
	"encoding/binary"
	"errors"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/runner/state"
)

// An ApprovalRecord is one approval and the run that it belongs to.
type ApprovalRecord struct {
	Run      state.Run
	StepID   string
	Approval state.Approval
}

// Approval reads one approval.
func (db *DB) Approval(runID, stepID string, attempt int) (ApprovalRecord, error) {
	var rec ApprovalRecord
	err := db.view(func(t *bolt.Tx) (err error) {
		rec, err = approvalAt(t, attemptKey(runID, stepID, attempt))
		return err
	})
	return rec, err
}

// approvalAt reads the approval that has a key; [ErrNotFound] where there is none.
func approvalAt(t *bolt.Tx, key []byte) (ApprovalRecord, error) {
	var rec ApprovalRecord
	runID, rest, _ := strings.Cut(string(key), "/")
	rec.StepID = rest[:max(0, len(rest)-5)] // "/" and four bytes of the attempt
	err := getJSON(t, bApprovals, key, &rec.Approval)
	if err == nil {
		rec.Run, err = indexedRun(t, runID)
	}
	return rec, err
}

// Approvals reads approvals of a tenant, of the oldest runs first: those that are
// open, or all; at most limit, from the one after cursor on. next is "" when
// there are no more.
func (db *DB) Approvals(tenant string, open bool, cursor string, limit int, keep func(ApprovalRecord) bool) (out []ApprovalRecord, next string, err error) {
	bucket := bApprovals
	if open {
		bucket = bAsked
	}
	err = scanAfter(db, bucket, []byte(cursor), func(t *bolt.Tx, k []byte) error {
		if len(out) == limit {
			return errEnough
		}
		next = string(k)
		rec, err := approvalAt(t, k)
		if err != nil {
			return indexed(err, "approval %s", printable(k))
		}
		if rec.Run.Tenant == tenant && (keep == nil || keep(rec)) {
			out = append(out, rec)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return out, next, nil
	}
	return out, "", err
}

// scanAfter visits the keys of a bucket after one, a page a transaction.
func scanAfter(db *DB, bucket, after []byte, visit func(t *bolt.Tx, k []byte) error) error {
	from := after
	if len(after) > 0 {
		from = append(after[:len(after):len(after)], 0)
	}
	for {
		n := 0
		err := db.view(func(t *bolt.Tx) error {
			c := t.Bucket(bucket).Cursor()
			for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
				if n == pageSize {
					from = append([]byte(nil), k...)
					return nil
				}
				n++
				if err := visit(t, k); err != nil {
					return err
				}
			}
			n = 0
			return nil
		})
		if err != nil || n == 0 {
			return err
		}
	}
}

// ApprovalCursor is the cursor after an approval.
func ApprovalCursor(runID, stepID string, attempt int) string {
	return string(binary.BigEndian.AppendUint32([]byte(runID+"/"+stepID+"/"), uint32(attempt)))
}
