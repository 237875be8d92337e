package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

// maxLogBytes bounds a log segment where neither action nor site says.
const maxLogBytes = 10 << 20

// LogPath is where the segment with this digest lies, if it is longer than a
// sealed blob without a file may be.
func LogPath(logsDir, digest string) string {
	if len(digest) != 64 {
		return filepath.Join(logsDir, "invalid")
	}
	return filepath.Join(logsDir, digest[:2], digest+".jsonl")
}

// OpenLogPath is where an attempt under way writes its segment.
func OpenLogPath(logsDir, runID, stepID string, attempt int) string {
	return filepath.Join(logsDir, "open", fmt.Sprintf("%s.%s.%d.jsonl", runID, stepID, attempt))
}

// maxShortLog is how long a segment may be that is sealed like outputs are: it
// has no file once its attempt has ended.
const maxShortLog = 4 << 10

// attemptLog is the segment of an attempt under way. It has a file from its first
// line on, which readers may follow and which a crash leaves.
type attemptLog struct {
	path  string
	f     *os.File // nil before the first line
	seg   *telemetry.Segment
	short []byte // what was written, while it is short
	long  bool
	err   error // the first line that could not be stored
}

// newLog begins the segment of an attempt.
func (r *Runner) newLog(runID, stepID string, attempt int, limit int64) *attemptLog {
	l := &attemptLog{path: OpenLogPath(r.opt.LogsDir, runID, stepID, attempt)}
	l.seg = telemetry.NewSegment(l, limit)
	return l
}

func (l *attemptLog) line(stream string, at time.Time, line []byte) {
	if err := l.seg.Line(stream, at, line); err != nil && l.err == nil {
		l.err = err
	}
}

// Write implements [io.Writer] for the segment.
func (l *attemptLog) Write(b []byte) (int, error) {
	if l.f == nil {
		if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
			return 0, err
		}
		var err error
		if l.f, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return 0, err
		}
	}
	if l.long = l.long || len(l.short)+len(b) > maxShortLog; l.long {
		l.short = nil
	} else {
		l.short = append(l.short, b...)
	}
	return l.f.Write(b)
}

// keep makes the segment durable under its digest: no later than the entry that
// names it.
func (l *attemptLog) keep(r *Runner) (*ledger.LogRef, error) {
	ref, err := l.seg.Close()
	if err = errors.Join(l.err, err); err == nil {
		if l.long {
			err = errors.Join(l.f.Sync(), r.keepLog(l.path, ref))
		} else {
			_, err = r.opt.Sealed.Put(l.short)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &ref, nil
}

// letGo removes the file of a segment that was sealed without it.
func (l *attemptLog) letGo(end *ledger.AttemptEnd) {
	if l.f != nil && !l.long && end != nil && end.Logs != nil {
		os.Remove(l.path) // whoever opens the site next sweeps it
	}
}

func (l *attemptLog) close() {
	if l.f != nil {
		l.f.Close()
	}
}

// keepLog moves a finished segment to the place that its digest names.
func (r *Runner) keepLog(open string, ref ledger.LogRef) error {
	to := LogPath(r.opt.LogsDir, ref.SHA256)
	if err := fsx.Mkdir(filepath.Dir(to), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsx.Rename(open, to)
}

// sealLog closes the segment that an interrupted attempt has left: it is cut
// after its last whole line. It returns nil when there is none.
func (r *Runner) sealLog(runID, stepID string, attempt int) (*ledger.LogRef, error) {
	open := OpenLogPath(r.opt.LogsDir, runID, stepID, attempt)
	f, err := os.OpenFile(open, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("runner: log: %w", err)
	}
	defer f.Close()
	ref, err := telemetry.Intact(f)
	if err != nil {
		return nil, fmt.Errorf("runner: log: %w", err)
	}
	if err := errors.Join(f.Truncate(ref.Bytes), f.Sync()); err != nil {
		return nil, fmt.Errorf("runner: log: %w", err)
	}
	return &ref, r.keepLog(open, ref)
}
