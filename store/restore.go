package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// A snapshot is restored beside what is there: what is sealed is added, since a digest means
// the same for ever, and the rest is made ready in restoring/, checked, and swapped for what
// the home has, which is kept in replaced/. A journal that is on disk before the first swap
// keeps everybody out until the last, and lets whoever repeats the command finish.

const (
	restoringName = "restoring"
	replacedName  = "replaced"
	sealAtOnce    = 256 // sealed files that share their syncs
)

// RestoreOptions are options of [Restore]. All but Progress and DryRun are required.
type RestoreOptions struct {
	Home     string
	From     string                             // folder of the snapshot
	Kept     string                             // name for what is replaced, below replaced/
	Verify   func(sums, signature []byte) error // that the site has signed this list
	Belong   func(*ledger.SiteInit) error       // that the keys of the home are those which entry 0 of the copy binds
	Check    CheckOptions                       // of the copy; Blobs is implied
	Adopted  func(copied *DB, was Head) error   // holds the copy, which was checked, against what is known of the site otherwise
	Begin    func(*DB) error                    // begins the new epoch in it
	Told     func(Restored) ([]byte, error)     // JSON that the journal keeps: what is told when that is done
	Open     Options
	Progress func(done, total int64) // bytes; may be nil
	DryRun   bool                    // all but Begin and the swap; nothing is left
}

// Restored is what came of it.
type Restored struct {
	Snapshot Snapshot
	Kept     string // folder in the home with what was replaced
}

// Restore puts the ledger, trust and secrets of a snapshot into the place of those of a home,
// and adds what is sealed, and the configuration where the home has none. Nobody may hold the
// site: else [ErrLocked]. The signature of the snapshot is verified before anything else of it is
// read, and every file is hashed.
func Restore(ctx context.Context, opt RestoreOptions) (r Restored, err error) {
	unlock, err := lockHome(opt.Home)
	if err != nil {
		return r, err
	}
	defer unlock()
	if err := nothingCutOff(opt.Home); err != nil {
		return r, err
	}
	ready := filepath.Join(opt.Home, restoringName)
	if err := removeTree(ready); err != nil { // of one that was cut off before its journal
		return r, err
	}
	snap, sums, err := readSigned(opt)
	if err != nil {
		return r, err
	}
	r.Snapshot, r.Kept = snap, unused(opt.Home, filepath.Join(replacedName, opt.Kept))
	defer func() {
		if err != nil && !errors.Is(err, ErrRestoring) || opt.DryRun {
			err = errors.Join(err, removeTree(ready))
		}
	}()
	if !opt.DryRun {
		if err := makeRoom(opt.Home); err != nil {
			return r, err
		}
	}
	hashed, err := takeOver(ctx, opt, sums, ready, snap.Bytes)
	if err != nil {
		return r, err
	}
	if err := opt.begin(ctx, ready, snap, hashed); err != nil || opt.DryRun {
		return r, err
	}
	told, err := opt.Told(r)
	if err != nil {
		return r, err
	}
	return r, newJournal(snap.ID, r.Kept, told).carryOut(opt.Home)
}

// unused is a name in a home that nothing has yet.
func unused(home, name string) string {
	for n, next := 2, name; ; n, next = n+1, fmt.Sprintf("%s-%d", name, n) {
		if !exists(filepath.Join(home, next)) {
			return next
		}
	}
}

// lockHome takes the lock of a home, whatever is the matter with its database, and that of the
// database where there is one.
func lockHome(home string) (unlock func(), err error) {
	var files []*os.File
	unlock = func() {
		for _, f := range files {
			f.Close()
		}
	}
	take := func(f *os.File, err error) error {
		if err == nil {
			files = append(files, f)
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrLocked
		}
		return err
	}
	if err = take(os.Open(home)); err == nil {
		err = take(openLedger(home))
	}
	switch {
	case err == nil, len(files) > 0 && errors.Is(err, fs.ErrNotExist):
		return unlock, nil
	case !errors.Is(err, ErrLocked) && !errors.Is(err, ErrNoFile):
		err = fmt.Errorf("store: %w", err)
	}
	unlock()
	return nil, err
}

// openLedger opens the database of a home to read, also through a link. It waits for nobody: where
// there is a pipe, say, the error is [ErrNoFile].
func openLedger(home string) (*os.File, error) {
	path, err := place(home)
	if err != nil {
		_, serr := os.Stat(filepath.Join(home, fileName))
		if errors.Is(serr, syscall.ELOOP) || errors.Is(serr, syscall.ENOTDIR) { // links that lead to themselves, or through a file
			err = fmt.Errorf("%w: %v", ErrNoFile, serr)
		}
		return nil, err
	}
	f, err := fsx.OpenRegular(path)
	if errors.Is(err, fsx.ErrNotRegular) {
		err = fmt.Errorf("%w: %s", ErrNoFile, path)
	}
	return f, err
}

