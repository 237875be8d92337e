package initproc

import (
	"syscall"
	"unsafe"
)

// traits of a process and one of its threads. Two that are equal give the same to
// a program that is forked. What is unknown to this kernel is zero in both.
type traits struct {
	limits   [16]syscall.Rlimit // all that Linux has (getrlimit(2))
	nice     uintptr            // as getpriority(2) of the kernel gives it
	policy   uintptr            // sched_getscheduler(2)
	priority int32              // sched_getparam(2)
	io       uintptr            // ioprio_get(2)
	cpus     [128]byte          // sched_getaffinity(2)
}

const (
	prioProcess   = 0
	ioprioProcess = 1
)

func traitsOf(tid int) (t traits) {
	for i := range t.limits {
		prlimit(0, i, nil, &t.limits[i])
	}
	id := uintptr(tid)
	t.nice, _, _ = syscall.RawSyscall(syscall.SYS_GETPRIORITY, prioProcess, id, 0)
	t.policy, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_GETSCHEDULER, id, 0, 0)
	syscall.RawSyscall(syscall.SYS_SCHED_GETPARAM, id, uintptr(unsafe.Pointer(&t.priority)), 0)
	t.io, _, _ = syscall.RawSyscall(syscall.SYS_IOPRIO_GET, ioprioProcess, id, 0)
	syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, id, uintptr(len(t.cpus)), uintptr(unsafe.Pointer(&t.cpus)))
	return t
}
