package verify

import (
	"fmt"

	"github.com/stellarun/stella/bundle"
)

// Reason says why a bundle is refused: one of those of package bundle, or one
// of these. Reasons reach the ledger and JSON output: never change or reuse one.
type Reason = bundle.Reason

// Reasons of the judgement. [Reasons] documents each, in the order of checking.
const (
	SignatureMissing        Reason = "SIGNATURE_MISSING"
	SignatureMalformed      Reason = "SIGNATURE_MALFORMED"
	SignatureNotCanonical   Reason = "SIGNATURE_NOT_CANONICAL"
	SignatureIsStatement    Reason = "SIGNATURE_IS_STATEMENT"
	SignatureID             Reason = "SIGNATURE_ID"
	SignatureExtra          Reason = "SIGNATURE_EXTRA"
	SignatureInvalid        Reason = "SIGNATURE_INVALID"
	TrustedTimeAhead        Reason = "TRUSTED_TIME_AHEAD"
	DuplicateSigner         Reason = "DUPLICATE_SIGNER"
	SignerUnknown           Reason = "SIGNER_UNKNOWN"
	ManifestTooComplex      Reason = "MANIFEST_TOO_COMPLEX"
	CaseCollision           Reason = "CASE_COLLISION"
	ManifestInvalid         Reason = "MANIFEST_INVALID"
	RootExpired             Reason = "ROOT_EXPIRED"
	PolicyExpired           Reason = "POLICY_EXPIRED"
	RevocationsExpired      Reason = "REVOCATIONS_EXPIRED"
	PublisherUnknown        Reason = "PUBLISHER_UNKNOWN"
	SignerForeign           Reason = "SIGNER_FOREIGN"
	RevokedManifest         Reason = "REVOKED_MANIFEST"
	RevokedBlob             Reason = "REVOKED_BLOB"
	RevokedKey              Reason = "REVOKED_KEY"
	RevokedIdentity         Reason = "REVOKED_IDENTITY"
	KeyNotYetValid          Reason = "KEY_NOT_YET_VALID"
	KeyExpired              Reason = "KEY_EXPIRED"
	TLogMissing             Reason = "TLOG_MISSING"
	TimestampMissing        Reason = "TIMESTAMP_MISSING"
	SCTMissing              Reason = "SCT_MISSING"
	ThresholdNotMet         Reason = "THRESHOLD_NOT_MET"
	KindNotAllowed          Reason = "KIND_NOT_ALLOWED"
	NameNotAllowed          Reason = "NAME_NOT_ALLOWED"
	AudienceMissing         Reason = "AUDIENCE_MISSING"
	AudienceMismatch        Reason = "AUDIENCE_MISMATCH"
	NotYetValid             Reason = "NOT_YET_VALID"
	Expired                 Reason = "EXPIRED"
	StellaTooOld            Reason = "STELLA_TOO_OLD"
	VersionReused           Reason = "VERSION_REUSED"
	Rollback                Reason = "ROLLBACK"
	SequenceReused          Reason = "SEQUENCE_REUSED"
	SequenceJump            Reason = "SEQUENCE_JUMP"
	CapabilityExceeded      Reason = "CAPABILITY_EXCEEDED"
	AttestationMalformed    Reason = "ATTESTATION_MALFORMED"
	AttestationNotCanonical Reason = "ATTESTATION_NOT_CANONICAL"
	AttestationIsSignature  Reason = "ATTESTATION_IS_SIGNATURE"
	AttestationType         Reason = "ATTESTATION_TYPE"
	AttestationID           Reason = "ATTESTATION_ID"
	AttestationExtra        Reason = "ATTESTATION_EXTRA"
	AttestationInvalid      Reason = "ATTESTATION_INVALID"
	AttestationSubject      Reason = "ATTESTATION_SUBJECT"
	AttestationMissing      Reason = "ATTESTATION_MISSING"
	PredicateMismatch       Reason = "PREDICATE_MISMATCH"
	TrustInvalid            Reason = "TRUST_INVALID"
	TrustRollback           Reason = "TRUST_ROLLBACK"
)

// ExtensionInvalid refuses an extension of expired trust, which is no bundle: it
// is not signed by enough of the root's break_glass role, or is for another site,
// other files, or too long.
const ExtensionInvalid Reason = "EXTENSION_INVALID"

// A RejectError is a refusal: the bytes were read, judged, and turned away. Any
// other error of this package means that no judgement was reached.
type RejectError struct {
	Reason  Reason
	Subject string // what it is about: an entry, key id, file or field; may come from the file, escape it
	Detail  string // likewise
	Hint    string // what the reader of the message can do
	Err     error  // may be nil
}

func (e *RejectError) Error() string {
	s := string(e.Reason)
	if e.Subject != "" {
		s += ": " + e.Subject
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *RejectError) Unwrap() error { return e.Err }

// reject makes a refusal with the hint of its reason.
func reject(reason Reason, subject, format string, args ...any) *RejectError {
	return &RejectError{Reason: reason, Subject: subject, Detail: fmt.Sprintf(format, args...), Hint: HintOf(reason)}
}

// HintOf is the hint of a reason.
func HintOf(reason Reason) string {
	for _, info := range Reasons() {
		if info.Reason == reason {
			return info.Hint
		}
	}
	return ""
}

// because keeps the cause of a refusal.
func (e *RejectError) because(err error) *RejectError {
	e.Err = err
	return e
}

// Stage is when a reason is found.
type Stage string

// Stages of a judgement, in their order. That of trust is about the trust files
// in a bundle of kind trust, of which all the rest is good; that of blob belongs
// to [BlobVerifier] alone.
const (
	StageContainer    Stage = "container"
	StageSignatures   Stage = "signatures"
	StageManifest     Stage = "manifest"
	StagePolicy       Stage = "policy"
	StageAttestations Stage = "attestations"
	StageBlobs        Stage = "blobs"
	StageTrust        Stage = "trust"
	StageBlob         Stage = "blob"
)

// ReasonInfo documents one reason.
type ReasonInfo struct {
	Reason Reason `json:"reason"`
	Stage  Stage  `json:"stage"`
	Doc    string `json:"doc"`
	Hint   string `json:"hint,omitempty"`
}

// StageOf is the stage at which a reason is found.
func StageOf(reason Reason) Stage {
	for _, info := range Reasons() {
		if info.Reason == reason {
			return info.Stage
		}
	}
	return ""
}
