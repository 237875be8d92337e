package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// newHome makes the folders that a site has.
func newHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	for _, dir := range []string{"sealed/sha256", "quarantine", "cache"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // sealed folders are read-only
		filepath.WalkDir(home, func(p string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	return home
}

// create makes a site's store that is checked when the test ends.
func create(t *testing.T, home string) *store.DB {
	t.Helper()
	return createAt(t, home, nil)
}

func createAt(t *testing.T, home string, now func() time.Time) *store.DB {
	t.Helper()
	return createWith(t, home, store.Options{Now: now})
}

func createWith(t *testing.T, home string, opt store.Options) *store.DB {
	t.Helper()
	keys := map[string]string{"log": "AA=="}
	db, err := store.Create(home,
		ledger.SiteInit{SiteID: strings.Repeat("ab", 16), Keys: keys, Root: digest, Policy: digest},
		ledger.TrustChange{Root: digest, RootVersion: 1, Policy: digest, PolicySerial: 1, Signatures: []string{digest}, Reason: "init"},
		"uid:0(root)", opt)
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	return db
}

func checkOnClose(t *testing.T, db *store.DB) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := db.Check(context.Background(), store.CheckOptions{}); err != nil && !errors.Is(err, bolt.ErrDatabaseNotOpen) {
			t.Errorf("the store is damaged after %s: %v", t.Name(), err)
		}
		db.Close()
	})
}

func newRun(i int, token string) (state.Run, *ledger.RunStart) {
	id := fmt.Sprintf("0190b8f2-0000-7000-8000-%012x", i)
	return state.Run{
		Tenant: "default", RunID: id, DAGID: "audit", DAGVersion: "1.0.0", TraceID: strings.Repeat("0a", 16),
		RunToken: token, Actor: "uid:0(root)",
	}, &ledger.RunStart{RunToken: token, PlanHash: digest, InputsHash: digest, DAGDigest: digest, Steps: 1}
}

func TestARunGoesFromStartToEnd(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "t1")
	got, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != state.Planning || got.FirstSeq != 2 || got.LastSeq != 3 {
		t.Errorf("after the start: %+v", got)
	}
	got, err = db.Commit(run.RunID,
		state.Proposal{Type: ledger.AttemptStarted, Actor: "x", StepID: "a", Attempt: 1, Data: &ledger.AttemptStart{Generation: 1}},
		state.Proposal{Type: ledger.AttemptEnded, Actor: "x", StepID: "a", Attempt: 1, Data: &ledger.AttemptEnd{Generation: 1, Outcome: "succeeded"}},
		state.Proposal{Type: ledger.StepCompleted, Actor: "x", StepID: "a", Data: &ledger.StepEnd{}},
		state.Proposal{Type: ledger.RunCompleted, Actor: "x", Data: &ledger.RunEnd{}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != state.Completed || got.CurrentStep != "a" || got.EndedUTC == "" {
		t.Errorf("after the end: %+v", got)
	}
	if active, _ := db.ActiveRuns(); len(active) != 0 {
		t.Errorf("a run that ended is active: %+v", active)
	}
	n := 0
	for _, err := range db.RunEntries(run.RunID) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 6 {
		t.Errorf("the run has %d entries, want 6", n)
	}
}

func TestAnEntryThatTheMachineRefusesChangesNothing(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, nil); err != nil {
		t.Fatal(err)
	}
	before := db.Size()
	_, err := db.Commit(run.RunID,
		state.Proposal{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}},
		state.Proposal{Type: ledger.StepCompleted, Actor: "x", StepID: "a", Data: &ledger.StepEnd{}})
	var illegal *state.TransitionError
	if !errors.As(err, &illegal) {
		t.Fatalf("Commit = %v, want a TransitionError", err)
	}
	if db.Size() != before {
		t.Errorf("the ledger grew from %d to %d", before, db.Size())
	}
	if steps, _ := db.Steps(run.RunID); len(steps) != 0 {
		t.Errorf("a step was recorded: %v", steps)
	}
}

