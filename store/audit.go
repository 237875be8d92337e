package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stellarun/stella/archive"
)

// FindingKind is what is wrong with sealed storage. The strings reach JSON:
// never change or reuse one.
type FindingKind string

// Kinds of findings. All but garbage, folder and away are damage.
const (
	FindMissing FindingKind = "missing" // the ledger names it, and it is not there
	FindCorrupt FindingKind = "corrupt" // its bytes are not those of its name
	FindForeign FindingKind = "foreign" // nothing that stella puts there: a link, a special file, another name
	FindMode    FindingKind = "mode"    // a sealed file that can be written to
	FindFolder  FindingKind = "folder"  // a folder that can be written to; a crash may leave one
	FindGarbage FindingKind = "garbage" // a blob that nothing names; a crash may leave one
	FindAway    FindingKind = "away"    // an archive of runs that is not here, and holds what the ledger names
)

// Damage says whether a finding is damage.
func (k FindingKind) Damage() bool { return k != FindGarbage && k != FindFolder && k != FindAway }

// A Finding is one thing that an audit found. Ref is the zero value where the
// ledger does not name the file.
type Finding struct {
	Kind   FindingKind
	Path   string // below the home
	Digest string // "" for what has no name of a blob
	Size   int64
	Ref    Ref
	Detail string
}

// AuditReport is what an audit has looked at.
type AuditReport struct {
	Blobs int64 // files that were hashed
	Bytes int64
	Named int64 // blobs that must be here
}

// AuditOptions are options of [DB.Audit]. Report is required, and is called for
// each finding as soon as it is known.
type AuditOptions struct {
	LogPath  func(digest string) string // of a log segment, below the home; nil: none is looked at
	Progress func(done, total int64)    // in bytes
	Report   func(Finding)
}

// Audit hashes every file of sealed storage and compares it with what the
// ledger names. It changes nothing and goes on after what it finds; an error
// means that it could not look.
func (db *DB) Audit(ctx context.Context, opt AuditOptions) (AuditReport, error) {
	s := db.NewSurvey()
	if err := s.Advance(ctx, nil); err != nil {
		return AuditReport{}, err
	}
	named, err := s.Names(nil, func(BundleRecord, error) error { return nil }) // the manifest itself is a finding
	if err != nil {
		return AuditReport{}, err
	}
	a := &audit{db: db, ctx: ctx, opt: opt, named: named, segments: s.logs, seen: make(map[string]bool, len(named))}
	a.rep.Named = int64(len(named))
	if err := a.measure(); err != nil {
		return a.rep, err
	}
	if err := a.walk(); err != nil {
		return a.rep, err
	}
	if err := a.archives(); err != nil {
		return a.rep, err
	}
	if err := a.missing(); err != nil {
		return a.rep, err
	}
	if err := a.logs(); err != nil {
		return a.rep, err
	}
	return a.rep, a.notHere()
}

// audit is one audit under way.
type audit struct {
	db       *DB
	ctx      context.Context
	opt      AuditOptions
	named    map[string]Ref
	segments map[string]Ref // of logs
	seen     map[string]bool
	archived archived
	total    int64
	rep      AuditReport
}

func (a *audit) found(f Finding) {
	if rel, err := filepath.Rel(a.db.home, f.Path); err == nil {
		f.Path = rel
	}
	if f.Digest != "" && f.Ref == (Ref{}) {
		f.Ref = cmp.Or(a.named[f.Digest], a.segments[f.Digest])
	}
	a.opt.Report(f)
}

// measure adds up the sizes, for the progress.
func (a *audit) measure() error {
	return a.db.blobs.list(func(string, fs.FileInfo) error { return a.ctx.Err() }, func(digest string, fi fs.FileInfo) error {
		a.total += fi.Size()
		return a.ctx.Err()
	})
}

// walk looks at every file that is there.
func (a *audit) walk() error {
	b := a.db.blobs
	top, err := os.ReadDir(filepath.Dir(b.dir))
	if err != nil {
		return fmt.Errorf("store: audit: %w", err)
	}
	for _, e := range top {
		if e.Name() != filepath.Base(b.dir) {
			a.found(Finding{Kind: FindForeign, Path: filepath.Join(filepath.Dir(b.dir), e.Name()), Detail: describe(e.Type())})
		}
	}
	if err := b.list(a.stranger, a.blob); err != nil {
		return err
	}
	return b.eachSmall(a.few)
}

