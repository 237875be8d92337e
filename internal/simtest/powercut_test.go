package simtest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellarun/stella/server/api"
)

var cuts = flag.Int("cuts", 4, "how often the power is cut")

// onDisk is a site on a disk of its own.
func onDisk(t *testing.T, template string) (home string, d *disk) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home = filepath.Join(dir, "s")
	d = newDisk(t, home)
	if out, err := exec.Command("cp", "-a", template+"/.", home).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sync", "-f", home).CombinedOutput(); err != nil {
		t.Fatalf("sync: %v: %s", err, out)
	}
	return home, d
}

// The power goes at random moments of busy work: what was not synced is gone. Nothing that
// anybody was told is lost, and all else that [TestKills] demands holds. Three cuts of four hit
// the real program; the others a daemon without processes, where there are more people.
func TestPowerCuts(t *testing.T) {
	others(t)
	s := theSeed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	trace, stella := filepath.Join(t.TempDir(), "trace"), build(t)
	for i, n := range []int{*cuts - *cuts/4, *cuts / 4} {
		home, d := onDisk(t, template(t, trace, i+1))
		v := &victim{trace: trace, rng: rng, execs: map[int]began{}, kills: map[string]int{}, home: home, disk: d}
		if i == 0 {
			v.stella = stella
			if rng.IntN(2) == 0 {
				if err := v.encrypts(); err != nil {
					t.Fatal(err)
				}
			}
		}
		a, err := v.suffer(n, s+uint64(i))
		if err != nil {
			t.Fatalf("%v\nthe processes said:\n%s", err, v.said())
		}
		t.Logf("%v: %d entries, attempts marked %v, snapshots encrypted %v;%s", v.kills, len(a.entries), a.marks, v.identity != "", v.load.summary())
	}
}

// A stella whose syncs do nothing loses what it has acknowledged: the rig can fail.
func TestPowerCutsAreFelt(t *testing.T) {
	others(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		if strings.Contains(os.Getenv("STELLA_REQUIRE"), "strace") {
			t.Fatal("strace is required")
		}
		t.Skip("SKIPPED: strace is not installed; that a loss of power is felt was not tested")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	home, d := onDisk(t, template(t, trace, 1))
	stella := build(t)
	cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,msync,sync_file_range", "-e", "inject=fsync,fdatasync,msync:retval=0",
		stella, "--home", home, "daemon", "start", "--foreground")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := &load{home: home, real: true, counts: map[string]int{}}
	c, err := l.connect(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := []string{}
	for len(told) < 20 {
		err := asked(ctx, func() error {
			res, err := c.StartRun(ctx, api.StartRequest{DAGID: "sim-chain", RunToken: fmt.Sprint("felt-", len(told))})
			if err == nil {
				told = append(told, res.Run.RunID)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := d.cut(-cmd.Process.Pid); err != nil { // strace and what it runs
		t.Fatal(err)
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	if err := d.restore(); err != nil {
		t.Fatal(err)
	}
	r, err := readRecord(home)
	if err != nil {
		t.Logf("the site does not open: %v", err)
		return
	}
	kept := map[string]bool{}
	for _, e := range r.entries {
		kept[e.RunID] = true
	}
	lost := 0
	for _, id := range told {
		if !kept[id] {
			lost++
		}
	}
	t.Logf("%d of %d runs that were acknowledged are lost", lost, len(told))
	if lost == 0 {
		t.Error("without syncs nothing is lost: the rig cuts nothing off")
	}
}
