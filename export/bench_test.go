package export_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/export"
)

func BenchmarkVerify(b *testing.B) {
	s := busySite(b)
	path := filepath.Join(b.TempDir(), "a.tar")
	if err := os.WriteFile(path, s.archive(window(4, 20)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := export.Verify(context.Background(), path, s.auditor())
		if err != nil || r.Verdict != export.Verified {
			b.Fatal(err, r)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	s := busySite(b)
	b.ReportAllocs()
	for b.Loop() {
		s.archive(window(4, 20))
	}
}
