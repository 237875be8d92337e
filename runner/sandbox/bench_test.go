package sandbox_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stellarun/stella/runner/sandbox"
)

func TestProbe(t *testing.T) {
	s := sandbox.New(sandbox.Options{})
	res, err := s.Probe(t.Context())
	if err != nil || res.Tier != sandbox.TierPlain || res.Tier != s.Tier() {
		t.Fatalf("%+v, %v", res, err)
	}
	// In this tier nothing but what holds for the attempt itself is active.
	names := make(map[string]bool)
	for _, f := range res.Fences {
		if f.Proof == "" || names[f.Name] {
			t.Errorf("fence %+v says nothing, or twice", f)
		}
		names[f.Name] = true
		if want := f.Name == sandbox.FenceEnvironment; (f.State == "active") != want {
			t.Errorf("fence %+v", f)
		}
	}
	if len(names) != 11 {
		t.Errorf("%d fences", len(names))
	}
}

// TestNothingIsLeftBehind: descriptors, goroutines and processes of many
// attempts, several at a time, ended in every way.
func TestNothingIsLeftBehind(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 20
	}
	s := newBox(0)
	run := func(args ...string) {
		task, _ := task(t, args...)
		if args[0] == "ignore-term" {
			task.Timeout, task.Grace = 5*time.Millisecond, 0
		}
		executeIn(t, s, t.Context(), task)
		os.RemoveAll(task.Dir)
	}
	run("exit", "0") // what is opened once is opened now
	s.Close()
	before := descriptors(t)
	ignore := goleak.IgnoreCurrent()
	behaviours := [][]string{{"exit", "0"}, {"exit", "3"}, {"tree", "1"}, {"ignore-term"}, {"output", "{}"}}
	work := make(chan []string)
	done := make(chan struct{})
	for range 4 {
		go func() {
			for args := range work {
				run(args...)
			}
			done <- struct{}{}
		}()
	}
	for i := range n {
		work <- behaviours[i%len(behaviours)]
	}
	close(work)
	for range 4 {
		<-done
	}
	s.Close()
	goleak.VerifyNone(t, ignore)
	if after := descriptors(t); !slices.Equal(before, after) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
	children, err := os.ReadFile("/proc/self/task/" + filepath.Base(mustReadlink(t, "/proc/thread-self")) + "/children")
	if err == nil && len(strings.TrimSpace(string(children))) > 0 {
		t.Errorf("children: %s", children)
	}
}

func mustReadlink(t testing.TB, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// descriptors lists what this process has open, beside the listing itself.
func descriptors(t testing.TB) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasSuffix(target, "/fd") {
			names = append(names, e.Name()+" "+target)
		}
	}
	return names
}

// median runs f n times and reports the median of its durations as the
// benchmark's metric, and the processor time of one, that of its processes
// included, which is steadier where others share the machine.
func median(b *testing.B, f func()) {
	var all []time.Duration
	used := processorTime(b)
	for b.Loop() {
		begin := time.Now()
		f()
		all = append(all, time.Since(begin))
	}
	b.ReportMetric(float64((processorTime(b)-used).Microseconds())/float64(len(all)), "µs-cpu")
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-median")
	b.ReportMetric(float64(all[0].Microseconds()), "µs-min")
}

func processorTime(b *testing.B) (sum time.Duration) {
	b.Helper()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// BenchmarkBareExec is what starting the same program costs at least.
func BenchmarkBareExec(b *testing.B) {
	path := evil()
	median(b, func() {
		if err := exec.Command(path, "exit", "0").Run(); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkAttempt(b *testing.B) {
	s := sandbox.New(sandbox.Options{})
	task, _ := task(b, "exit", "0")
	base, i := task.Dir, 0
	median(b, func() {
		i++
		task.Dir = filepath.Join(base, strconv.Itoa(i))
		if err := os.Mkdir(task.Dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if rep, err := s.Execute(b.Context(), task); err != nil || rep.ExitCode == nil {
			b.Fatal(rep, err)
		}
		os.RemoveAll(task.Dir)
	})
}

// BenchmarkAttemptTrue is BenchmarkAttempt with /bin/true.
func BenchmarkAttemptTrue(b *testing.B) {
	s := sandbox.New(sandbox.Options{})
	task, _ := task(b)
	task.Entry = file(b, "/bin/true")
	base, i := task.Dir, 0
	median(b, func() {
		i++
		task.Dir = filepath.Join(base, strconv.Itoa(i))
		if err := os.Mkdir(task.Dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if rep, err := s.Execute(b.Context(), task); err != nil || rep.ExitCode == nil {
			b.Fatal(rep, err)
		}
		os.RemoveAll(task.Dir)
	})
}

func BenchmarkBareTrue(b *testing.B) {
	median(b, func() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkInit is the init process alone, with a program that ends at once.
func BenchmarkInit(b *testing.B) {
	s := sandbox.New(sandbox.Options{})
	median(b, func() {
		if _, err := s.Probe(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
}
