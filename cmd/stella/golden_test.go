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
	home := ts.Getenv("STELLA_HOME")
	ts.Check(os.RemoveAll(home))
	var last time.Time
	ts.Check(unpackSite(filepath.Join(ts.Getenv("FIXTURES"), "..", "sites", args[0]+".tar.zst"), home, &last))
	ts.Setenv("CLOCK_SHIFT", time.Until(last.Add(time.Minute)).Round(time.Second).String())
}

// unpackSite makes a home of an archive, and says when the last of it was written.
func unpackSite(archive, home string, last *time.Time) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), "site")
		to := filepath.Join(home, filepath.FromSlash(name))
		mode := h.FileInfo().Mode().Perm()
		if h.ModTime.After(*last) {
			*last = h.ModTime
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = errors.Join(os.Mkdir(to, 0o700), os.Chmod(to, mode|0o700))
		case tar.TypeReg:
			var raw []byte
			if raw, err = io.ReadAll(r); err == nil {
				err = errors.Join(os.WriteFile(to, raw, 0o600), os.Chmod(to, mode))
			}
		default:
			err = errors.New(h.Name + " is neither a file nor a folder")
		}
		if err != nil {
			return err
		}
	}
}
