package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/stellarun/stella/internal/fsx"
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
			if err := db.checkArtifact(seq, a, opt, seen); err != nil {
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

// checkArtifact hashes an artifact, which may lie in an archive of runs.
func (db *DB) checkArtifact(seq int64, x ledger.Artifact, opt CheckOptions, seen map[string]bool) error {
	elsewhere := "archived " + x.SHA256 // and not in its place, where it may have to be for another entry
	if seen[x.SHA256] || seen[elsewhere] {
		return nil
	}
	_, err := db.blobs.Check(x.SHA256)
	if err == nil {
		seen[x.SHA256] = true
		return nil
	}
	if seen[elsewhere] = true; errors.Is(err, ErrNotFound) {
		err = opt.archived.check(x.SHA256, err)
	}
	if err != nil {
		return damaged(err, "artifact %s of entry %d", x.Name, seq)
	}
	return nil
}

// checkContents hashes every file of an admitted bundle, unless the ledger says
// that they were given up.
func (db *DB) checkContents(seq int64, digest string, seen map[string]bool) error {
	if gone, err := db.givenUp(digest); gone || err != nil {
		return err
	}
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
			if gone, gerr := db.givenUp(digest); gone || gerr != nil {
				return gerr // meanwhile
			}
			return err
		}
	}
	return nil
}

// givenUp says whether the contents of a bundle were removed by a collection.
func (db *DB) givenUp(digest string) (bool, error) {
	rec, err := db.Bundle(digest)
	if IsNotFound(err) {
		return false, nil // the entry speaks for itself; the projections are compared elsewhere
	}
	return rec.Removed > 0, err
}

// logKey is what a segment is called among what was hashed: it lies elsewhere than blobs.
func logKey(digest string) string { return "log " + digest }

// checkLog hashes the log segment of an attempt.
func checkLog(seq int64, ref ledger.LogRef, opt CheckOptions, seen map[string]bool) error {
	key := logKey(ref.SHA256)
	if seen[key] {
		return nil
	}
	seen[key] = true
	f, err := opt.Logs(ref.SHA256)
	if errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		if err = opt.archived.check(ref.SHA256, err); err == nil {
			return nil
		}
	}
	if err != nil {
		return damaged(err, "log of entry %d", seq)
	}
	defer f.Close()
	if _, err := hashed(f, ref.SHA256); err != nil {
		return damaged(err, "log of entry %d", seq)
	}
	return nil
}

// hashed reads r and compares its digest.
func hashed(r io.Reader, digest string) (int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err == nil && hex.EncodeToString(h.Sum(nil)) != digest {
		err = fmt.Errorf("%w: %s", ErrDigest, digest)
	}
	return n, err
}

// hashIs compares the digest of a regular file.
func hashIs(path, digest string) (int64, error) {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return hashed(f, digest)
}
