package manifests_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stellarun/stella/manifests"
)

// A language is one of the files, for tests that go through all of them.
type language struct {
	name   string // folder of its samples
	schema string
	most   int
	parse  func(file string, raw []byte) (any, error)
	encode func(v any) []byte
}

func of[T any](name, schema string, parse func(string, []byte) (*T, error), encode func(*T) []byte) language {
	return language{
		name: name, schema: schema, most: manifests.MaxBytes,
		parse: func(file string, raw []byte) (any, error) {
			v, err := parse(file, raw)
			if v == nil {
				return nil, err
			}
			return v, err
		},
		encode: func(v any) []byte { return encode(v.(*T)) },
	}
}

func languages() []language {
	all := []language{
		of("bundle", manifests.BundleSchema, manifests.ParseBundle, manifests.EncodeBundle),
		of("source", manifests.BundleSchema, manifests.ParseSource, manifests.EncodeBundle),
		of("dag", manifests.DAGSchema, manifests.ParseDAG, manifests.EncodeDAG),
		of("root", manifests.RootSchema, manifests.ParseRoot, manifests.EncodeRoot),
		of("policy", manifests.PolicySchema, manifests.ParsePolicy, manifests.EncodePolicy),
		of("revocations", manifests.RevocationsSchema, manifests.ParseRevocations, manifests.EncodeRevocations),
		of("extension", manifests.ExtensionSchema, manifests.ParseExtension, manifests.EncodeExtension),
		of("site", manifests.SiteSchema, manifests.ParseSite, manifests.EncodeSite),
	}
	all[len(all)-1].most = manifests.MaxSiteBytes
	return all
}

func lang(name string) language {
	for _, l := range languages() {
		if l.name == name {
			return l
		}
	}
	panic("no language " + name)
}

// samples returns the files of a folder of testdata by their names.
func samples(t testing.TB, folder string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples in testdata/%s: %v", folder, err)
	}
	all := map[string][]byte{}
	for _, p := range paths {
		if all[filepath.Base(p)], err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func sample(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// A faultCase changes a sample and says all that is then wrong with it.
type faultCase struct {
	name string // a sentence
	edit string // what is replaced: "old => new", several on lines of their own
	want string // the faults, one a line, without the file
}

// runFaults checks cases against a sample that is right before it is changed.
func runFaults(t *testing.T, l language, path string, cases []faultCase) {
	t.Helper()
	base := sample(t, path)
	if _, err := l.parse("f", []byte(base)); err != nil {
		t.Fatalf("the sample itself: %v", err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			raw := applyEdits(t, base, c.edit)
			v, err := l.parse("f", []byte(raw))
			if diff := cmp.Diff(lines(c.want), faultLines(t, err)); diff != "" {
				t.Errorf("%s\n(-want +got)\n%s", c.edit, diff)
			}
			if v != nil {
				t.Errorf("a value came back along with the faults: %v", v)
			}
		})
	}
}

// applyEdits replaces in text. In an edit ⏎ is a line feed and {p256-a} the key
// of that name; an old text must stand in the sample exactly once.
func applyEdits(t *testing.T, text, edits string) string {
	t.Helper()
	replace := []string{"⏎", "\n"}
	for name, pem := range samples(t, "keys") {
		replace = append(replace, "{"+strings.TrimSuffix(name, ".pem")+"}", string(pem))
	}
	expand := strings.NewReplacer(replace...).Replace
	for _, e := range lines(edits) {
		from, to, ok := strings.Cut(e, " => ")
		if !ok {
			if from, ok = strings.CutSuffix(e, " =>"); !ok {
				t.Fatalf("edit without an arrow: %s", e)
			}
		}
		from, to = expand(from), expand(to)
		if n := strings.Count(text, from); n != 1 {
			t.Fatalf("%q stands in the sample %d times", from, n)
		}
		text = strings.Replace(text, from, to, 1)
	}
	return text
}

func lines(s string) []string {
	var all []string
	for l := range strings.SplitSeq(s, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			all = append(all, l)
		}
	}
	return all
}

// faultLines returns the faults of an error as text without the file.
func faultLines(t *testing.T, err error) []string {
	t.Helper()
	var faults manifests.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error is %T (%v), want Faults", err, err)
	}
	var all []string
	for _, f := range faults {
		if f.File != "f" {
			t.Errorf("fault names file %q", f.File)
		}
		all = append(all, strings.TrimPrefix(strings.TrimPrefix(f.String(), "f:"), " "))
	}
	return all
}
