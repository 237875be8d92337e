package bundle_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

func TestPackedIsReadBack(t *testing.T) {
	text := strings.Repeat("a line of text\n", 1000)
	dir := folder(t, map[string]string{
		"stella.toml": source, "z.txt": "short", "a/text": text, "a/copy": text, "run.sh": "#!/bin/sh\n", "empty": "",
	})
	raw, packed := pack(t, dir, bundle.PackOptions{})
	got, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.head.Manifest, packed.Raw) || packed.Digest != digest(packed.Raw) {
		t.Error("Packed.Raw is not the manifest")
	}
	if packed.FileSHA256 != digest(raw) || packed.FileBytes != int64(len(raw)) {
		t.Error("Packed is not about the file")
	}
	type file struct{ Path, Mode, Encoding string }
	var files []file
	for _, f := range packed.Manifest.Files {
		files = append(files, file{f.Path, f.Mode, f.Encoding})
	}
	want := []file{{"a/copy", "0644", "zstd"}, {"a/text", "0644", "zstd"}, {"empty", "0644", ""}, {"run.sh", "0755", ""}, {"z.txt", "0644", ""}}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if len(got.contents) != 4 || got.contents[digest([]byte(text))] != text {
		t.Errorf("%d contents, want 4 with the text", len(got.contents))
	}
	if name := bundle.FileName(packed.Manifest); name != "acme.list-1.0.0.stella" {
		t.Errorf("file name %s", name)
	}
}

// TestHeadersAreThoseOfArchiveTar writes what Pack wrote once more, with the
// standard library.
func TestHeadersAreThoseOfArchiveTar(t *testing.T) {
	dir := folder(t, map[string]string{"stella.toml": source, "a": "1", "b": strings.Repeat("text ", 1000), "empty": ""})
	raw, _ := pack(t, dir, bundle.PackOptions{})
	var entries []entry
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{name: h.Name, data: data})
	}
	if again := container(t, entries...); !bytes.Equal(raw, again) {
		t.Errorf("archive/tar writes %d bytes, Pack %d, or others", len(again), len(raw))
	}
}

func TestTheSameFolderGivesTheSameBytes(t *testing.T) {
	files := map[string]string{"stella.toml": source, "a": "1", "b/c": strings.Repeat("text ", 100000), "run.sh": "#!/bin/sh\n"}
	one, two := folder(t, files), folder(t, files)
	for i, name := range []string{"a", "b/c", "run.sh"} {
		path := filepath.Join(two, name)
		if err := os.Chtimes(path, time.Unix(int64(i), 0), time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, info.Mode()&0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(two, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	a, _ := pack(t, one, bundle.PackOptions{})
	old := runtime.GOMAXPROCS(1)
	b, _ := pack(t, two, bundle.PackOptions{})
	runtime.GOMAXPROCS(old)
	if !bytes.Equal(a, b) {
		t.Error("two equal folders gave two bundles")
	}
}

func TestADeltaHasTheSameManifest(t *testing.T) {
	dir := folder(t, map[string]string{"stella.toml": source, "a": "1", "b": "2"})
	_, full := pack(t, dir, bundle.PackOptions{})
	held := digest([]byte("1"))
	raw, delta := pack(t, dir, bundle.PackOptions{Omit: func(sum string) bool { return sum == held }})
	if delta.Digest != full.Digest || !slices.Equal(delta.Omitted, []string{held}) {
		t.Errorf("delta %s omits %v; the full bundle is %s", delta.Digest, delta.Omitted, full.Digest)
	}
	if _, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, func(sum string) bool { return sum == held }); err != nil {
		t.Error(err)
	}
}

func TestFoldersThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(dir string) error
		want string // the file that is named
	}{
		{"a symbolic link", func(dir string) error { return os.Symlink("a", dir+"/link") }, "link"},
		{"a link to a folder", func(dir string) error { return os.Symlink("/etc", dir+"/etc") }, "etc"},
		{"a pipe", func(dir string) error { return syscall.Mkfifo(dir+"/pipe", 0o600) }, "pipe"},
		{"a file of the Finder", func(dir string) error { return os.WriteFile(dir+"/._a", nil, 0o600) }, "._a"},
		{"a folder of the Finder", func(dir string) error { return os.WriteFile(dir+"/.DS_Store", nil, 0o600) }, ".DS_Store"},
		{"a repository", func(dir string) error { return os.Mkdir(dir+"/.git", 0o700) }, ".git"},
		{"a blank", func(dir string) error { return os.WriteFile(dir+"/a b", nil, 0o600) }, "a b"},
		{"a line feed", func(dir string) error { return os.WriteFile(dir+"/a\nb", nil, 0o600) }, "a\nb"},
		{"a backslash", func(dir string) error { return os.WriteFile(dir+`/a\b`, nil, 0o600) }, `a\b`},
		{"an umlaut", func(dir string) error { return os.WriteFile(dir+"/ü", nil, 0o600) }, "ü"},
		{"two names that differ in case", func(dir string) error { return os.WriteFile(dir+"/A", nil, 0o600) }, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, map[string]string{"stella.toml": source, "a": "1"})
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			_, err := bundle.Pack(dir, io.Discard, bundle.PackOptions{})
			var faults manifests.Faults
			if !errors.As(err, &faults) || len(faults) != 1 || faults[0].File != c.want || faults[0].Hint == "" {
				t.Errorf("Pack = %v, want one fault of %q with a hint", err, c.want)
			}
		})
	}
}

