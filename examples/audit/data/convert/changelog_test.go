package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClaims(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		under            []string
	}{
		{name: "the id comes first", text: "CVE-2024-0001: a heap overflow", want: "CVE-2024-0001"},
		{name: "after the word fix", text: "Fix CVE-2024-0001: a heap overflow", want: "CVE-2024-0001"},
		{name: "a list", text: "Add patches to fix CVE-2024-0001, CVE-2024-0002 and CVE-2024-12345.", want: "CVE-2024-0001 CVE-2024-0002 CVE-2024-12345"},
		{name: "brackets of its own", text: "[CVE-2024-0001]: limit the recursion", want: "CVE-2024-0001"},
		{name: "in the name of a patch", text: "d/p/CVE-2024-0001.patch: check the length", want: "CVE-2024-0001"},
		{name: "patch for one fault, text with another", text: "debian/patches/0004-CVE-2024-0001-length.patch: check it (CVE-2024-0002)", want: "CVE-2024-0001 CVE-2024-0002"},
		{name: "among references", text: "Check the length (Closes: #1000001, CVE-2024-0001)", want: "CVE-2024-0001"},
		{name: "brackets after other brackets", text: "lib: check the length. [X-SA-2024-1, CVSS: low] [CVE-2024-0001]", want: "CVE-2024-0001"},
		{name: "after a verb in the sentence", text: "New upstream version 1.2 (fixes CVE-2024-0001)", want: "CVE-2024-0001"},
		{name: "as the last words", text: "New upstream version 1.2 CVE-2024-0001 (Closes: #1000001)", want: "CVE-2024-0001"},
		{name: "another fault in the description", text: "Fix CVE-2024-0001: caused by an incomplete fix for the overflow (CVE-2023-0009)", want: "CVE-2024-0001"},
		{name: "doubtful words far behind", text: "CVE-2024-0001: when the length of a record is wrong the reader stops, users of the other reader are unaffected", want: "CVE-2024-0001"},
		{name: "a fix that was incomplete", text: "CVE-2024-0001 fix was incomplete (Closes: #1000001)", want: "CVE-2024-0001+"},
		{name: "below a heading", text: "CVE-2024-0001", under: []string{"New upstream version, with fixes for regressions and for security issues:"}, want: "CVE-2024-0001"},

		{name: "no id", text: "Fix a heap overflow"},
		{name: "no number", text: "Fix CVE-2024-XXXX and CVE-24-0001 and CVE-2024-001"},
		{name: "regression of a fix", text: "fix regression of CVE-2024-0001 with sockets"},
		{name: "patch that mends a fix", text: "d/p/fix-CVE-2024-0001-regression.patch: bring back what it broke"},
		{name: "regression told at the end", text: "Relax a check (CVE-2024-0001). It caused a regression"},
		{name: "taken back", text: "Revert the patch for CVE-2024-0001, which breaks readers"},
		{name: "reopened", text: "Drop the patch (reopens: #1000001, CVE-2024-0001)"},
		{name: "not affected", text: "CVE-2024-0001: not affected, the code is not built"},
		{name: "does not affect", text: "CVE-2024-0001 does not affect this version"},
		{name: "already fixed", text: "CVE-2024-0001, 8000001: Already fixed in November"},
		{name: "a mitigation", text: "Do less for others, mitigating the impact of CVE-2024-0001"},
		{name: "a test", text: "Backport test for CVE-2024-0001"},
		{name: "another package's fix", text: "Do not ask for addresses (fixes FTBFS after python's fix for CVE-2024-0001)."},
		{name: "the fix as the subject", text: "The fix for CVE-2024-0001 was too strict and refused good input."},
		{name: "patch that went upstream", text: "any/local-CVE-2024-0001.patch: upstreamed."},
		{name: "work on a patch", text: "Refresh d/p/CVE-2024-0001.patch"},
		{name: "amended", text: "Amend d/p/CVE-2024-0001.patch to follow the original"},
		{name: "mention", text: "Build with the old reader, see CVE-2024-0001"},
		{name: "history", text: "Names could bring in commands. (Without the fix above they still could.) CVE-2024-0001 mended this once, but it came back."},
		{name: "patches that are dropped", text: "Drop the patches for CVE-2024-0001, which upstream has"},
		{name: "cause", text: "d/symbols: Drop a symbol, gone due to CVE-2024-0001"},
		{name: "below a heading that denies", text: "CVE-2024-0001", under: []string{"These do not affect bookworm, as the code is newer:"}},
		{name: "below tests", text: "CVE-2024-0001", under: []string{"New upstream version", "Add tests for:"}},
	} {
		var got []string
		for _, claim := range (item{c.text, c.under}).claims() {
			if claim.completes {
				claim.cve += "+"
			}
			got = append(got, claim.cve)
		}
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s: %q: -want +got:\n%s", c.name, c.text, diff)
		}
	}
}

