package manifests_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
	"pgregory.net/rapid"
)

// A gen draws values that parsers may return: every field in the form in which
// they return it.
type gen struct {
	*rapid.T
	keys []string // PEM
}

func (g gen) pick(label string, choices ...string) string {
	return rapid.SampledFrom(choices).Draw(g.T, label)
}
func (g gen) flip(label string) bool { return rapid.Bool().Draw(g.T, label) }
func (g gen) upTo(label string, n int) int {
	return rapid.IntRange(0, n).Draw(g.T, label)
}
func (g gen) int(label string, least, most int64) int64 {
	return rapid.Int64Range(least, most).Draw(g.T, label)
}
func (g gen) name(label string) string {
	return rapid.StringMatching(`[a-z0-9][a-z0-9.-]{0,20}`).Draw(g.T, label)
}
func (g gen) id(label string) string {
	return rapid.StringMatching(`[a-z0-9_-]{1,12}`).Draw(g.T, label)
}
func (g gen) hash(label string) string {
	return fmt.Sprintf("%064x", g.int(label, 0, math.MaxInt64))
}
func (g gen) version(label string) string {
	return rapid.StringMatching(`(0|[1-9][0-9]{0,3})\.(0|[1-9])\.(0|[1-9])(-(a|0|x-[0-9])(\.[1-9]){0,2})?(\+[0-9a-z]{1,4})?`).Draw(g.T, label)
}
func (g gen) ref(label string) manifests.Ref {
	return manifests.Ref{Publisher: g.name(label), Name: g.name(label), Version: g.version(label)}
}

// moment draws a time; maybe also draws none.
func (g gen) moment(label string, from time.Time) time.Time {
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	return from.Add(time.Duration(g.int(label, 1, int64(40*365*24*time.Hour)))).UTC()
}

func (g gen) maybe(label string, from time.Time) time.Time {
	if g.flip(label + "?") {
		return g.moment(label, from)
	}
	return time.Time{}
}

func (g gen) duration(label string, most time.Duration) time.Duration {
	return time.Duration(g.int(label, 1, most.Milliseconds())) * time.Millisecond
}

func (g gen) size(label string) int64 {
	unit := rapid.SampledFrom([]int64{1, 1 << 10, 1 << 20, 1 << 30}).Draw(g.T, label)
	return unit * g.int(label, 1, 1<<20)
}

// text draws anything that UTF-8 can say, with what is special in TOML more
// often, and sometimes far longer than a line.
func (g gen) text(label string) string {
	special := []rune("\"\"''\\\\\n\n\t\r  #=[]{}.,\x00\x1b\u007f\u0085\u00a0\u2028\u202e\ufeff\U0001f600aZ09_-")
	s := rapid.StringOfN(rapid.OneOf(rapid.SampledFrom(special), rapid.Rune()), 0, 60, -1).Draw(g.T, label)
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "${", "$")
	if g.upTo(label+" long", 9) == 0 {
		s = strings.Repeat(s, 2000/(len(s)+1))
	}
	return s
}

// prose is text without what cannot be seen.
func (g gen) prose(label string) string {
	s := rapid.StringOfN(rapid.SampledFrom([]rune("ab \"'\\#\t\n\né\u3042")), 1, 60, -1).Draw(g.T, label)
	if g.upTo(label+" long", 9) == 0 {
		s = strings.Repeat(s, 4096/len(s))
	}
	return s
}

func (g gen) line(label string) string {
	return rapid.StringOfN(rapid.SampledFrom([]rune("ab \"'\\#é:/@")), 1, 40, -1).Draw(g.T, label)
}

