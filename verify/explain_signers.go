package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// signatures verifies all signatures and notes what each of them is.
func (e *explaining) signatures() (*Signed, error) {
	e.found = map[string]*signer{}
	return e.trust.readSignatures(e.in.Manifest, e.in.Signatures, e.in.Now, func(sig bundle.Attached, f *file, one *signer, err error) {
		r := SignerReport{File: bundle.SignatureName(sig.ID), ID: sig.ID, State: StateUnknown}
		if f != nil {
			r.claims(f)
			r.Lines = e.linesOf(f)
		}
		switch {
		case err != nil:
			r.because(StateInvalid, err)
		case one != nil:
			e.found[one.id] = one
			r.State = StateNotCounted // count says otherwise
			for _, at := range one.times {
				r.Times = append(r.Times, stamp.Format(at))
			}
		default:
			r.Detail = "no line of the policy names it"
		}
		e.out.Signatures = append(e.out.Signatures, r)
	})
}

// claims notes what f says of its signer.
func (r *SignerReport) claims(f *file) {
	r.ID, r.Flow = f.id, FlowKey
	if f.leaf != nil {
		r.Flow, r.Issuer, r.SAN = FlowCertificate, clip(f.issuer), clip(f.san)
	}
}

// clip cuts what would make a report long.
func clip(s string) string {
	if len(s) <= maxClaim {
		return s
	}
	return strings.ToValidUTF8(s[:maxClaim], "") + "…"
}

// because notes the refusal of a signature or an attestation.
func (r *SignerReport) because(state string, err error) {
	r.State, r.Detail = state, clip(err.Error())
	var refused *RejectError
	if errors.As(err, &refused) {
		r.Reason, r.Detail = string(refused.Reason), clip(refused.Detail)
	}
}

// count notes which signatures the check of signers counted, and why not the
// others.
func (e *explaining) count() {
	e.out.Threshold, e.out.Counted = e.threshold, len(e.counted)
	if e.publisher != nil {
		e.out.Demands = e.publisher.demands()
	}
	for i := range e.out.Signatures {
		r := &e.out.Signatures[i]
		one := e.found[r.ID]
		if one == nil || r.State != StateNotCounted {
			continue
		}
		why := e.why[r.ID]
		switch {
		case slices.ContainsFunc(e.counted, func(ref ledger.SignerRef) bool { return ref.ID == r.ID }):
			r.State = StateCounted
		case why != nil:
			r.because(StateNotCounted, why)
		case e.publisher == nil:
			r.Detail = "it is known, and may not sign this"
		default:
			r.Detail = "it is known, and is no signer of " + e.publisher.Name
		}
	}
}

// attest judges the attestations, each of them.
func (e *explaining) attest() {
	if e.publisher == nil {
		e.attestationsAsTheyAre()
		if e.judgement.in.Manifest.Kind == manifests.KindTrust {
			e.add(CheckReport{Name: checkAttestations, State: StateNotApplicable, Detail: "roles of root.toml sign it, no publisher"})
			return
		}
		e.add(CheckReport{Name: checkAttestations, State: StateNotReached, Detail: "there is no policy for the publisher"})
		return
	}
	e.expect()
	var first error
	softened, err := e.softening(func() error {
		for _, a := range e.in.Attestations {
			err := e.judgement.attest(a)
			if err != nil && first == nil {
				first = err
			}
			e.note(a, err)
		}
		if first != nil || !e.in.Attested {
			return first
		}
		return e.complete()
	})
	demanded := fmt.Sprintf("%d of %d that are demanded", trues(e.judgement.attested), len(e.publisher.attesters))
	switch {
	case err != nil:
		e.failed(checkAttestations, err)
	case len(e.publisher.attesters) == 0:
		e.add(CheckReport{Name: checkAttestations, State: StateNotApplicable, Detail: "the policy demands none"})
	case !e.in.Attested:
		e.add(CheckReport{Name: checkAttestations, State: StateNotReached, Detail: "they were not read"})
	case len(softened) > 0:
		e.softer(checkAttestations, softened, demanded)
	default:
		e.passed(checkAttestations, demanded)
	}
}

func trues(list []bool) int {
	n := 0
	for _, yes := range list {
		if yes {
			n++
		}
	}
	return n
}

// note notes what became of one attestation.
func (e *explaining) note(a bundle.Attached, err error) {
	r := describeAttestation(a)
	switch {
	case err != nil:
		r.because(StateInvalid, err)
	case slices.Contains(e.judgement.attestations, a.ID):
		r.State = StateCounted
	case e.why[a.ID] != nil:
		r.because(StateNotCounted, e.why[a.ID])
	}
	if f, parsed := attestationFile(a); parsed == nil {
		r.Lines = e.attesterLines(f, r.PredicateType)
		if r.State == StateUnknown && len(r.Lines) > 0 {
			r.State, r.Detail = StateNotCounted, "the policy demands no such attestation of this signer"
		}
	}
	e.out.Attestations = append(e.out.Attestations, r)
}

