package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// maxArchiveAge is the longest ago that runs can be asked to have ended.
const maxArchiveAge = 100 * 365 * 24 * time.Hour

// ArchiveRuns writes what runs have left that ended long ago to archives, and moves the
// originals to trash/. An archive is read back, byte for byte, before its entry is written,
// and its entry is on disk before anything goes: cut off anywhere nothing is lost, and the
// next archiving goes on. A run of which something is damaged stays as it is, and is named.
func (s *site) ArchiveRuns(ctx context.Context, req api.ArchiveRequest, p api.Progress) (api.ArchiveReport, error) {
	e := s.e
	out := api.ArchiveReport{DryRun: req.DryRun, Archives: []api.Archive{}}
	age := time.Duration(req.OlderThanMs) * time.Millisecond
	if req.OlderThanMs <= 0 || req.OlderThanMs > maxArchiveAge.Milliseconds() {
		return out, invalid("older-than is a span of time from now back, longer than none and at most 100 years")
	}
	if err := e.failed(); err != nil && !req.DryRun { // what cannot be recorded is not done
		return out, err
	}
	e.collecting.Lock() // nothing is given up meanwhile, and no snapshot made
	defer e.collecting.Unlock()
	now, err := e.clock() // one that is not believed makes nothing old
	if err != nil {
		return out, err
	}
	out.Before = stamp.Format(now.Add(-age))
	if !req.DryRun {
		if err := e.db.SweepArchives(); err != nil {
			return out, archiveError(err)
		}
	}
	x := &archiving{s: s, dry: req.DryRun, now: now, progress: p, out: &out, runs: map[string]bool{}}
	if x.left, err = e.db.EndedBefore(ctx, out.Before, stamp.Format(now)); err == nil {
		err = x.left.Advance(ctx, p) // what takes long, before anybody has to wait
	}
	for again := true; again && err == nil; {
		again, err = x.round(ctx)
	}
	if err == nil {
		err = x.damaged(ctx)
	}
	out.Runs = int64(len(x.runs))
	if err != nil {
		return out, archiveError(err)
	}
	if out.Finished > 0 || len(out.Archives) > 0 {
		out.TrashedUntil = stamp.Format(now.Add(24 * time.Hour))
	}
	out.TrashFiles, out.TrashBytes, err = e.db.Blobs().EmptyTrash(ctx, now, req.DryRun)
	return out, dbError(err)
}

// archiving is one archiving under way.
type archiving struct {
	s        *site
	dry      bool
	now      time.Time
	progress api.Progress
	left     *store.Leavings
	out      *api.ArchiveReport
	runs     map[string]bool // of which something moves
}

// round makes one archive, and says whether more may be left.
func (x *archiving) round(ctx context.Context) (bool, error) {
	load, err := x.left.Next(ctx)
	if err != nil || load.List == nil && len(load.Double) == 0 {
		return false, err
	}
	if err := x.finish(ctx, load.Double); err != nil {
		return false, err
	}
	if load.List == nil {
		return true, nil
	}
	if !x.dry {
		err := x.write(ctx, load.List)
		var bad *archive.ContentError
		if errors.As(err, &bad) { // the others need not wait until somebody mends that
			return true, x.left.Retract(ctx, load.List, bad)
		}
		if err != nil {
			return false, err
		}
	}
	for _, r := range load.List.Runs {
		x.runs[r.RunID] = true
	}
	x.out.Artifacts += int64(len(load.List.Artifacts))
	x.out.Logs += int64(len(load.List.Logs))
	x.out.Content += load.List.Bytes()
	return true, nil
}

// damaged names the runs that stay as they are.
func (x *archiving) damaged(ctx context.Context) error {
	all, err := x.left.Damaged(ctx)
	for _, d := range all {
		x.out.Damaged = append(x.out.Damaged, api.DamagedRun{RunID: d.RunID, SHA256: d.Digest, What: d.Err.Error()})
	}
	return err
}

