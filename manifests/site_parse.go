package manifests

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// ParseSite reads site.toml, at most MaxSiteBytes. A key that is absent has its
// default. Its error is [Faults].
func ParseSite(file string, raw []byte) (*Site, error) {
	r := &report{file: file}
	t := open(r, raw, SiteSchema, MaxSiteBytes)
	if t == nil {
		return nil, r.err()
	}
	s := &Site{
		AllowPlain:       t.boolean("allow_plain", false),
		PlainSecrets:     t.boolean("allow_plain_secrets", false),
		Workers:          int(t.integer("workers", 2, 1, maxWorkers)),
		MaxParallelSteps: int(t.integer("max_parallel_steps", 1, 1, maxWorkers)),
		DefaultTenant:    t.text("default_tenant", isName()),
		Grace:            t.duration("grace", 10*time.Second, 10*time.Minute),
		CheckpointEvery:  t.duration("checkpoint_every", time.Hour, time.Hour), // CONTRACT section 12: at least hourly
		FreeSpaceReserve: t.size("free_space_reserve", 64<<20),
		MaxBundleBytes:   t.size("max_bundle_bytes", 4<<30),
		CheckpointCopies: t.texts("checkpoint_copies", isHostPath()),
		Recipients:       t.texts("recovery_recipients", isRecipient()),
		MaxGap:           t.duration("max_gap", 90*24*time.Hour, 10*366*24*time.Hour),
		KeepWorkspaces:   Keep(t.text("keep_workspaces", rule{validKeep, "failed, never or always"})),
		TrustWarning:     t.duration("trust_warning", DefaultTrustWarning, 366*24*time.Hour),
		Limits:           t.limits("limits"),
		Sinks:            t.sinks(),
		MaxItems:         int(t.integer("max_items", 1000, 1, 100_000)),
		MaxRunEntries:    int(t.integer("max_run_entries", 250_000, 1000, 1_000_000)),
		Concurrency:      concurrency(t),
		Semaphores:       semaphores(t),
		Stuck:            stuck(t),
	}
	if s.DefaultTenant == "" {
		s.DefaultTenant = "default"
	}
	if s.KeepWorkspaces == "" {
		s.KeepWorkspaces = KeepFailed
	}
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

func validKeep(s string) bool {
	return s == string(KeepFailed) || s == string(KeepNever) || s == string(KeepAlways)
}

func concurrency(t *table) Concurrency {
	var c Concurrency
	s := t.sub("concurrency")
	if s == nil {
		return c
	}
	defer s.done()
	c.PerTenant = int(s.integer("per_tenant", 0, 1, maxWorkers))
	c.PerDAG = int(s.integer("per_dag", 0, 1, maxWorkers))
	c.PerPlugin = int(s.integer("per_plugin", 0, 1, maxWorkers))
	c.Tenant = limitsByName(s, "tenant", rule{ValidName, nameRule})
	c.DAG = limitsByName(s, "dag", rule{ValidName, nameRule})
	c.Plugin = limitsByName(s, "plugin", rule{validPluginName, "publisher/name"})
	return c
}

func validPluginName(s string) bool {
	publisher, name, ok := strings.Cut(s, "/")
	return ok && ValidName(publisher) && ValidName(name)
}

func limitsByName(t *table, key string, name rule) map[string]int {
	s := t.sub(key)
	if s == nil || len(s.values) == 0 {
		return nil
	}
	defer s.done()
	out := map[string]int{}
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		out[k] = int(s.integer(k, 1, 1, maxWorkers))
		if !name.ok(k) {
			s.fault(k, "the name is not allowed", "want "+name.want)
		}
	}
	return out
}

func stuck(t *table) Stuck {
	out := Stuck{
		Warn: 5 * time.Minute, Stalled: time.Hour, Nudges: 3, NudgeWait: time.Minute, Restarts: 2, RestartWait: 5 * time.Minute,
	}
	s := t.sub("stuck")
	if s == nil {
		return out
	}
	defer s.done()
	out.Warn = s.duration("warn", out.Warn, maxDuration)
	out.Stalled = s.duration("stalled", out.Stalled, maxDuration)
	out.Chain = s.boolean("chain", false)
	out.Nudges = int(s.integer("nudges", 3, 0, 100))
	out.NudgeWait = s.duration("nudge_wait", out.NudgeWait, maxDuration)
	out.Restarts = int(s.integer("restarts", 2, 0, 100))
	out.RestartWait = s.duration("restart_wait", out.RestartWait, maxDuration)
	if out.Stalled < out.Warn {
		s.fault("stalled", formatDuration(out.Stalled)+" is below warn, "+formatDuration(out.Warn), "")
	}
	return out
}
