package simtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

const (
	operator  = "uid:0(root)"
	theSecret = "db"    // of the runs
	often     = "often" // a schedule that is never removed
)

// program is what the sandbox runs; the other executor does the same without a
// process. Both leave a line outside of the home when they begin, and a program another
// one when it has taken its time, with a log and an artifact that an archive of runs takes. A secret that cannot be read is told with its reason.
const program = `me="$STELLA_RUN_ID $STELLA_STEP_ID $STELLA_ATTEMPT" value=
[ "$1" = secret ] && { value=$(cat "$STELLA_SECRETS/db" 2>&1) || value="unread:$(echo "$value" | tr " " _)"; }
echo "began $me $value" >> %[1]q
case $1 in
slow | once)
	[ $1 = slow ] && sleep 0.2 || sleep 0.4
	seq 2000 && { echo "$me" && seq 2000; } > "$STELLA_ARTIFACTS/a" && echo '{"artifact":{"name":"a"}}' >> "$STELLA_OUTPUT"
	echo "ended $me $(date +%%s%%N)" >> %[1]q ;;
flaky) [ "$STELLA_ATTEMPT" -lt 3 ] && exit 75 ;;
bad) exit 65 ;;
list) echo '{"output":{"items":[0,1,2,3]}}' >> "$STELLA_OUTPUT" ;;
esac
exit 0
`

// actions are those of the one plugin. What is once must not be repeated silently.
var actions = map[string]bool{"quick": true, "slow": true, "flaky": true, "bad": true, "list": true, "secret": true, "once": false}

// dags are what is started: the rest of their specs. Each has a step a.
var dags = map[string]string{
	"chain": step("a", "quick") + step("b", "slow", `needs = ["a"]`) + step("c", "flaky", `needs = ["b"]`, retry) + step("d", "quick", `needs = ["c"]`),
	"fan": limits + step("a", "quick") + step("f1", "slow", `needs = ["a"]`) + step("f2", "slow", `needs = ["a"]`, "priority = 5") +
		step("f3", "slow", `needs = ["a"]`) + step("f4", "quick", `needs = ["a"]`) + step("join", "quick", `needs = ["f1", "f2", "f3", "f4"]`),
	"each": limits + step("a", "list") + step("item", "slow", `needs = ["a"]`, `for_each = "${ steps.a.outputs.items }"`, "max_parallel = 2", "semaphores = {net = 1}") +
		step("join", "quick", `needs = ["item"]`),
	"once":   step("a", "once") + step("o2", "once", `needs = ["a"]`) + step("o3", "once", `needs = ["o2"]`),
	"locked": limits + step("a", "slow", `locks = ["db"]`) + step("l2", "quick", `locks = ["db"]`) + step("l3", "slow", "semaphores = {net = 2}"),
	"gate":   step("a", "quick") + gate("g", "quorum = QUORUM", `needs = ["a"]`) + step("b", "quick", `needs = ["g"]`) + step("c", "slow"),
	"asks":   step("a", "slow", "checkpoint = {question = \"good?\", quorum = 1, expires = \"400ms\"}") + step("b", "quick", `needs = ["a"]`),
	"fails":  step("a", "bad", "allow_skip = true") + step("b", "quick", `needs = ["a"]`) + "[[on_failure]]" + step("mend", "slow")[len("[[step]]"):],
	"cached": step("a", "quick", `cache = {ttl = "10m"}`) + step("b", "slow", `needs = ["a"]`, `cache = {ttl = "1s"}`),
	"secret": step("a", "secret", `secrets = ["db"]`) + step("b", "slow", `needs = ["a"]`),
	"parent": limits + sub("a", "chain", `locks = ["db"]`) + sub("t", "once", "for_each = [1, 2]", "max_parallel = 2") + step("z", "quick", `needs = ["a", "t"]`),
	"outer":  sub("a", "gate") + step("z", "quick", `needs = ["a"]`) + "[[on_cancel]]" + step("tidy", "quick")[len("[[step]]"):],
}

// crowded are those that wait for each other, or for people. If all were started as
// often, soon nothing but they would be open, and little would go on.
var crowded = []string{"each", "gate", "locked", "outer", "parent"}

const (
	limits = "[limits]\nmax_parallel_steps = 4\n"
	retry  = `retry = {max_attempts = 4, backoff = "20ms", max_backoff = "60ms"}`
)

func step(id, action string, more ...string) string {
	return lines(append([]string{"[[step]]", fmt.Sprintf("id = %q", id), `plugin = "acme/sim@1.0.0"`, fmt.Sprintf("action = %q", action)}, more...))
}

