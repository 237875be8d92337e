package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// Types of in-toto statements; cosign writes the older.
const (
	statementV01 = "https://in-toto.io/Statement/v0.1"
	statementV1  = "https://in-toto.io/Statement/v1"
)

// attester is a required attestation, made ready.
type attester struct {
	manifests.RequiredAttestation
	keys       map[string]*namedKey
	identities []*identity
}

// material is what f verifies under if one of a's signers made it, else nil.
func (a *attester) material(f *file, base root.TrustedMaterial) *material {
	if f.leaf == nil {
		if k := a.keys[f.id]; k != nil {
			return k.material(base)
		}
		return nil
	}
	for _, id := range a.identities {
		if id.matches(f) {
			return id.material
		}
	}
	return nil
}

// addAttesters makes the required attestations of p ready. Who attests is not
// who signs (THREATS 5).
func (t *Trust) addAttesters(p *publisher) error {
	for _, def := range p.Require.Attestations {
		a := attester{RequiredAttestation: def, keys: map[string]*namedKey{}}
		for _, pem := range def.Keys {
			k, err := newKey(pem)
			if err != nil {
				return err
			}
			if known := t.keys[k.id]; known != nil && (known.publisher == nil || known.publisher == p) {
				return fmt.Errorf("key %s attests, but %s names it as well", k.id, known.owner())
			}
			a.keys[k.id] = k
		}
		for _, def := range def.Identities {
			if slices.ContainsFunc(p.Identities, func(own manifests.Identity) bool { return own.Names(def.Issuer, def.SAN) }) {
				return fmt.Errorf("%s from %s attests, but is an identity of the publisher", def.SAN, def.Issuer)
			}
			id, err := newIdentity(p, def, t.material)
			if err != nil {
				return err
			}
			a.identities = append(a.identities, id)
		}
		if len(a.keys)+len(a.identities) == 0 || def.PredicateType == "" {
			return errors.New("a required attestation needs a predicate type, and keys or identities")
		}
		p.attesters = append(p.attesters, a)
	}
	return nil
}

