package outbox

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

func TestEventsAreDeliveredOnceWhenNothingFails(t *testing.T) {
	b := newBench(t)
	b.m.addRun("a")
	b.m.add(ledger.Envelope{Type: ledger.StepQueued, RunID: "a", StepID: "s"}, &ledger.StepQueue{Reason: "ready"})
	b.m.addRun("b")
	b.idle()
	b.took(0, 2)
	b.m.addRun("a")
	b.idle()
	b.restart()
	b.idle()
	b.took(0, 2, 3)
	if rec, _ := b.m.Sink("ops"); rec.Next != 4 || rec.Delivered != 3 {
		t.Errorf("record %+v", rec)
	}
}

// What is for others moves the cursor in memory alone, and sometimes on disk.
func TestEntriesForOthersCostNoWrites(t *testing.T) {
	b := newBench(t)
	for range cursorLag + pageEntries + 10 {
		b.m.add(ledger.Envelope{Type: ledger.ExportCreated}, &ledger.ExportCreation{})
	}
	b.idle()
	if rec, _ := b.m.Sink("ops"); b.m.settled != 1 || rec.Next < cursorLag || b.w.next != int64(len(b.m.lines)) {
		t.Errorf("%d writes, cursor %d, at %d of %d", b.m.settled, rec.Next, b.w.next, len(b.m.lines))
	}
}

func TestARunWaitsBehindItsOldestEventAndOthersGoOn(t *testing.T) {
	b := newBench(t)
	b.r.fault = refuse("a")
	for _, run := range []string{"a", "a", "b", "a", "b"} {
		b.m.addRun(run)
	}
	b.idle()
	b.asked(0, 2, 4)
	b.took(2, 4)
	b.m.addRun("a")
	b.m.addRun("b")
	b.idle()
	b.asked(6)
	for seq, want := range map[int64]string{0: "1 attempts", 1: "0 attempts", 3: "0 attempts", 5: "0 attempts", 6: "none"} {
		if got := b.row(seq); got != want {
			t.Errorf("the row of %d: %s, want %s", seq, got, want)
		}
	}
	b.r.fault, b.r.took = nil, nil
	b.restart() // rows and due times are on disk
	b.after(time.Second - 1)
	b.asked()
	b.after(1)
	b.took(0, 1, 3, 5)
	if len(b.m.rows["ops"]) != 0 || len(b.w.lanes) != 0 || len(b.w.runs) != 0 {
		t.Errorf("rows are left: %v, %v", b.m.rows["ops"], b.w.lanes)
	}
}

func TestWhatIsAboutNoRunKeepsItsOrderToo(t *testing.T) {
	b := newBench(t)
	b.sink.Topics = []string{"export.created", "run.*"}
	b.restart()
	b.r.fault = refuse("")
	b.m.add(ledger.Envelope{Type: ledger.ExportCreated}, &ledger.ExportCreation{})
	b.m.addRun("a")
	b.m.add(ledger.Envelope{Type: ledger.ExportCreated}, &ledger.ExportCreation{})
	b.idle()
	b.asked(0, 1)
	b.took(1)
}

func TestBackoffDoublesUpToTheLimitAndThenTheEventIsSetAside(t *testing.T) {
	b := newBench(t)
	b.r.fault = refuse("a")
	b.m.addRun("a")
	b.m.addRun("a")
	b.idle()
	b.asked(0)
	for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
		b.after(wait - 1)
		b.asked()
		b.after(1)
		b.asked(0)
	}
	b.after(4*time.Second - 1)
	b.asked()
	b.after(1)
	b.asked(0, 1) // the fourth was the last; what was behind it is tried at once
	if got := b.row(0) + "; " + b.row(1); got != "4 attempts, dead; 1 attempts" {
		t.Errorf("rows: %s", got)
	}
	if b.m.row("ops", 0).LastError != "status 500" {
		t.Errorf("row %+v", b.m.row("ops", 0))
	}
	last, _, _ := EventOf(&everything, testSite, b.m.lines[len(b.m.lines)-1])
	if !strings.Contains(string(last.Body), `"data":{"attempts":4,"event":0,"runId":"a","sink":"ops","topic":"run.resumed"}`) {
		t.Errorf("the last entry is %s", last.Body)
	}
	b.r.fault = nil
	b.after(time.Hour)
	b.took(1)
	b.m.requeue("ops", false)
	b.idle()
	b.took(1, 0)
}

