package outbox

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

const testSite = "00112233445566778899aabbccddeeff"

// memory is a store in memory.
type memory struct {
	mu      sync.Mutex // guards what follows
	lines   []store.Lines
	sinks   map[string]store.SinkRecord
	rows    map[string]map[int64]store.OutboxRow
	changed chan struct{}
	fail    error // of the next settlement
	settled int
	clock   error // of entries
}

func newMemory() *memory {
	return &memory{sinks: map[string]store.SinkRecord{}, rows: map[string]map[int64]store.OutboxRow{}, changed: make(chan struct{})}
}

func (m *memory) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// add writes an entry.
func (m *memory) add(env ledger.Envelope, data any) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.notify()
	return m.append(env, data)
}

func (m *memory) append(env ledger.Envelope, data any) int64 {
	env.Seq = int64(len(m.lines))
	env.Time = stamp.Format(time.Date(2026, 11, 22, 0, 0, int(env.Seq), 0, time.UTC))
	if env.Actor == "" {
		env.Actor = "uid:0(root)"
	}
	e, err := ledger.Seal(env, data, [32]byte{byte(env.Seq)})
	if err != nil {
		panic(err)
	}
	m.lines = append(m.lines, store.Lines{Seq: env.Seq, Envelope: e.Envelope, Data: e.Data})
	return env.Seq
}

// addRun writes an entry of a run that a sink is sent by default.
func (m *memory) addRun(run string) int64 {
	return m.add(ledger.Envelope{Type: ledger.RunResumed, RunID: run, Tenant: "default"}, &ledger.Note{})
}

func (m *memory) Changed() (<-chan struct{}, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed, int64(len(m.lines))
}

func (m *memory) Entries(from, to int64) iter.Seq2[store.Lines, error] {
	m.mu.Lock()
	lines := m.lines[from:to]
	m.mu.Unlock()
	return func(yield func(store.Lines, error) bool) {
		for _, l := range lines {
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (m *memory) BeginSink(sink string, fromStart bool) (store.SinkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sinks[sink]; !ok {
		rec := store.SinkRecord{Next: int64(len(m.lines))}
		if fromStart {
			rec.Next = 0
		}
		m.sinks[sink], m.rows[sink] = rec, map[int64]store.OutboxRow{}
	}
	return m.sinks[sink], nil
}

func (m *memory) Sink(sink string) (store.SinkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, ok := m.sinks[sink]
	if !ok {
		return rec, store.ErrNotFound
	}
	return rec, nil
}

func (m *memory) OutboxRows(sink string, from int64, limit int) ([]store.OutboxRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.OutboxRow
	for _, seq := range slices.Sorted(maps.Keys(m.rows[sink])) {
		if seq >= from && len(out) < limit {
			out = append(out, m.rows[sink][seq])
		}
	}
	return out, nil
}

func (m *memory) SettleOutbox(sink string, b store.OutboxBatch) (store.SinkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail; err != nil {
		m.fail = nil
		return store.SinkRecord{}, err
	}
	rec := m.sinks[sink]
	for _, r := range b.Rows {
		if r.Seq >= max(rec.Next, b.Next) {
			return rec, fmt.Errorf("row %d is beyond the cursor", r.Seq)
		}
		if r.Dead && m.clock != nil {
			return rec, m.clock
		}
	}
	m.settled++
	for _, seq := range b.Delivered {
		delete(m.rows[sink], seq)
	}
	for _, r := range b.Rows {
		if _, there := m.rows[sink][r.Seq]; there && rec.Requeues != b.Requeues {
			continue
		}
		m.rows[sink][r.Seq] = r
		if r.Dead {
			m.append(ledger.Envelope{Type: ledger.OutboxDead}, &ledger.OutboxDeath{Sink: sink, Event: r.Seq, Topic: r.Topic, RunID: r.RunID, Attempts: r.Attempts})
		}
	}
	rec.Next = max(rec.Next, b.Next)
	rec.Delivered += int64(len(b.Delivered))
	m.sinks[sink] = rec
	m.notify()
	return rec, nil
}

// requeue revives the dead rows of a sink.
func (m *memory) requeue(sink string, reset bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for seq, r := range m.rows[sink] {
		if r.Dead {
			r.Dead, r.DueUTC = false, ""
			if reset {
				r.Attempts = 0
			}
			m.rows[sink][seq] = r
		}
	}
	rec := m.sinks[sink]
	rec.Requeues++
	m.sinks[sink] = rec
	m.notify()
}

func (m *memory) row(sink string, seq int64) store.OutboxRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[sink][seq]
}

var errDown = errors.New("connection refused")

// receiver is a target that does as it is told.
type receiver struct {
	mu    sync.Mutex // guards what follows
	took  []int64
	asked []int64
	fault func(Event) error // nil takes everything
}

func (r *receiver) close() {}

func (r *receiver) deliver(ctx context.Context, events []Event) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, e := range events {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		r.asked = append(r.asked, e.Seq)
		if r.fault != nil {
			if err := r.fault(e); err != nil {
				return n, err
			}
		}
		r.took = append(r.took, e.Seq)
	}
	return len(events), nil
}

// refuse makes a receiver refuse the events of these runs.
func refuse(runs ...string) func(Event) error {
	return func(e Event) error {
		if slices.Contains(runs, e.RunID) {
			return &refusal{"status 500"}
		}
		return nil
	}
}

// bench is a worker whose clock is set by hand.
type bench struct {
	t    *testing.T
	m    *memory
	r    *receiver
	w    *worker
	now  time.Time
	sink manifests.Sink
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, m: newMemory(), r: &receiver{}, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), sink: manifests.Sink{
		Name: "ops", Topics: manifests.DefaultTopics(), MaxAttempts: 4, Backoff: time.Second, FromStart: true,
	}}
	b.restart()
	return b
}

// restart makes a new worker over the same store, as after a crash.
func (b *bench) restart() {
	rec, err := b.m.BeginSink(b.sink.Name, b.sink.FromStart)
	if err != nil {
		b.t.Fatal(err)
	}
	b.w = newWorker(b.sink, b.r, rec, Options{Store: b.m, SiteID: testSite, Now: func() time.Time { return b.now },
		Random: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler)})
}

// idle makes passes until there is nothing more to do at once.
func (b *bench) idle() {
	b.t.Helper()
	for range 1000 {
		_, size := b.m.Changed()
		busy, err := b.w.pass(context.Background(), size)
		if err != nil {
			b.t.Fatal(err)
		}
		if !busy {
			return
		}
	}
	b.t.Fatal("it is busy for ever")
}

// after lets time pass.
func (b *bench) after(d time.Duration) {
	b.t.Helper()
	b.now = b.now.Add(d)
	b.idle()
}

func (b *bench) took(want ...int64) {
	b.t.Helper()
	if !slices.Equal(b.r.took, want) {
		b.t.Errorf("the receiver took %v, want %v", b.r.took, want)
	}
}

func (b *bench) asked(want ...int64) {
	b.t.Helper()
	if !slices.Equal(b.r.asked, want) {
		b.t.Errorf("the receiver was asked to take %v, want %v", b.r.asked, want)
	}
	b.r.asked = nil
}

func (b *bench) row(seq int64) string {
	r := b.m.row(b.sink.Name, seq)
	if r.Topic == "" {
		return "none"
	}
	s := fmt.Sprintf("%d attempts", r.Attempts)
	if r.Dead {
		s += ", dead"
	}
	return s
}
