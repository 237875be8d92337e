package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/ledger"
)

// ArchiveRecord is the projection of an archive of runs.
type ArchiveRecord struct {
	ledger.RunArchive
	Seq  int64  `json:"seq"`
	Time string `json:"time"`
}

func (tx *Tx) projectArchive(env ledger.Envelope, d *ledger.RunArchive) error {
	recs, err := archivesIn(tx.bolt)
	if err != nil {
		return err
	}
	return tx.putJSON(bMeta, kArchives, append(recs, ArchiveRecord{*d, env.Seq, env.Time}))
}

func archivesIn(t *bolt.Tx) (recs []ArchiveRecord, err error) {
	if raw := t.Bucket(bMeta).Get(kArchives); raw != nil {
		if err := json.Unmarshal(raw, &recs); err != nil {
			return nil, damaged(err, "meta %s", kArchives)
		}
	}
	return recs, nil
}

// Archives are the archives of runs on record, oldest first.
func (db *DB) Archives() (recs []ArchiveRecord, err error) {
	err = db.bolt.View(func(t *bolt.Tx) error {
		recs, err = archivesIn(t)
		return err
	})
	return recs, err
}

// An AwayError says that a content lies in an archive of runs that is not in archives/ of
// the home: nothing is damaged, and it can be read again as soon as the archive is back.
type AwayError struct {
	Digest  string
	Archive ArchiveRecord
}

func (e *AwayError) Error() string {
	return fmt.Sprintf("store: %s is in %s, which is not in archives/ of the home", e.Digest, e.Archive.File)
}

// maxArchiveList bounds the sealed list of an archive, in bytes.
const maxArchiveList = 256 << 20

// shelf finds contents in the archives of runs that lie in archives/ of a home, whatever
// they are called, and says which archives are not there. It looks when something is asked
// for that is not in its place, and again when the folder has changed since. It takes about
// 100 bytes of memory for each content once it has looked.
type shelf struct {
	db  *DB // nil: of a restore, which only puts
	dir string

	mu     sync.Mutex // guards what follows
	looked string     // what the folder and the ledger had then
	files  map[string]shelved
	away   []absent
}

// shelved is a file of the folder as it was when it was looked at; file is nil where it is
// no archive of runs, or could not be read.
type shelved struct {
	stat string
	file *archive.File
	err  error // why it could not be read
}

// absent is an archive on record of which no file has the list.
type absent struct {
	rec  ArchiveRecord
	has  map[[32]byte]struct{}
	here *shelved // a file of its name
}

// fault is what is wrong with the file of its name; nil where there is none.
func (a *absent) fault(dir string) error {
	if a.here == nil {
		return nil
	}
	err := a.here.err
	if err == nil {
		err = errors.New("it does not begin with the list that the ledger names")
	}
	return &archive.DamagedError{File: filepath.Join(dir, a.rec.File), Err: err}
}

// OpenArchived opens a content that lies in an archive of runs; the caller closes it, and
// what it reads to its end is what the digest says. One that is in no archive is
// [ErrNotFound]; one whose archive is not here is an *[AwayError], and of one that is not
// what was written, an *[archive.DamagedError].
func (b *Blobs) OpenArchived(digest string) (io.ReadCloser, error) {
	for again := false; ; again = true {
		f, err := b.shelf.find(digest, again)
		if err != nil {
			return nil, err
		}
		r, err := f.Open(digest)
		if errors.Is(err, fs.ErrNotExist) && !again {
			continue // it was taken away since
		}
		return r, err
	}
}

