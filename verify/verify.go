// Package verify is the judgement: whether a bundle may be admitted, or one of
// its attempts started, under the trust of a site; and signing, its mirror. It
// decides from bytes, trust files and a time that it is given. It reads no
// clock, opens no file and no connection, writes nothing, and starts no
// goroutine. It is the only package that imports sigstore-go.
//
// The order is the point (THREATS 1): signatures over the raw manifest first,
// against every key that a trust file names; then the linear scan and TOML;
// then policy, revocations and floors; then attestations, one at a time; then
// blobs, whose stored bytes are hashed before they are decompressed. [Check]
// does all of it for a file, [Trust.Rejudge] what an attempt needs. A refusal
// is a [*RejectError] with a documented [Reason]; any other error means that no
// judgement was reached.
package verify

import "time"

// clockSlack is how far a trusted time may lie ahead of the clock (THREATS 12).
const clockSlack = 10 * time.Minute

// maxJump is the largest step of a sequence that is believed (THREATS 10).
const maxJump = 1_000_000

// Flow is how a signer is known.
const (
	FlowKey         = "key"         // a public key that a trust file names
	FlowCertificate = "certificate" // a certificate for an identity that the policy names
)

// Roles of root.toml.
const (
	RoleRoot       = "root"
	RolePolicy     = "policy"
	RoleRevocation = "revocation"
	RoleBreakGlass = "break_glass" // optional; puts off what has expired
)

// Decisions of a verdict.
const (
	Admitted           = "admitted"
	AdmittedUnderAudit = "admitted_under_audit"
)