// few looks at a record of small blobs.
func (a *audit) few(name string, raw []byte) error {
	path := filepath.Join(a.db.home, "ledger.db", string(bSmall), name)
	if !isDigest(name) {
		a.found(Finding{Kind: FindForeign, Path: path, Size: int64(len(raw)), Detail: "a record with a name that no blob has"})
		return a.ctx.Err()
	}
	_, err := checked(reader{bytes.NewReader(raw)}, name)
	a.rep.Blobs++
	a.rep.Bytes += int64(len(raw))
	_, wanted := a.named[name]
	_, isLog := a.segments[name]
	a.judge(Finding{Path: path, Digest: name, Size: int64(len(raw))}, wanted || isLog, 0o444, err)
	return a.ctx.Err()
}

// stranger is called for what no blob is: path is below sealed/sha256.
func (a *audit) stranger(path string, fi fs.FileInfo) error {
	if fi.IsDir() && isFanOut(filepath.Base(path)) {
		a.found(Finding{Kind: FindFolder, Path: path, Detail: fmt.Sprintf("its mode is %04o, not 0555", fi.Mode().Perm())})
		return a.ctx.Err()
	}
	a.found(Finding{Kind: FindForeign, Path: path, Size: fi.Size(), Detail: describe(fi.Mode())})
	return a.ctx.Err()
}

// blob looks at a regular file with the name of a blob in its place.
func (a *audit) blob(digest string, fi fs.FileInfo) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	path := a.db.blobs.Path(digest)
	n, err := a.db.blobs.checkFile(digest)
	a.rep.Blobs++
	a.rep.Bytes += n
	if a.opt.Progress != nil {
		a.opt.Progress(a.rep.Bytes, max(a.total, a.rep.Bytes))
	}
	if errors.Is(err, ErrNotFound) {
		return nil // moved away meanwhile; missing asks again
	}
	_, wanted := a.named[digest]
	a.judge(Finding{Path: path, Digest: digest, Size: fi.Size()}, wanted, fi.Mode().Perm(), err)
	return nil
}

// judge reports what is wrong with a blob that is there, if anything is; err is
// what hashing it gave.
func (a *audit) judge(f Finding, wanted bool, perm fs.FileMode, err error) {
	a.seen[f.Digest] = true
	switch {
	case err != nil && wanted:
		f.Kind, f.Detail = FindCorrupt, detail(err)
	case perm != 0o444 && wanted:
		f.Kind, f.Detail = FindMode, fmt.Sprintf("its mode is %04o, not 0444", perm)
	case wanted || a.db.blobs.wanted(f.Digest):
		return
	default:
		f.Kind, f.Detail = FindGarbage, "nothing names it"
		if err != nil {
			f.Detail += ", and its bytes are not those of its name"
		}
	}
	a.found(f)
}

func detail(err error) string {
	if errors.Is(err, ErrDigest) {
		return "its bytes are not those of its name"
	}
	return err.Error()
}

// missing reports what the ledger names and the walk did not meet.
func (a *audit) missing() error {
	for _, digest := range slices.Sorted(maps.Keys(a.named)) {
		if a.seen[digest] {
			continue
		}
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if _, err := a.db.blobs.Check(digest); err == nil {
			continue // it came meanwhile
		} else if !errors.Is(err, ErrNotFound) {
			a.found(Finding{Kind: FindCorrupt, Path: a.db.blobs.Path(digest), Digest: digest, Detail: detail(err)})
			continue
		}
		if done, err := a.elsewhere(a.db.blobs.Path(digest), digest, a.named[digest]); done || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if gone, err := a.givenUp(a.named[digest]); err != nil {
			return err
		} else if !gone {
			a.found(Finding{Kind: FindMissing, Path: a.db.blobs.Path(digest), Digest: digest, Detail: "it is not there"})
		}
	}
	return nil
}

// givenUp says whether the bundle that brings a blob lost its contents to a
// collection while we looked.
func (a *audit) givenUp(ref Ref) (bool, error) {
	if ref.From == "" {
		return false, nil
	}
	rec, err := a.db.Bundle(ref.From)
	return rec.Removed > 0, err
}

// logs hashes the log segments that the ledger names and that are files.
func (a *audit) logs() error {
	if a.opt.LogPath == nil {
		return nil
	}
	for _, digest := range slices.Sorted(maps.Keys(a.segments)) {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if raw, err := a.db.blobs.Small(digest); raw != nil || err != nil {
			if err != nil {
				return err
			}
			a.rep.Named++ // the walk has met it
			continue
		}
		path := a.opt.LogPath(digest)
		a.rep.Named++
		n, err := hashIs(path, digest)
		a.rep.Blobs++
		a.rep.Bytes += n
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if done, err := a.elsewhere(path, digest, a.segments[digest]); done || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			a.found(Finding{Kind: FindMissing, Path: path, Digest: digest, Ref: a.segments[digest], Detail: "it is not there"})
		case err != nil:
			a.found(Finding{Kind: FindCorrupt, Path: path, Digest: digest, Ref: a.segments[digest], Detail: detail(err)})
		}
	}
	return nil
}

