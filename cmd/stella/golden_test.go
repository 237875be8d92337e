package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdGolden puts a site of testdata/sites in the place of $STELLA_HOME, and sets the
// clock to the minute after which it was left: what trust says of time still holds.
func cmdGolden(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: golden name")
	}
	f, err := os.Open(filepath.Join(ts.Getenv("FIXTURES"), "..", "sites", args[0]+".tar.zst"))
	ts.Check(err)
	defer f.Close()
	z, err := zstd.NewReader(f)
	ts.Check(err)
	defer z.Close()
	home := ts.Getenv("STELLA_HOME")
	ts.Check(os.RemoveAll(home))
	var last time.Time
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		ts.Check(err)
		name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), "site")
		to := filepath.Join(home, filepath.FromSlash(name))
		mode := h.FileInfo().Mode().Perm()
		if h.ModTime.After(last) {
			last = h.ModTime
		}
		switch h.Typeflag {
		case tar.TypeDir:
			ts.Check(os.Mkdir(to, 0o700))
			ts.Check(os.Chmod(to, mode|0o700))
		case tar.TypeReg:
			raw, err := io.ReadAll(r)
			ts.Check(err)
			ts.Check(os.WriteFile(to, raw, 0o600))
			ts.Check(os.Chmod(to, mode))
		default:
			ts.Fatalf("%s is neither a file nor a folder", h.Name)
		}
	}
	ts.Setenv("CLOCK_SHIFT", time.Until(last.Add(time.Minute)).Round(time.Second).String())
}
