package sandbox_test

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"a.stella/initproc"

	"github.com/stellarun/stella/runner/sandbox"
)

// waiting lists the init processes of this one that have no program.
func waiting(t *testing.T) (pids []int) {
	t.Helper()
	all, err := initproc.Processes()
	if err != nil {
		t.Fatal(err)
	}
	busy := make(map[int]bool)
	for _, p := range all {
		busy[p.Parent] = true
	}
	for _, p := range all {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
		if p.Parent == os.Getpid() && !busy[p.PID] && p.State != 'Z' && strings.HasPrefix(string(line), initproc.Marker) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// TestSpareInits: attempts take the init processes that wait, one that was killed
// while it waited costs nothing but its place, and none outlives the sandbox.
func TestSpareInits(t *testing.T) {
	evil()
	before := descriptorsOnceOpen(t)
	ignore := goleak.IgnoreCurrent()
	s := sandbox.New(sandbox.Options{Spares: 2, Look: 5 * time.Millisecond})
	defer s.Close()
	ready := func(n int) []int {
		for range 1000 {
			if pids := waiting(t); len(pids) == n {
				return pids
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("%d init processes wait, not %d", len(waiting(t)), n)
		return nil
	}
	one := func() {
		task, _ := task(t, "exit", "3")
		rep, err := s.Execute(t.Context(), task)
		if err != nil || rep.ExitCode == nil || *rep.ExitCode != 3 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	first := ready(1) // one from the beginning
	one()
	second := ready(2) // two from then on
	for _, pid := range second {
		if pid == first[0] {
			t.Errorf("init process %d was not taken", pid)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	one() // both are dead: each attempt meets one, and is executed all the same
	one()
	ready(2)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { one() })
	}
	all.Wait()
	ready(2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left := waiting(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	goleak.VerifyNone(t, ignore)
	if after := descriptors(t); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}

// descriptorsOnceOpen is descriptors after one attempt: what is opened once is open.
func descriptorsOnceOpen(t *testing.T) []string {
	t.Helper()
	task, _ := task(t, "exit", "0")
	execute(t, task)
	return descriptors(t)
}