// some draws a list of different strings, nil when it is empty.
func (g gen) some(label string, one func(string) string) []string {
	var all []string
	seen := map[string]bool{}
	for range g.upTo(label+" count", 3) {
		if s := one(label); !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}

func (g gen) hostPath(label string) string {
	return rapid.StringMatching(`(/[a-z. ]{0,2}[a-z])+`).Draw(g.T, label)
}

func (g gen) limits() manifests.Limits {
	var l manifests.Limits
	if g.flip("limits") {
		l = manifests.Limits{Memory: g.size("memory"), CPU: rapid.Float64Range(0.001, 4096).Draw(g.T, "cpu"), PIDs: g.int("pids", 1, 1<<22)}
	}
	if g.flip("more limits") {
		l.Timeout, l.Workspace, l.Log = g.duration("timeout", 87600*time.Hour), g.size("workspace"), g.size("log")
	}
	return l
}

// value draws a free value. Names in it begin with k, so that none looks like
// the name of a secret.
func (g gen) value(label string, depth int) any {
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds-1).Draw(g.T, label) {
	case 0:
		return g.text(label)
	case 1:
		return g.int(label, -1<<53+1, 1<<53-1)
	case 2:
		return rapid.Float64Range(-1e300, 1e300).Draw(g.T, label)
	case 3:
		return float64(g.int(label, -9, 9)) // looks like an integer
	case 4:
		return g.flip(label)
	case 5:
		all := make([]any, g.upTo(label, 4))
		for i := range all {
			all[i] = g.value(label, depth-1)
		}
		return all
	}
	return g.object(label, depth-1)
}

func (g gen) object(label string, depth int) map[string]any {
	all := map[string]any{}
	for range g.upTo(label, 4) {
		name := "k" + rapid.StringOfN(rapid.SampledFrom([]rune("ab. \"'\\#é")), 0, 5, -1).Draw(g.T, label)
		all[name] = g.value(label, depth)
	}
	return all
}

func (g gen) bundle() *manifests.Bundle {
	b := &manifests.Bundle{
		Kind:      rapid.SampledFrom([]manifests.Kind{"plugin", "dag", "data", "trust", "secrets"}).Draw(g.T, "kind"),
		Publisher: g.name("publisher"), Name: g.name("name"), Version: g.version("version"),
		Sequence: g.int("sequence", 1, 1<<53-1), Created: g.moment("created", time.Time{}),
	}
	b.NotBefore = g.maybe("not before", time.Time{})
	after := b.Created
	if b.NotBefore.After(after) {
		after = b.NotBefore
	}
	b.Expires = g.maybe("expires", after)
	if g.flip("min stella") {
		b.MinStella = g.version("min stella")
	}
	b.Audience = []string{g.hash("audience")[:32]}
	b.Files = g.files()
	path := func(i int) string { return b.Files[i%len(b.Files)].Path }
	switch b.Kind {
	case manifests.KindPlugin:
		b.Plugin = g.plugin(b.Files)
	case manifests.KindDAG:
		b.DAG = &manifests.DAGFile{Spec: path(0)}
	case manifests.KindData:
		b.Data = &manifests.Data{MediaType: "text/x-" + g.id("media type")}
	case manifests.KindTrust:
		b.Trust = &manifests.TrustFiles{Root: path(0)}
		if len(b.Files) > 1 && g.flip("two") {
			b.Trust = &manifests.TrustFiles{Policy: path(0), Revocations: path(1)}
		}
	case manifests.KindSecrets:
		b.Secrets = &manifests.SecretsFile{File: path(0)}
	}
	b.ContentDigest = manifests.ContentDigest(b.Files)
	return b
}

func (g gen) files() []manifests.File {
	var all []manifests.File
	for i := range 1 + g.upTo("files", 4) {
		f := manifests.File{Path: fmt.Sprintf("d%s/%d+%s", g.id("folder"), i, g.name("file")), SHA256: g.hash("sha256"),
			Size: g.int("size", 0, 1<<33-1), Mode: g.pick("mode", "0644", "0755")}
		if g.flip("stored") {
			f.Encoding, f.StoredSHA256, f.StoredSize = "zstd", g.hash("stored"), g.int("stored size", 1, 1<<33-1)
		}
		if i > 0 && g.flip("same content") {
			path, mode := f.Path, f.Mode
			f = all[i-1]
			f.Path, f.Mode = path, mode
		} else {
			f.SHA256 = fmt.Sprintf("%x%s", i, f.SHA256[1:])
		}
		all = append(all, f)
	}
	return all
}

