package bundle_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// first moves in to its first blob.
func first(t testing.TB, in *bundle.Reader) *bundle.Blob {
	t.Helper()
	head, err := in.Head()
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifests.ParseBundle("stella.toml", head.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Bind(m, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := in.NextAttestation(); !errors.Is(err, io.EOF) {
		t.Fatalf("attestation: %v", err)
	}
	b, err := in.NextBlob()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// drain reads a bundle without attestations and compressed blobs.
func drain(in *bundle.Reader) error {
	head, err := in.Head()
	if err != nil {
		return err
	}
	m, err := manifests.ParseBundle("stella.toml", head.Manifest)
	if err != nil {
		return err
	}
	if err := in.Bind(m, nil); err != nil {
		return err
	}
	if _, err := in.NextAttestation(); !errors.Is(err, io.EOF) {
		return err
	}
	return drainBlobs(in)
}

func drainBlobs(in *bundle.Reader) error {
	for {
		b, err := in.NextBlob()
		if errors.Is(err, io.EOF) {
			return in.End()
		}
		if err != nil {
			return err
		}
		if err := b.CopyTo(io.Discard, nil); err != nil {
			return err
		}
	}
}

func TestStoredFormsThatAreRefused(t *testing.T) {
	text := bytes.Repeat([]byte("text "), 500)
	frame := compress(t, text)
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "skip"...)
	// Its payload, read as the block of a frame, covers the frame that follows.
	disguised := []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}
	disguised = append(disguised, byte(len(frame)<<3|1), byte(len(frame)>>5), byte(len(frame)>>13))
	disguised = append(disguised, frame...)
	half := compress(t, text[:len(text)/2])
	otherHalf := compress(t, text[len(text)/2:])
	zeros := compress(t, make([]byte, 8<<20))
	noChecksum := compress(t, text, zstd.WithEncoderCRC(false))
	wide := compress(t, bytes.Repeat(text, 8000), zstd.WithWindowSize(16<<20))
	reserved := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0}, 7, 0, 0)

	for _, c := range []struct {
		name string
		content
		want bundle.Reason
	}{
		{"two frames", content{data: text, stored: append(bytes.Clone(half), otherHalf...)}, bundle.BlobFrames},
		{"an empty frame after it", content{data: text, stored: append(bytes.Clone(frame), compress(t, nil, zstd.WithZeroFrames(true))...)}, bundle.BlobFrames},
		{"a skippable frame after it", content{data: text, stored: append(bytes.Clone(frame), skippable...)}, bundle.BlobFrames},
		{"a skippable frame before it", content{data: text, stored: append(bytes.Clone(skippable), frame...)}, bundle.BlobFrames},
		{"a skippable frame that looks like a block", content{data: text, stored: disguised}, bundle.BlobFrames},
		{"a byte after it", content{data: text, stored: append(bytes.Clone(frame), 0)}, bundle.BlobFrames},
		{"a byte less", content{data: text, stored: frame[:len(frame)-1]}, bundle.BlobEncoding},
		{"a byte less without a checksum", content{data: text, stored: noChecksum[:len(noChecksum)-1]}, bundle.BlobEncoding},
		{"only a magic number", content{data: text, stored: frame[:4]}, bundle.BlobEncoding},
		{"a wrong checksum", content{data: text, stored: append(bytes.Clone(frame[:len(frame)-1]), frame[len(frame)-1]^1)}, bundle.BlobEncoding},
		{"something else", content{data: text, stored: []byte("plain text")}, bundle.BlobEncoding},
		{"a block of a reserved type", content{data: text, stored: reserved}, bundle.BlobEncoding},
		{"a window above 8 MiB", content{data: bytes.Repeat(text, 8000), stored: wide}, bundle.BlobWindow},
		{"a frame with a dictionary", content{data: text, stored: withDictionary(t, text)}, bundle.BlobDictionary},
		{"a bomb", content{size: 1000, stored: zeros, sha256: digest(make([]byte, 1000))}, bundle.BlobExceeds},
		{"less than signed", content{data: append(bytes.Clone(text), 'x'), stored: frame}, bundle.BlobContent},
		{"other than signed", content{size: int64(len(text)), sha256: digest([]byte("other")), stored: frame}, bundle.BlobContent},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.path = "a.txt"
			var out counted
			in := bundle.NewReader(bytes.NewReader(plain(t, c.content)), bundle.Limits{})
			err := first(t, in).CopyTo(&out, spool(t))
			wantReason(t, err, c.want)
			if limit := max(c.size, int64(len(c.data))) + 1; int64(out) > limit {
				t.Errorf("%d bytes came out, at most %d may", out, limit)
			}
		})
	}
	control := content{path: "a.txt", data: text, stored: noChecksum}
	if _, err := readAll(bytes.NewReader(plain(t, control)), spool(t), bundle.Limits{}, nil); err != nil {
		t.Errorf("a frame without a checksum is refused: %v", err)
	}
}

// counted counts what is written to it.
type counted int64

func (c *counted) Write(p []byte) (int, error) { *c += counted(len(p)); return len(p), nil }

// withDictionary makes a frame whose header names a dictionary.
func withDictionary(t *testing.T, text []byte) []byte {
	t.Helper()
	frame := compress(t, text, zstd.WithSingleSegment(true))
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		t.Fatal(err)
	}
	out := append([]byte{}, frame[:4]...)
	out = append(out, frame[4]|1, 7) // one byte of dictionary id follows the descriptor
	return append(out, frame[5:]...)
}