// find is the archive that holds a content. With anew it looks whatever it knows.
func (s *shelf) find(digest string, anew bool) (*archive.File, error) {
	missing := fmt.Errorf("sealed blob %s: %w", digest, ErrNotFound)
	if s.db == nil || !isDigest(digest) {
		return nil, missing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.holds(digest); f != nil && !anew {
		return f, nil
	}
	if err := s.look(); err != nil {
		return nil, err
	}
	if f := s.holds(digest); f != nil {
		return f, nil
	}
	for _, x := range s.files {
		if x.file != nil && x.file.Lost(digest) {
			return nil, x.file.Fault
		}
	}
	key := archive.Key(digest)
	for _, a := range s.away {
		if _, ok := a.has[key]; !ok {
			continue
		}
		if err := a.fault(s.dir); err != nil {
			return nil, err
		}
		return nil, &AwayError{Digest: digest, Archive: a.rec}
	}
	return nil, missing
}

// holds is an archive that holds a content, one of good form if there is; s.mu is held.
func (s *shelf) holds(digest string) (found *archive.File) {
	for _, x := range s.files {
		if x.file == nil || !x.file.Has(digest) {
			continue
		}
		if found == nil || found.Fault != nil || x.file.Fault == nil && x.file.Path < found.Path {
			found = x.file
		}
	}
	return found
}

// look looks through the folder, unless nothing has changed there; s.mu is held.
func (s *shelf) look() error {
	recs, err := s.db.Archives()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: archives: %w", err)
	}
	stats := map[string]string{}
	have := fmt.Sprintln(len(recs), s.db.Epoch())
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		stats[path] = fmt.Sprintln(fi.Size(), fi.ModTime().UnixNano(), inode(fi))
		have += path + " " + stats[path]
	}
	if have == s.looked {
		return nil
	}
	files := map[string]shelved{}
	for path, stat := range stats {
		if files[path] = s.index(path, stat); files[path].err != nil {
			have = "" // it may be read the next time
		}
	}
	s.files = files
	if s.away, err = s.absent(recs); err == nil {
		s.looked = have
	}
	return err
}

// index looks through a file that may be an archive of runs.
func (s *shelf) index(path, stat string) shelved {
	if old, ok := s.files[path]; ok && old.stat == stat && old.err == nil {
		return old
	}
	f, err := archive.Index(path, s.db.SiteID())
	if errors.Is(err, archive.ErrForeign) {
		return shelved{stat: stat}
	}
	return shelved{stat, f, err}
}

// absent are the archives on record of which no file has the list.
func (s *shelf) absent(recs []ArchiveRecord) (out []absent, err error) {
	here := map[string]bool{}
	for _, x := range s.files {
		if x.file != nil {
			here[x.file.List] = true
		}
	}
	old := map[string]absent{}
	for _, a := range s.away {
		old[a.rec.List] = a
	}
	for _, rec := range recs {
		if here[rec.List] {
			continue
		}
		a, ok := old[rec.List]
		if !ok {
			a = absent{rec: rec, has: map[[32]byte]struct{}{}}
			raw, err := s.db.blobs.readFrom(s.db.blobs.openPlaced, rec.List, maxArchiveList)
			if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDigest) {
				out = append(out, a) // the list is evidence: its absence is told as such
				continue
			}
			if err != nil {
				return nil, err
			}
			list, err := archive.ParseList(raw)
			if err != nil {
				return nil, damaged(err, "list of entry %d", rec.Seq)
			}
			list.Digests(func(d string) { a.has[archive.Key(d)] = struct{}{} })
		}
		a.here = nil
		if x, ok := s.files[filepath.Join(s.dir, rec.File)]; ok {
			a.here = &x
		}
		out = append(out, a)
	}
	return out, nil
}

// ArchiveState says where an archive on record is.
type ArchiveState struct {
	ArchiveRecord
	Path string // of a file with its list, "" if there is none
	// Err is a *[archive.DamagedError] where the file is not of its form, or one of its
	// name is here without its list. What else is wrong only reading it tells.
	Err error
}

// ArchiveStates says of each archive on record whether it is here.
func (db *DB) ArchiveStates() (out []ArchiveState, err error) {
	recs, err := db.Archives()
	if err != nil || len(recs) == 0 {
		return nil, err
	}
	s := db.blobs.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.look(); err != nil {
		return nil, err
	}
	for _, rec := range recs {
		st := ArchiveState{ArchiveRecord: rec}
		for path, x := range s.files {
			if x.file != nil && x.file.List == rec.List && (st.Path == "" || st.Err != nil) {
				st.Path, st.Err = path, x.file.Fault
			}
		}
		for _, a := range s.away {
			if a.rec.Seq == rec.Seq {
				st.Err = a.fault(s.dir)
			}
		}
		out = append(out, st)
	}
	return out, nil
}

