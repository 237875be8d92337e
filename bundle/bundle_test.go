package bundle_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

const created = "2026-11-22T08:00:00.000000000Z"

// mtime is created in seconds.
func mtime(t testing.TB) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339, created)
	if err != nil {
		t.Fatal(err)
	}
	return at.Unix()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// content is one file of a test bundle.
type content struct {
	path     string
	data     []byte
	stored   []byte // with an encoding
	size     int64  // signed, where it differs from len(data)
	sha256   string // signed, where it differs from that of data
	noEntry  bool
	noPrefix bool
}

func (c content) name() string {
	if c.stored != nil {
		return "blobs/sha256/" + c.digest() + ".zst"
	}
	return "blobs/sha256/" + c.digest()
}

func (c content) digest() string {
	if c.sha256 != "" {
		return c.sha256
	}
	return digest(c.data)
}

// manifest writes stella.toml for the contents.
func manifest(contents ...content) []byte {
	var b strings.Builder
	files := make([]manifests.File, len(contents))
	for i, c := range contents {
		size := int64(len(c.data))
		if c.size != 0 {
			size = c.size
		}
		files[i] = manifests.File{Path: c.path, SHA256: c.digest(), Size: size, Mode: "0644"}
	}
	fmt.Fprintf(&b, "schema = \"stella.bundle/1\"\nkind = \"data\"\npublisher = \"acme\"\nname = \"acme.list\"\nversion = \"1.0.0\"\nsequence = 1\ncreated = %q\ncontent_digest = %q\n",
		created, manifests.ContentDigest(files))
	b.WriteString("[data]\nmedia_type = \"text/plain\"\n")
	for i, c := range contents {
		f := files[i]
		fmt.Fprintf(&b, "[[file]]\npath = %q\nsha256 = %q\nsize = %d\nmode = \"0644\"\n", f.Path, f.SHA256, f.Size)
		if c.stored != nil {
			fmt.Fprintf(&b, "encoding = \"zstd\"\nstored_sha256 = %q\nstored_size = %d\n", digest(c.stored), len(c.stored))
		}
	}
	return []byte(b.String())
}

// entry is an entry of a test container; archive/tar writes it, so that our
// own idea of USTAR has a second opinion.
type entry struct {
	name string
	data []byte
	edit func(*tar.Header)
}

func container(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.data)), Mode: 0o644,
			ModTime: time.Unix(mtime(t), 0), Format: tar.FormatUSTAR,
		}
		if e.edit != nil {
			e.edit(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blobs are the entries of contents.
func blobs(contents ...content) []entry {
	var out []entry
	for _, c := range contents {
		switch {
		case c.noEntry:
		case c.stored != nil:
			out = append(out, entry{name: c.name(), data: c.stored})
		default:
			out = append(out, entry{name: c.name(), data: c.data})
		}
	}
	return out
}

// plain is a bundle of contents with no signatures.
func plain(t testing.TB, contents ...content) []byte {
	t.Helper()
	return container(t, append([]entry{{name: "stella.toml", data: manifest(contents...)}}, blobs(contents...)...)...)
}

func compress(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(data, nil)
}

// signature is a well-named file of signatures/; the container does not look
// into it.
func signature(i int) entry {
	return entry{name: bundle.SignatureName(fmt.Sprintf("%064x", i)), data: []byte("{}")}
}

func attestation(data string) entry {
	return entry{name: bundle.AttestationName(digest([]byte(data))), data: []byte(data)}
}

// all is what a whole bundle held.
type all struct {
	head         *bundle.Head
	attestations []bundle.Attached
	contents     map[string]string // by digest
	absent       []string
	sha256       string
	bytes        int64
}

func spool(t testing.TB) bundle.Spool {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// readAll reads a bundle to its end.
func readAll(r io.Reader, s bundle.Spool, lim bundle.Limits, have func(string) bool) (*all, error) {
	in := bundle.NewReader(r, lim)
	out := &all{contents: map[string]string{}}
	var err error
	if out.head, err = in.Head(); err != nil {
		return out, err
	}
	m, err := manifests.ParseBundle("stella.toml", out.head.Manifest)
	if err != nil {
		return out, err
	}
	if err := in.Bind(m, have); err != nil {
		return out, err
	}
	for {
		a, err := in.NextAttestation()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
		out.attestations = append(out.attestations, a)
	}
	for {
		b, err := in.NextBlob()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
		var w bytes.Buffer
		if err := b.CopyTo(&w, s); err != nil {
			return out, err
		}
		out.contents[b.SHA256] = w.String()
	}
	out.absent = in.Absent()
	err = in.End()
	out.sha256, out.bytes = in.FileSHA256(), in.Offset()
	return out, err
}

// folder writes a source folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const source = `schema = "stella.bundle/1"
kind = "data"
publisher = "acme"
name = "acme.list"
version = "1.0.0"
sequence = 1
created = "` + created + `"
[data]
media_type = "text/plain"
`

func pack(t testing.TB, dir string, opt bundle.PackOptions) ([]byte, *bundle.Packed) {
	t.Helper()
	var b bytes.Buffer
	p, err := bundle.Pack(dir, &b, opt)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), p
}

// wantReason fails unless err is a FormatError with the reason.
func wantReason(t testing.TB, err error, want bundle.Reason) *bundle.FormatError {
	t.Helper()
	var f *bundle.FormatError
	if !errors.As(err, &f) {
		t.Fatalf("error is %v, want %s", err, want)
	}
	if f.Reason != want {
		t.Fatalf("reason is %s (%v), want %s", f.Reason, err, want)
	}
	return f
}
