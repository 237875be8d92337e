package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/background"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Limits of one answer.
const (
	defaultTail = 20
	maxTail     = 1000
	maxScanned  = 200_000 // entries that one filtered answer looks at
)

// TailLedger reads entries.
func (s *site) TailLedger(ctx context.Context, q api.LedgerQuery) ([]api.LedgerLine, error) {
	limit := q.Limit
	switch {
	case limit == 0:
		limit = defaultTail
	case limit < 0 || limit > maxTail:
		return nil, invalid("limit is 1 to %d", maxTail)
	}
	if q.RunID != "" {
		if _, err := s.run(q.RunID); err != nil {
			return nil, err
		}
	}
	if q.Type != "" && !ledger.Known(ledger.Type(q.Type)) {
		return nil, noType(q.Type)
	}
	if q.Last {
		return s.tailBack(ctx, q, limit, maxScanned)
	}
	from, size := max(0, q.From), s.e.db.Size()
	if q.RunID != "" { // they are known without looking at all others
		return matching(ctx, q, limit, s.e.db.RunEntriesFrom(q.RunID, from))
	}
	return matching(ctx, q, limit, s.e.db.Entries(from, min(size, from+maxScanned)))
}

// matching are the first of some entries that a query is about.
func matching(ctx context.Context, q api.LedgerQuery, limit int, entries iter.Seq2[store.Lines, error]) ([]api.LedgerLine, error) {
	out := []api.LedgerLine{}
	for l, err := range entries {
		if err != nil {
			return nil, dbError(err)
		}
		if ok, err := matches(q, l); err != nil {
			return nil, err
		} else if ok {
			out = append(out, line(l))
		}
		if len(out) == limit || ctx.Err() != nil {
			break
		}
	}
	return out, ctx.Err()
}

