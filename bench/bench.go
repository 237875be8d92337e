// Command bench measures stella against limits and peers on this machine, each
// figure as a ratio to something that is measured in the same run: medians of
// interleaved pairs, with their spread. It asserts nothing; a person reads it.
//
//	make bench                      every benchmark
//	go run ./bench -run import      those whose name contains a word
//	go run ./bench -run import-many -cpuprofile cpu.out
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/garbage"
)

// A benchmark compares two ways to do the same work.
type benchmark struct {
	name  string
	what  string // what ours does
	peer  string // what it is compared with
	pairs int
	setup func(*env) (work, error)
}

// work is one pair. Before is not measured; it and close, which ends what setup
// has begun, may be nil. Measured takes the place of ours and theirs where what is
// compared is not the time that they take.
type work struct {
	before, ours, theirs, close func() error
	measured                    func() (ours, theirs time.Duration, err error)
}

// env is what benchmarks share.
type env struct {
	dir    string // scratch space
	stella string // the binary
	notes  []string
}

// skipped says why a benchmark cannot be run here.
type skipped string

func (s skipped) Error() string { return string(s) }

func (e *env) note(format string, a ...any) { e.notes = append(e.notes, fmt.Sprintf(format, a...)) }

func main() {
	only := flag.String("run", "", "only the benchmark of this name, or those whose name contains this")
	pairs := flag.Int("pairs", 0, "pairs to measure, where not the benchmark's own number")
	stella := flag.String("stella", "bin/stella", "the binary to measure")
	home := flag.String("serve", "", "be the daemon of this home (for benchmarks)")
	profile := flag.String("cpuprofile", "", "write a profile of this process to a file")
	flag.Parse()
	garbage.PutOff() // as stella does
	if *home != "" {
		if err := serve(*home); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(*only, *pairs, *stella); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(only string, pairs int, stella string) error {
	bin, err := filepath.Abs(stella)
	if err != nil {
		return err
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("%w (run: make build)", err)
	}
	fmt.Printf("%-16s %10s %10s %8s  %s\n", "benchmark", "ours", "peer", "ratio", "spread of the ratio (quartiles), what against what")
	all := benchmarks()
	exact := slices.ContainsFunc(all, func(b benchmark) bool { return b.name == only })
	for _, b := range all {
		if exact && b.name != only || !strings.Contains(b.name, only) {
			continue
		}
		if pairs > 0 {
			b.pairs = pairs
		}
		if err := measure(b, bin); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

// measure runs the pairs, ours and theirs in turn, and prints one line.
func measure(b benchmark, bin string) error {
	dir, err := os.MkdirTemp("", "stella-bench-")
	if err != nil {
		return err
	}
	defer removeAll(dir)
	e := &env{dir: dir, stella: bin}
	w, err := b.setup(e)
	var skip skipped
	if errors.As(err, &skip) {
		fmt.Printf("%-16s SKIPPED, not measured: %s\n", b.name, skip)
		return nil
	}
	if err != nil {
		return err
	}
	if w.close != nil {
		defer w.close()
	}
	var a, p, ratios, cpu []float64
	rounds := b.pairs + 1 // the first warms caches
	if b.pairs == 1 {
		rounds = 1
	}
	for i := range rounds {
		if w.before != nil {
			if err := w.before(); err != nil {
				return err
			}
		}
		x, y, xcpu, ycpu, err := w.pair()
		if err != nil {
			return err
		}
		if i == 0 && b.pairs > 1 {
			continue // warm caches
		}
		a, p, ratios = append(a, x), append(p, y), append(ratios, x/y)
		if ycpu > 0 {
			cpu = append(cpu, xcpu/ycpu)
		}
	}
	fmt.Printf("%-16s %10s %10s %8.2f  %.2f–%.2f of %d pairs: %s against %s\n", b.name, ms(quantile(a, .5)), ms(quantile(p, .5)),
		quantile(ratios, .5), quantile(ratios, .25), quantile(ratios, .75), b.pairs, b.what, b.peer)
	if len(cpu) > 0 { // steadier where other programs share the machine
		e.note("ratio of processor time: %.2f", quantile(cpu, .5))
	}
	for _, n := range e.notes {
		fmt.Printf("%-16s   %s\n", "", n)
	}
	return nil
}

// pair runs ours, then theirs: wall time and processor time.
func (w *work) pair() (ours, theirs, cpu, peerCPU float64, err error) {
	if w.measured != nil {
		x, y, err := w.measured()
		return x.Seconds(), y.Seconds(), 0, 0, err
	}
	if ours, cpu, err = timed(w.ours); err != nil {
		return
	}
	theirs, peerCPU, err = timed(w.theirs)
	return
}

// timed measures wall and processor time, that of children included.
func timed(f func() error) (wall, cpu float64, err error) {
	begun, used := time.Now(), processorTime()
	err = f()
	return time.Since(begun).Seconds(), processorTime() - used, err
}

func processorTime() float64 {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum.Seconds()
}

func quantile(xs []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	return s[int(q*float64(len(s)-1)+0.5)]
}

func ms(s float64) string {
	switch {
	case s < 0.001:
		return fmt.Sprintf("%.1f µs", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.1f ms", s*1e3)
	}
	return fmt.Sprintf("%.2f s", s)
}

// removeAll removes a folder with read-only folders in it.
func removeAll(dir string) {
	filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o755)
		}
		return nil
	})
	os.RemoveAll(dir)
}
