package verify

import (
	"errors"
	"time"

	"github.com/stellarun/stella/bundle"
)

// Signed is the outcome of [Trust.Signatures]: who signed a manifest.
type Signed struct {
	trust   *Trust
	digest  string
	signers []*signer // by id
	ignored []string  // ids that no trust file names
}

// signer is one verified signature.
type signer struct {
	id     string
	file   string    // SHA-256 of the signature file
	key    *namedKey // nil in the certificate flow
	issuer string
	san    string
	times  []time.Time // trusted times of the signature, if any
	claims []claim     // none for a key that has roles
}

// claim is what a verified signature is in the policy: a key of a publisher, or
// one of its identities. A certificate may meet several identities.
type claim struct {
	publisher *publisher
	identity  *identity // nil for a key
	missing   []Reason  // what the policy demands and the signature lacks
}

// Digest is the SHA-256 of the manifest that was signed.
func (s *Signed) Digest() string { return s.digest }

// Ignored lists the ids of signatures by keys and identities that no trust file
// names.
func (s *Signed) Ignored() []string { return s.ignored }

// TrustedTime is the latest time that a log or timestamp authority gave a
// signature; zero without one. The verdict carries it, so that a site can keep a
// floor of trusted time (THREATS 10).
func (s *Signed) TrustedTime() time.Time {
	var latest time.Time
	for _, one := range s.signers {
		for _, at := range one.times {
			if at.After(latest) {
				latest = at
			}
		}
	}
	return latest
}

// Signatures verifies the signatures over the manifest's raw bytes, before
// anything parses them. Those of signers that no trust file names are left
// alone; one by a named signer that fails refuses the bundle, as does a
// manifest that no named signer signed.
func (t *Trust) Signatures(manifest []byte, sigs []bundle.Attached, now time.Time) (*Signed, error) {
	s, err := t.readSignatures(manifest, sigs, now, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// readSignatures is Signatures. With tell, which is told what became of each,
// it goes on after one that refuses the bundle; what it returns then is who
// else signed, beside the first error.
func (t *Trust) readSignatures(manifest []byte, sigs []bundle.Attached, now time.Time, tell func(bundle.Attached, *file, *signer, error)) (*Signed, error) {
	s := &Signed{trust: t, digest: bundle.Digest(manifest)}
	if len(sigs) == 0 {
		return s, reject(SignatureMissing, "", "there is no signature")
	}
	seen := map[string]bool{}
	var unknown string
	var first error
	for _, sig := range sigs {
		f, one, err := t.readSignature(manifest, sig, seen, now)
		if tell != nil {
			tell(sig, f, one, err)
		}
		switch {
		case err != nil && tell == nil:
			return s, err
		case err != nil:
			if first == nil {
				first = err
			}
		case one == nil:
			s.ignored = append(s.ignored, f.id)
			unknown += "; " + f.who()
		default:
			s.signers = append(s.signers, one)
		}
	}
	switch {
	case first != nil:
		return s, first
	case len(s.signers) == 0:
		return s, reject(SignerUnknown, "", "signed by %s", unknown[2:])
	}
	return s, s.duplicates()
}

// readSignature parses and verifies one file of signatures/; no signer and no
// error mean that no trust file names who made it.
func (t *Trust) readSignature(manifest []byte, sig bundle.Attached, seen map[string]bool, now time.Time) (*file, *signer, error) {
	if seen[sig.ID] {
		return nil, nil, reject(DuplicateSigner, bundle.SignatureName(sig.ID), "is there twice")
	}
	seen[sig.ID] = true
	f, err := signatureFile(sig)
	if err != nil {
		return nil, nil, err
	}
	one, err := t.verifySignature(manifest, f, now)
	if err != nil {
		return f, nil, err
	}
	return f, one, nil
}

// who says who signed, in the words that a policy would use.
func (f *file) who() string {
	if f.leaf != nil {
		return "the certificate " + f.id + " of " + f.san + " from " + f.issuer
	}
	return "the key " + f.id
}

// signatureFile parses a file of signatures/.
func signatureFile(sig bundle.Attached) (*file, error) {
	name := bundle.SignatureName(sig.ID)
	f, err := parse(sig.Data)
	switch {
	case errors.Is(err, errID):
		return nil, reject(SignatureID, name, "%v", err).because(err)
	case errors.Is(err, errNotCanonical):
		return nil, reject(SignatureNotCanonical, name, "%v", err).because(err)
	case err != nil:
		return nil, reject(SignatureMalformed, name, "%v", err).because(err)
	case f.isStatement():
		return nil, reject(SignatureIsStatement, name, "it holds a statement")
	case f.id != sig.ID:
		return nil, reject(SignatureID, name, "it is by the key %s", f.id)
	}
	return f, nil
}

// verifySignature verifies f over manifest for the signer that it names; nil if
// no trust file names it.
func (t *Trust) verifySignature(manifest []byte, f *file, now time.Time) (*signer, error) {
	one := &signer{id: f.id, file: f.sum, issuer: f.issuer, san: f.san}
	if f.leaf == nil {
		one.key = t.keys[f.id]
		if one.key == nil {
			return nil, nil
		}
		return one, one.verify(manifest, f, claim{publisher: one.key.publisher}, one.key.material(t.material), now)
	}
	var last error
	for _, id := range t.identitiesOf(f) {
		if err := one.verify(manifest, f, claim{publisher: id.publisher, identity: id}, id.material, now); err != nil {
			last = err
		}
	}
	if len(one.claims) > 0 {
		return one, nil
	}
	return nil, last
}

// verify adds claim c, if f verifies under what its publisher demands.
func (s *signer) verify(manifest []byte, f *file, c claim, m *material, now time.Time) error {
	name := bundle.SignatureName(f.id)
	var d demands
	if c.publisher != nil {
		d = demandsOf(c.publisher.Require)
	}
	if what := d.extra(f); what != "" {
		return reject(SignatureExtra, name, "it brings %s that the policy does not verify", what)
	}
	if !f.over(manifest, m.hash()) {
		return reject(SignatureInvalid, name, "it is over other bytes than this manifest")
	}
	if reason, why := d.lacks(f); reason != "" {
		return reject(reason, name, "%s", why)
	}
	times, err := f.verify(manifest, d, m)
	if err != nil {
		return reject(SignatureInvalid, name, "%v", err).because(err)
	}
	for _, at := range times {
		if at.After(now.Add(clockSlack)) {
			return reject(TrustedTimeAhead, name, "it was signed at %s, the clock says %s", utc(at), utc(now))
		}
	}
	s.times = times
	if c.publisher != nil {
		c.missing = d.missing(f)
		s.claims = append(s.claims, c)
	}
	return nil
}

// duplicates refuses two certificates of one identity. (Two files of one key
// have one name.)
func (s *Signed) duplicates() error {
	by := map[*identity]string{}
	for _, one := range s.signers {
		for _, c := range one.claims {
			if c.identity == nil {
				continue
			}
			if other, ok := by[c.identity]; ok {
				return reject(DuplicateSigner, bundle.SignatureName(one.id), "%s signed %s as well", one.san, bundle.SignatureName(other))
			}
			by[c.identity] = one.id
		}
	}
	return nil
}
