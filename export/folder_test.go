package export_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/stellarun/stella/export"
)

// folderFile encrypts what fill writes, to a key of its own.
func folderFile(t *testing.T, fill func(w *bytes.Buffer)) (path string, identity []byte) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var plain, sealed bytes.Buffer
	fill(&plain)
	w, err := export.Encrypt(&sealed, []string{id.Recipient().String()})
	if err == nil {
		_, err = w.Write(plain.Bytes())
	}
	if err == nil {
		err = w.Close()
	}
	path = filepath.Join(t.TempDir(), "x.tar.age")
	if err = errors.Join(err, os.WriteFile(path, sealed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path, []byte(id.String())
}

func members(t *testing.T, headers ...tar.Header) func(*bytes.Buffer) {
	return func(b *bytes.Buffer) {
		w := tar.NewWriter(b)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// sparse is a file that says to have a million bytes and stores none of them (the form 1.0 of
// GNU tar in PAX records).
func sparse(b *bytes.Buffer) {
	var records string
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=big", "GNU.sparse.realsize=1000000"} {
		n := len(kv) + 3
		if n += len(fmt.Sprint(n)) - 1; len(fmt.Sprintf("%d %s\n", n, kv)) != n {
			n = len(fmt.Sprintf("%d %s\n", n, kv))
		}
		records += fmt.Sprintf("%d %s\n", n, kv)
	}
	block := func(kind byte, body string) {
		var h [512]byte
		copy(h[:], "big")
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", len(body)))
		h[156] = kind
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h[:])
		b.WriteString(body + strings.Repeat("\x00", (512-len(body)%512)%512))
	}
	block('x', records)
	block('0', "1\n1000000\n0\n"+strings.Repeat("\x00", 500))
	b.Write(make([]byte, 1024))
}

func TestAnEncryptedFolderHoldsFilesAlone(t *testing.T) {
	file := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 10, Mode: 0o600}
	}
	for name, c := range map[string]struct {
		fill func(*bytes.Buffer)
		ok   bool
	}{
		"files":                  {members(t, file("a"), file("b/c")), true},
		"out of the folder":      {members(t, file("../a")), false},
		"absolute":               {members(t, file("/a")), false},
		"the folder itself":      {members(t, file(".")), false},
		"not in its shortest":    {members(t, file("a//b")), false},
		"a long name":            {members(t, file(strings.Repeat("n", 300))), false},
		"twice":                  {members(t, file("a"), file("a")), false},
		"a file and a folder":    {members(t, file("a"), file("a/b")), false},
		"a link":                 {members(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc/passwd"}), false},
		"a pipe":                 {members(t, tar.Header{Typeflag: tar.TypeFifo, Name: "a"}), false},
		"more than is stored of": {sparse, false},
	} {
		t.Run(name, func(t *testing.T) {
			path, identity := folderFile(t, c.fill)
			dir := t.TempDir()
			err := export.DecryptFolder(context.Background(), path, identity, dir, nil)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, export.ErrFolder) {
				t.Errorf("%v", err)
			}
			var total int64
			filepath.WalkDir(dir, func(_ string, d fs.DirEntry, _ error) error {
				if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
					total += fi.Size()
				}
				return nil
			})
			if total > 20 {
				t.Errorf("%d bytes were written", total)
			}
		})
	}
}

func TestAFolderIsTheSameAfterItWasEncrypted(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	want := map[string]string{"a": "1", "b/c": strings.Repeat("x", 200_000), "b/d/e": ""}
	for name, text := range want {
		path := filepath.Join(from, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.tar.age")
	f, err := os.Create(path)
	if err == nil {
		err = export.EncryptFolder(context.Background(), f, from, []string{id.Recipient().String()}, nil)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = export.DecryptFolder(context.Background(), path, []byte(id.String()), to, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if raw, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(raw) != text {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
	}
}
