package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/diff"
)

func newDAGDiffCmd(a *app) *cobra.Command {
	exitCode := false
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what changed between two DAG specs",
		Long: "Say what changed from A to B, each a file, a bundle's source folder, or the ID@VERSION of a\n" +
			"published version: steps that were added, removed or changed, field by field, with needs,\n" +
			"inputs, limits and plugin versions. The order of steps and comments mean nothing.",
		Example: "  stella orch dag diff audit@1.0.0 audit@1.1.0\n  stella orch dag diff audit@1.0.0 dag/ --exit-code",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return runDAGDiff(c.Context(), a, args[0], args[1], exitCode)
		},
	}
	addExitCode(c, &exitCode)
	return c
}

// dagDiff is what changed between two specs.
type dagDiff struct {
	A       dagName       `json:"a"`
	B       dagName       `json:"b"`
	Same    bool          `json:"same"`
	Changes []diff.Change `json:"changes"`
}

type dagName struct {
	Name    string `json:"name"` // as it was given
	DAGID   string `json:"dagId"`
	Version string `json:"version"`
}

func runDAGDiff(ctx context.Context, a *app, from, to string, exitCode bool) error {
	x, err := specOf(ctx, a, from)
	if err != nil {
		return err
	}
	y, err := specOf(ctx, a, to)
	if err != nil {
		return err
	}
	d := dagDiff{A: dagName{from, x.ID, x.Version}, B: dagName{to, y.ID, y.Version}, Changes: diff.Values(dagTree(x), dagTree(y))}
	if d.Same = len(d.Changes) == 0; d.Same {
		d.Changes = []diff.Change{}
	}
	err = a.emit(d, func(s *screen) {
		if d.Same {
			s.printf("%s and %s say the same\n", from, to)
			return
		}
		renderChanges(s, "", d.Changes, []string{"step", "on_failure", "on_cancel", "inputs"})
	})
	if err != nil {
		return err
	}
	return differ(from, to, len(d.Changes), exitCode)
}
