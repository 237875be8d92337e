package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
)

// maxSpec is the most that a DAG spec may hold.
const maxSpec = 1 << 20

func newOrchCmd(a *app) *cobra.Command {
	return group("orch", "DAGs and their runs",
		"Publish DAGs, start runs of them, by hand or by the clock, watch, resume and cancel them.",
		newDAGCmd(a), newRunCmd(a),
		newApprovalsCmd(a),
		newScheduleCmd(a), newOutboxCmd(a),
		newQueueCmd(a), newCacheCmd(a), newWarmCmd(a))
}

func newDAGCmd(a *app) *cobra.Command {
	return group("dag", "DAG versions",
		"Check, draw and publish DAG specs. A published version never changes; a fix is a new version.",
		newDAGValidateCmd(a), newDAGGraphCmd(a), newDAGPublishCmd(a), newDAGListCmd(a), newDAGShowCmd(a), newDAGDiffCmd(a),
		newDAGEnableCmd(a), newDAGDisableCmd(a))
}

// specText reads the text of a DAG spec from a file, or from the source folder
// of a bundle, and says which file that is.
func specText(path string) (file string, raw []byte, err error) {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		raw, err := fsx.ReadFile(filepath.Join(path, bundle.ManifestName), bundle.MaxManifest)
		if err != nil {
			return "", nil, fileError(filepath.Join(path, bundle.ManifestName), err)
		}
		m, err := manifests.ParseSource(filepath.Join(path, bundle.ManifestName), raw)
		if err != nil {
			return "", nil, faulty(path, err)
		}
		if m.DAG == nil {
			return "", nil, invalid("%s is the source of a %s bundle, not of a DAG", path, m.Kind)
		}
		path = filepath.Join(path, filepath.FromSlash(m.DAG.Spec))
	}
	raw, err = fsx.ReadFile(path, maxSpec)
	if err != nil {
		return "", nil, fileError(path, err)
	}
	return path, raw, nil
}

// readSpec reads and checks a DAG spec, its expressions included.
func readSpec(path string) (file string, d *manifests.DAG, err error) {
	file, raw, err := specText(path)
	if err != nil {
		return "", nil, err
	}
	d, faults := runner.Check(file, raw)
	if len(faults) > 0 {
		return "", nil, faulty(file, faults)
	}
	return file, d, nil
}

// faulty is a file with faults: all of them, a line each.
func faulty(path string, err error) error {
	var faults manifests.Faults
	if !errors.As(err, &faults) {
		return invalid("%s: %v", path, err)
	}
	e := api.Error{Code: codeFileInvalid, Message: fmt.Sprintf("%s has %d faults", path, len(faults))}
	if len(faults) == 1 {
		e.Message = path + " has a fault"
	}
	for _, f := range faults {
		e.Faults = append(e.Faults, f.String())
	}
	return &e
}

func newDAGValidateCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE|DIR",
		Short: "Check a DAG spec",
		Long: "Check a DAG spec, or the one in a bundle's source folder, and report every fault with\n" +
			"its line, and in expressions with its place. No site is needed, so plugins and data are\n" +
			"not looked up: publish does that. What is valid but does nothing, such as an input that no\n" +
			"expression uses, is a note.",
		Example: "  stella orch dag validate dag.toml",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runDAGValidate(a, args[0]) },
	}
}

// dagSummary is what validate says of a spec.
type dagSummary struct {
	DAGID   string   `json:"dagId"`
	Version string   `json:"version"`
	Order   []string `json:"order"`           // the steps, as they would be started one at a time
	Notes   []string `json:"notes,omitempty"` // what does nothing, or never happens; no fault
}

func runDAGValidate(a *app, path string) error {
	file, d, err := readSpec(path)
	if err != nil {
		return err
	}
	sum := dagSummary{DAGID: d.ID, Version: d.Version, Order: []string{}}
	for _, n := range runner.Advise(file, d) {
		sum.Notes = append(sum.Notes, n.String())
		a.stderr.note("note: %s", n.String())
	}
	for _, s := range runner.Order(d) {
		sum.Order = append(sum.Order, s.ID)
	}
	return a.emit(sum, func(s *screen) {
		s.printf("%s %s is valid: %s\n", sum.DAGID, sum.Version, strings.Join(sum.Order, ", "))
	})
}

func newDAGPublishCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "publish REF|FILE.stella",
		Short: "Make the DAG of a bundle startable",
		Long: "Make the DAG of an admitted bundle startable, after checking that all it names is here.\n" +
			"REF is a digest, at least 8 digits of one, or publisher/name@version. A file is imported\n" +
			"first, and only if its DAG can be published. Publishing again changes nothing.",
		Example: "  stella orch dag publish acme/audit@1.0.0\n  stella orch dag publish audit-1.0.0.stella",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runDAGPublish(c.Context(), a, args[0]) },
	}
}

func runDAGPublish(ctx context.Context, a *app, given string) error {
	ref, file := given, ""
	if fi, err := os.Stat(ref); err == nil && fi.Mode().IsRegular() {
		if file, err = absolute(ref); err != nil {
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if file != "" {
			res, err := r.ImportBundle(ctx, api.ImportRequest{Path: file, Publishable: true}, a.progressOf("importing"))
			if err != nil {
				return err
			}
			ref = res.Verdict.Digest
		}
		d, err := r.PublishDAG(ctx, ref)
		if err != nil {
			return about(given, err)
		}
		return a.acted(false, d, func(s *screen) {
			s.printf("published %s %s (%s)\n", d.DAGID, d.Version, short(d.Digest))
		})
	})
}

// about names what was given in an error that does not.
func about(given string, err error) error {
	var e *api.Error
	if !errors.As(err, &e) || strings.Contains(e.Message, given) {
		return err
	}
	named := *e
	named.Message = given + ": " + e.Message
	return &named
}

func newDAGListCmd(a *app) *cobra.Command {
	var q api.DAGQuery
	c := &cobra.Command{
		Use:     "list",
		Short:   "List published DAG versions",
		Long:    "List published DAG versions, by id and then the newest first.",
		Example: "  stella orch dag list\n  stella orch dag list --dag-id audit --active",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDAGList(c.Context(), a, q) },
	}
	c.Flags().BoolVar(&q.Active, "active", false, "only versions that are enabled")
	c.Flags().StringVar(&q.DAGID, "dag-id", "", "only versions of this DAG `ID`")
	return c
}

// The shapes of lists as JSON, the same as the API's.
type (
	dagList struct {
		DAGs []api.DAG `json:"dags"`
	}
	bundleList struct {
		Bundles []api.Bundle `json:"bundles"`
	}
	entryList struct {
		Entries []api.LedgerLine `json:"entries"`
	}
)

func runDAGList(ctx context.Context, a *app, q api.DAGQuery) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		dags, err := r.ListDAGs(ctx, q)
		if err != nil {
			return err
		}
		return emitList(a, dagList{dags}, dags, []string{"DAG", "VERSION", "PUBLISHER", "STATE", "PUBLISHED", "DESCRIPTION"},
			func(d api.DAG) []string {
				return []string{d.DAGID, d.Version, d.Publisher, dagState(d), seconds(d.PublishedUTC), d.Description}
			})
	})
}

func newDAGShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID[@VERSION]",
		Short:   "Show a published DAG version with its spec",
		Long:    "Show a published DAG version with its spec; without a version, the highest enabled one.",
		Example: "  stella orch dag show audit\n  stella orch dag show audit@1.0.0 --output json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runDAGShow(c.Context(), a, args[0]) },
	}
}

func runDAGShow(ctx context.Context, a *app, name string) error {
	id, v, _ := strings.Cut(name, "@")
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		d, err := r.ShowDAG(ctx, id, v)
		if err != nil {
			return err
		}
		return a.emit(d, func(s *screen) {
			s.fields("dag", d.DAGID+" "+d.Version, "state", dagStateWhy(d.DAG), "publisher", d.Publisher, "bundle", "sha256:"+d.Digest, "published", seconds(d.PublishedUTC))
			s.printf("\n")
			s.text(d.Spec)
		})
	})
}

// specOf reads a spec by file or folder, or by the name of a published version.
// What expressions say is not looked at: nothing is to be executed.
func specOf(ctx context.Context, a *app, name string) (*manifests.DAG, error) {
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		file, raw, err := specText(name)
		if err != nil {
			return nil, err
		}
		d, err := manifests.ParseDAG(file, raw)
		if err != nil {
			return nil, faulty(file, err)
		}
		return d, nil
	}
	id, v, _ := strings.Cut(name, "@")
	if !manifests.ValidName(id) {
		return nil, fileError(name, fs.ErrNotExist)
	}
	var d *manifests.DAG
	err := a.withSite(ctx, func(ctx context.Context, r *reached) error {
		detail, err := r.ShowDAG(ctx, id, v)
		if err != nil {
			return err
		}
		d, err = manifests.ParsePublishedDAG(detail.DAGID+"@"+detail.Version, []byte(detail.Spec))
		return err
	})
	return d, err
}
