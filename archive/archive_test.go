package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/archive"
)

var everyByte = flag.Bool("every", false, "flip every byte of an archive, not a sample")

const siteID = "0123456789abcdef0123456789abcdef"

// contents is a source of what a test archives.
type contents map[string]string

func (c contents) Open(_ bool, digest string) (io.ReadCloser, error) {
	text, ok := c[digest]
	if !ok {
		return nil, errors.New("it is not there")
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// items lists texts, sorted by digest, and puts them into c.
func items(c contents, texts ...string) []archive.Item {
	out := []archive.Item{}
	for _, text := range texts {
		d := digestOf(text)
		c[d] = text
		out = append(out, archive.Item{Bytes: int64(len(text)), SHA256: d})
	}
	slices.SortFunc(out, func(a, b archive.Item) int { return strings.Compare(a.SHA256, b.SHA256) })
	return out
}

func listOf(artifacts, logs []archive.Item) *archive.List {
	return &archive.List{
		Artifacts: artifacts, Before: "2026-11-22T09:00:00.000000000Z", Logs: logs, Schema: archive.Schema, SiteID: siteID,
		Runs: []archive.Run{{DAGID: "audit", EndedUTC: "2026-11-21T09:00:00.000000000Z", RunID: "r1", Tenant: "default"}},
	}
}

func sign(sums []byte) ([]byte, error) { return []byte("signed " + digestOf(string(sums))), nil }

func signed(sums, sig []byte) error {
	if want, _ := sign(sums); !bytes.Equal(want, sig) {
		return errors.New("the signature is of another list")
	}
	return nil
}

// write makes an archive of some texts, among them an empty one and one of several blocks.
func write(t *testing.T) (path string, c contents) {
	t.Helper()
	c = contents{}
	list := listOf(items(c, "", "an artifact", strings.Repeat("x", 5000)), items(c, "a log\n", "an artifact"))
	path = filepath.Join(t.TempDir(), "runs.tar")
	if err := archive.Write(context.Background(), path, archive.Options{List: list, Source: c, Sign: sign}); err != nil {
		t.Fatal(err)
	}
	return path, c
}

func verify(path string) error {
	_, err := archive.Verify(context.Background(), path, archive.VerifyOptions{SiteID: siteID, Signed: signed})
	return err
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	path, c := write(t)
	v, err := archive.Verify(context.Background(), path, archive.VerifyOptions{SiteID: siteID, Signed: signed, Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if v.SHA256 != digestOf(string(raw)) || v.Bytes != int64(len(raw)) {
		t.Errorf("verified %s, %d bytes; the file has %s, %d", v.SHA256, v.Bytes, digestOf(string(raw)), len(raw))
	}
	f, err := archive.Index(path, siteID)
	if err != nil || f.Fault != nil {
		t.Fatal(err, f.Fault)
	}
	list, _ := v.List.Encode()
	if f.List != digestOf(string(list)) {
		t.Errorf("it is known by %s, its list has %s", f.List, digestOf(string(list)))
	}
	for digest, want := range c {
		r, err := f.Open(digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || string(got) != want {
			t.Errorf("content %s is %q, %v; want %q", digest, got, err, want)
		}
	}
	for _, other := range []string{digestOf("other"), "", "x", strings.Repeat("z", 64), strings.Repeat("a", 200)} {
		if f.Has(other) {
			t.Errorf("it has %q", other)
		}
	}
	again, _ := write(t)
	other, err := os.ReadFile(again)
	if err != nil || !bytes.Equal(raw, other) {
		t.Errorf("the same list gave other bytes, %v", err)
	}
	if _, err := archive.Index(path, strings.Repeat("f", 32)); !errors.Is(err, archive.ErrForeign) {
		t.Errorf("for another site: %v", err)
	}
}

// No byte can change, and no part of the end be lost, without that being found. What is
// read is never other bytes than those of the digest.
func TestEveryByteOfAnArchiveCounts(t *testing.T) {
	path, c := write(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.tar")
	tries, step := 0, 5
	if *everyByte {
		step = 1
	}
	try := func(what string, raw []byte) {
		t.Helper()
		if err := os.WriteFile(bad, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		var damage *archive.DamagedError
		if err := verify(bad); !errors.As(err, &damage) && !errors.Is(err, archive.ErrForeign) {
			t.Errorf("%s: verified as %v", what, err)
		}
		if tries++; tries%4 != 0 {
			return
		}
		f, err := archive.Index(bad, siteID)
		if err != nil {
			if !errors.Is(err, archive.ErrForeign) {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		for digest, want := range c {
			if !f.Has(digest) {
				continue
			}
			r, err := f.Open(digest)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err == nil && string(got) != want {
				t.Errorf("%s: content %s is read as %q", what, digest, got)
			}
			if err != nil && !errors.As(err, &damage) {
				t.Errorf("%s: content %s: %v", what, digest, err)
			}
		}
	}
	for i, b := range good {
		if b == 0 && i%16 != 0 || i%step != 0 { // all padding is looked at in the same way
			continue
		}
		raw := bytes.Clone(good)
		raw[i] ^= 1 << (i % 8)
		try(fmt.Sprintf("byte %d", i), raw)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		n := rnd.IntN(len(good))
		try(fmt.Sprintf("cut at %d", n), good[:n])
	}
	try("more at the end", append(bytes.Clone(good), make([]byte, 512)...))
}

func TestWhatIsNotAsListedIsNotWritten(t *testing.T) {
	c := contents{}
	list := listOf(items(c, "an artifact"), items(c, "a log\n"))
	for name, spoil := range map[string]func(digest string){
		"other bytes":   func(d string) { c[d] = "an artefact" },
		"fewer bytes":   func(d string) { c[d] = "an" },
		"more bytes":    func(d string) { c[d] = "an artifact, and more" },
		"not there":     func(d string) { delete(c, d) },
		"cut off, full": func(d string) { c[d] = "" },
	} {
		digest := digestOf("an artifact")
		c[digest] = "an artifact"
		spoil(digest)
		dir := t.TempDir()
		err := archive.Write(context.Background(), filepath.Join(dir, "a.tar"), archive.Options{List: list, Source: c, Sign: sign})
		if err == nil {
			t.Errorf("%s: it was written", name)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

func TestListsHaveOneForm(t *testing.T) {
	good := listOf(items(contents{}, "a", "b"), items(contents{}, "c"))
	raw, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.ParseList(raw); err != nil {
		t.Errorf("%s: %v", raw, err)
	}
	text := string(raw)
	for name, bad := range map[string]string{
		"no line feed":   strings.TrimSuffix(text, "\n"),
		"white space":    " " + text,
		"another field":  strings.Replace(text, `{"artifacts"`, `{"again":1,"artifacts"`, 1),
		"another schema": strings.Replace(text, archive.Schema, "stella.runs/2", 1),
		"no site":        strings.Replace(text, siteID, "x", 1),
		"a bad digest":   strings.Replace(text, digestOf("c"), strings.ToUpper(digestOf("c")), 1),
		"a fall":         strings.Replace(strings.Replace(text, digestOf("a"), "x", 1), digestOf("b"), digestOf("a"), 1),
		"twice":          strings.Replace(text, digestOf("a"), digestOf("b"), 1),
		"less than none": strings.Replace(text, `"bytes":1`, `"bytes":-1`, 1),
		"no time":        strings.Replace(text, good.Before, "yesterday", 1),
		"nothing":        "",
		"null":           "null\n",
	} {
		if _, err := archive.ParseList([]byte(bad)); err == nil {
			t.Errorf("%s is taken: %s", name, bad)
		}
	}
}

// Tools that everybody has open an archive.
func TestOtherToolsReadIt(t *testing.T) {
	for _, tool := range []string{"tar", "zstd", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s here", tool)
		}
	}
	path, c := write(t)
	dir := t.TempDir()
	cmd := exec.Command("sh", "-ec", "tar xf '"+path+"'; sha256sum -c --quiet SHA256SUMS; zstd -q -d logs/*.zst artifacts/*.zst; cat artifacts/"+digestOf("an artifact"))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "an artifact" {
		t.Errorf("%v: %s", err, out)
	}
	for digest, want := range c {
		got, err := os.ReadFile(filepath.Join(dir, "artifacts", digest))
		if err != nil {
			got, err = os.ReadFile(filepath.Join(dir, "logs", digest+".jsonl"))
		}
		if err != nil || string(got) != want {
			t.Errorf("content %s is %q, %v", digest, got, err)
		}
	}
}

func FuzzIndex(f *testing.F) {
	c := contents{}
	list := listOf(items(c, "an artifact"), items(c, "a log\n"))
	path := filepath.Join(f.TempDir(), "a.tar")
	if err := archive.Write(context.Background(), path, archive.Options{List: list, Source: c, Sign: sign}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:700])
	bad := filepath.Join(f.TempDir(), "bad.tar")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(bad, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if verify(bad) == nil && !bytes.Equal(raw, good) {
			t.Fatal("other bytes are verified")
		}
		x, err := archive.Index(bad, siteID)
		if err != nil {
			return
		}
		for digest, want := range c {
			if !x.Has(digest) {
				continue
			}
			r, err := x.Open(digest)
			if err != nil {
				continue
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err == nil && string(got) != want {
				t.Errorf("content %s is read as %q", digest, got)
			}
		}
	})
}

// bulk are logs of about size bytes in all, as attempts write them.
func bulk(size int) (*archive.List, contents) {
	c := contents{}
	rnd := rand.New(rand.NewPCG(1, 2))
	var texts []string
	for n := 0; n < size; {
		var b strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&b, "{\"seq\":%d,\"stream\":\"stdout\",\"text\":\"request %x from 10.0.%d.%d took %d ms\",\"time\":\"2026-11-22T09:%02d:%02d.%09dZ\"}\n",
				i, rnd.Uint64(), rnd.IntN(256), rnd.IntN(256), rnd.IntN(5000), i/60%60, i%60, rnd.IntN(1e9))
		}
		texts = append(texts, b.String())
		n += b.Len()
	}
	return listOf([]archive.Item{}, items(c, texts...)), c
}

func BenchmarkArchive(b *testing.B) {
	list, c := bulk(64 << 20)
	dir := b.TempDir()
	path := filepath.Join(dir, "runs.tar")
	b.Run("write", func(b *testing.B) {
		b.SetBytes(list.Bytes())
		for b.Loop() {
			os.Remove(path)
			if err := archive.Write(context.Background(), path, archive.Options{List: list, Source: c, Sign: sign}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(list.Bytes())
		for b.Loop() {
			if _, err := archive.Verify(context.Background(), path, archive.VerifyOptions{SiteID: siteID, Fresh: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("index", func(b *testing.B) {
		for b.Loop() {
			if _, err := archive.Index(path, siteID); err != nil {
				b.Fatal(err)
			}
		}
	})
	if fi, err := os.Stat(path); err == nil {
		b.Logf("%d bytes became %d in %d files", list.Bytes(), fi.Size(), len(list.Logs))
	}
}
