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

// waitingBut waits until n init processes wait beside others.
func waitingBut(t *testing.T, n int, others []int) []int {
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
		return waitingBut(t, n, others)
	}
	owner := "one"
	one := func(workspace int64) {
		t.Helper()
		task, _ := task(t, "exit", "3")
		task.Limits.Workspace, task.Owner = workspace, owner
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
	owner = "two" // nor one that has had a program of somebody else
	one(1 << 20)
	owner = "three"
	one(1 << 20)
	owner = "two"
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

// TestInitsThatWereChanged: what a program does to its init process is not passed
// on, nor does one that answers no more keep an attempt waiting.
func TestInitsThatWereChanged(t *testing.T) {
	for name, program := range map[string][]string{
		"limits":   {"limit-init"},
		"priority": {"slow-init"},
	} {
		t.Run(name, func(t *testing.T) {
			evil()
			others := waiting(t)
			s := newBox(1)
			defer s.Close()
			first := waitingBut(t, 1, others)
			task, rec := task(t, program...)
			exited(t, executeIn(t, s, t.Context(), task), 0, rec)
			waitingBut(t, 0, append(others, first...))
			if syscall.Kill(first[0], 0) == nil {
				line, _ := os.ReadFile("/proc/" + strconv.Itoa(first[0]) + "/stat")
				if len(line) > 0 && !strings.Contains(string(line), ") Z ") {
					t.Errorf("init process %d is kept", first[0])
				}
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		evil()
		others := waiting(t)
		s := newBox(1)
		s.SetStartWait(2 * time.Second)
		defer s.Close()
		for _, pid := range waitingBut(t, 1, others) {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		task, rec := task(t, "exit", "3")
		exited(t, executeIn(t, s, t.Context(), task), 3, rec)
	})
}

// TestAnInitLivesLong: it survives what its runtime does only now and then, such as
// collecting garbage and giving memory back, for which it opens descriptors of its own.
func TestAnInitLivesLong(t *testing.T) {
	evil()
	others := waiting(t)
	s := newBox(1)
	defer s.Close()
	first := waitingBut(t, 1, others)
	args := []string{"exit", "3"}
	for range 10 {
		args = append(args, strings.Repeat("x", 100<<10))
	}
	n := 400
	if testing.Short() {
		n = 100
	}
	for i := range n {
		task, rec := task(t, args...)
		task.Dir = t.TempDir()
		rep := executeIn(t, s, t.Context(), task)
		if rep.Detail != "" {
			t.Fatalf("attempt %d: %s", i, rep.Detail)
		}
		exited(t, rep, 3, rec)
	}
	if last := waitingBut(t, 1, others); !slices.Equal(last, first) {
		t.Errorf("init process %v became %v", first, last)
	}
}
