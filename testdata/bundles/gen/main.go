// Command gen writes testdata/bundles anew, byte for byte the same each time.
// Run it from the top of the repository: go run ./testdata/bundles/gen
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/stellarun/stella/verify/verifytest"
)

const dir = "testdata/bundles"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	if _, err := os.Stat(filepath.Join(dir, "gen")); err != nil {
		return fmt.Errorf("not at the top of the repository: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.stella"))
	if err != nil {
		return err
	}
	for _, path := range append(old, filepath.Join(dir, "trust")) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for name, data := range verifytest.Tree() {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
