package manifests

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
)

// ContentDigest is the SHA-256, in hex, over the sorted lines "mode SP sha256 SP
// path LF" of files: the same whatever their order and compression.
func ContentDigest(files []File) string {
	lines := make([]string, len(files))
	for i, f := range files {
		lines[i] = f.Mode + " " + f.SHA256 + " " + f.Path + "\n"
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, l := range lines {
		io.WriteString(h, l) // a hash returns no error
	}
	return hex.EncodeToString(h.Sum(nil))
}
