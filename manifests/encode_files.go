package manifests

// EncodeBundle writes a manifest; parsing it gives b again. Without files and
// content digest it is the stella.toml of a source folder.
func EncodeBundle(b *Bundle) []byte {
	w := newWriter(BundleSchema)
	w.text("kind", string(b.Kind))
	w.text("publisher", b.Publisher)
	w.text("name", b.Name)
	w.text("version", b.Version)
	w.integer("sequence", b.Sequence)
	w.instant("created", b.Created)
	w.instant("not_before", b.NotBefore)
	w.instant("expires", b.Expires)
	w.text("min_stella", b.MinStella)
	w.texts("audience", b.Audience)
	w.text("content_digest", b.ContentDigest)
	if b.Plugin != nil {
		w.plugin(b.Plugin)
	}
	if b.DAG != nil {
		w.table("dag", false)
		w.text("spec", b.DAG.Spec)
	}
	if b.Data != nil {
		w.table("data", false)
		w.text("media_type", b.Data.MediaType)
	}
	if b.Trust != nil {
		w.table("trust", false)
		w.text("root", b.Trust.Root)
		w.text("policy", b.Trust.Policy)
		w.text("revocations", b.Trust.Revocations)
	}
	if b.Secrets != nil {
		w.table("secrets", false)
		w.text("file", b.Secrets.File)
	}
	for _, f := range b.Files {
		w.file(f)
	}
	return w.Bytes()
}

func (w *writer) file(f File) {
	w.table("file", true)
	w.text("path", f.Path)
	w.text("sha256", f.SHA256)
	w.raw("size", f.Size)
	w.text("mode", f.Mode)
	w.text("encoding", f.Encoding)
	w.text("stored_sha256", f.StoredSHA256)
	w.integer("stored_size", f.StoredSize)
}

func (w *writer) plugin(p *Plugin) {
	w.table("plugin", false)
	w.text("runtime", string(p.Runtime))
	w.text("network", p.Network)
	w.text("determinism", p.Determinism)
	w.texts("host_read", p.HostRead)
	w.text("interpreter", p.Interpreter)
	w.table("plugin.entry", false)
	byName(p.Entry, w.text)
	byName(p.Actions, func(name string, a Action) {
		path := "plugin.actions." + tomlKey(name)
		w.table(path, false)
		w.text("description", a.Description)
		w.texts("args", a.Args)
		w.text("params", a.Params)
		w.text("outputs", a.Outputs)
		w.boolean("idempotent", a.Idempotent)
		w.texts("secrets", a.Secrets)
		w.texts("require", a.Require)
		w.limits(path+".limits", a.Limits)
	})
}

// Encode is [EncodeBundle].
func (b *Bundle) Encode() []byte { return EncodeBundle(b) }

// EncodeRoot writes root.toml; parsing it gives r again.
func EncodeRoot(r *Root) []byte {
	w := newWriter(RootSchema)
	w.integer("version", r.Version)
	w.text("fleet_id", r.FleetID)
	w.instant("issued", r.Issued)
	w.instant("expires", r.Expires)
	w.duration("max_extension", r.MaxExtension)
	byName(r.Roles, func(name string, role Role) {
		w.table("roles."+tomlKey(name), false)
		w.integer("threshold", int64(role.Threshold))
		w.texts("keys", role.Keys)
	})
	return w.Bytes()
}

// EncodePolicy writes policy.toml; parsing it gives p again.
func EncodePolicy(p *Policy) []byte {
	w := newWriter(PolicySchema)
	w.integer("serial", p.Serial)
	w.integer("root_version", p.RootVersion)
	w.instant("issued", p.Issued)
	w.instant("next_update", p.NextUpdate)
	w.text("trusted_root_sha256", p.TrustedRootSHA256)
	for i := range p.Publishers {
		w.publisher(&p.Publishers[i])
	}
	return w.Bytes()
}

func (w *writer) publisher(p *Publisher) {
	w.table("publisher", true)
	w.text("name", p.Name)
	w.text("level", p.Level)
	w.integer("threshold", int64(p.Threshold))
	kinds := make([]string, len(p.Kinds))
	for i, k := range p.Kinds {
		kinds[i] = string(k)
	}
	w.texts("kinds", kinds)
	w.texts("names", p.Names)
	for _, k := range p.Keys {
		w.key(k)
	}
	for _, i := range p.Identities {
		w.identity("publisher.identity", i)
	}
	for _, s := range p.Sequences {
		w.table("publisher.sequence", true)
		w.text("name", s.Name)
		w.integer("epoch", s.Epoch)
	}
	w.require(p.Require)
	w.allow(p.Allow)
}

