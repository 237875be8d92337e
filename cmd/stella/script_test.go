package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/verify"
)

func TestMain(m *testing.M) {
	sandbox.WASMMain()
	testscript.Main(m, map[string]func(){"stella": mainAt})
}

// mainAt is main with a clock that CLOCK_SHIFT moves, a duration, and with PATIENCE, another.
// With WAITS it waits as a daemon does whose disk is full, until it is told to end.
func mainAt() {
	a := newApp()
	a.now = func() time.Time { return time.Now().Add(durationOf("CLOCK_SHIFT", 0)) }
	a.patience = durationOf("PATIENCE", a.patience)
	if os.Getenv("WAITS") != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
		defer stop()
		a.opt.home = os.Getenv("STELLA_HOME")
		a.pauseMarked(ctx, time.Hour)
		return
	}
	os.Exit(start(a))
}

// durationOf is what a variable says, or else otherwise.
func durationOf(name string, otherwise time.Duration) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

// The suite runs twice: each command opens the site itself, and each command
// asks a daemon.

func TestScripts(t *testing.T) { runScripts(t, false, "") }

func TestScriptsByDaemon(t *testing.T) { runScripts(t, true, "") }

// runScripts runs the scripts that match the pattern, all where it is empty.
func runScripts(t *testing.T, daemon bool, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "script", pattern+"*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts match %q: %v", pattern, err)
	}
	if daemon { // a script without a site has nothing to ask a daemon
		files = slices.DeleteFunc(files, func(f string) bool {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			return !bytes.Contains(raw, []byte("\nsite"))
		})
	}
	kit := newKit(t)
	fixtures, err := filepath.Abs(filepath.Join("..", "..", "testdata", "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("STELLA_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("KIT", kit)
			e.Setenv("FLEET", filepath.Join(filepath.Dir(filepath.Dir(fixtures)), "cmd", "stella", "testdata", "fleet", "fleet.sh"))
			e.Setenv("FIXTURES", fixtures)
			e.Values[holding{}] = map[string]*os.File{}
			e.Defer(func() { stopLeftDaemon(e) })
			return nil
		},
		Condition: func(c string) (bool, error) {
			switch c {
			case "daemon":
				return daemon, nil
			case "root":
				return os.Geteuid() == 0, nil
			case "smalldisk":
				return maySmallDisk(t.TempDir()), nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode":   cmdExitCode,
			"waitsocket": cmdWaitSocket,
			"waitfor":    cmdWaitFor,
			"site":       func(ts *testscript.TestScript, neg bool, args []string) { cmdSite(ts, neg, args, daemon) },
			"sign":       cmdSign,
			"together":   cmdTogether,
			"remember":   cmdRemember,
			"sigstore":   cmdSigstore,
			"statement":  cmdStatement,
			"damage":     cmdDamage,
			"mode":       cmdMode,
			"receiver":   cmdReceiver,
			"smalldisk":  cmdSmallDisk,
			"golden":     cmdGolden,
			"hold":       cmdHold,
			"auditor":    cmdAuditor,
		},
	})
}

// kitPlugins are the folders below testdata whose plugins scripts can import.
var kitPlugins = []string{"work", "hand"}

