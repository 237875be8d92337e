package engine

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
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
	var panicked any
	done := make(chan struct{})
	err = errGoexit
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		runtime.LockOSThread()
		if own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil && 20-own < backgroundNice { // the call gives 20 less the priority
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, backgroundNice) // it is only slower for others
		}
		out, err = fn()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return out, err
}

var background struct {
	sync.Mutex
	works int
}

// moreProcessors lets Go execute twice as many threads at once as there are processors until
// the function that it returns is called, so that the kernel chooses among them by priority.
// With as many, what comes back from a sync of the ledger waits until Go's own scheduler
// interrupts long work, up to 10 ms: the 99th percentile of a commit beside an archive was 3
// to 5 times as long as without one on two processors, and is 1.5 to 2 times so.
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