// checkArchives reads every archive on record that is here, and calls bad for each that is
// not what the ledger says. It returns the paths of those that are, which need not be read
// again. Those whose digest is in hashed were read a moment ago.
func (db *DB) checkArchives(ctx context.Context, hashed map[string]bool, progress func(done, total int64), bad func(ArchiveState, error) error) (whole map[string]bool, err error) {
	states, err := db.ArchiveStates()
	if err != nil {
		return nil, err
	}
	whole = map[string]bool{}
	for _, st := range states {
		if st.Path == "" && st.Err == nil {
			continue
		}
		if st.Path != "" && st.Err == nil && hashed[archiveKey(st.SHA256)] {
			whole[st.Path] = true
			continue
		}
		err := st.Err
		if st.Path != "" {
			err = db.verifyArchive(ctx, st, progress)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil {
			whole[st.Path] = true
		} else if err = bad(st, err); err != nil {
			return nil, err
		}
	}
	return whole, nil
}

func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// archiveKey is what an archive is called among what was hashed.
func archiveKey(sha256 string) string { return "archive " + sha256 }

func (db *DB) verifyArchive(ctx context.Context, st ArchiveState, progress func(done, total int64)) error {
	v, err := archive.Verify(ctx, st.Path, archive.VerifyOptions{SiteID: db.SiteID(), Progress: progress})
	if err == nil && v.SHA256 != st.SHA256 {
		err = &archive.DamagedError{File: st.Path, Err: fmt.Errorf("its SHA-256 is %s, the ledger says %s", v.SHA256, st.SHA256)}
	}
	return err
}

// archived is what a check does about what is not in its place.
type archived struct {
	db    *DB
	whole map[string]bool // archives that were read
	away  map[int64]int64 // seq of an archive that is not here → contents that were looked for
}

// check says whether a content that is not in its place is in an archive; err is what
// looking in its place gave, and is returned where nothing else explains it.
func (a *archived) check(digest string, err error) error {
	f, ferr := a.db.blobs.shelf.find(digest, false)
	var away *AwayError
	switch {
	case errors.As(ferr, &away):
		a.away[away.Archive.Seq]++
		return nil
	case errors.Is(ferr, ErrNotFound):
		return err
	case ferr != nil:
		return ferr
	case a.whole[f.Path]:
		return nil
	}
	r, err := f.Open(digest)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// beginArchived reads the archives of runs that are here. One that is not what the ledger
// says is damage.
func (db *DB) beginArchived(ctx context.Context, opt CheckOptions) (*archived, error) {
	whole, err := db.checkArchives(ctx, opt.Hashed, nil, func(st ArchiveState, err error) error {
		return damaged(err, "archive of entry %d", st.Seq)
	})
	return &archived{db: db, whole: whole, away: map[int64]int64{}}, err
}

// report says what a check did not find because its archive is not here.
func (a *archived) report(rep *CheckReport) (err error) {
	rep.Away, err = a.list()
	for _, x := range rep.Away {
		rep.Blobs -= int(x.Files) // they were not hashed
	}
	return err
}

// AwayArchive is an archive that is not here, and how many contents that were looked for
// lie in it.
type AwayArchive struct {
	ArchiveRecord
	Files int64
}

// list gives the archives that are not here and that something was looked for in.
func (a *archived) list() (out []AwayArchive, err error) {
	recs, err := a.db.Archives()
	for _, rec := range recs {
		if n := a.away[rec.Seq]; n > 0 {
			out = append(out, AwayArchive{rec, n})
		}
	}
	return out, err
}

// archivesName is the folder of a home that archives of runs lie in.
const archivesName = "archives"
