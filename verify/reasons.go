package verify

import "github.com/stellarun/stella/bundle"

// Hints that several reasons share.
const (
	hintForeign  = "stella bundle pack makes bundles; tar and other programs write entries that no bundle has"
	hintManifest = "stella bundle pack checks it before it is signed"
	hintPath     = "rename the file, and pack it with stella bundle pack"
	hintRepack   = "ask the publisher to pack it with stella bundle pack"
	hintBroken   = "the file is damaged or was made by another program: copy it again, or ask the publisher for it"
	hintSigner   = "stella bundle inspect shows who signed; stella trust show shows who is trusted"
	hintResign   = "ask the publisher to sign it again with stella bundle sign"
	hintTrust    = "import newer trust files with stella trust import"
	hintSequence = "ask the publisher for a newer version"
	hintPolicy   = "stella trust show prints what the policy allows this publisher"
)

// Reasons lists all reasons in the order in which they are checked. Those of the
// container are checked at each entry, by that order; the two about paths hold
// for the paths in stella.toml as well, and come before the others of its stage.
func Reasons() []ReasonInfo {
	all := containerReasons()
	all = append(all, signatureReasons()...)
	all = append(all, policyReasons()...)
	return append(all, contentReasons()...)
}

func containerReasons() []ReasonInfo {
	return []ReasonInfo{
		{bundle.TooLarge, StageContainer, "the file exceeds the site's limit for bundles", "raise max_bundle_bytes in site.toml"},
		{bundle.Truncated, StageContainer, "the file ends before the end marker", hintBroken},
		{bundle.NotABundle, StageContainer, "the file does not begin with stella.toml in USTAR form", "stella bundle pack makes bundles"},
		{bundle.HeaderChecksum, StageContainer, "an entry's header does not have the checksum in it", "the file is damaged: copy it again"},
		{bundle.EntryLink, StageContainer, "an entry is a symbolic or hard link", hintForeign},
		{bundle.EntryDevice, StageContainer, "an entry is a device or pipe", hintForeign},
		{bundle.EntryFolder, StageContainer, "an entry is a folder", hintForeign},
		{bundle.EntryExtended, StageContainer, "an entry is a PAX or GNU header about another entry", hintForeign},
		{bundle.EntrySparse, StageContainer, "an entry is a sparse file", hintForeign},
		{bundle.EntryType, StageContainer, "an entry is of another type than a regular file", hintForeign},
		{bundle.PathTraversal, StageContainer, "a path, of an entry or in stella.toml, is absolute or has an empty part, . or ..", hintPath},
		{bundle.PathForbidden, StageContainer, "a path, of an entry or in stella.toml, has more than 255 bytes or others than A-Z a-z 0-9 . _ + @ - and /", hintPath},
		{bundle.EntrySize, StageContainer, "an entry's size is not eleven octal digits, which reach to 8 GiB", "put the content into smaller files"},
		{bundle.HeaderInvalid, StageContainer, "an entry's header is not the one accepted form", hintBroken},
		{bundle.PaddingInvalid, StageContainer, "the bytes that fill up an entry's last block are not zero", hintBroken},
		{bundle.ManifestTooLarge, StageContainer, "stella.toml has more than 1 MiB", "put the content into fewer files"},
		{bundle.SchemaUnknown, StageContainer, "the first line of stella.toml is not that of stella.bundle/1", "a newer stella may know this format"},
		{bundle.EntryUnexpected, StageContainer, "an entry that nothing predicts", hintBroken},
		{bundle.EntryDuplicate, StageContainer, "an entry or a content is there twice", hintBroken},
		{bundle.EntryOrder, StageContainer, "an entry is not in its place", hintBroken},
		{bundle.TimeMismatch, StageContainer, "an entry's time is not the manifest's created", hintBroken},
		{bundle.SignaturesTooMany, StageContainer, "more than 16 signatures", hintResign},
		{bundle.SignatureTooLarge, StageContainer, "a signature file of more than 64 KiB", hintResign},
	}
}

