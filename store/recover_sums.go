package store

import "bytes"

// compareSums holds what no entry gives of the file against its sums: what waits for sinks, and
// how far they have come, may read, and say something else than was written; a small sealed file
// may be gone without a trace.
func (w *wreck) compareSums(r *Recovery) {
	var want, have recordSums
	known := false
	_ = w.each(bMeta, func(k, v []byte) error {
		if bytes.Equal(k, kSum) {
			want, known = decodeSums(v)
		}
		return nil
	})
	if !known || w.schema() < sumsSince {
		return
	}
	same := func(bucket []byte) (other, gone bool) {
		i := sumIndex[string(bucket)]
		_ = w.each(bucket, func(k, v []byte) error {
			have[i].add(bucket, k, v)
			return nil
		})
		return have[i] != want[i], have[i].n < want[i].n
	}
	for _, bucket := range [][]byte{bSinks, bOutbox} {
		if other, _ := same(bucket); other {
			r.Unsent = max(r.Unsent, 1)
		}
	}
	if _, gone := same(bSmall); gone {
		r.Lost++
	}
}
