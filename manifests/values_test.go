package manifests_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stellarun/stella/manifests"
	"pgregory.net/rapid"
)

// parsed is the value of a sample.
func parsed(t *testing.T, l, path string) any {
	t.Helper()
	v, err := lang(l).parse("f", []byte(sample(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func check(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func day(year, month, d int) time.Time {
	return time.Date(year, time.Month(month), d, 0, 0, 0, 0, time.UTC)
}

func hash(first string) string {
	return first + strings.Repeat("123456789abcdef0", 4)[:63]
}

func TestEveryKeyOfAManifestHasItsField(t *testing.T) {
	number := func(n int) string { return fmt.Sprintf("%064d", n) }
	check(t, parsed(t, "bundle", "bundle/plugin.toml"), &manifests.Bundle{
		Kind: manifests.KindPlugin, Publisher: "acme", Name: "acme.match", Version: "1.4.0", Sequence: 7,
		Created: day(2026, 11, 22), NotBefore: day(2026, 11, 23), Expires: day(2027, 11, 22), MinStella: "1.0.0",
		Audience:      []string{"00112233445566778899aabbccddeeff"},
		ContentDigest: "a8f15d93cfd4e6fe2e7e7e70266b706a7e1fae13c29c10af1074ee46efc10b02",
		Plugin: &manifests.Plugin{
			Runtime: manifests.RuntimeWASM, Network: "none", Determinism: "fixed", HostRead: []string{"/var/lib/dpkg"},
			Entry: map[string]string{"any": "bin/match.wasm"},
			Actions: map[string]manifests.Action{"match": {
				Description: "compares", Args: []string{"--fast", "--fast"}, Params: "schema/params.json", Outputs: "schema/outputs.json",
				Idempotent: true, Secrets: []string{"db"}, Require: []string{"no_network"},
				Limits: manifests.Limits{Memory: 256 << 20, CPU: 1, PIDs: 64, Timeout: 5 * time.Minute, Workspace: 1 << 30, Log: 10 << 20},
			}},
		},
		Files: []manifests.File{
			{Path: "bin/match.wasm", SHA256: number(1), Size: 1000, Mode: "0644", Encoding: "zstd", StoredSHA256: number(2), StoredSize: 700},
			{Path: "schema/params.json", SHA256: number(3), Size: 20, Mode: "0644"},
			{Path: "schema/outputs.json", SHA256: number(3), Size: 20, Mode: "0644"},
			{Path: "EMPTY", SHA256: number(5), Mode: "0644"},
		},
	})
	script := parsed(t, "bundle", "bundle/script.toml").(*manifests.Bundle)
	check(t, script.Plugin, &manifests.Plugin{
		Runtime: manifests.RuntimeExec, Network: "none", Interpreter: "lib/bash",
		Entry:   map[string]string{"linux/amd64": "run.sh", "linux/arm64": "run.sh"},
		Actions: map[string]manifests.Action{"run": {}, "check": {}},
	})
	check(t, parsed(t, "bundle", "bundle/dag.toml").(*manifests.Bundle).DAG, &manifests.DAGFile{Spec: "dag.toml"})
	check(t, parsed(t, "bundle", "bundle/data.toml").(*manifests.Bundle).Data, &manifests.Data{MediaType: "application/vnd.osv+json"})
	check(t, parsed(t, "bundle", "bundle/secrets.toml").(*manifests.Bundle).Secrets, &manifests.SecretsFile{File: "dag.toml"})
	check(t, parsed(t, "bundle", "bundle/trust.toml").(*manifests.Bundle).Trust,
		&manifests.TrustFiles{Policy: "policy.toml", Revocations: "revocations.toml"})
}

func TestDefaultsOfAPlugin(t *testing.T) {
	raw := applyEdits(t, sample(t, "bundle/plugin.toml"), `network = "none"⏎ =>
		determinism = "fixed"⏎ =>
		idempotent = true⏎ =>`)
	b, err := manifests.ParseBundle("f", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if p := b.Plugin; p.Network != "none" || p.Determinism != "fixed" || p.Actions["match"].Idempotent {
		t.Errorf("plugin is %+v", p)
	}
}

func TestEveryKeyOfASpecHasItsField(t *testing.T) {
	ref := func(name string) *manifests.Ref {
		return &manifests.Ref{Publisher: "acme", Name: name, Version: "1.0.0"}
	}
	plain := manifests.Retry{MaxAttempts: 1, Backoff: time.Second, MaxBackoff: 5 * time.Minute, Jitter: 0.2}
	check(t, parsed(t, "dag", "dag/full.toml"), &manifests.DAG{
		ID: "release", Version: "2.0.0-rc.1", Description: "Builds, asks, ships.\nTwice if it must.",
		MaxParallelSteps: 4, Timeout: 2 * time.Hour,
		Inputs: map[string]manifests.Input{
			"env":         {Type: "string", Description: "where to", Enum: []any{"test", "prod"}, Pattern: "[a-z]+", Default: "test"},
			"count":       {Type: "integer", Default: int64(3)},
			"share":       {Type: "number", Default: int64(1)},
			"dry":         {Type: "boolean", Required: true},
			"hosts":       {Type: "array", Default: []any{"a", int64(1), 2.5, true, map[string]any{"name": "b"}}},
			"extra":       {Type: "object", Default: map[string]any{}},
			"db_password": {Type: "string", Secret: true, Required: true},
		},
		Steps: []manifests.Step{
			{
				ID: "build", Line: 45, Lines: map[string]int{"with.flags[1]": 59, "with.text": 61, "with.token": 62}, Plugin: ref("build"), Action: "compile", Data: []manifests.Ref{*ref("sources")}, Timeout: 10 * time.Minute,
				Secrets: []string{"db"}, Locks: []string{"tree"}, Semaphores: map[string]int64{"cpu": 2, "disk.io": 1}, Priority: -5,
				Require: []string{"no_network"},
				Retry: manifests.Retry{MaxAttempts: 3, Backoff: time.Second, MaxBackoff: time.Minute,
					RetryOn: []string{"STEP_FAILED", "timed_out"}},
				With: map[string]any{
					"flags":       []any{"-v", "${ inputs.env }"},
					"odd name":    map[string]any{"deep": []any{[]any{int64(1), int64(2)}, []any{map[string]any{"x": int64(16)}}}},
					"text":        `${ "a } in a string" + inputs.env } and ${ {"k": inputs.count}["k"] }`,
					"token":       "${ steps.build.outputs.token }",
					"secret_name": "db",
				},
			},
			{
				ID: "each", Line: 65, Lines: map[string]int{"for_each": 71, "when": 70}, Plugin: ref("ship"), Action: "ship", Needs: []string{"build"}, When: "inputs.count > 0",
				ForEach: "${ inputs.hosts }", MaxParallel: 2, Cache: &manifests.Cache{TTL: 5 * time.Minute}, ContinueOnError: true, AllowSkip: true,
				Idempotent: true, MaxInterruptions: 3, Retry: plain,
			},
			{
				ID: "pair", Line: 77, Plugin: ref("ship"), Action: "ship", ForEach: []any{int64(1), "two", map[string]any{"three": int64(3)}},
				Cache: &manifests.Cache{TTL: 10 * time.Minute}, Idempotent: true, MaxInterruptions: 3, Retry: plain,
			},
			{
				ID: "ask", Line: 84, Lines: map[string]int{"checkpoint.question": 90}, Needs: []string{"build", "each"}, AllowSkip: true, Idempotent: true, MaxInterruptions: 3, Retry: plain,
				Checkpoint: &manifests.Checkpoint{
					Question: "Ship to ${ inputs.env }?", Required: true, Approvers: []string{"uid:1000(anna)", "token:ops"}, Quorum: 2,
					ExcludeStarter: true, Expires: 48 * time.Hour,
					Options: []manifests.Option{{Label: "ship it", Decision: "continue"}, {Label: "build again", Decision: "retry"}, {Label: "stop", Decision: "abort"}},
				},
			},
			{
				ID: "child", Line: 102, DAG: "cleanup@1.0.0", Needs: []string{"ask"}, Disabled: true, With: map[string]any{"why": "done"},
				Idempotent: true, MaxInterruptions: 3, Retry: plain,
			},
		},
		OnFailure: []manifests.Step{
			{ID: "tell", Line: 109, Plugin: ref("mail"), Action: "send", Idempotent: true, MaxInterruptions: 3, Retry: plain},
			{ID: "wait", Line: 114, Needs: []string{"tell"}, Checkpoint: &manifests.Checkpoint{Question: "Seen?", Quorum: 1}, Idempotent: true,
				MaxInterruptions: 3, Retry: plain},
		},
		OnCancel: []manifests.Step{{ID: "sweep", Line: 119, Plugin: ref("mail"), Action: "send", Idempotent: true, MaxInterruptions: 3, Retry: plain}},
		Outputs:  map[string]any{"version": "${ steps.build.outputs.version }", "fixed": []any{int64(1), int64(2)}},
		Lines: map[string]int{
			"inputs.env": 9, "inputs.count": 16, "inputs.share": 20, "inputs.dry": 24, "inputs.hosts": 28, "inputs.extra": 32,
			"inputs.db_password": 36, "outputs.version": 125,
		},
	})
	if d := parsed(t, "dag", "dag/small.toml").(*manifests.DAG); !d.FailFast {
		t.Error("fail_fast is not the default")
	}
}

func TestEveryKeyOfTrustFilesHasItsField(t *testing.T) {
	a, b, c := sample(t, "keys/p256-a.pem"), sample(t, "keys/p256-b.pem"), sample(t, "keys/p384.pem")
	check(t, parsed(t, "root", "root/root.toml"), &manifests.Root{
		Version: 1, FleetID: "00112233445566778899aabbccddeeff", Issued: day(2026, 11, 22), Expires: day(2027, 11, 22),
		Roles: map[string]manifests.Role{
			"root":       {Threshold: 2, Keys: []string{a, c}},
			"policy":     {Threshold: 1, Keys: []string{a}},
			"revocation": {Threshold: 1, Keys: []string{b}},
		},
	})
	check(t, parsed(t, "policy", "policy/policy.toml"), &manifests.Policy{
		Serial: 3, RootVersion: 1, Issued: day(2026, 11, 22), NextUpdate: day(2027, 2, 22), TrustedRootSHA256: hash("0"),
		Publishers: []manifests.Publisher{{
			Name: "acme", Level: "enforce", Threshold: 2, Kinds: []manifests.Kind{"plugin", "dag", "data"}, Names: []string{"acme.", "audit-"},
			Keys: []manifests.PublisherKey{{PEM: a, ValidFrom: day(2026, 1, 1), ValidUntil: day(2028, 1, 1)}},
			Identities: []manifests.Identity{
				{Issuer: "https://idp.example", SAN: "release@acme.example", CA: []string{hash("1")}, TSA: []string{hash("2")}, Log: []string{hash("3")}},
				{Issuer: "https://idp.example", SANRegexp: `ci-[0-9]+@acme\.example`},
			},
			Require: manifests.Require{TLog: 1, Timestamps: 1, SCT: 1, Audience: true, Attestations: []manifests.RequiredAttestation{
				{PredicateType: "https://slsa.dev/provenance/v1", Keys: []string{c}, Builder: "https://build.acme.example/1"},
			}},
			Allow: manifests.Allow{Network: "loopback", HostRead: []string{"/var/lib/dpkg", "/"}, Interpreters: []string{"/bin/sh"},
				Limits:  manifests.Limits{Memory: 1 << 30, Timeout: time.Hour},
				Secrets: []manifests.SecretGrant{{Name: "db", Tenants: []string{"default"}, DAGs: []string{"acme/audit", "nightly"}, Plugins: []string{"match"}}}},
		}, {
			Name: "local", Level: "audit", Threshold: 1, Kinds: []manifests.Kind{"dag"}, Names: []string{"local."},
			Keys: []manifests.PublisherKey{{PEM: b}}, Allow: manifests.Allow{Network: "none"},
		}},
	})
	check(t, parsed(t, "revocations", "revocations/revocations.toml"), &manifests.Revocations{
		Serial: 2, RootVersion: 1, Issued: day(2026, 11, 22), NextUpdate: day(2026, 12, 22),
		Revoked: []manifests.Revocation{
			{Key: hash("0"), From: day(2026, 10, 1), Reason: "laptop stolen"},
			{Manifest: hash("1")},
			{Blob: hash("2"), Reason: "has a hole:\nCVE-2026-1"},
			{Issuer: "https://idp.example", SAN: "bob@acme.example"},
		},
	})
	r := parsed(t, "root", "root/break_glass.toml").(*manifests.Root)
	if r.MaxExtension != 30*24*time.Hour || r.Roles["break_glass"].Threshold != 2 || len(r.Roles["break_glass"].Keys) != 2 {
		t.Errorf("break_glass: %+v for %v", r.Roles["break_glass"], r.MaxExtension)
	}
	p := parsed(t, "policy", "policy/sequences.toml").(*manifests.Policy)
	if q := p.Publishers[0]; q.Epoch("acme.match") != 2 || q.Epoch("acme.ship") != 1 || q.Epoch("acme") != 0 {
		t.Errorf("sequences: %+v", q.Sequences)
	}
	check(t, parsed(t, "extension", "extension/extension.toml"), &manifests.Extension{
		SiteID: "00112233445566778899aabbccddeeff", Serial: 1, Root: hash("1"), Policy: hash("2"), Revocations: hash("3"),
		Issued: day(2027, 3, 1), Until: day(2027, 3, 15), Reason: "ten days from port",
	})
	raw := applyEdits(t, sample(t, "policy/policy.toml"), `level = "audit"⏎ =>`)
	p, err := manifests.ParsePolicy("f", []byte(raw))
	if err != nil || p.Publishers[1].Level != "enforce" {
		t.Errorf("a publisher without a level has %v, %v, want enforce", p, err)
	}
}

func TestEveryKeyOfASiteHasItsFieldAndDefault(t *testing.T) {
	check(t, parsed(t, "site", "site/site.toml"), &manifests.Site{
		AllowPlain: true, Workers: 4, MaxParallelSteps: 3, DefaultTenant: "ops", Grace: 20 * time.Second, CheckpointEvery: 15 * time.Minute,
		FreeSpaceReserve: 1 << 30, MaxBundleBytes: 123456789,
		CheckpointCopies: []string{"/mnt/usb/checkpoint.note"},
		Recipients:       []string{"age1z5e06pu38trh805ke94858nz7gpcxnexff83ppt78jzjcmtangpq4mj308"}, MaxGap: 90 * 24 * time.Hour, TrustWarning: 14 * 24 * time.Hour, KeepWorkspaces: manifests.KeepFailed,
		Limits:   manifests.Limits{Memory: 512 << 20, CPU: 2, PIDs: 128, Timeout: time.Hour, Workspace: 10 << 30, Log: 5 << 20},
		MaxItems: 1000, MaxRunEntries: 250_000, Stuck: patience(),
	})
	if s := parsed(t, "site", "site/clock.toml").(*manifests.Site); s.MaxGap != 720*time.Hour || s.TrustWarning != 48*time.Hour || s.KeepWorkspaces != manifests.KeepAlways {
		t.Errorf("gap %v, warning %v, workspaces %q", s.MaxGap, s.TrustWarning, s.KeepWorkspaces)
	}
	defaults := &manifests.Site{
		Workers: 2, MaxParallelSteps: 1, DefaultTenant: "default", Grace: 10 * time.Second, CheckpointEvery: time.Hour,
		FreeSpaceReserve: 64 << 20, MaxBundleBytes: 4 << 30, MaxGap: 90 * 24 * time.Hour, TrustWarning: 14 * 24 * time.Hour, KeepWorkspaces: manifests.KeepFailed,
		MaxItems: 1000, MaxRunEntries: 250_000, Stuck: patience(),
	}
	check(t, parsed(t, "site", "site/empty.toml"), defaults)
	again, err := manifests.ParseSite("f", manifests.EncodeSite(&manifests.Site{}))
	if err != nil {
		t.Fatal(err)
	}
	check(t, again, defaults)
	got, err := manifests.ParseSite("f", []byte(`schema = "stella.site/1"
max_items = 5
[concurrency]
per_tenant = 4
[concurrency.tenant]
ops = 2
[concurrency.dag]
audit = 1
[concurrency.plugin]
"acme/scan" = 3
[semaphores]
gpu = 2
[stuck]
warn = "1s"
stalled = "2s"
chain = true
nudges = 0
restarts = 1
restart_wait = "3s"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := *defaults
	want.MaxItems, want.Semaphores = 5, map[string]int64{"gpu": 2}
	want.Concurrency = manifests.Concurrency{PerTenant: 4, Tenant: map[string]int{"ops": 2}, DAG: map[string]int{"audit": 1}, Plugin: map[string]int{"acme/scan": 3}}
	want.Stuck = manifests.Stuck{Warn: time.Second, Stalled: 2 * time.Second, Chain: true, NudgeWait: time.Minute, Restarts: 1, RestartWait: 3 * time.Second}
	check(t, got, &want)
}

// patience is what a site has that says nothing of stuck runs.
func patience() manifests.Stuck {
	return manifests.Stuck{Warn: 5 * time.Minute, Stalled: time.Hour, Nudges: 3, NudgeWait: time.Minute, Restarts: 2, RestartWait: 5 * time.Minute}
}

// TestSchemaLineIsAWholeLine also wants the line feed behind it.
func TestSchemaLineIsAWholeLine(t *testing.T) {
	for _, l := range languages() {
		_, err := l.parse("f", []byte("schema = \""+l.schema+"\""))
		want := "1: schema: the first line must be exactly schema = \"" + l.schema + "\" and a line feed (lines of this file do not end with a line feed alone)"
		if got := faultLines(t, err); got[0] != want && !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s: %v", l.name, got)
		}
		_, err = l.parse("f", []byte("schema = \""+l.schema+"\" # mine\n"))
		if got := strings.Join(faultLines(t, err), "\n"); !strings.Contains(got, "one space on each side of the =, nothing behind it") {
			t.Errorf("%s, with a comment: %v", l.name, got)
		}
		_, err = l.parse("f", nil)
		if got := strings.Join(faultLines(t, err), "\n"); !strings.Contains(got, "put it before any comment or empty line") {
			t.Errorf("%s, empty: %v", l.name, got)
		}
	}
}

// TestSizesInEachUnit reads a size in each form.
func TestSizesInEachUnit(t *testing.T) {
	for text, want := range map[string]int64{`1`: 1, `"1B"`: 1, `"3KiB"`: 3 << 10, `"5MiB"`: 5 << 20, `"7GiB"`: 7 << 30, `0x10`: 16,
		`9007199254740991`: 1<<53 - 1, `"8388607GiB"`: 8388607 << 30} {
		s, err := manifests.ParseSite("f", []byte("schema = \"stella.site/1\"\nmax_bundle_bytes = "+text+"\n"))
		if err != nil || s.MaxBundleBytes != want {
			t.Errorf("%s: %v, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{`"1"`, `""`, `"KiB"`, `"1 KiB"`, `"1kib"`, `"1K"`, `"1TiB"`, `"1.5GiB"`, `"-1B"`, `"+1B"`, `"1e3B"`, `"0B"`, `true`,
		`9007199254740992`, `"9007199254740992B"`, `"99999999999999999999GiB"`} {
		if s, err := manifests.ParseSite("f", []byte("schema = \"stella.site/1\"\nmax_bundle_bytes = "+text+"\n")); err == nil {
			t.Errorf("%s is accepted as %d", text, s.MaxBundleBytes)
		}
	}
}

// TestValuesNestEightDeep goes to the limit by headers, dots and brackets, which
// count alike in a value.
func TestValuesNestEightDeep(t *testing.T) {
	small := sample(t, "dag/small.toml")
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"eight lists", "with.a = [[[[[[[[1]]]]]]]]", true},
		{"eight tables and lists", "[step.with.a.b]\nc.d.e.f = [[[1]]]", true},
		{"nine by headers", "[step.with.a.b]\nc.d.e.f = [[[[1]]]]", false},
		{"nine, the last of them empty", "[step.with.a.b]\nc.d.e.f = [[[[]]]]", false},
		{"nine, the last of them a table", "[step.with.a.b]\nc.d.e.f = [[[{}]]]", false},
	} {
		d, err := manifests.ParseDAG("f", []byte(small+c.text+"\n"))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			fixedPoint(t, lang("dag"), d)
		}
	}
}

// TestMatchingIsBounded asks for more work than a file may: many long texts
// against a large pattern.
func TestMatchingIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(sample(t, "dag/small.toml"))
	for i := range 100 {
		fmt.Fprintf(&b, "[inputs.i%d]\ntype = \"string\"\npattern = 'a{0,450}a*'\ndefault = '%s'\n", i, strings.Repeat("a", 3000))
	}
	_, err := manifests.ParseDAG("f", []byte(b.String()))
	got := faultLines(t, err)
	want := "inputs.i99.default: the patterns of this file take too long to match (shorter texts or simpler patterns)"
	if last := got[len(got)-1]; !strings.HasSuffix(last, want) {
		t.Errorf("last fault %q, want %q", last, want)
	}
	if len(got) > 80 || len(got) < 20 {
		t.Errorf("%d of 100 texts were not matched", len(got))
	}
}

// TestEnumsAreBounded has one value more than is compared with all others.
func TestEnumsAreBounded(t *testing.T) {
	spec := func(n int) []byte {
		var b strings.Builder
		b.WriteString(sample(t, "dag/small.toml"))
		b.WriteString("[inputs.i]\ntype = \"integer\"\nenum = [\n")
		for i := range n {
			fmt.Fprintf(&b, "%d,\n", i)
		}
		b.WriteString("]\n")
		return []byte(b.String())
	}
	if _, err := manifests.ParseDAG("f", spec(256)); err != nil {
		t.Error(err)
	}
	_, err := manifests.ParseDAG("f", spec(257))
	check(t, faultLines(t, err), []string{"11: inputs.i.enum: has 257 values, at most 256 are allowed (use a pattern)"})
}

// TestPrefixesOverlap compares with the definition: no name may belong to two
// publishers.
func TestPrefixesOverlap(t *testing.T) {
	keys := []string{"p256-a", "p256-b", "p256-c"}
	for i := range keys {
		keys[i] = sample(t, "keys/"+keys[i]+".pem")
	}
	rapid.Check(t, func(t *rapid.T) {
		p := &manifests.Policy{Serial: 1, RootVersion: 1, Issued: day(2026, 1, 1), NextUpdate: day(2027, 1, 1)}
		overlap := false
		for i, key := range keys {
			names := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]{1,4}`), 1, 4, rapid.ID).Draw(t, "names")
			for _, other := range p.Publishers {
				for _, a := range other.Names {
					for _, b := range names {
						overlap = overlap || strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
					}
				}
			}
			p.Publishers = append(p.Publishers, manifests.Publisher{Name: fmt.Sprint("p", i), Threshold: 1, Kinds: []manifests.Kind{"dag"},
				Names: names, Keys: []manifests.PublisherKey{{PEM: key}}})
		}
		_, err := manifests.ParsePolicy("f", manifests.EncodePolicy(p))
		if (err != nil) != overlap {
			t.Fatalf("overlap %v, error %v", overlap, err)
		}
	})
}

// TestLargeGraphs has as many steps as fit, in one line and in one circle.
func TestLargeGraphs(t *testing.T) {
	const n = 9000
	spec := func(last string) string {
		var b strings.Builder
		b.WriteString("schema = \"stella.dag/1\"\ndag_id = \"a\"\nversion = \"1.0.0\"\n")
		for i := range n {
			fmt.Fprintf(&b, "[[step]]\nid = \"s%d\"\nplugin = \"a/b@1.0.0\"\naction = \"c\"\nneeds = [%s]\n", i, last)
			last = fmt.Sprintf("%q", fmt.Sprint("s", i))
		}
		return b.String()
	}
	if _, err := manifests.ParseDAG("f", []byte(spec(""))); err != nil {
		t.Errorf("a line of %d steps: %v", n, err)
	}
	_, err := manifests.ParseDAG("f", []byte(spec(`"s8999"`)))
	want := []string{"8: step[0].needs: the steps wait for each other: s0 -> s8999 -> s8998 -> s8997 -> s8996 -> s8995 -> s8994 -> s8993 -> s8992 -> s8991 -> … -> " +
		"s8 -> s7 -> s6 -> s5 -> s4 -> s3 -> s2 -> s1 -> s0 (take one of these needs away)"}
	check(t, faultLines(t, err), want)
}
