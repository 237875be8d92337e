package engine

import (
	"runtime"
	"syscall"
)

// backgroundNice is the priority of long work: what is recorded meanwhile comes first.
const backgroundNice = 10

// inBackground runs fn and waits for it, on a thread of its own that gives way to those that
// record entries, answer clients and execute steps. Nobody but root may raise a priority
// again, so the thread ends with fn, as one does whose goroutine ends without giving it back
// ([runtime.LockOSThread]).
func inBackground[T any](fn func() (T, error)) (out T, err error) {
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		runtime.LockOSThread()
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), backgroundNice) // it is only slower for others
		out, err = fn()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return out, err
}
