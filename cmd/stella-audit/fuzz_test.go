package main

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// FuzzJudge changes an archive: as it lies on a medium, or, with all keys of
// the site, in one of its files, with digests and signature made anew. Nothing
// makes the judge panic; nothing is verified without keys from outside; and
// nothing that was changed on a medium is verified with them.
func FuzzJudge(f *testing.F) {
	raw, err := os.ReadFile("testdata/archive.tar")
	if err != nil {
		f.Fatal(err)
	}
	files := unpack(f, raw)
	names := slices.Sorted(maps.Keys(files))
	path := filepath.Join(f.TempDir(), "a.tar")
	for i := range names {
		f.Add(uint8(i), uint(100*i), uint(1), []byte("x"), true)
		f.Add(uint8(i), uint(len(raw)/len(names)*i), uint(0), []byte{0}, false)
	}
	f.Add(uint8(0), uint(0), uint(0), []byte(nil), true)
	f.Fuzz(func(t *testing.T, file uint8, at, cut uint, with []byte, again bool) {
		made := splice(raw, at, cut, with)
		if again {
			changed := maps.Clone(files)
			name := names[int(file)%len(names)]
			changed[name] = splice(changed[name], at, cut, with)
			made = pack(t, changed, name)
		}
		if err := os.WriteFile(path, made, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if code := run([]string{path}, &out, &out); code == 0 {
			t.Errorf("verified without keys\n%s", &out)
		}
		out.Reset()
		code := run([]string{"-log-key", "testdata/log.pub", "-site-key", "testdata/site.pub", path}, &out, &out)
		if same := bytes.Equal(made, raw); !again && (code == 0) != same {
			t.Errorf("exit code %d, and the archive is the same: %t\n%s", code, same, &out)
		}
	})
}

// splice puts with in the place of cut bytes at an offset.
func splice(raw []byte, at, cut uint, with []byte) []byte {
	n := uint(len(raw))
	at = at % (n + 1)
	end := at + min(cut, n-at)
	return slices.Concat(raw[:at], with, raw[end:])
}

// unpack gives the files, decompressed, but for those that are made anew.
func unpack(f testing.TB, raw []byte) map[string][]byte {
	files := map[string][]byte{}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		content, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		if strings.HasSuffix(h.Name, ".zst") {
			if content, err = dec.DecodeAll(content, nil); err != nil {
				f.Fatal(err)
			}
		}
		if !strings.HasPrefix(h.Name, "SHA256SUMS") {
			files[h.Name] = content
		}
	}
	return files
}

// pack signs what it packs with the key of the archive's site, the scalar 11.
// The manifest describes what is there, unless it is what was changed.
func pack(t *testing.T, files map[string][]byte, changed string) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string][]byte{}
	for name, content := range files {
		if stored[name] = content; strings.HasSuffix(name, ".zst") {
			stored[name] = enc.EncodeAll(content, nil)
		}
	}
	if changed != "manifest.json" {
		m := parse[any](files["manifest.json"]).(object)
		for _, item := range list(m, "files") {
			f := item.(object)
			name := text(f, "path")
			f["bytes"], f["sha256"] = len(stored[name]), digest(stored[name])
			if strings.HasSuffix(name, ".zst") {
				f["records"], f["uncompressedBytes"], f["uncompressedSha256"] = bytes.Count(files[name], []byte("\n")), len(files[name]), digest(files[name])
			}
		}
		stored["manifest.json"] = append(encode(m), '\n')
	}
	var sums bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		sums.WriteString(digest(stored[name]) + "  " + name + "\n")
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 11))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(sums.Bytes())
	signature, err := key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	site, err := os.ReadFile("testdata/site.pub")
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(parseKey(site, false))
	stored["SHA256SUMS"] = sums.Bytes()
	stored["SHA256SUMS.sigstore.json"] = encode(object{
		"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": object{"publicKey": object{"hint": id[:]}},
		"messageSignature": object{"messageDigest": object{"algorithm": "SHA2_256", "digest": sum[:]}, "signature": signature},
	})
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	order := slices.Concat(fixed[:11], slices.DeleteFunc(slices.Sorted(maps.Keys(stored)), func(n string) bool { return !strings.HasPrefix(n, evidence) }), fixed[11:])
	for _, name := range order {
		h := &tar.Header{Name: name, Size: int64(len(stored[name])), Mode: 0o644, ModTime: time.Date(2026, 11, 22, 9, 0, 15, 0, time.UTC), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(stored[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The tools of the fuzz target can make an archive that is verified: else it
// would look at the outermost checks alone.
func TestAnArchiveThatIsSignedAgainIsVerified(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"-log-key", "testdata/log.pub", "-site-key", "testdata/site.pub", "testdata/archive.tar"}, &out, &out); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &out)
	}
	raw, err := os.ReadFile("testdata/archive.tar")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, pack(t, unpack(t, raw), ""), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"-log-key", "testdata/log.pub", "-site-key", "testdata/site.pub", path}, io.Discard, &out); code != 0 {
		t.Errorf("exit code %d\n%s", code, &out)
	}
}

// A sealed file that a parser of TOML would take hours for is refused.
func TestTOMLThatTakesLong(t *testing.T) {
	for name, raw := range map[string]string{
		"tables in each other":          strings.Repeat("a={", 250_000),
		"tables in each other, by line": strings.Repeat("a=[{\n", 150_000),
		"a key of many parts":           strings.Repeat("a.", 1500) + "a=1\n",
		"a long line":                   "a=\"" + strings.Repeat("x", 5000) + "\"\n",
	} {
		if found := outcome(func() { parseTOML([]byte(raw)) }); found.status != "failed" {
			t.Errorf("%s: %v", name, found)
		}
	}
	if found := outcome(func() { parseTOML([]byte("a = " + strings.Repeat("1", 4000) + "\n")) }); found.status != "failed" || len(found.text) > 400 {
		t.Errorf("the fault of what is no TOML has %d bytes: %.100s", len(found.text), found.text)
	}
	if found := outcome(func() { parseTOML([]byte("a = \"" + strings.Repeat("x", 4096-6) + "\"\r\n")) }); found.status != "ok" {
		t.Errorf("the longest line that a site reads: %v", found)
	}
	if found := outcome(func() {
		parseTOML([]byte(strings.Repeat("[[publisher]]\nname = \"a.b\" # .\nkeys = [\"x\", { a = 1 }]\n", 10_000)))
	}); found.status != "ok" {
		t.Errorf("an ordinary file: %v", found)
	}
}
