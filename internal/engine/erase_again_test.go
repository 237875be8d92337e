package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/server/api"
)

const mustermann = "Erika Mustermann"

// saying is a site with runs for somebody, and the seqs of the entries that name him.
func saying(t *testing.T, runs int) (l *lab, seqs []int64) {
	t.Helper()
	l = newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	for i := range runs {
		run := l.start(api.StartRequest{DAGID: "audit", RunToken: fmt.Sprint("t", i), Metadata: map[string]string{"for": mustermann}}).Run
		seqs = append(seqs, l.seqOf(run.RunID, ledger.RunStarted))
	}
	l.execute()
	return l, seqs
}

// other is another person than who has the lab.
func (l *lab) other() api.Site { return l.e.As(api.Principal{Name: "uid:4242(other)"}) }

// erase lets two people agree to an erasure.
func (l *lab) erase(seqs ...int64) (rep api.ErasureReport, request int64) {
	l.t.Helper()
	req, err := l.site().EraseData(context.Background(), api.ErasureRequest{Entries: seqs, Reason: "by law"})
	if err == nil {
		rep, err = l.other().EraseData(context.Background(), api.ErasureRequest{Agree: &req.Seq})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return rep, req.Seq
}

// block lets no database be made beside the one in a folder.
func block(t *testing.T, dir string) (clear func()) {
	t.Helper()
	inTheWay := filepath.Join(dir, "ledger.db.new")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(inTheWay); err != nil {
			t.Fatal(err)
		}
	}
}

// What could not be erased keeps no site shut, is told, and goes with the next of these.
func TestAnErasureThatWaitsIsTriedAgain(t *testing.T) {
	ctx := context.Background()
	for name, again := range map[string]func(l *lab, request int64) (waits string, err error){
		"agreed again": func(l *lab, request int64) (string, error) {
			rep, err := l.other().EraseData(ctx, api.ErasureRequest{Agree: &request})
			return rep.Waits, err
		},
		"another request": func(l *lab, _ int64) (string, error) {
			rep, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{l.seqOf("", ledger.RunStarted)}, Reason: "by law"})
			return rep.Waits, err
		},
		"a collection": func(l *lab, _ int64) (string, error) {
			rep, err := l.site().CollectGarbage(ctx, api.GCRequest{}, nil)
			return rep.Waits, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, seqs := saying(t, 2)
			clear := block(t, l.home)
			rep, request := l.erase(seqs[1])
			if rep.Waits == "" {
				t.Fatal("it was erased over what is in the way")
			}
			l.reopen()
			if waits, err := again(l, request); err != nil || waits == "" {
				t.Errorf("while it cannot be: %q, %v", waits, err)
			}
			if st, err := l.site().Status(ctx); err != nil || !strings.Contains(strings.Join(st.Warnings, " "), "to be erased") {
				t.Errorf("the status is silent of it: %q, %v", st.Warnings, err)
			}
			clear()
			if waits, err := again(l, request); err != nil || waits != "" {
				t.Errorf("once it can be: %q, %v", waits, err)
			}
			if line, err := l.site().ShowLedger(ctx, seqs[1]); err != nil || line.Data != nil {
				t.Errorf("it is shown: %v", err)
			}
			if st, err := l.site().Status(ctx); err != nil || len(st.Warnings) > 0 {
				t.Errorf("the status: %q, %v", st.Warnings, err)
			}
			l.verify()
		})
	}
}

// A daemon and a compaction carry out what waits, and go on where they cannot.
func TestWhoeverHoldsTheSiteAloneErasesWhatWaits(t *testing.T) {
	for name, again := range map[string]func(l *lab) error{
		"a daemon": func(l *lab) error {
			l.open()
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // it begins, and ends
			if err := l.e.Execute(ctx, engine.Forever); err != nil && ctx.Err() == nil {
				return err
			}
			return l.e.Close()
		},
		"a compaction": func(l *lab) error {
			_, err := engine.Compact(context.Background(), engine.Options{Home: l.home, Executor: sandbox.New(sandbox.Options{})}, who, false)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, seqs := saying(t, 1)
			clear := block(t, l.home)
			if rep, _ := l.erase(seqs...); rep.Waits == "" {
				t.Fatal("it was erased over what is in the way")
			}
			if err := l.e.Close(); err != nil {
				t.Fatal(err)
			}
			clear()
			if err := l.tryOpen(); err != nil || !speaks(t, l.home, mustermann) {
				t.Errorf("to open the site was enough, or impossible: %v", err)
			}
			if err := again(l); err != nil || speaks(t, l.home, mustermann) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// A restore that cannot erase again what was erased is a restore all the same, and says so.
func TestARestoreThatCannotEraseSaysSo(t *testing.T) {
	ctx := context.Background()
	l, seqs := saying(t, 1)
	before, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.erase(seqs...)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	blocked := false
	r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, ID: before.ID, Actor: who, Reason: "x", Progress: func(int64, int64) {
		if !blocked {
			block(t, filepath.Join(l.home, "restoring"))
			blocked = true
		}
	}})
	if err != nil || !slices.Equal(r.Erased, seqs) || r.Waits == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	l.waive("checkpoint.note")
	l.open()
	if line, err := l.site().ShowLedger(ctx, seqs[0]); err != nil || line.Data != nil || !speaks(t, l.home, mustermann) {
		t.Errorf("it is shown, or gone: %v", err)
	}
	if rep, err := l.site().CollectGarbage(ctx, api.GCRequest{}, nil); err != nil || rep.Waits != "" || speaks(t, l.home, mustermann) {
		t.Errorf("a collection has not erased it: %+v, %v", rep, err)
	}
	l.verify()
}

// What only meta of a ledger says is erased is in no entry of the next epoch, and stays; who
// restores is told, where there is something to erase.
func TestWhatOnlyMetaSaysIsAskedForAgain(t *testing.T) {
	ctx := context.Background()
	l, seqs := saying(t, 2)
	before, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.erase(seqs[0])
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	says := func(text string) {
		t.Helper()
		b, err := bolt.Open(filepath.Join(l.home, "ledger.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("erased"), []byte(text)) }); err != nil {
			t.Fatal(err)
		}
	}
	all := fmt.Sprintf("[0,%d,%d,4711]", seqs[0], seqs[1]) // of the first entry nothing can be erased
	says(all)
	r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, ID: before.ID, Actor: who, Reason: "x"})
	if err != nil || !slices.Equal(r.Erased, seqs[:1]) || !slices.Equal(r.Unsure, seqs[1:]) || r.Waits != "" {
		t.Fatalf("restored: %+v, %v", r, err)
	}
	l.waive("checkpoint.note")
	says(all)
	rec, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
	if err != nil || rec.Sound || len(rec.Erased) > 0 || !slices.Equal(rec.Unsure, seqs[1:]) {
		t.Fatalf("recovered: %+v, %v", rec, err)
	}
	l.open()
	l.verify()
	if line, err := l.site().ShowLedger(ctx, seqs[1]); err != nil || line.Data == nil {
		t.Errorf("what nobody has agreed to erase is gone: %v", err)
	}
	if line, err := l.site().ShowLedger(ctx, seqs[0]); err != nil || line.Data != nil {
		t.Errorf("what was erased is here again: %v", err)
	}
}
