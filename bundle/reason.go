package bundle

import "fmt"

// Reason says why a bundle is refused. Reasons reach the ledger, JSON output
// and the fixtures: never change or reuse one. Package verify adds those of the
// judgement, and lists all of them in the order in which they are checked.
type Reason string

// The rules of the container, in the order in which they are checked. The size
// of the file, truncation, headers, types and padding are checked at each entry.
const (
	TooLarge            Reason = "BUNDLE_TOO_LARGE"      // the file exceeds the limit of the site
	Truncated           Reason = "BUNDLE_TRUNCATED"      // the file ends before the end marker
	NotABundle          Reason = "NOT_A_BUNDLE"          // the first entry is not stella.toml in USTAR form
	HeaderChecksum      Reason = "HEADER_CHECKSUM"       // the 512 bytes of a header do not have its checksum
	EntryLink           Reason = "ENTRY_LINK"            // a symbolic or hard link
	EntryDevice         Reason = "ENTRY_DEVICE"          // a device or pipe
	EntryFolder         Reason = "ENTRY_FOLDER"          // a folder
	EntryExtended       Reason = "ENTRY_EXTENDED"        // a PAX or GNU header about another entry
	EntrySparse         Reason = "ENTRY_SPARSE"          // a sparse file
	EntryType           Reason = "ENTRY_TYPE"            // another type than a regular file
	PathTraversal       Reason = "PATH_TRAVERSAL"        // a name that is absolute, or has a part that is empty, . or ..
	PathForbidden       Reason = "PATH_FORBIDDEN"        // a name with a character that is not allowed, or too long
	EntrySize           Reason = "ENTRY_SIZE"            // a size that is not eleven octal digits: 8 GiB or more
	HeaderInvalid       Reason = "HEADER_INVALID"        // the 512 bytes are not the one accepted header of their entry
	PaddingInvalid      Reason = "PADDING_INVALID"       // the bytes after an entry's data are not zero
	ManifestTooLarge    Reason = "MANIFEST_TOO_LARGE"    // stella.toml has more than 1 MiB
	SchemaUnknown       Reason = "SCHEMA_UNKNOWN"        // the first line of stella.toml is not that of this format
	EntryUnexpected     Reason = "ENTRY_UNEXPECTED"      // an entry that nothing predicts
	EntryDuplicate      Reason = "ENTRY_DUPLICATE"       // an entry that was there before
	EntryOrder          Reason = "ENTRY_ORDER"           // an entry that should have come earlier
	TimeMismatch        Reason = "TIME_MISMATCH"         // an entry's time is not the manifest's created, in seconds
	SignaturesTooMany   Reason = "SIGNATURES_TOO_MANY"   // more than 16
	SignatureTooLarge   Reason = "SIGNATURE_TOO_LARGE"   // more than 64 KiB
	AttestationsTooMany Reason = "ATTESTATIONS_TOO_MANY" // more than 64
	AttestationTooLarge Reason = "ATTESTATION_TOO_LARGE" // more than 4 MiB, or 16 MiB in all
	AttestationDigest   Reason = "ATTESTATION_DIGEST"    // not named by the SHA-256 of its bytes
	BlobMissing         Reason = "BLOB_MISSING"          // a blob of the manifest is neither here nor at the site
	BlobSize            Reason = "BLOB_SIZE"             // the stored size is not the signed one
	BlobDigest          Reason = "BLOB_DIGEST"           // the stored bytes are not the signed ones
	BlobEncoding        Reason = "BLOB_ENCODING"         // not a zstd frame that can be decoded
	BlobFrames          Reason = "BLOB_FRAMES"           // a skippable frame, a second one, or bytes after the first
	BlobWindow          Reason = "BLOB_WINDOW"           // a zstd frame that needs more than 8 MiB to be decoded
	BlobDictionary      Reason = "BLOB_DICTIONARY"       // a zstd frame that needs a dictionary
	BlobExceeds         Reason = "BLOB_EXCEEDS"          // decompresses to more than the signed size
	BlobContent         Reason = "BLOB_CONTENT"          // decompresses to something else than what was signed
	TrailingData        Reason = "TRAILING_DATA"         // bytes after the end marker
)

// A FormatError is a container that breaks a rule. Any other error of this
// package means that the bytes could not be read or written.
type FormatError struct {
	Reason Reason
	Entry  string // name of the entry; "" before one is known. Escaped, it may come from the file
	Offset int64  // how many bytes had been read when the rule broke
	Detail string
}

func (e *FormatError) Error() string {
	if e.Entry == "" {
		return fmt.Sprintf("%s at byte %d: %s", e.Reason, e.Offset, e.Detail)
	}
	return fmt.Sprintf("%s at byte %d: %s: %s", e.Reason, e.Offset, e.Entry, e.Detail)
}
