package initproc

import (
	"os"
	"syscall"
	"time"
)

// How long the tree is killed before what is left counts as a survivor, and
// how often it is looked at meanwhile; and how long an orphan that has ended
// before the program may wait to be reaped.
const (
	killFor   = 5 * time.Second
	killEvery = 10 * time.Millisecond
	reapEvery = time.Second
)

// A reaper watches over the processes below this one.
type reaper struct {
	main  int // the program
	wait  syscall.WaitStatus
	ended bool // main was reaped
	empty bool // there is no child left, hence, since orphans come to us, no descendant
	lost  bool // the lifeline has ended

	killing   bool
	since     time.Time
	killed    map[process]bool
	survivors int

	user, system, rss int64
}

// loop returns when nothing is left below this process, or when what is left
// cannot be killed. It waits on this thread and without a goroutine: most
// programs run for a few milliseconds, and each switch between threads costs as
// much as a system call.
func (r *reaper) loop() {
	fds := []pollFD{{fd: SpecFD, events: pollIn}, {fd: r.endOf(), events: pollIn}}
	wait := reapEvery
	if fds[1].fd < 0 {
		wait = killEvery
	} else {
		defer syscall.Close(int(fds[1].fd))
	}
	for {
		r.reap()
		if r.empty {
			return
		}
		if r.ended {
			fds[1].fd = -1 // poll(2) passes it over
			r.kill()
		}
		if r.killing {
			wait = killEvery
			if r.survivors = r.round(); time.Since(r.since) > killFor {
				return
			}
		}
		poll(fds, wait)
		if fds[0].revents != 0 && !r.command() {
			fds[0].fd = -1
		}
	}
}

// endOf is a descriptor that becomes readable when the program ends, or -1.
func (r *reaper) endOf() int32 {
	fd, _, e := syscall.Syscall(sysPidfdOpen, uintptr(r.main), 0, 0)
	if e != 0 { // Linux before 5.3, or filtered
		return -1
	}
	return int32(fd)
}

// command takes one command and says whether more can come. The end of the
// lifeline is the last.
func (r *reaper) command() bool {
	var b [1]byte
	if readFull(SpecFD, b[:]) != nil {
		r.lost = true
		r.kill()
		return false
	}
	switch {
	case b[0] == CommandKill:
		r.kill()
	case b[0] == CommandTerm && !r.ended:
		syscall.Kill(-r.main, syscall.SIGTERM)
	}
	return true
}

// kill begins the end: from now on each turn of the loop is a round.
func (r *reaper) kill() {
	if !r.killing {
		r.killing, r.since, r.killed = true, time.Now(), make(map[process]bool)
	}
}

// reap collects every child that has ended. It runs on the goroutine that
// sends signals, so that no number is signalled after it was given back.
func (r *reaper) reap() {
	for {
		var ws syscall.WaitStatus
		var ru syscall.Rusage
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, &ru)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			r.empty = true
			return
		case pid == 0:
			return
		}
		r.user += ru.Utime.Nano() / 1000
		r.system += ru.Stime.Nano() / 1000
		r.rss = max(r.rss, ru.Maxrss*1024)
		if pid == r.main {
			r.ended, r.wait = true, ws
		}
	}
}

// round sends SIGKILL to every process below this one and returns how many
// there were. A process that forks meanwhile is met in the next round: what it
// leaves comes to us.
func (r *reaper) round() int {
	tree := descendants(os.Getpid())
	for _, p := range tree {
		if !signalProcess(p, syscall.SIGKILL) || p.PID == r.main {
			continue
		}
		r.killed[process{p.PID, p.Start}] = true
	}
	return len(tree)
}

func (r *reaper) status() *Status {
	s := Status{
		Kind: Ended, PID: uint32(r.main), Wait: uint32(r.wait),
		Killed: uint32(len(r.killed)),
		UserUs: uint64(r.user), SystemUs: uint64(r.system), MaxRSS: uint64(r.rss),
	}
	if !r.empty {
		s.Survivors = uint32(max(1, r.survivors))
	}
	return &s
}