// statement is the part of an in-toto statement that is judged.
type statement struct {
	Type          string
	PredicateType string
	Subjects      []subject
	Predicate     json.RawMessage
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// parseStatement reads a verified payload. Keys are exact and unique.
func parseStatement(payload []byte) (*statement, error) {
	members, err := object(payload)
	if err != nil {
		return nil, err
	}
	s := &statement{Predicate: members["predicate"]}
	for key, to := range map[string]any{"_type": &s.Type, "predicateType": &s.PredicateType, "subject": &s.Subjects} {
		if err := json.Unmarshal(members[key], to); err != nil {
			return nil, fmt.Errorf("its %s: %w", key, err)
		}
	}
	if s.Type != statementV01 && s.Type != statementV1 {
		return nil, fmt.Errorf("its type is %q", s.Type)
	}
	return s, nil
}

// object reads the members of one JSON object and refuses duplicates, which
// encoding/json would let the last one win, and keys of another case.
func object(raw []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := tok.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if _, ok := members[key]; ok {
			return nil, fmt.Errorf("%q is there twice", key)
		}
		members[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("the JSON object has no end")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes after the JSON object")
	}
	return members, nil
}

// about says whether a subject of s is the digest.
func (s *statement) about(digest string) bool {
	return slices.ContainsFunc(s.Subjects, func(x subject) bool { return x.Digest["sha256"] == digest })
}

// builder is who built, in SLSA provenance v1 or v0.2; "" in other predicates.
func (s *statement) builder() string {
	type id struct {
		ID string `json:"id"`
	}
	var p struct {
		Builder    id `json:"builder"`
		RunDetails struct {
			Builder id `json:"builder"`
		} `json:"runDetails"`
	}
	if json.Unmarshal(s.Predicate, &p) != nil {
		return ""
	}
	if p.RunDetails.Builder.ID != "" {
		return p.RunDetails.Builder.ID
	}
	return p.Builder.ID
}

// attestationFile parses a file of attestations/.
func attestationFile(a bundle.Attached) (*file, error) {
	name := bundle.AttestationName(a.ID)
	f, err := parse(a.Data)
	switch {
	case errors.Is(err, errID):
		return nil, reject(AttestationID, name, "%v", err).because(err)
	case errors.Is(err, errNotCanonical):
		return nil, reject(AttestationNotCanonical, name, "%v", err).because(err)
	case err != nil:
		return nil, reject(AttestationMalformed, name, "%v", err).because(err)
	case !f.isStatement():
		return nil, reject(AttestationIsSignature, name, "it holds no statement")
	case f.pb.GetDsseEnvelope().GetPayloadType() != payloadType:
		return nil, reject(AttestationType, name, "its payload is not of type %s", payloadType)
	}
	return f, nil
}

// attest judges one attestation. One by a key or identity that nobody named for
// it is left alone, and counts for nothing.
func (j *judgement) attest(a bundle.Attached) error {
	f, err := attestationFile(a)
	if err != nil {
		return err
	}
	if j.publisher == nil {
		return nil
	}
	name := bundle.AttestationName(a.ID)
	for i, want := range j.publisher.attesters {
		m := want.material(f, j.trust.material)
		if m == nil {
			continue
		}
		s, times, err := j.verifyStatement(name, f, m)
		if err != nil {
			return err
		}
		if s.PredicateType != want.PredicateType || want.Builder != "" && s.builder() != want.Builder {
			continue
		}
		if why := j.unattested(f, times); why != nil {
			j.causes[i], j.why[f.sum] = why, why
			j.checks = append(j.checks, "not counted: "+f.sum+": "+string(why.Reason))
			continue
		}
		j.attested[i] = true
		if !slices.Contains(j.attestations, f.sum) {
			j.attestations = append(j.attestations, f.sum)
		}
	}
	return nil
}

// verifyStatement verifies f under m and reads what it says about the manifest.
func (j *judgement) verifyStatement(name string, f *file, m *material) (*statement, []time.Time, error) {
	d := demandsOf(j.publisher.Require)
	if what := d.extra(f); what != "" {
		return nil, nil, reject(AttestationExtra, name, "it brings %s that the policy does not verify", what)
	}
	if reason, why := d.lacks(f); reason != "" {
		return nil, nil, reject(reason, name, "%s", why)
	}
	times, err := f.verify(nil, d, m)
	if err != nil {
		return nil, nil, reject(AttestationInvalid, name, "%v", err).because(err)
	}
	for _, at := range times {
		if at.After(j.in.Now.Add(clockSlack)) {
			return nil, nil, reject(TrustedTimeAhead, name, "it was signed at %s, the clock says %s", utc(at), utc(j.in.Now))
		}
	}
	s, err := parseStatement(f.pb.GetDsseEnvelope().GetPayload())
	if err != nil {
		return nil, nil, reject(AttestationMalformed, name, "%v", err).because(err)
	}
	if !s.about(j.in.Signed.digest) {
		return nil, nil, reject(AttestationSubject, name, "no subject of it has the SHA-256 %s", j.in.Signed.digest)
	}
	return s, times, nil
}

// unattested says why a verified attestation does not count, nil if it does:
// its key or identity is revoked, or it lacks what the policy demands of signatures.
func (j *judgement) unattested(f *file, times []time.Time) *RejectError {
	if r := j.trust.revokedKey(f.id, times, j.in.Now); r != nil {
		return reject(RevokedKey, f.id, "the key of an attestation is revoked: %s", r.Reason)
	}
	if f.leaf != nil {
		if r := j.trust.revokedIdentity(f.issuer, f.san, times, j.in.Now); r != nil {
			return reject(RevokedIdentity, f.san, "the identity of an attestation is revoked: %s", r.Reason)
		}
	}
	for _, missing := range demandsOf(j.publisher.Require).missing(f) {
		if !j.softens(missing) {
			return reject(missing, f.id, "the policy demands it of attestations too")
		}
		j.soften(missing)
	}
	return nil
}

// complete checks that every required attestation was there.
func (j *judgement) complete() error {
	if j.publisher == nil {
		return nil
	}
	for i, want := range j.publisher.attesters {
		if j.attested[i] {
			continue
		}
		text := want.PredicateType
		if want.Builder != "" {
			text += " by the builder " + want.Builder
		}
		if why := j.causes[i]; why != nil && (!j.softens(AttestationMissing) || why.Reason == RevokedKey || why.Reason == RevokedIdentity) {
			return why // audit softens what is missing, never a revocation (THREATS 11)
		}
		if !j.softens(AttestationMissing) {
			return reject(AttestationMissing, text, "there is none by the signers that the policy names")
		}
		j.soften(AttestationMissing)
	}
	return nil
}
