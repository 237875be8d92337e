package export_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stellarun/stella/export"
)

// FuzzVerify: whatever the bytes, judging ends; only the one archive that the
// site made is ever verified.
func FuzzVerify(f *testing.F) {
	s := busySite(f)
	honest := s.archive(window(13, 15))
	f.Add(honest)
	f.Add(s.archive(window(-2, 0)))
	f.Add(honest[:len(honest)/2])
	f.Add(append(bytes.Clone(honest[:512]), honest[1024:]...))
	made := [][]byte{honest, s.archive(window(-2, 0))}
	opt := s.auditor()
	path := filepath.Join(f.TempDir(), "a.tar")
	f.Fuzz(func(t *testing.T, archive []byte) {
		if err := os.WriteFile(path, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, opt := range []export.VerifyOptions{opt, {}} {
			r, err := export.Verify(context.Background(), path, opt)
			if err != nil {
				t.Fatal(err)
			}
			isOurs := slices.ContainsFunc(made, func(m []byte) bool { return bytes.Equal(m, archive) })
			if (r.Verdict == export.Verified) != (isOurs && opt.SiteKey != nil) {
				t.Fatalf("ours: %v, %s", isOurs, explain(r))
			}
		}
	})
}

// FuzzForgery changes one file of an archive at one place and signs again with
// the site's own keys: everything in the files below follows from the ledger,
// so the change is found.
func FuzzForgery(f *testing.F) {
	s := busySite(f)
	original := s.archive(window(4, 20))
	paths := []string{envelopes, data, runs, note, proofFile, logs, metrics, traces, "keys/log.pub", "keys/site.pub"}
	for i := range paths {
		f.Add(uint8(i), uint16(40), uint8(1), []byte("x"))
		f.Add(uint8(i), uint16(90), uint8(0), []byte("\n"))
		f.Add(uint8(i), uint16(7), uint8(200), []byte{})
	}
	path, opt := filepath.Join(f.TempDir(), "a.tar"), s.auditor()
	f.Fuzz(func(t *testing.T, file uint8, at uint16, cut uint8, put []byte) {
		k := takeApart(t, s, original)
		name := paths[int(file)%len(paths)]
		old := k.files[name]
		from := int(at) % (len(old) + 1)
		to := min(len(old), from+int(cut))
		k.files[name] = slices.Concat(old[:from], put, old[to:])
		if bytes.Equal(k.files[name], old) {
			t.Skip("no change")
		}
		if err := os.WriteFile(path, k.pack(k.assemble()), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := export.Verify(context.Background(), path, opt)
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != export.Failed {
			t.Fatalf("%s: bytes %d to %d became %q: %s", name, from, to, put, explain(r))
		}
	})
}
