package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	wsys "github.com/tetratelabs/wazero/experimental/sys"
)

// TestGuestFS goes through the calls that no ordinary guest makes.
func TestGuestFS(t *testing.T) {
	dir := t.TempDir()
	for _, d := range append(writtenDirs(), bundleDir, dataDir, inputsDir, secretsDir) {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(secret, []byte("victim"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Links that a guest cannot make, but might find.
	for name, target := range map[string]string{"work/out": secret, "work/up": "../..", "work/in": "file"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	g := newGuestFS(root, true)
	testGuestEscapes(t, g)
	if raw, err := os.ReadFile(secret); string(raw) != "victim" {
		t.Errorf("the victim now holds %q, %v", raw, err)
	}
	testGuestFiles(t, g)
}

func testGuestEscapes(t *testing.T, g *guestFS) {
	t.Helper()
	open := func(p string, flag wsys.Oflag) func() wsys.Errno {
		return func() wsys.Errno {
			f, errno := g.OpenFile(p, flag, 0o644)
			if errno == 0 {
				f.Close()
			}
			return errno
		}
	}
	const create = wsys.O_WRONLY | wsys.O_CREAT
	for name, try := range map[string]func() wsys.Errno{
		"open ..":               open("..", wsys.O_RDONLY),
		"open above":            open("work/../../x", wsys.O_RDONLY),
		"open a link out":       open("work/out", wsys.O_RDONLY),
		"write a link out":      open("work/out", wsys.O_WRONLY|wsys.O_TRUNC),
		"open below a link up":  open("work/up/etc", wsys.O_RDONLY),
		"create below a link":   open("work/up/x", create),
		"create at the root":    open("x", create),
		"create in bundle":      open("bundle/x", create),
		"truncate a folder":     open("work", wsys.O_RDONLY|wsys.O_TRUNC),
		"stat a link out":       func() wsys.Errno { _, e := g.Stat("work/out"); return e },
		"times of a link out":   func() wsys.Errno { return g.Utimens("work/out", 0, 0) },
		"mkdir below a link":    func() wsys.Errno { return g.Mkdir("work/up/d", 0o755) },
		"rename out":            func() wsys.Errno { return g.Rename("work/in", "work/up/x") },
		"symlink":               func() wsys.Errno { return g.Symlink("/etc", "work/l") },
		"link":                  func() wsys.Errno { return g.Link("work/in", "work/h") },
		"readlink":              func() wsys.Errno { _, e := g.Readlink("work/out"); return e },
		"remove a folder of us": func() wsys.Errno { return g.Rmdir("work") },
		"unlink a folder":       func() wsys.Errno { return g.Unlink("tmp") },
		"chmod":                 func() wsys.Errno { return g.Chmod("work/in", 0o777) },
	} {
		if errno := try(); errno == 0 {
			t.Errorf("%s: succeeded", name)
		}
	}
}

func testGuestFiles(t *testing.T, g *guestFS) {
	t.Helper()
	for i := range 300 {
		f, errno := g.OpenFile(fmt.Sprintf("tmp/f%03d", i), wsys.O_RDWR|wsys.O_CREAT|wsys.O_EXCL, 0o600)
		if errno != 0 {
			t.Fatal(errno)
		}
		if _, errno := f.Write([]byte("ab")); errno != 0 {
			t.Fatal(errno)
		}
		if errno := f.SetAppend(true); errno != 0 || !f.IsAppend() {
			t.Fatal(errno)
		}
		if _, errno := f.Seek(0, 0); errno != 0 {
			t.Fatal(errno)
		}
		if _, errno := f.Write([]byte("c")); errno != 0 {
			t.Fatal(errno)
		}
		buf := make([]byte, 8)
		if n, errno := f.Pread(buf, 0); errno != 0 || string(buf[:n]) != "abc" {
			t.Fatalf("%q, %v", buf[:n], errno)
		}
		if st, errno := f.Stat(); errno != 0 || st.Mtim != fixedTime || st.Size != 3 {
			t.Fatalf("%+v, %v", st, errno)
		}
		if errno := f.Close(); errno != 0 {
			t.Fatal(errno)
		}
	}
	testGuestFolder(t, g)
	if errno := g.Utimens("tmp/f000", wsys.UTIME_OMIT, 5e9); errno != 0 {
		t.Error(errno)
	}
	if info, err := g.root.Stat("tmp/f000"); err != nil || info.ModTime().Unix() != 5 {
		t.Errorf("%v, %v", info.ModTime(), err)
	}
	if errno := g.Unlink("tmp/f000"); errno != 0 {
		t.Error(errno)
	}
}

func testGuestFolder(t *testing.T, g *guestFS) {
	t.Helper()
	d, errno := g.OpenFile("tmp", wsys.O_RDONLY|wsys.O_DIRECTORY, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer d.Close()
	for range 2 { // the second time after rewinding
		n := 0
		for {
			list, errno := d.Readdir(7)
			if errno != 0 {
				t.Fatal(errno)
			}
			for _, e := range list {
				if want := fmt.Sprintf("f%03d", n); e.Name != want || e.Ino == 0 || e.Type != 0 {
					t.Fatalf("entry %d is %v, want %s", n, e, want)
				}
				n++
			}
			if len(list) < 7 {
				break
			}
		}
		if n != 300 {
			t.Errorf("%d entries", n)
		}
		if _, errno := d.Seek(0, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
}
