package export_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/stellarun/stella/export"
)

// split writes content in parts, or whole.
func split(t *testing.T, path string, size int64, force bool, content []byte) []export.Part {
	t.Helper()
	s, err := export.NewOutput(path, export.OutputOptions{PartBytes: size, Force: force})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for piece := range slices.Chunk(content, 100_003) {
		if _, err := s.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Finish(), s.Commit()); err != nil {
		t.Fatal(err)
	}
	return s.Parts()
}

// list are the names in a folder.
func list(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

func noise(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i*7 + i/251)
	}
	return out
}

// Parts are of the size that was asked for but the last, joined they are what was
// written, and the list has their digests.
func TestPartsJoinToWhatWasWritten(t *testing.T) {
	const size = export.MinPart
	for _, n := range []int{1, size - 1, size, size + 1, 2 * size, 3*size + 17} {
		path, content := filepath.Join(t.TempDir(), "a.tar"), noise(n)
		parts := split(t, path, size, false, content)
		var joined, sums bytes.Buffer
		for i, p := range parts {
			raw, err := os.ReadFile(p.Path)
			if err != nil {
				t.Fatal(err)
			}
			if p.Path != fmt.Sprintf("%s.%03d", path, i+1) || i < len(parts)-1 && len(raw) != size || len(raw) == 0 || p.Bytes != int64(len(raw)) {
				t.Errorf("%d bytes: part %d is %s with %d", n, i+1, p.Path, len(raw))
			}
			joined.Write(raw)
			fmt.Fprintf(&sums, "%s  %s\n", digest(raw), filepath.Base(p.Path))
		}
		if !bytes.Equal(joined.Bytes(), content) {
			t.Errorf("%d bytes: joined they are something else", n)
		}
		if got, err := os.ReadFile(path + ".sha256"); err != nil || !bytes.Equal(got, sums.Bytes()) {
			t.Errorf("%d bytes: the list is %q, %v", n, got, err)
		}
		if got := list(t, filepath.Dir(path)); len(got) != len(parts)+1 {
			t.Errorf("%d bytes: left are %v", n, got)
		}
	}
}

