package simtest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// mark is a word that nobody has used, for the reason of a request: by it the
// entry is found again.
func (l *load) mark() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks++
	return fmt.Sprintf("mark-%d", l.marks)
}

// valueOf is the secret that was kept with a mark.
func valueOf(mark string) string { return "value-" + mark }

// note takes down that n entries with a mark were acknowledged.
func (c *client) note(kind ledger.Type, mark string, n int) error {
	if n == 0 {
		return nil
	}
	c.count(string(kind))
	return c.journal.add(ack{Kind: string(kind), Mark: mark, N: n, Actor: c.actor})
}

// wide does something that is not about one run. What it is about may have gone
// meanwhile.
func (c *client) wide(ctx context.Context) error {
	all := []func(context.Context) error{
		c.queue, c.queue, c.queue, c.lock, c.lock, c.schedules, c.schedules, c.secrets, c.secrets, c.secrets, c.cache, c.switchDAG, c.checkpoint, c.tidy,
	}
	err := all[c.rng.IntN(len(all))](ctx)
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeNotFound {
		c.count("refused:" + string(e.Code))
		return nil
	}
	return err
}

// queue pauses or drains the queue, or lets it go on.
func (c *client) queue(ctx context.Context) error {
	st, err := c.site.QueueStatus(ctx, api.QueueQuery{})
	if err != nil {
		return err
	}
	kind, change, mark := ledger.QueuePaused, c.site.PauseQueue, c.mark()
	req := api.QueueRequest{Reason: mark, All: c.rng.IntN(3) == 0}
	if stops := append(st.Paused, st.Draining...); len(stops) > 0 {
		kind, change, req.All = ledger.QueueResumed, c.site.ResumeQueue, stops[0].Tenant == ""
	} else if c.rng.IntN(4) > 0 {
		return nil // most of the time it goes on
	} else if c.rng.IntN(3) == 0 {
		kind, change = ledger.QueueDraining, c.site.DrainQueue
	}
	out, err := change(ctx, req)
	if err != nil || !out.Changed {
		return err
	}
	return c.note(kind, mark, 1)
}

// lock takes a lock or a part of a semaphore from a holder.
func (c *client) lock(ctx context.Context) error {
	all, err := c.site.ListLocks(ctx, api.LockQuery{})
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(l api.Lock) bool { return len(l.Holders) == 0 })
	if len(all) == 0 {
		return errNothing
	}
	l := all[c.rng.IntN(len(all))]
	h := l.Holders[c.rng.IntN(len(l.Holders))]
	mark := c.mark()
	if _, err := c.site.ReleaseLock(ctx, l.Name, api.LockRelease{Kind: l.Kind, RunID: h.RunID, StepID: h.StepID, Reason: mark}); err != nil {
		return err
	}
	return c.note(ledger.LockForced, mark, 1)
}

// schedules adds, pauses, resumes or removes one.
func (c *client) schedules(ctx context.Context) error {
	all, err := c.site.ListSchedules(ctx, api.ScheduleQuery{})
	if err != nil {
		return err
	}
	mark := c.mark()
	if len(all) < 3 {
		dag := []string{"sim-chain", "sim-once", "sim-secret", "sim-cached"}[c.rng.IntN(4)]
		overlap := []string{api.OverlapSkip, api.OverlapQueue, api.OverlapCancel, api.OverlapAllow}[c.rng.IntN(4)]
		_, err := c.site.AddSchedule(ctx, api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{
			Name: mark, DAGID: dag, EveryMs: 1000, CatchUpMs: 3000, Overlap: overlap,
		}})
		if err != nil {
			return err
		}
		return c.note(ledger.ScheduleAdded, mark, 1)
	}
	s := all[c.rng.IntN(len(all))]
	kind, change := ledger.SchedulePaused, c.site.PauseSchedules
	switch {
	case s.Name != often && c.rng.IntN(2) == 0:
		kind, change = ledger.ScheduleRemoved, c.site.RemoveSchedules
	case s.State == api.SchedulePaused:
		kind, change = ledger.ScheduleResumed, c.site.ResumeSchedules
	case c.rng.IntN(3) > 0:
		return nil // let it start something
	}
	out, err := change(ctx, api.ScheduleSelection{Name: s.Name, Reason: mark})
	if err != nil {
		return err
	}
	return c.note(kind, mark, len(out.Changed))
}

// secrets sets, rotates or removes one. That of the runs is always there.
func (c *client) secrets(ctx context.Context) error {
	all, err := c.site.ListSecrets(ctx)
	if err != nil {
		return err
	}
	mark, name := c.mark(), []string{theSecret, theSecret, "s1", "s2"}[c.rng.IntN(4)]
	i := slices.IndexFunc(all, func(s api.Secret) bool { return s.Name == name && len(s.Versions) > 0 })
	if i >= 0 && (len(all[i].Versions) > 4 || name != theSecret && c.rng.IntN(3) == 0) {
		req := api.SecretRemoval{Name: name, Reason: mark, All: true}
		if name == theSecret {
			req.All, req.Version = false, all[i].Versions[0].Version
		}
		out, err := c.site.RemoveSecret(ctx, req)
		if err != nil {
			return err
		}
		return c.note(ledger.SecretRemoved, mark, len(out.Removed))
	}
	kind, change := ledger.SecretSet, c.site.SetSecret
	if i >= 0 {
		kind, change = ledger.SecretRotated, c.site.RotateSecret
	}
	if _, err := change(ctx, api.SecretRequest{Name: name, Value: api.SecretValue(valueOf(mark)), Reason: mark}); err != nil {
		return err
	}
	return c.note(kind, mark, 1)
}

func (c *client) cache(ctx context.Context) error {
	mark := c.mark()
	out, err := c.site.ClearCache(ctx, api.CacheClearing{DAGID: []string{"", "sim-cached"}[c.rng.IntN(2)], Reason: mark})
	if err != nil {
		return err
	}
	return c.note(ledger.CacheCleared, mark, min(out.Count, 1))
}

// switchDAG lets nobody start a DAG, or everybody again.
func (c *client) switchDAG(ctx context.Context) error {
	d, err := c.site.ShowDAG(ctx, "sim-cached", "1.0.0")
	if err != nil {
		return err
	}
	kind, change, mark := ledger.DAGEnabled, c.site.EnableDAG, c.mark()
	if d.Enabled {
		kind, change = ledger.DAGDisabled, c.site.DisableDAG
	}
	out, err := change(ctx, d.DAGID, d.Version, api.DAGSwitch{Reason: mark})
	if err != nil || !out.Changed {
		return err
	}
	return c.note(kind, mark, 1)
}

func (c *client) checkpoint(ctx context.Context) error {
	note, err := c.site.Checkpoint(ctx)
	if err != nil {
		return err
	}
	c.count("checkpoint")
	return c.journal.add(ack{Kind: "checkpoint", Size: note.Size})
}

// tidy removes the workspaces that nobody needs.
func (c *client) tidy(ctx context.Context) error {
	out, err := c.site.CleanWorkspaces(ctx, api.WorkspaceCleanup{}, nil)
	if err != nil || out.Seq == 0 {
		return err
	}
	c.count(string(ledger.WorkspacesRemoved))
	return c.journal.add(ack{Kind: string(ledger.WorkspacesRemoved), Size: out.Seq + 1})
}
