package manifests

import "time"

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
		Workers:          int(t.integer("workers", 2, 1, maxWorkers)),
		MaxParallelSteps: int(t.integer("max_parallel_steps", 1, 1, maxWorkers)),
		DefaultTenant:    t.text("default_tenant", isName()),
		Grace:            t.duration("grace", 10*time.Second, 10*time.Minute),
		CheckpointEvery:  t.duration("checkpoint_every", time.Hour, time.Hour), // CONTRACT section 12: at least hourly
		FreeSpaceReserve: t.size("free_space_reserve", 64<<20),
		MaxBundleBytes:   t.size("max_bundle_bytes", 4<<30),
		CheckpointCopies: t.texts("checkpoint_copies", isHostPath()),
		MaxGap:           t.duration("max_gap", 90*24*time.Hour, 10*366*24*time.Hour),
		TrustWarning:     t.duration("trust_warning", DefaultTrustWarning, 366*24*time.Hour),
		Limits:           t.limits("limits"),
		Sinks:            t.sinks(),
	}
	if s.DefaultTenant == "" {
		s.DefaultTenant = "default"
	}
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}
