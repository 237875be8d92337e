package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// outboxDB is a store with a run in entries 2 and 3, and a sink that has seen all.
func outboxDB(t *testing.T) (*store.DB, string) {
	t.Helper()
	home := newHome(t)
	db := createAt(t, home, func() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) })
	run, start := newRun(1, "t1")
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.BeginSink("ops", true); err != nil {
		t.Fatal(err)
	}
	return db, run.RunID
}

const nowStamp = "2026-11-22T00:00:00.000000000Z"

// lastData decodes the data of the last entry.
func lastData[T any](t *testing.T, db *store.DB, typ ledger.Type) T {
	t.Helper()
	l, err := db.Entry(db.Size() - 1)
	if err != nil {
		t.Fatal(err)
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil || env.Type != typ || env.RunID != "" || env.Tenant != "" {
		t.Fatalf("the last entry is %s (%v), want %s of the site", l.Envelope, err, typ)
	}
	var line struct{ Data T }
	if err := json.Unmarshal(l.Data, &line); err != nil {
		t.Fatal(err)
	}
	return line.Data
}

func settle(t *testing.T, db *store.DB, b store.OutboxBatch) store.SinkRecord {
	t.Helper()
	rec, err := db.SettleOutbox("ops", b)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func rowsOf(t *testing.T, db *store.DB, sink string) []store.OutboxRow {
	t.Helper()
	rows, err := db.OutboxRows(sink, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestASinkBeginsAtTheEndOrAtTheStart(t *testing.T) {
	db, _ := outboxDB(t)
	for name, want := range map[string]int64{"ops": 0, "new": 4} {
		rec, err := db.BeginSink(name, false)
		if err != nil || rec.Next != want {
			t.Errorf("%s begins at %d, %v, want %d", name, rec.Next, err, want)
		}
	}
	settle(t, db, store.OutboxBatch{Next: 3})
	if rec, err := db.BeginSink("ops", true); err != nil || rec.Next != 3 {
		t.Errorf("a sink that was there begins at %d, %v, want 3", rec.Next, err)
	}
	all, err := db.Sinks()
	if diff := cmp.Diff(map[string]store.SinkRecord{"ops": {Next: 3}, "new": {Next: 4}}, all); diff != "" || err != nil {
		t.Errorf("sinks, %v (-want +got):\n%s", err, diff)
	}
}

func TestABatchMovesCursorAndRowsTogether(t *testing.T) {
	db, run := outboxDB(t)
	first := store.OutboxRow{Seq: 2, Topic: "run.started", RunID: run, Tenant: "default", Attempts: 1, LastError: "no answer", CreatedUTC: nowStamp, DueUTC: nowStamp}
	behind := store.OutboxRow{Seq: 3, Topic: "step.queued", RunID: run, Tenant: "default", CreatedUTC: nowStamp}
	rec := settle(t, db, store.OutboxBatch{Next: 4, Delivered: []int64{0, 1}, Rows: []store.OutboxRow{first, behind}})
	if diff := cmp.Diff(store.SinkRecord{Next: 4, Delivered: 2, LastUTC: nowStamp}, rec); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]store.OutboxRow{first, behind}, rowsOf(t, db, "ops")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if one, err := db.OutboxRows("ops", 3, 100); err != nil || len(one) != 1 || one[0].Seq != 3 {
		t.Errorf("rows from 3 on: %+v, %v", one, err)
	}
	rec = settle(t, db, store.OutboxBatch{Next: 2, Delivered: []int64{2, 3}})
	if rec.Next != 4 || rec.Delivered != 4 || len(rowsOf(t, db, "ops")) != 0 {
		t.Errorf("after all were delivered: %+v, %+v", rec, rowsOf(t, db, "ops"))
	}
	if db.Size() != 4 {
		t.Errorf("deliveries made entries: %d", db.Size())
	}
	if _, err := db.SettleOutbox("ops", store.OutboxBatch{Next: 5}); err == nil {
		t.Error("a cursor beyond the ledger is taken")
	}
	if _, err := db.SettleOutbox("ops", store.OutboxBatch{Rows: []store.OutboxRow{{Seq: 4}}}); err == nil {
		t.Error("a row beyond the cursor is taken")
	}
	if _, err := db.SettleOutbox("none", store.OutboxBatch{}); !store.IsNotFound(err) {
		t.Errorf("a sink that is not there: %v", err)
	}
}

// dead puts entry 2 aside.
func dead(t *testing.T, db *store.DB, run string) store.OutboxRow {
	t.Helper()
	row := store.OutboxRow{Seq: 2, Topic: "run.started", RunID: run, Tenant: "default", Attempts: 10, LastError: "no answer", CreatedUTC: nowStamp, Dead: true}
	settle(t, db, store.OutboxBatch{Next: 4, Rows: []store.OutboxRow{row}})
	return row
}

func TestADeadEventIsAnEntry(t *testing.T) {
	db, run := outboxDB(t)
	dead(t, db, run)
	want := ledger.OutboxDeath{Sink: "ops", Event: 2, Topic: "run.started", RunID: run, Attempts: 10}
	if diff := cmp.Diff(want, lastData[ledger.OutboxDeath](t, db, ledger.OutboxDead)); diff != "" || db.Size() != 5 {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

func TestARequeueIsAnEntry(t *testing.T) {
	for _, reset := range []bool{false, true} {
		db, run := outboxDB(t)
		row := dead(t, db, run)
		if err := db.RequeueOutbox("uid:0(root)", "ops", []int64{2}, reset); err != nil {
			t.Fatal(err)
		}
		row.Dead, row.DueUTC = false, nowStamp
		if reset {
			row.Attempts, row.LastError = 0, ""
		}
		if diff := cmp.Diff([]store.OutboxRow{row}, rowsOf(t, db, "ops")); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		want := ledger.OutboxRequeue{Sink: "ops", Events: 1, Reset: reset}
		if diff := cmp.Diff(want, lastData[ledger.OutboxRequeue](t, db, ledger.OutboxRequeued)); diff != "" {
			t.Errorf("entry (-want +got):\n%s", diff)
		}
		size := db.Size()
		if err := db.RequeueOutbox("x", "ops", []int64{2, 3}, !reset); !store.IsNotFound(err) || !strings.Contains(err.Error(), "ops/3") || db.Size() != size {
			t.Errorf("an event that is not there: %v", err)
		}
		if err := db.RequeueOutbox("x", "none", []int64{2}, reset); !store.IsNotFound(err) {
			t.Errorf("a sink that is not there: %v", err)
		}
		if diff := cmp.Diff([]store.OutboxRow{row}, rowsOf(t, db, "ops")); diff != "" {
			t.Errorf("rows after two refusals (-want +got):\n%s", diff)
		}
	}
}

// A dispatcher that read the rows before a requeue must not undo it.
func TestARequeueOvertakesAFailure(t *testing.T) {
	db, run := outboxDB(t)
	row := dead(t, db, run)
	if err := db.RequeueOutbox("x", "ops", []int64{2}, true); err != nil {
		t.Fatal(err)
	}
	size := db.Size()
	fresh := store.OutboxRow{Seq: 3, Topic: "step.queued", RunID: run, Tenant: "default", CreatedUTC: nowStamp}
	settle(t, db, store.OutboxBatch{Next: 4, Rows: []store.OutboxRow{row, fresh}})
	rows := rowsOf(t, db, "ops")
	if len(rows) != 2 || rows[0].Dead || rows[0].Attempts != 0 || rows[1].Seq != 3 || db.Size() != size {
		t.Errorf("rows %+v, %d entries", rows, db.Size())
	}
	settle(t, db, store.OutboxBatch{Requeues: 1, Rows: []store.OutboxRow{row}})
	if rows := rowsOf(t, db, "ops"); !rows[0].Dead || db.Size() != size+1 {
		t.Errorf("rows %+v, %d entries", rows, db.Size())
	}
}

func TestASinkIsForgottenWithItsRows(t *testing.T) {
	db, run := outboxDB(t)
	dead(t, db, run)
	if _, err := db.BeginSink("ops2", true); err != nil {
		t.Fatal(err)
	}
	if n, err := db.ForgetSink("uid:0(root)", "ops"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	want := ledger.OutboxForget{Sink: "ops", Next: 4, Dropped: 1}
	if diff := cmp.Diff(want, lastData[ledger.OutboxForget](t, db, ledger.OutboxForgotten)); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	if _, err := db.ForgetSink("x", "ops"); !store.IsNotFound(err) || len(rowsOf(t, db, "ops")) != 0 {
		t.Errorf("forgotten twice: %v, %+v", err, rowsOf(t, db, "ops"))
	}
	if all, err := db.Sinks(); len(all) != 1 || err != nil {
		t.Errorf("sinks: %+v, %v", all, err)
	}
}

func TestCheckFindsAnOutboxThatIsNotOfTheLedger(t *testing.T) {
	for name, change := range map[string]struct{ bucket, key, value, says string }{
		"a cursor beyond the ledger": {"sinks", "ops", `{"next":9,"delivered":0}`, "ledger has 4 entries"},
		"a cursor that is no record": {"sinks", "ops", `{`, "sink"},
		"a row of no sink":           {"outbox", "else\x00\x00\x00\x00\x00\x00\x00\x00\x02", `{}`, "no such sink"},
		"a row that was not seen":    {"outbox", "ops\x00\x00\x00\x00\x00\x00\x00\x00\x03", `{}`, "has seen 3 entries only"},
		"a row about something else": {"outbox", "ops\x00\x00\x00\x00\x00\x00\x00\x00\x02", `{"topic":"run.failed"}`, "not about its entry"},
		"a row that cannot be read":  {"outbox", "ops\x00\x00\x00\x00\x00\x00\x00\x00\x02", `{`, "not a row"},
		"a key that cannot be read":  {"outbox", "ops", `{}`, "no sink and entry"},
	} {
		t.Run(name, func(t *testing.T) {
			home := newHome(t)
			db := create(t, home)
			run, start := newRun(1, "t1")
			if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "x", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := db.BeginSink("ops", true); err != nil {
				t.Fatal(err)
			}
			settle(t, db, store.OutboxBatch{Next: 3})
			db.Close()
			b, err := bolt.Open(filepath.Join(home, "ledger.db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = b.Update(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte(change.bucket)).Put([]byte(change.key), []byte(change.value))
			})
			if err := errors.Join(err, b.Close()); err != nil {
				t.Fatal(err)
			}
			if db, err = store.Open(home, store.Options{}); err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var damage *store.Damage
			if _, err := db.Check(context.Background(), store.CheckOptions{}); !errors.As(err, &damage) || !strings.Contains(err.Error(), change.says) {
				t.Errorf("Check = %v, want damage that says %q", err, change.says)
			}
		})
	}
}
