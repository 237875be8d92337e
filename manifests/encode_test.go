package manifests_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stellarun/stella/manifests"
)

// TestLongTextIsBroken writes texts around the length at which lines are broken,
// with each kind of white space at the break, where a break would swallow it.
func TestLongTextIsBroken(t *testing.T) {
	d, err := manifests.ParseDAG("f", []byte(sample(t, "dag/small.toml")))
	if err != nil {
		t.Fatal(err)
	}
	for n := 980; n <= 1010; n++ {
		for _, c := range []string{" ", "\n", "\t", "\r", "\"", "\\", "\u202e", "  \n \n\n ", ""} {
			text := strings.Repeat("x", n) + c + "y\n"
			d.Steps[0].With = map[string]any{"a": text, "b": []any{text, text}, "c": map[string]any{"d": text}}
			raw := string(manifests.EncodeDAG(d))
			for i, line := range strings.Split(raw, "\n") {
				if len(line) > 2*1024 {
					t.Fatalf("line %d has %d bytes", i+1, len(line))
				}
			}
			again, err := manifests.ParseDAG("f", []byte(raw))
			if err != nil {
				t.Fatalf("%d x and %q: %v", n, c, err)
			}
			if diff := cmp.Diff(d.Steps[0].With, again.Steps[0].With); diff != "" {
				t.Fatalf("%d x and %q: %s", n, c, diff)
			}
		}
	}
}

// TestWideValuesAreBroken writes lists and tables that no single line can hold.
func TestWideValuesAreBroken(t *testing.T) {
	d, err := manifests.ParseDAG("f", []byte(sample(t, "dag/small.toml")))
	if err != nil {
		t.Fatal(err)
	}
	wide := map[string]any{}
	var list []any
	for i := range 3000 {
		wide[strings.Repeat("\"", 1+i%200)+string(rune('a'+i/200))] = int64(i)
		list = append(list, map[string]any{"k": int64(i)})
	}
	d.Steps[0].With = map[string]any{"wide": []any{wide}, "list": list}
	fixedPoint(t, lang("dag"), d)
}

func TestEncodeWritesThisAndNothingElse(t *testing.T) {
	created := time.Date(2026, 11, 22, 1, 2, 3, 4, time.FixedZone("", 3600))
	b := &manifests.Bundle{
		Kind: manifests.KindPlugin, Publisher: "acme", Name: "x", Version: "1.0.0", Sequence: 1, Created: created,
		Files: []manifests.File{{Path: "b", SHA256: strings.Repeat("0", 64), Mode: "0755"}, {Path: "a", SHA256: strings.Repeat("1", 64), Mode: "0644",
			Size: 5, Encoding: "zstd", StoredSHA256: strings.Repeat("2", 64), StoredSize: 4}},
		Plugin: &manifests.Plugin{
			Runtime: manifests.RuntimeExec, Network: "none", Entry: map[string]string{"linux/arm64": "b", "linux/amd64": "b"},
			Actions: map[string]manifests.Action{
				"z": {Description: "say \"hi\"\\\nand go", Limits: manifests.Limits{Memory: 3 << 29, CPU: 2, PIDs: 1, Timeout: 90 * time.Minute, Workspace: 1000, Log: 1 << 10}},
				"a": {Idempotent: true, Args: []string{"", "x"}},
			},
		},
	}
	want := `schema = "stella.bundle/1"
kind = "plugin"
publisher = "acme"
name = "x"
version = "1.0.0"
sequence = 1
created = "2026-11-22T00:02:03.000000004Z"

[plugin]
runtime = "exec"
network = "none"

[plugin.entry]
"linux/amd64" = "b"
"linux/arm64" = "b"

[plugin.actions.a]
args = ["", "x"]
idempotent = true

[plugin.actions.z]
description = """
say \"hi\"\\
and go"""

[plugin.actions.z.limits]
memory = "1536MiB"
cpu = 2.0
pids = 1
timeout = "1h30m"
workspace = 1000
log = "1KiB"

[[file]]
path = "b"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
size = 0
mode = "0755"

[[file]]
path = "a"
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
size = 5
mode = "0644"
encoding = "zstd"
stored_sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
stored_size = 4
`
	if diff := cmp.Diff(want, string(b.Encode())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestContentDigest takes the digest from sha256sum over the sorted lines.
func TestContentDigest(t *testing.T) {
	a := manifests.File{Path: "b", Mode: "0755", SHA256: strings.Repeat("a", 64)}
	b := manifests.File{Path: "a", Mode: "0644", SHA256: strings.Repeat("b", 64)}
	c := manifests.File{Path: "a/a", Mode: "0644", SHA256: strings.Repeat("b", 64), Encoding: "zstd", StoredSize: 3}
	const want = "67fcf01d9ee1f1bd65de1725f1caa89d9d0f859a35b9044a23a52416b71de37b"
	for _, files := range [][]manifests.File{{a, b, c}, {c, b, a}, {b, a, c}} {
		if got := manifests.ContentDigest(files); got != want {
			t.Errorf("ContentDigest = %s, want %s", got, want)
		}
	}
	const none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := manifests.ContentDigest(nil); got != none {
		t.Errorf("ContentDigest of nothing = %s, want that of no bytes", got)
	}
}

// TestSourceBecomesManifest goes the way of packing: parse the source, add what
// packing adds, write, parse again.
func TestSourceBecomesManifest(t *testing.T) {
	b, err := manifests.ParseSource("f", []byte(sample(t, "source/plugin.toml")))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range []string{"bin/match.wasm", "schema/params.json", "schema/outputs.json"} {
		b.Files = append(b.Files, manifests.File{Path: path, Mode: "0644", SHA256: strings.Repeat(string(rune('0'+i)), 64), Size: 1})
	}
	b.ContentDigest = manifests.ContentDigest(b.Files)
	raw := b.Encode()
	if !bytes.HasPrefix(raw, []byte("schema = \"stella.bundle/1\"\n")) {
		t.Errorf("begins with %.40q", raw)
	}
	again, err := manifests.ParseBundle("f", raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, again); diff != "" {
		t.Error(diff)
	}
}
