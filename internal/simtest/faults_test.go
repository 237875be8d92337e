package simtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellarun/stella/store"
)

var faults = flag.Int("faults", 3, "how many calls of each operation end badly in each way; 0 for all of them")

// ways are how a call ends badly.
var ways = []struct {
	name string
	answer
}{
	{"EIO", answer{errno: syscall.EIO}},
	{"ENOSPC", answer{errno: syscall.ENOSPC}},
	{"FULL", answer{errno: syscall.ENOSPC, lasts: true}},
	{"KILL", answer{kill: true}},
}

// operation is a command that writes.
type operation struct {
	name   string
	args   string // of stella; DIR is the folder of a trial, and TO the end of a window
	ready  func(*trial) error
	finish string // what lets it finish where it says that it was cut off
	after  string // what opens the site once it is done
	epoch  bool   // the ledger goes on in another one, without its end
	done   func(s *sweep, tr *trial) error
}

var commands = []operation{
	{name: "import", args: "bundle import DIR/new.stella", done: wrote("bundle.admitted")},
	{name: "run", args: "orch run start --dag-id flow --run-token swept --wait", done: wrote("run.completed")},
	{name: "export", args: "export create --out DIR/a.tar --to TO --force", done: (*sweep).exported},
	{name: "split", args: "export create --out DIR/a.tar --to TO --force --split 64KiB", ready: older, done: (*sweep).exported},
	{name: "snapshot", args: "maintenance snapshot", done: (*sweep).copied},
	{name: "compact", args: "maintenance compact", done: wrote("site.compacted")},
	{name: "restore", args: "maintenance restore-snapshot --latest --yes --reason swept", finish: "maintenance restore-snapshot --latest --yes --reason swept",
		after: "trust waive checkpoint.note --reason swept --yes", epoch: true, done: (*sweep).restored},
	{name: "recover", args: "maintenance recover --yes --reason swept", ready: ruin, finish: "maintenance recover --yes --reason swept",
		after: "trust waive checkpoint.note --reason swept --yes", epoch: true, done: wrote("epoch.begun")},
}

// sweep is what all trials share.
type sweep struct {
	stella   string
	template string // a folder with a closed site, and what the commands need
	to       string
	under    []string // see [supervisor]
	archive  []byte   // of the window to there
	lines    []string // of the ledger that each operation must keep
	kept     int      // how many of them are in the snapshot
}

// newSweep makes the site on which everything is tried.
func newSweep(t *testing.T) *sweep {
	t.Helper()
	needGate(t)
	s := &sweep{stella: build(t), template: t.TempDir()}
	removable(t, s.template)
	s.publish(t)
	s.must(t, "orch run start --dag-id flow --wait")
	s.must(t, "secret set token --from DIR/secret")
	s.must(t, "ledger checkpoint")
	var made struct{ To string }
	var snap struct{ Size int }
	err := json.Unmarshal([]byte(s.must(t, "export create --out DIR/before.tar --output json")), &made)
	if err == nil {
		err = json.Unmarshal([]byte(s.must(t, "maintenance snapshot --output json")), &snap)
	}
	if err != nil || snap.Size == 0 {
		t.Fatalf("the snapshot has %d entries, %v", snap.Size, err)
	}
	s.must(t, "trust revoke --manifest "+revoked+" --reason swept --yes") // which a restore does not undo
	s.must(t, "orch run start --dag-id flow --wait")
	s.to, s.kept = made.To, snap.Size
	if s.archive, err = os.ReadFile(filepath.Join(s.template, "before.tar")); err != nil {
		t.Fatal(err)
	}
	if s.lines, _, err = linesOf(filepath.Join(s.template, "home")); err != nil {
		t.Fatal(err)
	}
	return s
}

