package store_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stellarun/stella/store"
)

// failing fails at one reading of many.
type failing struct {
	io.ReaderAt
	left int
}

func (f *failing) ReadAt(b []byte, at int64) (int, error) {
	if f.left--; f.left == 0 {
		return 0, &fs.PathError{Op: "read", Path: "ledger.db", Err: syscall.EIO}
	}
	return f.ReaderAt.ReadAt(b, at)
}

// Whatever the disk cannot read of a ledger, a recovery says so and leaves it alone: it drops
// no entry for what may be read the next time.
func TestADiskThatFailsDropsNoEntry(t *testing.T) {
	home := newHome(t)
	randomLedger(t, create(t, home), rand.New(rand.NewPCG(1, 2)))
	want := read(t, home, "ledger.db")
	failed := 0
	for n := 1; ; n += n/4 + 1 {
		disk := &failing{left: n}
		r, err := recoveredBy(home, false, store.WithRead(store.Options{}, func(f io.ReaderAt) io.ReaderAt {
			disk.ReaderAt = f
			return disk
		}))
		if disk.left > 0 {
			break // it has read less
		}
		failed++
		if !errors.Is(err, syscall.EIO) || isDamage(err) || errors.Is(err, store.ErrHopeless) {
			t.Fatalf("reading %d fails: %+v, %v", n, r, err)
		}
		if !bytes.Equal(read(t, home, "ledger.db"), want) {
			t.Fatalf("reading %d fails: ledger.db was replaced", n)
		}
		if _, err := os.Stat(filepath.Join(home, "restoring")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("reading %d fails: what was begun is left: %v", n, err)
		}
	}
	if failed < 5 {
		t.Errorf("it has read %d times", failed)
	}
}
