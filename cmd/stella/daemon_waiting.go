package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
)

// A daemon whose disk is full serves nobody, so that others can open the site: they find it by
// its mark on the home, which nothing takes the place of.

// How long a daemon that waits does so before it opens the site again.
const (
	firstLook = 2 * time.Second
	lastLook  = time.Minute
)

// runDaemon is the daemon: it holds the site until it is asked to end. When the disk is full
// it lets go of the site, so that others can read it, and opens it again when there is room
// and nobody else holds it.
func runDaemon(ctx context.Context, a *app) error {
	if err := a.needHome(); err != nil {
		return err
	}
	if a.opt.apiURL != "" {
		return notForSocket()
	}
	if pid := a.waits(); pid != 0 {
		full := waitsForRoom(pid)
		return &full
	}
	log := a.log(true)
	pause, served, wait, last := pause(pauseUnmarked), false, firstLook, ""
	for {
		began := a.now()
		up, err := a.beDaemon(ctx, pause, log)
		if up {
			pause, served = a.pauseMarked, true
		}
		why := passing(err)
		if served && !up && ctx.Err() != nil {
			log.Info("stopped")
			return nil
		}
		if !served || why == "" {
			return err
		}
		if why != last || up && a.now().Sub(began) > lastLook {
			wait, last = firstLook, why
		}
		if mark, err := fsx.Mark(a.opt.home); err != nil {
			log.Warn("others do not see that this daemon waits", "error", err)
		} else {
			_ = mark.Close()
		}
		log.Error(why, "error", err, "next", wait.String())
		if !pause(ctx, wait) {
			log.Info("stopped")
			return nil
		}
		wait = min(2*wait, lastLook)
	}
}

// passing is what a daemon that has served says of a reason not to go on that passes, "" where
// it does not.
func passing(err error) string {
	var known *api.Error
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT): // no room for the socket
		return "the disk is full: nothing is accepted until there is room"
	case !errors.As(err, &known):
		return ""
	}
	switch known.Code {
	case api.CodeNoSpace:
		return "the disk is full: nothing is accepted until there is room"
	case api.CodeLocked:
		return "another process holds the site: nothing is accepted until it has let go"
	case api.CodeRestoring:
		return "a restore is under way, or was cut off: nothing is accepted until it is finished"
	}
	return ""
}

func pauseUnmarked(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

// pauseMarked lets others see meanwhile that this daemon waits. Where the home can have no
// mark (some network file systems) it waits all the same.
func (a *app) pauseMarked(ctx context.Context, wait time.Duration) bool {
	if mark, err := fsx.Mark(a.opt.home); err == nil {
		defer mark.Close()
	}
	return pauseUnmarked(ctx, wait)
}

// waits is the process of a daemon that waits until there is room on the disk, 0 for none.
func (a *app) waits() int {
	if a.opt.apiURL != "" {
		return 0
	}
	pid, err := fsx.MarkedBy(a.opt.home)
	if err != nil || !a.mayBeDaemon(pid) {
		return 0
	}
	return pid
}

// mayBeDaemon says whether a process that has marked the home may be its daemon: others can
// lock a folder for reasons of their own.
func (a *app) mayBeDaemon(pid int) bool {
	me := os.Geteuid()
	owner, err := ownerOf(a.opt.home)
	if pid <= 0 || err != nil || owner != me && me != 0 || !isStella(pid) {
		return false
	}
	if uid, err := effectiveUID(pid); err != nil || uid != owner {
		return false
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(raw), "\x00")
	i := slices.Index(args, "daemon")
	return i > 0 && slices.Contains(args[i:], "start")
}

// isStella says whether a process executes our file, or one with its name: it may have been
// replaced by a newer one meanwhile.
func isStella(pid int) bool {
	exe := fmt.Sprintf("/proc/%d/exe", pid)
	its, err := os.Readlink(exe)
	if err != nil {
		return false
	}
	ours, err := os.Executable()
	if err == nil && filepath.Base(strings.TrimSuffix(its, " (deleted)")) == filepath.Base(ours) {
		return true
	}
	a, errA := os.Stat(exe)
	b, errB := os.Stat("/proc/self/exe")
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// effectiveUID is the user that a process acts as.
func effectiveUID(pid int) (int, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == "Uid:" {
			return strconv.Atoi(f[2])
		}
	}
	return 0, fmt.Errorf("process %d: no user", pid)
}

func waitsForRoom(pid int) api.Error {
	return api.Error{Code: api.CodeNoSpace, Message: fmt.Sprintf("the daemon (pid %d) waits until there is room on the disk and nobody else holds the site, and accepts nothing", pid),
		Hint: "free space: it goes on by itself; stella daemon stop ends it"}
}

// renderWaiting is daemon status of a daemon that waits.
func (a *app) renderWaiting(pid int) error {
	full, d := waitsForRoom(pid), daemonState{Waiting: true, PID: pid}
	text := "" // site.toml may not be valid by now
	if disk, err := engine.Room(a.opt.home); err == nil {
		d.Disk, text = &disk, roomText(disk)
	}
	if err := a.emit(d, func(s *screen) {
		s.fields("daemon", fmt.Sprintf("waiting for room on the disk, accepts nothing, pid %d", pid), "disk", text)
	}); err != nil {
		return err
	}
	return &full
}

// stopWaiting ends a daemon that waits, if there is one, and says whether there was.
func (a *app) stopWaiting(ctx context.Context) (bool, error) {
	pid := a.waits()
	if pid == 0 {
		return false, nil
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false, nil
	}
	defer func() { _ = p.Release() }()
	if a.waits() != pid { // what p stands for now is what was looked at
		return false, nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return true, &api.Error{Code: api.CodeForbidden, Message: fmt.Sprintf("the daemon has pid %d: %v", pid, err)}
	}
	late := time.After(a.ends)
	for !gone(pid) && !errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		select {
		case <-time.After(daemonLook):
		case <-late:
			return true, &api.Error{Code: api.CodeLocked, Message: fmt.Sprintf("the daemon (pid %d), which waits until there is room on the disk, has not ended %v after SIGTERM", pid, a.ends),
				Hint: fmt.Sprintf("kill -QUIT %d makes it say where it hangs before it ends; SIGKILL is safe", pid)}
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
	a.stderr.note("stopped")
	return true, nil
}
