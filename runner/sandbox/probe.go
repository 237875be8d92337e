package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"a.stella/initproc"

	"github.com/stellarun/stella/ledger"
)

// A ProbeResult is what a throw-away attempt has shown.
type ProbeResult struct {
	Tier   string
	Fences []ledger.Fence
	Took   time.Duration // from the start of the init process to its end
}

// Probe runs a throw-away attempt, which touches no file, and says in which
// tier it ran. An error says what this machine refuses, and how to allow it.
func (s *Sandbox) Probe(ctx context.Context) (ProbeResult, error) {
	res := ProbeResult{Tier: TierPlain, Fences: s.Fences()}
	if err := probeMemfd(); err != nil {
		return res, fmt.Errorf("sandbox: probe: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return res, fmt.Errorf("sandbox: probe: %w", err)
	}
	defer null.Close()
	begin := time.Now()
	// As a program it runs this binary, under a name with which it ends at
	// once. It is executed from its descriptor, as entries are.
	self, err := os.Open(selfPath)
	if err != nil {
		return res, fmt.Errorf("sandbox: probe: %w (is /proc mounted?)", err)
	}
	defer self.Close()
	p, err := startInit()
	if err != nil {
		return res, fmt.Errorf("sandbox: probe: %w", err)
	}
	defer p.discard()
	err = p.hand(&initproc.Spec{
		Args: []string{initproc.ProbeMarker}, Dir: "/",
	}, null, []*os.File{self})
	if err == nil {
		err = probeEnd(ctx, p)
	}
	if err != nil {
		return res, fmt.Errorf("sandbox: probe: %w", err)
	}
	res.Took = time.Since(begin)
	return res, nil
}

// probeMemfd seals a memory file, as is done with each entry.
func probeMemfd() error {
	f, err := memfd("stella-probe")
	if err != nil {
		return err
	}
	return f.Close()
}

// probeEnd waits for the end of the probe's program.
func probeEnd(ctx context.Context, p *process) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s, ok := <-p.status:
			switch {
			case !ok:
				return errors.New("the init process died; is there a limit on processes or memory?")
			case s.Kind == initproc.Failed:
				return fmt.Errorf("the init process failed at %s: error number %d", s.Stage, s.Errno)
			case s.Kind == initproc.Unstarted:
				return fmt.Errorf("executing %s: error number %d", filepath.Base(os.Args[0]), s.Errno)
			case s.Kind == initproc.Ended && s.Wait>>8 != initproc.ProbeExit:
				return fmt.Errorf("the program of the probe ended with wait status %#x", s.Wait)
			case s.Kind == initproc.Ended:
				return nil
			}
		}
	}
}