func (g gen) plugin(files []manifests.File) *manifests.Plugin {
	p := &manifests.Plugin{
		Runtime: manifests.Runtime(g.pick("runtime", "wasm", "exec")), Network: g.pick("network", "none", "loopback"),
		HostRead: g.some("host read", g.hostPath), Entry: map[string]string{}, Actions: map[string]manifests.Action{},
	}
	if p.Runtime == manifests.RuntimeWASM {
		p.Determinism = g.pick("determinism", "fixed", "real")
		p.Entry["any"] = files[0].Path
	} else {
		files[0].Mode = "0755"
		p.Entry["linux/amd64"] = files[0].Path
		p.Interpreter = g.pick("interpreter", "", "/bin/sh", files[0].Path)
	}
	for range 1 + g.upTo("actions", 2) {
		a := manifests.Action{Idempotent: g.flip("idempotent"), Secrets: g.some("secrets", g.name), Limits: g.limits(),
			Require: g.some("require", g.id), Params: g.pick("params", "", files[0].Path), Outputs: g.pick("outputs", "", files[0].Path)}
		if g.flip("described") {
			a.Description = g.prose("description")
			a.Args = []string{g.prose("arg"), ""}
		}
		p.Actions[g.id("action")] = a
	}
	return p
}

func (g gen) dag() *manifests.DAG {
	d := &manifests.DAG{ID: g.name("dag id"), Version: g.version("version"), FailFast: g.flip("fail fast"),
		MaxParallelSteps: g.upTo("parallel", 10000)}
	if g.flip("limits") {
		d.Timeout = g.duration("timeout", 87600*time.Hour)
		d.Description = g.prose("description")
	}
	for i := range g.upTo("inputs", 3) {
		if d.Inputs == nil {
			d.Inputs = map[string]manifests.Input{}
		}
		d.Inputs[fmt.Sprintf("In_-%d", i)] = g.input()
	}
	ids := 0
	d.Steps = g.steps("step", 1+g.upTo("steps", 3), &ids)
	d.OnFailure = g.steps("on failure", g.upTo("on failure", 2), &ids)
	d.OnCancel = g.steps("on cancel", g.upTo("on cancel", 1), &ids)
	for i := range g.upTo("outputs", 2) {
		if d.Outputs == nil {
			d.Outputs = map[string]any{}
		}
		d.Outputs[fmt.Sprintf("out%d", i)] = g.value("output", 7)
	}
	return d
}

func (g gen) input() manifests.Input {
	in := manifests.Input{Type: g.pick("type", "string", "integer", "number", "boolean", "array", "object"), Required: g.flip("required")}
	if in.Type == "string" && g.flip("secret") {
		in.Secret, in.Pattern = true, g.pick("pattern", "", "[a-z]+")
		return in
	}
	one := func(label string) any {
		switch in.Type {
		case "string":
			return g.text(label)
		case "integer":
			return g.int(label, -9, 9)
		case "number":
			return rapid.Float64Range(-1, 1).Draw(g.T, label)
		case "boolean":
			return g.flip(label)
		case "array":
			return []any{g.value(label, 3)}
		}
		return g.object(label, 3)
	}
	if v := one("value"); !in.Required && g.flip("default") {
		in.Default = v
		if g.flip("enum") {
			in.Enum = []any{v}
		}
	}
	return in
}

func (g gen) steps(label string, n int, ids *int) []manifests.Step {
	var all []manifests.Step
	for range n {
		s := g.step(label)
		s.ID = fmt.Sprintf("s_%d-", *ids)
		*ids++
		for _, earlier := range all {
			if g.flip("need") {
				s.Needs = append(s.Needs, earlier.ID)
			}
		}
		all = append(all, s)
	}
	return all
}