// archives reads the archives of runs that are here.
func (a *audit) archives() (err error) {
	a.archived = archived{db: a.db, away: map[int64]AwayArchive{}}
	a.archived.whole, err = a.db.checkArchives(a.ctx, nil, a.opt.Progress, func(st ArchiveState, err error, spare string) error {
		var bad *archive.DamagedError
		if !errors.As(err, &bad) {
			return err
		}
		what := bad.What()
		if spare != "" {
			what = besides(what, spare)
		}
		a.found(Finding{Kind: FindCorrupt, Path: bad.File, Digest: st.SHA256, Size: st.Bytes, Detail: what,
			Ref: Ref{Seq: st.Seq, What: fmt.Sprintf("archive of entry %d", st.Seq)}})
		return nil
	})
	return err
}

// elsewhere says whether nothing is to be said any more of what is not in its place: it is
// in an archive, its archive is not here, or it was found to be damaged there. Only artifacts
// and logs may be there.
func (a *audit) elsewhere(path, digest string, ref Ref) (done bool, err error) {
	if !ref.moves {
		return false, nil
	}
	err = a.archived.check(digest, ErrNotFound)
	var bad *archive.DamagedError
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case errors.As(err, &bad):
		a.found(Finding{Kind: FindCorrupt, Path: bad.File, Digest: digest, Ref: ref, Detail: bad.What()})
		return true, nil
	}
	return err == nil, err
}

// notHere reports the archives that are not here and that something was looked for in.
func (a *audit) notHere() error {
	away, err := a.archived.list()
	for _, x := range away {
		where := "it is not here"
		if x.Unread != nil {
			where = fmt.Sprintf("it cannot be read: %v", x.Unread)
		}
		a.found(Finding{Kind: FindAway, Path: filepath.Join(a.db.home, archivesName, x.File), Digest: x.SHA256, Size: x.Bytes,
			Detail: fmt.Sprintf("%d files lie in this archive, and %s", x.Files, where), Ref: Ref{Seq: x.Seq, What: fmt.Sprintf("archive of entry %d", x.Seq)}})
	}
	return err
}

// list calls blob for each regular file that lies where a blob of its name
// belongs, and other for everything else, folders with a wrong mode included.
func (b *Blobs) list(other func(path string, fi fs.FileInfo) error, blob func(digest string, fi fs.FileInfo) error) error {
	folders, err := os.ReadDir(b.dir)
	if err != nil {
		return fmt.Errorf("store: sealed: %w", err)
	}
	for _, dir := range folders {
		path := filepath.Join(b.dir, dir.Name())
		fi, err := dir.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("store: sealed: %w", err)
		}
		if !fi.IsDir() || !isFanOut(dir.Name()) {
			if err := other(path, fi); err != nil {
				return err
			}
			continue
		}
		if fi.Mode().Perm() != 0o555 && !b.busy(path) {
			if err := other(path, fi); err != nil {
				return err
			}
		}
		if err := b.listFolder(path, other, blob); err != nil {
			return err
		}
	}
	return nil
}

func (b *Blobs) listFolder(dir string, other func(string, fs.FileInfo) error, blob func(string, fs.FileInfo) error) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("store: sealed: %w", err)
	}
	for _, f := range files {
		fi, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // moved away meanwhile
		}
		if err != nil {
			return fmt.Errorf("store: sealed: %w", err)
		}
		if name := f.Name(); fi.Mode().IsRegular() && isDigest(name) && name[:2] == filepath.Base(dir) {
			err = blob(name, fi)
		} else {
			err = other(filepath.Join(dir, name), fi)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// busy says whether a fan-out folder is open because a name is being added to
// it: asked again when nobody is.
func (b *Blobs) busy(dir string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	fi, err := os.Lstat(dir)
	return err == nil && fi.Mode().Perm() == 0o555
}

func isFanOut(name string) bool { return len(name) == 2 && isHex(name) }

func isDigest(name string) bool { return len(name) == 64 && isHex(name) }

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// describe says what a file is that no blob is.
func describe(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a folder that stella does not make"
	case !m.IsRegular():
		return "a special file"
	}
	return "a file with a name that no blob has"
}
