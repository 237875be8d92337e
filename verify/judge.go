package verify

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// Input is what [Trust.Judge] judges.
type Input struct {
	Manifest     *manifests.Bundle // parsed from the bytes that Signed is about
	Signed       *Signed
	Attestations []bundle.Attached
	Floors       *Floors // nil where no floor applies: outside a site, and at attempts
	SiteID       string  // "" outside a site: only the fleet is compared
	Stella       string  // version of this program, for min_stella; "" skips the comparison
	Now          time.Time
}

// Floors are what a site knows of earlier admissions (THREATS 10).
type Floors struct {
	Admitted bool   // this digest was admitted before: floors do not apply
	Version  string // digest that publisher/name@version means; "" for none
	Sequence int64  // highest sequence of this kind, publisher and name in Epoch
	Epoch    int64  // sequence epoch of that
	Digest   string // of the bundle with that sequence; "" where there is none
}

// judgement is one judgement under way.
type judgement struct {
	trust        *Trust
	in           Input
	publisher    *publisher // nil for kind trust, which roles sign
	threshold    int
	counted      []ledger.SignerRef
	checks       []string
	softened     []Reason
	attested     []bool         // by index of the required attestation
	causes       []*RejectError // likewise: why one that was there does not count
	attestations []string
	why          map[string]*RejectError // why a signer, by id, or an attestation, by digest, does not count
}

// Judge decides on a manifest whose signatures were verified by the same Trust.
// A refusal is a [*RejectError].
func (t *Trust) Judge(in Input) (*ledger.Verdict, error) {
	j, err := t.judgeManifest(in)
	if err != nil {
		return nil, err
	}
	for _, a := range in.Attestations {
		if err := j.attest(a); err != nil {
			return nil, err
		}
	}
	return j.verdict()
}

// Evidence is what the admission of a bundle sealed.
type Evidence struct {
	Manifest     []byte // exact bytes
	Signatures   []bundle.Attached
	Attestations []bundle.Attached
}

// Rejudge judges sealed evidence anew under this trust: what an attempt, a
// cache hit or a sub-run needs before it starts (THREATS 15). Floors do not
// apply.
func (t *Trust) Rejudge(e Evidence, siteID, stella string, now time.Time) (*ledger.Verdict, error) {
	signed, err := t.Signatures(e.Manifest, e.Signatures, now)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(e.Manifest)
	if err != nil {
		return nil, err
	}
	return t.Judge(Input{Manifest: m, Signed: signed, Attestations: e.Attestations, SiteID: siteID, Stella: stella, Now: now})
}

// parseManifest parses a manifest whose signatures were verified.
func parseManifest(raw []byte) (*manifests.Bundle, error) {
	m, err := manifests.ParseBundle(bundle.ManifestName, raw)
	if err != nil {
		return nil, reject(manifestReason(err), bundle.ManifestName, "%v", err).because(err)
	}
	return m, nil
}

// manifestReason is the first reason, in the order of [Reasons], that the
// faults of a manifest give.
func manifestReason(err error) Reason {
	var faults manifests.Faults
	errors.As(err, &faults)
	for _, r := range []struct {
		rule   manifests.Rule
		reason Reason
	}{
		{manifests.RuleTraversal, bundle.PathTraversal},
		{manifests.RuleForbidden, bundle.PathForbidden},
		{manifests.RuleShape, ManifestTooComplex},
		{manifests.RuleCollision, CaseCollision},
	} {
		if faults.Breaks(r.rule) {
			return r.reason
		}
	}
	return ManifestInvalid
}

// judgeManifest makes all decisions that need no attestation.
func (t *Trust) judgeManifest(in Input) (*judgement, error) {
	j, err := t.begin(in)
	if err != nil {
		return nil, err
	}
	for _, step := range j.steps() {
		if err := step.check(); err != nil {
			return nil, err
		}
		if j.applies(step.name) {
			j.checks = append(j.checks, step.name)
		}
	}
	if m := in.Manifest; m.Kind != manifests.KindTrust && t.extended(in.Now) {
		j.checks = append(j.checks, "break_glass")
	}
	j.expect()
	return j, nil
}

// begin begins a judgement.
func (t *Trust) begin(in Input) (*judgement, error) {
	if in.Manifest == nil || in.Signed == nil || in.Signed.trust != t || in.Now.IsZero() {
		return nil, errors.New("verify: Judge needs Manifest, Now, and Signed of the same Trust")
	}
	return &judgement{trust: t, in: in, checks: []string{checkSignatures}, why: map[string]*RejectError{}}, nil
}

// A step is one check of a manifest.
type step struct {
	name  string
	check func() error
}

// steps are the checks of a manifest in their order, which is documented: the
// first that fails is the reason of a refusal. [Trust.Explain] makes the same.
func (j *judgement) steps() []step {
	who := j.byPublisher
	if j.in.Manifest.Kind == manifests.KindTrust {
		who = j.byRoles
	}
	return []step{
		{checkTrust, j.dates},
		{checkRevocations, j.revocations},
		{checkSigners, who},
		{checkKind, j.kind},
		{checkName, j.name},
		{checkAudience, j.audience},
		{checkValidity, j.validity},
		{checkFloors, j.floors},
		{checkCapabilities, j.capabilities},
	}
}

// expect prepares for the attestations that the publisher needs.
func (j *judgement) expect() {
	if j.publisher != nil {
		j.attested = make([]bool, len(j.publisher.attesters))
		j.causes = make([]*RejectError, len(j.publisher.attesters))
	}
}