// TestNoStoredByteIsDecompressedBeforeItsDigestIsKnown damages a frame in ways
// that a decompressor would notice, and expects that none did.
func TestNoStoredByteIsDecompressedBeforeItsDigestIsKnown(t *testing.T) {
	text := bytes.Repeat([]byte("text "), 500)
	c := content{path: "a.txt", data: text, stored: compress(t, text)}
	raw := plain(t, c)
	at := bytes.Index(raw, c.stored)
	for i := range c.stored {
		bad := bytes.Clone(raw)
		bad[at+i] ^= 0xff
		var out counted
		in := bundle.NewReader(bytes.NewReader(bad), bundle.Limits{})
		wantReason(t, first(t, in).CopyTo(&out, spool(t)), bundle.BlobDigest)
		if out != 0 {
			t.Fatalf("byte %d changed, and %d bytes came out", i, out)
		}
	}
}

func TestFaultsOfTheSinkAndSpoolAreNoRefusals(t *testing.T) {
	text := bytes.Repeat([]byte("text "), 500)
	broken := errors.New("disk full")
	for name, c := range map[string]content{
		"plain":      {path: "a.txt", data: text},
		"compressed": {path: "a.txt", data: text, stored: compress(t, text)},
	} {
		in := bundle.NewReader(bytes.NewReader(plain(t, c)), bundle.Limits{})
		err := first(t, in).CopyTo(failing{err: broken}, spool(t))
		var f *bundle.FormatError
		if !errors.Is(err, broken) || errors.As(err, &f) {
			t.Errorf("%s: %v", name, err)
		}
	}
	in := bundle.NewReader(bytes.NewReader(plain(t, content{path: "a.txt", data: text, stored: compress(t, text)})), bundle.Limits{})
	b := first(t, in)
	if err := b.CopyTo(io.Discard, nil); err == nil {
		t.Error("a compressed blob without a spool")
	}
	for _, op := range []string{"read", "write", "seek", "truncate"} {
		in := bundle.NewReader(bytes.NewReader(plain(t, content{path: "a.txt", data: text, stored: compress(t, text)})), bundle.Limits{})
		err := first(t, in).CopyTo(io.Discard, failing{spool(t), op, broken})
		var f *bundle.FormatError
		if !errors.Is(err, broken) || errors.As(err, &f) {
			t.Errorf("spool that cannot %s: %v", op, err)
		}
	}
}

// failing fails at one operation; as a writer, always.
type failing struct {
	bundle.Spool
	op  string
	err error
}

func (f failing) Write(p []byte) (int, error) {
	if f.Spool == nil || f.op == "write" {
		return 0, f.err
	}
	return f.Spool.Write(p)
}

func (f failing) Read(p []byte) (int, error) {
	if f.op == "read" {
		return 0, f.err
	}
	return f.Spool.Read(p)
}

func (f failing) Seek(offset int64, whence int) (int64, error) {
	if f.op == "seek" {
		return 0, f.err
	}
	return f.Spool.Seek(offset, whence)
}

func (f failing) Truncate(size int64) error {
	if f.op == "truncate" {
		return f.err
	}
	return f.Spool.Truncate(size)
}

// TestMemoryDoesNotGrowWithABlob reads 96 MiB, of which half is compressed, and
// allows less than a quarter of it to be allocated altogether.
func TestMemoryDoesNotGrowWithABlob(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 96 MiB")
	}
	dir := folder(t, map[string]string{"stella.toml": source})
	random := rand.New(rand.NewPCG(1, 2))
	noise, text := make([]byte, 48<<20), make([]byte, 48<<20)
	for i := 0; i < len(noise); i += 8 {
		binary.LittleEndian.PutUint64(noise[i:], random.Uint64())
		binary.LittleEndian.PutUint64(text[i:], random.Uint64()&0x0f0f0f0f0f0f0f0f)
	}
	for name, data := range map[string][]byte{"noise": noise, "text": text} {
		if err := os.WriteFile(dir+"/"+name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(t.TempDir() + "/b.stella")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	used := allocated(func() {
		if _, err := bundle.Pack(dir, f, bundle.PackOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if used > 48<<20 {
		t.Errorf("packing 96 MiB allocated %d MiB", used>>20)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	place := spool(t)
	used = allocated(func() {
		in := bundle.NewReader(f, bundle.Limits{})
		for b := first(t, in); b != nil; {
			if err := b.CopyTo(io.Discard, place); err != nil {
				t.Fatal(err)
			}
			if b, err = in.NextBlob(); err != nil {
				b = nil
			}
		}
		if err := in.End(); err != nil {
			t.Fatal(err)
		}
	})
	if used > 24<<20 {
		t.Errorf("reading 96 MiB allocated %d MiB", used>>20)
	}
}

// allocated is how many bytes fn allocated, freed ones included.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAFormatErrorNamesTheEntry(t *testing.T) {
	f := &bundle.FormatError{Reason: bundle.BlobSize, Entry: "blobs/x", Offset: 7, Detail: "why"}
	for _, want := range []string{"BLOB_SIZE", "blobs/x", "7", "why"} {
		if !strings.Contains(f.Error(), want) {
			t.Errorf("%q does not say %s", f, want)
		}
	}
}
