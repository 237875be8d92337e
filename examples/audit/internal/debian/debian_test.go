package debian_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/examples/audit/internal/debian"
)

func control(text string) ([]debian.Paragraph, error) {
	var out []debian.Paragraph
	err := debian.ReadControl(strings.NewReader(text), func(p debian.Paragraph) error {
		out = append(out, p)
		return nil
	})
	return out, err
}

func TestReadControl(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []debian.Paragraph
	}{
		{"nothing", "", nil},
		{"blank lines alone", "\n \n\t\n", nil},
		{"one paragraph without a last line feed", "A: b", []debian.Paragraph{{"a": "b"}}},
		{"names without regard to case, values without outer white space", "PackAge:\t x \r\n", []debian.Paragraph{{"package": "x"}}},
		{"a value with a colon", "A: b: c", []debian.Paragraph{{"a": "b: c"}}},
		{"an empty value with continuations", "A:\n b\n\tc\n", []debian.Paragraph{{"a": "\nb\nc"}}},
		{"a dot stands for an empty line", "D: x\n .\n y\n", []debian.Paragraph{{"d": "x\n.\ny"}}},
		{"a comment inside a value", "A: b\n# no\n c\n", []debian.Paragraph{{"a": "b\nc"}}},
		{"white space ends a paragraph", "A: b\n \nC: d\n\n\n\nE: f", []debian.Paragraph{{"a": "b"}, {"c": "d"}, {"e": "f"}}},
	} {
		got, err := control(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
	}
}

func TestReadControlRefuses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		line       int
	}{
		{"a continuation of nothing", " a\n", 1},
		{"a continuation after a blank line", "A: b\n\n c\n", 3},
		{"a line that is no field", "A: b\nno field\n", 2},
		{"a field twice, in other case", "A: b\na: c\n", 2},
		{"no name", ": b\n", 1},
		{"a name with a space", "A b: c\n", 1},
		{"a name that begins with a hyphen", "-A: c\n", 1},
	} {
		_, err := control(c.text)
		if e, ok := errors.AsType[*debian.SyntaxError](err); !ok || e.Line != c.line {
			t.Errorf("%s: %v; want a SyntaxError on line %d", c.name, err, c.line)
		}
	}
}

func TestReadControlLimits(t *testing.T) {
	for name, text := range map[string]string{
		"a long line":  "A: " + strings.Repeat("x", 2<<20),
		"a long value": "A: b\n" + strings.Repeat(" "+strings.Repeat("x", 1<<19)+"\n", 3),
		"many fields":  manyFields(300),
	} {
		if _, err := control(text); !errors.Is(err, debian.ErrTooLarge) {
			t.Errorf("%s: %v; want ErrTooLarge", name, err)
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("F" + strings.Repeat("x", i) + ": y\n")
	}
	return b.String()
}

func FuzzReadControl(f *testing.F) {
	for _, s := range []string{
		"Package: a\nStatus: install ok installed\nDepends: b (>= 1) | c,\n d\n\nPackage: e\n", "A:\n b\n .\n", "#\nA: b", "A: b\nA: c", "\x00: b", " \n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := control(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, p := range first {
			for name, value := range p {
				b.WriteString(name + ":" + strings.ReplaceAll(value, "\n", "\n ") + "\n")
			}
			b.WriteString("\n")
		}
		second, err := control(b.String())
		if diff := cmp.Diff(first, second); err != nil || diff != "" {
			t.Errorf("%q read, written and read again: %v\n%s", text, err, diff)
		}
	})
}

const status = `Package: libssl3
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: openssl
Version: 3.0.11-1~deb12u2
Depends: libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0
Description: text
 more text
 .
 Status: not a field

Package: held
Status: hold ok installed
Architecture: amd64
Version: 1.0-1

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0-1

Package: broken
Status: install reinstreq half-installed
Architecture: amd64
Version: 1.0-1

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+b1
Provides: libc6-2.36, other (= 1)
Pre-Depends: libgcc-s1:any <!cross>
`

