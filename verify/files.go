package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// Names of trust files, below trust/ of a site.
const (
	policyFile      = "policy.toml"
	revocationsFile = "revocations.toml"
	trustedRootFile = "trusted_root.json"
	rootFolder      = "root/"
	signatureSuffix = ".signatures/"
)

// RoleFile is a trust file and the files of FILE.signatures/.
type RoleFile struct {
	Raw        []byte
	Signatures []bundle.Attached
}

// Files are the trust files of a site.
type Files struct {
	Roots       []RoleFile // the whole chain, oldest first
	Policy      RoleFile
	Revocations RoleFile // Raw is empty where there is none
	TrustedRoot []byte   // trusted_root.json; empty where the policy names none
}

// Named gives each file its slash-separated path below trust/: root/N.toml,
// policy.toml, FILE.signatures/ID.sigstore.json and so on. The names of the
// roots are the versions in them, so that they must parse.
func (f Files) Named() (map[string][]byte, error) {
	out := map[string][]byte{}
	put := func(name string, r RoleFile) {
		if len(r.Raw) == 0 {
			return
		}
		out[name] = r.Raw
		for _, s := range r.Signatures {
			out[signatureName(name, s.ID)] = s.Data
		}
	}
	for _, r := range f.Roots {
		name, err := rootName(r.Raw)
		if err != nil {
			return nil, err
		}
		put(name, r)
	}
	put(policyFile, f.Policy)
	put(revocationsFile, f.Revocations)
	if len(f.TrustedRoot) > 0 {
		out[trustedRootFile] = f.TrustedRoot
	}
	return out, nil
}

// signatureName is the name of a role's signature over the file.
func signatureName(file, id string) string { return file + signatureSuffix + id + ".sigstore.json" }

// isID says whether s is a key's id.
func isID(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == s
}

func rootName(raw []byte) (string, error) {
	r, err := manifests.ParseRoot("root.toml", raw)
	if err != nil {
		return "", &TrustError{"root.toml", err}
	}
	return fmt.Sprintf("%s%d.toml", rootFolder, r.Version), nil
}

// FilesNamed is the inverse of [Files.Named]. A file with another name is an
// error, since nothing would look into it.
func FilesNamed(named map[string][]byte) (Files, error) {
	var f Files
	var roots []string
	rest := maps.Clone(named)
	take := func(name string) RoleFile {
		r := RoleFile{Raw: rest[name]}
		delete(rest, name)
		for _, path := range slices.Sorted(maps.Keys(rest)) {
			id, ok := strings.CutPrefix(path, name+signatureSuffix)
			id, suffixed := strings.CutSuffix(id, ".sigstore.json")
			if ok && suffixed && isID(id) {
				r.Signatures = append(r.Signatures, bundle.Attached{ID: id, Data: rest[path]})
				delete(rest, path)
			}
		}
		return r
	}
	for path := range named {
		if strings.HasPrefix(path, rootFolder) && strings.HasSuffix(path, ".toml") {
			roots = append(roots, path)
		}
	}
	// Shorter numbers are lower, since names have no leading zeros: checked here.
	slices.SortFunc(roots, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for _, path := range roots {
		r := take(path)
		name, err := rootName(r.Raw)
		if err != nil {
			return f, err
		}
		if name != path {
			return f, &TrustError{path, fmt.Errorf("it holds %s", name)}
		}
		f.Roots = append(f.Roots, r)
	}
	f.Policy, f.Revocations = take(policyFile), take(revocationsFile)
	f.TrustedRoot = rest[trustedRootFile]
	delete(rest, trustedRootFile)
	if left := slices.Sorted(maps.Keys(rest)); len(left) > 0 {
		return f, &TrustError{left[0], errors.New("is not a trust file")}
	}
	return f, nil
}

// isTrustFile says whether a bundle with that section may hold a file.
func isTrustFile(t *manifests.TrustFiles, path string) bool {
	if path == trustedRootFile && t.Policy != "" {
		return true
	}
	for _, name := range []string{t.Root, t.Policy, t.Revocations} {
		id, ok := strings.CutPrefix(path, name+signatureSuffix)
		id, suffixed := strings.CutSuffix(id, ".sigstore.json")
		if name != "" && (path == name || ok && suffixed && isID(id)) {
			return true
		}
	}
	return false
}

// With is f changed by a bundle of kind trust: a root is appended to the chain,
// policy and revocations take the place of those in force, each with its
// signatures beside it in the bundle, and trusted_root.json is replaced where
// the bundle has one. A root that is in the chain already is not appended. read
// returns the content of a file of m. A file that is none of these is an error,
// since nothing would look into it. Nothing is judged here: see
// [Trust.Successor].
func (f Files) With(m *manifests.Bundle, read func(manifests.File) ([]byte, error)) (Files, error) {
	if m.Trust == nil {
		return f, fmt.Errorf("%s is not of kind trust", m.Ref())
	}
	content := map[string][]byte{}
	for _, file := range m.Files {
		if !isTrustFile(m.Trust, file.Path) {
			return f, &TrustError{file.Path, errors.New("is not a trust file")}
		}
		raw, err := read(file)
		if err != nil {
			return f, fmt.Errorf("%s of %s: %w", file.Path, m.Ref(), err)
		}
		content[file.Path] = raw
	}
	role := func(path string) RoleFile {
		r := RoleFile{Raw: content[path]}
		for _, file := range m.Files {
			id, ok := strings.CutPrefix(file.Path, path+signatureSuffix)
			if id, suffixed := strings.CutSuffix(id, ".sigstore.json"); ok && suffixed {
				r.Signatures = append(r.Signatures, bundle.Attached{ID: id, Data: content[file.Path]})
			}
		}
		slices.SortFunc(r.Signatures, func(a, b bundle.Attached) int { return strings.Compare(a.ID, b.ID) })
		return r
	}
	next := f
	known := func(r RoleFile) bool {
		return slices.ContainsFunc(f.Roots, func(old RoleFile) bool { return bytes.Equal(old.Raw, r.Raw) })
	}
	if r := role(m.Trust.Root); len(r.Raw) > 0 && !known(r) {
		next.Roots = append(slices.Clone(f.Roots), r)
	}
	if m.Trust.Policy != "" {
		next.Policy = role(m.Trust.Policy)
		p, err := manifests.ParsePolicy(policyFile, next.Policy.Raw)
		if err != nil {
			return f, &TrustError{policyFile, err}
		}
		if raw, ok := content[trustedRootFile]; ok || p.TrustedRootSHA256 == "" {
			next.TrustedRoot = raw
		}
	}
	if m.Trust.Revocations != "" {
		next.Revocations = role(m.Trust.Revocations)
	}
	return next, nil
}