// finish moves away what an archive has and an archiving that was cut off has left.
func (x *archiving) finish(ctx context.Context, double []string) error {
	if !x.dry {
		var err error
		if double, err = x.s.e.db.ReadDoubles(ctx, double, x.progress); err != nil {
			return err
		}
		if double, err = x.doom(ctx, double, nil); err == nil {
			err = x.trash(ctx, double)
		}
		if err != nil {
			return err
		}
	}
	x.out.Finished += int64(len(double))
	return nil
}

// write makes an archive, records it, and moves the originals away.
func (x *archiving) write(ctx context.Context, list *archive.List) error {
	e := x.s.e
	if err := e.roomOf("an archive", list.Bytes()); err != nil {
		return err
	}
	pub, err := publicPEM(&e.keys.site.PublicKey)
	if err != nil {
		return err
	}
	rec, err := e.db.WriteArchive(ctx, store.ArchiveWriteOptions{
		List: list, Now: e.opt.Now(), Progress: x.progress,
		Sign: func(sums []byte) ([]byte, error) {
			a, err := verify.SignManifest(sums, e.keys.site)
			return a.Data, err
		},
		Signed: func(sums, signature []byte) error { return export.CheckSums(sums, signature, pub) },
	})
	if err != nil {
		return err
	}
	var digests []string
	list.Digests(func(d string) { digests = append(digests, d) })
	var seq int64
	digests, err = x.doom(ctx, digests, func() (err error) {
		seq, err = e.db.Append(ledger.ArchiveCreated, x.s.actor, rec)
		return err
	})
	if err != nil {
		return errors.Join(err, e.db.SweepArchives())
	}
	if err := e.db.NameArchive(rec); err != nil { // it is found under the other name too
		return err
	}
	states, err := e.db.ArchiveStates()
	if err != nil {
		return err
	}
	for _, st := range states {
		if st.Seq == seq {
			x.out.Archives = append(x.out.Archives, showArchive(st))
		}
	}
	return x.trash(ctx, digests)
}

// doom marks what may go, while nobody can start a run or publish a DAG, and writes the entry.
// What somebody has come to rely on meanwhile stays in its place.
func (x *archiving) doom(ctx context.Context, digests []string, record func() error) (going []string, err error) {
	if len(digests) == 0 {
		return nil, nil
	}
	e := x.s.e
	blobs := e.db.Blobs()
	slices.Sort(digests)
	digests = slices.Compact(digests) // one that is a log and an artifact
	e.gate.Lock()
	defer e.gate.Unlock()
	stay := blobs.Doom(digests)
	defer func() {
		if err != nil {
			blobs.Spare(digests)
		}
	}()
	if err := x.left.Advance(ctx, nil); err != nil {
		return nil, err
	}
	if record != nil {
		if err := record(); err != nil {
			return nil, err
		}
	}
	held := x.left.Held(digests)
	blobs.Spare(held)
	stay = append(stay, held...)
	slices.Sort(stay)
	stay = slices.Compact(stay)
	x.out.Busy += int64(len(stay))
	return slices.DeleteFunc(digests, func(d string) bool {
		_, found := slices.BinarySearch(stay, d)
		return found
	}), nil
}

func (x *archiving) trash(ctx context.Context, digests []string) error {
	blobs := x.s.e.db.Blobs()
	defer blobs.Spare(digests)
	_, err := blobs.TrashArchived(ctx, digests, x.now)
	return err
}

// ListArchives lists the archives of runs on record.
func (s *site) ListArchives(context.Context) ([]api.Archive, error) {
	states, err := s.e.db.ArchiveStates()
	if err != nil {
		return nil, dbError(err)
	}
	out := []api.Archive{}
	for _, st := range states {
		out = append(out, showArchive(st))
	}
	return out, nil
}

