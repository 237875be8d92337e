package main

import (
	"strings"
	"time"

	"github.com/stellarun/stella/internal/diff"
	"github.com/stellarun/stella/manifests"
)

// dagTree is a spec as nested values, steps and inputs by their names.
func dagTree(d *manifests.DAG) map[string]any {
	t := map[string]any{
		"dag_id": d.ID, "version": d.Version, "fail_fast": d.FailFast, "description": unlessEmpty(d.Description),
		"limits": map[string]any{"max_parallel_steps": unlessZero(d.MaxParallelSteps), "timeout": span(d.Timeout)},
	}
	inputs := map[string]any{}
	for name, in := range d.Inputs {
		var enum any
		if in.Enum != nil {
			enum = in.Enum
		}
		inputs[name] = map[string]any{
			"type": in.Type, "description": unlessEmpty(in.Description), "required": in.Required, "default": in.Default,
			"enum": enum, "pattern": unlessEmpty(in.Pattern), "secret": in.Secret,
		}
	}
	t["inputs"] = inputs
	for key, list := range map[string][]manifests.Step{"step": d.Steps, "on_failure": d.OnFailure, "on_cancel": d.OnCancel} {
		steps := map[string]any{}
		for i := range list {
			steps[list[i].ID] = stepTree(&list[i])
		}
		t[key] = steps
	}
	t["outputs"] = anyMap(d.Outputs)
	return t
}

// stepTree is a step as nested values; what is not set is nil.
func stepTree(s *manifests.Step) map[string]any {
	t := map[string]any{
		"action": unlessEmpty(s.Action), "dag": unlessEmpty(s.DAG), "needs": diff.Set(s.Needs), "when": unlessEmpty(s.When), "for_each": s.ForEach,
		"max_parallel": unlessZero(s.MaxParallel), "timeout": span(s.Timeout), "max_interruptions": s.MaxInterruptions,
		"secrets": diff.Set(s.Secrets), "locks": diff.Set(s.Locks), "require": diff.Set(s.Require),
		"priority": s.Priority, "continue_on_error": s.ContinueOnError, "allow_skip": s.AllowSkip,
		"disabled": s.Disabled, "idempotent": s.Idempotent,
		"retry": map[string]any{
			"max_attempts": s.Retry.MaxAttempts, "backoff": span(s.Retry.Backoff), "max_backoff": span(s.Retry.MaxBackoff),
			"jitter": s.Retry.Jitter, "retry_on": diff.Set(s.Retry.RetryOn),
		},
	}
	if s.Plugin != nil {
		t["plugin"] = s.Plugin.String()
	}
	t["with"] = anyMap(s.With)
	semaphores := map[string]any{}
	for k, v := range s.Semaphores {
		semaphores[k] = v
	}
	t["semaphores"] = semaphores
	data := diff.Set{}
	for _, r := range s.Data {
		data = append(data, r.String())
	}
	t["data"] = data
	if s.Cache != nil {
		t["cache"] = map[string]any{"ttl": span(s.Cache.TTL)}
	}
	if s.Checkpoint != nil {
		t["checkpoint"] = checkpointTree(s.Checkpoint)
	}
	return t
}

func checkpointTree(c *manifests.Checkpoint) map[string]any {
	options := []any{}
	for _, o := range c.Options {
		options = append(options, o.Label+": "+o.Decision)
	}
	return map[string]any{
		"question": c.Question, "required": c.Required, "approvers": diff.Set(c.Approvers), "quorum": c.Quorum,
		"exclude_starter": c.ExcludeStarter, "expires": span(c.Expires), "options": options,
	}
}

// anyMap is m, and never nil: what one side lacks is then told key by key.
func anyMap(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// A field that is not set is nil.

func unlessEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func unlessZero(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// span is a duration as people write it: 1h, not 1h0m0s.
func span(d time.Duration) any {
	if d == 0 {
		return nil
	}
	s := d.String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}
