// Package ledger is the append-only record of a site: what an entry is, the
// Merkle tree over all entries (RFC 6962), and what proves it to people who
// trust neither the site nor its disk: checkpoints, inclusion and consistency
// proofs, and windows.
//
// An entry is two lines of canonical JSON. The envelope says what happened,
// when, to what and by whom; its bytes are the leaf. The data line holds the
// details behind a salted digest, so that it can be withheld or erased without
// touching the tree. The stored bytes are the record: nothing is encoded again
// to be verified, but everything has one accepted encoding, and anything else
// is refused.
//
// The package keeps nothing, reads no clock and no randomness, does no I/O and
// starts no goroutine: whoever stores entries and hashes passes a [HashReader].
// It does not decide which entries may follow each other, which is the part of
// package state, and does not judge witnesses.
package ledger
