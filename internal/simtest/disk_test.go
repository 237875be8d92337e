package simtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// disk is a file system of its own, in a file, that can be cut off as by a loss of power: what
// was not synced by then is not there afterwards. It does not tear single writes.
type disk struct {
	image, at string
}

// What ioctl(2) is told: EXT4_IOC_SHUTDOWN, and that the journal is not to be flushed.
const (
	shutdown   = 0x8004587d
	noLogFlush = 2
)

// newDisk makes a disk at a folder, or skips the test where none can be made.
func newDisk(t *testing.T, at string) *disk {
	t.Helper()
	d := &disk{filepath.Join(t.TempDir(), "image"), at}
	err := func() error {
		if os.Geteuid() != 0 {
			return errors.New("only root mounts disks")
		}
		if err := os.WriteFile(d.image, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(d.image, 1<<30); err != nil {
			return err
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
			return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
		}
		if err := os.MkdirAll(at, 0o700); err != nil {
			return err
		}
		return d.mount()
	}()
	switch {
	case err == nil:
	case strings.Contains(os.Getenv("STELLA_REQUIRE"), "powercut"):
		t.Fatalf("a disk that can be cut off is required: %v", err)
	default:
		t.Skipf("SKIPPED: no disk can be cut off here (%v); losses of power were not tested", err)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", at).Run() })
	return d
}

// mount mounts it. Nothing is written by itself for five minutes, so that what a cut takes
// away is what nobody has synced.
func (d *disk) mount() error {
	if out, err := exec.Command("mount", "-o", "loop,commit=300", d.image, d.at).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	return nil
}

// cut cuts the disk off while a process is stopped, so that nobody is told anything after it.
func (d *disk) cut(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if err := stopped(pid); err != nil {
		return err
	}
	f, err := os.Open(d.at)
	if err != nil {
		return err
	}
	defer f.Close()
	how := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		return fmt.Errorf("shutdown: %w", errno)
	}
	return nil
}

// stopped waits until no thread of a process runs: the signal that stops them takes a moment.
func stopped(pid int) error {
	for late := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", max(pid, -pid)))
		if err != nil {
			return err
		}
		running := false
		for _, path := range tasks {
			raw, err := os.ReadFile(path)
			_, rest, _ := strings.Cut(string(raw), ") ")
			running = running || err == nil && !strings.ContainsAny(rest[:min(1, len(rest))], "TtZX")
		}
		if !running {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("process %d does not stop", pid)
		}
	}
}

// restore brings it back, once nothing uses it any more.
func (d *disk) restore() error {
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		out, err := exec.Command("umount", d.at).CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(late) {
			return fmt.Errorf("umount: %w: %s", err, out)
		}
	}
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := d.mount(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(d.at, ".alive"), nil, 0o600); err == nil {
			return os.Remove(filepath.Join(d.at, ".alive"))
		} else if time.Now().After(late) {
			return err
		}
		if out, err := exec.Command("umount", d.at).CombinedOutput(); err != nil { // another namespace still has the one that was cut off
			return fmt.Errorf("umount: %w: %s", err, out)
		}
	}
}
