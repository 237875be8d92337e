package runner_test

import (
	"errors"
	"sync"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

var errDead = errors.New("the process is gone")

// mortal is a store whose process dies at a write: before it reaches the disk, or
// after, so that nobody hears of it.
type mortal struct {
	*store.DB
	mu    sync.Mutex
	left  int // writes until then; negative: it lives
	after bool
	dead  bool
	see   func(runID string, p []state.Proposal) // is called before a write; may be nil
}

// arm lets the process die at the n-th write from now, 0 at once.
func (m *mortal) arm(n int, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.after = n, after
	m.dead = m.dead || n == 0
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// write makes one write; nothing else is written meanwhile.
func (m *mortal) write(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left > 0 {
		m.left--
		m.dead = m.left == 0
	} else if m.dead {
		return errDead
	}
	if m.dead && !m.after {
		return errDead
	}
	err := f()
	if m.dead {
		return errDead
	}
	return err
}

func (m *mortal) Commit(id string, p ...state.Proposal) (run state.Run, err error) {
	err = m.write(func() error {
		if m.see != nil {
			m.see(id, p)
		}
		run, err = m.DB.Commit(id, p...)
		return err
	})
	return run, err
}

func (m *mortal) StartRun(run state.Run, start *ledger.RunStart, more []state.Proposal, along ...state.Batch) (out state.Run, err error) {
	err = m.write(func() error {
		out, err = m.DB.StartRun(run, start, more, along...)
		return err
	})
	return out, err
}

func (m *mortal) LoseLock(t ledger.Type, actor, tenant string, loss ledger.LockLoss) error {
	return m.write(func() error { return m.DB.LoseLock(t, actor, tenant, loss) })
}
