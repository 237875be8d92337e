package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
)

// artifactsOptions are the flags of run artifacts.
type artifactsOptions struct {
	run, step, out string
}

func newRunArtifactsCmd(a *app) *cobra.Command {
	var opt artifactsOptions
	c := &cobra.Command{
		Use:   "artifacts RUN",
		Short: "List the files that a run has made, or write them out",
		Long: "List the files that the attempts of a run handed over, with their SHA-256 as the ledger\n" +
			"has it. With --out they are written to a folder, those of each step's last attempt, and\n" +
			"hashed on the way; a file that is there already is not replaced.",
		Example: "  stella orch run artifacts 01935b1e-…\n  stella orch run artifacts 01935b1e-… --step report --out report",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opt.run = args[0]
			return runRunArtifacts(c.Context(), a, opt)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.step, "step", "", "only those of this `STEP`")
	f.StringVarP(&opt.out, "out", "o", "", "`FOLDER` to write them to")
	return c
}

// artifactList is the JSON of a list.
type artifactList struct {
	Artifacts []api.Artifact `json:"artifacts"`
	Folder    string         `json:"folder,omitempty"`
}

func runRunArtifacts(ctx context.Context, a *app, opt artifactsOptions) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		list, err := r.ListArtifacts(ctx, opt.run)
		if err != nil {
			return err
		}
		all := artifactList{Artifacts: []api.Artifact{}}
		last := map[string]int{}
		for _, x := range list {
			last[x.StepID] = max(last[x.StepID], x.Attempt)
		}
		for _, x := range list {
			if (opt.step == "" || x.StepID == opt.step) && (opt.out == "" || x.Attempt == last[x.StepID]) {
				all.Artifacts = append(all.Artifacts, x)
			}
		}
		if opt.out != "" {
			if all.Folder, err = absolute(opt.out); err != nil {
				return err
			}
			if err := writeArtifacts(ctx, r, all); err != nil {
				return err
			}
		}
		return a.acted(opt.out == "", all, func(s *screen) { renderArtifacts(s, all) })
	})
}

// writeArtifacts writes each artifact under its name; where two steps made the
// same name, under STEP.NAME.
func writeArtifacts(ctx context.Context, r *reached, all artifactList) error {
	if err := os.Mkdir(all.Folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fileError(all.Folder, err)
	}
	count := map[string]int{}
	for _, x := range all.Artifacts {
		count[x.Name]++
	}
	for _, x := range all.Artifacts {
		name := x.Name
		if count[name] > 1 {
			name = x.StepID + "." + name
		}
		if name != filepath.Base(name) || name == "." || name == ".." {
			return fmt.Errorf("artifact %q: its name is not that of a file", x.Name)
		}
		if err := writeArtifact(ctx, r, x.SHA256, filepath.Join(all.Folder, name)); err != nil {
			return err
		}
	}
	return nil
}

func writeArtifact(ctx context.Context, r *reached, digest, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return &api.Error{Code: api.CodeConflict, Message: path + " exists", Hint: "choose another --out"}
	}
	f, err := fsx.Create(path, fsx.ByUmask(0o666))
	if err != nil {
		return fileError(path, err)
	}
	defer f.Close()
	if err := r.ReadArtifact(ctx, digest, f); err != nil {
		return err
	}
	return f.Commit()
}

func renderArtifacts(s *screen, all artifactList) {
	if all.Folder != "" {
		s.fields("folder", all.Folder, "files", strconv.Itoa(len(all.Artifacts)))
		s.printf("\n")
	}
	rows := [][]string{}
	for _, x := range all.Artifacts {
		rows = append(rows, []string{x.StepID + "#" + strconv.Itoa(x.Attempt), x.Name, size(x.Size), x.MediaType, x.SHA256})
	}
	s.table([]string{"STEP", "NAME", "SIZE", "TYPE", "SHA256"}, rows)
}
