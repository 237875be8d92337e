package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// While data is erased others read and write: they notice nothing, and nothing of theirs is
// lost.
func TestOthersGoOnWhileDataIsErased(t *testing.T) {
	const people, each = 4, 15
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	var entries []int64
	for i := range each {
		run := l.start(api.StartRequest{DAGID: "audit", RunToken: fmt.Sprint("before", i), Metadata: map[string]string{"for": "Erika Mustermann"}}).Run
		entries = append(entries, l.seqOf(run.RunID, ledger.RunStarted))
	}
	other := l.e.As(api.Principal{Name: "uid:4242(other)"})
	var wait sync.WaitGroup
	for p := range people {
		wait.Go(func() {
			for i := range each {
				run, err := l.site().StartRun(ctx, api.StartRequest{DAGID: "audit", RunToken: fmt.Sprint(p, "-", i)})
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := l.site().InspectRun(ctx, run.Run.RunID); err != nil || got.Run.RunID != run.Run.RunID {
					t.Errorf("%+v, %v", got.Run, err)
				}
			}
		})
	}
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	wait.Go(func() {
		for i := range dirs {
			if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: dirs[i]}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	for _, seq := range entries {
		req, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{seq}, Reason: "by law"})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := other.EraseData(ctx, api.ErasureRequest{Agree: &req.Seq}); err != nil || rep.Waits != "" {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
	wait.Wait()
	if raw, err := os.ReadFile(filepath.Join(l.home, "ledger.db")); err != nil || bytes.Contains(raw, []byte("Mustermann")) {
		t.Errorf("it is still in ledger.db (%v)", err)
	}
	l.verify()
	l.reopen()
	l.verify()
	for p := range people {
		for i := range each {
			if again, err := l.site().StartRun(ctx, api.StartRequest{DAGID: "audit", RunToken: fmt.Sprint(p, "-", i)}); err != nil || !again.Replayed {
				t.Errorf("run %d of %d is lost: %v", i, p, err)
			}
		}
	}
}

// A snapshot that is being made while data is erased may have it, and is named, wherever it
// goes.
func TestASnapshotUnderWayIsNamed(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	run := l.start(api.StartRequest{DAGID: "audit", RunToken: "t", Metadata: map[string]string{"for": "Erika Mustermann"}}).Run
	req, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{l.seqOf(run.RunID, ledger.RunStarted)}, Reason: "by law"})
	if err != nil {
		t.Fatal(err)
	}
	other, dir := l.e.As(api.Principal{Name: "uid:4242(other)"}), t.TempDir()
	var during api.ErasureReport
	snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: dir}, func(int64, int64) {
		if begun, _ := filepath.Glob(filepath.Join(dir, "*", "ledger.db")); len(begun) == 0 || during.Seq > 0 {
			return // nobody can write yet
		}
		var err error
		if during, err = other.EraseData(ctx, api.ErasureRequest{Agree: &req.Seq}); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !speaks(t, snap.Path, "Mustermann") {
		t.Fatalf("the snapshot has not what was erased: nothing was tried (%v)", err)
	}
	if !slices.Equal(during.Copies, []string{dir}) {
		t.Errorf("the copies are %q, not %q", during.Copies, dir)
	}
	run = l.start(api.StartRequest{DAGID: "audit", RunToken: "u", Metadata: map[string]string{"for": "Erika Mustermann"}}).Run
	if req, err = l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{l.seqOf(run.RunID, ledger.RunStarted)}, Reason: "by law"}); err != nil {
		t.Fatal(err)
	}
	if rep, err := other.EraseData(ctx, api.ErasureRequest{Agree: &req.Seq}); err != nil || len(rep.Copies) > 0 {
		t.Errorf("with none under way the copies are %q (%v)", rep.Copies, err)
	}
}
