package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// files reads a folder: name → content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(raw)
	}
	return out
}

const packages = "# list\nGo example.com/m # why\n\nDebian tool\n"

func TestOSV(t *testing.T) {
	dir := t.TempDir()
	list := put(t, dir, "packages.txt", packages)
	put(t, dir, "in/a.json", `{
		"id": "EX-1", "modified": "2024-01-01T00:00:00Z", "published": "0001-01-01T00:00:00Z", "aliases": ["B", "A"], "summary": "prose", "details": "prose",
		"affected": [
			{"package": {"ecosystem": "Go", "name": "example.com/m"}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.2.0"}]}], "ecosystem_specific": {"imports": []}},
			{"package": {"ecosystem": "Go", "name": "example.com/other"}}
		],
		"references": [{"type": "WEB", "url": "https://example.com/web"}, {"type": "FIX", "url": "https://example.com/fix"}, {"type": "FIX", "url": "http://example.com/plain"}],
		"credits": [{"name": "somebody"}], "database_specific": {"url": "x"}
	}`)
	put(t, dir, "in/b.json", `{"id": "EX-2", "modified": "2024-01-01T00:00:00Z", "affected": [{"package": {"ecosystem": "Go", "name": "example.com/other"}}]}`)
	put(t, dir, "in/c.json", `{"id": "EX-3", "modified": "2024-01-01T00:00:00Z", "withdrawn": "2024-01-02T00:00:00Z", "affected": [{"package": {"ecosystem": "Go", "name": "example.com/m"}}]}`)
	out := filepath.Join(dir, "out")
	args := []string{"-packages", list, "-out", out, "-osv", filepath.Join(dir, "in")}
	var stdout bytes.Buffer
	if err := run(args, &stdout); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"EX-1.json": `{
 "id": "EX-1",
 "modified": "2024-01-01T00:00:00Z",
 "aliases": [
  "A",
  "B"
 ],
 "affected": [
  {
   "package": {
    "ecosystem": "Go",
    "name": "example.com/m"
   },
   "ranges": [
    {
     "type": "SEMVER",
     "events": [
      {
       "introduced": "0"
      },
      {
       "fixed": "1.2.0"
      }
     ]
    }
   ]
  }
 ],
 "references": [
  {
   "type": "FIX",
   "url": "https://example.com/fix"
  }
 ]
}
`}
	if diff := cmp.Diff(want, files(t, out)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if stdout.String() != "1 records\n" {
		t.Errorf("stdout %q", stdout.String())
	}
	if err := run(args, &stdout); err != nil {
		t.Errorf("the same again: %v", err)
	}
	put(t, out, "EX-1.json", "{}")
	if err := run(args, &stdout); err == nil {
		t.Error("a record with other content was replaced")
	}
}

const dsaList = `[02 Jan 2024] DSA-0002-1 tool - security update
	{CVE-2024-0002 CVE-2024-0001}
	[bullseye] - tool 1:1.0-1+deb11u2
	[bookworm] - tool 1:2.0-1+deb12u1
	NOTE: words
[01 Jan 2024] DSA-0001-2 tool - regression update
	[bookworm] - tool 1:1.9-1+deb12u2
[31 Dec 2023] DSA-0001-1 tool - security update
	{CVE-2023-0009}
	[bookworm] - tool <not-affected> (words)
[30 Dec 2023] DSA-0000-1 other - security update
	{CVE-2023-0008}
	[bookworm] - other 1.0
`

func TestDSA(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	list, dsa := put(t, dir, "packages.txt", packages), put(t, dir, "list", dsaList)
	if err := run([]string{"-packages", list, "-out", out, "-dsa", dsa, "-release", "12"}, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	got := files(t, out)
	if len(got) != 1 {
		t.Fatalf("records %v; want DSA-0002-1 alone", got)
	}
	for _, want := range []string{`"id": "DSA-0002-1"`, `"published": "2024-01-02T00:00:00Z"`, `"ecosystem": "Debian:12"`, `"fixed": "1:2.0-1+deb12u1"`, `"CVE-2024-0001",`} {
		if !strings.Contains(got["DSA-0002-1.json"], want) {
			t.Errorf("%s is not in\n%s", want, got["DSA-0002-1.json"])
		}
	}
}

func TestDSARefuses(t *testing.T) {
	for name, text := range map[string]string{
		"lines of no advisory": "\t{CVE-1}\n",
		"no date":              "[soon] DSA-1-1 a - b\n",
		"another id":           "[02 Jan 2024] DLA-1-1 a - b\n",
		"no version":           "[02 Jan 2024] DSA-1-1 a - b\n\t[bookworm] - a 1_2\n",
	} {
		if r, err := readDSA(strings.NewReader(text), "bookworm", "Debian:12"); err == nil {
			t.Errorf("%s: %+v; want an error", name, r)
		}
	}
}

func TestArguments(t *testing.T) {
	dir := t.TempDir()
	list := put(t, dir, "packages.txt", packages)
	for _, args := range [][]string{
		nil, {"-packages", list, "-out", dir}, {"-packages", list, "-out", dir, "-osv", dir, "-dsa", list},
		{"-packages", list, "-out", dir, "-dsa", list}, {"-out", dir, "-dsa", list, "-release", "bookworm"}, {"-out", dir, "-changelogs", dir, "-release", "12", "-since", "soon"},
		{"-osv", dir}, {"-packages", put(t, dir, "bad", "one two three\n"), "-out", dir, "-osv", dir},
	} {
		if err := run(args, new(bytes.Buffer)); err == nil {
			t.Errorf("run(%q) was accepted", args)
		}
	}
}

func FuzzReadDSA(f *testing.F) {
	f.Add(dsaList)
	f.Add("[02 Jan 2024] DSA-1-1 a\n\t[bookworm] - a\n\t{}\n")
	f.Fuzz(func(t *testing.T, text string) {
		records, err := readDSA(strings.NewReader(text), "bookworm", "Debian:12")
		if err != nil {
			return
		}
		for _, r := range records {
			if !strings.HasPrefix(r.ID, "DSA-") || len(r.Affected) == 0 || len(r.Upstream) == 0 {
				t.Errorf("record %+v", r)
			}
		}
	})
}
