package engine

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Trust only goes forward: a key that was revoked stays revoked. A snapshot, or what is saved of
// a ledger, may be from before a change of trust whose files the home still has, with all
// signatures. They come in force again, as the first that the new epoch does about trust. And the
// key of a root that was replaced is gone: without its successor nobody could change anything.

// A carry is trust of a home that is newer than that of a ledger which takes its place.
type carry struct {
	next *inForce // nil if it cannot come in force: told says why
	told api.NewerTrust
}

// newerTrust finds what the home of a site has in trust/ beyond what db, the copy with a trust/ of
// its own that takes the place of its ledger, puts in force; nil where that is nothing.
func newerTrust(db *store.DB, home string, now time.Time) (*carry, error) {
	own := filepath.Join(db.Home(), "trust")
	was, err := loadTrust(db, own, func() trustLook { return lookAtTrust(own) })
	if err != nil {
		return nil, err
	}
	files, err := readTrust(filepath.Join(home, "trust"))
	if missing(err) {
		return nil, nil
	}
	var there *verify.Trust
	if err == nil {
		there, err = verify.Load(files)
	}
	if err != nil {
		return &carry{told: api.NewerTrust{Why: fmt.Sprintf("what trust/ had cannot be read: %v", err)}}, nil
	}
	ref, old := there.Ref(), was.Ref()
	if ref.RootVersion <= old.RootVersion && ref.PolicySerial <= old.PolicySerial && ref.RevocationSerial <= old.RevocationSerial {
		return nil, nil
	}
	c := &carry{told: api.NewerTrust{Root: ref.RootVersion, Policy: ref.PolicySerial, Revocations: ref.RevocationSerial}}
	if ref.RootVersion > old.RootVersion+1 { // each is an entry, signed by the one before
		c.told.Why = fmt.Sprintf("root %d is in force, and root %d comes first", old.RootVersion, old.RootVersion+1)
		return c, nil
	}
	t, err := was.Successor(files, now)
	if err != nil {
		c.told.Why = err.Error()
		return c, nil
	}
	c.next = &inForce{t, files}
	return c, nil
}

// carryTrust puts newer trust of the home in force in db, and says what came of it; nil where
// there is none.
func carryTrust(db *store.DB, home, actor string, now time.Time) (*api.NewerTrust, error) {
	c, err := newerTrust(db, home, now)
	if c == nil || err != nil || c.next == nil {
		return c.tell(), err
	}
	if err := sealTrust(db.Blobs(), c.next.files); err != nil {
		return nil, err
	}
	entry := c.next.Change("trust does not go back with the ledger")
	if c.told.Seq, err = db.Append(ledger.TrustChanged, actor, &entry); err != nil {
		return nil, err
	}
	return c.tell(), writeTrust(filepath.Join(db.Home(), "trust"), c.next.files)
}

func (c *carry) tell() *api.NewerTrust {
	if c == nil {
		return nil
	}
	return &c.told
}