// attestationsAsTheyAre lists attestations that nothing could judge.
func (e *explaining) attestationsAsTheyAre() {
	for _, a := range e.in.Attestations {
		e.out.Attestations = append(e.out.Attestations, describeAttestation(a))
	}
}

// describeAttestation is what an attestation says of itself.
func describeAttestation(a bundle.Attached) SignerReport {
	r := SignerReport{File: bundle.AttestationName(a.ID), State: StateUnknown}
	f, err := attestationFile(a)
	if err != nil {
		r.because(StateInvalid, err)
		return r
	}
	r.claims(f)
	if s, err := parseStatement(f.pb.GetDsseEnvelope().GetPayload()); err == nil {
		r.PredicateType = clip(s.PredicateType)
	}
	return r
}

// linesOf lists the entries of trust files that name the signer of f, or come
// near.
func (e *explaining) linesOf(f *file) []PolicyLine {
	var out []PolicyLine
	if f.leaf == nil {
		if k := e.trust.keys[f.id]; k != nil {
			for _, role := range k.roles {
				out = append(out, PolicyLine{File: "root.toml", Entry: "role " + role, Matches: true})
			}
		}
	}
	for i := range e.trust.policy.Publishers {
		p := e.trust.publishers[e.trust.policy.Publishers[i].Name]
		out = append(out, e.attestsFor(i, p, f)...)
		if f.leaf == nil {
			out = append(out, e.keyLines(i, p, f)...)
			continue
		}
		for n, id := range p.identities {
			line := PolicyLine{
				File: policyFile, Line: e.line(i, "identity", n), Entry: fmt.Sprintf("publisher %s, identity %d", p.Name, n+1), Matches: id.matches(f),
			}
			switch {
			case line.Matches:
			case f.issuer == id.Issuer:
				line.Why = "it demands the name " + id.SAN + id.SANRegexp
			case f.san == id.SAN || id.pattern != nil && id.pattern.MatchString(f.san):
				line.Why = "it demands the issuer " + id.Issuer
			default:
				continue
			}
			out = append(out, line)
		}
	}
	return out
}

// keyLines lists the keys of a publisher that are the signer's.
func (e *explaining) keyLines(i int, p *publisher, f *file) []PolicyLine {
	var out []PolicyLine
	for n, pk := range p.Keys {
		if k, err := newKey(pk.PEM); err == nil && k.id == f.id {
			out = append(out, PolicyLine{
				File: policyFile, Line: e.line(i, "key", n), Entry: fmt.Sprintf("publisher %s, key %d", p.Name, n+1), Matches: true,
			})
		}
	}
	return out
}

// names says whether f, if it verifies, is by a key or an identity of a.
func (a *attester) names(f *file) bool {
	if f.leaf == nil {
		return a.keys[f.id] != nil
	}
	return slices.ContainsFunc(a.identities, func(i *identity) bool { return i.matches(f) })
}

// attestsFor lists the required attestations of a publisher that name the signer
// of f, who is no signer of bundles by that.
func (e *explaining) attestsFor(i int, p *publisher, f *file) []PolicyLine {
	var out []PolicyLine
	for n, a := range p.attesters {
		if a.names(f) {
			out = append(out, PolicyLine{
				File: policyFile, Line: e.line(i, "attestation", n), Entry: fmt.Sprintf("publisher %s, required attestation %d", p.Name, n+1),
				Why: "it attests, and does not sign",
			})
		}
	}
	return out
}

// attesterLines lists the required attestations that name the signer of f.
func (e *explaining) attesterLines(f *file, predicateType string) []PolicyLine {
	var out []PolicyLine
	i := slices.IndexFunc(e.trust.policy.Publishers, func(p manifests.Publisher) bool { return p.Name == e.publisher.Name })
	for n, a := range e.publisher.attesters {
		if !a.names(f) {
			continue
		}
		line := PolicyLine{
			File: policyFile, Line: e.line(i, "attestation", n), Matches: a.PredicateType == predicateType,
			Entry: fmt.Sprintf("publisher %s, required attestation %d", e.publisher.Name, n+1),
		}
		if !line.Matches {
			line.Why = "it demands the predicate type " + a.PredicateType
		}
		out = append(out, line)
	}
	return out
}

// line is the line of policy.toml of an entry of publisher i, 0 if it is not
// known.
func (e *explaining) line(i int, what string, n int) int {
	if i < 0 || i >= len(e.lines) {
		return 0
	}
	list := map[string][]int{"key": e.lines[i].Keys, "identity": e.lines[i].Identities, "attestation": e.lines[i].Attestations}[what]
	if n >= len(list) {
		return 0
	}
	return list[n]
}
