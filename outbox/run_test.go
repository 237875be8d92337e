package outbox

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
)

// dispatcher is one with receivers that a test tells what to do.
func dispatcher(m *memory, receivers map[string]*receiver) *Dispatcher {
	d := &Dispatcher{drain: make(chan struct{})}
	for name, r := range receivers {
		s := manifests.Sink{Name: name, Topics: []string{"run.*"}, MaxAttempts: 10, Backoff: time.Second}
		rec, _ := m.BeginSink(name, true)
		d.workers = append(d.workers, newWorker(s, r, rec, Options{Store: m, SiteID: testSite, Now: time.Now,
			Random: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler)}))
	}
	return d
}

func (r *receiver) all() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.took)
}

func TestRunIsWokenByCommitsAndByWhatFallsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, bad, good := newMemory(), &receiver{}, &receiver{}
		var mu sync.Mutex
		mended := false
		bad.fault = func(Event) error {
			mu.Lock()
			defer mu.Unlock()
			if mended {
				return nil
			}
			return errDown
		}
		d := dispatcher(m, map[string]*receiver{"bad": bad, "good": good})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		synctest.Wait()
		m.addRun("a")
		synctest.Wait()
		if got := good.all(); !slices.Equal(got, []int64{0}) {
			t.Errorf("one receiver that is down holds another up: %v", got)
		}
		time.Sleep(1900 * time.Millisecond) // 1 s of rest, and as much again
		synctest.Wait()
		mu.Lock()
		mended = true
		mu.Unlock()
		m.addRun("a")
		synctest.Wait()
		if got := bad.all(); len(got) != 0 {
			t.Errorf("it took %v before anything was due", got)
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if got := bad.all(); !slices.Equal(got, []int64{0, 1}) {
			t.Errorf("it took %v, want both", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestDrainDeliversWhatCanBeAndWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, good, bad := newMemory(), &receiver{}, &receiver{fault: refuse("a")}
		d := dispatcher(m, map[string]*receiver{"good": good, "bad": bad})
		for range 2 * pageEntries {
			m.addRun("a")
		}
		m.addRun("b")
		d.Drain()
		d.Drain()
		begun := time.Now()
		if err := d.Run(t.Context()); err != nil {
			t.Errorf("Run = %v", err)
		}
		if len(good.took) != len(m.lines) || !slices.Equal(bad.took, []int64{2 * pageEntries}) || time.Since(begun) != 0 {
			t.Errorf("good took %d of %d, bad %v, in %v", len(good.took), len(m.lines), bad.took, time.Since(begun))
		}
	})
}

func TestASinkThatCannotGoOnIsNamed(t *testing.T) {
	m, good, bad := newMemory(), &receiver{}, &receiver{}
	d := dispatcher(m, map[string]*receiver{"good": good, "bad": bad})
	m.addRun("a")
	delete(m.sinks, "bad") // forgotten behind its back
	d.Drain()
	err := d.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "outbox: sink bad: ") || strings.Contains(err.Error(), "good") || len(good.took) != 1 {
		t.Errorf("Run = %v, the other took %v", err, good.took)
	}
}

func TestANewSinkBeginsWhereTheLedgerEnds(t *testing.T) {
	m := newMemory()
	m.addRun("a")
	home := t.TempDir()
	sinks := []manifests.Sink{{Name: "end", Kind: manifests.SinkFile, Path: "outbox/end.ndjson", Topics: []string{"run.*"}},
		{Name: "start", Kind: manifests.SinkFile, Path: "outbox/start.ndjson", Topics: []string{"run.*"}, FromStart: true}}
	d, err := New(Options{Store: m, Sinks: sinks, Home: home, SiteID: testSite})
	if err != nil {
		t.Fatal(err)
	}
	m.addRun("a")
	d.Drain()
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"end": 1, "start": 2} {
		if got := strings.Count(read(t, home+"/outbox/"+name+".ndjson"), "\n"); got != want {
			t.Errorf("%s got %d events, want %d", name, got, want)
		}
	}
	sinks[0].Topics = []string{"no.such"}
	if _, err := New(Options{Store: m, Sinks: sinks, Home: home}); err == nil {
		t.Error("a topic that no entry has is taken")
	}
}
