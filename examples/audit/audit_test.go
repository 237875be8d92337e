// Package audit_test runs the three programs of the audit one after another,
// as a run would, on a small machine made for it.
package audit_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/examples/audit/internal/inventory"
	"github.com/stellarun/stella/plugin"
)

// build builds the programs for this machine and returns their folder.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds three programs")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+"/", "./plugins/inventory", "./plugins/match", "./plugins/report")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	tool(t, dir)
	return dir
}

// tool builds a program that has a dependency, whose name and version are made
// up: the copy in its folder vendor is all there is of it.
func tool(t *testing.T, dir string) {
	t.Helper()
	src := t.TempDir()
	put(t, src+"/go.mod", "module example.com/tool\n\ngo 1.26\n\nrequire example.com/lib v1.0.0\n")
	put(t, src+"/main.go", "package main\n\nimport \"example.com/lib\"\n\nfunc main() { lib.Do() }\n")
	put(t, src+"/vendor/example.com/lib/lib.go", "package lib\n\nfunc Do() {}\n")
	put(t, src+"/vendor/modules.txt", "# example.com/lib v1.0.0\n## explicit; go 1.26\nexample.com/lib\n")
	cmd := exec.Command("go", "build", "-mod=vendor", "-o", dir+"/tool", ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// artifact is what a step handed over.
type artifact struct {
	Name      string `json:"name"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
	content   []byte
}

// attempt is one attempt of a step.
type attempt struct {
	program, action string
	params          map[string]any
	inputs          []artifact
	data            string // folder of advisories; "" is none
}

// result is what an attempt left behind.
type result struct {
	exit      int
	outputs   map[string]any
	artifacts map[string]artifact
	log       string
}

func (a attempt) run(t *testing.T) result {
	t.Helper()
	base := t.TempDir()
	for _, dir := range []string{"work", "artifacts", "inputs", "data", "secrets"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	params, err := json.Marshal(a.params)
	if err != nil {
		t.Fatal(err)
	}
	req := plugin.Request{API: plugin.API, Action: a.action, Attempt: 1, Params: params, Inputs: map[string]plugin.Input{}, Data: map[string]plugin.Data{}}
	for _, in := range a.inputs {
		put(t, filepath.Join(base, "inputs", in.SHA256), string(in.content))
		req.Inputs[in.SHA256] = plugin.Input{Path: "inputs/" + in.SHA256, SHA256: in.SHA256, Size: in.Size}
	}
	if a.data != "" {
		if err := os.CopyFS(filepath.Join(base, "data/d"), os.DirFS(a.data)); err != nil {
			t.Fatal(err)
		}
		req.Data["acme/advisories@1.0.0"] = plugin.Data{Path: "data/d", Digest: strings.Repeat("d", 64)}
	}
	raw, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(base, "input.json"), string(raw))
	put(t, filepath.Join(base, "output.jsonl"), "")
	cmd := exec.Command(a.program)
	cmd.Env = []string{
		"SOURCE_DATE_EPOCH=1795334400", "STELLA_API=1", "STELLA_INPUT=" + base + "/input.json", "STELLA_OUTPUT=" + base + "/output.jsonl",
		"STELLA_WORKSPACE=" + base + "/work", "STELLA_ARTIFACTS=" + base + "/artifacts", "STELLA_SECRETS=" + base + "/secrets",
	}
	log, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	r := result{exit: cmd.ProcessState.ExitCode(), log: string(log)}
	r.outputs, r.artifacts = results(t, base)
	return r
}

func results(t *testing.T, base string) (outputs map[string]any, artifacts map[string]artifact) {
	t.Helper()
	outputs, artifacts = map[string]any{}, map[string]artifact{}
	f, err := os.Open(filepath.Join(base, "output.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var line struct {
			Output   map[string]any
			Artifact *struct{ Name, Path, MediaType string }
		}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		for k, v := range line.Output {
			outputs[k] = v
		}
		if a := line.Artifact; a != nil {
			content, err := os.ReadFile(filepath.Join(base, "artifacts", a.Path))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)
			artifacts[a.Name] = artifact{a.Name, hex.EncodeToString(sum[:]), int64(len(content)), a.MediaType, content}
		}
	}
	return outputs, artifacts
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// machine is a file system with two Debian packages of one source.
func machine(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put(t, filepath.Join(root, "usr/lib/os-release"), "ID=debian\nVERSION_ID=\"12\"\n")
	put(t, filepath.Join(root, "var/lib/dpkg/status"), `Package: libexample1
Status: install ok installed
Architecture: amd64
Source: example
Version: 1.0-1

Package: example
Status: install ok installed
Architecture: amd64
Version: 1.0-1
Depends: libexample1 (= 1.0-1)
`)
	return root
}

// audit runs all steps and returns their results by action.
func audit(t *testing.T, bin string) map[string]result {
	t.Helper()
	out := map[string]result{
		"go":     attempt{program: bin + "/inventory", action: "go", params: map[string]any{"roots": []string{bin + "/tool", "/no/such"}, "subject": "m1"}}.run(t),
		"debian": attempt{program: bin + "/inventory", action: "debian", params: map[string]any{"root": machine(t), "subject": "m1"}}.run(t),
	}
	sboms := []artifact{out["go"].artifacts["sbom"], out["debian"].artifacts["sbom"]}
	out["match"] = attempt{program: bin + "/match", action: "match", params: map[string]any{"sboms": sboms}, inputs: sboms, data: "testdata/advisories"}.run(t)
	found := out["match"].artifacts["findings"]
	params := map[string]any{"title": "An audit", "findings": found, "sboms": sboms}
	for _, action := range []string{"report", "upgrades"} {
		out[action] = attempt{program: bin + "/report", action: action, params: params, inputs: append(slices.Clone(sboms), found)}.run(t)
	}
	return out
}

func TestPrograms(t *testing.T) {
	bin := build(t)
	t.Run("an audit from end to end", func(t *testing.T) { testAudit(t, bin) })
	t.Run("a missing database is an empty bill", func(t *testing.T) { testMissingDatabase(t, bin) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, bin) })
}

func testAudit(t *testing.T, bin string) {
	got := audit(t, bin)
	for action, r := range got {
		if r.exit != 0 {
			t.Errorf("%s: exit %d: %s", action, r.exit, r.log)
		}
	}
	for action, want := range map[string]map[string]any{
		"match":    {"findings": 2., "affected": 2., "fixable": 1., "advisories": 3.},
		"report":   {"verdict": "2 packages are affected. For 1 of 2 findings a fixed version exists."},
		"upgrades": {"upgrades": 2.},
		"debian":   {"packages": 2., "partial": 0., "distro": "debian-12", "note": ""},
		"go":       {"programs": 1., "missingRoots": 1.},
	} {
		for key, value := range want {
			if diff := cmp.Diff(value, got[action].outputs[key]); diff != "" {
				t.Errorf("%s: output %s: -want +got:\n%s", action, key, diff)
			}
		}
	}
	for action, schema := range map[string]string{
		"go": "inventory/schema/go.outputs", "debian": "inventory/schema/debian.outputs", "match": "match/schema/outputs",
		"report": "report/schema/report.outputs", "upgrades": "report/schema/upgrades.outputs",
	} {
		if diff := cmp.Diff(required(t, "plugins/"+schema+".json"), slices.Sorted(maps.Keys(got[action].outputs))); diff != "" {
			t.Errorf("%s: outputs are not those of its schema: -want +got:\n%s", action, diff)
		}
	}
	rows, err := csv.NewReader(bytes.NewReader(got["upgrades"].artifacts["upgrades.csv"].content)).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("upgrades.csv: %v, %v", rows, err)
	}
	if want := []string{"Debian:12", "example", "1.0-1", "1.0-1+deb12u1", "1", "0", "example:amd64 1.0-1; libexample1:amd64 1.0-1"}; !slices.Equal(rows[1], want) {
		t.Errorf("upgrades.csv: %q; want %q", rows[1], want)
	}
	if rows[2][1] != "example.com/lib" || rows[2][2] != "v1.0.0" || rows[2][3] != "" {
		t.Errorf("upgrades.csv: %q; want example.com/lib v1.0.0 without a fix", rows[2])
	}
	for _, name := range []string{"report.md", "report.html"} {
		if !bytes.Contains(got["report"].artifacts[name].content, []byte("EXAMPLE-2026-0001")) {
			t.Errorf("%s does not name the advisory", name)
		}
	}
	again := audit(t, bin)
	for action, r := range got {
		for name, a := range r.artifacts {
			if again[action].artifacts[name].SHA256 != a.SHA256 {
				t.Errorf("%s: artifact %s is another when it is made again", action, name)
			}
		}
	}
}

// required lists the keys that a schema asks for: all it has.
func required(t *testing.T, path string) []string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]any
		Required   []string
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	slices.Sort(schema.Required)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(schema.Properties)), schema.Required); diff != "" {
		t.Errorf("%s: a property is not required: -properties +required:\n%s", path, diff)
	}
	return schema.Required
}

// TestManifests holds names and versions together that stand in several files.
func TestManifests(t *testing.T) {
	raw, err := os.ReadFile("dag/dag.toml")
	if err != nil {
		t.Fatal(err)
	}
	dag := string(raw)
	for folder, name := range map[string]string{
		"plugins/inventory": "audit-inventory", "plugins/match": "audit-match", "plugins/report": "audit-report", "data/advisories": "advisories", "dag": "audit",
	} {
		raw, err := os.ReadFile(folder + "/stella.toml")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(raw), "\nversion = \"")
		version, _, _ := strings.Cut(rest, "\"")
		if !strings.Contains(string(raw), "\nname = \""+name+"\"\n") {
			t.Errorf("%s: its name is not %s", folder, name)
		}
		if ref := "acme/" + name + "@" + version; folder != "dag" && !strings.Contains(dag, "\""+ref+"\"") {
			t.Errorf("the DAG does not use %s", ref)
		}
		if folder == "dag" && !strings.Contains(dag, "\nversion = \""+version+"\"\n") {
			t.Errorf("the DAG's version is not %s", version)
		}
		if folder == "plugins/inventory" && version != inventory.Version {
			t.Errorf("bills name version %s of the inventory; its bundle has %s", inventory.Version, version)
		}
	}
}

func testMissingDatabase(t *testing.T, bin string) {
	r := attempt{program: bin + "/inventory", action: "debian", params: map[string]any{"root": t.TempDir()}}.run(t)
	if note, _ := r.outputs["note"].(string); r.exit != 0 || r.outputs["packages"] != 0. || !strings.Contains(note, "no package database") {
		t.Errorf("exit %d, outputs %v, log %s", r.exit, r.outputs, r.log)
	}
}

func testRefusals(t *testing.T, bin string) {
	bad := artifact{Name: "sbom", SHA256: strings.Repeat("0", 64), content: []byte("{}")}
	broken := t.TempDir()
	put(t, filepath.Join(broken, "status.json"), "{")
	damaged := t.TempDir()
	put(t, filepath.Join(damaged, "var/lib/dpkg/status"), "no field")
	bill := attempt{program: bin + "/inventory", action: "debian", params: map[string]any{"root": t.TempDir()}}.run(t).artifacts["sbom"]
	for _, c := range []struct {
		name string
		attempt
		exit int
	}{
		{"an unknown action", attempt{program: bin + "/inventory", action: "all"}, plugin.ExitRejected},
		{"a relative root", attempt{program: bin + "/inventory", action: "go", params: map[string]any{"roots": []string{"bin"}}}, plugin.ExitRejected},
		{"an unknown parameter", attempt{program: bin + "/inventory", action: "go", params: map[string]any{"root": "/"}}, plugin.ExitRejected},
		{"a damaged database", attempt{program: bin + "/inventory", action: "debian", params: map[string]any{"root": damaged}}, plugin.ExitFailed},
		{"no bill", attempt{program: bin + "/match", action: "match", data: "testdata/advisories"}, plugin.ExitRejected},
		{"a bill that is none", attempt{program: bin + "/match", action: "match", params: map[string]any{"sboms": []artifact{bad}}, inputs: []artifact{bad}, data: "testdata/advisories"}, plugin.ExitRejected},
		{"no advisories", attempt{program: bin + "/match", action: "match", params: map[string]any{"sboms": []artifact{bill}}, inputs: []artifact{bill}}, plugin.ExitRejected},
		{"a broken advisory", attempt{program: bin + "/match", action: "match", params: map[string]any{"sboms": []artifact{bill}}, inputs: []artifact{bill}, data: broken}, plugin.ExitRejected},
		{"findings that are none", attempt{program: bin + "/report", action: "report", params: map[string]any{"findings": bad}, inputs: []artifact{bad}}, plugin.ExitRejected},
	} {
		if r := c.attempt.run(t); r.exit != c.exit || len(r.artifacts) > 0 {
			t.Errorf("%s: exit %d, %d artifacts; want %d and none\n%s", c.name, r.exit, len(r.artifacts), c.exit, r.log)
		}
	}
}