func TestDelaysAreJitteredAndCapped(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		attempts int
		random   float64
		want     time.Duration
	}{{1, 0, 800 * time.Millisecond}, {1, 0.5, time.Second}, {1, 0.999999, 1200 * time.Millisecond}, {2, 0.5, 2 * time.Second},
		{12, 0.5, 2048 * time.Second}, {13, 0.5, time.Hour}, {100, 0, 48 * time.Minute}} {
		b.w.random = func() float64 { return c.random }
		if got := b.w.jittered(doubled(time.Second, c.attempts)).Round(time.Millisecond); got != c.want {
			t.Errorf("attempt %d, random %v: %v, want %v", c.attempts, c.random, got, c.want)
		}
	}
}

func TestARequeuedEventIsTriedOnceMoreOrFromTheBeginning(t *testing.T) {
	for _, c := range []struct {
		reset bool
		want  string
	}{{false, "5 attempts, dead"}, {true, "1 attempts"}} {
		b := newBench(t)
		b.r.fault = refuse("a")
		b.m.addRun("a")
		b.idle()
		for range 3 {
			b.after(10 * time.Second)
		}
		if got := b.row(0); got != "4 attempts, dead" {
			t.Fatalf("row: %s", got)
		}
		b.m.requeue("ops", c.reset)
		b.idle()
		if got := b.row(0); got != c.want {
			t.Errorf("reset %v: %s, want %s", c.reset, got, c.want)
		}
	}
}

// A receiver that gives no answer is left alone for a while: what is new waits in
// the ledger, and no event dies of it, however long it takes.
func TestAReceiverThatIsDownRests(t *testing.T) {
	b := newBench(t)
	b.r.fault = func(Event) error { return errDown }
	for _, run := range []string{"a", "a", "b", "c"} {
		b.m.addRun(run)
	}
	b.idle()
	b.asked(0)
	if rec, _ := b.m.Sink("ops"); rec.Next != 2 || b.row(0) != "0 attempts" || b.row(1) != "0 attempts" || b.row(2) != "none" {
		t.Errorf("record %+v, rows %s, %s, %s", rec, b.row(0), b.row(1), b.row(2))
	}
	if got := b.m.row("ops", 0).LastError; got != errDown.Error() {
		t.Errorf("the row says %q", got)
	}
	b.m.addRun("d")
	b.after(time.Second - 1)
	b.asked()
	b.after(1)
	b.asked(2) // another one's turn
	b.after(2 * time.Second)
	b.asked(0)
	for range 100 {
		b.after(time.Minute)
	}
	if got := b.row(0) + ", " + b.row(2); got != "0 attempts, 0 attempts" {
		t.Errorf("after more than an hour: %s", got)
	}
	b.restart()
	b.r.asked, b.r.fault = nil, nil
	b.after(2 * maxRest)
	if took := b.r.took; len(took) != 5 || slices.Index(took, 0) > slices.Index(took, 1) {
		t.Errorf("the receiver took %v, want all, and 0 before 1", took)
	}
	b.r.fault = func(Event) error { return errDown }
	b.m.addRun("e")
	b.idle()
	if at := b.w.wake(); at.Sub(b.now) != time.Second {
		t.Errorf("after a success it rests for %v", at.Sub(b.now))
	}
	b.w.downs = 50
	b.w.down()
	if at := b.w.wake(); at.Sub(b.now) != maxRest {
		t.Errorf("it rests for %v at most, want %v", at.Sub(b.now), maxRest)
	}
}

