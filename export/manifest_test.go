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
		"files out of order":       func(m *export.Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] },
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

// Where data is withheld nothing folds, and the order of a run's entries and
// whose they are must be looked at all the same.
func TestForgedRunsThatDoNotFold(t *testing.T) {
	s := busySite(t)
	s.entries[7].Data, s.entries[7].Withheld = nil, "erased"
	event := func(seq int) string {
		return `{"data":` + string(s.entries[seq].Data) + `,"envelope":` + string(s.entries[seq].Envelope) + `}`
	}
	for name, forge := range map[string]func(k *kit){
		"nothing":                            nil,
		"two entries exchanged":              func(k *kit) { k.replace(runs, event(4)+","+event(5), event(5)+","+event(4)) },
		"an entry twice":                     func(k *kit) { k.replace(runs, event(4), event(4)+","+event(4)) },
		"an entry of another run":            func(k *kit) { k.replace(runs, event(11), event(10)+","+event(11)) },
		"an entry behind the window":         func(k *kit) { k.replace(runs, event(14), event(14)+","+event(20)) },
		"a place holder with another reason": func(k *kit) { k.replace(runs, `"erased"`, `"lost"`) },
		"run and steps made up":              func(k *kit) { k.replace(runs, `],"runId":"`+runA, `],"run":{},"runId":"`+runA) },
	} {
		k := takeApart(t, s, s.archive(window(4, 20)))
		if forge == nil {
			forge = func(*kit) {}
		}
		forge(k)
		r := check(t, k.pack(k.assemble()), s.auditor())
		if got := failed(r); name == "nothing" && r.Verdict != export.Incomplete || name != "nothing" && (len(got) == 0 || got[0] != "runs") {
			t.Errorf("%s: failed %v\n%s", name, got, explain(r))
		}
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
