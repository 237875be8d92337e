package engine

import (
	"path/filepath"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// RevokeForTest puts revocations in force that the site's own root has signed.
func (e *Engine) RevokeForTest(serial int64, revoked ...manifests.Revocation) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	dir := filepath.Join(e.opt.Home, "trust")
	files, err := readTrust(dir)
	if err != nil {
		return err
	}
	key, err := readPrivateKey(filepath.Join(e.opt.Home, "keys", rootKey))
	if err != nil {
		return err
	}
	now := e.opt.Now()
	raw := manifests.EncodeRevocations(&manifests.Revocations{
		Serial: serial, RootVersion: 1, Issued: now, NextUpdate: now.AddDate(1, 0, 0), Revoked: revoked,
	})
	sig, err := verify.SignManifest(raw, key)
	if err != nil {
		return err
	}
	files.Revocations = verify.RoleFile{Raw: raw, Signatures: []bundle.Attached{sig}}
	next, err := e.trust.Successor(files, now)
	if err != nil {
		return err
	}
	if err := sealTrust(e.db.Blobs(), files); err != nil {
		return err
	}
	change := next.Change("test")
	if _, err := e.db.Append(ledger.TrustChanged, "system:test", &change); err != nil {
		return err
	}
	e.trust = &inForce{next, files}
	return writeTrust(dir, files)
}
