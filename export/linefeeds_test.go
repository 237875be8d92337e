package export_test

import (
	"bytes"
	"testing"

	"github.com/stellarun/stella/export"
)

// What a manifest does not count is there nevertheless: both see it.
func TestBothSeeBytesThatNoManifestCounts(t *testing.T) {
	s := busySite(t)
	for _, path := range []string{envelopes, data, runs, logs, metrics, traces} {
		for name, edit := range map[string]func(k *kit, f *export.File){
			"an empty line before the first": func(k *kit, f *export.File) { *f.Records--; *f.UncompressedBytes-- },
			"an empty line, counted":         func(k *kit, f *export.File) {},
			"bytes behind the last line feed": func(k *kit, f *export.File) {
				k.files[path] = append(k.files[path][1:], `{"runId":"0190b0a0-0000-7000-8000-00000000000f"}`...)
				size := bytes.LastIndexByte(k.files[path], '\n') + 1
				*f.Records, *f.UncompressedBytes = int64(bytes.Count(k.files[path], []byte("\n"))), int64(size)
				f.UncompressedSHA256 = digest(k.files[path][:size+1])
			},
		} {
			k := takeApart(t, s, s.archive(window(4, 20)))
			k.files[path] = append([]byte("\n"), k.files[path]...)
			k.describe()
			for i := range k.manifest.Files {
				if f := &k.manifest.Files[i]; f.Path == path {
					edit(k, f)
					packed := zstdFrame(t, k.files[path])
					f.Bytes, f.SHA256 = int64(len(packed)), digest(packed)
				}
			}
			k.set("manifest.json", k.manifest)
			if r := check(t, k.pack(k.sign()), s.auditor()); r.Verdict != export.Failed {
				t.Errorf("%s of %s: %s", name, path, explain(r))
			}
		}
	}
}