func (g gen) step(label string) manifests.Step {
	s := manifests.Step{
		Retry:    manifests.Retry{MaxAttempts: 1, Backoff: time.Second, MaxBackoff: 5 * time.Minute, Jitter: 0.2},
		Priority: g.int("priority", -1e6, 1e6), Locks: g.some("locks", g.name), MaxInterruptions: 3, Idempotent: g.flip("idempotent"),
		ContinueOnError: g.flip("continue"), AllowSkip: g.flip("skip"), Disabled: g.flip("disabled"), When: g.pick("when", "", "a > 1", "x == \"\\\"\""),
	}
	if g.flip("timeout") {
		s.Timeout = g.duration("timeout", time.Hour)
		s.Semaphores = map[string]int64{g.name("semaphore"): g.int("weight", 1, 9)}
	}
	kind := g.pick(label, "plugin", "dag", "gate")
	if kind == "gate" || g.flip("checkpoint") {
		s.Checkpoint = g.checkpoint()
	}
	if kind == "gate" {
		s.Timeout, s.Semaphores, s.Locks, s.Priority, s.Idempotent = 0, nil, nil, 0, true
		return s
	}
	s.DAG = "a" + g.name("child") + "@" + g.version("child version")
	if kind == "plugin" {
		r := g.ref("plugin")
		s.DAG, s.Plugin, s.Action = "", &r, g.id("action")
	}
	if with := g.object("with", 7); len(with) > 0 {
		s.With = with
	}
	switch g.upTo("for each", 3) {
	case 1:
		s.ForEach, s.MaxParallel = "${ a }", g.upTo("parallel", 10000)
	case 2:
		s.ForEach = []any{g.value("item", 6)}
	}
	if g.flip("rules") {
		backoff := g.duration("backoff", time.Hour)
		s.Retry = manifests.Retry{MaxAttempts: 1 + g.upTo("attempts", 999), Backoff: backoff, MaxBackoff: backoff + g.duration("max", time.Hour),
			Jitter: rapid.Float64Range(0, 1).Draw(g.T, "jitter"), RetryOn: g.some("retry on", g.id)}
		if kind == "plugin" {
			s.MaxInterruptions = g.upTo("interruptions", 1000)
			s.Data = []manifests.Ref{g.ref("data")}
		}
		s.Require = g.some("require", g.id)
	}
	if kind == "dag" {
		s.Idempotent = true
		return s
	}
	if g.flip("cache") {
		s.Cache = &manifests.Cache{TTL: g.duration("ttl", 24*time.Hour)}
	} else if s.DAG == "" {
		s.Secrets = g.some("secrets", g.name)
	}
	return s
}

func (g gen) checkpoint() *manifests.Checkpoint {
	c := &manifests.Checkpoint{Question: g.prose("question"), Required: g.flip("required"), Quorum: 1 + g.upTo("quorum", 999),
		ExcludeStarter: g.flip("starter")}
	if g.flip("who") {
		c.Approvers, c.Quorum, c.Expires = []string{g.line("approver")}, 1, g.duration("expires", time.Hour)
		c.Options = []manifests.Option{{Label: g.line("label"), Decision: g.pick("decision", "continue", "retry", "abort")}}
	}
	return c
}

func (g gen) role() manifests.Role {
	keys := g.keys[g.upTo("first key", len(g.keys)-1):]
	return manifests.Role{Threshold: 1 + g.upTo("threshold", len(keys)-1), Keys: keys}
}

func (g gen) extension() *manifests.Extension {
	x := &manifests.Extension{SiteID: g.hash("site")[:32], Serial: g.int("serial", 1, 9), Root: g.hash("root"), Policy: g.hash("policy"),
		Issued: g.moment("issued", time.Time{}), Reason: g.pick("reason", "at sea", "port is ten days away")}
	if g.flip("revocations") {
		x.Revocations = g.hash("revocations")
	}
	x.Until = g.moment("until", x.Issued)
	return x
}

