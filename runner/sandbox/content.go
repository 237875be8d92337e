package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stellarun/stella/runner"
)

// A DigestError says that bytes are not those that the plan names. Nothing was
// run.
type DigestError struct {
	What string // entry, interpreter, or the path of a file
	Want string // SHA-256
	Got  string // SHA-256, or the size where that differs
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s is not what the plan names: want %s, got %s", e.What, e.Want, e.Got)
}

// copyContent writes c to w while it hashes it, and compares. What was written
// before a mismatch showed must not be used.
func copyContent(w io.Writer, c runner.Content, what string) error {
	r, err := c.Open()
	if err != nil {
		return fmt.Errorf("opening %s: %w", what, err)
	}
	defer r.Close()
	h := sha256.New()
	// One byte more than there should be tells longer content.
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, c.Size+1))
	if err != nil {
		return fmt.Errorf("copying %s: %w", what, err)
	}
	if n != c.Size {
		return &DigestError{What: what, Want: fmt.Sprintf("%d bytes", c.Size), Got: sizeText(n, c.Size)}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != c.SHA256 {
		return &DigestError{What: what, Want: c.SHA256, Got: got}
	}
	return nil
}

func sizeText(n, want int64) string {
	if n > want {
		return "more"
	}
	return fmt.Sprintf("%d", n)
}

// seals that nothing can take back: not one byte of the file changes any more.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// sealed copies c into a memory file, seals it, and only then hashes it: what
// was hashed is what will run, even if somebody got hold of the descriptor while
// the file was being filled. The caller closes the file.
func sealed(c runner.Content, what string) (_ *os.File, err error) {
	f, err := memfd("stella-" + what)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := fill(f, c, what); err != nil {
		return nil, err
	}
	if err := addSeals(f); err != nil {
		return nil, fmt.Errorf("sealing %s: %w", what, err)
	}
	// Linux 6.3 and later: the execute bits are settled, too. Before, they
	// could only be taken away, which denies and does not deceive.
	unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_EXEC)
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, math.MaxInt64)); err != nil {
		return nil, fmt.Errorf("hashing %s: %w", what, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != c.SHA256 {
		return nil, &DigestError{What: what, Want: c.SHA256, Got: got}
	}
	// The offset is shared with whoever inherits the descriptor.
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// addSeals seals a memory file. While the kernel itself still has hold of one of its
// pages, for as long as it takes to write or move it, it says EBUSY, after having waited
// for 150 ms (memfd_wait_for_pins); on a busy machine that can be too short.
func addSeals(f *os.File) (err error) {
	for range 20 {
		if _, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}

// fill copies c into f and compares the size.
func fill(f *os.File, c runner.Content, what string) error {
	r, err := c.Open()
	if err != nil {
		return fmt.Errorf("opening %s: %w", what, err)
	}
	defer r.Close()
	n, err := io.Copy(f, io.LimitReader(r, c.Size+1))
	if err != nil {
		return fmt.Errorf("copying %s: %w", what, err)
	}
	if n != c.Size {
		return &DigestError{What: what, Want: fmt.Sprintf("%d bytes", c.Size), Got: sizeText(n, c.Size)}
	}
	return nil
}

// memfd makes a memory file that can be sealed and executed.
func memfd(name string) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3 does not know MFD_EXEC
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w (is vm.memfd_noexec 2?)", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openInterpreter opens the interpreter and compares the digest of what is
// open; that descriptor is what will be executed. A path that is relative, or
// lies below the attempt's folder, is a file of the task that the bundle
// brings, and is handed over as the entry is; so is a program of the host that
// somebody but root could write into until it is started. The caller closes the
// file.
func openInterpreter(t *runner.Task) (*os.File, error) {
	in := t.Interpreter
	own, below := strings.CutPrefix(in.Path, t.Dir+"/")
	if below || !filepath.IsAbs(in.Path) {
		for _, f := range t.Files {
			if f.Path == own {
				c := f.Content
				c.SHA256 = in.SHA256
				return sealed(c, "interpreter")
			}
		}
		return nil, fmt.Errorf("interpreter %q is neither a host path nor a file of the task", in.Path)
	}
	f, err := os.OpenFile(in.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("interpreter: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("interpreter %s is not a regular file", in.Path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !rootsOwn(info) {
		return sealed(runner.Content{SHA256: in.SHA256, Size: info.Size(), Open: func() (io.ReadCloser, error) { return f, nil }}, "interpreter "+in.Path)
	}
	h := sha256.New()
	if _, err = io.Copy(h, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != in.SHA256 {
		return nil, errors.Join(&DigestError{What: "interpreter " + in.Path, Want: in.SHA256, Got: got}, f.Close())
	}
	return f, nil
}

// rootsOwn says whether root alone can write into a file.
func rootsOwn(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0 && info.Mode().Perm()&0o022 == 0
}
