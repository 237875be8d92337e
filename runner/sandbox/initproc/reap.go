package initproc

import (
	"os"
	"syscall"
	"time"
)

// How long the tree is killed before what is left counts as a survivor, and
// how often it is looked at meanwhile.
const (
	killFor   = 5 * time.Second
	killEvery = 10 * time.Millisecond
)

// A reaper watches over the processes below this one.
type reaper struct {
	main  int // the program
	wait  syscall.WaitStatus
	ended bool // main was reaped
	empty bool // there is no child left, hence, since orphans come to us, no descendant

	killing   bool
	since     time.Time
	killed    map[process]bool
	survivors int

	user, system, rss int64
}

// loop returns when nothing is left below this process, or when what is left
// cannot be killed.
func (r *reaper) loop(sigs <-chan os.Signal, commands <-chan byte) {
	var again <-chan time.Time
	for {
		r.reap()
		if r.empty {
			return
		}
		if r.ended {
			r.kill()
		}
		if r.killing {
			if r.survivors = r.round(); time.Since(r.since) > killFor {
				return
			}
			again = time.After(killEvery)
		}
		select {
		case s := <-sigs:
			// Somebody stops the whole service by signals: the program is told,
			// we stay until it has ended. SIGCHLD only wakes the loop.
			if s == syscall.SIGTERM && !r.ended {
				syscall.Kill(-r.main, syscall.SIGTERM)
			}
		case c, ok := <-commands:
			switch {
			case !ok:
				commands = nil
				r.kill()
			case c == CommandKill:
				r.kill()
			case c == CommandTerm && !r.ended:
				syscall.Kill(-r.main, syscall.SIGTERM)
			}
		case <-again:
		}
	}
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
