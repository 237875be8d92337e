package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/fsx"
)

// maxLine is more than the longest line that a file of ours can end in.
const maxLine = 128 << 10

// file appends a line for each event to a file. It is opened anew each time, so
// that somebody may move it away and begin another.
type file struct {
	path   string
	folder string // of the home for such files, which is made when it is needed
}

func (t *file) close() {}

// deliver appends all events and syncs once, or leaves the file as it was.
func (t *file) deliver(_ context.Context, events []Event) (int, error) {
	var lines bytes.Buffer
	for _, e := range events {
		lines.Write(e.Body)
		lines.WriteByte('\n')
	}
	if filepath.Dir(t.path) == t.folder {
		if err := fsx.Mkdir(t.folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
	}
	// O_NONBLOCK: the open of a pipe would wait for its reader.
	f, err := os.OpenFile(t.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(t.append(f, lines.Bytes()), f.Close()); err != nil {
		return 0, err
	}
	return len(events), nil
}

func (t *file) append(f *os.File, lines []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", t.path, fsx.ErrNotRegular)
	}
	size, err := mend(f, info.Size())
	if err != nil {
		return fmt.Errorf("%s: its last line: %w", t.path, err)
	}
	if err := failpoint.Hit(failpoint.OutboxWrite); err != nil {
		return err
	}
	if _, err := f.Write(lines); err != nil {
		return errors.Join(err, f.Truncate(size)) // a part of a line may be there
	}
	if err := f.Sync(); err != nil || size > 0 {
		return err
	}
	return fsx.SyncDir(filepath.Dir(t.path))
}

// mend makes a file end in a whole line, and returns its size then. A part of one
// of our lines, which a crash left, is cut off: its event is delivered again. A
// whole one, and what somebody else wrote, is only ended.
func mend(f *os.File, size int64) (int64, error) {
	from := max(0, size-maxLine)
	tail := make([]byte, size-from)
	if _, err := f.ReadAt(tail, from); err != nil && err != io.EOF {
		return 0, err
	}
	if len(tail) == 0 || tail[len(tail)-1] == '\n' {
		return size, nil
	}
	last := bytes.LastIndexByte(tail, '\n') + 1
	// A file system may have made the file longer before it wrote what belongs there.
	begun, ours := bytes.TrimRight(tail[last:], "\x00"), []byte(`{"actor":`)
	whole := last > 0 || from == 0
	if whole && (bytes.HasPrefix(begun, ours) || bytes.HasPrefix(ours, begun)) && !json.Valid(tail[last:]) {
		return from + int64(last), f.Truncate(from + int64(last))
	}
	_, err := f.Write([]byte("\n"))
	return size + 1, err
}
