package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Where site.toml names recovery_recipients a snapshot is one file, ID.tar.age, or
// ID.epochN.tar.age of an epoch after the first, which age decrypts without stella. It is made in
// the home, which holds all of it anyway, and is in the clear nowhere else.

// sealedSnapshot is the name of an encrypted snapshot: entries, when it was made, and the epoch
// but for the first.
var sealedSnapshot = regexp.MustCompile(`^([0-9]{10,16})-([0-9]{8}T[0-9]{6}Z)(?:\.epoch([0-9]{1,16}))?\.tar\.age$`)

// encryptedName is the name of an encrypted snapshot.
func encryptedName(id string, epoch int64) string {
	if epoch > 1 {
		id = fmt.Sprintf("%s.epoch%d", id, epoch)
	}
	return id + ".tar.age"
}

// opened begins the names of folders of a home with snapshots that were decrypted.
const opened = "decrypted-"

// stage is a folder of the home for a snapshot that is to be encrypted.
func (e *Engine) stage() (string, error) {
	dir, err := snapshotDir(e.opt.Home, "")
	if err == nil {
		err = store.SweepSnapshots(dir)
	}
	if err != nil {
		return "", err
	}
	return store.StageSnapshot(dir)
}

// recipients are those whom site.toml names now: a snapshot in the clear where somebody has
// added them a moment ago would be one too many.
func (e *Engine) recipients() ([]string, error) {
	site, _, err := readSite(e.opt.Home)
	if err != nil {
		return nil, err
	}
	out, err := export.Recipients(site.Recipients)
	if err != nil || len(out) != len(site.Recipients) {
		return nil, &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("recovery_recipients of site.toml: %v", cmp.Or(err, export.ErrRecipient)),
			Hint: "name public keys of age, age1…: age-keygen -y FILE prints that of a file"}
	}
	return out, nil
}

// sweepLeftovers removes what processes have left that were killed: copies of the ledger of
// checks and snapshots, and snapshots in the clear. Whoever holds the site makes them.
func (e *Engine) sweepLeftovers() error {
	checks, err := filepath.Glob(filepath.Join(e.opt.Home, "cache", "check-*"))
	for _, x := range checks {
		err = errors.Join(err, os.RemoveAll(x))
	}
	return errors.Join(err, store.SweepSnapshots(filepath.Join(e.opt.Home, snapshotsName)), sweepDecrypted(e.opt.Home))
}

// encryptSnapshot puts a snapshot that was made into a folder, encrypted.
func (e *Engine) encryptSnapshot(ctx context.Context, s api.Snapshot, dir string, recipients []string, p api.Progress) (api.Snapshot, error) {
	from := s.Path
	_, epoch, err := ledger.ParseOrigin(s.Origin)
	if err != nil {
		return s, internal(err)
	}
	s.Path, s.Encrypted = filepath.Join(dir, encryptedName(s.ID, epoch)), true
	f, err := fsx.Create(s.Path, 0o600)
	if err != nil {
		return s, spaceError(err)
	}
	defer f.Close()
	err = export.EncryptFolder(ctx, f, from, recipients, func(done int64) {
		if p != nil {
			p(min(done, s.Bytes), s.Bytes)
		}
	})
	if err == nil {
		err = f.Commit()
	}
	if err != nil {
		return s, spaceError(err)
	}
	return s, nil
}

// Snapshots lists the snapshots in a folder, snapshots/ of the home for "", encrypted ones
// too, oldest first: by epoch, and in each by entries, since a clock may have run ahead. No site
// is opened: those who look for a snapshot may have none that opens.
func Snapshots(home, dir string) ([]api.Snapshot, error) {
	dated, err := datedSnapshots(home, dir)
	if err != nil {
		return nil, err
	}
	out := []api.Snapshot{}
	for _, x := range dated {
		out = append(out, x.Snapshot)
	}
	return out, nil
}

// epochOf is the last epoch that a snapshot in a folder is of, as it says itself. An encrypted one
// does not say of which site: it counts, since a number that is left out does no harm, while
// there are enough of them.
func epochOf(home, dir, siteID string) (last int64) {
	dated, err := datedSnapshots(home, dir)
	if err != nil {
		return 0
	}
	for _, x := range dated {
		if id, _, _ := ledger.ParseOrigin(x.Origin); (x.Encrypted || id == siteID) && x.epoch < maxEpoch/2 {
			last = max(last, x.epoch)
		}
	}
	return last
}

