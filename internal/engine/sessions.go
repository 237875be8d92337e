package engine

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/telemetry"
)

var _ api.Sessions = (*site)(nil)

// ListSessions lists the output streams of attempts.
func (s *site) ListSessions(ctx context.Context, q api.SessionQuery) (api.SessionPage, error) {
	runs, next, err := s.sessionRuns(ctx, q)
	if err != nil {
		return api.SessionPage{}, err
	}
	out := api.SessionPage{Sessions: []api.Session{}, NextPageToken: next}
	for i := range runs {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		attempts, err := s.e.db.Attempts(runs[i].RunID, "")
		if err != nil {
			return out, dbError(err)
		}
		strays := s.e.runner.Strays(runs[i].RunID)
		for k := range attempts {
			a := &attempts[k]
			if q.All || a.End == nil || strays[a.StepID] == a.Attempt {
				session, err := s.session(&runs[i], a)
				if err != nil {
					return out, err
				}
				out.Sessions = append(out.Sessions, session)
			}
		}
	}
	return out, nil
}

// sessionRuns are the runs whose sessions a query asks for, the newest first.
func (s *site) sessionRuns(ctx context.Context, q api.SessionQuery) (runs []state.Run, next string, err error) {
	if q.RunID != "" {
		run, err := s.run(q.RunID)
		return []state.Run{run}, "", err
	}
	if q.All {
		page, err := s.ListRuns(ctx, api.RunQuery{PageSize: q.PageSize, PageToken: q.PageToken})
		return page.Runs, page.NextPageToken, err
	}
	if q.PageSize != 0 || q.PageToken != "" {
		return nil, "", invalid("only a list of all sessions has pages")
	}
	all, err := s.e.db.ActiveRuns()
	if err != nil {
		return nil, "", dbError(err)
	}
	for i := range slices.Backward(all) { // run ids grow with time
		if all[i].Tenant == s.tenant && (all[i].Open > 0 || len(s.e.runner.Strays(all[i].RunID)) > 0) {
			runs = append(runs, all[i])
		}
	}
	return runs, "", nil
}

// session is what is known of the output of one attempt.
func (s *site) session(run *state.Run, a *state.Attempt) (api.Session, error) {
	out := api.Session{
		RunID: run.RunID, DAGID: run.DAGID, StepID: a.StepID, Attempt: a.Attempt, State: api.SessionActive,
		StartedUTC: a.StartedUTC, EndedUTC: a.EndedUTC,
	}
	if a.End != nil {
		out.State, out.Outcome = api.SessionEnded, a.End.Outcome
		if a.End.Logs == nil {
			return out, nil
		}
		out.Bytes, out.Lines, out.Dropped = a.End.Logs.Bytes, a.End.Logs.Records, a.End.Logs.Dropped
	}
	open := s.e.output
	if a.End != nil { // what is in an archive is not read for a list
		open = func(string, state.Attempt) (segmentFile, error) { return s.e.placedSegment(a.End.Logs.SHA256) }
	}
	f, err := open(run.RunID, *a)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil // not begun, or just being closed; of an ended one the audit of storage has more to say
	}
	if err != nil {
		return out, segmentError(*a, err)
	}
	defer f.Close()
	if a.End == nil {
		ref, err := telemetry.Intact(f)
		if err != nil {
			return out, internal(err)
		}
		out.Bytes, out.Lines = ref.Bytes, ref.Records
	}
	if last, ok, err := telemetry.Last(f, out.Bytes); err == nil && ok {
		out.LastOutputUTC = last.Time
	}
	return out, nil
}

// CaptureSession calls f for each stored line of one attempt.
func (s *site) CaptureSession(ctx context.Context, q api.CaptureQuery, f func(api.LogLine) error) error {
	run, err := s.run(q.RunID)
	if err != nil {
		return err
	}
	if q.Attempt < 0 || q.Tail < 0 {
		return invalid("attempt and tail are not below 0")
	}
	shown := map[string]int64{} // see attemptLog
	for first := true; ; first = false {
		changed, _ := s.e.db.Changed()
		a, err := s.attempt(run.RunID, q.StepID, q.Attempt)
		if err != nil {
			return err
		}
		q.Attempt = a.Attempt // another one may begin meanwhile
		if first && q.Tail > 0 {
			if err := s.skipTo(run.RunID, a, int64(q.Tail), shown); err != nil && archiveAway(err) == nil {
				return err
			}
		}
		err = s.attemptLog(run.RunID, a, shown, f)
		if away := archiveAway(err); away != nil {
			return away
		}
		if err != nil || !q.Follow || a.End != nil {
			return err
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

// attempt reads one attempt of a step; 0 is the last one.
func (s *site) attempt(runID, stepID string, n int) (state.Attempt, error) {
	attempts, err := s.e.db.Attempts(runID, stepID)
	if err != nil {
		return state.Attempt{}, dbError(err)
	}
	for _, a := range slices.Backward(attempts) {
		if n == 0 || a.Attempt == n {
			return a, nil
		}
	}
	if n == 0 {
		return state.Attempt{}, notFound("no attempt of step %q of run %s has begun", stepID, runID)
	}
	return state.Attempt{}, notFound("there is no attempt %d of step %q of run %s", n, stepID, runID)
}

// skipTo marks all lines of an attempt but the last ones as shown.
func (s *site) skipTo(runID string, a state.Attempt, tail int64, shown map[string]int64) error {
	count := map[string]int64{}
	err := s.attemptLog(runID, a, count, func(api.LogLine) error { return nil })
	for key, n := range count {
		shown[key] = max(0, n-tail)
	}
	return err
}