func signatureReasons() []ReasonInfo {
	return []ReasonInfo{
		{SignatureMissing, StageSignatures, "nobody has signed the bundle", "sign it with stella bundle sign"},
		{SignatureMalformed, StageSignatures, "a signature file is not a Sigstore bundle v0.3 with an ECDSA signature", hintResign},
		{SignatureNotCanonical, StageSignatures, "a signature file is a Sigstore bundle, but not in its canonical form", "attach it with stella bundle sign --attach, which makes the canonical form"},
		{SignatureIsStatement, StageSignatures, "a signature file holds an attestation, which says something else than: this is mine", "attestations belong into attestations/"},
		{SignatureID, StageSignatures, "a signature file is not named by the key that it claims", hintResign},
		{SignatureExtra, StageSignatures, "a signature file brings log entries or timestamps that the policy does not verify", "demand them in the policy, or have it signed without them"},
		{SignatureInvalid, StageSignatures, "a signature of a trusted signer does not verify over this manifest", "the manifest or the signature was changed: ask the publisher for the file"},
		{TrustedTimeAhead, StageSignatures, "a trusted time lies more than ten minutes after the clock", "set the clock of this machine"},
		{DuplicateSigner, StageSignatures, "two signatures of one signer", "one signer counts once"},
		{SignerUnknown, StageSignatures, "no trust file names any of the signers", hintSigner},
		{ManifestTooComplex, StageManifest, "stella.toml has lines of more than 4 KiB, names of more than 4 parts, values nested more than 8 deep, or too many of them", hintManifest},
		{CaseCollision, StageManifest, "stella.toml lists two paths that differ only in case, or not at all", "rename one of the files"},
		{ManifestInvalid, StageManifest, "stella.toml breaks the rules of its language", hintManifest},
	}
}

func policyReasons() []ReasonInfo {
	return []ReasonInfo{
		{RootExpired, StagePolicy, "root.toml has expired", hintTrust},
		{PolicyExpired, StagePolicy, "the policy's next_update has passed", hintTrust},
		{RevocationsExpired, StagePolicy, "the revocations' next_update has passed", hintTrust},
		{RevokedManifest, StagePolicy, "this bundle is revoked", hintSequence},
		{RevokedBlob, StagePolicy, "a file of this bundle is revoked", hintSequence},
		{PublisherUnknown, StagePolicy, "the policy does not name the publisher", hintPolicy},
		{SignerForeign, StagePolicy, "none of the known signers may sign for this publisher or kind", hintSigner},
		{RevokedKey, StagePolicy, "too few signers or attesters are left without a revoked key", hintResign},
		{RevokedIdentity, StagePolicy, "too few signers or attesters are left without a revoked identity", hintResign},
		{KeyNotYetValid, StagePolicy, "too few signers are left without a key that is not valid yet", hintResign},
		{KeyExpired, StagePolicy, "too few signers are left without a key that is no longer valid", hintResign},
		{TLogMissing, StagePolicy, "too few signatures are in a transparency log", hintResign},
		{TimestampMissing, StagePolicy, "too few signatures have a trusted timestamp", hintResign},
		{SCTMissing, StagePolicy, "a certificate has no timestamp of a certificate log, and the policy demands one", hintResign},
		{ThresholdNotMet, StagePolicy, "fewer signers than the policy demands", "have it signed by more of the publisher's signers"},
		{KindNotAllowed, StagePolicy, "the publisher may not publish this kind", hintPolicy},
		{NameNotAllowed, StagePolicy, "the publisher may not use this name", hintPolicy},
		{AudienceMissing, StagePolicy, "the bundle must say for which sites it is, and does not", hintResign},
		{AudienceMismatch, StagePolicy, "the bundle is for other sites", "stella status prints the id of this site"},
		{NotYetValid, StagePolicy, "not_before lies ahead", "wait, or set the clock of this machine"},
		{Expired, StagePolicy, "expires has passed", hintSequence},
		{StellaTooOld, StagePolicy, "min_stella is newer than this stella", "update stella"},
		{VersionReused, StagePolicy, "this version was admitted before, with another digest", "ask the publisher for a new version"},
		{Rollback, StagePolicy, "a higher sequence was admitted before", hintSequence},
		{SequenceReused, StagePolicy, "this sequence was admitted before, with another digest", hintSequence},
		{SequenceJump, StagePolicy, "the sequence is more than a million above the last one", "ask the publisher for a lower sequence"},
		{CapabilityExceeded, StagePolicy, "the plugin asks for more than the policy allows its publisher", hintPolicy},
	}
}

