package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/server/api"
)

func newRunLogsCmd(a *app) *cobra.Command {
	var q api.LogQuery
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Show what the steps of a run wrote",
		Long: "Show what the attempts of a run wrote to stdout and stderr, as it was stored: masked and\n" +
			"capped. With --follow it goes on until the run has ended. Where nobody executes the run,\n" +
			"there is nothing to follow, and it says so.",
		Example: "  stella orch run logs 01935b1e-… --step match --follow",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q.RunID = args[0]
			return runRunLogs(c.Context(), a, q)
		},
	}
	f := c.Flags()
	f.StringVar(&q.StepID, "step", "", "only this `STEP`, with all of its items")
	f.IntVar(&q.Attempt, "attempt", 0, "only this attempt, a `NUMBER` (default: all)")
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on until the run has ended")
	return c
}

// logList is the JSON of all lines at once.
type logList struct {
	Lines []api.LogLine `json:"lines"`
}

func runRunLogs(ctx context.Context, a *app, q api.LogQuery) error {
	if q.Follow && a.opt.output == outJSON {
		return invalid("--follow may have no end, so it cannot be one JSON value: use --output ndjson")
	}
	all := logList{Lines: []api.LogLine{}}
	shown := 0
	err := a.withSite(ctx, func(ctx context.Context, r *reached) error {
		q := q
		if q.Follow && r.held != nil {
			// Whoever could execute the run would need the site that we hold.
			q.Follow = false
			a.noteIdle(ctx, r, q.RunID)
		}
		n := 0
		return r.RunLogs(ctx, q, func(l api.LogLine) error {
			if n++; n <= shown { // seen before the holder of the site went away
				return nil
			}
			shown = n
			return a.logLine(&all, l)
		})
	})
	if a.opt.output == outJSON && err == nil {
		return a.stdout.json(all, true)
	}
	return errors.Join(err, a.stdout.err)
}

// logLine writes a line, or keeps it for the end.
func (a *app) logLine(all *logList, l api.LogLine) error {
	switch a.opt.output {
	case outJSON:
		all.Lines = append(all.Lines, l)
		return nil
	case outNDJSON:
		return a.stdout.json(l, false)
	}
	mark := "|"
	if l.Stream == "stderr" {
		mark = "!"
	}
	a.stdout.printf("%s#%d %s %s\n", l.StepID, l.Attempt, mark, l.Text)
	return a.stdout.err
}