// applies says whether a check that passed had anything to check, so that a
// verdict does not claim what was not looked at.
func (j *judgement) applies(check string) bool {
	m := j.in.Manifest
	switch check {
	case checkTrust, checkKind, checkName:
		return m.Kind != manifests.KindTrust
	case checkRevocations:
		return j.trust.ref.Revocations != ""
	case checkAudience:
		return len(m.Audience) > 0
	case checkFloors:
		return j.in.Floors != nil && !j.in.Floors.Admitted
	case checkCapabilities:
		return m.Plugin != nil
	}
	return true
}

// dates checks the trust files' own dates. An expired trust still admits what
// may replace it, which [Trust.Successor] then judges.
func (j *judgement) dates() error {
	if j.in.Manifest.Kind == manifests.KindTrust {
		return nil
	}
	return j.trust.inForce(j.in.Now)
}

func (j *judgement) kind() error {
	if j.publisher != nil && !slices.Contains(j.publisher.Kinds, j.in.Manifest.Kind) {
		return reject(KindNotAllowed, "kind", "%s may not publish %s", j.publisher.Name, j.in.Manifest.Kind)
	}
	return nil
}

func (j *judgement) name() error {
	name := j.in.Manifest.Name
	if j.publisher == nil || slices.ContainsFunc(j.publisher.Names, func(p string) bool { return strings.HasPrefix(name, p) }) {
		return nil
	}
	return reject(NameNotAllowed, "name", "%s may not use the name %s", j.publisher.Name, name)
}

func (j *judgement) audience() error {
	m := j.in.Manifest
	if len(m.Audience) == 0 {
		if m.Kind == manifests.KindTrust || m.Kind == manifests.KindSecrets || j.publisher != nil && j.publisher.Require.Audience {
			return reject(AudienceMissing, "audience", "it is empty")
		}
		return nil
	}
	fleet := j.trust.root.FleetID
	if slices.Contains(m.Audience, fleet) || j.in.SiteID != "" && slices.Contains(m.Audience, j.in.SiteID) {
		return nil
	}
	if j.in.SiteID == "" {
		return reject(AudienceMismatch, "audience", "it does not name the fleet %s, and no site was named that judges", fleet)
	}
	return reject(AudienceMismatch, "audience", "it names neither the site %s nor the fleet %s", j.in.SiteID, fleet)
}

func (j *judgement) validity() error {
	m, now := j.in.Manifest, j.in.Now
	switch {
	case m.NotBefore.After(now):
		return reject(NotYetValid, "not_before", "it is valid from %s, the clock says %s", utc(m.NotBefore), utc(now))
	case passed(m.Expires, now):
		return reject(Expired, "expires", "it expired at %s, the clock says %s", utc(m.Expires), utc(now))
	case m.MinStella != "" && j.in.Stella != "" && manifests.CompareVersions(j.in.Stella, m.MinStella) < 0:
		return reject(StellaTooOld, "min_stella", "it needs stella %s, this is %s", m.MinStella, j.in.Stella)
	}
	return nil
}

// epoch is the sequence epoch of the bundle's name in the policy.
func (j *judgement) epoch() int64 {
	if j.publisher == nil {
		return 0
	}
	return j.publisher.Epoch(j.in.Manifest.Name)
}

func (j *judgement) floors() error {
	f, m, digest := j.in.Floors, j.in.Manifest, j.in.Signed.digest
	switch {
	case f == nil || f.Admitted:
		return nil
	case f.Version != "" && f.Version != digest:
		return reject(VersionReused, m.Ref(), "it means the digest %s", f.Version)
	case f.Digest == "" || f.Digest == digest || j.epoch() > f.Epoch:
		return nil
	case j.epoch() < f.Epoch:
		return reject(Rollback, "sequence", "the policy is in epoch %d of %s, %d was admitted", j.epoch(), m.Name, f.Epoch)
	case m.Sequence < f.Sequence:
		return reject(Rollback, "sequence", "%d is below %d of %s", m.Sequence, f.Sequence, f.Digest)
	case m.Sequence == f.Sequence:
		return reject(SequenceReused, "sequence", "%d is that of %s", m.Sequence, f.Digest)
	case m.Sequence-f.Sequence > maxJump:
		return reject(SequenceJump, "sequence", "%d is more than %d above %d", m.Sequence, maxJump, f.Sequence)
	}
	return nil
}

// softens says whether level audit lets r pass: a closed list (THREATS 11).
func (j *judgement) softens(r Reason) bool {
	return j.publisher != nil && j.publisher.Level == "audit" &&
		(r == AttestationMissing || r == TimestampMissing || r == TLogMissing)
}

// soften notes a reason that level audit lets pass.
func (j *judgement) soften(r Reason) {
	if !slices.Contains(j.softened, r) {
		j.softened = append(j.softened, r)
	}
}

// verdict ends the judgement.
func (j *judgement) verdict() (*ledger.Verdict, error) {
	if err := j.complete(); err != nil {
		return nil, err
	}
	if j.publisher != nil && len(j.publisher.attesters) > 0 {
		j.checks = append(j.checks, checkAttestations)
	}
	m := j.in.Manifest
	v := &ledger.Verdict{
		Decision: Admitted, Digest: j.in.Signed.digest,
		Kind: string(m.Kind), Publisher: m.Publisher, Name: m.Name, Version: m.Version, Sequence: m.Sequence,
		Threshold: j.threshold, Signers: j.counted, Ignored: j.in.Signed.ignored, Attestations: j.attestations,
		Trust: j.trust.ref, Now: stamp.Format(j.in.Now), Checks: j.checks,
	}
	if at := j.in.Signed.TrustedTime(); !at.IsZero() {
		v.TrustedTime = stamp.Format(at)
	}
	slices.Sort(v.Attestations)
	if len(j.softened) > 0 {
		v.Decision = AdmittedUnderAudit
		for _, r := range j.softened {
			v.Softened = append(v.Softened, string(r))
		}
		slices.Sort(v.Softened)
	}
	return v, nil
}