// newKit makes what most scripts need: a publisher's key and the plugins of
// testdata, packed and signed.
func newKit(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	key, err := verify.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := verify.MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"acme.key": private, "acme.key.pub": public}
	for _, name := range kitPlugins {
		var unsigned, signed bytes.Buffer
		p, err := bundle.Pack(filepath.Join("testdata", name), &unsigned, bundle.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		sig, err := verify.SignManifest(p.Raw, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := bundle.Attach(&signed, &unsigned, []bundle.Attached{sig}, nil); err != nil {
			t.Fatal(err)
		}
		files[name+".stella"] = signed.Bytes()
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// exitcode N COMMAND ARGS... runs a command and wants its exit code.
func cmdExitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := exitOf(ts, ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func exitOf(ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// eventually waits until ok, looking often; scripts have no other way to wait.
func eventually(ts *testscript.TestScript, what string, ok func() bool) {
	for range 1500 {
		if ok() {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	ts.Fatalf("%s did not come in 15 s", what)
}

// waitsocket waits until the site's socket is there; ! waitsocket, until it is gone.
func cmdWaitSocket(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 0 {
		ts.Fatalf("usage: waitsocket")
	}
	eventually(ts, "the socket", func() bool {
		_, err := os.Lstat(filepath.Join(ts.Getenv("STELLA_HOME"), "stella.sock"))
		return (err == nil) != neg
	})
}

// waitfor TEXT COMMAND ARGS... repeats a command until its output holds TEXT.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor text command...")
	}
	eventually(ts, strconv.Quote(args[0]), func() bool {
		_ = ts.Exec(args[1], args[2:]...)
		return strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), args[0])
	})
}

// site makes a site that believes acme, and with a daemon starts that. With
// the argument work it also imports the plugin of testdata/work, with hand that of
// testdata/hand; +KEY sets a key of site.toml to true, what ends in .toml is added to
// it; further arguments are source folders of DAGs to sign and publish.
func cmdSite(ts *testscript.TestScript, neg bool, args []string, daemon bool) {
	if neg {
		ts.Fatalf("unsupported: ! site")
	}
	kit := ts.Getenv("KIT")
	ts.Check(ts.Exec("stella", "init", "--allow-plain", "--quiet"))
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		key, ok := strings.CutPrefix(arg, "+") // a key of site.toml to set to true
		if ok {
			path := filepath.Join(ts.Getenv("STELLA_HOME"), "site.toml")
			head, rest, _ := strings.Cut(ts.ReadFile(path), "\n")
			ts.Check(os.WriteFile(path, []byte(head+"\n"+key+" = true\n"+rest), 0o600))
		}
		return ok
	})
	ts.Check(ts.Exec("stella", "trust", "add", "acme", "--key", filepath.Join(kit, "acme.key.pub"),
		"--kind", "plugin,dag,data", "--name", "work,flow,data", "--interpreter", "/bin/sh"))
	for _, name := range args {
		if strings.HasSuffix(name, ".toml") {
			config := filepath.Join(ts.Getenv("STELLA_HOME"), "site.toml")
			ts.Check(os.WriteFile(config, []byte(ts.ReadFile(config)+ts.ReadFile(name)), 0o644))
		}
	}
	if daemon {
		startDaemon(ts)
	}
	for _, dir := range args {
		switch {
		case strings.HasSuffix(dir, ".toml"):
			continue
		case slices.Contains(kitPlugins, dir):
			ts.Check(ts.Exec("stella", "bundle", "import", filepath.Join(kit, dir+".stella")))
			continue
		}
		cmdSign(ts, false, []string{dir, dir + ".stella"})
		ts.Check(ts.Exec("stella", "orch", "dag", "publish", dir+".stella"))
	}
}

// auditing guards the building of stella-audit.
var auditing sync.Mutex

// auditor sets AUDIT to the program that judges archives without stella, which
// the first script that asks for it builds.
func cmdAuditor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: auditor")
	}
	auditing.Lock()
	defer auditing.Unlock()
	sources, err := filepath.Glob("../stella-audit/*.go")
	ts.Check(err)
	for _, s := range sources { // so that a test that was cached is made again when they change
		_, err := os.Stat(s)
		ts.Check(err)
	}
	path := filepath.Join(ts.Getenv("KIT"), "stella-audit")
	if _, err := os.Stat(path); err != nil {
		if out, err := exec.Command("go", "build", "-o", path, "../stella-audit").CombinedOutput(); err != nil {
			ts.Fatalf("%v\n%s", err, out)
		}
	}
	ts.Setenv("AUDIT", path)
}

// maySmallDisk says whether disks can be mounted here.
func maySmallDisk(dir string) bool {
	return syscall.Mount("small", dir, "tmpfs", 0, "size=1m") == nil && syscall.Unmount(dir, 0) == nil
}

