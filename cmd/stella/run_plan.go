package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/server/api"
)

// runRunPlan shows what a start would do, and starts nothing.
func runRunPlan(ctx context.Context, a *app, req api.StartRequest) error {
	opt := engine.Options{Mode: engine.ModeCommand, Executor: sandbox.New(sandbox.Options{Now: a.now})}
	return a.reach(ctx, opt, func(ctx context.Context, r *reached) error {
		p, err := r.PlanRun(ctx, req)
		if err != nil {
			return err
		}
		a.stderr.note("dry run: nothing was started")
		if err := a.emit(p, func(s *screen) { renderPlan(s, p) }); err != nil {
			return err
		}
		if p.Startable {
			return nil
		}
		first := p.Problems[0]
		e := api.Error{Code: api.Code(first.Code), Message: first.Message, Hint: first.Hint, Faults: first.Faults}
		return &outcome{exit: exitCode(e.Code), err: e}
	})
}

func renderPlan(s *screen, p api.RunPlan) {
	if p.Run != nil {
		s.printf("this start has been made before: it is run %s, which is %s\n", p.Run.RunID, string(p.Run.Status))
		return
	}
	tier := p.Tier
	if tier == "" {
		tier = "not known to whoever holds the site"
	}
	limits := make([]string, len(p.Limits))
	for i, l := range p.Limits {
		limits[i] = fmt.Sprintf("%s %d", l.Of, l.Limit)
	}
	priority := ""
	if p.Priority != 0 {
		priority = strconv.FormatInt(p.Priority, 10)
	}
	s.fields("dag", p.DAGID+" "+p.DAGVersion, "digest", p.DAGDigest, "plan", p.PlanHash, "inputs", p.InputsHash, "tenant", p.Tenant,
		"priority", priority, "fences", tier, "at a time", fmt.Sprintf("%s, of %s of the site", count(p.Parallel, "step", "steps"), count(p.Workers, "worker", "workers")),
		"limits", strings.Join(limits, ", "), "deadline", millisText(p.TimeoutMs), "paused", stopList(p.Paused))
	for _, x := range p.Problems {
		s.fields("problem", and(x.Code, x.Message))
	}
	if len(p.Steps) == 0 {
		return
	}
	rows := make([][]string, len(p.Steps))
	for i, st := range p.Steps {
		rows[i] = []string{st.StepID, plannedRuns(st), short(plannedDigest(st)), strings.Join(st.Needs, ","), plannedWould(st)}
	}
	s.printf("\n")
	s.table([]string{"STEP", "RUNS", "DIGEST", "NEEDS", "IT WOULD"}, rows)
	rows = rows[:0]
	for _, st := range p.Steps {
		if st.Kind == "plugin" && st.Missing == "" {
			rows = append(rows, []string{st.StepID, millisText(st.TimeoutMs), memoryText(st.Memory), strconv.Itoa(st.MaxAttempts), yesNo(st.Idempotent),
				st.Network, strings.Join(st.Require, ","), plannedFiles(st)})
		}
	}
	if len(rows) > 0 {
		s.printf("\n")
		s.table([]string{"STEP", "TIMEOUT", "MEMORY", "ATTEMPTS", "REPEATABLE", "NETWORK", "FENCES REQUIRED", "READS"}, rows)
	}
}

func millisText(ms int64) string {
	if ms == 0 {
		return ""
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func memoryText(n int64) string {
	if n == 0 {
		return ""
	}
	return size(n)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func plannedRuns(st api.PlannedStep) string {
	switch {
	case st.Plugin != nil:
		return fmt.Sprintf("%s/%s@%s %s", st.Plugin.Publisher, st.Plugin.Name, st.Plugin.Version, st.Action)
	case st.DAG != "":
		return "dag " + st.DAG
	}
	return "nothing, it asks"
}

func plannedDigest(st api.PlannedStep) string {
	if st.Plugin != nil {
		return st.Plugin.Digest
	}
	return st.DAGDigest
}

// plannedFiles are what an attempt reads besides its bundle.
func plannedFiles(st api.PlannedStep) string {
	var out []string
	if st.Interpreter != nil {
		out = append(out, st.Interpreter.Name+" "+short(st.Interpreter.Digest))
	}
	for _, d := range st.Data {
		out = append(out, d.Name+" "+short(d.Digest))
	}
	return strings.Join(append(out, st.HostRead...), ", ")
}

// plannedWould says in words what would happen to a step.
func plannedWould(st api.PlannedStep) string {
	out := []string{plannedFirst(st)}
	for _, l := range st.Locks {
		out = append(out, plannedLock(l))
	}
	if c := st.Checkpoint; c != nil {
		who := "anybody who may write"
		if len(c.Approvers) > 0 {
			who = strings.Join(c.Approvers, ", ")
		}
		if c.ExcludeStarter {
			who += " but who starts it"
		}
		ask := fmt.Sprintf("ask %d of %s: %s", c.Quorum, who, c.Question)
		if c.ExpiresMs > 0 {
			ask += " (within " + millisText(c.ExpiresMs) + ")"
		}
		out = append(out, ask)
	}
	if st.Phase != "step" {
		out[0] += ", on " + strings.TrimPrefix(st.Phase, "on_")
	}
	return strings.Join(out, "; ")
}

func plannedFirst(st api.PlannedStep) string {
	switch st.Would {
	case "skip":
		return "be skipped: " + st.Why
	case "fail":
		return "fail: " + st.Why
	case "cached":
		if st.Cached == nil {
			return fmt.Sprintf("take all of its %s from the cache", count(st.Items, "item", "items"))
		}
		return fmt.Sprintf("take its outputs from the cache: %s of run %s, until %s", st.Cached.StepID, st.Cached.RunID, seconds(st.Cached.ExpiresUTC))
	}
	text := "run"
	if st.Kind == "gate" {
		text = "wait for people"
	}
	var later []string
	for _, key := range st.DecidedLater {
		switch key {
		case "when":
			text += " if its condition holds"
		case "for_each":
			text += " for each item of a list that is known then"
		case "with":
			later = append(later, "its parameters are known when it runs")
		}
	}
	if st.Items > 0 {
		text += " for " + count(st.Items, "item", "items")
	}
	if st.Hits > 0 {
		text += fmt.Sprintf(", %d of them from the cache", st.Hits)
	}
	switch {
	case st.Cache == "miss":
		later = append(later, "nothing is kept of the same")
	case st.Cache == "undecided":
		later = append(later, "whether the cache has it is decided when it runs")
	}
	return join(", ", text, strings.Join(later, ", "))
}

func plannedLock(l api.PlannedLock) string {
	state := "free"
	switch {
	case l.Kind == "semaphore":
		return fmt.Sprintf("hold %d of semaphore %s (%d of %d are held)", l.Weight, l.Name, l.Held, l.Capacity)
	case l.Held > 0:
		state = "held now"
	}
	return fmt.Sprintf("hold lock %s (%s)", l.Name, state)
}
