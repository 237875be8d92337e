package engine

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stellarun/stella/ledger"
)

// maxMountinfo bounds what is read of the kernel's list of mounts.
const maxMountinfo = 4 << 20

// mediaOf says on which file systems paths lie, as far as the kernel tells. It
// is for the receipt, and decides nothing.
func mediaOf(paths []string) []ledger.Medium {
	mounts := readMounts("/proc/self/mountinfo")
	out := []ledger.Medium{}
	for _, path := range paths {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		m, ok := mountOf(mounts, path)
		if !ok || len(out) == maxMediaPaths {
			continue
		}
		m.UUID, m.Label = nameOf("/dev/disk/by-uuid", m.Device), nameOf("/dev/disk/by-label", m.Device)
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// readMounts parses mountinfo: see proc_pid_mountinfo(5).
func readMounts(file string) []ledger.Medium {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []ledger.Medium
	for s := bufio.NewScanner(io.LimitReader(f, maxMountinfo)); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, more := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(more) < 2 {
			continue
		}
		out = append(out, ledger.Medium{Mount: plain(unescape(fields[4])), FSType: plain(more[0]), Device: plain(unescape(more[1]))})
	}
	return out
}

// mountOf is the last mount, which covers those before it, that path lies in.
func mountOf(mounts []ledger.Medium, path string) (ledger.Medium, bool) {
	var best ledger.Medium
	found := false
	for _, m := range mounts {
		inside := m.Mount == "/" || path == m.Mount || strings.HasPrefix(path, m.Mount+"/")
		if inside && (!found || len(m.Mount) >= len(best.Mount)) {
			best, found = m, true
		}
	}
	return best, found
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// nameOf finds the link in a folder of /dev/disk that leads to a device.
func nameOf(dir, device string) string {
	if !strings.HasPrefix(device, "/dev/") {
		return ""
	}
	want, err := filepath.EvalSymlinks(device)
	if err != nil {
		return ""
	}
	links, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, l := range links {
		if to, err := filepath.EvalSymlinks(filepath.Join(dir, l.Name())); err == nil && to == want {
			return plain(l.Name())
		}
	}
	return ""
}

// plain is text for an entry: at most 256 bytes of printable ASCII. Whoever
// formatted a stick chose its label.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < 256; i++ {
		if c := s[i]; c >= ' ' && c <= '~' {
			b.WriteByte(c)
		} else {
			b.WriteByte('?')
		}
	}
	return b.String()
}
