package engine

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stellarun/stella/internal/garbage"
)

// backgroundNice is the priority of long work: what is recorded meanwhile comes first.
const backgroundNice = 10

var errGoexit = errors.New("engine: work in the background ended its goroutine")

// inBackground runs fn and waits for it, on a thread of its own that gives way to those that
// record entries, answer clients and execute steps. Nobody but root may raise a priority
// again, so the thread ends with fn, as one does whose goroutine ends without giving it back
// ([runtime.LockOSThread]).
func inBackground[T any](fn func() (T, error)) (out T, err error) {
	defer moreProcessors()()
	defer garbage.Rarely()()
	var panicked any
	done := make(chan struct{})
	err = errGoexit
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		runtime.LockOSThread()
		giveWay()
		out, err = fn()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return out, err
}

// giveWay lowers the priority of this thread, and lets it be interrupted after a tenth of a
// millisecond by one that wakes up: Linux would grant it some milliseconds in a piece,
// whatever its priority (sched_setattr(2); before Linux 6.12 it does not heed the slice).
func giveWay() {
	const slice = 100_000 // ns, the least
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil || own.Policy != unix.SCHED_NORMAL {
		return
	}
	// An error makes nothing slower but others.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: max(own.Nice, backgroundNice), Runtime: slice}, 0)
}

var background struct {
	sync.Mutex
	works int
}

// moreProcessors lets Go execute twice as many threads at once as there are processors until
// the function that it returns is called, so that the kernel chooses among them by priority.
// With as many, what comes back from a sync of the ledger waits until Go's own scheduler
// interrupts long work, up to 10 ms.
func moreProcessors() (restore func()) {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {} // somebody knows better
	}
	background.Lock()
	defer background.Unlock()
	if background.works++; background.works == 1 {
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
	return func() {
		background.Lock()
		defer background.Unlock()
		if background.works--; background.works == 0 {
			runtime.SetDefaultGOMAXPROCS()
		}
	}
}
