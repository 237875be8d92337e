package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/ledger"
)

// sources are the files that an auditor reads.
func sources(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
}

func TestItCanBeReadInAnHour(t *testing.T) {
	lines := 0
	for _, f := range sources(t) {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range strings.Split(string(raw), "\n") {
			if code := strings.TrimSpace(l); code != "" && !strings.HasPrefix(code, "//") { // as cloc counts
				lines++
			}
			if len(l) > 240 {
				t.Errorf("%s:%d has %d bytes: one cannot read on in such lines", f, i+1, len(l))
			}
		}
	}
	if lines == 0 || lines >= 1000 {
		t.Errorf("%d lines of code, there must be fewer than 1,000", lines)
	}
}

// An auditor takes the folder and three libraries, and builds it.
func TestItBuildsAlone(t *testing.T) {
	dir := t.TempDir()
	for _, f := range append(sources(t), "types.json") {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ours, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod := "module stella-audit\n\ngo 1.26\n\nrequire (\n"
	for _, lib := range []string{"github.com/BurntSushi/toml", "github.com/klauspost/compress", "github.com/transparency-dev/merkle"} {
		at := bytes.Index(ours, []byte("\t"+lib+" "))
		line, _, _ := strings.Cut(string(ours[at:]), "\n")
		mod += line + "\n"
		if doc, err := os.ReadFile("../../docs/operations.md"); err != nil || !bytes.Contains(doc, []byte(strings.Replace(strings.TrimSpace(line), " ", "@", 1))) {
			t.Errorf("docs/operations.md says another version than%s: %v", line, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod+")\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", "stella-audit", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "GOTOOLCHAIN=local")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command(filepath.Join(dir, "stella-audit"), "-h")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "usage: stella-audit") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The table of types is written down twice, from the same document.
func TestTypesAreThoseOfTheLedger(t *testing.T) {
	all := map[string]bool{}
	for _, info := range ledger.Types() {
		all[string(info.Type)] = true
		data := info.New()
		n := 0
		fill(reflect.ValueOf(data).Elem(), &n)
		want := ledger.Evidence(data)
		line, err := json.Marshal(data)
		if err != nil {
			t.Fatalf("%s: %v", info.Type, err)
		}
		members, known := naming[string(info.Type)]
		family, _, _ := strings.Cut(string(info.Type), ".")
		if got := max(about[family], about[string(info.Type)]); got != int(info.Type.Subject()) {
			t.Errorf("%s is about %d, not %d", info.Type, info.Type.Subject(), got)
		}
		if !known || info.Version != 1 {
			t.Errorf("%s, version %d, is not known here", info.Type, info.Version)
		}
		var got []string
		for _, m := range members {
			for _, v := range list(parse[any](line), m) {
				if s, ok := v.(string); ok && isDigest(s) {
					got = append(got, s)
				}
			}
		}
		if speaks := slices.ContainsFunc(members, func(m string) bool { return strings.HasPrefix(m, "*") }); speaks != ledger.Erasable(info.Type) {
			t.Errorf("%s can be erased: %t, and here %t", info.Type, !speaks, speaks)
		}
		slices.Sort(want)
		slices.Sort(got)
		if got, want := slices.Compact(got), slices.Compact(want); !slices.Equal(got, want) {
			t.Errorf("%s names %d sealed files, and here %d of them: %v", info.Type, len(want), len(got), members)
		}
	}
	for name := range naming {
		if !all[name] {
			t.Errorf("%s is no type of the ledger", name)
		}
	}
}

// fill gives each text of v a digest of its own.
func fill(v reflect.Value, n *int) {
	switch v.Kind() {
	case reflect.String:
		*n++
		v.SetString(fmt.Sprintf("%064x", *n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	}
}
