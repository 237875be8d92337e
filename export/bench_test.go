package export_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
)

func BenchmarkVerify(b *testing.B) {
	s := busySite(b)
	path := filepath.Join(b.TempDir(), "a.tar")
	if err := os.WriteFile(path, s.archive(window(4, 20)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := export.Verify(context.Background(), path, s.auditor())
		if err != nil || r.Verdict != export.Verified {
			b.Fatal(err, r)
		}
	}
}

// BenchmarkLarge is 5,000 runs with output, 35,000 entries.
func BenchmarkLarge(b *testing.B) {
	s := newSite(b)
	for i := range 5000 {
		id := fmt.Sprintf("0190b0a0-0000-7000-8000-%012x", i)
		s.startRun(id)
		s.startAttempt(id, 1)
		s.endAttempt(id, 1, "succeeded", "", s.segment("line one", "line two", fmt.Sprint("line ", i)))
		s.completeRun(id)
	}
	s.checkpoint()
	w := window(0, len(s.entries)-1)
	path := filepath.Join(b.TempDir(), "a.tar")
	entries := float64(len(s.entries))
	b.Run("create", func(b *testing.B) {
		peak := watchHeap(b)
		for b.Loop() {
			f, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := export.Create(context.Background(), s, f, s.options(w)); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
		b.ReportMetric(peak(), "peak-MiB")
		b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("verify", func(b *testing.B) {
		peak := watchHeap(b)
		for b.Loop() {
			r, err := export.Verify(context.Background(), path, s.auditor())
			if err != nil || r.Verdict != export.Verified {
				b.Fatal(err, r)
			}
		}
		b.ReportMetric(peak(), "peak-MiB")
		b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// watchHeap samples the heap until it is asked for the growth that it saw.
func watchHeap(b *testing.B) func() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	base, peak := m.HeapAlloc, m.HeapAlloc
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		}
	}()
	return func() float64 {
		close(done)
		<-ended
		return float64(peak-base) / (1 << 20)
	}
}

func BenchmarkCreate(b *testing.B) {
	s := busySite(b)
	b.ReportAllocs()
	for b.Loop() {
		s.archive(window(4, 20))
	}
}