func showArchive(st store.ArchiveState) api.Archive {
	out := api.Archive{
		File: st.File, Path: st.Path, State: api.ArchiveHere, Seq: st.Seq, Time: st.Time, Before: st.Before, Runs: st.Runs,
		Artifacts: st.Artifacts, Logs: st.Logs, Content: st.Content, Bytes: st.Bytes, SHA256: st.SHA256,
	}
	for _, f := range st.Files {
		var bad *archive.DamagedError
		if errors.As(f.Err, &bad) {
			out.Damaged = append(out.Damaged, f.Path+": "+bad.What())
		}
	}
	var away *store.AwayError
	switch {
	case errors.As(st.Err, &away):
		out.State = api.ArchiveUnreadable
	case st.Err != nil:
		out.State = api.ArchiveDamaged
	case st.Path == "":
		out.State = api.ArchiveAway
	}
	return out
}

func showAway(all []store.AwayArchive) (out []api.AwayArchive) {
	for _, x := range all {
		out = append(out, api.AwayArchive{File: x.File, SHA256: x.SHA256, Seq: x.Seq, Files: x.Files, Unread: unread(x.Unread)})
	}
	return out
}

func unread(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// awayFiles counts what was asked for and lies in archives that are not here.
type awayFiles map[int64]*api.AwayArchive

// note says whether err is about such an archive, and counts it.
func (a awayFiles) note(err error) bool {
	var away *store.AwayError
	if !errors.As(err, &away) {
		return false
	}
	x := a[away.Archive.Seq]
	if x == nil {
		x = &api.AwayArchive{File: away.Archive.File, SHA256: away.Archive.SHA256, Seq: away.Archive.Seq, Unread: unread(away.Unread)}
		a[x.Seq] = x
	}
	x.Files++
	return true
}

// list gives the archives in the order of their entries.
func (a awayFiles) list() (out []api.AwayArchive) {
	for _, seq := range slices.Sorted(maps.Keys(a)) {
		out = append(out, *a[seq])
	}
	return out
}

// err is what a reader is told who was shown all the rest; nil where that is all.
func (a awayFiles) err(what string) error {
	all := a.list()
	if len(all) == 0 {
		return nil
	}
	e := &api.Error{Code: api.CodeArchiveUnreadable, Hint: helpsUnread}
	lie := "cannot be read"
	var n int64
	for _, x := range all {
		n += x.Files
		fault := fmt.Sprintf("%s, of entry %d, SHA-256 %s", x.File, x.Seq, x.SHA256)
		if x.Unread != "" {
			fault += ": " + x.Unread
		} else {
			e.Code, e.Hint, lie = api.CodeArchiveAway, "bring it back into the folder archives/ of the home, under any name", "are not here"
		}
		e.Faults = append(e.Faults, fault)
	}
	e.Message = fmt.Sprintf("%d of the %s lie in archives that %s", n, what, lie)
	return e
}

// helpsUnread is the hint about a file that cannot be opened.
const helpsUnread = "nothing is damaged: let the user as whom stella runs read the file in archives/"

// archiveAway says which archive is to be brought back, and where to.
func archiveAway(err error) *api.Error {
	var away *store.AwayError
	if !errors.As(err, &away) {
		return nil
	}
	x := away.Archive
	if away.Unread != nil {
		return &api.Error{Code: api.CodeArchiveUnreadable, Hint: helpsUnread,
			Message: fmt.Sprintf("%s lies in the archive %s of entry %d, which cannot be read: %v", away.Digest, x.File, x.Seq, away.Unread)}
	}
	return &api.Error{Code: api.CodeArchiveAway,
		Message: fmt.Sprintf("%s lies in the archive %s of entry %d, which is not here", away.Digest, x.File, x.Seq),
		Hint:    "bring it back into the folder archives/ of the home, under any name; its SHA-256 is " + x.SHA256}
}

// archiveError names what an archiving has failed at. Damage of the site is said as such.
func archiveError(err error) error {
	var bad *archive.DamagedError
	if errors.As(err, &bad) {
		return damaged("%v", err)
	}
	return dbError(err)
}
