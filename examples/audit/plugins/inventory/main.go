// Command inventory is the plugin acme/audit-inventory: it reads what is
// installed on a machine and hands over a software bill of materials. Its
// action go looks into Go programs, its action debian into the database of
// dpkg. It writes nothing but its artifact and runs nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"path/filepath"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/attempt"
	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/debian"
	"github.com/stellarun/stella/examples/audit/internal/gobin"
	"github.com/stellarun/stella/examples/audit/internal/inventory"
	"github.com/stellarun/stella/plugin"
)

func main() {
	log.SetFlags(0)
	plugin.Main(run)
}

func run(ctx context.Context, c *plugin.Call) error {
	switch c.Request.Action {
	case "go":
		return runGo(ctx, c)
	case "debian":
		return runDebian(c)
	}
	return plugin.Rejectf("there is no action %q", c.Request.Action)
}

func runGo(ctx context.Context, c *plugin.Call) error {
	var params struct {
		Roots   []string `json:"roots"`
		Subject string   `json:"subject"`
	}
	if err := c.Params(&params); err != nil {
		return err
	}
	for _, r := range params.Roots {
		if !isAbsolute(r) {
			return plugin.Rejectf("root %q is not an absolute path", r)
		}
	}
	found, err := gobin.Scan(ctx, params.Roots, gobin.Limits{})
	if err != nil {
		return err
	}
	for _, m := range found.Missing {
		log.Printf("%s is not there", m)
	}
	log.Printf("%d files in %d folders, %d Go programs; not read: %d unreadable, %d too large, %d malformed; %d links not followed",
		found.Files, found.Roots, len(found.Programs), found.Unreadable, found.Oversized, found.Malformed, found.Links)
	started, err := attempt.Started()
	if err != nil {
		return err
	}
	bom := inventory.Go(found.Programs, inventory.Origin{Subject: params.Subject, Timestamp: started})
	return handOver(c, bom,
		attempt.Value{Key: "programs", Value: len(found.Programs)},
		attempt.Value{Key: "files", Value: found.Files},
		attempt.Value{Key: "missingRoots", Value: len(found.Missing)},
		attempt.Value{Key: "unreadable", Value: found.Unreadable},
		attempt.Value{Key: "oversized", Value: found.Oversized},
		attempt.Value{Key: "malformed", Value: found.Malformed},
		attempt.Value{Key: "linksNotFollowed", Value: found.Links},
		attempt.Value{Key: "foldersTooDeep", Value: found.TooDeep},
	)
}

func runDebian(c *plugin.Call) error {
	params := struct {
		Root    string `json:"root"`
		Subject string `json:"subject"`
	}{Root: "/"}
	if err := c.Params(&params); err != nil {
		return err
	}
	if !isAbsolute(params.Root) {
		return plugin.Rejectf("root %q is not an absolute path", params.Root)
	}
	root := strings.TrimSuffix(params.Root, "/")
	note := ""
	release, err := debian.ReadRelease(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		release.ID = "linux"
		note = "no release file: the release is not known. "
	case err != nil:
		return err
	}
	db, err := debian.ReadDatabase(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		note += fmt.Sprintf("no package database below %s", params.Root)
	case err != nil:
		return fmt.Errorf("the package database is damaged: %w", err)
	}
	if note = strings.TrimSpace(note); note != "" {
		log.Print(note)
	}
	log.Printf("%d packages of %s", len(db.Packages), release.Distro())
	started, err := attempt.Started()
	if err != nil {
		return err
	}
	bom := inventory.Debian(release, db.Packages, inventory.Origin{Subject: params.Subject, Timestamp: started})
	return handOver(c, bom,
		attempt.Value{Key: "packages", Value: len(db.Packages)},
		attempt.Value{Key: "partial", Value: db.Partial},
		attempt.Value{Key: "distro", Value: release.Distro()},
		attempt.Value{Key: "note", Value: note},
	)
}

func isAbsolute(path string) bool {
	return filepath.IsAbs(path) && !strings.ContainsRune(path, 0)
}

func handOver(c *plugin.Call, bom cyclonedx.BOM, more ...attempt.Value) error {
	raw, err := cyclonedx.Encode(bom)
	if err != nil {
		return err
	}
	if err := attempt.Write(c, "sbom", cyclonedx.MediaType, raw); err != nil {
		return err
	}
	return attempt.Outputs(c, append(more, attempt.Value{Key: "components", Value: len(bom.Components)})...)
}
