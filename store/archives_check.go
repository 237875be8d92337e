package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/stellarun/stella/archive"
)

// ArchiveState says where an archive on record is.
type ArchiveState struct {
	ArchiveRecord
	Path string // of the best file with its list, "" if there is none
	// Err is a *[archive.DamagedError] where no file with its list is of its form, or one of
	// its name is here without it, and an *[AwayError] where one that may be it cannot be
	// opened. What else is wrong only reading it tells.
	Err   error
	Files []ArchiveFile // with its list, the best first
}

// ArchiveFile is a file that has the list of an archive.
type ArchiveFile struct {
	Path string
	Err  error    // a *[archive.DamagedError]: it is not of its form, or was read since the site was opened
	at   *shelved // nil: it has the name and not the list
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
		for _, x := range s.files {
			if x.file != nil && x.file.List == rec.List {
				st.Files = append(st.Files, ArchiveFile{x.path, x.fault(), x})
			}
		}
		if len(st.Files) > 0 { // of those with a fault, none comes before one without
			st.Path, st.Err = st.Files[0].Path, st.Files[0].Err
			var bad *archive.DamagedError
			if fault, _ := s.namesake(rec); errors.As(fault, &bad) {
				st.Files = append(st.Files, ArchiveFile{bad.File, bad, nil})
			}
		}
		for _, a := range s.away {
			if a.rec.Seq != rec.Seq {
				continue
			}
			if st.Err = a.fault; a.fault == nil && a.unread != nil {
				st.Err = &AwayError{Archive: rec, Unread: a.unread}
			}
		}
		out = append(out, st)
	}
	return out, nil
}

// checkArchives reads every file of archives on record that is here. It calls bad for each
// that is not what the ledger says: spare is a file of the same archive that is, "" if none
// is. It returns the paths of those that are, which need not be read again. Those that are
// in hashed were read a moment ago.
func (db *DB) checkArchives(ctx context.Context, hashed map[string]bool, progress func(done, total int64), bad func(st ArchiveState, err error, spare string) error) (whole map[string]bool, err error) {
	states, err := db.ArchiveStates()
	if err != nil {
		return nil, err
	}
	whole = map[string]bool{}
	for _, st := range states {
		var away *AwayError
		if st.Path == "" && (st.Err == nil || errors.As(st.Err, &away)) {
			continue
		}
		var faults []error
		if st.Path == "" {
			faults = append(faults, st.Err)
		}
		spare := ""
		for _, f := range st.Files {
			var err error
			if !hashed[archiveKey(f.Path, st.SHA256)] {
				err = db.verifyArchive(ctx, st, f, progress)
			}
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case err != nil:
				faults = append(faults, err)
			default:
				whole[f.Path], spare = true, cmp.Or(spare, f.Path)
			}
		}
		for _, err := range faults {
			if err := bad(st, err, spare); err != nil {
				return nil, err
			}
		}
	}
	return whole, nil
}

// archiveKey is what a file that is an archive is called among what was hashed.
func archiveKey(path, sha256 string) string { return "archive " + sha256 + " " + filepath.Base(path) }

// verifyArchive reads all of a file.
func (db *DB) verifyArchive(ctx context.Context, st ArchiveState, f ArchiveFile, progress func(done, total int64)) error {
	if f.at == nil {
		return f.Err
	}
	v, err := archive.Verify(ctx, f.Path, archive.VerifyOptions{SiteID: db.SiteID(), Progress: progress})
	if err == nil && v.SHA256 != st.SHA256 {
		err = &archive.DamagedError{File: f.Path, Err: fmt.Errorf("its SHA-256 is %s, the ledger says %s", v.SHA256, st.SHA256)}
	}
	db.blobs.shelf.noteBad(f.at, err)
	return err
}

// archived is what a check does about what is not in its place.
type archived struct {
	db      *DB
	whole   map[string]bool // files that were read
	spoiled []string        // what is wrong with files of archives that are here whole as well
	away    map[int64]AwayArchive
}

// check says whether a content that is not in its place is in an archive; err is what
// looking in its place gave, and is returned where nothing else explains it.
func (a *archived) check(digest string, err error) error {
	h, ferr := a.db.blobs.shelf.find(digest, false)
	for _, x := range h.files {
		if a.whole[x.path] {
			return nil
		}
	}
	if ferr == nil {
		_, ferr = a.db.blobs.shelf.whole(digest, h)
	}
	var away *AwayError
	switch {
	case errors.As(ferr, &away):
		seq := away.Archive.Seq
		a.away[seq] = AwayArchive{away.Archive, a.away[seq].Files + 1, away.Unread}
		return nil
	case errors.Is(ferr, ErrNotFound):
		return err
	}
	return ferr
}

// beginArchived reads the archives of runs that are here. One that is not what the ledger
// says is damage, unless there is another file that is.
func (db *DB) beginArchived(ctx context.Context, opt CheckOptions) (a *archived, err error) {
	a = &archived{db: db, away: map[int64]AwayArchive{}}
	a.whole, err = db.checkArchives(ctx, opt.Hashed, nil, func(st ArchiveState, err error, spare string) error {
		if spare == "" {
			return damaged(err, "archive of entry %d", st.Seq)
		}
		var bad *archive.DamagedError
		if !errors.As(err, &bad) {
			return err
		}
		a.spoiled = append(a.spoiled, besides(filepath.Join(archivesName, filepath.Base(bad.File))+" is damaged: "+bad.What(), spare))
		return nil
	})
	return a, err
}

// besides says what is wrong with a file, and that another is whole.
func besides(what, spare string) string {
	return fmt.Sprintf("%s; %s is whole", what, filepath.Join(archivesName, filepath.Base(spare)))
}

// report says what a check did not find because its archive is not here.
func (a *archived) report(rep *CheckReport) (err error) {
	rep.Spoiled = a.spoiled
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
	Files  int64
	Unread error // see [AwayError]
}

// list gives the archives that are not here and that something was looked for in.
func (a *archived) list() (out []AwayArchive, err error) {
	recs, err := a.db.Archives()
	for _, rec := range recs {
		if x := a.away[rec.Seq]; x.Files > 0 {
			out = append(out, x)
		}
	}
	return out, err
}
