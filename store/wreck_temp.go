package store

import "encoding/binary"

func (w *wreck) unread(buckets ...[]byte) int { return 0 }
func (w *wreck) schema() (n uint64) {
	_ = w.each(bMeta, func(k, v []byte) error {
		if string(k) == "schema" && len(v) == 8 {
			n = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	return n
}