func TestAllFaultsOfAFolderAreReportedAtOnce(t *testing.T) {
	dir := folder(t, map[string]string{"stella.toml": source, "a": "1", "a b": "", "c d": "", "._x": ""})
	_, err := bundle.Pack(dir, io.Discard, bundle.PackOptions{})
	var faults manifests.Faults
	if !errors.As(err, &faults) || len(faults) != 3 {
		t.Errorf("Pack = %v, want three faults", err)
	}
}

func TestWhatElsePackRefuses(t *testing.T) {
	for name, dir := range map[string]string{
		"no folder":            filepath.Join(t.TempDir(), "absent"),
		"no stella.toml":       folder(t, map[string]string{"a": "1"}),
		"a broken stella.toml": folder(t, map[string]string{"stella.toml": "schema = 1\n", "a": "1"}),
		"files of its own":     folder(t, map[string]string{"stella.toml": source + "[[file]]\npath = \"a\"\n", "a": "1"}),
		"no files":             folder(t, map[string]string{"stella.toml": source}),
		"a linked stella.toml": func() string {
			dir := folder(t, map[string]string{"a": "1"})
			if err := os.Symlink(folder(t, map[string]string{"stella.toml": source})+"/stella.toml", dir+"/stella.toml"); err != nil {
				t.Fatal(err)
			}
			return dir
		}(),
	} {
		if _, err := bundle.Pack(dir, io.Discard, bundle.PackOptions{}); err == nil {
			t.Errorf("%s: packed", name)
		}
	}
	dir := folder(t, map[string]string{"stella.toml": source, "a": "1"})
	broken := errors.New("disk full")
	if _, err := bundle.Pack(dir, failing{err: broken}, bundle.PackOptions{}); !errors.Is(err, broken) {
		t.Errorf("Pack to a full disk = %v", err)
	}
}

