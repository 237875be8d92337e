package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newSessionCmd(a *app) *cobra.Command {
	return group("session", "Output streams of attempts",
		"A session is the output stream of one attempt: what its program writes to stdout and\n"+
			"stderr, as it is stored, masked and capped.",
		newSessionListCmd(a), newSessionCaptureCmd(a))
}

func newSessionListCmd(a *app) *cobra.Command {
	var q api.SessionQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List sessions",
		Long: "List the sessions of attempts under way: how much they wrote, and when last. With --all also\n" +
			"those that have ended, a page of runs at a time; a further page begins with the token that\n" +
			"the last line names.",
		Example: "  stella session list\n  stella session list --all --run 01935b1e-…",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runSessionList(c.Context(), a, q) },
	}
	f := c.Flags()
	f.BoolVar(&q.All, "all", false, "also sessions that have ended")
	f.StringVar(&q.RunID, "run", "", "only sessions of this `RUN`")
	f.IntVar(&q.PageSize, "page-size", 0, "with --all, sessions of `N` runs on a page, at most 500 (default 50)")
	f.StringVar(&q.PageToken, "page-token", "", "`TOKEN` at which the page begins")
	return c
}

func runSessionList(ctx context.Context, a *app, q api.SessionQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		page, err := r.ListSessions(ctx, q)
		if err != nil {
			return err
		}
		err = emitList(a, page, page.Sessions, []string{"SESSION", "DAG", "STATE", "STARTED", "BYTES", "LINES", "LAST OUTPUT"},
			func(s api.Session) []string {
				status := s.State
				if s.Outcome != "" {
					status = s.Outcome
				}
				return []string{sessionName(s), s.DAGID, status, seconds(s.StartedUTC), strconv.FormatInt(s.Bytes, 10),
					strconv.FormatInt(s.Lines, 10), seconds(s.LastOutputUTC)}
			})
		if err == nil && page.NextPageToken != "" {
			a.stderr.note("more: --page-token %s", page.NextPageToken)
		}
		return err
	})
}

// sessionName is what capture takes.
func sessionName(s api.Session) string {
	return s.RunID + "/" + s.StepID + "/" + strconv.Itoa(s.Attempt)
}

func newSessionCaptureCmd(a *app) *cobra.Command {
	var q api.CaptureQuery
	c := &cobra.Command{
		Use:   "capture RUN/STEP[/ATTEMPT]",
		Short: "Show the output of one attempt",
		Long: "Show what one attempt of a step wrote, stdout and stderr in the order in which they came; the\n" +
			"last attempt if none is named. With --follow it goes on until the attempt has ended.",
		Example: "  stella session capture 01935b1e-…/match --tail 20\n  stella session capture 01935b1e-…/match/2 --follow",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if q.Tail < 0 {
				return invalid("--tail is a number of lines from 1 on")
			}
			if err := parseSession(args[0], &q); err != nil {
				return err
			}
			return runSessionCapture(c.Context(), a, q)
		},
	}
	f := c.Flags()
	f.IntVar(&q.Tail, "tail", 0, "begin with the last `N` lines (default: all)")
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on until the attempt has ended")
	return c
}

// parseSession reads the name of a session.
func parseSession(name string, q *api.CaptureQuery) error {
	parts := strings.Split(name, "/")
	ok := (len(parts) == 2 || len(parts) == 3) && parts[0] != "" && parts[1] != ""
	if ok && len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		ok = err == nil && n > 0
		q.Attempt = n
	}
	if !ok {
		return invalid("%q is not a session: RUN/STEP or RUN/STEP/ATTEMPT", name)
	}
	q.RunID, q.StepID = parts[0], parts[1]
	return nil
}

func runSessionCapture(ctx context.Context, a *app, q api.CaptureQuery) error {
	if q.Follow && a.opt.output == outJSON {
		return invalid("--follow may have no end, so it cannot be one JSON value: use --output ndjson")
	}
	all := logList{Lines: []api.LogLine{}}
	last := int64(-1) // seq of the last line that was shown
	err := a.withSite(ctx, func(ctx context.Context, r *reached) error {
		q := q
		if last >= 0 { // the holder of the site went away; those before the tail are not wanted now either
			q.Tail = 0
		}
		if q.Follow && r.held != nil { // whoever could execute the attempt would need the site that we hold
			q.Follow = false
			a.noteIdle(ctx, r, q.RunID)
		}
		return r.CaptureSession(ctx, q, func(l api.LogLine) error {
			if l.Seq <= last {
				return nil
			}
			last = l.Seq
			switch a.opt.output {
			case outJSON, outNDJSON:
				return a.logLine(&all, l)
			}
			a.stdout.printf("%s\n", l.Text)
			return a.stdout.err
		})
	})
	if a.opt.output == outJSON && err == nil {
		return a.stdout.json(all, true)
	}
	return errors.Join(err, a.stdout.err)
}

// noteIdle says that a run that is open does not go on by itself.
func (a *app) noteIdle(ctx context.Context, r *reached, id string) {
	if d, err := r.GetRun(ctx, id); err == nil && !d.Status.Ended() {
		a.stderr.note("note: nobody executes run %s; it goes on with: stella orch run resume %s", id, id)
	}
}
