package debian

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Release is the part of os-release(5) that names a system.
type Release struct {
	ID        string // "debian"; "linux" where the file says nothing
	VersionID string // "12"; "" on testing and unstable
	Codename  string
	Pretty    string
}

// maxRelease bounds the release file in bytes.
const maxRelease = 64 << 10

// ReadRelease reads usr/lib/os-release below root, or etc/os-release where the
// first is not there or is a link. None of both is an error of kind
// [fs.ErrNotExist].
func ReadRelease(root string) (Release, error) {
	f, err := openRegular(root + "/usr/lib/os-release")
	if err != nil {
		var second error
		if f, second = openRegular(root + "/etc/os-release"); second != nil {
			if errors.Is(second, fs.ErrNotExist) {
				return Release{}, err
			}
			return Release{}, second
		}
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxRelease+1))
	if err != nil {
		return Release{}, err
	}
	if len(raw) > maxRelease {
		return Release{}, fmt.Errorf("%w: os-release", ErrTooLarge)
	}
	return ParseRelease(string(raw)), nil
}

// ParseRelease reads os-release(5). Lines that it does not understand are left
// out, as the manual asks.
func ParseRelease(text string) Release {
	r := Release{ID: "linux"}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		switch value = unquote(value); key {
		case "ID":
			if value != "" && all(value, isNameByte) {
				r.ID = value
			}
		case "VERSION_ID":
			if all(value, isNameByte) {
				r.VersionID = value
			}
		case "VERSION_CODENAME":
			if all(value, isNameByte) {
				r.Codename = value
			}
		case "PRETTY_NAME":
			r.Pretty = strings.ToValidUTF8(value, "?")
		}
	}
	return r
}

// Distro names the release as package URLs do: debian-12, or debian alone.
func (r Release) Distro() string {
	if r.VersionID == "" {
		return r.ID
	}
	return r.ID + "-" + r.VersionID
}

// unquote undoes the shell's quotes and backslashes.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	var quote byte
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		quote, s = s[0], s[1:len(s)-1]
	}
	if quote == '\'' || !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
