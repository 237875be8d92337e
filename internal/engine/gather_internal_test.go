package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
)

// What a folder holds is found whatever its order, and what is no bundle is
// named; nothing below a link, a hidden folder or the limit of depth is looked at.
func TestGather(t *testing.T) {
	dir := t.TempDir()
	deep := "d" + strings.Repeat("/d", maxMediaDepth-1)
	for _, name := range []string{
		"b.stella", "a.stella", "sub/c.stella", deep + "/in.stella", deep + "/d/out.stella", ".hidden/x.stella", "._a.stella", ".b.stella",
		"$RECYCLE.BIN/x.stella", "lost+found/x.stella", "a.stella.txt", "elsewhere/y.txt",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"l.stella": "a.stella", "folder": "sub"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	g, err := gather([]string{dir, filepath.Join(dir, "b.stella")})
	if err != nil {
		t.Fatal(err)
	}
	rel := func(path string) string { return strings.TrimPrefix(path, dir+"/") }
	var files, skipped []string
	for _, f := range g.files {
		files = append(files, rel(f))
	}
	for _, s := range g.skipped {
		skipped = append(skipped, rel(s.Path))
	}
	if diff := cmp.Diff([]string{"a.stella", "b.stella", deep + "/in.stella", "sub/c.stella"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	want := []string{"$RECYCLE.BIN", "._a.stella", ".b.stella", ".hidden", "a.stella.txt", deep + "/d", "elsewhere/y.txt", "folder", "l.stella", "lost+found"}
	if diff := cmp.Diff(want, skipped); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
}

func TestGatherHasLimits(t *testing.T) {
	full := &gathering{files: make([]string, maxMediaFiles), names: maxMediaNames}
	if err := full.file("/one/more.stella"); err == nil || !strings.Contains(err.Error(), "more than 10000 bundles") {
		t.Errorf("too many bundles: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := full.folder(dir, 1); err == nil || !strings.Contains(err.Error(), "more than 100000 files") {
		t.Errorf("too many names: %v", err)
	}
	dir = t.TempDir()
	for i := range maxSkipped + 5 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.txt", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if g, err := gather([]string{dir}); err != nil || len(g.skipped) != maxSkipped || g.more != 5 {
		t.Errorf("%d skipped and %d more, %v", len(g.skipped), g.more, err)
	}
}

func TestMounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	err := os.WriteFile(file, []byte(`22 1 8:1 / / rw - ext4 /dev/root rw
30 22 8:17 / /media/my\040stick rw,nosuid shared:3 - vfat /dev/sdb1 rw
31 22 0:5 / /media/my\040stick/in rw - tmpfs x`+"\x1b"+`y rw
nonsense
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	mounts := readMounts(file)
	stick := ledger.Medium{Mount: "/media/my stick", Device: "/dev/sdb1", FSType: "vfat"}
	for path, want := range map[string]ledger.Medium{
		"/media/my stick":          stick,
		"/media/my stick/a.stella": stick,
		"/media/my stickier":       {Mount: "/", Device: "/dev/root", FSType: "ext4"},
		"/media/my stick/in/x":     {Mount: "/media/my stick/in", Device: "x?y", FSType: "tmpfs"},
	} {
		if got, ok := mountOf(mounts, path); !ok || got != want {
			t.Errorf("%s lies on %+v, want %+v", path, got, want)
		}
	}
	if readMounts(filepath.Join(t.TempDir(), "none")) != nil {
		t.Error("mounts of a file that is not there")
	}
}

func TestNamesBecomeUTF8(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "caf\xe9.stella": `caf\xe9.stella`, "\x80\xffé": `\x80\xffé`} {
		if got := valid(in); got != want {
			t.Errorf("valid(%q) = %q, want %q", in, got, want)
		}
	}
	if got := plain("a\x1b[2Jé" + strings.Repeat("x", 300)); len(got) != 256 || !strings.HasPrefix(got, "a?[2J??x") {
		t.Errorf("plain = %q", got)
	}
}
