package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// branches follows the pages of a tree of a bbolt file (v2: a page begins with its id, flags,
// count and overflow, and a branch has elements of pos, ksize and pgid). bbolt itself would go
// in a circle until its stack or the memory ends, which nothing can catch.
type branches struct {
	r    io.ReaderAt
	page int64 // size of a page, in bytes
	most int64 // elements that there is room for
}

const (
	pageHeader    = 16 // bytes
	branchPage    = 1  // flag of a page
	branchElement = 16 // bytes
)

// follow is an error where a branch is reached twice. What cannot be read ends there: bbolt
// finds that out, too.
func (b *branches) follow(root uint64) error {
	seen := map[uint64]struct{}{}
	for next := []uint64{root}; len(next) > 0; {
		id := next[len(next)-1]
		next = next[:len(next)-1]
		if id > math.MaxInt64/2/uint64(b.page) {
			continue
		}
		at, head := int64(id)*b.page, make([]byte, pageHeader)
		if _, err := b.r.ReadAt(head, at); err != nil || binary.NativeEndian.Uint16(head[8:])&branchPage == 0 {
			continue
		}
		if _, again := seen[id]; again {
			return fmt.Errorf("page %d is reached twice", id)
		}
		seen[id] = struct{}{}
		elements := make([]byte, branchElement*int(binary.NativeEndian.Uint16(head[10:])))
		n, _ := b.r.ReadAt(elements, at+pageHeader)
		for e := range slices.Chunk(elements[:n/branchElement*branchElement], branchElement) {
			next = append(next, binary.NativeEndian.Uint64(e[8:]))
		}
		if int64(len(next)) > b.most {
			return fmt.Errorf("page %d has more branches than there is room for", id)
		}
	}
	return nil
}
