package engine

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Limits of what is read below trust/.
const (
	maxTrustFile  = 4 << 20
	maxSignatures = 16
	maxRootChain  = 1024
)

const signaturesSuffix = ".signatures"

// readTrust reads the files below trust/.
func readTrust(dir string) (verify.Files, error) {
	var f verify.Files
	var err error
	if f.Roots, err = readRoots(filepath.Join(dir, "root")); err != nil {
		return f, err
	}
	if f.Policy, err = readRoleFile(filepath.Join(dir, "policy.toml")); err != nil {
		return f, err
	}
	f.Revocations, err = readRoleFile(filepath.Join(dir, "revocations.toml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	f.TrustedRoot, err = fsx.ReadFile(filepath.Join(dir, "trusted_root.json"), maxTrustFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	return f, nil
}

// rootPath is where the root of a version lies.
func rootPath(dir string, version int64) string {
	return filepath.Join(dir, "root", fmt.Sprintf("%d.toml", version))
}

// readRoots reads the chain, by the versions in the *.toml: a site may join a fleet
// at any. One whose signatures are not there yet has none.
func readRoots(dir string) ([]verify.RoleFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	byVersion := map[int64]verify.RoleFile{}
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".toml" {
			continue // folders are of signatures
		}
		path := filepath.Join(dir, e.Name())
		r, err := readRoleFile(path)
		if err != nil && (len(r.Raw) == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		n, err := rootVersion(r.Raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if _, twice := byVersion[n]; twice || len(byVersion) == maxRootChain {
			return nil, fmt.Errorf("%s: root %d is there twice, or there are more than %d", path, n, maxRootChain)
		}
		byVersion[n] = r
	}
	if len(byVersion) == 0 {
		return nil, fmt.Errorf("%s holds no root: %w", dir, fs.ErrNotExist)
	}
	var chain []verify.RoleFile
	for _, n := range slices.Sorted(maps.Keys(byVersion)) {
		chain = append(chain, byVersion[n])
	}
	return chain, nil
}

// removeStrayRoots removes what is below root/ and not of the chain: a root under
// another name than that of its version.
func removeStrayRoots(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), signaturesSuffix)
		if filepath.Ext(name) == ".toml" && !keep[name] {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return fsx.SyncDir(dir)
}

// rootVersion is the version in a root of the chain, which has been verified.
func rootVersion(raw []byte) (int64, error) {
	r, err := manifests.ParseRoot("root.toml", raw)
	if err != nil {
		return 0, err
	}
	return r.Version, nil
}

func readRoleFile(path string) (verify.RoleFile, error) {
	raw, err := fsx.ReadFile(path, maxTrustFile)
	if err != nil {
		return verify.RoleFile{}, err
	}
	r := verify.RoleFile{Raw: raw}
	entries, err := os.ReadDir(path + signaturesSuffix)
	if err != nil {
		return r, err
	}
	if len(entries) > maxSignatures {
		return r, fmt.Errorf("%s: more than %d signatures", path, maxSignatures)
	}
	for _, e := range entries {
		if fsx.IsTemp(e.Name()) {
			continue // a write that was cut off
		}
		id, ok := strings.CutSuffix(e.Name(), ".sigstore.json")
		if !ok {
			return r, fmt.Errorf("%s%s/%s: not a signature file", path, signaturesSuffix, e.Name())
		}
		sig, err := fsx.ReadFile(filepath.Join(path+signaturesSuffix, e.Name()), bundle.MaxSignature)
		if err != nil {
			return r, err
		}
		r.Signatures = append(r.Signatures, bundle.Attached{ID: id, Data: sig})
	}
	return r, nil
}

// writeTrust makes the files below trust/ say what f says. A crash in between
// is mended at the next open, from the sealed blobs.
func writeTrust(dir string, f verify.Files) error {
	if err := os.MkdirAll(filepath.Join(dir, "root"), 0o755); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, r := range f.Roots {
		n, err := rootVersion(r.Raw)
		if err != nil {
			return err
		}
		path := rootPath(dir, n)
		keep[filepath.Base(path)] = true
		if err := writeRoleFile(path, r); err != nil {
			return err
		}
	}
	if err := removeStrayRoots(filepath.Join(dir, "root"), keep); err != nil {
		return err
	}
	if err := writeRoleFile(filepath.Join(dir, "policy.toml"), f.Policy); err != nil {
		return err
	}
	if f.Revocations.Raw != nil {
		if err := writeRoleFile(filepath.Join(dir, "revocations.toml"), f.Revocations); err != nil {
			return err
		}
	}
	pinned := filepath.Join(dir, "trusted_root.json")
	if f.TrustedRoot != nil {
		return fsx.WriteFile(pinned, f.TrustedRoot, 0o644)
	}
	if err := os.Remove(pinned); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsx.SyncDir(dir)
}

func writeRoleFile(path string, r verify.RoleFile) error {
	if err := fsx.WriteFile(path, r.Raw, 0o644); err != nil {
		return err
	}
	dir := path + signaturesSuffix
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, s := range r.Signatures {
		name := s.ID + ".sigstore.json"
		keep[name] = true
		if err := fsx.WriteFile(filepath.Join(dir, name), s.Data, 0o644); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return fsx.SyncDir(dir)
}

// sealTrust seals every trust file and signature.
func sealTrust(b *store.Blobs, f verify.Files) error {
	for _, raw := range trustRaws(f) {
		if _, err := b.PutFile(raw); err != nil {
			return err
		}
	}
	return nil
}

// trustRaws are the bytes of every trust file and signature.
func trustRaws(f verify.Files) (raws [][]byte) {
	for _, r := range append(slices.Clone(f.Roots), f.Policy, f.Revocations) {
		raws = append(raws, r.Raw)
		for _, s := range r.Signatures {
			raws = append(raws, s.Data)
		}
	}
	raws = append(raws, f.TrustedRoot)
	return slices.DeleteFunc(raws, func(raw []byte) bool { return raw == nil })
}

// loadTrust loads the trust that the ledger says is in force. The folder
// trust/ must hold the same; it is refreshed when it holds the state before,
// which is what a power cut in the middle of a change leaves, and nothing newer.
func loadTrust(db *store.DB, dir string, look func() trustLook) (*inForce, error) {
	t, err := loadTrustFiles(db, dir, look())
	var unwritten *unwrittenError
	if errors.As(err, &unwritten) {
		t = unwritten.trust
	} else if err != nil {
		return nil, err
	}
	rec, xerr := db.Extension()
	if xerr != nil {
		return nil, xerr
	}
	if rec != nil {
		extended, err := extend(db, t.Trust, rec)
		if err != nil {
			return nil, &trustChangedError{err}
		}
		t = &inForce{extended, t.files}
	}
	if unwritten != nil {
		return t, &unwrittenError{t, unwritten.err}
	}
	return t, nil
}

// A trustLook is what lies below trust/, and what that is worth.
type trustLook struct {
	files verify.Files
	trust *verify.Trust
	err   error // of reading
	lerr  error // of judging
}

// is says whether that is the trust which the ledger names.
func (l trustLook) is(now ledger.TrustChange) bool {
	return l.err == nil && l.lerr == nil && l.trust.Change("").Same(now)
}

func lookAtTrust(dir string) (l trustLook) {
	if l.files, l.err = readTrust(dir); l.err == nil || errors.Is(l.err, fs.ErrNotExist) {
		l.trust, l.lerr = verify.Load(l.files)
	}
	return l
}

func loadTrustFiles(db *store.DB, dir string, look trustLook) (*inForce, error) {
	now, before, err := db.Trust()
	if err != nil {
		return nil, err
	}
	files, t, err, lerr := look.files, look.trust, look.err, look.lerr
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &trustChangedError{err}
	}
	switch {
	case look.is(now):
		return &inForce{t, files}, nil
	case before == nil || !underWay(files, *before, now) || claimOf(dir).beyond(now.Ref()):
		return nil, &trustChangedError{errors.Join(errors.New("the files below trust/ are not those that the ledger names"), err, lerr)}
	}
	return refreshTrust(db, dir, files, now)
}

// underWay says whether each file is one of before or of now, or a root below
// both: the folder is what a change leaves that was recorded and then cut off.
func underWay(f verify.Files, before, now ledger.TrustChange) bool {
	known := map[string]bool{}
	for _, c := range []ledger.TrustChange{before, now} {
		for _, d := range append([]string{c.Root, c.Policy, c.Revocations, c.TrustedRoot}, c.Signatures...) {
			known[d] = d != ""
		}
	}
	ok := len(f.TrustedRoot) == 0 || known[bundle.Digest(f.TrustedRoot)]
	for i, r := range append(slices.Clone(f.Roots), f.Policy, f.Revocations) {
		below := false
		if i < len(f.Roots) {
			n, err := rootVersion(r.Raw)
			below = err == nil && n < before.RootVersion
		}
		ok = ok && (len(r.Raw) == 0 || below || known[bundle.Digest(r.Raw)])
		for _, s := range r.Signatures {
			ok = ok && known[bundle.Digest(s.Data)]
		}
	}
	return ok && len(f.Roots) > 0
}

// unwrittenError is trust that is as the ledger names it, and cannot be written to
// trust/ now.
type unwrittenError struct {
	trust *inForce
	err   error
}

func (e *unwrittenError) Error() string { return "trust/ cannot be written: " + e.err.Error() }
func (e *unwrittenError) Unwrap() error { return e.err }

// trustChangedError says that trust/ differs from the ledger.
type trustChangedError struct{ err error }

func (e *trustChangedError) Error() string { return e.err.Error() }
func (e *trustChangedError) Unwrap() error { return e.err }

// refreshTrust rebuilds trust/ from the sealed blobs that the ledger names.
func refreshTrust(db *store.DB, dir string, old verify.Files, now ledger.TrustChange) (*inForce, error) {
	t, err := trustOf(now, old.Roots, sealedFiles(db))
	if err != nil {
		return nil, err
	}
	if err := writeTrust(dir, t.files); err != nil {
		return nil, &unwrittenError{t, err}
	}
	return t, nil
}

// sealedFiles reads sealed trust files by their digests.
func sealedFiles(db *store.DB) func(digest string) ([]byte, error) {
	return func(digest string) ([]byte, error) { return db.Blobs().Read(digest, maxTrustFile) }
}

// trustOf is the trust that the ledger names, of its files, which are read by their digests; see
// [filesOf].
func trustOf(now ledger.TrustChange, roots []verify.RoleFile, read func(digest string) ([]byte, error)) (*inForce, error) {
	files, err := filesOf(now, roots, read)
	if err != nil {
		return nil, err
	}
	t, err := verify.Load(files)
	if err != nil {
		return nil, err
	}
	if !t.Change("").Same(now) {
		return nil, &trustChangedError{errors.New("the trust files do not give what the ledger names")}
	}
	return &inForce{t, files}, nil
}

// filesOf are the trust files that a change names. Of the roots before its own, which it does not
// name, those are taken that its signatures say they are over, by their SHA-256, and else those
// given.
func filesOf(c ledger.TrustChange, roots []verify.RoleFile, sealed func(digest string) ([]byte, error)) (f verify.Files, err error) {
	read := func(digest string) (raw []byte) {
		if digest != "" && err == nil {
			raw, err = sealed(digest)
		}
		return raw
	}
	newest := verify.RoleFile{Raw: read(c.Root)}
	f.Policy.Raw, f.Revocations.Raw, f.TrustedRoot = read(c.Policy), read(c.Revocations), read(c.TrustedRoot)
	var signatures []roleSignature
	for _, digest := range c.Signatures {
		if raw := read(digest); err == nil {
			var s roleSignature
			s, err = readRoleSignature(raw)
			signatures = append(signatures, s)
		}
	}
	if err != nil {
		return f, err
	}
	chain := map[int64]verify.RoleFile{c.RootVersion: newest}
	add := func(r verify.RoleFile) error {
		n, err := rootVersion(r.Raw)
		if _, there := chain[n]; err == nil && !there && n < c.RootVersion {
			chain[n] = r
		}
		return err
	}
	for _, s := range signatures {
		if raw, err := sealed(hex.EncodeToString(s.digest)); err == nil {
			_ = add(verify.RoleFile{Raw: raw}) // else it is another of the files
		}
	}
	for _, r := range roots {
		if err := add(r); err != nil {
			return f, &trustChangedError{err}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(chain)) {
		f.Roots = append(f.Roots, chain[n])
	}
	for _, s := range signatures {
		if !s.attach(&f) {
			return f, errors.New("a sealed role signature signs none of the trust files")
		}
	}
	return f, nil
}

// A roleSignature says which file it is over, and by which key.
type roleSignature struct {
	raw, digest []byte
	id          string
}

func readRoleSignature(raw []byte) (roleSignature, error) {
	var s struct {
		VerificationMaterial struct {
			PublicKey struct{ Hint []byte }
		}
		MessageSignature struct {
			MessageDigest struct{ Digest []byte }
		}
	}
	err := json.Unmarshal(raw, &s)
	return roleSignature{raw, s.MessageSignature.MessageDigest.Digest, hex.EncodeToString(s.VerificationMaterial.PublicKey.Hint)}, err
}

// attach puts it with the file whose digest it signs: the SHA-256, or the SHA-384 by a key on
// P-384.
func (s roleSignature) attach(f *verify.Files) bool {
	targets := []*verify.RoleFile{&f.Policy, &f.Revocations}
	for i := range f.Roots {
		targets = append(targets, &f.Roots[i])
	}
	for _, r := range targets {
		short, long := sha256.Sum256(r.Raw), sha512.Sum384(r.Raw)
		if r.Raw == nil || !bytes.Equal(s.digest, short[:]) && !bytes.Equal(s.digest, long[:]) {
			continue
		}
		if !slices.ContainsFunc(r.Signatures, func(a bundle.Attached) bool { return a.ID == s.id }) {
			r.Signatures = append(slices.Clip(r.Signatures), bundle.Attached{ID: s.id, Data: s.raw})
		}
		return true
	}
	return false
}