// tailBack reads the newest entries that match: of a run among its own, else page by page
// backwards, as many as most.
func (s *site) tailBack(ctx context.Context, q api.LedgerQuery, limit int, most int64) ([]api.LedgerLine, error) {
	if q.RunID != "" {
		out, err := matching(ctx, q, limit, s.e.db.RunEntriesBack(q.RunID))
		slices.Reverse(out)
		return out, err
	}
	const page = 256
	out := []api.LedgerLine{}
	size := s.e.db.Size()
	for to := size; to > 0 && len(out) < limit && size-to < most; to -= page {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var lines []api.LedgerLine
		for l, err := range s.e.db.Entries(max(0, to-page), to) {
			if err != nil {
				return nil, dbError(err)
			}
			ok, err := matches(q, l)
			if err != nil {
				return nil, err
			}
			if ok {
				lines = append(lines, line(l))
			}
		}
		out = append(lines, out...)
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out, nil
}

// noType says that there are no entries of a type, and which may have been meant: those
// of the same noun, or all nouns.
func noType(given string) error {
	var all, near, nouns []string
	noun, _, _ := strings.Cut(given, ".")
	for _, info := range ledger.Types() {
		of, _, _ := strings.Cut(string(info.Type), ".")
		if all = append(all, string(info.Type)); of == noun {
			near = append(near, string(info.Type))
		}
		if !slices.Contains(nouns, of) {
			nouns = append(nouns, of)
		}
	}
	err := invalid("there are no entries of type %q", given)
	switch best := manifests.Nearest(given, all); {
	case len(near) > 0:
		err.Hint = "those of " + noun + " are " + strings.Join(near, ", ")
	case best != "":
		err.Hint = "did you mean " + best + "?"
	default:
		err.Hint = "a type begins with " + strings.Join(nouns, ", ") + "; docs/format.md lists all"
	}
	return err
}

func matches(q api.LedgerQuery, l store.Lines) (bool, error) {
	if q.Type == "" && q.RunID == "" {
		return true, nil
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil {
		return false, damaged("entry %d: %v", l.Seq, err)
	}
	return (q.Type == "" || string(env.Type) == q.Type) && (q.RunID == "" || env.RunID == q.RunID), nil
}

func line(l store.Lines) api.LedgerLine {
	return api.LedgerLine{Seq: l.Seq, Envelope: l.Envelope, Data: l.Data}
}

// ShowLedger reads one entry.
func (s *site) ShowLedger(_ context.Context, seq int64) (api.LedgerLine, error) {
	l, err := s.e.db.Entry(seq)
	if err != nil {
		return api.LedgerLine{}, dbError(err)
	}
	return line(l), nil
}

// VerifyLedger re-hashes the ledger and all records. In full it also makes the records anew
// from the entries, and hashes evidence, the contents of bundles, artifacts and logs.
func (s *site) VerifyLedger(ctx context.Context, req api.LedgerCheck, p api.Progress) (api.LedgerReport, error) {
	e := s.e
	begun := time.Now()
	check := e.db.CheckBytes
	if req.Full {
		check = e.db.Check
	}
	opt := store.CheckOptions{
		Blobs: true, Progress: p,
		Logs: func(digest string) (io.ReadCloser, error) {
			f, err := e.placedSegment(digest)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		OpenNote: e.openNote,
	}
	rep, err := background.Do(func() (store.CheckReport, error) { return check(ctx, opt) })
	if err != nil {
		return api.LedgerReport{}, dbError(err)
	}
	if err := e.checkHead(); err != nil {
		return api.LedgerReport{}, err
	}
	return api.LedgerReport{
		Origin: e.db.Origin(), Size: rep.Size, Root: ledger.HexHash(rep.Root), Checkpoints: rep.Checkpoints, Full: req.Full,
		Runs: rep.Runs, Blobs: rep.Blobs, Away: showAway(rep.Away), Spoiled: rep.Spoiled, Millis: time.Since(begun).Milliseconds(),
	}, nil
}

// Checkpoint issues a signed tree head if the tree has grown, and writes its
// copies. A copy that cannot be written is an error here only: somebody waits
// for it.
func (s *site) Checkpoint(context.Context) (api.CheckpointNote, error) {
	note, failed, err := s.e.signHead()
	if err == nil && failed != nil {
		err = &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("the checkpoint of %d entries is made, but %v", note.Size, failed),
			Hint: "it lies in " + filepath.Join(s.e.opt.Home, "checkpoint.note") + "; mend the path, or give it up: stella trust waive PATH --reason TEXT"}
	}
	return note, err
}

// ProveEntry proves that an entry is in the tree of the newest checkpoint, or of an earlier
// one, as a C2SP tlog-proof file.
func (s *site) ProveEntry(_ context.Context, seq, to int64) ([]byte, error) {
	db := s.e.db
	if _, err := db.Entry(seq); err != nil {
		return nil, dbError(err)
	}
	c, err := s.provable(to)
	if err != nil {
		return nil, err
	}
	if seq >= c.Size {
		return nil, invalid("entry %d is not in the tree of the first %d", seq, c.Size)
	}
	proof, err := ledger.ProveInclusion(c.Size, seq, db)
	if err != nil {
		return nil, dbError(err)
	}
	return ledger.FormatProof(seq, proof, []byte(c.Note), nil), nil
}

// provable is the checkpoint of a tree of so many entries; of 0, one of all there are now.
func (s *site) provable(size int64) (api.CheckpointNote, error) {
	if size != 0 {
		return s.storedCheckpoint(size)
	}
	return s.e.issueCheckpoint()
}

// ProveConsistency proves that the newest checkpoint, or an earlier one, extends an
// earlier size.
func (s *site) ProveConsistency(_ context.Context, old, to int64) (api.ConsistencyProof, error) {
	c, err := s.provable(to)
	if err != nil {
		return api.ConsistencyProof{}, err
	}
	if old < 1 || old > c.Size {
		return api.ConsistencyProof{}, invalid("the tree has %d entries; %d is not the size of an earlier one", c.Size, old)
	}
	proof, err := ledger.ProveConsistency(c.Size, old, s.e.db)
	if err != nil {
		return api.ConsistencyProof{}, dbError(err)
	}
	root, err := ledger.TreeHash(old, s.e.db)
	if err != nil {
		return api.ConsistencyProof{}, dbError(err)
	}
	out := api.ConsistencyProof{OldSize: old, OldRoot: ledger.HexHash(root), Size: c.Size, Root: c.Root, Note: c.Note, Proof: []string{}}
	for _, h := range proof {
		out.Proof = append(out.Proof, ledger.HexHash(h))
	}
	return out, nil
}

// storedCheckpoint is the checkpoint of a tree of size entries.
func (s *site) storedCheckpoint(size int64) (api.CheckpointNote, error) {
	note, found, err := s.e.db.CheckpointCovering(size - 1)
	if size < 1 || store.IsNotFound(err) || err == nil && found != size {
		return api.CheckpointNote{}, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("no checkpoint of %d entries was signed", size),
			Hint: "ledger/checkpoint.note of an archive is one, and so is what stella ledger checkpoint has printed"}
	}
	if err != nil {
		return api.CheckpointNote{}, dbError(err)
	}
	c, err := ledger.ParseCheckpoint(note)
	if err != nil {
		return api.CheckpointNote{}, dbError(err)
	}
	return api.CheckpointNote{Size: c.Size, Root: ledger.HexHash(c.Root), Note: string(note)}, nil
}

// checkNote holds the ledger against a checkpoint in a file.
func (e *Engine) checkNote(path string) error {
	c, _, err := readNote(path, e.keys, e.db.SiteID())
	if err != nil {
		return err
	}
	_, epoch, err := ledger.ParseOrigin(c.Origin)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if epoch > e.db.Epoch() {
		return fmt.Errorf("%s: it is of %s, the ledger is %s", path, c.Origin, e.db.Origin())
	}
	if adopted, gone := e.db.GivenUp(epoch, c.Size); gone {
		return &aheadError{path, c.Size, adopted}
	}
	if err := e.db.CheckHead(c); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// issueCheckpoint issues a signed tree head if the tree has grown. A copy that
// cannot be written is logged: it stops no run and no end.
func (e *Engine) issueCheckpoint() (api.CheckpointNote, error) {
	note, failed, err := e.signHead()
	if failed != nil {
		e.opt.Log.Error("checkpoint copy", "error", failed)
	}
	return note, err
}

// signHead issues a checkpoint and writes its copies; failed says which copies
// could not be written.
func (e *Engine) signHead() (note api.CheckpointNote, failed, err error) {
	e.issuing.Lock()
	defer e.issuing.Unlock()
	raw, size, fresh, err := e.db.IssueCheckpoint(func(c ledger.Checkpoint) ([]byte, error) {
		return ledger.SignCheckpoint(c, e.keys.log)
	})
	if err != nil {
		return note, nil, dbError(err)
	}
	c, err := ledger.ParseCheckpoint(raw)
	if err != nil {
		return note, nil, internal(err)
	}
	failed = e.writeCopies(raw)
	return api.CheckpointNote{Size: size, Root: ledger.HexHash(c.Root), Note: string(raw), New: fresh}, failed, nil
}

// writeCopies writes a checkpoint to the paths that the operator names, and
// remembers where it did, so that a copy that goes missing is noticed: it is not
// made anew before somebody has waived it. A file there that speaks against this
// ledger is evidence, and stays.
func (e *Engine) writeCopies(note []byte) error {
	known, err := e.db.NotePaths()
	if err != nil {
		return err
	}
	written := slices.Clone(known) // only a waiver takes one out
	var failed error
	for _, path := range e.site.CheckpointCopies {
		err := e.checkNote(path)
		if err == nil || missing(err) && !slices.Contains(known, path) {
			err = fsx.WriteFile(path, note, 0o644)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("copy to %s: %w", path, err))
		}
		if err == nil {
			written = append(written, path)
		}
	}
	return errors.Join(failed, e.db.PutNotePaths(written))
}
