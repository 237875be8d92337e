package export_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
)

// What a forger writes into the manifest is compared with what it describes.
func TestManifestsThatLieAreFound(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(4, 20))
	for name, edit := range map[string]func(m *export.Manifest){
		"another schema":           func(m *export.Manifest) { m.Schema = "stella.archive/2" },
		"no origin":                func(m *export.Manifest) { m.Origin = "" },
		"a window backwards":       func(m *export.Manifest) { m.Window = window(20, 4) },
		"no time":                  func(m *export.Manifest) { m.Window.From = "yesterday" },
		"a negative count":         func(m *export.Manifest) { m.Ledger.Count = -1 },
		"a huge count":             func(m *export.Manifest) { m.Ledger.Count = 1 << 40 },
		"a window beyond the tree": func(m *export.Manifest) { m.Ledger.FirstSeq = 1 << 52 },
		"no root":                  func(m *export.Manifest) { m.Ledger.Root = "" },
		"a file too few":           func(m *export.Manifest) { m.Files = m.Files[1:] },
		"a file twice":             func(m *export.Manifest) { m.Files = append(m.Files, m.Files[len(m.Files)-1]) },
		"another size":             func(m *export.Manifest) { m.Files[0].Bytes++ },
		"another digest":           func(m *export.Manifest) { m.Files[len(m.Files)-1].SHA256 = strings.Repeat("0", 64) },
		"another media type":       func(m *export.Manifest) { m.Files[0].MediaType = "text/html" },
		"a path outside":           func(m *export.Manifest) { m.Files[0].Path = "../x" },
		"no list of the withheld":  func(m *export.Manifest) { m.Withheld = nil },
		"withheld without reason":  func(m *export.Manifest) { m.Withheld = []export.Withheld{{What: "data", Seq: 5}} },
		"withheld of a new kind":   func(m *export.Manifest) { m.Withheld = []export.Withheld{{What: "x", Seq: 5, Reason: "x"}} },
		"withheld twice": func(m *export.Manifest) {
			m.Withheld = []export.Withheld{{What: "data", Seq: 5, Reason: "x"}, {What: "data", Seq: 5, Reason: "x"}}
		},
		"dropped is not said": func(m *export.Manifest) { m.Dropped = nil },
		"a bad policy digest": func(m *export.Manifest) { m.RedactionPolicySHA256 = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, original)
			k.describe()
			edit(&k.manifest)
			k.set("manifest.json", k.manifest)
			to := k.manifest.Window.To
			k.manifest.Window.To = second(20) // of the tar's times
			r := check(t, k.pack(k.sign()), s.auditor())
			k.manifest.Window.To = to
			if diff := cmp.Diff([]string{"manifest"}, failed(r)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s%s", diff, explain(r))
			}
		})
	}
}

// Sizes and counts of compressed files are the manifest's, not the decoder's.
func TestContentIsComparedWithTheManifest(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(4, 20))
	at := func(m *export.Manifest, path string) *export.File {
		i := slices.IndexFunc(m.Files, func(f export.File) bool { return f.Path == path })
		return &m.Files[i]
	}
	for name, edit := range map[string]func(m *export.Manifest){
		"a record fewer": func(m *export.Manifest) { *at(m, envelopes).Records-- },
		"a byte fewer":   func(m *export.Manifest) { *at(m, envelopes).UncompressedBytes-- },
		"a byte more":    func(m *export.Manifest) { *at(m, envelopes).UncompressedBytes++ },
		"another digest": func(m *export.Manifest) { at(m, envelopes).UncompressedSHA256 = strings.Repeat("0", 64) },
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, original)
			k.describe()
			edit(&k.manifest)
			k.set("manifest.json", k.manifest)
			r := check(t, k.pack(k.sign()), s.auditor())
			if diff := cmp.Diff([]string{"content"}, failed(r)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s%s", diff, explain(r))
			}
		})
	}
}
