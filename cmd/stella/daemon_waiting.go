package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
)

// A daemon whose disk is full serves nobody, so that others can open the site: they find it by
// its mark on site.toml.

// untilRoom waits before the site is opened again, and says whether it is to be.
func (a *app) untilRoom(ctx context.Context, wait time.Duration, log *slog.Logger) bool {
	mark, err := fsx.Mark(a.waitMark())
	if err != nil {
		log.Warn("others do not see that this daemon waits", "error", err)
	} else {
		defer mark.Close()
	}
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *app) waitMark() string { return filepath.Join(a.opt.home, "site.toml") }

// waits is the process of a daemon that waits until there is room on the disk, 0 for none.
func (a *app) waits() int {
	if a.opt.apiURL != "" {
		return 0
	}
	pid, err := fsx.MarkedBy(a.waitMark())
	if err != nil {
		return 0
	}
	return pid
}

func waitsForRoom(pid int) api.Error {
	return api.Error{Code: api.CodeNoSpace, Message: fmt.Sprintf("the daemon (pid %d) waits until there is room on the disk, and accepts nothing", pid),
		Hint: "free space: it goes on by itself; stella daemon stop ends it"}
}

// stopWaiting ends a daemon that waits, if there is one, and says whether there was.
func (a *app) stopWaiting(ctx context.Context) (bool, error) {
	pid := a.waits()
	if pid == 0 {
		return false, nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return true, &api.Error{Code: api.CodeForbidden, Message: fmt.Sprintf("the daemon has pid %d: %v", pid, err)}
	}
	for !gone(pid) {
		select {
		case <-time.After(daemonLook):
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
	a.stderr.note("stopped")
	return true, nil
}
