package export_test

import (
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// written is busySite with the lines of one entry written by another program.
func written(t *testing.T, n int, edit func(env, line string) (string, string)) *site {
	t.Helper()
	honest, s := busySite(t), newSite(t)
	s.entries, s.hashes = nil, nil
	s.blobs, s.segments = honest.blobs, honest.segments
	for i, e := range honest.entries {
		if i == n {
			env, line := edit(string(e.Envelope), string(e.Data))
			env = strings.Replace(env, digest(e.Data), digest([]byte(line)), 1)
			e.Envelope, e.Data = []byte(env), []byte(line)
		}
		s.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
	}
	s.checkpoint()
	return s
}

// What a newer stella has written is proved as far as lines go, and accuses nobody: neither
// evidence nor output that only its entries name.
func TestBothCallArchivesOfANewerStellaIncomplete(t *testing.T) {
	version := func(env string) string { return strings.Replace(env, `"v":1}`, `"v":2}`, 1) }
	same := func(env, line string) (string, string) { return version(env), line }
	more := func(env, line string) (string, string) {
		return version(env), strings.Replace(line, `{"data":{`, `{"data":{"aNewOne":1,`, 1)
	}
	for name, tc := range map[string]struct {
		entry int
		edit  func(env, line string) (string, string)
		also  func(k *kit)
	}{
		"an unknown type names a sealed file": {2, func(env, line string) (string, string) {
			return strings.Replace(env, "bundle.rejected", "moon.landed", 1), strings.Replace(line, strings.Repeat("f", 64), digest([]byte("new")), 1)
		}, func(k *kit) { k.files["evidence/sha256/"+digest([]byte("new"))] = []byte("new") }},
		"it is withheld, and the unknown type has named it first": {2, func(env, line string) (string, string) {
			return strings.Replace(env, "bundle.rejected", "moon.landed", 1), line
		}, func(k *kit) {
			delete(k.files, "evidence/sha256/"+k.site.blob("plan"))
			k.manifest.Withheld = []export.Withheld{{What: "evidence", Seq: 2, SHA256: k.site.blob("plan"), Reason: "secret"}}
		}},
		"an unknown type of a run": {5, func(env, line string) (string, string) {
			return strings.Replace(env, "step.queued", "step.dreamt", 1), line
		}, nil},
		"a new version":                                {2, same, nil},
		"a new version with a member more":             {2, more, nil},
		"of the end of an attempt, with output":        {7, same, nil},
		"of the end of an attempt, with a member more": {7, more, nil},
		"of the start of a run":                        {4, more, nil},
		"before the window":                            {5, more, nil},
		"of entry 0":                                   {0, more, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := written(t, tc.entry, tc.edit)
			opt := s.auditor()
			w := window(0, 20)
			if name == "before the window" {
				w = window(7, 20)
			}
			raw := boundTo(t, s, w)
			if tc.also != nil {
				k := takeApart(t, s, raw)
				tc.also(k)
				opt.Withheld = int64(len(k.manifest.Withheld))
				raw = k.pack(k.assemble())
			}
			if r := check(t, raw, opt); r.Verdict != export.Incomplete {
				t.Error(explain(r))
			}
		})
	}
}
