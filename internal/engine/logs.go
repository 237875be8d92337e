package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/telemetry"
)

// followEvery is how often a follower looks for new lines of an attempt under
// way. Its end wakes the follower at once.
const followEvery = 200 * time.Millisecond

// RunLogs calls f for each stored line of a run's attempts.
func (s *site) RunLogs(ctx context.Context, q api.LogQuery, f func(api.LogLine) error) error {
	shown := map[string]int64{} // lines, by step and attempt
	if q.Attempt < 0 {
		return invalid("attempts are counted from 1")
	}
	away := awayFiles{}
	for first := true; ; first = false {
		clear(away)
		changed, _ := s.e.db.Changed()
		run, err := s.run(q.RunID)
		if err != nil {
			return err
		}
		attempts, err := s.attemptsOf(q.RunID, q.StepID)
		if err != nil {
			return dbError(err)
		}
		if first {
			if err := s.meant(run, q, attempts); err != nil {
				return err
			}
		}
		slices.SortStableFunc(attempts, func(a, b state.Attempt) int { return cmp.Compare(a.StartedUTC, b.StartedUTC) })
		for _, a := range attempts {
			if q.Attempt != 0 && q.Attempt != a.Attempt {
				continue
			}
			if err := s.attemptLog(run.RunID, a, shown, f); err != nil && !away.note(err) {
				return err
			}
		}
		if !q.Follow || run.Status.Ended() {
			return away.err("logs of run " + run.RunID)
		}
		select {
		case <-changed:
		case <-time.After(followEvery):
		case <-s.e.closing:
			return &api.Error{Code: api.CodeStopping, Message: "the site is being closed"}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// attemptsOf are those of a step, of the items of one with for_each, or of a run.
func (s *site) attemptsOf(runID, stepID string) ([]state.Attempt, error) {
	attempts, err := s.e.db.Attempts(runID, stepID)
	if err != nil || stepID == "" || len(attempts) > 0 {
		return attempts, err
	}
	if step, err := s.e.db.Step(runID, stepID); err != nil || step.Items == "" {
		return nil, nil // which step is meant is asked by the caller
	}
	if attempts, err = s.e.db.Attempts(runID, ""); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(attempts, func(a state.Attempt) bool { return !strings.HasPrefix(a.StepID, stepID+".") }), nil
}

// meant refuses a query for a step or an attempt that the run has not, and that cannot
// come any more.
func (s *site) meant(run state.Run, q api.LogQuery, attempts []state.Attempt) error {
	if len(attempts) == 0 && q.StepID != "" {
		if err := s.hasStep(run, q.StepID, q.Follow); err != nil {
			return err
		}
	}
	if q.Attempt == 0 || q.Follow || slices.ContainsFunc(attempts, func(a state.Attempt) bool { return a.Attempt == q.Attempt }) {
		return nil
	}
	err := notFound("run %s has no attempt %d", run.RunID, q.Attempt)
	if q.StepID != "" {
		err.Message += " of step " + q.StepID
	}
	err.Hint = "stella orch run inspect " + run.RunID + " lists its attempts"
	return err
}

// hasStep refuses a step that a run does not have. One of its items may be still to come.
func (s *site) hasStep(run state.Run, id string, coming bool) error {
	_, err := s.e.db.Step(run.RunID, id)
	if !errors.Is(err, store.ErrNotFound) {
		return dbError(err)
	}
	d, _, err := s.e.dagSpec(run.DAGDigest)
	if err != nil {
		return nil // nobody knows its steps
	}
	if st := findStep(d, id); st != nil && (st.ID == id || coming && st.ForEach != nil) {
		return nil
	}
	var known []string
	for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
		for i := range list {
			known = append(known, list[i].ID)
		}
	}
	wrong := notFound("run %s has no step %q", run.RunID, id)
	if near := manifests.Nearest(id, known); near != "" {
		wrong.Hint = "did you mean " + near + "?"
	} else if len(known) <= 20 {
		wrong.Hint = "its steps are " + strings.Join(known, ", ")
	} else {
		wrong.Hint = "stella orch run status " + run.RunID + " --all lists its steps"
	}
	return wrong
}

// attemptLog gives f the lines of an attempt that were not shown yet.
func (s *site) attemptLog(runID string, a state.Attempt, shown map[string]int64, f func(api.LogLine) error) error {
	if a.End != nil && a.End.Logs == nil {
		return nil
	}
	file, err := s.e.output(runID, a)
	if errors.Is(err, fs.ErrNotExist) && a.End == nil {
		return nil // not begun, or just being closed: the next look finds it
	}
	if err != nil {
		return segmentError(a, err)
	}
	defer file.Close()
	key := filepath.Base(runner.OpenLogPath("", runID, a.StepID, a.Attempt))
	skip := shown[key]
	var ref ledger.LogRef
	if a.End != nil {
		ref = *a.End.Logs
	} else if ref, err = telemetry.Intact(file); err == nil { // the last line may be torn
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return internal(err)
	}
	skip, n := shown[key], int64(0)
	for rec, err := range telemetry.ReadSegment(file, ref) {
		if err != nil {
			return damaged("log of step %s attempt %d: %v", a.StepID, a.Attempt, err)
		}
		if n++; n <= skip {
			continue
		}
		if err := f(api.LogLine{Time: rec.Time, StepID: a.StepID, Attempt: a.Attempt, Seq: rec.Seq, Stream: rec.Stream, Text: rec.Text}); err != nil {
			return err
		}
		shown[key] = n
	}
	return nil
}

// segmentError is what is said of a segment that cannot be opened. That its archive is not
// here is for the caller.
func segmentError(a state.Attempt, err error) error {
	var bad *archive.DamagedError
	switch {
	case archiveAway(err) != nil:
		return err
	case errors.As(err, &bad):
		return damaged("log of step %s attempt %d: %v", a.StepID, a.Attempt, err)
	}
	return internal(err)
}

// A segmentFile is the stored output of an attempt, open.
type segmentFile interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// record is a segment that lies in ledger.db.
type record struct{ *bytes.Reader }

// Close implements [io.Closer].
func (record) Close() error { return nil }

// segment opens the log segment with a digest: in its place, or else a copy of what an
// archive of runs has, which was hashed. One that is nowhere is [fs.ErrNotExist], and one
// whose archive is not here a *[store.AwayError].
func (e *Engine) segment(digest string) (segmentFile, error) {
	f, err := e.placedSegment(digest)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	r, aerr := e.db.Blobs().OpenArchived(digest)
	if errors.Is(aerr, store.ErrNotFound) {
		return nil, err
	}
	if aerr != nil {
		return nil, aerr
	}
	defer r.Close()
	return e.spooled(r)
}

// spooled reads r to its end, into memory or into a file that has no name.
func (e *Engine) spooled(r io.Reader) (segmentFile, error) {
	const few = 256 << 10
	raw, err := io.ReadAll(io.LimitReader(r, few))
	if err != nil {
		return nil, err
	}
	if len(raw) < few {
		return record{bytes.NewReader(raw)}, nil
	}
	f, err := os.CreateTemp(filepath.Join(e.opt.Home, "cache"), "segment-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.Copy(f, io.MultiReader(bytes.NewReader(raw), r))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// placedSegment opens a segment in its place: a sealed blob if it is short, and otherwise a
// file. One that is not there is [fs.ErrNotExist]. Its bytes are not checked.
func (e *Engine) placedSegment(digest string) (segmentFile, error) {
	raw, err := e.db.Blobs().Small(digest)
	if err != nil {
		return nil, err
	}
	if raw != nil {
		return record{bytes.NewReader(raw)}, nil
	}
	f, err := fsx.OpenRegular(runner.LogPath(filepath.Join(e.opt.Home, "logs"), digest))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// output opens what an attempt wrote, or has written so far.
func (e *Engine) output(runID string, a state.Attempt) (segmentFile, error) {
	if a.End != nil {
		return e.segment(a.End.Logs.SHA256)
	}
	f, err := fsx.OpenRegular(runner.OpenLogPath(filepath.Join(e.opt.Home, "logs"), runID, a.StepID, a.Attempt))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// sweepLogs removes the files of segments that were sealed without them, if a
// crash has left any: nobody writes now.
func (e *Engine) sweepLogs() error {
	dir := filepath.Dir(runner.OpenLogPath(filepath.Join(e.opt.Home, "logs"), "", "", 0))
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		runID, rest, _ := strings.Cut(strings.TrimSuffix(f.Name(), ".jsonl"), ".")
		i := strings.LastIndexByte(rest, '.')
		n, err := strconv.Atoi(rest[i+1:])
		if i < 0 || err != nil {
			continue
		}
		a, err := e.db.Attempt(runID, rest[:i], n)
		if err != nil || a.End == nil || a.End.Logs == nil {
			continue // it is all that is left of its output
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}
