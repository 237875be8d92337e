package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

// maxLogBytes bounds a log segment where neither action nor site says.
const maxLogBytes = 10 << 20

// LogPath is where the segment with this digest lies.
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