// What is given up, or would replace something, leaves nothing and changes nothing.
func TestArchivesThatAreGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar")
	s, err := export.NewOutput(path, export.OutputOptions{PartBytes: export.MinPart})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(noise(200_000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil || len(list(t, filepath.Dir(path))) != 0 {
		t.Errorf("given up: %v, left are %v", err, list(t, filepath.Dir(path)))
	}
	for _, there := range []string{path, path + ".007", path + ".sha256"} {
		if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := export.NewOutput(path, export.OutputOptions{PartBytes: export.MinPart}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s is there: %v", there, err)
		}
		if err := os.Remove(there); err != nil {
			t.Fatal(err)
		}
	}
	late, err := export.NewOutput(path, export.OutputOptions{PartBytes: export.MinPart})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Write(noise(10)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".001", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(late.Finish(), late.Commit()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a part that came meanwhile was replaced: %v", err)
	}
	if err := late.Close(); err != nil {
		t.Error(err)
	}
	if raw, err := os.ReadFile(path + ".001"); err != nil || string(raw) != "mine" || len(list(t, filepath.Dir(path))) != 1 {
		t.Errorf("it is %q, %v; left are %v", raw, err, list(t, filepath.Dir(path)))
	}
	for _, size := range []int64{-1, 1, export.MinPart - 1} {
		if _, err := export.NewOutput(path, export.OutputOptions{PartBytes: size, Force: true}); !errors.Is(err, export.ErrPartSize) {
			t.Errorf("parts of %d bytes: %v", size, err)
		}
	}
	if _, err := export.NewOutput(path+"\n", export.OutputOptions{PartBytes: export.MinPart, Force: true}); !errors.Is(err, export.ErrPartSize) {
		t.Errorf("a name with a line feed: %v", err)
	}
}

func TestMoreThan999Parts(t *testing.T) {
	if !*every {
		t.Skip("it makes 999 files durable: make soak")
	}
	s, err := export.NewOutput(filepath.Join(t.TempDir(), "a.tar"), export.OutputOptions{PartBytes: export.MinPart})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write(make([]byte, 999*export.MinPart)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{1}); !errors.Is(err, export.ErrPartSize) {
		t.Errorf("part 1000: %v", err)
	}
}

// With force what is there goes, however it was written, and parts too of which there are fewer
// now.
func TestAnArchiveReplacesAnother(t *testing.T) {
	const whole = 0
	for _, x := range []struct {
		before, after int64
		want          []string
	}{
		{export.MinPart, export.MinPart, []string{".001", ".002", ".sha256"}},
		{whole, export.MinPart, []string{".001", ".002", ".sha256"}},
		{export.MinPart, whole, []string{""}},
		{whole, whole, []string{""}},
	} {
		path := filepath.Join(t.TempDir(), "a[*]?.tar") // a name that means something in a pattern
		split(t, path, x.before, false, noise(4*export.MinPart))
		split(t, path, x.after, true, noise(export.MinPart+1))
		var want []string
		for _, end := range x.want {
			want = append(want, filepath.Base(path)+end)
		}
		if got := list(t, filepath.Dir(path)); !slices.Equal(got, want) {
			t.Errorf("after %d for %d there are %v", x.after, x.before, got)
		}
	}
}

// What comes under its name while an archive is made stays, and the archive is given up.
func TestNothingIsReplacedUnasked(t *testing.T) {
	for _, size := range []int64{0, export.MinPart} {
		path := filepath.Join(t.TempDir(), "a.tar")
		s, err := export.NewOutput(path, export.OutputOptions{PartBytes: size})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(noise(100_000)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Finish(), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
			t.Fatal(err)
		}
		var out *export.OutputError
		if err := s.Commit(); !errors.Is(err, fs.ErrExist) || !errors.As(err, &out) || out.Placed {
			t.Errorf("parts of %d: %v", size, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if raw, err := os.ReadFile(path); err != nil || string(raw) != "mine" || len(list(t, filepath.Dir(path))) != 1 {
			t.Errorf("parts of %d: it is %q, %v; left are %v", size, raw, err, list(t, filepath.Dir(path)))
		}
	}
}

// A name that leaves no room for those of parts is one of a whole archive.
func TestALongNameIsOfAWholeArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("a", 255))
	split(t, path, 0, false, noise(10))
	split(t, path, 0, true, noise(20))
	if _, err := export.NewOutput(path, export.OutputOptions{PartBytes: export.MinPart, Force: true}); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("in parts: %v", err)
	}
}

// large is an archive that takes several parts.
func large(t *testing.T) (*site, []byte) {
	t.Helper()
	s := newSite(t)
	for range 5 {
		r := rand.New(rand.NewPCG(uint64(len(s.entries)), 1))
		raw := make([]byte, 60_000)
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		s.startRunOf(s.blob(string(raw)))
	}
	s.startRunOf(s.blob("plan"))
	s.checkpoint()
	return s, s.archive(window(0, len(s.entries)-1))
}

// An archive in parts is judged like the whole one, by whatever it is named; one whose
// parts are not all there, or in another order, is not.
func TestArchivesInParts(t *testing.T) {
	s, archive := large(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	parts := split(t, path, export.MinPart, false, archive)
	if len(parts) < 4 {
		t.Fatalf("only %d parts", len(parts))
	}
	verdict := func(path string) (export.Verdict, error) {
		t.Helper()
		r, err := export.Verify(context.Background(), path, s.auditor())
		if err != nil {
			return "", err
		}
		return r.Verdict, nil
	}
	for _, name := range []string{path, path + ".001", dir} {
		if v, err := verdict(name); v != export.Verified {
			t.Errorf("%s: %s, %v", name, v, err)
		}
		if sum, err := export.Show(name, nil); err != nil || sum.Bytes != int64(len(archive)) {
			t.Errorf("%s: %+v, %v", name, sum, err)
		}
	}
	if _, err := verdict(path + ".002"); !errors.Is(err, export.ErrParts) {
		t.Errorf("the second part alone: %v", err)
	}
	last := parts[len(parts)-1].Path
	if err := os.Rename(last, last+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := verdict(path); !errors.Is(err, export.ErrParts) {
		t.Errorf("the last part is missing: %v", err)
	}
	if err := os.Remove(path + ".sha256"); err != nil {
		t.Fatal(err)
	}
	if v, err := verdict(path); v != export.Failed {
		t.Errorf("it is missing, and no list says so: %s, %v", v, err)
	}
	if err := errors.Join(os.Rename(last+".away", last), os.Rename(parts[1].Path, path+".x"), os.Rename(parts[2].Path, parts[1].Path), os.Rename(path+".x", parts[2].Path)); err != nil {
		t.Fatal(err)
	}
	if v, err := verdict(path); v != export.Failed {
		t.Errorf("two parts were exchanged: %s, %v", v, err)
	}
	if err := os.WriteFile(path+".sha256", []byte("x  a.tar.001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := verdict(path); err == nil {
		t.Error("a list that is none was believed")
	}
}

// encrypted is content for the recipients.
func encrypted(t *testing.T, content []byte, recipients ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := export.Encrypt(&out, recipients)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// An encrypted archive, in parts too, is judged with a key of any recipient, and with
// no other; each byte of it that was changed is noticed.
func TestArchivesThatAreEncrypted(t *testing.T) {
	s, archive := large(t)
	one, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	two, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	quantum, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	raw := encrypted(t, archive, one.Recipient().String(), two.Recipient().String())
	if plain, err := age.Decrypt(bytes.NewReader(raw), two); err != nil {
		t.Fatal(err)
	} else if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, archive) {
		t.Fatalf("age itself decrypts something else: %v", err)
	}
	path := filepath.Join(t.TempDir(), "a.tar.age")
	judge := func(raw []byte, identity string) (export.Verdict, error) {
		t.Helper()
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		opt := s.auditor()
		if identity != "" {
			opt.Identity = []byte(identity)
		}
		r, err := export.Verify(context.Background(), path, opt)
		if err != nil {
			return "", err
		}
		return r.Verdict, nil
	}
	for _, id := range []string{one.String(), "# mine\n\n" + two.String() + "\n", quantum.String() + "\n" + two.String()} {
		if v, err := judge(raw, id); v != export.Verified {
			t.Errorf("%s, %v", v, err)
		}
	}
	if v, err := judge(encrypted(t, archive, quantum.Recipient().String()), quantum.String()); v != export.Verified {
		t.Errorf("post-quantum: %s, %v", v, err)
	}
	var many bytes.Buffer // to more recipients than can be
	w, err := age.Encrypt(&many, slices.Repeat([]age.Recipient{one.Recipient()}, 5000)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(raw)
	flipped[len(raw)/2] ^= 1
	for what, c := range map[string]struct {
		raw      []byte
		identity string
		want     error
	}{
		"no key":            {raw, "", export.ErrEncrypted},
		"another's key":     {raw, quantum.String(), export.ErrNoIdentity},
		"no identity":       {raw, one.Recipient().String(), export.ErrIdentity},
		"text":              {[]byte("-----BEGIN AGE ENCRYPTED FILE-----\n"), one.String(), export.ErrEncrypted},
		"a header for ever": {append([]byte("age-encryption.org/v1\n"), bytes.Repeat([]byte("-> X25519 a\n"), 10_000)...), one.String(), export.ErrCiphertext},
		"a header too long": {many.Bytes(), one.String(), export.ErrCiphertext},
		"another byte":      {flipped, one.String(), export.ErrCiphertext},
		"cut":               {raw[:len(raw)-70_000], one.String(), export.ErrCiphertext},
		"only a beginning":  {raw[:30], one.String(), export.ErrCiphertext},
	} {
		if _, err := judge(c.raw, c.identity); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	for at := 0; at < len(raw); at += 1 + len(raw)/97 {
		changed := bytes.Clone(raw)
		changed[at] ^= 1
		if v, err := judge(changed, one.String()); err == nil && v != export.Failed {
			t.Errorf("byte %d changed, and it is %s", at, v)
		}
	}
	in := filepath.Join(t.TempDir(), "a.tar.age")
	split(t, in, export.MinPart, false, raw)
	opt := s.auditor()
	opt.Identity = []byte(two.String())
	if r, err := export.Verify(context.Background(), in, opt); err != nil || r.Verdict != export.Verified {
		t.Errorf("in parts: %v", err)
	}
}

func TestRecipients(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := id.Recipient().String()
	if got, err := export.Recipients([]string{"# a", "", " " + key + " "}); err != nil || !slices.Equal(got, []string{key}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{id.String(), key + key, "age1x", "ssh-ed25519 AAAA", "age1yubikey1qwerty", key + "\n" + key} {
		if _, err := export.Recipients([]string{bad}); !errors.Is(err, export.ErrRecipient) || err != nil && bytes.Contains([]byte(err.Error()), []byte(bad)) {
			t.Errorf("%.20s…: %v", bad, err)
		}
	}
	if _, err := export.Recipients(slices.Repeat([]string{key}, export.MaxRecipients+1)); !errors.Is(err, export.ErrRecipient) {
		t.Errorf("too many: %v", err)
	}
}

// FuzzArchiveBytes holds what is read before anything of an archive is known: whatever the
// bytes, no judgement is better than FAILED, and nothing panics.
func FuzzArchiveBytes(f *testing.F) {
	s := busySite(f)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("age-encryption.org/v1\n-> X25519 a\n"))
	f.Add([]byte("-----BEGIN AGE ENCRYPTED FILE-----"))
	f.Add([]byte("manifest.json"))
	opt := s.auditor()
	opt.Identity = []byte(id.String())
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := export.Verify(context.Background(), path, opt)
		if err == nil && r.Verdict != export.Failed {
			t.Errorf("%d bytes are %s", len(raw), r.Verdict)
		}
	})
}
