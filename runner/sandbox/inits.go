package sandbox

import (
	"errors"
	"os"
	"slices"
	"sync"

	"a.stella/initproc"
)

// inits gives out init processes and takes them back. A Go program takes a
// millisecond until its first instruction, as long as many a plugin runs; one that
// waits for its next spec is there at once. It is given to attempts of one owner
// with one set of limits, which no process can raise again; and only while it has
// what it had before its program ran ([initproc.Status].Again), since without
// fences a program can change its parent.
type inits struct {
	keep    int // how many wait at most
	working sync.WaitGroup

	mu      sync.Mutex
	waiting []*process
	closed  bool
}

// errDiedWaiting is why an attempt that has not begun is begun again.
var errDiedWaiting = errors.New("the init process died while it waited for an attempt")

// newInits starts the first one, if any is to be kept, and does not wait for it.
func newInits(keep int) *inits {
	x := &inits{keep: keep}
	if keep > 0 {
		x.working.Go(func() {
			// Without it an attempt starts its own, and is told why it cannot.
			if p, err := startInit(); err == nil {
				x.give(p)
			}
		})
	}
	return x
}

// take returns an init process that has its spec. Unless it is a fresh one, it may
// have died while it waited: [errDiedWaiting], or its status shows it.
func (x *inits) take(owner string, fresh bool, s *initproc.Spec, stdin *os.File, files []*os.File) (p *process, err error) {
	if !fresh {
		p = x.find(owner, s.Rlimits)
	}
	if p == nil {
		if p, err = startInit(); err != nil {
			return nil, err
		}
	}
	p.used, p.owner, p.limits = true, owner, s.Rlimits
	if err := p.hand(s, stdin, files); err != nil {
		p.discard()
		if p.waited {
			err = errors.Join(errDiedWaiting, err)
		}
		return nil, err
	}
	return p, nil
}

// find takes out one that waits: the last that came of those that have had attempts
// of this owner with these limits, or one that has had none.
func (x *inits) find(owner string, limits []initproc.Rlimit) *process {
	x.mu.Lock()
	defer x.mu.Unlock()
	found := -1
	for i, p := range x.waiting {
		if p.used && p.owner == owner && slices.Equal(p.limits, limits) || !p.used && found < 0 {
			found = i
		}
	}
	if found < 0 {
		return nil
	}
	p := x.waiting[found]
	x.waiting = slices.Delete(x.waiting, found, found+1)
	p.waited = true
	return p
}

// give takes one whose attempt has ended and left nothing behind, or that has had
// none. The one that has waited longest makes place for it.
func (x *inits) give(p *process) {
	p.streams = [2]*os.File{}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.waiting = append(x.waiting, p)
	if len(x.waiting) > x.keep || x.closed {
		old := x.waiting[0]
		x.waiting = slices.Delete(x.waiting, 0, 1)
		x.end(old)
	}
}

// end ends one without waiting for that. Nothing is left below it.
func (x *inits) end(p *process) { x.working.Go(p.end) }

// close ends those that wait, and returns when all that were given back are gone.
func (x *inits) close() {
	x.mu.Lock()
	x.closed = true
	for _, p := range x.waiting {
		x.end(p)
	}
	x.waiting = nil
	x.mu.Unlock()
	x.working.Wait()
}