const sample = `tool (2.0-1+deb12u3) bookworm; urgency=medium

  * The fix of CVE-2024-0001 in the update before was for half of it: complete the fix
    for good. (CVE-2024-0001)

 -- A Person <a@example.com>  Mon, 01 Apr 2024 10:00:00 +0200

tool (2.0-1+deb12u2) bookworm-security; urgency=high

  * Fix regression of CVE-2024-0002

 -- A Person <a@example.com>  Fri, 01 Mar 2024 23:30:00 -0100

tool (2.0-1+deb12u1) bookworm-security; urgency=high

  [ A Person ]
  * Security fixes:
    - CVE-2024-0001: a long
      description.
    - CVE-2024-0002.
  * Not for us:
    .
    CVE-2024-0003 is not affected, says upstream.

 -- A Person <a@example.com>  Thu,  1 Feb 2024 10:00:00 +0000

tool (2.0-1) unstable; urgency=medium

  * New upstream version. Fixes CVE-2023-0005.

 -- A Person <a@example.com>  Sun, 01 Jan 2023 10:00:00 +0000

tool (1.0-1) unstable; urgency=medium

  * Fix CVE-2022-0001

 -- A Person <a@example.com>  Sat, 01 Jan 2022 10:00:00 +0000

Old Changelog:
Sat Jan  1 1994  A Person

	* written
`