// TestAFileThatChangesWhileItIsPacked changes it when the manifest is written.
func TestAFileThatChangesWhileItIsPacked(t *testing.T) {
	dir := folder(t, map[string]string{"stella.toml": source, "a": "11"})
	for name, data := range map[string]string{"other bytes": "22", "fewer bytes": "1"} {
		w := writerFunc(func(p []byte) (int, error) { return len(p), os.WriteFile(dir+"/a", []byte(data), 0o600) })
		if _, err := bundle.Pack(dir, w, bundle.PackOptions{}); err == nil || !strings.Contains(err.Error(), "a") {
			t.Errorf("%s: Pack = %v", name, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAttachAddsWithoutTouchingTheRest(t *testing.T) {
	dir := folder(t, map[string]string{"stella.toml": source, "a": "1", "b": strings.Repeat("text ", 1000)})
	raw, _ := pack(t, dir, bundle.PackOptions{Omit: func(sum string) bool { return sum == digest([]byte("1")) }})
	sig := func(i int) bundle.Attached {
		return bundle.Attached{ID: signature(i).name[len("signatures/"):][:64], Data: []byte("{}")}
	}
	att := func(s string) bundle.Attached {
		return bundle.Attached{ID: digest([]byte(s)), Data: []byte(s)}
	}
	attach := func(raw []byte, sigs, atts []bundle.Attached) ([]byte, error) {
		var b bytes.Buffer
		err := bundle.Attach(&b, bytes.NewReader(raw), sigs, atts)
		return b.Bytes(), err
	}
	step, err := attach(raw, []bundle.Attached{sig(3)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if step, err = attach(step, []bundle.Attached{sig(1), sig(3)}, []bundle.Attached{att("x")}); err != nil {
		t.Fatal(err)
	}
	once, err := attach(raw, []bundle.Attached{sig(3), sig(1)}, []bundle.Attached{att("x"), att("x")})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(step, once) {
		t.Error("attaching twice is not attaching once")
	}
	none, err := attach(once, nil, nil)
	if err != nil || !bytes.Equal(none, once) {
		t.Errorf("attaching nothing changed the bundle: %v", err)
	}
	got, err := readAll(bytes.NewReader(once), spool(t), bundle.Limits{}, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if len(got.head.Signatures) != 2 || len(got.attestations) != 1 || got.head.Signatures[0].ID > got.head.Signatures[1].ID {
		t.Errorf("%d signatures, %d attestations", len(got.head.Signatures), len(got.attestations))
	}

	other := sig(1)
	other.Data = []byte("[]")
	var many []bundle.Attached
	for i := range 17 {
		many = append(many, sig(i))
	}
	large := bundle.Attached{ID: sig(1).ID, Data: make([]byte, 64<<10+1)}
	for _, c := range []struct {
		name       string
		sigs, atts []bundle.Attached
		want       bundle.Reason
	}{
		{"another signature of a key that signed", []bundle.Attached{other}, nil, bundle.EntryDuplicate},
		{"too many signatures", many, nil, bundle.SignaturesTooMany},
		{"a large signature", []bundle.Attached{large}, nil, bundle.EntryDuplicate},
		{"a bad id", []bundle.Attached{{ID: "../x"}}, nil, bundle.EntryUnexpected},
		{"an attestation by another name", nil, []bundle.Attached{{ID: sig(1).ID, Data: []byte("x")}}, bundle.AttestationDigest},
		{"a large attestation", nil, []bundle.Attached{att(strings.Repeat("x", 4<<20+1))}, bundle.AttestationTooLarge},
	} {
		_, err := attach(once, c.sigs, c.atts)
		if f := new(bundle.FormatError); !errors.As(err, &f) || f.Reason != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	bad := bytes.Clone(once)
	bad[len(bad)-1] = 1
	if _, err := attach(bad, nil, nil); err == nil {
		t.Error("a bad container was attached to")
	}
}

func TestTemplatesPackAsTheyAre(t *testing.T) {
	at, err := time.Parse(time.RFC3339, created)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind    manifests.Kind
		runtime manifests.Runtime
	}{
		{manifests.KindPlugin, manifests.RuntimeExec}, {manifests.KindPlugin, manifests.RuntimeWASM}, {manifests.KindDAG, ""}, {manifests.KindData, ""},
	} {
		files, err := bundle.Template{Kind: c.kind, Runtime: c.runtime, Publisher: "acme", Name: "acme.new", Created: at}.Files()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for _, f := range files {
			path := filepath.Join(dir, f.Path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, f.Mode); err != nil {
				t.Fatal(err)
			}
			if f.Path == "dag.toml" {
				if d, err := manifests.ParseDAG(f.Path, f.Data); err != nil || d.ID != "acme.new" {
					t.Errorf("dag.toml: %v", err)
				}
			}
		}
		_, packed := pack(t, dir, bundle.PackOptions{})
		if m := packed.Manifest; m.Kind != c.kind || m.Publisher != "acme" || m.Name != "acme.new" || !m.Created.Equal(at) {
			t.Errorf("%s %s: packed as %s of kind %s", c.kind, c.runtime, m.Ref(), m.Kind)
		}
	}
	for _, bad := range []bundle.Template{
		{Kind: manifests.KindTrust, Publisher: "acme", Name: "x", Created: at},
		{Kind: manifests.KindPlugin, Publisher: "acme", Name: "x", Created: at},
		{Kind: manifests.KindData, Publisher: "acme", Name: "\"", Created: at},
		{Kind: "../data", Publisher: "acme", Name: "x", Created: at},
	} {
		if files, err := bad.Files(); err == nil {
			t.Errorf("template of %+v has %d files", bad, len(files))
		}
	}
}

// TestPlainToolsReadABundle needs tar, zstd and sha256sum.
func TestPlainToolsReadABundle(t *testing.T) {
	for _, tool := range []string{"tar", "zstd", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %s is not in PATH", tool)
		}
	}
	text := strings.Repeat("text ", 1000)
	dir := folder(t, map[string]string{"stella.toml": source, "a": "1", "b": text})
	raw, packed := pack(t, dir, bundle.PackOptions{})
	out := t.TempDir()
	if err := os.WriteFile(out+"/b.stella", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `set -e
tar -xf b.stella
sha256sum stella.toml | cut -d' ' -f1
for f in blobs/sha256/*; do
  case $f in
  *.zst) zstd -qdc "$f" | sha256sum | cut -d' ' -f1 ;;
  *) sha256sum "$f" | cut -d' ' -f1 ;;
  esac
done`)
	cmd.Dir = out
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	sums := []string{digest([]byte("1")), digest([]byte(text))}
	slices.Sort(sums)
	want := packed.Digest + "\n" + strings.Join(sums, "\n") + "\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
