package verify

import (
	"slices"
	"time"

	"github.com/stellarun/stella/manifests"
)

// revocations refuses a revoked manifest, and one with a revoked file.
func (j *judgement) revocations() error {
	blobs := map[string]*manifests.Revocation{}
	for i := range j.trust.revocations.Revoked {
		r := &j.trust.revocations.Revoked[i]
		if r.From.After(j.in.Now) {
			continue
		}
		if r.Manifest == j.in.Signed.digest {
			return reject(RevokedManifest, r.Manifest, "it is revoked: %s", r.Reason)
		}
		if r.Blob != "" {
			blobs[r.Blob] = r
		}
	}
	for _, f := range j.in.Manifest.Files {
		if r := blobs[f.SHA256]; r != nil {
			return reject(RevokedBlob, f.Path, "its content is revoked: %s", r.Reason)
		}
	}
	return nil
}

// revokedKey is the revocation of a key that applies to a signature with these
// trusted times; nil for none.
func (t *Trust) revokedKey(id string, times []time.Time, now time.Time) *manifests.Revocation {
	return t.revoked(times, now, func(r *manifests.Revocation) bool { return r.Key == id })
}

func (t *Trust) revokedIdentity(issuer, san string, times []time.Time, now time.Time) *manifests.Revocation {
	return t.revoked(times, now, func(r *manifests.Revocation) bool { return r.SAN != "" && r.SAN == san && r.Issuer == issuer })
}

// revoked looks for a revocation. Signatures before its from stay good only if
// all their trusted times say so; the clock of the signer says nothing.
func (t *Trust) revoked(times []time.Time, now time.Time, matches func(*manifests.Revocation) bool) *manifests.Revocation {
	for i := range t.revocations.Revoked {
		r := &t.revocations.Revoked[i]
		if !matches(r) || r.From.After(now) {
			continue
		}
		if len(times) > 0 && !slices.ContainsFunc(times, func(at time.Time) bool { return !at.Before(r.From) }) {
			continue
		}
		return r
	}
	return nil
}
