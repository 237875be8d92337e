package fsx

import (
	"io/fs"
	"os"
	"regexp"
	"strconv"
)

var maskLine = regexp.MustCompile(`(?m)^Umask:\s*([0-7]+)$`)

// umask is that of this process. To ask the kernel is to set another for a moment, in all
// goroutines; proc(5) tells it too. Where it does not, nobody but the owner may.
func umask() fs.FileMode {
	raw, err := os.ReadFile("/proc/self/status")
	m := maskLine.FindSubmatch(raw)
	if err != nil || m == nil {
		return 0o077
	}
	mask, err := strconv.ParseUint(string(m[1]), 8, 9)
	if err != nil {
		return 0o077
	}
	return fs.FileMode(mask)
}

// ByUmask is what the umask leaves of perm, for what a person asked for. What belongs to a
// site has the permissions that it needs, whatever the umask.
func ByUmask(perm fs.FileMode) fs.FileMode { return perm &^ umask() }
