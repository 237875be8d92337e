package sandbox

import (
	"errors"
	"os"
	"sync"

	"a.stella/initproc"
)

// inits gives out init processes. A Go program takes a millisecond until its
// first instruction, as long as many a plugin runs: with a spare one, which waits
// for its spec, that time passes while the program before is still running.
type inits struct {
	spares  int            // how many wait; 0 makes each when it is needed
	ready   chan *process  // those that wait
	working sync.WaitGroup // what starts and what ends them

	mu     sync.Mutex
	coming int // spares that are being started, or are ready
	closed bool
}

// errSpareDied is why an attempt that has not begun is begun again.
var errSpareDied = errors.New("the init process died while it waited for an attempt")

func newInits(spares int) *inits {
	return &inits{spares: spares, ready: make(chan *process, spares)}
}

// take returns an init process that has its spec; a fresh one, or one that may have
// been killed while it waited, which shows on its status at the latest.
func (x *inits) take(fresh bool, s *initproc.Spec, stdin *os.File, files []*os.File) (*process, error) {
	var p *process
	if !fresh {
		p = x.spare()
	}
	if p == nil {
		var err error
		if p, err = startInit(); err != nil {
			return nil, err
		}
	}
	if err := p.hand(s, stdin, files); err != nil {
		spare := p.spare
		p.discard()
		if spare {
			return nil, errors.Join(errSpareDied, err)
		}
		return nil, err
	}
	x.fill(x.spares)
	return p, nil
}

// spare is one of those that wait, if there is one.
func (x *inits) spare() *process {
	select {
	case p := <-x.ready:
		x.mu.Lock()
		x.coming--
		x.mu.Unlock()
		p.spare = true
		return p
	default:
		return nil
	}
}

// fill starts what is missing of n spares, without waiting for it. One that cannot
// be started is missed by nobody: who needs one starts it, and is told why not.
func (x *inits) fill(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for ; x.coming < n && !x.closed; x.coming++ {
		x.working.Go(func() {
			p, err := startInit()
			x.mu.Lock()
			defer x.mu.Unlock()
			if err != nil || x.closed {
				x.coming--
				if err == nil {
					p.discard()
				}
				return
			}
			x.ready <- p // there is room for all that come
		})
	}
}

// end reaps one that has reported its end, without waiting for it: below it
// nothing is left.
func (x *inits) end(p *process) { x.working.Go(p.end) }

// close ends those that wait, and returns when all are gone.
func (x *inits) close() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.working.Wait()
	for {
		select {
		case p := <-x.ready:
			p.discard()
		default:
			return
		}
	}
}