// datedSnapshots lists the snapshots of a folder by their epochs.
func datedSnapshots(home, dir string) (dated []datedSnapshot, err error) {
	lies := dir
	if dir == "" {
		lies, dir = home, filepath.Join(home, snapshotsName)
	}
	if fi, err := os.Stat(lies); err != nil || !fi.IsDir() {
		if lies == home {
			return nil, openError(home, store.ErrNoSite)
		}
		return nil, invalid("%s is no folder", lies)
	}
	all, err := store.Snapshots(dir)
	if err != nil {
		return nil, unlisted(err)
	}
	for _, x := range all {
		_, epoch, _ := ledger.ParseOrigin(x.Origin) // a restore says what is wrong with it
		dated = append(dated, datedSnapshot{showSnapshot(x, filepath.Join(dir, x.ID)), epoch})
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unlisted(err)
	}
	for _, x := range entries {
		if s, ok := sealedAs(dir, x); ok {
			dated = append(dated, s)
		}
	}
	slices.SortStableFunc(dated, func(a, b datedSnapshot) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.Size, b.Size), strings.Compare(a.Created, b.Created))
	})
	return dated, nil
}

// datedSnapshot is a snapshot with the epoch that it was made in.
type datedSnapshot struct {
	api.Snapshot
	epoch int64
}

// unlisted says why a folder of snapshots could not be listed.
func unlisted(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &api.Error{Code: api.CodeForbidden, Message: err.Error(), Hint: "run the command as the owner of that folder"}
	}
	return invalid("%v", err)
}

// sealedAs is what the name of an encrypted snapshot says of it.
func sealedAs(dir string, x fs.DirEntry) (s datedSnapshot, ok bool) {
	m := sealedSnapshot.FindStringSubmatch(x.Name())
	fi, err := x.Info()
	if m == nil || err != nil || !fi.Mode().IsRegular() {
		return s, false
	}
	size, serr := strconv.ParseInt(m[1], 10, 64)
	at, terr := time.Parse("20060102T150405Z", m[2])
	epoch, eerr := strconv.ParseInt(cmp.Or(m[3], "1"), 10, 64)
	return datedSnapshot{api.Snapshot{
		ID: m[1] + "-" + m[2], Path: filepath.Join(dir, x.Name()), Size: size, Created: stamp.Format(at), Bytes: fi.Size(), Encrypted: true,
	}, epoch}, serr == nil && terr == nil && eerr == nil
}

// sweepDecrypted removes decrypted snapshots of restores that were cut off.
func sweepDecrypted(home string) error {
	left, err := filepath.Glob(filepath.Join(home, opened+"*"))
	for _, x := range left {
		f, oerr := os.Open(x)
		if oerr != nil {
			err = errors.Join(err, oerr)
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil { // else it is in use
			err = errors.Join(err, os.RemoveAll(x))
		}
		f.Close()
	}
	return err
}

// decrypt puts what an encrypted snapshot holds into a folder of the home, which done removes.
func (opt RestoreOptions) decrypt(ctx context.Context, s api.Snapshot) (dir string, done func(), err error) {
	if opt.Identity == nil {
		return "", nil, &api.Error{Code: api.CodeInvalid, Message: "the snapshot " + s.ID + " is encrypted", Hint: "give the age identity with --identity FILE"}
	}
	if store.Locked(opt.Home) {
		return "", nil, restoreError(opt.Home, store.ErrLocked)
	}
	e := &Engine{opt: Options{Home: opt.Home}}
	if err := e.roomOf("the decrypted snapshot", s.Bytes); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(opt.Home, opened); err != nil {
		return "", nil, restoreError(opt.Home, err)
	}
	lock, err := os.Open(dir) // as long as it is in use
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		return "", nil, internal(err)
	}
	done = func() {
		_ = os.RemoveAll(dir)
		lock.Close()
	}
	err = export.DecryptFolder(ctx, s.Path, opt.Identity, dir, func(done int64) {
		if opt.Progress != nil {
			opt.Progress(min(done, s.Bytes), s.Bytes)
		}
	})
	if err == nil {
		return dir, done, nil
	}
	done()
	switch {
	case errors.Is(err, export.ErrNoIdentity), errors.Is(err, export.ErrIdentity):
		return "", nil, &api.Error{Code: api.CodeInvalid, Message: strings.TrimPrefix(err.Error(), "export: "), Hint: "recovery_recipients of site.toml names whose it is"}
	case errors.Is(err, export.ErrCiphertext), errors.Is(err, export.ErrFolder):
		return "", nil, snapshotDamaged("%s: %v", s.Path, err)
	}
	return "", nil, restoreError(opt.Home, err)
}
