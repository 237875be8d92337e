package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Trust only goes forward: a key that was revoked stays revoked. A snapshot, or what is saved of
// a ledger, may be from before changes of trust whose files the home still has, with all
// signatures: in trust/ the newest, and sealed those that the ledger which is replaced names. They
// come in force again, one after the other, in the new epoch. The key of a root that was replaced
// is gone, besides: without its successor nobody could change anything.

// A carry is trust of a home that is newer than that of a ledger which takes its place.
type carry struct {
	steps []*inForce
	told  api.NewerTrust // says why the last of them is not what the home has, if it is not
}

// newerTrust finds what the home of a site has in trust/ beyond what db, the copy with a trust/ of
// its own that takes the place of its ledger, puts in force; nil where that is nothing. changes
// are those that the ledger of the home has, as far as anybody knows.
func newerTrust(db *store.DB, home string, changes []ledger.TrustChange, now time.Time) (*carry, error) {
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
	ref := there.Ref()
	if !newer(ref, was.Ref()) {
		return nil, nil
	}
	c := &carry{told: api.NewerTrust{Root: ref.RootVersion, Policy: ref.PolicySerial, Revocations: ref.RevocationSerial}}
	last := was.Trust
	follow := func(f verify.Files) error {
		t, err := last.Successor(f, now)
		if err != nil {
			return err
		}
		last, c.steps = t, append(c.steps, &inForce{t, f})
		return nil
	}
	for _, change := range changes {
		if !newer(change.Ref(), last.Ref()) || change.RootVersion > last.Ref().RootVersion+1 {
			continue
		}
		if f, err := filesOf(change, files.Roots, sealedIn(home)); err == nil {
			_ = follow(f) // if the last does not follow either, that is told
		}
	}
	if !newer(ref, last.Ref()) {
		return c, nil
	}
	if n := last.Ref().RootVersion; ref.RootVersion > n+1 { // each is an entry, signed by the one before
		c.told.Why = fmt.Sprintf("root %d is in force, and what root %d came with is not known", n, n+1)
	} else if err := follow(files); err != nil {
		c.told.Why = err.Error()
	}
	return c, nil
}

// newer says whether trust has a file that is newer than that of other trust.
func newer(a, b ledger.TrustRef) bool {
	return a.RootVersion > b.RootVersion || a.PolicySerial > b.PolicySerial || a.RevocationSerial > b.RevocationSerial
}

// sealedIn reads the trust files that a home has sealed: always files.
func sealedIn(home string) func(digest string) ([]byte, error) {
	return func(digest string) ([]byte, error) {
		if _, err := ledger.ParseHash(digest); err != nil {
			return nil, err
		}
		raw, err := fsx.ReadFile(filepath.Join(home, "sealed", "sha256", digest[:2], digest), maxTrustFile)
		if sum := sha256.Sum256(raw); err == nil && hex.EncodeToString(sum[:]) != digest {
			err = fmt.Errorf("the sealed file %s is another", digest)
		}
		return raw, err
	}
}

// carryTrust puts newer trust of the home in force in db, and says what came of it; nil where
// there is none.
func carryTrust(db *store.DB, home string, changes []ledger.TrustChange, actor string, now time.Time) (*api.NewerTrust, error) {
	c, err := newerTrust(db, home, changes, now)
	if c == nil || err != nil {
		return nil, err
	}
	for _, next := range c.steps {
		if err := sealTrust(db.Blobs(), next.files); err != nil {
			return nil, err
		}
		entry := next.Change("trust does not go back with the ledger")
		if c.told.Seq, err = db.Append(ledger.TrustChanged, actor, &entry); err != nil {
			return nil, err
		}
		if err := writeTrust(filepath.Join(db.Home(), "trust"), next.files); err != nil {
			return nil, err
		}
	}
	return &c.told, nil
}

func (c *carry) tell() *api.NewerTrust {
	if c == nil {
		return nil
	}
	return &c.told
}
