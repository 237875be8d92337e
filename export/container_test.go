package export_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
)

func TestContainersOfOtherFormsAreRefused(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(4, 20)))
	files := k.assemble()
	to := start.Add(20 * time.Second)
	build := func(edit func(name string, h *tar.Header) *tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, name := range tarOrder(files) {
			h := edit(name, &tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644, ModTime: to, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg})
			if h != nil {
				writeTar(t, w, h, files[name])
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	on := func(path string, f func(h *tar.Header)) func(string, *tar.Header) *tar.Header {
		return func(name string, h *tar.Header) *tar.Header {
			if name == path {
				f(h)
			}
			return h
		}
	}
	good := build(func(_ string, h *tar.Header) *tar.Header { return h })
	if r := check(t, good, s.auditor()); r.Verdict != export.Verified {
		t.Fatal(explain(r))
	}
	for name, archive := range map[string][]byte{
		"mode 0755":       build(on(runs, func(h *tar.Header) { h.Mode = 0o755 })),
		"an owner":        build(on(runs, func(h *tar.Header) { h.Uid = 1 })),
		"an owner's name": build(on(runs, func(h *tar.Header) { h.Uname = "root" })),
		"GNU":             build(on(runs, func(h *tar.Header) { h.Format = tar.FormatGNU })),
		"PAX":             build(on(runs, func(h *tar.Header) { h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"comment": "x"} })),
		"another time":    build(on(runs, func(h *tar.Header) { h.ModTime = to.Add(time.Second) })),
		"another name":    build(on(runs, func(h *tar.Header) { h.Name = "ledger/runs.ndjson.zsd" })),
		"a leading ./":    build(on(runs, func(h *tar.Header) { h.Name = "./" + runs })),
		"a file fewer": build(func(name string, h *tar.Header) *tar.Header {
			if name == runs {
				return nil
			}
			return h
		}),
		"two files exchanged": exchange(t, k, files, runs, proofFile),
		"nothing":             nil,
		"two zero blocks":     make([]byte, 1024),
		"twice":               append(bytes.Clone(good[:len(good)-1024]), good...),
		"a third zero block":  append(bytes.Clone(good), make([]byte, 512)...),
		"one zero block":      good[:len(good)-512],
		"gzip":                []byte("\x1f\x8b\x08\x00"),
	} {
		if got := failed(check(t, archive, s.auditor())); !cmp.Equal(got, []string{"form"}) {
			t.Errorf("%s: failed %v, want form", name, got)
		}
	}
	all := build(func(_ string, h *tar.Header) *tar.Header { h.ModTime = to.Add(time.Second); return h })
	if got := failed(check(t, all, s.auditor())); !cmp.Equal(got, []string{"manifest"}) {
		t.Errorf("all of another time: failed %v, want manifest", got)
	}
}

// exchange packs files with two of them in each other's place.
func exchange(t *testing.T, k *kit, files map[string][]byte, a, b string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range tarOrder(files) {
		switch name {
		case a:
			name = b
		case b:
			name = a
		}
		writeTar(t, w, &tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644, ModTime: start.Add(20 * time.Second), Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}, files[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Signatures are made by the key, over these sums, in the one form.
func TestSignaturesOfOtherFormsAreRefused(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(4, 20)))
	good := string(k.assemble()["SHA256SUMS.sigstore.json"])
	other := string(takeApart(t, s, s.archive(window(4, 19))).files["SHA256SUMS.sigstore.json"])
	field := func(file, name string) string {
		_, rest, ok := strings.Cut(file, `"`+name+`":"`)
		value, _, ok2 := strings.Cut(rest, `"`)
		if !ok || !ok2 {
			t.Fatalf("no %s in %s", name, file)
		}
		return value
	}
	for name, sig := range map[string]string{
		"of other sums":                      other,
		"of other sums, said to be of these": strings.Replace(good, field(good, "signature"), field(other, "signature"), 1),
		"with white space":                   good + "\n",
		"with a field more":                  strings.Replace(good, `{"mediaType"`, `{"a":1,"mediaType"`, 1),
		"of another media type":              strings.Replace(good, "v0.3", "v0.2", 1),
		"without padding":                    strings.ReplaceAll(good, `="`, `"`),
		"nothing":                            "",
		"an object":                          "{}",
		"null":                               "null",
	} {
		files := k.assemble()
		files["SHA256SUMS.sigstore.json"] = []byte(sig)
		if got := failed(check(t, k.pack(files), s.auditor())); !cmp.Equal(got, []string{"signature"}) {
			t.Errorf("%s: failed %v, want signature", name, got)
		}
	}
}

// The list of digests has one form, even if it is signed.
func TestSumsOfOtherFormsAreRefused(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(4, 20)))
	lines := strings.SplitAfter(string(k.assemble()["SHA256SUMS"]), "\n")
	join := func(l ...string) string { return strings.Join(l, "") }
	all := join(lines...)
	for name, sums := range map[string]string{
		"two lines exchanged":  join(append([]string{lines[1], lines[0]}, lines[2:]...)...),
		"a line twice":         lines[0] + all,
		"a line fewer":         join(lines[1:]...),
		"a file of no archive": all + strings.Repeat("0", 64) + "  zzz\n",
		"itself":               all + strings.Repeat("0", 64) + "  SHA256SUMS\n",
		"one blank":            strings.Replace(all, "  ", " ", 1),
		"binary mode":          strings.Replace(all, "  ", " *", 1),
		"upper case":           strings.ToUpper(lines[0][:64]) + join(append([]string{lines[0][64:]}, lines[1:]...)...),
		"no last line feed":    strings.TrimSuffix(all, "\n"),
		"nothing":              "",
	} {
		files := k.assemble()
		files["SHA256SUMS"] = []byte(sums)
		var err error
		if files["SHA256SUMS.sigstore.json"], err = s.sign([]byte(sums)); err != nil {
			t.Fatal(err)
		}
		if got := failed(check(t, k.pack(files), s.auditor())); len(got) == 0 || got[0] != "sums" {
			t.Errorf("%s: failed %v, want sums first", name, got)
		}
	}
}