func (g gen) root() *manifests.Root {
	r := &manifests.Root{Version: g.int("version", 1, 1<<53-1), FleetID: g.hash("fleet")[:32], Issued: g.moment("issued", time.Time{})}
	r.Expires = g.moment("expires", r.Issued)
	r.Roles = map[string]manifests.Role{"root": g.role(), "policy": g.role(), "revocation": g.role()}
	if g.flip("break glass") {
		r.Roles["break_glass"], r.MaxExtension = g.role(), g.duration("extension", 366*24*time.Hour)
	}
	return r
}

func (g gen) policy() *manifests.Policy {
	p := &manifests.Policy{Serial: g.int("serial", 1, 1<<53-1), RootVersion: g.int("root", 1, 9), Issued: g.moment("issued", time.Time{}),
		TrustedRootSHA256: g.hash("trusted root")}
	p.NextUpdate = g.moment("next update", p.Issued)
	keys := g.keys
	for i := range g.upTo("publishers", 2) {
		q := manifests.Publisher{Name: fmt.Sprintf("p%d.%s", i, g.name("publisher")), Level: g.pick("level", "enforce", "audit"),
			Names: []string{fmt.Sprintf("n%d.%s", i, g.name("prefix"))}, Threshold: 1, Allow: g.allow()}
		for _, k := range g.some("kinds", func(l string) string { return g.pick(l, "plugin", "dag", "data", "secrets") }) {
			q.Kinds = append(q.Kinds, manifests.Kind(k))
		}
		if q.Kinds == nil {
			q.Kinds = []manifests.Kind{"data"}
		}
		from := g.maybe("from", time.Time{})
		q.Keys = []manifests.PublisherKey{{PEM: keys[0], ValidFrom: from, ValidUntil: g.maybe("until", from)}}
		if g.flip("identity") {
			q.Identities = []manifests.Identity{{Issuer: fmt.Sprint(g.line("issuer"), i), SAN: g.line("san"), CA: g.some("ca", g.hash), TSA: g.some("tsa", g.hash)},
				{Issuer: "x" + fmt.Sprint(i), SANRegexp: `a+\.[b"]`, Log: g.some("log", g.hash)}}
			q.Threshold = 1 + g.upTo("threshold", 2)
			q.Require = manifests.Require{TLog: g.upTo("tlog", 16), SCT: g.upTo("sct", 16)}
		}
		q.Require.Audience = g.flip("audience")
		if g.flip("sequences") {
			q.Sequences = []manifests.SequenceEpoch{{Name: "a." + g.name("sequence"), Epoch: g.int("epoch", 1, 1<<53-1)}, {Name: "b", Epoch: 1}}
		}
		if g.flip("attestation") {
			q.Require.Attestations = []manifests.RequiredAttestation{{PredicateType: g.line("type"), Keys: keys[1:2]},
				{PredicateType: "https://slsa.dev/provenance/v1", Keys: keys[1:2], Builder: g.line("builder")}}
			if g.flip("attester") {
				q.Require.Attestations[0].Identities = []manifests.Identity{{Issuer: "attests" + fmt.Sprint(i), SAN: g.line("attester's san"), CA: g.some("attester's ca", g.hash)}}
			}
		}
		keys = keys[2:]
		p.Publishers = append(p.Publishers, q)
	}
	return p
}

func (g gen) allow() manifests.Allow {
	a := manifests.Allow{Network: g.pick("network", "none", "loopback"), HostRead: g.some("host read", g.hostPath),
		Interpreters: g.some("interpreters", g.hostPath), Limits: g.limits()}
	if g.flip("grant") {
		a.Secrets = []manifests.SecretGrant{{Name: g.name("secret"), Tenants: []string{g.name("tenant")}, DAGs: []string{g.name("dag"), g.name("p") + "/" + g.name("d")}, Plugins: []string{g.name("plugin")}}}
	}
	return a
}

