package background

import (
	"errors"
	"runtime"
	"syscall"
	"testing"
)

// Work in the background has a lower priority and processors of its own as long as there is
// any, and what it ends with reaches who asked for it.
func TestDo(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	before := runtime.GOMAXPROCS(0)
	nice := func() int {
		n, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
		if err != nil {
			t.Error(err)
		}
		return 20 - n // as the system call gives it
	}
	own := nice()
	failed := errors.New("it failed")
	got, err := Do(func() (int, error) {
		if n := nice(); n != max(own, priority) {
			t.Errorf("priority %d in the background, %d outside", n, own)
		}
		_, err := Do(func() (bool, error) { return true, nil })
		if n := runtime.GOMAXPROCS(0); n != 2*before {
			t.Errorf("%d threads at once while a work goes on, %d before", n, before)
		}
		return 7, errors.Join(err, failed)
	})
	if got != 7 || !errors.Is(err, failed) {
		t.Errorf("got %d, %v", got, err)
	}
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d threads at once afterwards, %d before", n, before)
	}
	if n := nice(); n != own {
		t.Errorf("priority %d afterwards, %d before", n, own)
	}
	if _, err := Do(func() (int, error) { runtime.Goexit(); return 1, nil }); !errors.Is(err, errGoexit) {
		t.Errorf("work that ended its goroutine: %v", err)
	}
	defer func() {
		if p := recover(); p != failed {
			t.Errorf("a panic became %v", p)
		}
	}()
	_, _ = Do(func() (int, error) { panic(failed) })
}
