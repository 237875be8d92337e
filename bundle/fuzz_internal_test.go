package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/manifests"
)

// FuzzHeader: a header that is accepted is the one that its name, size and time
// have, and other tar readers see the same in it.
func FuzzHeader(f *testing.F) {
	good := header{name: "blobs/sha256/" + strings.Repeat("a", 64), size: 12345, mtime: 1763798400}.encode()
	f.Add(good[:], "stella.toml", int64(1), int64(0))
	for _, at := range []int{0, modeAt, sizeAt, mtimeAt, checksumAt, typeAt, magicAt, prefixAt, block - 1} {
		bad := good
		bad[at] ^= 0x21
		f.Add(bad[:], "a/b", int64(MaxStored), int64(MaxStored))
	}
	f.Fuzz(func(t *testing.T, raw []byte, name string, size, mtime int64) {
		var b [block]byte
		copy(b[:], raw)
		checkHeader(t, &b)
		if size < 0 || size > MaxStored || mtime < 0 || mtime > MaxStored || len(name) > nameEnd || !manifests.ValidPath(name) {
			return
		}
		want := header{name, size, mtime}
		b = want.encode()
		if got, reason, detail := decode(&b); reason != "" || got != want {
			t.Fatalf("%+v was written and read as %+v: %s %s", want, got, reason, detail)
		}
		checkHeader(t, &b)
		b[int(uint(size)%block)] ^= byte(mtime)%255 + 1
		if _, reason, _ := decode(&b); reason == "" {
			t.Fatal("a byte was changed, and nobody noticed")
		}
	})
}

const modeAt = 100

func checkHeader(t *testing.T, b *[block]byte) {
	t.Helper()
	h, reason, detail := decode(b)
	if reason != "" {
		if detail == "" {
			t.Fatalf("%s without a detail", reason)
		}
		return
	}
	if h.encode() != *b || !manifests.ValidPath(h.name) {
		t.Fatalf("%+v was accepted", h)
	}
	theirs, err := tar.NewReader(bytes.NewReader(append(b[:], make([]byte, 2*block)...))).Next()
	if err != nil {
		t.Fatalf("%+v was accepted, and is no tar: %v", h, err)
	}
	if theirs.Name != h.name || theirs.Size != h.size || theirs.ModTime.Unix() != h.mtime || theirs.Typeflag != tar.TypeReg || theirs.Mode != 0o644 {
		t.Fatalf("%+v was accepted, and others see %+v", h, theirs)
	}
}

// FuzzFrame: what is passed on to the decoder is a beginning of what is stored,
// and one whole frame only if that is all there is: one byte less, a byte or a
// frame more is none, and the decoder alone makes the same of it.
func FuzzFrame(f *testing.F) {
	text := bytes.Repeat([]byte("a line of text\n"), 100)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	whole := enc.EncodeAll(text, nil)
	for _, seed := range [][]byte{
		whole, whole[:len(whole)-1], append(bytes.Clone(whole), whole...), append([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), whole...),
		[]byte("\x28\xb5\x2f\xfd\x00\x58\x0b\x00\x00a"), []byte("\x28\xb5\x2f\xfd\x20\x04\x21\x00\x00text"), []byte("\x28\xb5\x2f\xfd\x01\x58\x07\x0b\x00\x00a"),
		{}, []byte("\x28\xb5\x2f\xfd"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		passed, ok := throughFrame(t, raw)
		if !bytes.HasPrefix(raw, passed) {
			t.Fatalf("%x was passed on of %x", passed, raw)
		}
		if !ok {
			return
		}
		if !bytes.Equal(passed, raw) {
			t.Fatalf("a whole frame, but %d of %d bytes were passed on", len(passed), len(raw))
		}
		for name, other := range map[string][]byte{
			"less": raw[:len(raw)-1], "more": append(bytes.Clone(raw), 0), "twice": append(bytes.Clone(raw), raw...),
		} {
			if _, ok := throughFrame(t, other); ok {
				t.Fatalf("%s: a whole frame too", name)
			}
		}
		sameContent(t, raw)
	})
}

func throughFrame(t *testing.T, raw []byte) ([]byte, bool) {
	t.Helper()
	f := &frame{r: bufio.NewReader(bytes.NewReader(raw))}
	passed, err := io.ReadAll(f)
	if (err == nil) != f.whole() || f.broken != nil {
		t.Fatalf("%v, whole %v, broken %v", err, f.whole(), f.broken)
	}
	return passed, f.whole()
}

// sameContent decodes the frame with the check before it, and without.
func sameContent(t *testing.T, raw []byte) {
	t.Helper()
	const most = 1 << 20
	read := func(r io.Reader) ([]byte, error) {
		dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		return io.ReadAll(io.LimitReader(dec, most))
	}
	ours, err1 := read(&frame{r: bufio.NewReader(bytes.NewReader(raw))})
	theirs, err2 := read(bytes.NewReader(raw))
	if (err1 == nil) != (err2 == nil) || err1 == nil && !bytes.Equal(ours, theirs) {
		t.Fatalf("%d bytes (%v) by way of the check, %d (%v) without", len(ours), err1, len(theirs), err2)
	}
}