func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadDatabase(t *testing.T) {
	root := writeTree(t, map[string]string{
		"var/lib/dpkg/status":                   status,
		"var/lib/dpkg/status.d/tzdata":          "Package: tzdata\nVersion: 2024a-0+deb12u1\nArchitecture: all\n",
		"var/lib/dpkg/status.d/tzdata.md5sums":  "not a control file",
		"var/lib/dpkg/status.d/folder/unlooked": "not a control file",
	})
	got, err := debian.ReadDatabase(root)
	if err != nil {
		t.Fatal(err)
	}
	want := debian.Database{Partial: 1, Packages: []debian.Package{
		{Name: "held", Version: "1.0-1", Arch: "amd64", Source: "held", SourceVersion: "1.0-1", File: "status"},
		{
			Name: "libc6", Version: "2.36-9+b1", Arch: "amd64", Source: "glibc", SourceVersion: "2.36-9", File: "status",
			Depends: [][]string{{"libgcc-s1"}}, Provides: []string{"libc6-2.36", "other"},
		},
		{
			Name: "libssl3", Version: "3.0.11-1~deb12u2", Arch: "amd64", Source: "openssl", SourceVersion: "3.0.11-1~deb12u2", File: "status",
			Depends: [][]string{{"libc6"}, {"debconf", "debconf-2.0"}},
		},
		{Name: "tzdata", Version: "2024a-0+deb12u1", Arch: "all", Source: "tzdata", SourceVersion: "2024a-0+deb12u1", File: "status.d/tzdata"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReadDatabaseRefuses(t *testing.T) {
	good := "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
	for name, text := range map[string]string{
		"no status":           "Package: a\nVersion: 1\nArchitecture: all\n",
		"a path as a name":    strings.Replace(good, "Package: a", "Package: ../a", 1),
		"markup as a name":    strings.Replace(good, "Package: a", "Package: <b>", 1),
		"no version":          strings.Replace(good, "Version: 1\n", "", 1),
		"a bad version":       strings.Replace(good, "Version: 1", "Version: 1 2", 1),
		"no architecture":     strings.Replace(good, "Architecture: all\n", "", 1),
		"a bad source":        good + "Source: b (1\n",
		"a source of nothing": good + "Source: (1)\n",
	} {
		root := writeTree(t, map[string]string{"var/lib/dpkg/status": text})
		if db, err := debian.ReadDatabase(root); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v; want an error", name, db, err)
		}
	}
}

func TestReadDatabaseIsMissing(t *testing.T) {
	if _, err := debian.ReadDatabase(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no database: %v; want ErrNotExist", err)
	}
}

func TestReadDatabaseWaitsForNothingAndFollowsNoLink(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a link": func(p string) error {
			return os.Symlink(filepath.Join(filepath.Dir(p), "elsewhere"), p)
		},
		"a pipe": func(p string) error { return syscall.Mkfifo(p, 0o644) },
	} {
		root := writeTree(t, map[string]string{"var/lib/dpkg/elsewhere": status})
		if err := make(filepath.Join(root, "var/lib/dpkg/status")); err != nil {
			t.Fatal(err)
		}
		if db, err := debian.ReadDatabase(root); err == nil {
			t.Errorf("%s: read %d packages; want an error", name, len(db.Packages))
		}
	}
}

func TestParseRelease(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       debian.Release
		distro     string
	}{
		{
			"a stable release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\n# c\nVERSION_CODENAME=bookworm\nID=debian\n",
			debian.Release{ID: "debian", VersionID: "12", Codename: "bookworm", Pretty: "Debian GNU/Linux 12 (bookworm)"}, "debian-12",
		},
		{"unstable has no number", "ID=debian\n", debian.Release{ID: "debian"}, "debian"},
		{"nothing", "", debian.Release{ID: "linux"}, "linux"},
		{"single quotes and backslashes", "ID='ubuntu'\nPRETTY_NAME=\"a \\\"b\\\"\"\n", debian.Release{ID: "ubuntu", Pretty: `a "b"`}, "ubuntu"},
		{"markup where a name should be", "ID=<b>\nVERSION_ID=\"1 2\"\n", debian.Release{ID: "linux"}, "linux"},
	} {
		got := debian.ParseRelease(c.text)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
		if got.Distro() != c.distro {
			t.Errorf("%s: distro %q, want %q", c.name, got.Distro(), c.distro)
		}
	}
}

func TestReadReleasePrefersTheFileToTheLink(t *testing.T) {
	root := writeTree(t, map[string]string{"usr/lib/os-release": "ID=debian\nVERSION_ID=12\n"})
	if r, err := debian.ReadRelease(root); err != nil || r.Distro() != "debian-12" {
		t.Errorf("ReadRelease = %v, %v", r, err)
	}
	root = writeTree(t, map[string]string{"etc/os-release": "ID=other\n"})
	if r, err := debian.ReadRelease(root); err != nil || r.ID != "other" {
		t.Errorf("ReadRelease = %v, %v", r, err)
	}
	if _, err := debian.ReadRelease(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v; want ErrNotExist", err)
	}
}
