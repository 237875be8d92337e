package sandbox_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"a.stella/initproc"
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

// TestInitsAreKept: attempts take the init process that waits, one that was killed
// while it waited costs nothing, limits are never those of another attempt, and
// none outlives the sandbox.
func TestInitsAreKept(t *testing.T) {
	evil()
	newBox(1).Close() // what is opened once is open
	before := descriptors(t)
	ignore := goleak.IgnoreCurrent()
	others := waiting(t)
	s := newBox(2)
	defer s.Close()
	ready := func(n int) []int {
		t.Helper()
		for range 1000 {
			pids := slices.DeleteFunc(waiting(t), func(pid int) bool { return slices.Contains(others, pid) })
			if len(pids) == n {
				return pids
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("not %d init processes wait but, with %d others, %d", n, len(others), len(waiting(t)))
		return nil
	}
	one := func(workspace int64) {
		task, _ := task(t, "exit", "3")
		task.Limits.Workspace = workspace
		rep, err := s.Execute(t.Context(), task)
		if err != nil || rep.ExitCode == nil || *rep.ExitCode != 3 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	first := ready(1)
	one(1 << 20)
	if again := ready(1); again[0] != first[0] {
		t.Errorf("init process %d is there instead of %d", again[0], first[0])
	}
	one(1 << 20)
	one(2 << 20) // not below the limit of the others
	two := ready(2)
	for _, pid := range two {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	one(1 << 20)
	one(2 << 20)
	for _, pid := range ready(2) {
		if slices.Contains(two, pid) {
			t.Errorf("init process %d is still there", pid)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { one(1 << 20) })
	}
	all.Wait()
	ready(2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ready(0)
	goleak.VerifyNone(t, ignore)
	if after := descriptors(t); !slices.Equal(before, after) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}
