package verify

import "github.com/stellarun/stella/bundle"

// Hints that several reasons share. Each is a command to try or a person to ask;
// FILE is the file that was refused.
const (
	hintForeign   = "stella bundle pack makes bundles; tar and other programs write entries that no bundle has"
	hintPath      = "ask the publisher to rename the file, and to pack it with stella bundle pack"
	hintRepack    = "ask the publisher to pack it with stella bundle pack"
	hintBroken    = "copy it again and compare its sha256sum with the publisher's; if they agree, ask the publisher to pack it with stella bundle pack"
	hintShort     = "the end is missing: copy it again and compare its sha256sum with the publisher's"
	hintSigner    = "stella bundle inspect FILE shows who signed, and what to write to believe them; stella trust show shows who is believed"
	hintResign    = "ask the publisher to sign it again with stella bundle sign"
	hintAttach    = "ask the publisher to attach it with stella bundle sign --attach, which makes the canonical form"
	hintAnother   = "ask the publisher for a signature by another key or identity that the policy names: stella bundle sign FILE --key KEY"
	hintFewer     = "ask the publisher to pack it anew and to attach less with stella bundle sign"
	hintExtra     = "have it signed without them, or demand them: stella trust add PUBLISHER --require-tlog 1, or --require-timestamps 1"
	hintAttest    = "ask whoever attested to attest again: stella bundle sign FILE --attach STATEMENT"
	hintTrust     = "stella bundle inspect FILE shows which roles signed; ask the holders of the root's keys for trust files that follow those in force"
	hintExpired   = "stella trust import FILE brings newer trust files; who holds the root's key makes them with stella trust; stella trust break-glass goes on for a while where the root allows it"
	hintSequence  = "ask the publisher for a newer version; stella bundle list shows what was admitted"
	hintWithdrawn = "it was withdrawn, and stella trust show says why: ask the publisher for a newer version"
	hintPolicy    = "stella trust show --text policy prints what the policy allows this publisher; whoever holds the root's key allows more with stella trust add"
	hintClock     = "compare the clock of this machine with another, and set it"
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
		{bundle.TooLarge, StageContainer, "the file exceeds the site's limit for bundles", "ask the publisher for smaller bundles; a site takes what max_bundle_bytes in its site.toml says, once its daemon is started again"},
		{bundle.Truncated, StageContainer, "the file ends before the end marker", hintShort},
		{bundle.NotABundle, StageContainer, "the file does not begin with stella.toml in USTAR form", "stella bundle inspect FILE says what it is; stella bundle pack makes bundles"},
		{bundle.HeaderChecksum, StageContainer, "an entry's header does not have the checksum in it", hintBroken},
		{bundle.EntryLink, StageContainer, "an entry is a symbolic or hard link", hintForeign},
		{bundle.EntryDevice, StageContainer, "an entry is a device or pipe", hintForeign},
		{bundle.EntryFolder, StageContainer, "an entry is a folder", hintForeign},
		{bundle.EntryExtended, StageContainer, "an entry is a PAX or GNU header about another entry", hintForeign},
		{bundle.EntrySparse, StageContainer, "an entry is a sparse file", hintForeign},
		{bundle.EntryType, StageContainer, "an entry is of another type than a regular file", hintForeign},
		{bundle.PathTraversal, StageContainer, "a path, of an entry or in stella.toml, is absolute or has an empty part, . or ..", hintPath},
		{bundle.PathForbidden, StageContainer, "a path, of an entry or in stella.toml, has more than 255 bytes or others than A-Z a-z 0-9 . _ + @ - and /", hintPath},
		{bundle.EntrySize, StageContainer, "an entry's size is not eleven octal digits, which reach to 8 GiB", "ask the publisher to put the content into smaller files"},
		{bundle.HeaderInvalid, StageContainer, "an entry's header is not the one accepted form", hintBroken},
		{bundle.PaddingInvalid, StageContainer, "the bytes that fill up an entry's last block are not zero", hintBroken},
		{bundle.ManifestTooLarge, StageContainer, "stella.toml has more than 1 MiB", "ask the publisher to put the content into fewer files"},
		{bundle.SchemaUnknown, StageContainer, "the first line of stella.toml is not that of stella.bundle/1", "stella version says which this is; a newer stella may know this format"},
		{bundle.EntryUnexpected, StageContainer, "an entry that nothing predicts", hintBroken},
		{bundle.EntryDuplicate, StageContainer, "an entry or a content is there twice", hintBroken},
		{bundle.EntryOrder, StageContainer, "an entry is not in its place", hintBroken},
		{bundle.TimeMismatch, StageContainer, "an entry's time is not the manifest's created", hintBroken},
		{bundle.SignaturesTooMany, StageContainer, "more than 16 signatures", hintFewer},
		{bundle.SignatureTooLarge, StageContainer, "a signature file of more than 64 KiB", hintFewer},
	}
}

