package manifests_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stellarun/stella/manifests"
)

// seeds adds the samples of folders. A folder without samples fails.
func seeds(f *testing.F, folders ...string) {
	f.Helper()
	for _, folder := range folders {
		for _, raw := range samples(f, folder) {
			f.Add(raw)
		}
	}
}

// fuzzLanguage checks that what a parser accepts is written and read again
// without a change, and that what it refuses is refused with faults.
func fuzzLanguage(f *testing.F, name string, more ...string) {
	l := lang(name)
	seeds(f, append(more, name)...)
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := l.parse("f", raw)
		if err != nil {
			checkFaults(t, err)
			if v != nil {
				t.Fatal("a value came along with faults")
			}
			return
		}
		fixedPoint(t, l, v)
	})
}

func fixedPoint(t fataler, l language, v any) {
	t.Helper()
	raw := l.encode(v)
	again, err := l.parse("f", raw)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, raw)
	}
	if diff := cmp.Diff(v, again, cmpopts.IgnoreFields(manifests.Step{}, "Line", "Lines"), cmpopts.IgnoreFields(manifests.DAG{}, "Lines")); diff != "" {
		t.Fatalf("changed by writing and reading (-before +after):\n%s\n%s", diff, raw)
	}
	if twice := l.encode(again); string(twice) != string(raw) {
		t.Fatalf("writing it again gives\n%s\nnot\n%s", twice, raw)
	}
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func checkFaults(t fataler, err error) {
	t.Helper()
	var faults manifests.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("error is %T: %v", err, err)
	}
	last := 0
	for i, x := range faults {
		switch {
		case x.File != "f" || x.Text == "" || x.Line < 0:
			t.Fatalf("fault %d is incomplete: %#v", i, x)
		case strings.ContainsFunc(x.String(), func(c rune) bool { return c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0x202e }):
			t.Fatalf("fault %d would write control characters: %q", i, x)
		case strings.HasSuffix(x.Text, "more faults are not shown"):
		case x.Line < last:
			t.Fatalf("fault %d is out of order: %v", i, faults)
		}
		last = x.Line
	}
}

func FuzzBundle(f *testing.F)      { fuzzLanguage(f, "bundle") }
func FuzzSource(f *testing.F)      { fuzzLanguage(f, "source", "bundle") }
func FuzzDAG(f *testing.F)         { fuzzLanguage(f, "dag") }
func FuzzRoot(f *testing.F)        { fuzzLanguage(f, "root") }
func FuzzPolicy(f *testing.F)      { fuzzLanguage(f, "policy") }
func FuzzRevocations(f *testing.F) { fuzzLanguage(f, "revocations") }
func FuzzSite(f *testing.F)        { fuzzLanguage(f, "site") }

// FuzzScan compares the scan with the parser: of what both accept they see the
// same keys.
func FuzzScan(f *testing.F) {
	seeds(f, "scan", "bundle", "dag", "policy", "site")
	f.Fuzz(func(t *testing.T, raw []byte) { compare(t, raw) })
}

// TestSamplesAreAccepted goes through the seeds: each is right in its language.
func TestSamplesAreAccepted(t *testing.T) {
	for _, l := range languages() {
		for name, raw := range samples(t, l.name) {
			v, err := l.parse(name, raw)
			if err != nil {
				t.Errorf("%s: %v", l.name, err)
				continue
			}
			fixedPoint(t, l, v)
			if !compare(t, raw) {
				t.Errorf("%s %s: not compared", l.name, name)
			}
		}
	}
	both := 0
	for _, raw := range samples(t, "scan") {
		if compare(t, raw) {
			both++
		}
	}
	if both < 3 {
		t.Errorf("only %d samples of the scan were compared", both)
	}
}

// TestManifestsOfBundlesAreNotSources holds the two forms apart.
func TestManifestsOfBundlesAreNotSources(t *testing.T) {
	for name, raw := range samples(t, "bundle") {
		_, err := manifests.ParseSource("f", raw)
		got := faultLines(t, err)
		got = slices.DeleteFunc(got, func(s string) bool {
			return strings.Contains(s, "does not stand in a source folder's manifest (packing writes it; take it out)")
		})
		if len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzExtension(f *testing.F) { fuzzLanguage(f, "extension") }
