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
	for _, i := range []int{sumSinks, sumOutbox, sumSmall} {
		_ = w.each(sumBuckets[i], func(k, v []byte) error {
			have.add(i, k, v)
			return nil
		})
	}
	if have[sumSinks] != want[sumSinks] || have[sumOutbox] != want[sumOutbox] {
		r.Unsent = max(r.Unsent, 1)
	}
	if have[sumSmall].n < want[sumSmall].n {
		r.Lost++
	}
}