func TestAnEventThatNeverGetsAnAnswerHoldsUpItsRunAlone(t *testing.T) {
	b := newBench(t)
	b.r.fault = func(e Event) error {
		if e.Seq == 0 {
			return errDown
		}
		return nil
	}
	for _, run := range []string{"a", "b", "a", "c"} {
		b.m.addRun(run)
		b.after(time.Minute)
	}
	for range 10 {
		b.after(time.Minute)
	}
	b.took(1, 3)
	b.r.fault = nil
	b.after(time.Minute)
	b.took(1, 3, 0, 2)
}

func TestARowsDueTimeIsNotBelievedWhereTheClockWasSetBack(t *testing.T) {
	b := newBench(t)
	b.m.addRun("a")
	b.m.rows["ops"][0] = store.OutboxRow{Seq: 0, Topic: "run.resumed", RunID: "a", Tenant: "default", Attempts: 1, DueUTC: stamp.Format(b.now.AddDate(1, 0, 0))}
	b.m.sinks["ops"] = store.SinkRecord{Next: 1}
	b.restart()
	b.idle()
	b.asked()
	b.after(maxBackoff + maxBackoff/5)
	b.took(0)
}

// Two entries must not be written in a row where the clock allows none.
func TestNothingIsGivenUpWhileTheClockAllowsNoEntry(t *testing.T) {
	for _, clock := range []error{store.ErrClockBehind, store.ErrClockAhead} {
		b := newBench(t)
		b.r.fault = refuse("a")
		b.m.clock = clock
		b.m.addRun("a")
		b.idle()
		for range 3 {
			b.after(10 * time.Second)
		}
		if got := b.row(0); got != "4 attempts" {
			t.Errorf("row: %s", got)
		}
		b.m.clock = nil
		b.after(maxBackoff)
		if got := b.row(0); got != "5 attempts, dead" {
			t.Errorf("row: %s", got)
		}
	}
}

func TestWhatWasDeliveredAndNotRecordedIsDeliveredAgain(t *testing.T) {
	b := newBench(t)
	b.m.addRun("a")
	b.m.fail = errors.New("the disk is full")
	if _, err := b.w.pass(context.Background(), 1); !errors.Is(err, b.m.fail) && err == nil {
		t.Fatalf("pass = %v", err)
	}
	b.restart()
	b.idle()
	b.took(0, 0)
}

func TestBeingShutDownIsNoFailure(t *testing.T) {
	b := newBench(t)
	b.m.addRun("a")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.w.pass(ctx, 1); err != nil || b.row(0) != "none" {
		t.Errorf("pass = %v, row %s", err, b.row(0))
	}
	b.r.fault = refuse("a")
	b.idle()
	b.now = b.now.Add(time.Second)
	if _, err := b.w.pass(ctx, 1); err != nil || b.row(0) != "1 attempts" {
		t.Errorf("pass = %v, row %s", err, b.row(0))
	}
}

func TestASinkThatRefusesEverythingLeavesTheRestInTheLedger(t *testing.T) {
	b := newBench(t)
	b.r.fault = func(Event) error { return &refusal{"no"} }
	for range maxLive + 2*pageEntries {
		b.m.addRun("a")
	}
	b.idle()
	if n := len(b.m.rows["ops"]); n < maxLive || n > maxLive+pageEntries {
		t.Errorf("%d rows", n)
	}
	b.r.fault = nil
	b.after(time.Second)
	if len(b.r.took) != len(b.m.lines) || !slices.IsSorted(b.r.took) {
		t.Errorf("%d of %d were taken", len(b.r.took), len(b.m.lines))
	}
}

func TestALongMessageIsCut(t *testing.T) {
	b := newBench(t)
	b.r.fault = func(Event) error { return errors.New(strings.Repeat("é", 150) + "\xff") }
	b.m.addRun("a")
	b.idle()
	if got := b.m.row("ops", 0).LastError; got != strings.Repeat("é", 100)+"…" {
		t.Errorf("message %q", got)
	}
}
