package runner_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/runner"
)

// mark begins the lines of a broken spec that say what is wrong with it.
const mark = "#! "

// TestBrokenSpecs reads testdata/broken: each file ends with all its faults.
func TestBrokenSpecs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "broken", "*.toml"))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".toml"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			spec, want, _ := bytes.Cut(raw, []byte(mark))
			if len(want) > 0 {
				want = append([]byte(mark), want...)
			}
			_, faults := runner.Check("spec", spec)
			var got strings.Builder
			for _, f := range faults {
				text := strings.TrimPrefix(strings.TrimPrefix(f.String(), "spec:"), "spec: ")
				if strings.Contains(text, "this version of stella does not execute it") {
					continue // true of the spec, and no fault of its author
				}
				got.WriteString(mark + text + "\n")
			}
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, append(spec, got.String()...), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" || len(want) == 0 {
				t.Errorf("%s\n(-want +got), UPDATE_GOLDEN=1 writes it:\n%s", spec, diff)
			}
		})
	}
}
