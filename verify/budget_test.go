package verify_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

const budgetEnv = "STELLA_TEST_HOSTILE"

// TestUnauthenticatedInputHasABudget judges each hostile file in a child that
// may use 2 s of CPU and 64 MiB more than it started with.
func TestUnauthenticatedInputHasABudget(t *testing.T) {
	if path := os.Getenv(budgetEnv); path != "" {
		underBudget(t, path)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range verifytest.Hostile() {
		path := t.TempDir() + "/hostile"
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "-test.run", "^"+t.Name()+"$", "-test.count", "1")
		cmd.Env = append(os.Environ(), budgetEnv+"="+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%.2000s", name, err, out)
		}
	}
}

// underBudget is the child.
func underBudget(t *testing.T, path string) {
	trust, place := verifytest.NewTrust().Load(), spool(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := dataSize()
	if err != nil {
		t.Fatal(err)
	}
	for limit, n := range map[int]uint64{syscall.RLIMIT_DATA: data + 64<<20, syscall.RLIMIT_CPU: 3} {
		if err := syscall.Setrlimit(limit, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = verify.Check(f, trust, verify.Options{Now: verifytest.Now(), Spool: place}, nil)
	if !refused(err) {
		t.Errorf("Check = %v, want a refusal", err)
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	if ms := (used.Utime.Nano() + used.Stime.Nano()) / 1e6; ms > 2000 {
		t.Errorf("%d ms of CPU", ms)
	}
}

// dataSize is how much private memory this process has.
func dataSize() (uint64, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmData:"); ok {
			kib, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmData")
}

// TestTheLargestHeadIsReadAtMost: nobody without a key makes us read more.
func TestTheLargestHeadIsReadAtMost(t *testing.T) {
	trust := verifytest.NewTrust().Load()
	for name, raw := range verifytest.Hostile() {
		in := &countingReader{r: io.MultiReader(bytes.NewReader(raw), zeros{})}
		_, err := verify.Check(in, trust, options(t), nil)
		if !refused(err) || in.n > 3<<20 {
			t.Errorf("%s: %d bytes read, %v", name, in.n, err)
		}
	}
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