func signatureReasons() []ReasonInfo {
	return []ReasonInfo{
		{SignatureMissing, StageSignatures, "nobody has signed the bundle", "ask the publisher to sign it: stella bundle sign FILE --key KEY"},
		{SignatureMalformed, StageSignatures, "a signature file is not a Sigstore bundle v0.3 with an ECDSA signature", hintResign},
		{SignatureNotCanonical, StageSignatures, "a signature file is a Sigstore bundle, but not in its canonical form", hintAttach},
		{SignatureIsStatement, StageSignatures, "a signature file holds an attestation, which says something else than: this is mine", "ask the publisher to attach it with stella bundle sign --attach, which puts attestations into attestations/"},
		{SignatureID, StageSignatures, "a signature file is not named by the key that it claims", hintResign},
		{SignatureExtra, StageSignatures, "a signature file brings log entries or timestamps that the policy does not verify", hintExtra},
		{SignatureInvalid, StageSignatures, "a signature of a trusted signer does not verify over this manifest", "the manifest or the signature was changed: ask the publisher for the file, by another way"},
		{TrustedTimeAhead, StageSignatures, "a trusted time lies more than ten minutes after the clock", hintClock},
		{DuplicateSigner, StageSignatures, "two signatures of one signer", "ask the publisher to leave one of the two out: one signer counts once"},
		{SignerUnknown, StageSignatures, "no trust file names any of the signers", hintSigner},
		{ManifestTooComplex, StageManifest, "stella.toml has lines of more than 4 KiB, names of more than 4 parts, values nested more than 8 deep, or too many of them", hintRepack},
		{CaseCollision, StageManifest, "stella.toml lists two paths that differ only in case, or not at all", "ask the publisher to rename one of the files"},
		{ManifestInvalid, StageManifest, "stella.toml breaks the rules of its language", hintRepack},
	}
}

