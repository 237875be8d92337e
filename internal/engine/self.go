package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
)

// fileID changes whenever a file of the host does: nobody but root can set the
// time of its last change.
type fileID struct {
	Path  string `json:"path"`
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime"` // nanoseconds
	CTime int64  `json:"ctime"`
}

func identify(path string) (fileID, os.FileInfo, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return fileID{}, nil, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fileID{path, st.Dev, st.Ino, fi.Size(), st.Mtim.Nano(), st.Ctim.Nano()}, fi, nil
}

// hashSelf is the SHA-256 of the running executable. Hashing it takes longer
// than most commands, so the result is kept below cache/ until the file
// changes; whoever can write there holds the site's keys too.
func hashSelf(cache string) (string, error) {
	const self = "/proc/self/exe"
	id, _, err := identify(self)
	if err != nil {
		return "", err
	}
	if id.Path, err = os.Readlink(self); err != nil {
		return "", err
	}
	var known struct {
		File   fileID `json:"file"`
		SHA256 string `json:"sha256"`
	}
	path := filepath.Join(cache, "self.json")
	if raw, err := os.ReadFile(path); err == nil && json.Unmarshal(raw, &known) == nil && known.File == id && isHex(known.SHA256, 64) {
		return known.SHA256, nil
	}
	known.File = id
	if known.SHA256, err = hashFile(self); err != nil {
		return "", err
	}
	raw, err := json.Marshal(known)
	if err != nil {
		return "", err
	}
	return known.SHA256, os.WriteFile(path, raw, 0o600)
}
