package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// replace puts other bytes in the place of a sealed blob.
func replace(t *testing.T, b *store.Blobs, digest, with string) {
	t.Helper()
	path := b.Path(digest)
	os.Chmod(filepath.Dir(path), 0o755)
	defer os.Chmod(filepath.Dir(path), 0o555)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(with), 0o444); err != nil {
		t.Fatal(err)
	}
}

// A damaged blob is replaced whenever its bytes come in again, by each way in.
func TestADamagedBlobIsReplaced(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	const text = "the bytes"
	digest, err := db.Blobs().PutFile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	quarantine := func(b *store.Blobs, add func(*store.Quarantine) error) error {
		q, err := b.Quarantine()
		if err != nil {
			return err
		}
		defer q.Discard()
		if err := add(q); err != nil {
			return err
		}
		return q.Seal()
	}
	for way, in := range map[string]func(*store.Blobs) error{
		"PutFrom": func(b *store.Blobs) error {
			_, _, err := b.PutFrom(strings.NewReader(text), 100)
			return err
		},
		"Add": func(b *store.Blobs) error {
			return quarantine(b, func(q *store.Quarantine) error { return q.AddBytes([]byte(text)) })
		},
		"Begin": func(b *store.Blobs) error {
			return quarantine(b, func(q *store.Quarantine) error {
				w, err := q.Begin(digest)
				if w == nil || err != nil {
					return errors.Join(err, errors.New("Begin says that the blob is whole"))
				}
				io.WriteString(w, text)
				return w.Commit()
			})
		},
	} {
		for _, bad := range []string{"", "the bytez", "the bytes and more"} {
			replace(t, db.Blobs(), digest, bad)
			if err := in(db.Blobs()); err != nil {
				t.Errorf("%s over %q: %v", way, bad, err)
			}
			if raw, err := db.Blobs().Read(digest, 100); err != nil || string(raw) != text {
				t.Errorf("%s over %q left %q, %v", way, bad, raw, err)
			}
		}
	}
}

// PutFile trusts what this process has sealed, by a look at its size; what an
// earlier one has sealed it hashes first.
func TestPutFileHashesWhatItDidNotSeal(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	digest, err := db.Blobs().PutFile([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	replace(t, db.Blobs(), digest, "{")
	if _, err := db.Blobs().PutFile([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Blobs().Check(digest); err != nil {
		t.Errorf("a blob that was cut stays: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	replace(t, db.Blobs(), digest, "[]")
	if db, err = store.Open(home, store.Options{}); err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	if _, err := db.Blobs().PutFile([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Blobs().Check(digest); err != nil {
		t.Errorf("a blob of an earlier process stays damaged: %v", err)
	}
	if _, err := db.Blobs().PutFile([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(home, "quarantine"))
	if err != nil || len(entries) != 0 {
		t.Errorf("the quarantine holds %v, %v", entries, err)
	}
}

// Many that put the same bytes at once all get a whole blob.
func TestPutTheSameAtOnce(t *testing.T) {
	db := create(t, newHome(t))
	raw := bytes.Repeat([]byte("x"), 1<<16)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			digest, err := db.Blobs().Put(raw)
			if err == nil {
				_, err = db.Blobs().Check(digest)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// The deep check hashes artifacts and logs, and names the entry.
func TestCheckReadsArtifactsAndLogs(t *testing.T) {
	db := create(t, newHome(t))
	sealed, err := db.Blobs().Put(nil) // its digest stands for all evidence here
	if err != nil || sealed != digest {
		t.Fatal(sealed, err)
	}
	art, err := db.Blobs().PutFile([]byte("artifact"))
	if err != nil {
		t.Fatal(err)
	}
	segment := "{}\n"
	log, err := db.Blobs().Put([]byte(segment)) // only for its digest
	if err != nil {
		t.Fatal(err)
	}
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	end := &ledger.AttemptEnd{
		Generation: 1, Outcome: "succeeded", Logs: &ledger.LogRef{SHA256: log, Bytes: 3, Records: 1},
		Artifacts: []ledger.Artifact{{Name: "a.txt", SHA256: art, Size: 8}},
	}
	if _, err := db.Commit(run.RunID,
		state.Proposal{Type: ledger.AttemptStarted, Actor: "x", StepID: "a", Attempt: 1, Data: &ledger.AttemptStart{Generation: 1}},
		state.Proposal{Type: ledger.AttemptEnded, Actor: "x", StepID: "a", Attempt: 1, Data: end}); err != nil {
		t.Fatal(err)
	}
	opt := store.CheckOptions{Blobs: true, Logs: func(string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(segment)), nil
	}}
	rep, err := db.Check(context.Background(), opt)
	if err != nil || rep.Blobs != 3 {
		t.Fatalf("%d blobs, %v; the evidence, the artifact and the log are 3", rep.Blobs, err)
	}
	named := func(what string) {
		t.Helper()
		_, err := db.Check(context.Background(), opt)
		var d *store.Damage
		if !errors.As(err, &d) || d.What != what+" of entry 5" {
			t.Errorf("check says %v; the %s is damaged", err, what)
		}
	}
	segment = "[]\n"
	named("log")
	segment = "{}\n"
	replace(t, db.Blobs(), art, "other")
	named("artifact a.txt")
	if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil {
		t.Errorf("the check of the database alone read a blob: %v", err)
	}
}

func TestNotePaths(t *testing.T) {
	db := create(t, newHome(t))
	for _, want := range [][]string{nil, {"/a"}, {"/a", "/b"}, {"/b"}} {
		if want != nil {
			if err := db.PutNotePaths(append(want, want...)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := db.NotePaths()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}