// removeTree removes a folder of ours, if it is there.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	return nil
}

// SignedSums reads the list of what a snapshot in a folder has, if verify takes its signature.
func SignedSums(dir string, verify func(sums, signature []byte) error) ([]byte, error) {
	raw, err := fsx.ReadFile(filepath.Join(dir, snapshotSums), maxSumsFile)
	if err != nil {
		return nil, fmt.Errorf("store: restore: %w", err)
	}
	sig, err := fsx.ReadFile(filepath.Join(dir, snapshotSig), maxSnapshot)
	if err != nil {
		return nil, fmt.Errorf("store: restore: %w", err)
	}
	if err := verify(raw, sig); err != nil {
		return nil, fmt.Errorf("store: restore: %s: %w", snapshotSums, err)
	}
	return raw, nil
}

// readSigned reads the list of a snapshot, once its signature is verified, and snapshot.json.
func readSigned(opt RestoreOptions) (s Snapshot, sums []fileSum, err error) {
	raw, err := SignedSums(opt.From, opt.Verify)
	if err != nil {
		return s, nil, err
	}
	if sums, err = parseSums(raw); err != nil {
		return s, nil, damaged(err, "%s of the snapshot", snapshotSums)
	}
	if s, err = ReadSnapshot(opt.From); err != nil {
		return s, nil, err
	}
	meta, err := fsx.ReadFile(filepath.Join(opt.From, snapshotFile), maxSnapshot)
	if err != nil {
		return s, nil, fmt.Errorf("store: restore: %w", err)
	}
	for _, x := range sums {
		if x.path == snapshotFile && x.sha256 == hexSum(meta) {
			if s.LedgerSchema > schemaVersion {
				return s, nil, fmt.Errorf("%w: a snapshot of schema %d, this one knows %d", ErrNewerSchema, s.LedgerSchema, schemaVersion)
			}
			return s, sums, nil
		}
	}
	return s, nil, damaged(ErrDigest, "%s of the snapshot", snapshotFile)
}

