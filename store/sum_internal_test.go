package store

import (
	"bytes"
	"testing"
)

// Each bucket but that of the entries has a sum, and the few that are known by their place have it.
func TestEveryBucketHasItsSum(t *testing.T) {
	for _, name := range buckets() {
		if _, ok := sumIndex[string(name)]; ok == bytes.Equal(name, bEntries) {
			t.Errorf("bucket %s has a sum: %v", name, ok)
		}
	}
	for i, name := range map[int][]byte{sumMeta: bMeta, sumOutbox: bOutbox, sumSinks: bSinks, sumSmall: bSmall, sumTenants: bTenantRuns} {
		if !bytes.Equal(sumBuckets[i], name) {
			t.Errorf("sum %d is that of %s, not of %s", i, sumBuckets[i], name)
		}
	}
	if len(sumIndex) != len(buckets())-1 {
		t.Errorf("%d sums of %d buckets", len(sumIndex), len(buckets()))
	}
}
