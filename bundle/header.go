package bundle

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
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
	octal12    = 11 // digits of a 12-byte number field
)

// encode writes the one accepted header.
func (h header) encode() [block]byte {
	var b [block]byte
	copy(b[:nameEnd], h.name)
	copy(b[100:], "0000644\x00"+"0000000\x00"+"0000000\x00") // mode, uid, gid
	copy(b[sizeAt:], fmt.Sprintf("%011o\x00", h.size))
	copy(b[mtimeAt:], fmt.Sprintf("%011o\x00", h.mtime))
	b[typeAt] = '0'
	copy(b[magicAt:], "ustar\x0000")
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
// time have. The reason is "" if they are equal.
func decode(b *[block]byte) (h header, reason Reason, detail string) {
	name, _, _ := bytes.Cut(b[:nameEnd], []byte{0})
	h.name = string(name)
	var ok1, ok2 bool
	h.size, ok1 = octal(b[sizeAt : sizeAt+12])
	h.mtime, ok2 = octal(b[mtimeAt : mtimeAt+12])
	if ok1 && ok2 && h.encode() == *b {
		return h, "", ""
	}
	if stored, err := strconv.ParseInt(strings.Trim(string(b[checksumAt:checksumAt+8]), " \x00"), 8, 64); err != nil || int(stored) != checksum(b) {
		return h, HeaderInvalid, "the header's checksum is wrong"
	}
	if what := special(b[typeAt]); what != "" {
		return h, EntryType, "is " + what + "; a bundle holds regular files only"
	}
	return h, HeaderInvalid, "the header is not USTAR with mode 0644, owner 0 and no names, as stella bundle pack writes it"
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
func special(flag byte) string {
	switch flag {
	case '0', 0:
		return ""
	case '1', '2':
		return "a link"
	case '3', '4', '6':
		return "a device or pipe"
	case '5':
		return "a folder"
	case 'x', 'g':
		return "a PAX header"
	case 'L', 'K', 'S':
		return "a GNU extension"
	}
	return "of an unknown type"
}

// padding is how many zero bytes follow size bytes of data.
func padding(size int64) int64 { return -size & (block - 1) }