func (w *writer) require(r Require) {
	if r.TLog == 0 && r.Timestamps == 0 && r.SCT == 0 && !r.Audience && len(r.Attestations) == 0 {
		return
	}
	w.table("publisher.require", false)
	w.integer("tlog", int64(r.TLog))
	w.integer("timestamps", int64(r.Timestamps))
	w.integer("sct", int64(r.SCT))
	w.boolean("audience", r.Audience)
	for _, a := range r.Attestations {
		w.attestation(a)
	}
}

func (w *writer) allow(a Allow) {
	w.table("publisher.allow", false)
	w.text("network", a.Network)
	w.texts("host_read", a.HostRead)
	w.texts("interpreters", a.Interpreters)
	w.limits("publisher.allow.limits", a.Limits)
	for _, s := range a.Secrets {
		w.table("publisher.allow.secret", true)
		w.text("name", s.Name)
		w.texts("tenants", s.Tenants)
		w.texts("dags", s.DAGs)
		w.texts("plugins", s.Plugins)
	}
}

// EncodeExtension writes extension.toml; parsing it gives x again.
func EncodeExtension(x *Extension) []byte {
	w := newWriter(ExtensionSchema)
	w.text("site_id", x.SiteID)
	w.integer("serial", x.Serial)
	w.text("root", x.Root)
	w.text("policy", x.Policy)
	w.text("revocations", x.Revocations)
	w.instant("issued", x.Issued)
	w.instant("until", x.Until)
	w.text("reason", x.Reason)
	return w.Bytes()
}

// EncodeRevocations writes revocations.toml; parsing it gives r again.
func EncodeRevocations(r *Revocations) []byte {
	w := newWriter(RevocationsSchema)
	w.integer("serial", r.Serial)
	w.integer("root_version", r.RootVersion)
	w.instant("issued", r.Issued)
	w.instant("next_update", r.NextUpdate)
	for _, v := range r.Revoked {
		w.table("revoke", true)
		w.text("key", v.Key)
		w.text("manifest", v.Manifest)
		w.text("blob", v.Blob)
		w.text("issuer", v.Issuer)
		w.text("san", v.SAN)
		w.instant("from", v.From)
		w.text("reason", v.Reason)
	}
	return w.Bytes()
}

// EncodeSite writes site.toml, defaults included; parsing it gives s again. The
// zero value of a field stands for its default.
func EncodeSite(s *Site) []byte {
	w := newWriter(SiteSchema)
	w.boolean("allow_plain", s.AllowPlain)
	w.boolean("allow_plain_secrets", s.PlainSecrets)
	w.integer("workers", int64(s.Workers))
	w.integer("max_parallel_steps", int64(s.MaxParallelSteps))
	w.text("default_tenant", s.DefaultTenant)
	w.duration("grace", s.Grace)
	w.duration("checkpoint_every", s.CheckpointEvery)
	w.size("free_space_reserve", s.FreeSpaceReserve)
	w.size("max_bundle_bytes", s.MaxBundleBytes)
	w.texts("checkpoint_copies", s.CheckpointCopies)
	w.texts("recovery_recipients", s.Recipients)
	w.duration("max_gap", s.MaxGap)
	w.text("keep_workspaces", string(s.KeepWorkspaces))
	w.duration("trust_warning", s.TrustWarning)
	w.integer("max_items", int64(s.MaxItems))
	w.integer("max_run_entries", int64(s.MaxRunEntries))
	w.limits("limits", s.Limits)
	w.sinks(s.Sinks)
	w.concurrency(s.Concurrency)
	if len(s.Semaphores) > 0 {
		w.table("semaphores", false)
		byName(s.Semaphores, w.integer)
	}
	w.stuck(s.Stuck)
	return w.Bytes()
}

func (w *writer) concurrency(c Concurrency) {
	if c.PerTenant+c.PerDAG+c.PerPlugin > 0 {
		w.table("concurrency", false)
		w.integer("per_tenant", int64(c.PerTenant))
		w.integer("per_dag", int64(c.PerDAG))
		w.integer("per_plugin", int64(c.PerPlugin))
	}
	for _, m := range []struct {
		key    string
		limits map[string]int
	}{{"tenant", c.Tenant}, {"dag", c.DAG}, {"plugin", c.Plugin}} {
		if len(m.limits) == 0 {
			continue
		}
		w.table("concurrency."+m.key, false)
		byName(m.limits, func(name string, n int) { w.integer(name, int64(n)) })
	}
}

// stuck writes everything, or nothing of a zero value: 0 is not the default here.
func (w *writer) stuck(s Stuck) {
	if s == (Stuck{}) {
		return
	}
	w.table("stuck", false)
	w.duration("warn", s.Warn)
	w.duration("stalled", s.Stalled)
	w.boolean("chain", s.Chain)
	w.raw("nudges", int64(s.Nudges))
	w.duration("nudge_wait", s.NudgeWait)
	w.raw("restarts", int64(s.Restarts))
	w.duration("restart_wait", s.RestartWait)
}
