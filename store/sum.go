package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
)

// A recordSum says of the records of a bucket whether they are those that were written. bbolt
// has no checksum of a value, and only what the ledger's tree has a hash of would show that a
// byte of it is another. It is kept in the transaction that changes a record, so that all of
// them can be held against it in one pass, in any order. It is against the decay of disks and
// memory: who forges a record makes its sum as well, and is found by a replay, see [DB.Check].
type recordSum struct {
	sum uint64 // over the records, without carry, of mix(CRC-32C of bucket, key and value | length of the key << 32)
	n   uint64 // how many there are
}

// recordSums are those of all buckets but that of the entries, in the order of sumBuckets. On
// disk each has 16 bytes, its two numbers in big endian.
type recordSums [25]recordSum

// sumBuckets is the order of sums on disk; a bucket that a later schema brings comes last.
var sumBuckets = [len(recordSums{})][]byte{
	bMeta, bCheckpoints, bOutbox, bSinks, bSmall, bRecords, bTenantRuns, bActive, bTokens, bBundles, bRefs, bFloors, bDAGs, bExports,
	bArtifacts, bLive, bDead, bApprovals, bAsked, bLocks, bCache, bCacheAge, bSchedules, bSecrets, bSecretUses,
}

// Where some of them are.
const (
	sumMeta    = 0
	sumOutbox  = 2
	sumSinks   = 3
	sumSmall   = 4
	sumTenants = 6
)

// sumSeeds are the CRCs of their names, and sumIndex says where each is.
var sumSeeds, sumIndex = func() (seeds [len(recordSums{})]uint32, index map[string]int) {
	index = map[string]int{}
	for i, name := range sumBuckets {
		seeds[i], index[string(name)] = crc32.Checksum(name, castagnoli), i
	}
	return seeds, index
}()

const (
	recordSumsSize = 16 * len(recordSums{})
	sumsSince      = 6 // the schema that they came with
)

var errOtherSum = errors.New("they are not what was written")

// sumOf is which of the sums a record counts in; -1 where it counts in none: an entry, which the
// tree has a hash of, and what is read before the sums are.
func sumOf(bucket, key []byte) int {
	i, ok := sumIndex[string(bucket)]
	if !ok || i == sumMeta && unsummed(key) {
		return -1
	}
	return i
}

// unsummed says of a key of bMeta whether it counts in no sum.
func unsummed(key []byte) bool { return bytes.Equal(key, kSum) || bytes.Equal(key, kSchema) }

// add adds a record to one of the sums, and take takes it out.
func (s *recordSums) add(i int, key, value []byte) {
	s[i].sum, s[i].n = s[i].sum+hashOf(i, key, value), s[i].n+1
}

func (s *recordSums) take(i int, key, value []byte) {
	s[i].sum, s[i].n = s[i].sum-hashOf(i, key, value), s[i].n-1
}

// is holds the sum of the records that are there against the one that was written with them.
func (s recordSum) is(want recordSum, bucket []byte) error {
	switch {
	case s.n != want.n:
		return damaged(fmt.Errorf("%w: there are %d, and were %d", errOtherSum, s.n, want.n), "the records %s of ledger.db", bucket)
	case s != want:
		return damaged(fmt.Errorf("%w: of %d at least one is another", errOtherSum, s.n), "the records %s of ledger.db", bucket)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func hashOf(i int, key, value []byte) uint64 {
	if i == sumSmall { // its key is its hash
		value = nil
	}
	crc := crc32.Update(crc32.Update(sumSeeds[i], castagnoli, key), castagnoli, value)
	return mix(uint64(crc) | uint64(len(key))<<32)
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014), under which sums of alike records have nothing in common.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *recordSums) encode() []byte {
	b := make([]byte, 0, recordSumsSize)
	for _, x := range s {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, x.sum), x.n)
	}
	return b
}

// decodeSums reads sums; false where they are none.
func decodeSums(b []byte) (s recordSums, ok bool) {
	if len(b) != recordSumsSize {
		return s, false
	}
	for i := range s {
		s[i] = recordSum{binary.BigEndian.Uint64(b[16*i:]), binary.BigEndian.Uint64(b[16*i+8:])}
	}
	return s, true
}

// readSums reads the sums of a transaction; those of an empty database, which has none, are zero.
func readSums(t *bolt.Tx) (s recordSums, err error) {
	b := t.Bucket(bMeta)
	if b == nil || b.Get(kSum) == nil && b.Get(kSite) == nil { // nothing was written yet
		return s, nil
	}
	s, ok := decodeSums(b.Get(kSum))
	if !ok {
		return s, damaged(errMissing, "the sums of the records of ledger.db")
	}
	return s, nil
}

// records is how many there are.
func (s *recordSums) records() (n int64) {
	for _, x := range s {
		n += int64(x.n)
	}
	return n
}
