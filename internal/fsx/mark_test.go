package fsx_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stellarun/stella/internal/fsx"
)

// TestMarkChild is the process that holds a mark until its input ends.
func TestMarkChild(t *testing.T) {
	path := os.Getenv("STELLA_MARK")
	if path == "" {
		t.Skip("it is started by TestAMarkTellsWhoHoldsIt")
	}
	m, err := fsx.Mark(path)
	if err != nil {
		os.Exit(3)
	}
	defer m.Close()
	os.Stdout.WriteString("marked\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

func TestAMarkTellsWhoHoldsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if _, err := fsx.MarkedBy(path); err == nil {
		t.Error("a file that is not there")
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	t.Run("a file", func(t *testing.T) { tellsWhoHolds(t, path) })
	t.Run("a folder", func(t *testing.T) { tellsWhoHolds(t, t.TempDir()) })
}

func tellsWhoHolds(t *testing.T, path string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestMarkChild$")
	cmd.Env = append(os.Environ(), "STELLA_MARK="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "marked\n" {
		t.Fatalf("the child said %q", line)
	}
	if pid, err := fsx.MarkedBy(path); err != nil || pid != cmd.Process.Pid {
		t.Errorf("marked by %d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	in.Close()
	_ = cmd.Wait()
	if pid, err := fsx.MarkedBy(path); err != nil || pid != 0 {
		t.Errorf("marked by %d, %v, and it has ended", pid, err)
	}
}
