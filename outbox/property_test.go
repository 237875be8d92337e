package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/ledger"
)

// TestEveryEventArrivesInOrder lets a receiver fail in every way, lets what was
// delivered be forgotten, as by a crash, and kills the worker between passes. In
// the end every event has arrived, and none before those of its run before it. An
// event that was given up lets those behind it pass, and arrives when it is
// requeued.
func TestEveryEventArrivesInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		b.sink.MaxAttempts = rapid.SampledFrom([]int{1, 3, 100}).Draw(rt, "attempts")
		b.restart()
		runs := []string{"a", "b", "c"}
		calm := false
		b.r.fault = func(e Event) error {
			if calm {
				return nil
			}
			switch rapid.SampledFrom([]string{"take", "take", "take", "refuse", "down", "lost"}).Draw(rt, "receiver") {
			case "refuse":
				return &refusal{"status 500"}
			case "down":
				return errDown
			case "lost": // it took the event, and the answer did not arrive
				b.r.took = append(b.r.took, e.Seq)
				return errors.New("no answer")
			}
			return nil
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"add", "add", "other", "pass", "pass", "wait", "crash", "requeue"}).Draw(rt, "step") {
			case "add":
				b.m.addRun(rapid.SampledFrom(runs).Draw(rt, "run"))
			case "other":
				b.m.add(ledger.Envelope{Type: ledger.SiteStopped}, &ledger.SiteStop{})
			case "wait":
				b.now = b.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(rt, "ms")) * time.Millisecond)
			case "crash":
				b.m.fail = errors.New("killed")
				_, size := b.m.Changed()
				_, _ = b.w.pass(context.Background(), size)
				b.m.fail = nil
				b.restart()
			case "requeue":
				b.m.requeue("ops", rapid.Bool().Draw(rt, "reset"))
			case "pass":
				_, size := b.m.Changed()
				if _, err := b.w.pass(context.Background(), size); err != nil {
					rt.Fatal(err)
				}
			}
			if err := whole(b); err != nil {
				rt.Fatal(err)
			}
		}
		calm = true
		for range 3 {
			b.m.requeue("ops", true)
			b.after(2 * maxBackoff)
		}
		if err := complete(b); err != nil {
			rt.Fatal(err)
		}
	})
}

// whole says whether lanes and rows on disk are the same, once rows were read.
func whole(b *bench) error {
	if b.w.requeues != b.m.sinks["ops"].Requeues {
		return nil
	}
	n := 0
	for seq, r := range b.m.rows["ops"] {
		if r.Dead {
			continue
		}
		n++
		if run, ok := b.w.runs[seq]; !ok || run != r.RunID || !slices.ContainsFunc(b.w.lanes[run], func(x row) bool { return x.Seq == seq }) {
			return fmt.Errorf("row %d is in no lane", seq)
		}
	}
	if n != len(b.w.runs) {
		return fmt.Errorf("%d rows, %d in lanes", n, len(b.w.runs))
	}
	return nil
}

// complete says whether all events arrived, and each after those of its run before
// it that had not been given up when it did.
func complete(b *bench) error {
	if n := len(b.m.rows["ops"]); n > 0 {
		return fmt.Errorf("%d rows are left", n)
	}
	dead := map[int64]bool{}
	byRun := map[string][]int64{}
	for _, l := range b.m.lines {
		e, ok, err := EventOf(&b.sink, testSite, l)
		if err != nil {
			return err
		}
		if ok {
			byRun[e.RunID] = append(byRun[e.RunID], e.Seq)
		}
		env, _ := ledger.ParseEnvelope(l.Envelope)
		if env.Type == ledger.OutboxDead {
			data, _ := ledger.ParseData(l.Data)
			d, err := ledger.DecodeData(env.Type, data.Data)
			if err != nil {
				return err
			}
			dead[d.(*ledger.OutboxDeath).Event] = true
		}
	}
	for run, seqs := range byRun {
		before := -1
		for _, seq := range seqs {
			at := slices.Index(b.r.took, seq)
			if at < 0 {
				return fmt.Errorf("event %d of run %s never arrived: %v", seq, run, b.r.took)
			}
			if dead[seq] {
				continue
			}
			if at < before {
				return fmt.Errorf("event %d of run %s arrived before one that is older: %v", seq, run, b.r.took)
			}
			before = at
		}
	}
	return nil
}