func policyReasons() []ReasonInfo {
	return []ReasonInfo{
		{RootExpired, StagePolicy, "root.toml has expired", hintExpired},
		{PolicyExpired, StagePolicy, "the policy's next_update has passed", hintExpired},
		{RevocationsExpired, StagePolicy, "the revocations' next_update has passed", hintExpired},
		{RevokedManifest, StagePolicy, "this bundle is revoked", hintWithdrawn},
		{RevokedBlob, StagePolicy, "a file of this bundle is revoked", hintWithdrawn},
		{PublisherUnknown, StagePolicy, "the policy does not name the publisher", "stella trust show lists the publishers that are named; stella bundle inspect FILE prints what would add this one"},
		{SignerForeign, StagePolicy, "none of the known signers may sign for this publisher or kind", hintSigner},
		{RevokedKey, StagePolicy, "too few signers or attesters are left without a revoked key", hintAnother},
		{RevokedIdentity, StagePolicy, "too few signers or attesters are left without a revoked identity", hintAnother},
		{KeyNotYetValid, StagePolicy, "too few signers are left without a key that is not valid yet", "set the clock of this machine if it is behind; else wait, or ask the publisher for a signature by a key that is valid"},
		{KeyExpired, StagePolicy, "too few signers are left without a key that is no longer valid", "set the clock of this machine if it is ahead; else ask the publisher for a signature by a newer key, which stella trust rotate PUBLISHER --new-key FILE names"},
		{TLogMissing, StagePolicy, "too few signatures are in a transparency log", "ask the publisher for a signature that is in a log, attached with stella bundle sign --attach"},
		{TimestampMissing, StagePolicy, "too few signatures have a trusted timestamp", "ask the publisher for a signature with a timestamp, attached with stella bundle sign --attach"},
		{SCTMissing, StagePolicy, "a certificate has no timestamp of a certificate log, and the policy demands one", "ask the publisher for a signature by a certificate that is in a certificate log"},
		{ThresholdNotMet, StagePolicy, "fewer signers than the policy demands", "ask more of the signers that are named: stella bundle sign FILE --key KEY adds a signature"},
		{KindNotAllowed, StagePolicy, "the publisher may not publish this kind", hintPolicy},
		{NameNotAllowed, StagePolicy, "the publisher may not use this name", hintPolicy},
		{AudienceMissing, StagePolicy, "the bundle must say for which sites it is, and does not", "ask the publisher to name the site or the fleet in audience and to sign again; stella status prints both ids"},
		{AudienceMismatch, StagePolicy, "the bundle is for other sites", "stella status prints the ids of this site and its fleet: ask the publisher for a bundle that names one of them"},
		{NotYetValid, StagePolicy, "not_before lies ahead", "wait, or set the clock of this machine if it is behind; stella bundle verify FILE --as-of TIME judges at another time"},
		{Expired, StagePolicy, "expires has passed", "set the clock of this machine if it is ahead; else ask the publisher for a newer version"},
		{StellaTooOld, StagePolicy, "min_stella is newer than this stella", "stella version says which this is: install one that is new enough"},
		{VersionReused, StagePolicy, "this version was admitted before, with another digest", "stella bundle show PUBLISHER/NAME@VERSION shows the one that was admitted: ask the publisher for a new version"},
		{Rollback, StagePolicy, "a higher sequence was admitted before", hintSequence},
		{SequenceReused, StagePolicy, "this sequence was admitted before, with another digest", hintSequence},
		{SequenceJump, StagePolicy, "the sequence is more than a million above the last one", "ask the publisher for a lower sequence"},
		{CapabilityExceeded, StagePolicy, "the plugin asks for more than the policy allows its publisher", hintPolicy},
	}
}

func contentReasons() []ReasonInfo {
	return []ReasonInfo{
		{bundle.AttestationsTooMany, StageAttestations, "more than 64 attestations", hintFewer},
		{bundle.AttestationTooLarge, StageAttestations, "an attestation of more than 4 MiB, or 16 MiB in all", hintFewer},
		{bundle.AttestationDigest, StageAttestations, "an attestation is not named by its SHA-256", hintBroken},
		{AttestationMalformed, StageAttestations, "an attestation is not a Sigstore bundle v0.3 with an in-toto statement", hintAttest},
		{AttestationNotCanonical, StageAttestations, "an attestation is a Sigstore bundle, but not in its canonical form", hintAttach},
		{AttestationIsSignature, StageAttestations, "an attestation is a signature over a file and states nothing", "ask the publisher to attach it with stella bundle sign --attach, which puts signatures into signatures/"},
		{AttestationType, StageAttestations, "an attestation's payload is of another type than application/vnd.in-toto+json", hintAttest},
		{AttestationID, StageAttestations, "an attestation's hint is not the hash of a key", hintAttest},
		{AttestationExtra, StageAttestations, "an attestation brings log entries or timestamps that the policy does not verify", hintExtra},
		{AttestationInvalid, StageAttestations, "an attestation of a trusted signer does not verify", "the attestation or its key was changed: ask the publisher for the file, by another way"},
		{AttestationSubject, StageAttestations, "an attestation of a trusted signer is about something else", "the attestation is about another bundle: its subject must be the digest that stella bundle inspect FILE prints"},
		{AttestationMissing, StageAttestations, "an attestation that the policy demands is not there", "stella trust show --text policy prints which attestations are demanded and by whom; stella bundle sign FILE --attach STATEMENT adds one"},
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
		{TrustRollback, StageTrust, "a trust file is older than the one in force", "newer trust files are in force already, and stella trust show prints them; if these are to follow, ask for a higher serial"},
		{PredicateMismatch, StageBlob, "a verified statement is of another predicate type than the one demanded", "--predicate-type must be the one that the statement has"},
	}
}
