package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// Names in the folder of an attempt.
const (
	workDir      = "work"
	artifactsDir = "artifacts"
	tmpDir       = "tmp"
	bundleDir    = "bundle"
	dataDir      = "data"
	inputsDir    = "inputs"
	secretsDir   = "secrets"
	inputFile    = "input.json"
	outputFile   = "output.jsonl"
)

// writtenDirs are the program's own folders.
func writtenDirs() []string { return []string{workDir, artifactsDir, tmpDir} }

// isPlacedDir says whether files of a task may lie in this folder.
func isPlacedDir(dir string) bool {
	return dir == bundleDir || dir == dataDir || dir == inputsDir
}

// prepared is everything that an attempt has before its process exists.
type prepared struct {
	entry       *os.File // sealed
	interpreter *os.File // nil without one
	stdin       *os.File // the request, for reading
	output      *os.File // the output file, open since before the program could touch it
	artifacts   fileID   // of the artifacts folder
	dir         string
	secrets     []*os.File // open since before the program could move them
	unstarted   string     // why the entry cannot be a program; "" when it can
}

func (p *prepared) close() {
	p.wipe()
	for _, f := range []*os.File{p.entry, p.interpreter, p.stdin, p.output} {
		if f != nil {
			f.Close()
		}
	}
}

// A fileID names a file or folder for as long as it exists.
type fileID struct{ dev, ino uint64 }

func idOf(info fs.FileInfo) fileID {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{st.Dev, st.Ino}
	}
	return fileID{}
}

// prepare makes the attempt's folder and opens what the program needs.
func prepare(t *runner.Task) (_ *prepared, err error) {
	p := &prepared{dir: t.Dir}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.entry, err = sealed(t.Entry, "entry"); err != nil {
		return nil, err
	}
	if t.Interpreter != nil {
		if p.interpreter, err = openInterpreter(t); err != nil {
			return nil, err
		}
	} else if t.Runtime == manifests.RuntimeExec {
		p.unstarted = scriptWithout(p.entry)
	}
	if t.MakeDir != nil {
		if err := t.MakeDir(); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := p.layOut(root, t); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", t.Dir, err)
	}
	if err := place(root, t.Files); err != nil {
		return nil, err
	}
	if err := p.hand(root, t.Secrets); err != nil {
		return nil, fmt.Errorf("handing over secrets: %w", err)
	}
	return p, nil
}

// layOut makes the folders, the request and the empty output file.
func (p *prepared) layOut(root *os.Root, t *runner.Task) error {
	// data/ and inputs/ come with what lies in them, as secrets/ does: making and
	// removing a folder is a good part of what a short attempt costs.
	for _, dir := range append(writtenDirs(), bundleDir) {
		if err := root.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if len(t.Secrets) > 0 {
		if err := root.Mkdir(secretsDir, 0o700); err != nil {
			return err
		}
	}
	info, err := root.Lstat(artifactsDir)
	if err != nil {
		return err
	}
	p.artifacts = idOf(info)
	if err := root.WriteFile(inputFile, t.Request, 0o444); err != nil {
		return err
	}
	if p.stdin, err = root.Open(inputFile); err != nil {
		return err
	}
	// Opened for reading and writing only because it is created here.
	p.output, err = root.OpenFile(outputFile, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return err
}

// place writes the task's files, hashing each on the way. They are read-only;
// their folders are not, so that the attempt's folder can be removed.
func place(root *os.Root, files []runner.Placed) error {
	for _, f := range files {
		dir, _, ok := strings.Cut(f.Path, "/")
		if !ok || !isPlacedDir(dir) || path.Clean(f.Path) != f.Path || !filepath.IsLocal(f.Path) {
			return fmt.Errorf("file %q does not lie below bundle/, data/ or inputs/", f.Path)
		}
		perm := fs.FileMode(0o444)
		switch f.Mode {
		case "0644":
		case "0755":
			perm = 0o555
		default:
			return fmt.Errorf("file %s has mode %q", f.Path, f.Mode)
		}
		if err := root.MkdirAll(path.Dir(f.Path), 0o755); err != nil {
			return err
		}
		if err := placeOne(root, f, perm); err != nil {
			return err
		}
	}
	return nil
}

func placeOne(root *os.Root, f runner.Placed, perm fs.FileMode) (err error) {
	w, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := copyContent(w, f.Content, f.Path); err != nil {
		return err
	}
	// Not by the mode at creation, which the umask would shorten.
	return w.Chmod(perm)
}

// scriptWithout says why a script cannot run without an interpreter: the kernel
// would start one by a path that nobody hashed.
func scriptWithout(entry *os.File) string {
	var head [2]byte
	if n, _ := entry.ReadAt(head[:], 0); n == 2 && string(head[:]) == "#!" {
		return "a script, but the plugin's manifest names no interpreter"
	}
	return ""
}