// Writes that fail share their transaction with writes that do not.
func TestManyWritersAtOnce(t *testing.T) {
	db := create(t, newHome(t))
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for i := range 200 {
		wg.Go(func() {
			token := fmt.Sprintf("token-%d", i%20)
			run, start := newRun(i, token)
			got, err := db.StartRun(run, start, nil)
			switch {
			case err == nil:
				mu.Lock()
				won[token]++
				mu.Unlock()
			case !errors.Is(err, store.ErrTokenTaken) || got.RunToken != token:
				t.Errorf("StartRun = %+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	for token, n := range won {
		if n != 1 {
			t.Errorf("%s started %d runs", token, n)
		}
	}
	if len(won) != 20 {
		t.Errorf("%d tokens started a run, want 20", len(won))
	}
	if got, want := db.Size(), int64(2+20); got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
}

func TestASecondOpenFailsAtOnce(t *testing.T) {
	home := newHome(t)
	create(t, home)
	if _, err := store.Open(home, store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Open = %v, want ErrLocked", err)
	}
	if _, err := store.Open(t.TempDir(), store.Options{}); !errors.Is(err, store.ErrNoSite) {
		t.Errorf("Open of an empty folder = %v, want ErrNoSite", err)
	}
}

func TestItSurvivesReopening(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, nil); err != nil {
		t.Fatal(err)
	}
	size, last := db.Size(), db.LastTime()
	db.Close()
	db, err := store.Open(home, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	if db.Size() != size || !db.LastTime().Equal(last) {
		t.Errorf("reopened with %d entries at %v, want %d at %v", db.Size(), db.LastTime(), size, last)
	}
	if got, err := db.RunByToken("default", "t1"); err != nil || got.RunID != run.RunID {
		t.Errorf("RunByToken = %+v, %v", got, err)
	}
}

func TestAClockThatFellBackIsRefused(t *testing.T) {
	home := newHome(t)
	create(t, home).Close()
	for _, c := range []struct {
		back time.Duration
		want error
	}{{time.Minute, nil}, {time.Hour, store.ErrClockBehind}} {
		db, err := store.Open(home, store.Options{Now: func() time.Time { return time.Now().Add(-c.back) }})
		if err != nil {
			t.Fatal(err)
		}
		last := db.LastTime()
		_, err = db.Append(ledger.SiteStopped, "x", &ledger.SiteStop{Reason: "test"})
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("a clock %v behind: %v, want %v", c.back, err, c.want)
		}
		if db.LastTime().Before(last) {
			t.Errorf("time fell from %v to %v", last, db.LastTime())
		}
		db.Close()
	}
}

func TestRunPages(t *testing.T) {
	db := create(t, newHome(t))
	var wg sync.WaitGroup
	for i := range 1203 {
		wg.Go(func() {
			run, start := newRun(i, fmt.Sprintf("t%d", i))
			if i%2 == 0 {
				run.Tenant = "other"
			}
			if _, err := db.StartRun(run, start, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var got []string
	for cursor := ""; ; {
		runs, next, err := db.RunPage(t.Context(), store.RunFilter{Tenant: "default"}, cursor, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range runs {
			got = append(got, r.RunID)
		}
		if cursor = next; next == "" {
			break
		}
	}
	if len(got) != 601 {
		t.Fatalf("%d runs, want 601", len(got))
	}
	for i := 1; i < len(got); i++ {
		if got[i] >= got[i-1] {
			t.Fatalf("%s stands after %s", got[i], got[i-1])
		}
	}
}

// Whatever lies between, a page holds what matches, and of open runs none that has ended is read.
func TestAPageIsFullHoweverFewRunsMatch(t *testing.T) {
	db := create(t, newHome(t))
	var wg sync.WaitGroup
	for i := range 1203 {
		wg.Go(func() {
			run, start := newRun(i, fmt.Sprintf("t%d", i))
			if i < 3 {
				run.DAGID = "rare"
			}
			if i == 0 {
				run.Tenant = "other"
			}
			if _, err := db.StartRun(run, start, nil); err != nil {
				t.Error(err)
			}
			if i < 3 {
				return
			}
			if _, err := db.Commit(run.RunID, state.Proposal{Type: ledger.RunCancelled, Actor: "x", Data: &ledger.RunEnd{}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	looked := 0
	count := func(*state.Run) bool { looked++; return true }
	rare := func(r *state.Run) bool { return r.DAGID == "rare" }
	for name, f := range map[string]store.RunFilter{"open": {Open: true, Keep: count}, "by DAG": {Keep: rare}} {
		f.Tenant = "default"
		first, next, err := db.RunPage(t.Context(), f, "", 1)
		if err != nil || len(first) != 1 {
			t.Fatalf("%s: the first page holds %d runs, %v", name, len(first), err)
		}
		second, _, err := db.RunPage(t.Context(), f, next, 5)
		if err != nil || len(second) != 1 || second[0].RunID >= first[0].RunID {
			t.Errorf("%s: after %s come %+v, %v", name, first[0].RunID, second, err)
		}
	}
	if looked != 2 {
		t.Errorf("%d runs were looked at to list two that are open", looked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := db.RunPage(ctx, store.RunFilter{Tenant: "default", Keep: rare}, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("for nobody: %v", err)
	}
}

// No entry leaves out the step or the attempt that it is about.
func TestCommitRefusesEntriesWithoutTheirSubject(t *testing.T) {
	db := create(t, newHome(t))
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range []state.Proposal{
		{Type: ledger.StepQueued, Actor: "x", Data: &ledger.StepQueue{Reason: "ready"}},
		{Type: ledger.AttemptStarted, Actor: "x", StepID: "a", Data: &ledger.AttemptStart{Generation: 1}},
		{Type: ledger.RunCompleted, Actor: "x", StepID: "a", Data: &ledger.RunEnd{}},
	} {
		var form *ledger.FormError
		if _, err := db.Commit(run.RunID, p); !errors.As(err, &form) {
			t.Errorf("%s: %v", p.Type, err)
		}
	}
}

// Every bucket of the projections is damaged in turn, and Check names it.
func TestCheckFindsDamage(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Commit(run.RunID, state.Proposal{Type: ledger.AttemptStarted, Actor: "x", StepID: "a", Attempt: 1, Data: &ledger.AttemptStart{Generation: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.AddSchedule("x", "default", addition("nightly")); err != nil {
		t.Fatal(err)
	}
	db.Close()
	path := filepath.Join(home, "ledger.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{"entries", "records", "records /a/", "records /l/", "records /s/", "tenantruns", "active", "tokens", "schedules"} {
		for _, how := range []string{"changed", "changed at its start", "changed behind that", "changed at its end", "cut", "removed", "added"} {
			t.Run(bucket+" "+how, func(t *testing.T) {
				if err := os.WriteFile(path, whole, 0o600); err != nil {
					t.Fatal(err)
				}
				if !damage(t, path, bucket, how) {
					t.Skip("the values of this bucket are empty")
				}
				db, err := store.Open(home, store.Options{})
				if err != nil {
					return // found even earlier
				}
				defer db.Close()
				_, err = db.Check(context.Background(), store.CheckOptions{})
				var d *store.Damage
				if !errors.As(err, &d) {
					t.Errorf("Check = %v, want a Damage", err)
				}
			})
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
}

// damage changes the first record of a bucket whose key has a part.
func damage(t *testing.T, path, where, how string) bool {
	t.Helper()
	bucket, part, _ := strings.Cut(where, " ")
	b, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	done := true
	err = b.Update(func(tx *bolt.Tx) error {
		bk := tx.Bucket([]byte(bucket))
		c := bk.Cursor()
		k, v := c.First()
		for !bytes.Contains(k, []byte(part)) {
			k, v = c.Next()
		}
		k, v = append([]byte(nil), k...), append([]byte(nil), v...)
		switch how {
		case "removed":
			return bk.Delete(k)
		case "added":
			k[len(k)-1] ^= 0x40
			return bk.Put(k, v)
		}
		if len(v) == 0 {
			done = false
			return nil
		}
		switch how {
		case "cut":
			v = v[:len(v)-1]
		case "changed at its start":
			v[0] ^= 1
		case "changed behind that":
			v[min(1, len(v)-1)] ^= 1
		case "changed at its end":
			v[len(v)-1] ^= 1
		default:
			v[len(v)/2] ^= 1
		}
		return bk.Put(k, v)
	})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// Refusals that come too fast share one entry.
func TestRejectionsAreRateLimited(t *testing.T) {
	home := newHome(t)
	create(t, home).Close()
	now := time.Now()
	db, err := store.Open(home, store.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	checkOnClose(t, db)
	before := db.Size()
	reject := func() {
		t.Helper()
		if _, err := db.Reject("x", &ledger.BundleRejection{Reason: "SIGNER_UNKNOWN", FileSHA256: digest}); err != nil {
			t.Fatal(err)
		}
	}
	for range 71 {
		reject()
	}
	if got := db.Size() - before; got != 10 {
		t.Errorf("71 refusals in one minute made %d entries, want 10", got)
	}
	now = now.Add(2 * time.Minute)
	reject()
	if got := db.Size() - before; got != 12 {
		t.Fatalf("%d entries after the minute, want the counts and the new one", got-10)
	}
	l, err := db.Entry(before + 10)
	if err != nil || !strings.Contains(string(l.Envelope), `"bundles.rejected"`) || !strings.Contains(string(l.Data), `"count":61`) {
		t.Errorf("the entry of counts is %s %s, %v", l.Envelope, l.Data, err)
	}
}