// Content is bounded by what the manifest says, not by what a frame holds.
func TestABombIsStoppedWhereTheManifestSays(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(4, 20)))
	k.describe()
	bomb := zstdFrame(t, bytes.Repeat([]byte("\n"), 64<<20))
	for i := range k.manifest.Files {
		if f := &k.manifest.Files[i]; f.Path == logs {
			f.Bytes, f.SHA256 = int64(len(bomb)), digest(bomb)
		}
	}
	k.set("manifest.json", k.manifest)
	k.raw = map[string][]byte{logs: bomb}
	for _, c := range check(t, k.pack(k.sign()), s.auditor()).Checks {
		if c.Name == "content" && (c.Status != export.Bad || c.File != logs || !strings.Contains(c.Detail, "decompresses to more")) {
			t.Errorf("%+v: 64 MiB were read", c)
		}
	}
}

// To a decoder, a frame that it skips is as good as an empty one.
func TestASkippableFrameIsNotAnEmptyFile(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(0, 4))) // no runs
	k.describe()
	raw := []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 0, 0} // its content reads as an empty last block
	if len(k.files[runs]) > 0 || len(unzstd(t, raw)) > 0 {
		t.Fatal("the file is not empty")
	}
	for i := range k.manifest.Files {
		if f := &k.manifest.Files[i]; f.Path == runs {
			f.Bytes, f.SHA256 = int64(len(raw)), digest(raw)
		}
	}
	k.set("manifest.json", k.manifest)
	k.raw = map[string][]byte{runs: raw}
	if got := failed(check(t, k.pack(k.sign()), s.auditor())); !cmp.Equal(got, []string{"content"}) {
		t.Errorf("failed %v, want content", got)
	}
}

func TestFramesOfOtherFormsAreRefused(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(4, 20)))
	k.describe()
	frame := zstdFrame(t, k.files[runs])
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}
	for name, raw := range map[string][]byte{
		"a second frame":             append(bytes.Clone(frame), zstdFrame(t, nil)...),
		"a skippable frame behind":   append(bytes.Clone(frame), skippable...),
		"a skippable frame in front": append(bytes.Clone(skippable), frame...),
		"a byte behind":              append(bytes.Clone(frame), 0),
		"cut":                        frame[:len(frame)-1],
		"not compressed":             k.files[runs],
		"nothing":                    {},
	} {
		for i := range k.manifest.Files {
			if f := &k.manifest.Files[i]; f.Path == runs {
				f.Bytes, f.SHA256 = int64(len(raw)), digest(raw)
			}
		}
		k.set("manifest.json", k.manifest)
		k.raw = map[string][]byte{runs: raw}
		if got := failed(check(t, k.pack(k.sign()), s.auditor())); !cmp.Equal(got, []string{"content"}) {
			t.Errorf("%s: failed %v, want content", name, got)
		}
	}
}
