package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// closed closes the site of a lab.
func (l *lab) closed() {
	l.t.Helper()
	if err := l.e.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// What a snapshot and a compaction need is what they will write: neither pages that are free
// nor what the file has behind its pages, of which a disk may have nothing.
func TestWhatWillBeWrittenIsCounted(t *testing.T) {
	ctx := context.Background()
	const most = 8 << 20
	l := newLab(t)
	l.closed()
	if err := os.Truncate(filepath.Join(l.home, "ledger.db"), 1<<40); err != nil {
		t.Fatal(err)
	}
	l.open()
	snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{DryRun: true}, nil)
	if err != nil || snap.Bytes > most {
		t.Errorf("a snapshot: %d bytes, %v", snap.Bytes, err)
	}
	l.closed()
	for _, dry := range []bool{true, false} {
		c, err := engine.Compact(ctx, engine.Options{Home: l.home}, who, dry)
		if err != nil || c.Before != 1<<40 || !dry && c.After > 1<<30 {
			t.Errorf("a compaction, dry %v: %+v, %v", dry, c, err)
		}
	}
	l.open()
	l.verify()
}
