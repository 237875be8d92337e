package bundle

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/stellarun/stella/manifests"
)

// block is the unit of a tar: a header, or data padded with zeros.
const block = 512

// header is what may differ between two headers of a bundle. All else is fixed
// (FORMATS section 1), so that a header has exactly one encoding.
type header struct {
	name        string // at most 100 bytes
	size, mtime int64  // below 8^11
}

// Offsets and lengths are those of POSIX.1-1988 ustar.
const (
	nameEnd    = 100
	sizeAt     = 124
	mtimeAt    = 136
	checksumAt = 148
	typeAt     = 156
	magicAt    = 257
	prefixAt   = 345
	prefixEnd  = 500
	octal12    = 11 // digits of a 12-byte number field
	magic      = "ustar\x0000"
)

// encode writes the one accepted header.
func (h header) encode() [block]byte {
	var b [block]byte
	copy(b[:nameEnd], h.name)
	copy(b[100:], "0000644\x00"+"0000000\x00"+"0000000\x00") // mode, uid, gid
	copy(b[sizeAt:], fmt.Sprintf("%011o\x00", h.size))
	copy(b[mtimeAt:], fmt.Sprintf("%011o\x00", h.mtime))
	b[typeAt] = '0'
	copy(b[magicAt:], magic)
	copy(b[329:], "0000000\x00"+"0000000\x00") // device numbers
	copy(b[checksumAt:], fmt.Sprintf("%06o\x00 ", checksum(&b)))
	return b
}

// checksum is the sum of all bytes with the checksum field taken as blanks.
func checksum(b *[block]byte) int {
	sum := 8 * int(' ')
	for i, c := range b {
		if i < checksumAt || i >= checksumAt+8 {
			sum += int(c)
		}
	}
	return sum
}

// decode reads a header and compares it with the one that its name, size and
// time have. The reason is "" if they are equal and the name is well-formed.
func decode(b *[block]byte) (h header, reason Reason, detail string) {
	h.name = nameOf(b)
	var ok1, ok2 bool
	h.size, ok1 = octal(b[sizeAt : sizeAt+12])
	h.mtime, ok2 = octal(b[mtimeAt : mtimeAt+12])
	same := ok1 && ok2 && h.encode() == *b
	if !same {
		stored, err := strconv.ParseInt(strings.Trim(string(b[checksumAt:checksumAt+8]), " \x00"), 8, 64)
		if err != nil || int(stored) != checksum(b) {
			return h, HeaderChecksum, "the header does not have its checksum"
		}
		if reason, what := special(b[typeAt]); reason != "" {
			return h, reason, "is " + what + "; a bundle holds regular files only"
		}
	}
	if reason, detail := badName(b); reason != "" {
		return h, reason, detail
	}
	switch {
	case same:
		return h, "", ""
	case !ok1:
		return h, EntrySize, "its size is not eleven octal digits, which reach to 8 GiB"
	}
	return h, HeaderInvalid, "the header is not USTAR with mode 0644, owner 0 and no names, as stella bundle pack writes it"
}

// nameOf is the name in a header, as far as the first NUL.
func nameOf(b *[block]byte) string {
	name, _, _ := bytes.Cut(b[:nameEnd], []byte{0})
	return string(name)
}

// badName says what is wrong with the name in a header, "" for nothing. Where
// the header has a prefix, which no bundle has, the name goes on from there.
func badName(b *[block]byte) (Reason, string) {
	name, rest, _ := bytes.Cut(b[:nameEnd], []byte{0})
	full := string(name)
	if prefix, _, _ := bytes.Cut(b[prefixAt:prefixEnd], []byte{0}); len(prefix) > 0 && string(b[magicAt:magicAt+8]) == magic {
		full = string(prefix) + "/" + full
	}
	switch manifests.PathRule(full) {
	case manifests.RuleTraversal:
		return PathTraversal, "the name is absolute, or a part of it is empty, . or .."
	case manifests.RuleForbidden:
		return PathForbidden, "a name has at most 255 of A-Z a-z 0-9 . _ + @ - and /"
	}
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return PathForbidden, "the name has a NUL in it"
	}
	return "", ""
}

// octal reads eleven octal digits. What follows them is for the comparison.
func octal(field []byte) (int64, bool) {
	var n int64
	for _, c := range field[:octal12] {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

// special names the types of entries that are refused, "" for a regular file.
func special(flag byte) (Reason, string) {
	switch flag {
	case '0', 0:
		return "", ""
	case '1':
		return EntryLink, "a hard link"
	case '2':
		return EntryLink, "a symbolic link"
	case '3', '4':
		return EntryDevice, "a device"
	case '6':
		return EntryDevice, "a pipe"
	case '5', 'D':
		return EntryFolder, "a folder"
	case 'x', 'g', 'X':
		return EntryExtended, "a PAX header"
	case 'L', 'K', 'N':
		return EntryExtended, "a GNU long name"
	case 'S':
		return EntrySparse, "a sparse file"
	}
	return EntryType, "of an unknown type"
}

// padding is how many zero bytes follow size bytes of data.
func padding(size int64) int64 { return -size & (block - 1) }