func day(t *testing.T, s string) time.Time {
	t.Helper()
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func bookworm(t *testing.T) release {
	t.Helper()
	r, err := findRelease("12")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fixesOf(t *testing.T, text string, review []correction) map[string]string {
	t.Helper()
	entries, err := readChangelog(strings.NewReader(text), day(t, "2023-01-01"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range bookworm(t).fixes(entries, review) {
		got[f.cve] = f.version + " " + f.date.Format(time.RFC3339)
	}
	return got
}

func TestFixes(t *testing.T) {
	want := map[string]string{
		"CVE-2024-0001": "2.0-1+deb12u3 2024-04-01T08:00:00Z",
		"CVE-2024-0002": "2.0-1+deb12u1 2024-02-01T10:00:00Z",
		"CVE-2023-0005": "2.0-1 2023-01-01T10:00:00Z",
	}
	if diff := cmp.Diff(want, fixesOf(t, sample, nil)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	review := []correction{
		{word: reviewComplete, source: "tool", version: "2.0-1", cve: "CVE-2023-0005"},
		{word: reviewOmit, source: "tool", version: "2.0-1+deb12u1", cve: "CVE-2024-0002"},
	}
	delete(want, "CVE-2024-0002")
	if diff := cmp.Diff(want, fixesOf(t, sample, review)); diff != "" {
		t.Errorf("with corrections: -want +got:\n%s", diff)
	}
	if !review[0].used || !review[1].used {
		t.Errorf("corrections %+v were not marked as used", review)
	}
}

// changes makes a changelog of entries "VERSION SUITE DAY CVE", newest first.
func changes(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		w := strings.Fields(l)
		date, err := time.Parse(time.DateOnly, w[2])
		if err != nil {
			panic(err)
		}
		b.WriteString("tool (" + w[0] + ") " + w[1] + "; urgency=low\n\n  * Fix " + w[3] + "\n\n -- A <a@example.com>  " + date.Format(time.RFC1123Z) + "\n\n")
	}
	return b.String()
}

func TestArrival(t *testing.T) {
	for _, c := range []struct {
		name, text, want string // the version that CVE-2024-0001 was fixed in, "" when none is known
	}{
		{"in the release", changes("1-2 unstable 2023-05-01 CVE-2024-0001"), "1-2"},
		{"in the release, updated since", changes("1-2+deb12u1 bookworm 2024-01-01 CVE-2024-0002", "1-2 unstable 2023-05-01 CVE-2024-0001"), "1-2"},
		{"rebuilt for the release", changes("2-1~deb12u1 bookworm-security 2024-01-02 CVE-2024-0002", "2-1 unstable 2024-01-01 CVE-2024-0001"), "2-1~deb12u1"},
		{"rebuilt for another release", changes("2-1~deb11u1 bullseye-security 2024-01-02 CVE-2024-0002", "2-1 unstable 2024-01-01 CVE-2024-0001"), ""},
		{"rebuilt with the number of another release", changes("2-1~deb11u1 bookworm-security 2024-01-02 CVE-2024-0002", "2-1 unstable 2024-01-01 CVE-2024-0001"), ""},
		{"some version after it came", changes("3-1~deb12u1 bookworm-security 2024-01-02 CVE-2024-0002", "3-1 unstable 2024-01-02 CVE-2024-0003", "2-1 unstable 2024-01-01 CVE-2024-0001"), ""},
		{"not in the release", changes("2-1 unstable 2024-01-01 CVE-2024-0001"), ""},
		{"in a suite whose name begins alike", changes("2-1 bookworm-backports 2024-01-01 CVE-2024-0001"), ""},
		{"newer than the release's next version", changes("1-2+deb12u1 bookworm 2024-01-01 CVE-2024-0002", "2-1 unstable 2023-05-01 CVE-2024-0001"), ""},
		{"in an update that was proposed", changes("1-2+deb12u1 bookworm-proposed-updates 2024-01-01 CVE-2024-0001"), "1-2+deb12u1"},
		{"first in the release", changes("1-2+deb12u2 bookworm 2024-02-01 CVE-2024-0001", "1-2+deb12u1 bookworm 2024-01-01 CVE-2024-0001"), "1-2+deb12u1"},
	} {
		got, _, _ := strings.Cut(fixesOf(t, c.text, nil)["CVE-2024-0001"], " ")
		if got != c.want {
			t.Errorf("%s: fixed in %q; want %q", c.name, got, c.want)
		}
	}
}

func TestChangelogRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"not a changelog":        "hello\n",
		"no version":             "tool () bookworm; urgency=low\n\n -- A <a@example.com>  Thu, 01 Feb 2024 10:00:00 +0000\n",
		"no date":                "tool (1) bookworm; urgency=low\n\n -- A <a@example.com>  soon\n",
		"no end":                 "tool (1) bookworm; urgency=low\n\n  * Fix CVE-2024-0001\n",
		"heading within":         "tool (1) bookworm; urgency=low\ntool (2) bookworm; urgency=low\n",
		"end without heading":    " -- A <a@example.com>  Thu, 01 Feb 2024 10:00:00 +0000\n",
		"text before everything": "  * Fix CVE-2024-0001\n",
	} {
		if e, err := readChangelog(strings.NewReader(text), day(t, "2023-01-01")); !errors.Is(err, errChangelog) {
			t.Errorf("%s: %+v, %v; want %v", name, e, err, errChangelog)
		}
	}
}

func TestChangelogs(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	put(t, in, "a", changes("1-2+deb12u1 bookworm 2024-02-01 CVE-2024-0001"))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte(strings.ReplaceAll(changes("7-2+deb12u1 bookworm 2024-01-01 CVE-2024-0001"), "tool", "libtool"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, in, "b.gz", z.String())
	args := []string{"-out", out, "-changelogs", in, "-release", "12", "-review", put(t, dir, "review", "# nothing\n")}
	for range 2 {
		if err := run(args, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
	}
	got := files(t, out)
	if len(got) != 1 {
		t.Fatalf("records %v; want DEBIAN-CVE-2024-0001 alone", got)
	}
	for _, want := range []string{
		`"published": "2024-01-01T00:00:00Z"`, `"modified": "2024-02-01T00:00:00Z"`, `"upstream": [` + "\n  " + `"CVE-2024-0001"`,
		`"name": "libtool"`, `"fixed": "7-2+deb12u1"`, `"name": "tool"`, `"fixed": "1-2+deb12u1"`, `"ecosystem": "Debian:12"`,
	} {
		if !strings.Contains(got["DEBIAN-CVE-2024-0001.json"], want) {
			t.Errorf("%s is not in\n%s", want, got["DEBIAN-CVE-2024-0001.json"])
		}
	}
	for name, text := range map[string]string{
		"stale":     "omit tool 1-1 CVE-2024-0001 # no such version\n",
		"no reason": "omit tool 1-2+deb12u1 CVE-2024-0001\n",
		"no word":   "drop tool 1-2+deb12u1 CVE-2024-0001 # in doubt\n",
	} {
		args[len(args)-1] = put(t, dir, "review", text)
		if err := run(args, new(bytes.Buffer)); err == nil {
			t.Errorf("%s: the correction %q was accepted", name, text)
		}
	}
	put(t, in, "c.gz", "not gzip")
	if err := run(args[:len(args)-2], new(bytes.Buffer)); err == nil {
		t.Error("a damaged changelog was accepted")
	}
}

func FuzzChangelog(f *testing.F) {
	f.Add(sample)
	f.Add(changes("2-1~deb12u1 bookworm-security 2024-01-02 CVE-2024-0002", "2-1 unstable 2024-01-01 CVE-2024-0001"))
	f.Add("tool (1) bookworm; urgency=low\n\n  * (CVE-2024-0001 [CVE-2024-0002)\n  *  CVE-\n\n -- A <a@example.com>  Thu, 01 Feb 2024 10:00:00 +0000\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := readChangelog(strings.NewReader(text), day(t, "2023-01-01"))
		if err != nil {
			return
		}
		for _, fix := range bookworm(t).fixes(entries, nil) {
			if ids := findIDs(fix.cve); len(ids) != 1 || ids[0].cve != fix.cve || !strings.Contains(text, fix.cve) || !strings.Contains(text, fix.version) {
				t.Errorf("fix %+v is not in the changelog", fix)
			}
		}
	})
}
