package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// maxManifest bounds the manifest of an admitted bundle, in bytes.
const maxManifest = 1 << 20

// checkSealed hashes everything sealed that an entry names, directly or through
// a manifest. seen holds what was hashed for earlier entries.
func (db *DB) checkSealed(seq int64, data any, opt CheckOptions, seen map[string]bool) error {
	for _, digest := range ledger.Evidence(data) {
		if err := db.checkBlob(seen, digest, "evidence of entry %d", seq); err != nil {
			return err
		}
	}
	switch d := data.(type) {
	case *ledger.BundleAdmission:
		return db.checkContents(seq, d.Verdict.Digest, seen)
	case *ledger.AttemptEnd:
		for _, a := range d.Artifacts {
			if err := db.checkBlob(seen, a.SHA256, "artifact %s of entry %d", a.Name, seq); err != nil {
				return err
			}
		}
		if d.Logs != nil && opt.Logs != nil {
			return checkLog(seq, *d.Logs, opt, seen)
		}
	}
	return nil
}

func (db *DB) checkBlob(seen map[string]bool, digest, format string, a ...any) error {
	if seen[digest] {
		return nil
	}
	seen[digest] = true
	if _, err := db.blobs.Check(digest); err != nil {
		return damaged(err, format, a...)
	}
	return nil
}

// checkContents hashes every file of an admitted bundle.
func (db *DB) checkContents(seq int64, digest string, seen map[string]bool) error {
	raw, err := db.blobs.Read(digest, maxManifest)
	if err != nil {
		return damaged(err, "manifest of entry %d", seq)
	}
	m, err := manifests.ParseBundle("stella.toml", raw)
	if err != nil {
		return damaged(err, "manifest of entry %d", seq)
	}
	for _, f := range m.Files {
		if err := db.checkBlob(seen, f.SHA256, "%s of %s, entry %d", f.Path, m.Ref(), seq); err != nil {
			return err
		}
	}
	return nil
}

// checkLog hashes the log segment of an attempt.
func checkLog(seq int64, ref ledger.LogRef, opt CheckOptions, seen map[string]bool) error {
	key := "log " + ref.SHA256 // segments lie elsewhere than blobs
	if seen[key] {
		return nil
	}
	seen[key] = true
	f, err := opt.Logs(ref.SHA256)
	if err != nil {
		return damaged(err, "log of entry %d", seq)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return damaged(err, "log of entry %d", seq)
	}
	if hex.EncodeToString(h.Sum(nil)) != ref.SHA256 {
		return damaged(fmt.Errorf("%w: %s", ErrDigest, ref.SHA256), "log of entry %d", seq)
	}
	return nil
}