func sub(id, dag string, more ...string) string {
	return lines(append([]string{"[[step]]", fmt.Sprintf("id = %q", id), fmt.Sprintf("dag = \"sim-%s@1.0.0\"", dag)}, more...))
}

func gate(id, rule string, more ...string) string {
	return lines(append([]string{"[[step]]", fmt.Sprintf("id = %q", id), "checkpoint = {question = \"on?\", " + rule + "}"}, more...))
}

func lines(all []string) string {
	out := ""
	for _, l := range all {
		out += l + "\n"
	}
	return out
}

const config = `schema = "stella.site/1"
allow_plain = true
allow_plain_secrets = true
workers = 8
max_parallel_steps = 2
grace = "100ms"
[semaphores]
net = 3
[[sink]]
name = "events"
topics = ["*"]
from = "start"
`

// template makes a closed site with everything that is started. It takes quorum
// people to open a gate.
func template(t *testing.T, trace string, quorum int) (home string) {
	t.Helper()
	home = filepath.Join(t.TempDir(), "site")
	removable(t, home)
	if _, err := engine.Init(home, engine.InitOptions{AllowPlain: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "site.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	key, err := verify.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	e, err := engine.Open(ctx, engine.Options{Home: home, Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	site := e.As(api.Principal{Name: operator})
	if _, err := site.AddTrust(ctx, api.TrustAddition{
		Publisher: "acme", Key: string(pub), Names: []string{"sim"}, Interpreters: []string{"/bin/sh"}, Kinds: []string{"plugin", "dag"},
		Secrets: []api.TrustGrant{{Name: theSecret, Tenant: "default", Plugin: "sim", DAG: "sim-secret"}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := site.SetSecret(ctx, api.SecretRequest{Name: theSecret, Value: api.SecretValue(valueOf("mark-0")), Reason: "mark-0"}); err != nil {
		t.Fatal(err)
	}
	admit := func(files map[string]string) string {
		res, err := site.ImportBundle(ctx, api.ImportRequest{Path: pack(t, key, files)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res.Verdict.Digest
	}
	admit(map[string]string{"stella.toml": pluginManifest(), "bin/run.sh": fmt.Sprintf(program, trace)})
	digests := map[string]string{}
	for id, spec := range dags {
		digests[id] = admit(map[string]string{
			"stella.toml": head("dag", "sim-"+id) + "[dag]\nspec = \"dag.toml\"\n",
			"dag.toml":    fmt.Sprintf("schema = \"stella.dag/1\"\ndag_id = \"sim-%s\"\nversion = \"1.0.0\"\n%s", id, strings.ReplaceAll(spec, "QUORUM", fmt.Sprint(quorum))),
		})
	}
	for _, id := range []string{"chain", "once", "gate", "fan", "each", "locked", "asks", "fails", "cached", "secret", "parent", "outer"} { // what others start first
		if _, err := site.PublishDAG(ctx, digests[id]); err != nil {
			t.Fatalf("publish %s: %+v", id, err)
		}
	}
	return home
}

func head(kind, name string) string {
	return fmt.Sprintf("schema = \"stella.bundle/1\"\nkind = %q\npublisher = \"acme\"\nname = %q\nversion = \"1.0.0\"\nsequence = 1\ncreated = \"2026-11-22T00:00:00.000000000Z\"\n", kind, name)
}

func pluginManifest() string {
	m := head("plugin", "sim") + "[plugin]\nruntime = \"exec\"\ninterpreter = \"/bin/sh\"\n[plugin.entry]\n\"linux/amd64\" = \"bin/run.sh\"\n\"linux/arm64\" = \"bin/run.sh\"\n"
	for name, idempotent := range actions {
		m += fmt.Sprintf("[plugin.actions.%s]\nargs = [%q]\nidempotent = %v\n", name, name, idempotent)
		if name == "secret" {
			m += "secrets = [\"db\"]\n"
		}
	}
	return m
}

// pack packs and signs files, and returns the path of the bundle.
func pack(t *testing.T, key *ecdsa.PrivateKey, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path, mode := filepath.Join(dir, name), os.FileMode(0o644)
		if filepath.Dir(name) == "bin" {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	var raw, out bytes.Buffer
	packed, err := bundle.Pack(dir, &raw, bundle.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := verify.SignManifest(packed.Raw, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.Attach(&out, &raw, []bundle.Attached{sig}, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), bundle.FileName(packed.Manifest))
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// removable lets the test's folder be removed: sealed folders are read-only.
func removable(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				os.Chmod(p, 0o755)
			}
			return nil
		})
	})
}

// copied is a copy of a closed site.
func copied(t *testing.T, from string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	removable(t, dir)
	home := filepath.Join(dir, "s")
	if out, err := exec.Command("cp", "-a", from, home).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return home
}
