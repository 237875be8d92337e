// Package background does long work beside a daemon's own: on a thread that gives way to those
// that record entries, answer clients and execute steps.
package background

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stellarun/stella/internal/garbage"
)

// priority is that of long work (nice(2)): what is recorded meanwhile comes first.
const priority = 10

var errGoexit = errors.New("background: work has ended its goroutine")

// Do runs fn and waits for it. Nobody but root may raise a priority again, so the thread ends
// with fn, as one does whose goroutine ends without giving it back ([runtime.LockOSThread]). A
// panic of fn is the caller's.
func Do[T any](fn func() (T, error)) (out T, err error) {
	defer begin()()
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
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: max(own.Nice, priority), Runtime: slice}, 0)
}

var going struct {
	sync.Mutex
	works int
}

// begin makes room until the last of all works has called the function that it returns.
// Garbage is collected rarely, and Go may execute twice as many threads at once as there are
// processors, so that the kernel chooses among them by priority. With as many, what comes back
// from a sync of the ledger waits until Go's own scheduler interrupts long work, up to 10 ms.
func begin() (end func()) {
	own := os.Getenv("GOMAXPROCS") != "" // somebody knows better
	going.Lock()
	defer going.Unlock()
	if going.works++; going.works == 1 {
		garbage.Rarely(true)
		if !own {
			runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
		}
	}
	return func() {
		going.Lock()
		defer going.Unlock()
		if going.works--; going.works > 0 {
			return
		}
		garbage.Rarely(false)
		if !own {
			runtime.SetDefaultGOMAXPROCS()
		}
	}
}
