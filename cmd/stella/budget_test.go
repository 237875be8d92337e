package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// What a command may use for a file of somebody who has no key (THREATS 40):
// the whole process, the site that it opens included.
const (
	budgetMemory = 64 << 20
	budgetCPU    = 2 * time.Second
)

// used is what a command needed, and what it said.
type used struct {
	exit   int
	memory int64 // the most anonymous memory that was seen
	cpu    time.Duration
	failed api.Error
}

// budgeted runs a command and watches it. One that waits is killed.
func budgeted(t *testing.T, args ...string) used {
	t.Helper()
	u := looked(t, args...)
	for range 20 { // on a busy machine a short command may be over before anybody looks
		if u.memory > 0 {
			break
		}
		u = looked(t, args...)
	}
	return u
}

// looked runs a command once.
func looked(t *testing.T, args ...string) used {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("stella", append(args, "--output", "json")...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var u used
	patience := time.After(30 * time.Second)
	for look := time.NewTicker(time.Millisecond); ; {
		select {
		case <-look.C:
			u.memory = max(u.memory, anonymous(cmd.Process.Pid))
			continue
		case <-patience:
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-ended
			t.Fatalf("stella %v still waits\n%.2000s", args, &stderr)
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
		}
		look.Stop()
		break
	}
	u.exit, u.cpu = cmd.ProcessState.ExitCode(), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
	var failed struct{ Error api.Error }
	if u.exit != exitDone {
		if err := json.Unmarshal(stderr.Bytes(), &failed); err != nil {
			t.Fatalf("stella %v: exit %d, %v\n%.2000s", args, u.exit, err, &stderr)
		}
		u.failed = failed.Error
	}
	return u
}

// anonymous is the anonymous memory of a process; 0 once it has gone.
func anonymous(pid int) int64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), "\nRssAnon:")
	text, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, _ := strconv.ParseInt(text, 10, 64)
	return kib << 10
}

func (u used) check(t *testing.T, what string) {
	t.Helper()
	t.Logf("%-60s %5.1f MiB %5d ms  exit %d %s", what, float64(u.memory)/(1<<20), u.cpu.Milliseconds(), u.exit, u.failed.Code)
	if u.memory > budgetMemory || u.memory == 0 {
		t.Errorf("%s: %d bytes of memory", what, u.memory)
	}
	if u.cpu > budgetCPU {
		t.Errorf("%s: %v of CPU", what, u.cpu)
	}
}

// bundleCommands are what an operator may do with a file from a stick.
func bundleCommands(home, file string) map[string][]string {
	return map[string][]string{
		"inspect": {"bundle", "inspect", file},
		"verify":  {"bundle", "verify", file, "--as-of", "2026-11-23T08:00:00.000000000Z", "--home", home},
		"import":  {"bundle", "import", file, "--home", home},
	}
}

// TestHostileFilesHaveABudget gives each file of verifytest.Hostile to each
// command that takes a bundle.
func TestHostileFilesHaveABudget(t *testing.T) {
	index := readFixtures(t)
	home := fixtureSite(t, index, &index.Fixtures[0], time.Now)
	known := map[string]bool{}
	for _, r := range verify.Reasons() {
		known[string(r.Reason)] = true
	}
	hostile := verifytest.Hostile()
	expected := map[string]api.Code{
		"a bomb": "", "5000 files": "", "zeros": api.Code(bundle.NotABundle), "100,000 signatures": api.Code(bundle.SignaturesTooMany),
		"five attestations of 4 MiB": api.Code(bundle.AttestationTooLarge),
	}
	for name := range expected {
		if hostile[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hostile)) {
		file := filepath.Join(t.TempDir(), "x.stella")
		if err := os.WriteFile(file, hostile[name], 0o600); err != nil {
			t.Fatal(err)
		}
		for command, args := range bundleCommands(home, file) {
			u := budgeted(t, args...)
			u.check(t, command+" "+name)
			// Whoever only looks is told what there is, if it has the form of a bundle;
			// a bomb has, as long as nobody decompresses it.
			if want, ok := expected[name]; command == "inspect" && ok && (u.failed.Code != want || want == "" && u.exit != exitDone) {
				t.Errorf("inspect %s: exit %d, %+v, want %q", name, u.exit, u.failed, want)
			}
			if command != "inspect" && (u.exit != exitRefused || u.failed.Refusal == nil || !known[u.failed.Refusal.Reason]) {
				t.Errorf("%s %s: exit %d, %+v", command, name, u.exit, u.failed)
			}
		}
	}
	if u := budgeted(t, "bundle", "list", "--home", home); u.exit != exitDone {
		t.Errorf("the site is not well: %+v", u.failed)
	}
}

