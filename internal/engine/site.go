package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// site is an engine as one principal in one tenant sees it.
type site struct {
	e             *Engine
	actor, tenant string
	behalf        []string // of a schedule: who set it up
}

var _ api.Site = (*site)(nil)

// As is the site as a principal sees it; an empty tenant means the default one.
func (e *Engine) As(p api.Principal) api.Site {
	if p.Tenant == "" {
		p.Tenant = e.site.DefaultTenant
	}
	return &site{e: e, actor: p.Name, tenant: p.Tenant}
}

// run reads a run of this tenant; those of others are not there.
func (s *site) run(id string) (state.Run, error) {
	run, err := s.e.db.Run(id)
	if store.IsNotFound(err) || err == nil && run.Tenant != s.tenant {
		return state.Run{}, notFound("there is no run %q", id)
	}
	if err != nil {
		return state.Run{}, dbError(err)
	}
	return run, nil
}

// Status says what the site is doing.
func (s *site) Status(ctx context.Context) (api.SiteStatus, error) {
	e := s.e
	queue, err := s.queueStatus("") // with what nobody executes
	if err != nil {
		return api.SiteStatus{}, err
	}
	bundles, err := e.db.Bundles()
	if err != nil {
		return api.SiteStatus{}, dbError(err)
	}
	dags, err := e.db.DAGs("")
	if err != nil {
		return api.SiteStatus{}, dbError(err)
	}
	_, checkpoint, err := e.db.Checkpoint()
	if err != nil && !store.IsNotFound(err) {
		return api.SiteStatus{}, dbError(err)
	}
	disk, err := room(e.opt.Home, e.site.FreeSpaceReserve)
	if err != nil {
		return api.SiteStatus{}, internal(err)
	}
	t := e.currentTrust()
	out := api.SiteStatus{
		SiteID: e.db.SiteID(), FleetID: t.Root().FleetID, Epoch: e.db.Epoch(), Home: e.opt.Home, Version: e.opt.Version,
		Mode: e.opt.Mode, PID: os.Getpid(), StartedUTC: stamp.Format(e.started), AllowPlain: e.site.AllowPlain,
		Workers: e.site.Workers, ActiveRuns: queue.Runs, Queued: queue.Depth, Executing: queue.Executing, Entries: e.db.Size(),
		Checkpoint: checkpoint, Bundles: len(bundles), DAGs: len(dags), StoreBytes: e.db.Bytes(), Trust: t.Ref(),
		Warnings: e.warnings(), Opening: e.opening.Load(), Disk: disk, Refuses: e.refuses(ctx, disk.Free, queue.Executing),
	}
	if e.opt.Executor != nil {
		out.Tier = e.opt.Executor.Tier()
	}
	return out, nil
}

// fullBelow is so little room that ledger.db cannot grow.
const fullBelow = 64 << 10

// refuses is why nothing is accepted any more, nil while something is.
func (e *Engine) refuses(ctx context.Context, free int64, executing int) *api.Error {
	var known *api.Error
	why := e.failed()
	if why == nil && e.opt.Mode == ModeCommand && free < fullBelow { // a daemon finds out by itself
		why = &api.Error{Code: api.CodeNoSpace, Message: fmt.Sprintf("there is no space left: %d bytes are free, and ledger.db takes no more than it has room for in itself", free),
			Hint: "free space, then try again: nothing that was acknowledged is lost"}
	}
	switch {
	case errors.As(e.Help(ctx, why), &known):
		return known
	case e.ending.Load():
		return &api.Error{Code: api.CodeStopping, Message: fmt.Sprintf("the %s (pid %d) is stopping, and begins nothing; attempts that it waits for: %d", e.opt.Mode, os.Getpid(), executing),
			Hint: "stella daemon stop returns when it has ended; with --force it interrupts what executes"}
	}
	return nil
}

// Stop asks for the end of the process that holds the site.
func (s *site) Stop(_ context.Context, force bool) error {
	s.e.stopOnce.Do(func() {
		s.e.force = force
		s.e.ending.Store(true)
		close(s.e.stop)
	})
	return nil
}