func (g gen) revocations() *manifests.Revocations {
	r := &manifests.Revocations{Serial: g.int("serial", 1, 9), RootVersion: g.int("root", 1, 9), Issued: g.moment("issued", time.Time{})}
	r.NextUpdate = g.moment("next update", r.Issued)
	for i := range g.upTo("revoked", 4) {
		v := manifests.Revocation{From: g.maybe("from", time.Time{}), Reason: g.pick("reason", "", g.prose("reason"))}
		hash := fmt.Sprintf("%x%s", i, g.hash("what")[1:])
		switch g.upTo("kind", 3) {
		case 0:
			v.Key = hash
		case 1:
			v.Manifest = hash
		case 2:
			v.Blob = hash
		case 3:
			v.Issuer, v.SAN = g.line("issuer"), fmt.Sprint(g.line("san"), i)
		}
		r.Revoked = append(r.Revoked, v)
	}
	return r
}

func (g gen) site() *manifests.Site {
	return &manifests.Site{AllowPlain: g.flip("plain"), PlainSecrets: g.flip("plain secrets"), Workers: 1 + g.upTo("workers", 9999), MaxParallelSteps: 1 + g.upTo("parallel", 9999),
		DefaultTenant: g.name("tenant"), Grace: g.duration("grace", 10*time.Minute), CheckpointEvery: g.duration("checkpoint", time.Hour),
		FreeSpaceReserve: g.size("reserve"), MaxBundleBytes: g.size("bundle"),
		CheckpointCopies: g.some("copies", g.hostPath), Limits: g.limits(),
		MaxGap: g.duration("gap", 366*24*time.Hour), TrustWarning: g.duration("warning", 366*24*time.Hour),
		KeepWorkspaces: manifests.Keep(g.pick("keep", "failed", "never", "always")),
		Sinks:          g.sinks(), MaxItems: 1 + g.upTo("items", 99_999), MaxRunEntries: 1000 + g.upTo("entries", 99_999),
		Concurrency: manifests.Concurrency{PerTenant: g.upTo("perTenant", 9), PerDAG: g.upTo("perDAG", 9), PerPlugin: g.upTo("perPlugin", 9),
			Tenant: g.limited("tenants", g.name), DAG: g.limited("dags", g.name),
			Plugin: g.limited("plugins", func(label string) string { return g.name(label) + "/" + g.name(label) })},
		Stuck: manifests.Stuck{Warn: g.duration("warn", time.Minute), Stalled: time.Minute + g.duration("stalled", time.Hour), Chain: g.flip("chain"),
			Nudges: g.upTo("nudges", 100), NudgeWait: g.duration("nudgeWait", time.Hour),
			Restarts: g.upTo("restarts", 100), RestartWait: g.duration("restartWait", time.Hour)}}
}

// limited is a few limits by name.
func (g gen) limited(label string, name func(string) string) map[string]int {
	var out map[string]int
	for range g.upTo(label, 3) {
		if out == nil {
			out = map[string]int{}
		}
		out[name(label)] = 1 + g.upTo(label, 9)
	}
	return out
}

// TestWritingAndReadingGivesTheSame is the property that packing and trust
// editing rest on: what is written is what was meant.
func TestWritingAndReadingGivesTheSame(t *testing.T) {
	var keys []string
	for _, name := range []string{"p256-a", "p256-b", "p256-c", "p256-d", "p384"} {
		keys = append(keys, sample(t, "keys/"+name+".pem"))
	}
	for name, draw := range map[string]func(gen) any{
		"bundle":      func(g gen) any { return g.bundle() },
		"dag":         func(g gen) any { return g.dag() },
		"root":        func(g gen) any { return g.root() },
		"extension":   func(g gen) any { return g.extension() },
		"policy":      func(g gen) any { return g.policy() },
		"revocations": func(g gen) any { return g.revocations() },
		"site":        func(g gen) any { return g.site() },
		"source": func(g gen) any {
			b := g.bundle()
			b.Files, b.ContentDigest = nil, ""
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { fixedPoint(t, lang(name), draw(gen{T: t, keys: keys})) })
		})
	}
}
