package export

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// sum is one line of SHA256SUMS.
type sum struct {
	path, sha256 string
}

// encodeSums writes SHA256SUMS in the form that sha256sum -c reads, sorted by
// path.
func encodeSums(sums []sum) []byte {
	slices.SortFunc(sums, func(a, b sum) int { return cmp.Compare(a.path, b.path) })
	var out bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&out, "%s  %s\n", s.sha256, s.path)
	}
	return out.Bytes()
}

// parseSums accepts exactly what encodeSums writes, for paths that an archive
// may have.
func parseSums(raw []byte) ([]sum, error) {
	var out []sum
	for line := range bytes.Lines(raw) {
		n := len(out) + 1
		digest, path, ok := bytes.Cut(line, []byte("  "))
		path, ended := bytes.CutSuffix(path, []byte{'\n'})
		s := sum{path: string(path), sha256: string(digest)}
		switch {
		case !ok || !ended || !isSHA256(s.sha256):
			return nil, fmt.Errorf("line %d is not a digest, two spaces and a path", n)
		case memberRank(s.path) < 0 || s.path == sumsPath || s.path == signaturePath:
			return nil, fmt.Errorf("line %d names %.100q, which it must not", n, s.path)
		case len(out) > 0 && out[len(out)-1].path >= s.path:
			return nil, fmt.Errorf("line %d is out of order", n)
		case len(out) == maxMembers:
			return nil, fmt.Errorf("more than %d lines", maxMembers)
		}
		out = append(out, s)
	}
	return out, nil
}
