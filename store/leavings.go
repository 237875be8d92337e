package store

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/ledger"
)

// Limits of one archive, where no single run is larger.
const (
	archiveFilesMost = 50_000
	archiveBytesMost = 32 << 30
)

// Leavings are what ended runs have left and nothing else names: artifacts and log segments.
// It is for one goroutine.
type Leavings struct {
	db     *DB
	before string
	now    string
	size   int64 // entries that were looked at
	runs   []archive.Run
	ended  map[string]bool
	items  map[string]*leaving // by digest
	next   int                 // of runs, for Next
	began  int                 // next, before the last load
}

// leaving is a content that an ended run names.
type leaving struct {
	log, artifact bool
	held          bool // something else names it
	taken         bool // it was handed out by Next

	size, logSize int64 // where it is in its place, -1 where it is not
	bad           error // it is nowhere, cannot be read, or is not what it was
}

// EndedBefore finds the runs that had ended before a time, and what they have left. A sub-run
// is among them only together with the run that waits for it. What keeps its outputs for
// others at now is in force. Call [Leavings.Advance] before anything else.
func (db *DB) EndedBefore(ctx context.Context, before, now string) (*Leavings, error) {
	l := &Leavings{db: db, before: before, now: now, ended: map[string]bool{}, items: map[string]*leaving{}}
	parents := map[string]string{}
	err := scan(db, bTenantRuns, nil, func(t *bolt.Tx, k, _ []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, id, _ := strings.Cut(string(k), "\x00")
		run, err := indexedRun(t, id)
		if err == nil && run.Status.Ended() && run.EndedUTC != "" && run.EndedUTC < before {
			parents[id] = run.ParentRunID
			l.runs = append(l.runs, archive.Run{DAGID: run.DAGID, EndedUTC: run.EndedUTC, RunID: id, Tenant: run.Tenant})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	l.runs = slices.DeleteFunc(l.runs, func(r archive.Run) bool {
		for id := r.RunID; id != ""; {
			parent, ok := parents[id]
			if !ok {
				return true
			}
			id = parent
		}
		l.ended[r.RunID] = true
		return false
	})
	slices.SortFunc(l.runs, func(a, b archive.Run) int { return cmp.Compare(a.RunID, b.RunID) })
	for _, r := range l.runs {
		if err := l.of(ctx, r.RunID, func(digest string, log bool) {
			x := l.items[digest]
			if x == nil {
				x = &leaving{}
				l.items[digest] = x
			}
			x.log, x.artifact = x.log || log, x.artifact || !log
		}); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// of calls do for each content that the attempts of a run have left.
func (l *Leavings) of(ctx context.Context, runID string, do func(digest string, log bool)) error {
	attempts, err := l.db.Attempts(runID, "")
	if err != nil {
		return err
	}
	for _, a := range attempts {
		if a.End == nil {
			continue
		}
		for _, x := range a.End.Artifacts {
			do(x.SHA256, false)
		}
		if a.End.Logs != nil {
			do(a.End.Logs.SHA256, true)
		}
	}
	return ctx.Err()
}

// Advance reads the entries that came since the last time, and keeps back what they name
// otherwise: as evidence, or for a run that had not ended by then. What bundles and cache
// entries name is kept back too.
func (l *Leavings) Advance(ctx context.Context, progress func(done, total int64)) error {
	if len(l.items) == 0 {
		return nil
	}
	size := l.db.Size()
	for e, err := range l.db.Entries(l.size, size) {
		if err != nil {
			return damaged(err, "entry %d", e.Seq)
		}
		env, err := ledger.ParseEnvelope(e.Envelope)
		if err != nil {
			return damaged(err, "entry %d", e.Seq)
		}
		data, err := e.data(env.Type)
		if err != nil {
			return damaged(err, "entry %d", e.Seq)
		}
		l.add(env, data)
		if e.Seq%pageSize == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if progress != nil {
				progress(e.Seq, size)
			}
		}
	}
	l.size = size
	return l.others()
}

func (l *Leavings) add(env ledger.Envelope, data any) {
	for _, digest := range ledger.Evidence(data) {
		l.hold(digest)
	}
	if d, ok := data.(*ledger.BundleAdmission); ok {
		for _, digest := range d.Verdict.Attestations {
			l.hold(digest)
		}
	}
	if l.ended[env.RunID] {
		return
	}
	switch d := data.(type) {
	case *ledger.AttemptEnd:
		l.holdAll(d.Artifacts)
		if d.Logs != nil {
			l.hold(d.Logs.SHA256)
		}
	case *ledger.CacheHit:
		l.holdAll(d.Artifacts)
	}
}

func (l *Leavings) hold(digest string) {
	if x := l.items[digest]; x != nil {
		x.held = true
	}
}

func (l *Leavings) holdAll(list []ledger.Artifact) {
	for _, a := range list {
		l.hold(a.SHA256)
	}
}

// others keeps back what is named by what is no entry.
func (l *Leavings) others() error {
	recs, err := l.db.CacheRecords("", "")
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if rec.ExpiresUTC > l.now {
			l.holdAll(rec.Artifacts)
		}
	}
	bundles, err := l.db.Bundles()
	if err != nil {
		return err
	}
	s := l.db.NewSurvey()
	for _, rec := range bundles {
		if rec.Removed > 0 {
			continue
		}
		files, err := s.Files(rec.Digest)
		if err != nil {
			return damaged(err, "manifest of %s", rec.Ref())
		}
		for _, f := range files {
			l.hold(f.SHA256)
		}
	}
	return nil
}

// Held are those of a list that something else has come to name.
func (l *Leavings) Held(digests []string) (out []string) {
	for _, d := range digests {
		if x := l.items[d]; x == nil || x.held {
			out = append(out, d)
		}
	}
	return out
}

// A Load is what one archive takes.
type Load struct {
	List *archive.List // nil: nothing is left to write
	// Double are contents that are in their places and in an archive on record as well: the
	// end of an archiving that was cut off. They can go once the archive was read.
	Double []string
}

// gathered is a load in the making.
type gathered struct {
	Load
	list   *archive.List
	listed map[string]bool
	bytes  int64
}

// Next gathers what is in its place, run by run, until there is enough for one archive.
// With neither a list nor doubles nothing is left. A run stays as it is that names a content
// that is nowhere, or that [Leavings.Retract] has found damaged.
func (l *Leavings) Next(ctx context.Context) (Load, error) {
	list := &archive.List{Artifacts: []archive.Item{}, Before: l.before, Logs: []archive.Item{}, Runs: []archive.Run{}, Schema: archive.Schema, SiteID: l.db.SiteID()}
	g := &gathered{list: list, listed: map[string]bool{}}
	if err := l.db.blobs.shelf.refresh(); err != nil {
		return g.Load, err
	}
	l.began = l.next
	for ; l.next < len(l.runs) && len(list.Artifacts)+len(list.Logs)+len(list.Runs) < archiveFilesMost && g.bytes < archiveBytesMost; l.next++ {
		if err := l.gather(ctx, g, l.runs[l.next]); err != nil {
			return g.Load, err
		}
	}
	if len(list.Artifacts)+len(list.Logs) > 0 {
		for _, items := range [][]archive.Item{list.Artifacts, list.Logs} {
			slices.SortFunc(items, func(a, b archive.Item) int { return cmp.Compare(a.SHA256, b.SHA256) })
		}
		g.List = list
	}
	return g.Load, nil
}

// gather adds what a run has left to a load, or nothing where something of it is damaged.
func (l *Leavings) gather(ctx context.Context, g *gathered, r archive.Run) error {
	var digests []string
	var fault error
	err := l.of(ctx, r.RunID, func(digest string, _ bool) {
		x := l.items[digest]
		if x == nil || x.held || fault != nil { // nobody has looked at what a run has left that was reopened meanwhile
			return
		}
		if !x.taken {
			fault = l.locate(digest, x)
		}
		digests = append(digests, digest)
	})
	if err = cmp.Or(err, fault); err != nil {
		return err
	}
	if slices.ContainsFunc(digests, func(d string) bool { return l.items[d].bad != nil }) {
		return nil
	}
	any := false
	for _, d := range digests {
		if x := l.items[d]; !x.taken {
			x.taken = true
			l.take(g, d, x)
		}
		any = any || g.listed[d]
	}
	if any {
		g.list.Runs = append(g.list.Runs, r)
	}
	return nil
}

// locate finds out how large a content is where it is in its place.
func (l *Leavings) locate(digest string, x *leaving) error {
	b := l.db.blobs
	size, isFile, err := b.placed(digest)
	if err != nil {
		return err
	}
	x.size, x.logSize = size, -1
	if fi, err := os.Lstat(b.logPath(digest)); x.log && err == nil && fi.Mode().IsRegular() {
		x.logSize = fi.Size()
	} else if x.log && !isFile {
		x.logSize = size // a short one is sealed without a file
	}
	if !x.artifact {
		x.size = -1
	}
	if (x.artifact && x.size < 0 || x.log && x.logSize < 0) && b.shelf.nowhere(digest) {
		x.bad = errMissing
	}
	return nil
}

// take adds a content to a load, if it is in its place.
func (l *Leavings) take(g *gathered, digest string, x *leaving) {
	if x.size < 0 && x.logSize < 0 {
		return // it is in an archive
	}
	if l.db.blobs.shelf.promised(digest) {
		g.Double = append(g.Double, digest)
		return
	}
	g.listed[digest] = true
	if x.size >= 0 {
		g.list.Artifacts = append(g.list.Artifacts, archive.Item{Bytes: x.size, SHA256: digest})
		g.bytes += x.size
	}
	if x.logSize >= 0 {
		g.list.Logs = append(g.list.Logs, archive.Item{Bytes: x.logSize, SHA256: digest})
		g.bytes += x.logSize
	}
}

// Retract takes back the list that [Leavings.Next] gave last, of which a content could not be
// archived. All others are read too, so that each list is taken back once: the next has none
// of the runs that name one that is damaged.
func (l *Leavings) Retract(ctx context.Context, list *archive.List, found *archive.ContentError) error {
	l.items[found.SHA256].bad = found.Err
	for _, x := range []struct {
		log   bool
		items []archive.Item
	}{{false, list.Artifacts}, {true, list.Logs}} {
		for _, item := range x.items {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			var bad *archive.ContentError
			if errors.As(archive.Whole(inPlaceOf{l.db.blobs}, x.log, item, io.Discard), &bad) {
				l.items[item.SHA256].bad = bad.Err
			}
			l.items[item.SHA256].taken = false
		}
	}
	l.next = l.began
	return nil
}

// DamagedRun is an ended run that stays as it is, since one of its contents is damaged.
type DamagedRun struct {
	RunID, Digest string
	Err           error
}

// Damaged are the runs that [Leavings.Next] has left as they are.
func (l *Leavings) Damaged(ctx context.Context) (out []DamagedRun, err error) {
	for _, r := range l.runs {
		known := map[string]bool{}
		err := l.of(ctx, r.RunID, func(digest string, _ bool) {
			if x := l.items[digest]; x != nil && x.bad != nil && !known[digest] {
				known[digest] = true
				out = append(out, DamagedRun{r.RunID, digest, x.bad})
			}
		})
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// placed is the size of a blob that is in its place, and whether it is a file; -1 where there
// is none.
func (b *Blobs) placed(digest string) (size int64, isFile bool, err error) {
	raw, err := b.Small(digest)
	if err != nil || raw != nil {
		return int64(len(raw)), false, err
	}
	if fi, err := os.Lstat(b.Path(digest)); err == nil && fi.Mode().IsRegular() {
		return fi.Size(), true, nil
	}
	return -1, false, nil
}

// logPath is where a segment lies that is a file.
func (b *Blobs) logPath(digest string) string {
	if len(digest) != 64 {
		return filepath.Join(b.logs, "invalid")
	}
	return filepath.Join(b.logs, digest[:2], digest+".jsonl")
}
