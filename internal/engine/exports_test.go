package engine_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/server/api"
)

// Of two archives that are made for one path at once, one is there, and the other refused.
func TestTwoExportsToOnePath(t *testing.T) {
	l := newLab(t)
	for _, split := range []int64{0, 64 << 10} {
		path := filepath.Join(t.TempDir(), "x.tar")
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() {
				_, err := l.site().CreateExport(context.Background(), api.ExportRequest{Path: path, PartBytes: split}, nil)
				errs <- err
			}()
		}
		if a, b := codeOf(<-errs), codeOf(<-errs); a+b != api.CodeConflict {
			t.Errorf("parts of %d: %q and %q", split, a, b)
		}
	}
}