// makeRoom makes the folders of a home that a fresh place does not have.
func makeRoom(home string) error {
	for name, perm := range map[string]fs.FileMode{
		"sealed": 0o755, "logs": 0o700, "runs": 0o700, "quarantine": 0o700, "trash": 0o700, "cache": 0o700,
		"snapshots": 0o700, "archives": 0o755, replacedName: 0o700,
	} {
		if err := fsx.Mkdir(filepath.Join(home, name), perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("store: restore: %w", err)
		}
	}
	if err := fsx.Mkdir(filepath.Join(home, "sealed", "sha256"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("store: restore: %w", err)
	}
	return nil
}

// takeOver copies the files of a snapshot: what is sealed into its place, and the rest into
// ready. It returns the digests of what is sealed, all hashed.
func takeOver(ctx context.Context, opt RestoreOptions, sums []fileSum, ready string, total int64) (map[string]bool, error) {
	blobs := newBlobs(opt.Home, nil)
	c := &copier{ctx: ctx, from: opt.From, to: ready, digests: map[string]bool{}, dirs: map[string]bool{opt.Home: true}, total: total, progress: opt.Progress, dry: opt.DryRun}
	if err := errors.Join(c.mkdir(filepath.Join(ready, "trust")), c.mkdir(filepath.Join(ready, "secrets"))); err != nil {
		return nil, err
	}
	for len(sums) > 0 {
		batch := sums[:min(sealAtOnce, len(sums))]
		sums = sums[len(batch):]
		if err := c.batch(blobs, batch); err != nil {
			return nil, err
		}
	}
	return c.digests, c.sync()
}

func (c *copier) batch(blobs *Blobs, batch []fileSum) error {
	var q *Quarantine
	if !c.dry {
		var err error
		if q, err = blobs.Quarantine(); err != nil {
			return err
		}
		defer q.Discard()
	}
	for _, x := range batch {
		var err error
		switch blob, sealed := strings.CutPrefix(x.path, "sealed/sha256/"); {
		case sealed && isBlobFile(blob):
			err = c.seal(q, x)
		case isLogFile(strings.TrimPrefix(x.path, "logs/")):
			err = c.log(filepath.Dir(c.to), x)
		case isArchiveFile(x.path):
			err = c.archive(filepath.Dir(c.to), x)
		case x.path == fileName, strings.HasPrefix(x.path, "trust/"), strings.HasPrefix(x.path, "secrets/"):
			err = c.listed(x)
		case x.path == configName:
			err = c.config(x)
		} // the rest says what the snapshot is
		if err != nil {
			return err
		}
	}
	if c.dry {
		return nil
	}
	return q.Seal()
}

// seal adds a sealed file to the home.
func (c *copier) seal(q *Quarantine, x fileSum) error {
	digest := filepath.Base(x.path)
	f, err := fsx.OpenRegular(filepath.Join(c.from, filepath.FromSlash(x.path)))
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	defer f.Close()
	if digest != x.sha256 {
		return damaged(ErrDigest, "%s of the snapshot", x.path)
	}
	if c.dry {
		_, err = checked(io.NopCloser(io.TeeReader(f, counting{c})), digest)
	} else {
		err = q.Add(digest, io.TeeReader(f, counting{c}))
	}
	if err != nil {
		return damaged(err, "%s of the snapshot", x.path)
	}
	c.digests[digest] = true
	return nil
}

// log adds a segment to the home, unless it is there.
func (c *copier) log(home string, x fileSum) error {
	digest := strings.TrimSuffix(filepath.Base(x.path), ".jsonl")
	if digest != x.sha256 {
		return damaged(ErrDigest, "%s of the snapshot", x.path)
	}
	f, err := fsx.OpenRegular(filepath.Join(c.from, filepath.FromSlash(x.path)))
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	defer f.Close()
	to := filepath.Join(home, filepath.FromSlash(x.path))
	h := sha256.New()
	if c.dry {
		_, err = io.Copy(io.MultiWriter(h, counting{c}), f)
	} else if err = fsx.Mkdir(filepath.Dir(to), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
		var out *fsx.File
		if out, err = fsx.Create(to, 0o600); err != nil {
			return fmt.Errorf("store: restore: %w", err)
		}
		defer out.Close()
		if _, err = io.Copy(io.MultiWriter(h, counting{c}, out), f); err == nil && hex.EncodeToString(h.Sum(nil)) == digest {
			err = out.Commit()
		}
	}
	if err != nil {
		return fmt.Errorf("store: restore: %s: %w", x.path, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != digest {
		return damaged(ErrDigest, "%s of the snapshot", x.path)
	}
	c.digests[hashedName(x.path, digest)] = true
	return nil
}

// listed copies a file into the folder that is made ready, if it is what the list says.
func (c *copier) listed(x fileSum) error {
	f, err := fsx.OpenRegular(filepath.Join(c.from, filepath.FromSlash(x.path)))
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	defer f.Close()
	digest, err := c.put(x.path, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
	if err != nil {
		return err
	}
	if digest != x.sha256 {
		return damaged(ErrDigest, "%s of the snapshot", x.path)
	}
	if err := os.Chmod(filepath.Join(c.to, filepath.FromSlash(x.path)), 0o600); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	return nil
}

// config makes the configuration ready, for a home that has none.
func (c *copier) config(x fileSum) error {
	raw, err := fsx.ReadFile(filepath.Join(c.from, x.path), maxSnapshot)
	if err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if hexSum(raw) != x.sha256 {
		return damaged(ErrDigest, "%s of the snapshot", x.path)
	}
	return fsx.WriteFile(filepath.Join(c.to, x.path), raw, 0o644)
}

// begin checks the copy and lets the new epoch begin in it.
func (opt RestoreOptions) begin(ctx context.Context, ready string, snap Snapshot, hashed map[string]bool) (err error) {
	open := opt.Open
	if open.sealed = opt.Home; opt.DryRun {
		open.sealed = opt.From
	}
	db, err := Open(ready, open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	init, err := db.Initialized()
	if err == nil {
		err = opt.Belong(init)
	}
	if err != nil {
		return err
	}
	check := opt.Check
	check.Blobs, check.Hashed, check.Scratch, check.Logs = true, hashed, ready, db.shortLog
	rep, err := db.Check(ctx, check)
	if err != nil {
		return err
	}
	if rep.Size != snap.Size || db.SiteID() != snap.SiteID {
		return damaged(fmt.Errorf("it has %d entries of site %s", rep.Size, db.SiteID()), "ledger.db of the snapshot")
	}
	if err := opt.Adopted(db, peek(opt.Home)); err != nil || opt.DryRun {
		return err
	}
	return opt.Begin(db)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
