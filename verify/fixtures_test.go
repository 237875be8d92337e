package verify_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

func TestEachFixtureHasItsOutcome(t *testing.T) {
	trusts, place := loadTrusts(), spool(t)
	for _, f := range fixtures() {
		t.Run(f.Name, func(t *testing.T) {
			res, err := verify.Check(bytes.NewReader(f.Raw), trusts[f.Trust], f.Options(place), nil)
			if got := outcome(res, err); got != f.Expect {
				t.Fatalf("%s: %v, want %s", got, err, f.Expect)
			}
			if want := bundle.Digest(f.Raw[:res.FileBytes]); res.FileSHA256 != want {
				t.Errorf("the digest of %d bytes is %s, want %s", res.FileBytes, res.FileSHA256, want)
			}
			if (err == nil) != (res.Verdict != nil) || err == nil && res.FileBytes != int64(len(f.Raw)) {
				t.Errorf("verdict %v, %d of %d bytes read, error %v", res.Verdict, res.FileBytes, len(f.Raw), err)
			}
		})
	}
}

// TestEveryReasonHasAFixture: and every fixture has a reason that exists.
func TestEveryReasonHasAFixture(t *testing.T) {
	have := map[string]bool{}
	names := map[string]bool{}
	for _, f := range fixtures() {
		have[f.Expect] = true
		if names[f.Name] {
			t.Errorf("two fixtures are called %s", f.Name)
		}
		names[f.Name] = true
	}
	known := map[string]bool{verifytest.ExpectAdmit: true, verifytest.ExpectAudit: true}
	for _, r := range verify.Reasons() {
		known[string(r.Reason)] = true
		// Reasons of single files have no bundle: blob_test.go.
		if !have[string(r.Reason)] && r.Stage != verify.StageBlob {
			t.Errorf("no fixture for %s", r.Reason)
		}
	}
	for expect := range have {
		if !known[expect] {
			t.Errorf("a fixture expects %s, which is no reason", expect)
		}
	}
}

// TestTheFixturesOnDiskAreThese compares testdata/bundles with what its
// generator makes now.
func TestTheFixturesOnDiskAreThese(t *testing.T) {
	tree, dir := verifytest.Tree(), os.DirFS("../testdata/bundles")
	for name, want := range tree {
		got, err := fs.ReadFile(dir, name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs (%v): go run ./testdata/bundles/gen", name, err)
		}
	}
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name == "gen" {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() && tree[name] == nil {
			t.Errorf("%s is not made by the generator", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReasonsAreDocumentedOnce compares the table with the constants.
func TestReasonsAreDocumentedOnce(t *testing.T) {
	declared := map[string]bool{}
	for _, file := range []string{"reason.go", "../bundle/reason.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Reason" {
				return true
			}
			value := spec.Values[0].(*ast.BasicLit).Value
			if declared[value] {
				t.Errorf("%s is declared twice", value)
			}
			declared[value] = true
			return true
		})
	}
	stages := []verify.Stage{verify.StageContainer, verify.StageSignatures, verify.StageManifest, verify.StagePolicy, verify.StageAttestations, verify.StageBlobs, verify.StageTrust, verify.StageBlob}
	at := 0
	for _, r := range verify.Reasons() {
		value := `"` + string(r.Reason) + `"`
		if !declared[value] {
			t.Errorf("%s is listed twice, or not declared", value)
		}
		delete(declared, value)
		if r.Doc == "" || r.Hint == "" {
			t.Errorf("%s lacks doc or hint", value)
		}
		for at < len(stages) && stages[at] != r.Stage {
			at++
		}
		if at == len(stages) {
			t.Errorf("%s is out of the order of stages", value)
		}
	}
	delete(declared, `"`+string(verify.ExtensionInvalid)+`"`) // no bundle is refused for it
	for value := range declared {
		t.Errorf("%s is not listed", value)
	}
}
