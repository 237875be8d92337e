package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
)

// encodeSums writes lines that sha256sum -c reads, sorted by path.
func encodeSums(sums []fileSum) []byte {
	slices.SortFunc(sums, func(a, b fileSum) int { return strings.Compare(a.path, b.path) })
	var out bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&out, "%s  %s\n", s.sha256, s.path)
	}
	return out.Bytes()
}

// parseSums accepts exactly what encodeSums writes, for paths inside of a folder.
func parseSums(raw []byte) (out []fileSum, err error) {
	for line := range bytes.Lines(raw) {
		digest, name, ok := strings.Cut(string(line), "  ")
		name, ended := strings.CutSuffix(name, "\n")
		switch {
		case !ok || !ended || len(digest) != 64 || !isHexName(digest):
			return nil, fmt.Errorf("line %d is not a digest, two spaces and a path", len(out)+1)
		case !filepath.IsLocal(name) || path.Clean(name) != name || len(name) > maxSnapshotName || strings.Contains(name, "\\"):
			return nil, fmt.Errorf("line %d names %.100q", len(out)+1, name)
		case len(out) > 0 && out[len(out)-1].path >= name:
			return nil, fmt.Errorf("line %d is out of order", len(out)+1)
		}
		out = append(out, fileSum{name, digest})
	}
	return out, nil
}

// ReadSnapshot reads what a snapshot in a folder says of itself. Nothing of it is verified:
// [Restore] does that.
func ReadSnapshot(dir string) (s Snapshot, err error) {
	raw, err := fsx.ReadFile(filepath.Join(dir, snapshotFile), maxSnapshot)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("store: %s: %w", filepath.Join(dir, snapshotFile), err)
	}
	if again, err := jcs.Marshal(s); err != nil || !bytes.Equal(append(again, '\n'), raw) {
		return s, fmt.Errorf("store: %s is not in its one form", filepath.Join(dir, snapshotFile))
	}
	if s.Schema != SnapshotSchema {
		return s, fmt.Errorf("%w: a snapshot of %.40s", ErrNewerSchema, s.Schema)
	}
	return s, nil
}

// Snapshots lists the snapshots in a folder, by their IDs. What is not one is left out.
func Snapshots(dir string) ([]Snapshot, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var out []Snapshot
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if s, err := ReadSnapshot(filepath.Join(dir, e.Name())); err == nil && s.ID == e.Name() {
			out = append(out, s)
		}
	}
	return out, nil
}