// smalldisk DIR SIZE makes a folder a disk of its own, which is soon full.
func cmdSmallDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: smalldisk dir size")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(syscall.Mount("small", dir, "tmpfs", 0, "mode=0700,size="+args[1]))
	ts.Defer(func() { ts.Check(syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// stopLeftDaemon ends a daemon that a script which failed has left behind.
func stopLeftDaemon(e *testscript.Env) {
	home := e.Getenv("STELLA_HOME")
	if _, err := os.Lstat(filepath.Join(home, "stella.sock")); err != nil {
		return
	}
	cmd := exec.Command("stella", "daemon", "stop", "--force") // testscript has put it on our PATH
	cmd.Env = []string{"STELLA_HOME=" + home}
	if out, err := cmd.CombinedOutput(); err != nil {
		e.T().Log(fmt.Sprintf("a daemon was left behind: %v\n%s", err, out))
	}
}

// startDaemon starts a daemon that ends with the script, and with this process.
func startDaemon(ts *testscript.TestScript) {
	path := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "stella")); err == nil {
			path = filepath.Join(dir, "stella")
			break
		}
	}
	var said bytes.Buffer
	cmd := exec.Command(path, "daemon", "start", "--foreground")
	cmd.Env = []string{"STELLA_HOME=" + ts.Getenv("STELLA_HOME"), "PATH=" + ts.Getenv("PATH")}
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // the script may have stopped it
		if err := cmd.Wait(); err != nil {
			ts.Logf("daemon: %v\n%s", err, said.String())
		}
	})
	eventually(ts, "the daemon", func() bool { return ts.Exec("stella", "daemon", "status") == nil })
}

// sign DIR FILE packs a source folder and signs it as acme.
func cmdSign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sign dir file")
	}
	ts.Check(ts.Exec("stella", "bundle", "pack", args[0], "--out", args[1]))
	ts.Check(ts.Exec("stella", "bundle", "sign", args[1], "--key", filepath.Join(ts.Getenv("KIT"), "acme.key")))
}

// together N EXIT COMMAND ARGS... runs N of a command at the same time; all
// must end with EXIT.
func cmdTogether(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: together n exit command...")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	path, err := exec.LookPath(args[2])
	ts.Check(err)
	var wg sync.WaitGroup
	results := make([]string, n)
	for i := range n {
		wg.Go(func() {
			cmd := exec.Command(path, args[3:]...)
			cmd.Dir = ts.Getenv("WORK")
			cmd.Env = []string{"STELLA_HOME=" + ts.Getenv("STELLA_HOME"), "PATH=" + ts.Getenv("PATH"), "HOME=/no-home", "PATIENCE=" + ts.Getenv("PATIENCE")}
			out, err := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[1] {
				results[i] = fmt.Sprintf("exit %d (%v): %s", got, err, out)
			}
		})
	}
	wg.Wait()
	for i, r := range results {
		if r != "" {
			ts.Fatalf("%d of %d: %s", i+1, n, r)
		}
	}
}

// remember NAME FIELD sets NAME to a field of the JSON on stdout; FIELD is a
// path with dots, where digits are places in lists.
func cmdRemember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: remember name field")
	}
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	var v any
	ts.Check(dec.Decode(&v))
	for part := range strings.SplitSeq(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("%s: there are only %d", args[1], len(x))
			}
			v = x[i]
		default:
			v = nil
		}
		if v == nil {
			ts.Fatalf("stdout has no %s", args[1])
		}
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// sigstore FILE OUT signs a file as acme, and writes the Sigstore file as
// other tools do: not in the canonical form.
func cmdSigstore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sigstore file out")
	}
	raw, err := os.ReadFile(filepath.Join(ts.Getenv("KIT"), "acme.key"))
	ts.Check(err)
	key, err := verify.ParsePrivateKey(raw)
	ts.Check(err)
	sig, err := verify.SignManifest([]byte(ts.ReadFile(args[0])), key)
	ts.Check(err)
	var out bytes.Buffer
	ts.Check(json.Indent(&out, sig.Data, "", "    "))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o600))
}

// damage FILE OFFSET changes one byte; a negative offset counts from the end.
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage file offset|text")
	}
	raw := []byte(ts.ReadFile(args[0]))
	switch at, err := strconv.Atoi(args[1]); {
	case err != nil: // each place that has the text
		if !bytes.Contains(raw, []byte(args[1])) {
			ts.Fatalf("%s does not hold %s", args[0], args[1])
		}
		bad := []byte(args[1])
		bad[0] ^= 1
		raw = bytes.ReplaceAll(raw, []byte(args[1]), bad)
	case at < 0:
		raw[len(raw)+at] ^= 1
	default:
		raw[at] ^= 1
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o600))
}

// mode FILE WANT wants the permissions of a file, in octal.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode file want")
	}
	fi, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", fi.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}
