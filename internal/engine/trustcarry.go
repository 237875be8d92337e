package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

// newerTrust finds what the home of a site has in trust/, or sealed, beyond what is in force by the
// copy that takes the place of its ledger; nil where that is nothing. changes are those that the
// ledger of the home has, as far as anybody knows.
func newerTrust(was *inForce, home string, changes []ledger.TrustChange, now time.Time) *carry {
	c, last, want := &carry{}, was, was.Ref()
	follow := func(f verify.Files) error { // whatever their dates: what has expired lets nothing in, and what it revokes is revoked
		t, err := last.Follow(f, now)
		if err == nil {
			last = &inForce{t, f}
			c.steps = append(c.steps, last)
		}
		return err
	}
	var fault error // of a change; it counts only if nothing else leads on
	for _, change := range changes {
		if ref := change.Ref(); newer(ref, last.Ref()) && ref.RootVersion <= last.Ref().RootVersion+1 {
			f, err := filesOf(change, last.files.Roots, sealedIn(home))
			if err == nil {
				err = follow(f)
			}
			fault = cmp.Or(fault, err)
		}
		if newer(change.Ref(), want) {
			want = change.Ref()
		}
	}
	files, err := readTrust(filepath.Join(home, "trust"))
	var there *verify.Trust
	if err == nil {
		there, err = verify.Load(files)
	}
	switch {
	case err == nil && newer(there.Ref(), last.Ref()):
		if want = there.Ref(); want.RootVersion > last.Ref().RootVersion+1 { // each is an entry, signed by the one before
			err = fmt.Errorf("root %d is in force, and what root %d came with is not known", last.Ref().RootVersion, last.Ref().RootVersion+1)
		} else {
			err = follow(files)
		}
	case err == nil, missing(err):
		if err = nil; newer(want, last.Ref()) {
			err = fmt.Errorf("the files of a change cannot be read, or do not follow: %w", cmp.Or(fault, errors.New("they are not sealed here")))
		}
	default:
		err = fmt.Errorf("what trust/ had cannot be read: %w", err)
		if len(c.steps) > 0 && !newer(want, last.Ref()) {
			err = nil // sealed there is all of it
		}
	}
	if err == nil && len(c.steps) == 0 {
		return nil
	}
	c.told = api.NewerTrust{Root: want.RootVersion, Policy: want.PolicySerial, Revocations: want.RevocationSerial}
	if err != nil {
		c.told.Why = err.Error()
	}
	return c
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

// putInForce does so in db with newer trust, one entry for each step, and says what came of it;
// nil where there is none.
func (c *carry) putInForce(db *store.DB, actor string) (*api.NewerTrust, error) {
	if c == nil {
		return nil, nil
	}
	for _, next := range c.steps {
		if err := sealTrust(db.Blobs(), next.files); err != nil {
			return nil, err
		}
		entry := next.Change("trust does not go back with the ledger")
		var err error
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
