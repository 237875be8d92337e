package engine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/server/api"
)

// Of two archives that are made for one path at once, one is there and on record, and the other
// refused.
func TestTwoExportsToOnePath(t *testing.T) {
	l := newLab(t)
	for i, split := range []int64{0, 64 << 10} {
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
		if all, err := l.site().ListExports(context.Background()); err != nil || len(all) != i+1 {
			t.Errorf("parts of %d: %d on record, %v", split, len(all), err)
		}
	}
}

// A link and ".." lead the system elsewhere than the text of a path says: nothing of the home is
// written over that way.
func TestNoPathLeadsAnExportIntoTheHome(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	note := filepath.Join(l.home, "checkpoint.note")
	was, err := os.ReadFile(note)
	if err := errors.Join(err, os.Symlink(filepath.Join(l.home, "cache"), filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site().CreateExport(context.Background(), api.ExportRequest{Path: dir + "/link/../checkpoint.note", Force: true}, nil); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(note); err != nil || !bytes.HasPrefix(now, was[:20]) || len(now) > 1000 {
		t.Errorf("checkpoint.note was written over: %d bytes, %v", len(now), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoint.note")); err != nil {
		t.Error(err)
	}
	if _, err := l.site().CreateExport(context.Background(), api.ExportRequest{Path: dir + "/link/x.tar"}, nil); codeOf(err) != api.CodeInvalid {
		t.Errorf("through the link: %v", err)
	}
}
