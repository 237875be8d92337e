package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/telemetry"
)

// followEvery is how often a follower looks for new lines of an attempt under
// way. Its end wakes the follower at once.
const followEvery = 200 * time.Millisecond

// RunLogs calls f for each stored line of a run's attempts.
func (s *site) RunLogs(ctx context.Context, q api.LogQuery, f func(api.LogLine) error) error {
	shown := map[string]int64{} // lines, by step and attempt
	for {
		changed, _ := s.e.db.Changed()
		run, err := s.run(q.RunID)
		if err != nil {
			return err
		}
		attempts, err := s.e.db.Attempts(q.RunID, q.StepID)
		if err != nil {
			return dbError(err)
		}
		for _, a := range attempts {
			if q.Attempt != 0 && q.Attempt != a.Attempt {
				continue
			}
			if err := s.attemptLog(run.RunID, a, shown, f); err != nil {
				return err
			}
		}
		if !q.Follow || run.Status.Ended() {
			return nil
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

// attemptLog gives f the lines of an attempt that were not shown yet.
func (s *site) attemptLog(runID string, a state.Attempt, shown map[string]int64, f func(api.LogLine) error) error {
	logs := filepath.Join(s.e.opt.Home, "logs")
	path := runner.OpenLogPath(logs, runID, a.StepID, a.Attempt)
	if a.End != nil {
		if a.End.Logs == nil {
			return nil
		}
		path = runner.LogPath(logs, a.End.Logs.SHA256)
	}
	file, err := fsx.OpenRegular(path)
	if errors.Is(err, fs.ErrNotExist) && a.End == nil {
		return nil // not begun, or just being closed: the next look finds it
	}
	if err != nil {
		return internal(err)
	}
	defer file.Close()
	key := filepath.Base(runner.OpenLogPath(logs, runID, a.StepID, a.Attempt))
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
