package simtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// build makes the program as `make build` does, with the init process in it, and
// leaves the source tree as it is.
func build(t *testing.T) (stella string) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "cmd", "stella", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files { // go test sees what a test looks at: a result for another program counts no more
		if _, err := os.Stat(f); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	small, overlay := filepath.Join(dir, "init"), filepath.Join(dir, "overlay.json")
	text := fmt.Sprintf("{\"Replace\":{%q:%q}}", filepath.Join(root, "runner", "sandbox", "embedded", "init"), small)
	if err := os.WriteFile(overlay, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stella = filepath.Join(dir, "stella")
	for _, args := range [][]string{
		{"-ldflags=-s -w", "-o", small, "a.stella/initproc/cmd/stella-init"},
		{"-ldflags=-s -w", "-tags=grpcnotrace", "-overlay=" + overlay, "-o", stella, "./cmd/stella"},
	} {
		c := exec.Command("go", append([]string{"build", "-buildvcs=false"}, args...)...)
		c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	return stella
}