func contentReasons() []ReasonInfo {
	return []ReasonInfo{
		{bundle.AttestationsTooMany, StageAttestations, "more than 64 attestations", hintResign},
		{bundle.AttestationTooLarge, StageAttestations, "an attestation of more than 4 MiB, or 16 MiB in all", hintResign},
		{bundle.AttestationDigest, StageAttestations, "an attestation is not named by its SHA-256", hintBroken},
		{AttestationMalformed, StageAttestations, "an attestation is not a Sigstore bundle v0.3 with an in-toto statement", hintResign},
		{AttestationNotCanonical, StageAttestations, "an attestation is a Sigstore bundle, but not in its canonical form", "attach it with stella bundle sign --attach, which makes the canonical form"},
		{AttestationIsSignature, StageAttestations, "an attestation is a signature over a file and states nothing", "signatures belong into signatures/"},
		{AttestationType, StageAttestations, "an attestation's payload is of another type than application/vnd.in-toto+json", hintResign},
		{AttestationID, StageAttestations, "an attestation's hint is not the hash of a key", hintResign},
		{AttestationExtra, StageAttestations, "an attestation brings log entries or timestamps that the policy does not verify", hintResign},
		{AttestationInvalid, StageAttestations, "an attestation of a trusted signer does not verify", hintBroken},
		{AttestationSubject, StageAttestations, "an attestation of a trusted signer is about something else", "attest the digest of stella.toml"},
		{AttestationMissing, StageAttestations, "an attestation that the policy demands is not there", hintPolicy},
		{bundle.BlobMissing, StageBlobs, "a blob is neither in the bundle nor at this site from the same publisher and name", "import the full bundle, or first the one that it was packed against"},
		{bundle.BlobSize, StageBlobs, "a blob's stored size is not the signed one", hintBroken},
		{bundle.BlobDigest, StageBlobs, "a blob's stored bytes are not the signed ones", hintBroken},
		{bundle.BlobEncoding, StageBlobs, "a blob is not a zstd frame that can be decoded", hintBroken},
		{bundle.BlobFrames, StageBlobs, "a blob has a skippable zstd frame, a second one, or bytes after the first", hintRepack},
		{bundle.BlobWindow, StageBlobs, "a blob's zstd frame needs a window of more than 8 MiB", hintRepack},
		{bundle.BlobDictionary, StageBlobs, "a blob's zstd frame needs a dictionary", hintRepack},
		{bundle.BlobExceeds, StageBlobs, "a blob decompresses to more than the signed size", hintBroken},
		{bundle.BlobContent, StageBlobs, "a blob decompresses to something else than what was signed", hintBroken},
		{bundle.TrailingData, StageBlobs, "bytes after the end marker", hintBroken},
		{TrustInvalid, StageTrust, "a trust file is not valid under the root in force", hintTrust},
		{TrustRollback, StageTrust, "a trust file is older than the one in force", hintTrust},
		{PredicateMismatch, StageBlob, "a verified statement is of another predicate type than the one demanded", "--predicate-type must be the one that the statement has"},
	}
}