// publish makes the site, with a plugin and a DAG, and leaves another plugin beside it.
func (s *sweep) publish(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.template, "secret"), []byte("a value that is long enough\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(t, "init --quiet --allow-plain")
	s.must(t, "bundle keygen --out DIR/acme.key")
	for name, as := range map[string]string{"work": "work", "hand": "new", "flow": "flow"} {
		from := filepath.Join("..", "..", "cmd", "stella", "testdata", name)
		if err := os.CopyFS(filepath.Join(s.template, name), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		s.must(t, "bundle pack DIR/"+name+" --out DIR/"+as+".stella")
		s.must(t, "bundle sign DIR/"+as+".stella --key DIR/acme.key")
	}
	s.must(t, "trust add acme --key DIR/acme.key.pub --kind plugin,dag --name work,flow --interpreter /bin/sh")
	s.must(t, "bundle import DIR/work.stella")
	s.must(t, "orch dag publish DIR/flow.stella")
}

func (s *sweep) must(t *testing.T, args string) string {
	t.Helper()
	out, err := s.run(s.template, args)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// line is the command line of a trial.
func (s *sweep) line(dir, args string) []string {
	args = strings.NewReplacer("DIR", dir, "TO", s.to).Replace(args)
	return append([]string{s.stella, "--home", filepath.Join(dir, "home")}, strings.Fields(args)...)
}

// run runs stella as it is.
func (s *sweep) run(dir, args string) (string, error) {
	line := s.line(dir, args)
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("stella %s: %w\n%s%s", args, err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// linesOf are the envelopes of a ledger, which is checked, and the types of its entries.
func linesOf(home string) (lines, types []string, err error) {
	if _, err := readRecord(home); err != nil {
		return nil, nil, err
	}
	db, err := open(home)
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			return nil, nil, err
		}
		e, err := decode(l)
		if err != nil {
			return nil, nil, err
		}
		lines, types = append(lines, string(l.Envelope)), append(types, string(e.Type))
	}
	return lines, types, nil
}

// trial is one time that an operation is carried out on a copy of the site.
type trial struct {
	op    *operation
	dir   string
	hit   *call // that ended badly; nil: there was none
	code  int
	said  string
	types []string // of the entries that are new
	ruin  []byte   // ledger that is damaged from the first
	calls []call
}

// try carries out an operation whose n-th call ends in a way.
func (s *sweep) try(t *testing.T, op *operation, n int, a answer) (*trial, error) {
	t.Helper()
	if a.lasts {
		return s.tryAt(t, op, func(c call) bool { return n > 0 && c.n >= n && c.grows() }, a)
	}
	return s.tryAt(t, op, func(c call) bool { return c.n == n }, a)
}

func (s *sweep) tryAt(t *testing.T, op *operation, at func(call) bool, a answer) (*trial, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{op: op, dir: dir}
	defer func() {
		if err := exec.Command("chmod", "-R", "u+w", dir).Run(); err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(dir)
	}()
	if out, err := exec.Command("cp", "-a", s.template+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	if op.ready != nil {
		if err := op.ready(tr); err != nil {
			t.Fatal(err)
		}
	}
	g := &supervisor{dir: dir, under: s.under, decide: func(c call) answer {
		if !at(c) {
			return answer{}
		}
		if tr.hit == nil || tr.hit.mayFail() {
			tr.hit = &c
		}
		return a
	}}
	if tr.code, tr.said, err = g.run(s.line(dir, op.args)); err != nil {
		return tr, err
	}
	tr.calls = g.calls
	if err := s.judge(tr, a); err != nil {
		return tr, fmt.Errorf("exit %d: %w\nit said: %s", tr.code, err, tr.said)
	}
	return tr, nil
}

// judge says whether the site is what it must be after an operation: it opens, or says that
// it was cut off and lets itself be finished; it has kept what it had, and what it said is
// done; nothing has its name before it is whole; and the operation can be carried out again.
func (s *sweep) judge(tr *trial, a answer) error {
	killed := tr.hit != nil && a.kill
	switch {
	case strings.Contains(tr.said, "goroutine "):
		return errors.New("it panicked")
	case tr.code == 0 && tr.hit != nil && a.errno != 0 && !tr.hit.mayFail():
		return errors.New("it says that all is done, though a call failed")
	case tr.code != 0 && tr.hit == nil, killed != (tr.code == -1):
		return errors.New("it ends like that without a reason")
	}
	if err := s.look(tr, tr.code == 0); err != nil {
		return err
	}
	if err := s.again(tr); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	if err := s.look(tr, true); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	if tr.op.after != "" {
		if _, err := s.run(tr.dir, tr.op.after); err != nil {
			return err
		}
	}
	_, err := s.run(tr.dir, "ledger verify --full")
	return err
}

// again carries the operation out once more; a second snapshot of one second is refused.
func (s *sweep) again(tr *trial) error {
	for {
		_, err := s.run(tr.dir, tr.op.args)
		if err == nil || !strings.Contains(err.Error(), "a snapshot of this second exists") {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// look looks at a site that nobody holds.
func (s *sweep) look(tr *trial, done bool) error {
	home := filepath.Join(tr.dir, "home")
	db, err := open(home)
	if err == nil {
		err = db.Close()
	} else if errors.Is(err, store.ErrRestoring) && tr.op.finish != "" {
		_, err = s.run(tr.dir, tr.op.finish)
		done = true
	}
	if err != nil {
		return fmt.Errorf("the site does not open: %w", err)
	}
	lines, types, err := linesOf(home)
	if err != nil && !done && tr.ruin != nil {
		raw, err := os.ReadFile(filepath.Join(home, "ledger.db"))
		if err == nil && !bytes.Equal(raw, tr.ruin) {
			err = errors.New("the damaged ledger is not what it was")
		}
		return err
	}
	if err != nil {
		return err
	}
	same := 0
	for same < len(lines) && same < len(s.lines) && lines[same] == s.lines[same] {
		same++
	}
	tr.types = types[same:]
	keeps := len(s.lines)
	if tr.op.epoch && slices.Contains(tr.types, "epoch.begun") {
		keeps = s.kept
	}
	if same < keeps {
		return fmt.Errorf("%d of %d entries are left", same, keeps)
	}
	if err := s.whole(tr); err != nil || !done {
		return err
	}
	return tr.op.done(s, tr)
}

// grows says that a call needs space.
func (c *call) grows() bool {
	switch c.name {
	case "write", "pwrite64", "fallocate", "copy_file_range", "mkdirat", "mkdir", "linkat", "symlinkat":
		return true
	case "openat", "open", "creat":
		return !c.there
	}
	return false
}

// mayFail says that a call may fail and all be well. What tidies up is done again by the next
// command; a folder that is there needs not be made; what an attempt works in and its log are
// made anew for the next attempt, which the record tells of; folders of sealed/ that stay
// writable are no loss; and what the kernel does not copy is copied by hand.
func (c *call) mayFail() bool {
	below := func(dir string) bool { return strings.HasPrefix(c.path, dir) }
	switch c.name {
	case "unlinkat":
		return !below("home/restore.json")
	case "mkdirat":
		return c.there || below("home/runs/")
	case "fchmodat":
		return filepath.Dir(c.path) == "home/sealed/sha256"
	case "copy_file_range":
		return true
	case "openat", "write":
		return below("home/runs/") || below("home/logs/open/")
	}
	return false
}

// wrote wants an entry of a type.
func wrote(kind string) func(*sweep, *trial) error {
	return func(_ *sweep, tr *trial) error {
		if !slices.Contains(tr.types, kind) {
			return fmt.Errorf("no entry %s: %v", kind, tr.types)
		}
		return nil
	}
}

// revoked is a bundle that nobody has.
var revoked = strings.Repeat("0", 64)

// restored: a new epoch has begun, and what was revoked after the snapshot is so.
func (s *sweep) restored(tr *trial) error {
	raw, err := os.ReadFile(filepath.Join(tr.dir, "home", "trust", "revocations.toml"))
	if err == nil && !bytes.Contains(raw, []byte(revoked)) {
		err = fmt.Errorf("what was revoked is not any more: %s", raw)
	}
	return errors.Join(err, wrote("epoch.begun")(s, tr))
}

// whole: what has its name is all there, whether anybody was told so or not.
func (s *sweep) whole(tr *trial) error {
	if err := s.archives(tr); err != nil {
		return err
	}
	all, err := filepath.Glob(filepath.Join(tr.dir, "home", "snapshots", "[0-9]*"))
	if err != nil {
		return err
	}
	for _, dir := range all {
		cmd := exec.Command("sha256sum", "-c", "--quiet", "SHA256SUMS")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("the snapshot %s: %w: %s", filepath.Base(dir), err, out)
		}
	}
	return nil
}

// archives: one that has its name is whole, and on record; one that was there before is there
// until another is.
func (s *sweep) archives(tr *trial) error {
	path := filepath.Join(tr.dir, "a.tar")
	_, first := os.Stat(path + ".001")
	_, older := os.Stat(filepath.Join(tr.dir, "older"))
	raw, err := os.ReadFile(path)
	switch {
	case first == nil:
		if raw, err = joined(path); err != nil {
			return err
		}
	case err != nil && older != nil:
		return nil
	case err != nil:
		aside, _ := filepath.Glob(filepath.Join(tr.dir, ".stella-export-*", "old", "a.tar"))
		if len(aside) != 1 {
			return fmt.Errorf("an older archive is lost: %w, %v", err, aside)
		}
		if raw, err = os.ReadFile(aside[0]); err != nil {
			return err
		}
	}
	if !bytes.Equal(raw, s.archive) {
		return fmt.Errorf("the archive has %d bytes, and is not what it must be", len(raw))
	}
	if first != nil && older == nil { // what leaves a site is on record
		return nil
	}
	return wrote("export.created")(s, tr)
}

// joined are the parts that a list has, which must be what it says.
func joined(path string) (all []byte, err error) {
	cmd := exec.Command("sha256sum", "-c", "--quiet", filepath.Base(path)+".sha256")
	cmd.Dir = filepath.Dir(path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the parts: %w: %s", err, out)
	}
	for n := 1; ; n++ {
		raw, err := os.ReadFile(fmt.Sprintf("%s.%03d", path, n))
		if errors.Is(err, fs.ErrNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, raw...)
	}
}

// older puts an archive where another is to go.
func older(tr *trial) error {
	raw, err := os.ReadFile(filepath.Join(tr.dir, "before.tar"))
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(tr.dir, "a.tar"), raw, 0o600), os.WriteFile(filepath.Join(tr.dir, "older"), nil, 0o600))
}

func (s *sweep) exported(tr *trial) error {
	_, whole := os.Stat(filepath.Join(tr.dir, "a.tar"))
	_, parts := os.Stat(filepath.Join(tr.dir, "a.tar.001"))
	if whole != nil && parts != nil {
		return whole
	}
	return wrote("export.created")(s, tr)
}

func (s *sweep) copied(tr *trial) error {
	all, err := filepath.Glob(filepath.Join(tr.dir, "home", "snapshots", "[0-9]*"))
	if err != nil || len(all) < 2 {
		return fmt.Errorf("the snapshots are %v, %w", all, err)
	}
	return wrote("snapshot.created")(s, tr)
}

// ruin damages an entry of the ledger near its end.
func ruin(tr *trial) error {
	home := filepath.Join(tr.dir, "home")
	db, err := open(home)
	if err != nil {
		return err
	}
	var victim []byte
	for l, err := range db.Entries(db.Size()-3, db.Size()-2) {
		if err != nil {
			return err
		}
		victim = bytes.Clone(l.Envelope)
	}
	if err := db.Close(); err != nil {
		return err
	}
	path := filepath.Join(home, "ledger.db")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(raw, victim) {
		return fmt.Errorf("%s is not to be found", victim)
	}
	bad := bytes.Clone(victim)
	bad[len(bad)-3] ^= 1
	tr.ruin = bytes.ReplaceAll(raw, victim, bad)
	return os.WriteFile(path, tr.ruin, 0o600)
}
