package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
)

// A recordSum says of the records of ledger.db whether they are those that were written. bbolt
// has no checksum of a value, and only what the ledger's tree has a hash of would show that a
// byte of it is another. It is kept in the transaction that changes a record, so that all of
// them can be held against it in one pass, in any order:
//
//	8 bytes  the sum over all records, without carry, of mix(CRC-32C of bucket, key and value | length of the key << 32)
//	8 bytes  how many records there are
//
// Both are big endian. What has a hash of its own is not in it: entries and small sealed files.
// It is against the decay of disks and memory: who forges a record makes its sum as well, and
// is found by a replay, see [DB.Check].
type recordSum struct{ sum, n uint64 }

const recordSumSize = 16

var errOtherSum = errors.New("they are not what was written")

// summed says whether a record counts.
func summed(bucket, key []byte) bool {
	switch {
	case bytes.Equal(bucket, bEntries), bytes.Equal(bucket, bSmall):
		return false
	case bytes.Equal(bucket, bMeta):
		return !bytes.Equal(key, kSum) && !bytes.Equal(key, kSchema)
	}
	return true
}

func (s *recordSum) add(bucket, key, value []byte) {
	s.sum, s.n = s.sum+sumOf(bucket, key, value), s.n+1
}

func (s *recordSum) take(bucket, key, value []byte) {
	s.sum, s.n = s.sum-sumOf(bucket, key, value), s.n-1
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(bucket, key, value []byte) uint64 {
	crc := crc32.Update(crc32.Update(crc32.Update(0, castagnoli, bucket), castagnoli, key), castagnoli, value)
	return mix(uint64(crc) | uint64(len(key))<<32)
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014), under which sums of alike records have nothing in common.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// is holds the sum of the records that are there against the one that was written with them.
func (s recordSum) is(want recordSum) error {
	switch {
	case s.n != want.n:
		return damaged(fmt.Errorf("%w: there are %d, and were %d", errOtherSum, s.n, want.n), "records of ledger.db")
	case s != want:
		return damaged(fmt.Errorf("%w: of %d at least one is another", errOtherSum, s.n), "records of ledger.db")
	}
	return nil
}

func (s recordSum) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.sum), s.n)
}

// readSum reads the sum of a transaction; that of an empty database, which has none, is zero.
func readSum(t *bolt.Tx) (s recordSum, err error) {
	b := t.Bucket(bMeta)
	if b == nil {
		return s, nil
	}
	v := b.Get(kSum)
	switch {
	case len(v) == recordSumSize:
		return recordSum{binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])}, nil
	case v == nil && b.Get(kSite) == nil: // nothing was written yet
		return s, nil
	}
	return s, damaged(errMissing, "the sum of the records of ledger.db")
}
