//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// armed is what the environment asks for; read once, at the first hit.
var armed = sync.OnceValue(func() *point { return parse(os.Getenv(Env)) })

// A point is one armed failpoint.
type point struct {
	name string
	kill bool
	full bool
	from int64 // first hit that fires, from 1
	hits atomic.Int64
}

// Hit marks a failpoint: it returns nil, or an error that wraps [ErrInjected],
// or does not return because the process is gone. Any goroutine may call it.
func Hit(name string) error {
	if !slices.Contains(Names(), name) {
		panic("failpoint: " + name + " is not listed in Names")
	}
	p := armed()
	if p == nil || p.name != name || p.hits.Add(1) < p.from {
		return nil
	}
	if p.full {
		return fmt.Errorf("failpoint %s: %w: %w", name, ErrInjected, syscall.ENOSPC)
	}
	if !p.kill {
		return fmt.Errorf("failpoint %s: %w", name, ErrInjected)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic("failpoint: " + err.Error())
	}
	select {} // the signal is on its way
}

// parse reads a value of [Env]; nil means that nothing is armed.
func parse(s string) *point {
	if s == "" {
		return nil
	}
	name, action, ok := strings.Cut(s, "=")
	p := &point{name: name, from: 1}
	if n, rest, counted := strings.Cut(action, ":"); counted {
		v, err := strconv.ParseInt(n, 10, 64)
		p.from, action, ok = v, rest, ok && err == nil && v > 0
	}
	p.kill, p.full = action == "kill", action == "full"
	if !ok || !p.kill && !p.full && action != "error" || !slices.Contains(Names(), name) {
		panic(fmt.Sprintf("failpoint: %s=%q is not name=[N:]kill, name=[N:]error or name=[N:]full", Env, s))
	}
	return p
}
