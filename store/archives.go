package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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
	err = db.view(func(t *bolt.Tx) error {
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
	Unread  error // why a file of archives/ that may be it cannot be opened; nil if there is none
}

func (e *AwayError) Error() string {
	if e.Unread != nil {
		return fmt.Sprintf("store: %s is in %s, which cannot be read: %v", e.Digest, e.Archive.File, e.Unread)
	}
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
	stamp  time.Time  // when a file had come into the folder, or gone, the last time
	files  []*shelved // the best first
	away   []absent
}

// shelved is a file of the folder as it was when it was looked at. All but bad stays as it is.
type shelved struct {
	path, stat string
	file       *archive.File // nil where it is no archive of runs, or could not be read
	err        error         // why it could not be read
	known      bool          // its list is on record

	bad error // a *[archive.DamagedError], found by reading it; shelf.mu guards it
}

// fault is what is known to be wrong with what the file holds; shelf.mu is held.
func (x *shelved) fault() error {
	if x.bad == nil && x.file != nil {
		return x.file.Fault
	}
	return x.bad
}

// closed is why the file cannot be opened, where that is no damage of it.
func (x *shelved) closed() error {
	if errors.Is(x.err, syscall.EIO) {
		return nil
	}
	return x.err
}

// rank orders files by how much is to be expected of them. It does not depend on the order
// in which they were found.
func rank(a, b *shelved) int {
	return cmp.Or(worse(a.bad != nil, b.bad != nil), worse(!a.known, !b.known),
		worse(a.fault() != nil, b.fault() != nil), strings.Compare(a.path, b.path))
}

func worse(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// absent is an archive on record of which no file has the list.
type absent struct {
	rec    ArchiveRecord
	has    map[[32]byte]struct{}
	fault  error // what is wrong with the file of its name; nil where there is none
	unread error // see [AwayError]
}

// held is what the shelf knows of a content.
type held struct {
	files []*shelved // that have it, the best first
	other error      // what is to be said where none of them has it whole; never nil
}

// OpenArchived opens a content that lies in an archive of runs; the caller closes it, and
// what it reads to its end is what the digest says. Of several files the first that has it
// whole is taken. One that is in no archive is [ErrNotFound]; one whose archive is not here
// is an *[AwayError], and of one that is not what was written, an *[archive.DamagedError].
func (b *Blobs) OpenArchived(digest string) (io.ReadCloser, error) {
	for again := false; ; again = true {
		h, err := b.shelf.find(digest, again)
		if err != nil {
			return nil, err
		}
		r, err := b.shelf.open(digest, h)
		if err == nil || again {
			return r, err
		} // else look: a file may have changed in its place, or gone, since
	}
}

// open opens a content. Where nothing else can have it, whoever reads it finds out whether
// it is whole; otherwise it is read before.
func (s *shelf) open(digest string, h held) (io.ReadCloser, error) {
	if len(h.files) == 1 && h.files[0].known && h.files[0].file.Fault == nil {
		return h.files[0].file.Open(digest)
	}
	x, err := s.whole(digest, h)
	if err != nil {
		return nil, err
	}
	return x.file.Open(digest)
}

// whole is the first file that has all of a content. If there is none, damage of a file that
// is on record is told before that its archive is elsewhere, and that before damage of others.
func (s *shelf) whole(digest string, h held) (*shelved, error) {
	var mine, first error
	for _, x := range h.files {
		err := s.read(x, digest)
		if err == nil {
			return x, nil
		}
		if x.known && mine == nil {
			mine = err
		}
		if first == nil {
			first = err
		}
	}
	if mine == nil && (first == nil || !errors.Is(h.other, ErrNotFound)) {
		return nil, h.other
	}
	return nil, cmp.Or(mine, first)
}

// read reads a content to its end.
func (s *shelf) read(x *shelved, digest string) error {
	r, err := x.file.Open(digest)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	err = errors.Join(err, r.Close())
	s.noteBad(x, err)
	return err
}

// noteBad keeps in mind what reading a file has found, so that others are preferred.
func (s *shelf) noteBad(x *shelved, err error) {
	var bad *archive.DamagedError
	if !errors.As(err, &bad) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.bad = bad
	s.files = slices.SortedFunc(slices.Values(s.files), rank) // others may hold the old one
}

// find says which archives hold a content. With anew it looks whatever it knows.
func (s *shelf) find(digest string, anew bool) (held, error) {
	missing := fmt.Errorf("sealed blob %s: %w", digest, ErrNotFound)
	if s.db == nil || !isDigest(digest) {
		return held{}, missing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := held{files: s.holds(digest)}
	if fi, err := os.Stat(s.dir); len(h.files) == 0 || anew || err != nil || !fi.ModTime().Equal(s.stamp) {
		if err := s.look(); err != nil {
			return h, err
		}
		h.files = s.holds(digest)
	}
	h.other = cmp.Or(s.lost(digest, true), s.elsewhere(digest), s.lost(digest, false), missing)
	if len(h.files) == 0 {
		return h, h.other
	}
	return h, nil
}

// promised says whether a file of an archive on record, with which nothing is known to be
// wrong, holds a content.
func (s *shelf) promised(digest string) bool {
	h, err := s.find(digest, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && slices.ContainsFunc(h.files, func(x *shelved) bool { return x.known && x.fault() == nil })
}

// refresh looks, so that [shelf.nowhere] knows.
func (s *shelf) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.look()
}

// nowhere says whether no archive is known to hold a content, here or elsewhere.
func (s *shelf) nowhere(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.holds(digest)) == 0 && cmp.Or(s.lost(digest, true), s.elsewhere(digest), s.lost(digest, false)) == nil
}

// holds are the files that hold a content; s.mu is held.
func (s *shelf) holds(digest string) (out []*shelved) {
	for _, x := range s.files {
		if x.file != nil && x.file.Has(digest) {
			out = append(out, x)
		}
	}
	return out
}

// lost is the fault of a file that lists a content and does not have it; s.mu is held.
func (s *shelf) lost(digest string, known bool) error {
	for _, x := range s.files {
		if x.file != nil && x.known == known && x.file.Lost(digest) {
			return x.file.Fault
		}
	}
	return nil
}

// elsewhere says that a content is in an archive on record that no file is; s.mu is held.
func (s *shelf) elsewhere(digest string) error {
	key := archive.Key(digest)
	for _, a := range s.away {
		if _, ok := a.has[key]; !ok {
			continue
		}
		if a.fault != nil {
			return a.fault
		}
		return &AwayError{Digest: digest, Archive: a.rec, Unread: a.unread}
	}
	return nil
}

// look looks through the folder, unless nothing has changed there; s.mu is held.
func (s *shelf) look() error {
	recs, err := s.db.Archives()
	if err != nil {
		return err
	}
	s.stamp = time.Time{}
	if fi, err := os.Stat(s.dir); err == nil {
		s.stamp = fi.ModTime() // before it is read
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: archives: %w", err)
	}
	var here []shelved
	have := fmt.Sprintln(len(recs), s.db.Epoch())
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		x := shelved{path: filepath.Join(s.dir, e.Name()), stat: fmt.Sprintln(fi.Size(), fi.ModTime().UnixNano(), inode(fi), fi.Mode())}
		here = append(here, x)
		have += x.path + " " + x.stat
	}
	if have == s.looked {
		return nil
	}
	lists := map[string]bool{}
	for _, rec := range recs {
		lists[rec.List] = true
	}
	var files []*shelved
	for _, x := range here {
		y := s.index(x)
		y.known = y.file != nil && lists[y.file.List]
		if files = append(files, &y); y.err != nil {
			have = "" // it may be read the next time
		}
	}
	slices.SortFunc(files, rank)
	s.files = files
	if s.away, err = s.absent(recs); err == nil {
		s.looked = have
	}
	return err
}

// index looks through a file that may be an archive of runs.
func (s *shelf) index(x shelved) shelved {
	for _, old := range s.files {
		if old.path == x.path && old.stat == x.stat && old.err == nil {
			return *old
		}
	}
	f, err := archive.Index(x.path, s.db.SiteID())
	if !errors.Is(err, archive.ErrForeign) {
		x.file, x.err = f, err
	}
	return x
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
		a.fault, a.unread = s.namesake(rec)
		out = append(out, a)
	}
	return out, nil
}

// namesake says what is wrong with the file that has the name of an archive, or, where there
// is none, why one that may be it cannot be opened.
func (s *shelf) namesake(rec ArchiveRecord) (fault, unread error) {
	for _, x := range s.files {
		named := filepath.Base(x.path) == rec.File
		if why := x.closed(); why != nil && (named || unread == nil) {
			unread = why
		}
		if !named || x.known || x.closed() != nil {
			continue
		}
		err := x.err
		if err == nil {
			err = errors.New("it does not begin with the list that the ledger names")
		}
		fault = &archive.DamagedError{File: x.path, Err: err}
	}
	return fault, unread
}

func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// archivesName is the folder of a home that archives of runs lie in.
const archivesName = "archives"
