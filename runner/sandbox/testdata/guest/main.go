// Command guest is a plugin written with package plugin. The tests of package
// sandbox run it as a native program and as a WebAssembly module, and expect
// the same of both except where a fence makes the difference.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/plugin"
)

func main() { plugin.Main(run) }

func run(_ context.Context, c *plugin.Call) error {
	var p struct {
		Mode  string `json:"mode"`
		Input string `json:"input"`
	}
	if err := c.Params(&p); err != nil {
		return err
	}
	switch p.Mode {
	case "files":
		return files(c, p.Input)
	case "files and escape":
		if err := files(c, p.Input); err != nil {
			return err
		}
		return escape(c)
	case "secret":
		raw, err := c.Secret("db")
		if err != nil {
			return err
		}
		if _, err := c.Secret("other"); err == nil {
			return fmt.Errorf("a secret that was not granted was read")
		}
		fmt.Printf("it is %s\n", raw)
		return c.Output("length", len(raw))
	case "retry":
		return plugin.Retryable(fmt.Errorf("busy"), 1500*time.Millisecond)
	}
	return plugin.Rejectf("unknown mode %q", p.Mode)
}

// files does what plugins do with files.
func files(c *plugin.Call, input string) error {
	f, err := c.Input(input)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if err := c.Output("input", string(raw)); err != nil {
		return err
	}
	// A relative path lies in the workspace.
	if err := os.MkdirAll("a/b", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("a/b/x", []byte("hello"), 0o644); err != nil {
		return err
	}
	if err := os.Rename("a/b/x", filepath.Join(os.Getenv("STELLA_ARTIFACTS"), "renamed")); err != nil {
		return err
	}
	if err := os.RemoveAll("a"); err != nil {
		return err
	}
	if err := temporary(c); err != nil {
		return err
	}
	list, err := os.ReadDir(c.Path("bundle"))
	if err != nil {
		return err
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if err := c.Output("bundle", names); err != nil {
		return err
	}
	w, err := c.Artifact("dir/report.txt", "text/plain")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "a report"); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Progress(1, "done")
}

// temporary writes, cuts and reads a file of $TMPDIR.
func temporary(c *plugin.Call) error {
	tmp, err := os.CreateTemp("", "x")
	if err != nil {
		return err
	}
	if _, err := tmp.WriteString("0123456789"); err != nil {
		return err
	}
	if err := tmp.Truncate(5); err != nil {
		return err
	}
	if _, err := tmp.WriteAt([]byte("X"), 1); err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	raw, err := io.ReadAll(tmp)
	if err != nil {
		return err
	}
	if err := c.Output("tmp", string(raw)); err != nil {
		return err
	}
	return tmp.Close()
}

// escape tries to reach what is not its own; it succeeds if nothing does.
func escape(c *plugin.Call) error {
	root := c.Path(".")
	tries := map[string]func() error{
		"symlink":         func() error { return os.Symlink("../../../../etc/passwd", "l") },
		"link":            func() error { return os.Link(c.Path("input.json"), "h") },
		"read outside":    func() error { _, err := os.ReadFile("../../../../../../../../etc/passwd"); return err },
		"read absolute":   func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"write bundle":    func() error { return os.WriteFile(c.Path("bundle/x"), nil, 0o644) },
		"overwrite input": func() error { return os.WriteFile(c.Path("input.json"), nil, 0o644) },
		"new at the root": func() error { return os.WriteFile(filepath.Join(root, "new"), nil, 0o644) },
		"mkdir at root":   func() error { return os.Mkdir(filepath.Join(root, "newdir"), 0o755) },
		"move a folder":   func() error { return os.Rename(c.Path("work"), c.Path("tmp/w")) },
		"move into it":    func() error { return os.Rename(c.Path("bundle/lib"), "lib") },
		"remove output":   func() error { return os.Remove(os.Getenv("STELLA_OUTPUT")) },
		"remove a folder": func() error { return os.Remove(c.Path("secrets")) },
	}
	var reached []string
	for name, try := range tries {
		if try() == nil {
			reached = append(reached, name)
		}
	}
	if len(reached) > 0 {
		return fmt.Errorf("reached: %q", reached)
	}
	return nil
}
