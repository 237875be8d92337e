package export_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
)

// kit is an archive taken apart by means of its own, as a forger with all keys
// of the site would: he changes something and puts a consistent archive
// together again.
type kit struct {
	t        testing.TB
	site     *site
	files    map[string][]byte // compressed ones decompressed
	raw      map[string][]byte // files that sign takes as they are
	manifest export.Manifest
}

func takeApart(t testing.TB, s *site, archive []byte) *kit {
	t.Helper()
	k := &kit{t: t, site: s, files: map[string][]byte{}}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(h.Name, ".zst") {
			raw = unzstd(t, raw)
		}
		k.files[h.Name] = raw
	}
	if err := json.Unmarshal(k.files["manifest.json"], &k.manifest); err != nil {
		t.Fatal(err)
	}
	return k
}

func unzstd(t testing.TB, raw []byte) []byte {
	t.Helper()
	dec, err := zstd.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	out, err := io.ReadAll(dec)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// frames remembers what was compressed: forgeries change little.
var frames sync.Map

func zstdFrame(t testing.TB, raw []byte) []byte {
	t.Helper()
	key := digest(raw)
	if out, ok := frames.Load(key); ok {
		return out.([]byte)
	}
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(4<<20),
		zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enc.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	frames.Store(key, out.Bytes())
	return out.Bytes()
}

// lines are the lines of a file, without line feeds.
func (k *kit) lines(path string) []string {
	text := strings.TrimSuffix(string(k.files[path]), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func (k *kit) setLines(path string, lines []string) {
	if len(lines) == 0 {
		k.files[path] = nil
		return
	}
	k.files[path] = []byte(strings.Join(lines, "\n") + "\n")
}

// replace changes the one place where old stands.
func (k *kit) replace(path, old, with string) {
	k.t.Helper()
	if bytes.Count(k.files[path], []byte(old)) == 0 {
		k.t.Fatalf("%s has no %q", path, old)
	}
	k.files[path] = bytes.Replace(k.files[path], []byte(old), []byte(with), 1)
}

// set writes a JSON file.
func (k *kit) set(path string, v any) {
	k.t.Helper()
	raw, err := jcs.Marshal(v)
	if err != nil {
		k.t.Fatal(err)
	}
	k.files[path] = append(raw, '\n')
}

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// tarOrder is the order of FORMATS, written down a second time.
func tarOrder(files map[string][]byte) []string {
	order := []string{
		"manifest.json", "SHA256SUMS", "SHA256SUMS.sigstore.json", "README.txt", "keys/log.pub", "keys/site.pub",
		"ledger/envelopes.ndjson.zst", "ledger/data.ndjson.zst", "ledger/runs.ndjson.zst",
		"ledger/checkpoint.note", "ledger/window.json",
	}
	known := map[string]bool{}
	last := []string{"telemetry/logs.jsonl.zst", "telemetry/metrics.jsonl.zst", "telemetry/traces.jsonl.zst"}
	for _, p := range append(slices.Clone(order), last...) {
		known[p] = true
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if !known[p] {
			order = append(order, p)
		}
	}
	return append(order, last...)
}

// describe makes the manifest's list of files anew.
func (k *kit) describe() {
	k.manifest.Files = nil
	for _, path := range tarOrder(k.files) {
		if path == "manifest.json" || strings.HasPrefix(path, "SHA256SUMS") {
			continue
		}
		f := export.File{Path: path, MediaType: "application/octet-stream"}
		content := k.files[path]
		switch {
		case strings.HasSuffix(path, ".zst"):
			n, size := int64(bytes.Count(content, []byte("\n"))), int64(len(content))
			f.Records, f.UncompressedBytes, f.UncompressedSHA256 = &n, &size, digest(content)
			f.MediaType = "application/x-ndjson+zstd"
			content = zstdFrame(k.t, content)
		case strings.HasPrefix(path, "keys/"):
			f.MediaType = "application/x-pem-file"
		case strings.HasSuffix(path, ".json"):
			f.MediaType = "application/json"
		case !strings.HasPrefix(path, "evidence/"):
			f.MediaType = "text/plain; charset=utf-8"
		}
		f.Bytes, f.SHA256 = int64(len(content)), digest(content)
		k.manifest.Files = append(k.manifest.Files, f)
	}
	sort.Slice(k.manifest.Files, func(i, j int) bool { return k.manifest.Files[i].Path < k.manifest.Files[j].Path })
	k.set("manifest.json", k.manifest)
}

// assemble gives the files as they stand in the tar, with digests and
// signature made anew by the site's own key.
func (k *kit) assemble() map[string][]byte {
	k.t.Helper()
	k.describe()
	return k.sign()
}

// sign is assemble with the manifest as it is.
func (k *kit) sign() map[string][]byte {
	k.t.Helper()
	out := map[string][]byte{}
	for path, content := range k.files {
		if strings.HasSuffix(path, ".zst") {
			content = zstdFrame(k.t, content)
		}
		out[path] = content
	}
	maps.Copy(out, k.raw)
	var sums bytes.Buffer
	for _, path := range slices.Sorted(maps.Keys(out)) {
		if !strings.HasPrefix(path, "SHA256SUMS") {
			fmt.Fprintf(&sums, "%s  %s\n", digest(out[path]), path)
		}
	}
	out["SHA256SUMS"] = sums.Bytes()
	sig, err := k.site.sign(sums.Bytes())
	if err != nil {
		k.t.Fatal(err)
	}
	out["SHA256SUMS.sigstore.json"] = sig
	return out
}

// pack writes a tar with the standard library's writer.
func (k *kit) pack(files map[string][]byte) []byte {
	k.t.Helper()
	to, err := stamp.Parse(k.manifest.Window.To)
	if err != nil {
		k.t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, path := range tarOrder(files) {
		content, ok := files[path]
		if !ok {
			continue
		}
		writeTar(k.t, w, &tar.Header{Name: path, Size: int64(len(content)), Mode: 0o644, ModTime: to.Truncate(time.Second), Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}, content)
	}
	if err := w.Close(); err != nil {
		k.t.Fatal(err)
	}
	return out.Bytes()
}

func writeTar(t testing.TB, w *tar.Writer, h *tar.Header, content []byte) {
	t.Helper()
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
}
