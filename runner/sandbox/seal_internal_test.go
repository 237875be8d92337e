package sandbox

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A file of which somebody can write a page without writing the file is not sealed: the
// kernel says so, and goes on saying so.
func TestAFileThatIsMappedIsNotSealed(t *testing.T) {
	f, err := memfd("stella-test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := addSeals(f); err != unix.EBUSY {
		t.Errorf("it is sealed: %v", err)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	if err := addSeals(f); err != nil {
		t.Error(err)
	}
}
