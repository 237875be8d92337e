package runner

import "context"

// When a runner comes to rest by itself.

// RunUnattended is Run until nothing is left that moves without people: every run
// that is taken care of has ended or waits for a decision, or for a sub-run that
// does. The end of an approval's time is not waited for.
func (r *Runner) RunUnattended(ctx context.Context) error { return r.run(ctx, r.peopleOnly) }

// nothingLeft says whether no run is taken care of. The caller holds mu.
func (r *Runner) nothingLeft() bool { return len(r.execs) == 0 && r.busy == 0 }

// peopleOnly says whether nothing is under way, queued or put off: what is left of
// the runs waits for people. The caller holds mu.
func (r *Runner) peopleOnly() bool {
	return r.busy == 0 && len(r.delayed) == 0 && r.queue.empty(r.execs)
}

func (r *Runner) wait(ctx context.Context, until func() bool) error {
	for {
		r.mu.Lock()
		idle, over := r.idle, until()
		r.shut = r.shut || over
		r.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-r.fatal:
			return err
		case <-idle:
		}
	}
}
