package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// codeOf is the code of an API error, "" for none.
func codeOf(err error) api.Code {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// ran makes a site that has run the main job once, and says what lies where.
func ran(t *testing.T) (l *lab, run string) {
	t.Helper()
	l = newLab(t)
	l.script("audit-hello", artifactScript, true)
	l.publish("1.0.0", hello)
	res := l.start(api.StartRequest{DAGID: "audit"})
	l.execute()
	return l, res.Run.RunID
}

const artifactScript = helloScript + `echo found > "$STELLA_ARTIFACTS/report.txt"
echo '{"artifact":{"name":"report.txt"}}' >> "$STELLA_OUTPUT"
i=0; while [ $i -lt 100 ]; do echo "a log that is long enough for a file of its own, line $i"; i=$((i+1)); done
`

// Whatever is sealed is hashed by ledger verify --full, and importing the bundle
// again mends what is damaged of it.
func TestVerifyLedgerReadsContents(t *testing.T) {
	ctx := context.Background()
	l, run := ran(t)
	file := l.scriptFile("audit-hello", artifactScript, true)
	if _, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil); err != nil {
		t.Fatal(err)
	}
	show, err := l.site().ShowBundle(ctx, "acme/audit-hello@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	program := ""
	for _, f := range show.Files {
		if f.Path == "bin/run.sh" {
			program = f.SHA256
		}
	}
	blob := func(digest string) string { return filepath.Join(l.home, "sealed", "sha256", digest[:2], digest) }
	logs, err := filepath.Glob(filepath.Join(l.home, "logs", "??", "*.jsonl"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	targets := map[string]string{"program": blob(program), "manifest": blob(show.Digest), "log": logs[0]}
	list, err := l.site().ListArtifacts(ctx, run)
	if err != nil || len(list) == 0 {
		t.Fatalf("no artifacts: %v", err)
	}
	targets["artifact"] = blob(list[0].SHA256)
	for what, path := range targets {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for how, harm := range map[string]func(){
			"flipped": func() { overwrite(t, path, append([]byte{raw[0] ^ 1}, raw[1:]...)) },
			"emptied": func() { overwrite(t, path, nil) },
			"deleted": func() { unlink(t, path) },
		} {
			harm()
			_, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil)
			if codeOf(err) != api.CodeDamaged || !strings.Contains(err.Error(), "entry") {
				t.Errorf("%s %s: verify says %v", what, how, err)
			}
			if what == "program" || what == "manifest" {
				if res := l.importFile(file); !res.Already {
					t.Errorf("%s %s: imported as something new", what, how)
				}
			} else {
				overwrite(t, path, raw)
			}
			if _, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil); err != nil {
				t.Errorf("%s %s: after the mend verify says %v", what, how, err)
			}
		}
	}
}

// overwrite changes a file in a folder that may be read-only.
func overwrite(t *testing.T, path string, raw []byte) {
	t.Helper()
	unlink(t, path)
	os.Chmod(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(path), 0o555)
}

func unlink(t *testing.T, path string) {
	t.Helper()
	os.Chmod(filepath.Dir(path), 0o755)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// copies adds checkpoint copies to the site.toml of a lab.
func (l *lab) copies(paths ...string) {
	l.t.Helper()
	if err := l.e.Close(); err != nil {
		l.t.Fatal(err)
	}
	text := "schema = \"stella.site/1\"\nallow_plain = true\n"
	if len(paths) > 0 {
		text += fmt.Sprintf("checkpoint_copies = [%q]\n", paths[0])
	}
	if err := os.WriteFile(filepath.Join(l.home, "site.toml"), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) tryOpen() error {
	e, err := engine.Open(context.Background(), engine.Options{Home: l.home})
	if err != nil {
		return err
	}
	return e.Close()
}

// waive goes on without a floor.
func (l *lab) waive(floor string) {
	l.t.Helper()
	e, err := engine.Open(context.Background(), engine.Options{Home: l.home, Waive: &engine.Waiver{Floor: floor, Reason: "test", Actor: who}})
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// A copy of the checkpoint may be asked for at any time; once it was written,
// the site does not open without it.
func TestCheckpointCopies(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(t.TempDir(), "copy.note")
	l.copies(path)
	l.open()
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.reopen()
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	note, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(note) == string(old) {
		t.Error("the copy did not follow the ledger")
	}
	for what, x := range map[string]struct {
		raw  []byte
		good bool
		code api.Code
	}{"an older one": {old, true, ""}, "none": {nil, false, api.CodeFloorLost}, "another text": {[]byte("x\n"), false, api.CodeDamaged}} {
		os.Remove(path)
		if x.raw != nil {
			os.WriteFile(path, x.raw, 0o644)
		}
		err := l.tryOpen()
		if good := err == nil; good != x.good || !x.good && codeOf(err) != x.code {
			t.Errorf("with %s: %v", what, err)
		}
	}
	os.Remove(path)
	l.copies() // an edit does not give it up
	if err := l.tryOpen(); codeOf(err) != api.CodeFloorLost {
		t.Errorf("a copy that site.toml no longer names: %v", err)
	}
	l.waive(path)
	l.open()
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.copies(path)
	if err := l.tryOpen(); err != nil {
		t.Errorf("a copy that was given up and asked for again: %v", err)
	}
}

// A copy that was written by a longer ledger speaks against this one, even
// where this one does not remember it, and is not overwritten.
func TestACopyShowsARollback(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(t.TempDir(), "copy.note")
	l.copies(path)
	before := filepath.Join(t.TempDir(), "before")
	removable(t, before)
	if out, err := exec.Command("cp", "-a", l.home, before).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	l.open()
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = engine.Open(context.Background(), engine.Options{Home: before})
	if codeOf(err) != api.CodeDamaged {
		t.Errorf("a ledger from before opens: %v", err)
	}
	hidden := path + ".away"
	os.Rename(path, hidden)
	e, err := engine.Open(context.Background(), engine.Options{Home: before})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	os.Rename(hidden, path)
	if _, err := e.As(api.Principal{Name: who}).Checkpoint(context.Background()); codeOf(err) != api.CodeConflict {
		t.Errorf("checkpoint over a copy of a longer ledger: %v", err)
	}
	if now, _ := os.ReadFile(path); string(now) != string(written) {
		t.Error("the evidence was overwritten")
	}
}

// A copy that cannot be written stops neither the end nor a start.
func TestACopyThatCannotBeWritten(t *testing.T) {
	l := newLab(t)
	l.copies(filepath.Join(t.TempDir(), "no", "such", "copy.note"))
	l.open()
	if _, err := l.site().Checkpoint(context.Background()); codeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "copy") {
		t.Errorf("checkpoint: %v", err)
	}
	l.reopen()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// A site can be made in an empty folder that stays the same folder, as a mount
// point must, and whose file system has its own folder in it.
func TestInitInAnEmptyFolder(t *testing.T) {
	home := t.TempDir()
	removable(t, home)
	if err := os.Mkdir(filepath.Join(home, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	inode := func() uint64 {
		fi, err := os.Stat(home)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Sys().(*syscall.Stat_t).Ino
	}
	before := inode()
	res, err := engine.Init(home, engine.InitOptions{AllowPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	if res.Home != home || inode() != before {
		t.Errorf("the site lies in %s, the folder was replaced: %v", res.Home, inode() != before)
	}
	fi, err := os.Stat(home)
	if err != nil || fi.Mode().Perm() != 0o700 || strings.Contains(names(t, home), ".stella-init") {
		t.Errorf("home: %v %v: %s", fi.Mode(), err, names(t, home))
	}
	l := &lab{t: t, home: home}
	if err := l.tryOpen(); err != nil {
		t.Error(err)
	}
	if _, err := engine.Init(home, engine.InitOptions{}); codeOf(err) != api.CodeSiteExists {
		t.Errorf("a second init: %v", err)
	}
}

// An init that fails leaves the folder as empty as it was.
func TestInitThatFails(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "root.toml")
	if err := os.WriteFile(bad, []byte("no root"), 0o644); err != nil {
		t.Fatal(err)
	}
	opt := engine.InitOptions{RootFile: bad, ExpectRoot: strings.Repeat("0", 64)}
	home := t.TempDir()
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Init(home, opt); codeOf(err) != api.CodeTrustChanged {
		t.Errorf("init: %v", err)
	}
	if fi, err := os.Stat(home); err != nil || names(t, home) != "" || fi.Mode().Perm() != 0o755 {
		t.Errorf("the folder holds %q, mode %v, %v", names(t, home), fi.Mode(), err)
	}
	parent := t.TempDir()
	if _, err := engine.Init(filepath.Join(parent, "site"), opt); codeOf(err) != api.CodeTrustChanged {
		t.Errorf("init: %v", err)
	}
	if names(t, parent) != "" {
		t.Errorf("the parent holds %q", names(t, parent))
	}
}

// What permissions forbid is no damage. It runs as another user, since root
// may do everything.
func TestAHomeThatIsNotOurs(t *testing.T) {
	if home := os.Getenv("STELLA_TEST_FOREIGN"); home != "" {
		_, err := engine.Init(filepath.Join(home, "new"), engine.InitOptions{})
		fmt.Println("init beside:", codeOf(err))
		_, err = engine.Init(filepath.Join(home, "empty"), engine.InitOptions{})
		fmt.Println("init inside:", codeOf(err))
		_, err = engine.Open(context.Background(), engine.Options{Home: filepath.Join(home, "site")})
		fmt.Println("open:", codeOf(err))
		_, err = engine.Init(filepath.Join(home, "ours"), engine.InitOptions{})
		fmt.Println("init of ours:", err)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("it needs root, to become somebody else")
	}
	dir, err := os.MkdirTemp("/tmp", "stella-foreign-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	site := filepath.Join(dir, "site")
	if _, err := engine.Init(site, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	os.Chmod(site, 0o755) // so that the file is what refuses
	for _, d := range []string{"empty", "ours"} {
		os.Mkdir(filepath.Join(dir, d), 0o755)
	}
	os.Chown(filepath.Join(dir, "ours"), 65534, 65534)
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "self.test")
	if err := os.WriteFile(self, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestAHomeThatIsNotOurs$")
	cmd.Dir = dir
	cmd.Env = []string{"STELLA_TEST_FOREIGN=" + dir, "TMPDIR=/tmp", "PATH=/bin:/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		"init beside: NOT_WRITABLE", "init inside: NOT_WRITABLE", "open: NOT_WRITABLE", "init of ours: <nil>",
	} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if got := names(t, filepath.Join(dir, "empty")); got != "" {
		t.Errorf("the folder of somebody else holds %q", got)
	}
}