// TestALargeFileIsRefusedUnread: a file of 1 TiB that takes no room on the
// stick, with nothing in it, or with a good bundle at its beginning.
func TestALargeFileIsRefusedUnread(t *testing.T) {
	index := readFixtures(t)
	home := fixtureSite(t, index, &index.Fixtures[0], time.Now)
	for name, begin := range map[string][]byte{"zeros": nil, "a bundle": verifytest.NewBundle().Sign("acme-1")} {
		file := filepath.Join(t.TempDir(), "x.stella")
		if err := errors.Join(os.WriteFile(file, begin, 0o600), os.Truncate(file, 1<<40)); err != nil {
			t.Skipf("no sparse files here: %v", err)
		}
		for command, args := range bundleCommands(home, file) {
			u := budgeted(t, args...)
			u.check(t, command+" 1 TiB: "+name)
			if u.exit != exitRefused || u.failed.Code != api.Code(bundle.TooLarge) || u.failed.Refusal.Offset != 0 {
				t.Errorf("%s 1 TiB, %s: exit %d, %+v", command, name, u.exit, u.failed)
			}
		}
	}
}

// TestWhatIsNoFileIsNotWaitedFor: names on a stick that are no files.
func TestWhatIsNoFileIsNotWaitedFor(t *testing.T) {
	index := readFixtures(t)
	home := fixtureSite(t, index, &index.Fixtures[0], time.Now)
	stick := t.TempDir()
	at := func(name string) string { return filepath.Join(stick, name) }
	if err := errors.Join(syscall.Mkfifo(at("pipe.stella"), 0o600), os.Mkdir(at("folder.stella"), 0o700),
		os.Symlink("loop.stella", at("loop.stella")), os.Symlink("/dev/zero", at("zero.stella"))); err != nil {
		t.Fatal(err)
	}
	names := []string{"pipe.stella", "folder.stella", "loop.stella", "zero.stella", "absent.stella"}
	for name, number := range map[string]int{"device.stella": 1<<8 | 5, "block.stella": 7 << 8} { // /dev/zero, /dev/loop0
		mode := uint32(syscall.S_IFCHR)
		if name == "block.stella" {
			mode = syscall.S_IFBLK
		}
		if err := syscall.Mknod(at(name), mode|0o600, number); err == nil {
			names = append(names, name)
		}
	}
	if os.Geteuid() != 0 { // root reads it
		if err := os.WriteFile(at("secret.stella"), []byte("x"), 0o200); err != nil {
			t.Fatal(err)
		}
		names = append(names, "secret.stella")
	}
	for i := range 100_000 / 10 { // a folder with many names is not looked into
		if err := os.Link(at("pipe.stella"), filepath.Join(at("folder.stella"), strconv.Itoa(i)+".stella")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		for command, args := range bundleCommands(home, at(name)) {
			u := budgeted(t, args...)
			u.check(t, command+" "+name)
			if u.exit != exitFailed || u.failed.Refusal != nil || u.failed.Message == "" {
				t.Errorf("%s %s: exit %d, %+v", command, name, u.exit, u.failed)
			}
		}
	}
}
