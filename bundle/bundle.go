// Package bundle is the container format stella.bundle/1 (CONTRACT section 3,
// FORMATS section 1): an uncompressed USTAR tar whose order, names, headers and
// sizes are predicted, so that reading is a comparison and writing is
// reproducible. It decides what a well-formed container is, and nothing about
// who signed it: package verify does. It hands out no byte of a blob's
// decompressed content before the stored bytes have met their signed digest.
//
// A [Reader] reads a bundle once, front to back, and needs no seeking. [Pack]
// writes one from a folder, [Attach] adds signatures to one. The package is the
// only one beside export that imports klauspost/compress. It starts no
// goroutines; a Reader is for one goroutine.
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/stellarun/stella/manifests"
)

// Limits of the format.
const (
	MaxManifest     = 1 << 20  // bytes of stella.toml
	MaxSignatures   = 16       // files in signatures/
	MaxSignature    = 64 << 10 // bytes of one
	MaxAttestations = 64       // files in attestations/
	MaxAttestation  = 4 << 20  // bytes of one
	MaxAttested     = 16 << 20 // bytes of all attestations
	MaxStored       = 8<<30 - 1
	DefaultBytes    = 4 << 30 // size of a whole bundle, where [Limits] does not say
	maxWindow       = 8 << 20 // of a zstd frame; bounds the decoder's memory
)

// Names of entries.
const (
	ManifestName      = "stella.toml"
	signatureFolder   = "signatures/"
	attestationFolder = "attestations/"
	attachedSuffix    = ".sigstore.json"
	blobFolder        = "blobs/sha256/"
	zstdSuffix        = ".zst"
	// Encoding is the only encoding of stored blobs.
	Encoding = "zstd"
)

// firstLine is how every manifest begins, so that its signature cannot be taken
// for one over anything else.
const firstLine = `schema = "` + manifests.BundleSchema + "\"\n"

// Limits bound what a [Reader] accepts beyond the format's own limits.
type Limits struct {
	Bytes int64 // size of the whole file; 0 means DefaultBytes
	// Size is that of the file, where it is known before it is read: one that is
	// too large is refused without a look at it. 0: it is not known.
	Size int64
}

// Attached is a file of signatures/ or attestations/.
type Attached struct {
	ID   string // 64 lower-case hex digits; its name is ID + ".sigstore.json"
	Data []byte
}

// SignatureName is the name of the entry of a signature by the key id.
func SignatureName(id string) string { return signatureFolder + id + attachedSuffix }

// AttestationName is the name of the entry of an attestation with digest id.
func AttestationName(id string) string { return attestationFolder + id + attachedSuffix }

// FileName is the customary name of a bundle's file.
func FileName(m *manifests.Bundle) string { return m.Name + "-" + m.Version + ".stella" }

// Digest is the lower-case hex SHA-256 of raw. That of a manifest's exact bytes
// is the identity of its bundle.
func Digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// attachedID takes the id out of an entry's name in folder.
func attachedID(name, folder string) (string, bool) {
	rest, ok := strings.CutPrefix(name, folder)
	id, suffixed := strings.CutSuffix(rest, attachedSuffix)
	return id, ok && suffixed && isDigest(id)
}

// isDigest says whether s is 64 lower-case hex digits.
func isDigest(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
