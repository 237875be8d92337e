// Package verifytest makes keys, trust files and bundles for tests, from names
// and fixed times: the same calls give the same bytes for ever. Its keys are
// public knowledge, and nothing but tests and the generator of testdata may
// import it. It refuses nothing: it makes what tests ask for, broken or not.
package verifytest

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// Ids of the site and fleet that fixtures are judged for.
const (
	SiteID  = "5170000000000000000000000000a001"
	FleetID = "f1ee0000000000000000000000000001"
)

// Created is when everything was made, Now when it is judged.
func Created() time.Time { return time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC) }

// Now is the usual time of a judgement.
func Now() time.Time { return Created().Add(24 * time.Hour) }

// Key is the P-256 key of that name.
func Key(name string) *ecdsa.PrivateKey {
	for i := 0; ; i++ {
		scalar := sha256.Sum256(fmt.Appendf(nil, "stella test key %s %d", name, i))
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:]); err == nil {
			return key
		}
	}
}

// KeyID is the id of the key of that name.
func KeyID(name string) string { return verify.KeyID(&Key(name).PublicKey) }

// PEM is the public key of that name.
func PEM(name string) string {
	raw, err := verify.MarshalPublicKey(&Key(name).PublicKey)
	must(err)
	return string(raw)
}

// must stops a test whose making went wrong.
func must(err error) {
	if err != nil {
		panic("verifytest: " + err.Error())
	}
}

// Trust is trust files in the making. The zero value of a field is replaced by
// what [NewTrust] says.
type Trust struct {
	Root        *manifests.Root
	Policy      *manifests.Policy
	Revocations *manifests.Revocations
	TrustedRoot []byte
}

// NewTrust is the trust of most fixtures: one key for each role, and the
// publisher acme with the keys acme-1 and acme-2, of which one must sign.
func NewTrust() *Trust {
	role := func(key string) manifests.Role {
		return manifests.Role{Threshold: 1, Keys: []string{PEM(key)}}
	}
	year := Created().AddDate(1, 0, 0)
	return &Trust{
		Root: &manifests.Root{
			Version: 1, FleetID: FleetID, Issued: Created(), Expires: year,
			Roles: map[string]manifests.Role{"root": role("root"), "policy": role("policy"), "revocation": role("revocation")},
		},
		Policy: &manifests.Policy{
			Serial: 1, RootVersion: 1, Issued: Created(), NextUpdate: year,
			Publishers: []manifests.Publisher{Publisher("acme", "acme-1", "acme-2"), Publisher("other", "other-1")},
		},
		Revocations: &manifests.Revocations{Serial: 1, RootVersion: 1, Issued: Created(), NextUpdate: year},
	}
}

// Publisher may publish anything but trust, with names that begin with its own,
// signed by one of the keys.
func Publisher(name string, keys ...string) manifests.Publisher {
	p := manifests.Publisher{
		Name: name, Level: "enforce", Threshold: 1, Names: []string{name + "."},
		Kinds: []manifests.Kind{manifests.KindPlugin, manifests.KindDAG, manifests.KindData, manifests.KindSecrets},
		Allow: manifests.Allow{Network: "none"},
	}
	for _, k := range keys {
		p.Keys = append(p.Keys, manifests.PublisherKey{PEM: PEM(k)})
	}
	return p
}

// Acme is the policy entry of acme.
func (t *Trust) Acme() *manifests.Publisher { return &t.Policy.Publishers[0] }

// Files signs the files with the keys root, policy and revocation.
func (t *Trust) Files() verify.Files {
	if len(t.TrustedRoot) > 0 && t.Policy.TrustedRootSHA256 == "" {
		t.Policy.TrustedRootSHA256 = bundle.Digest(t.TrustedRoot)
	}
	f := verify.Files{
		Roots:       []verify.RoleFile{Signed(manifests.EncodeRoot(t.Root), "root")},
		Policy:      Signed(manifests.EncodePolicy(t.Policy), "policy"),
		TrustedRoot: t.TrustedRoot,
	}
	if t.Revocations != nil {
		f.Revocations = Signed(manifests.EncodeRevocations(t.Revocations), "revocation")
	}
	return f
}

// Load loads the files.
func (t *Trust) Load() *verify.Trust {
	loaded, err := verify.Load(t.Files())
	must(err)
	return loaded
}

// Signed is a trust file signed by the keys.
func Signed(raw []byte, keys ...string) verify.RoleFile {
	return verify.RoleFile{Raw: raw, Signatures: Signatures(raw, keys...)}
}

// Signatures signs raw with the keys.
func Signatures(raw []byte, keys ...string) []bundle.Attached {
	var out []bundle.Attached
	for _, k := range keys {
		sig, err := verify.SignManifest(raw, Key(k))
		must(err)
		out = append(out, sig)
	}
	return out
}

// Attestation is a statement of the key about the manifest with the digest.
func Attestation(digest, predicateType, predicate, key string) bundle.Attached {
	payload, err := verify.Statement(digest, predicateType, []byte(predicate))
	must(err)
	a, err := verify.SignStatement(payload, Key(key))
	must(err)
	return a
}

// Bundle is a bundle in the making: a manifest without files, and the files. A
// path that ends in .sh becomes executable.
type Bundle struct {
	Manifest manifests.Bundle
	Files    map[string]string
}

// NewBundle is a small bundle of kind data by acme.
func NewBundle() *Bundle {
	return &Bundle{
		Manifest: manifests.Bundle{
			Kind: manifests.KindData, Publisher: "acme", Name: "acme.list", Version: "1.2.0", Sequence: 7,
			Created: Created(), Data: &manifests.Data{MediaType: "text/plain"},
		},
		Files: map[string]string{"list.txt": "one\ntwo\n", "text.txt": string(bytes.Repeat([]byte("a line of text\n"), 100))},
	}
}

// NewPlugin is a small bundle of kind plugin by acme.
func NewPlugin() *Bundle {
	b := NewBundle()
	b.Manifest.Kind, b.Manifest.Data, b.Manifest.Name = manifests.KindPlugin, nil, "acme.greet"
	b.Manifest.Plugin = &manifests.Plugin{
		Runtime: manifests.RuntimeExec, Network: "none", Entry: map[string]string{"linux/amd64": "greet.sh"},
		Actions: map[string]manifests.Action{"greet": {Idempotent: true}},
	}
	b.Files = map[string]string{"greet.sh": "#!/bin/sh\necho hello\n"}
	return b
}

// Pack packs b, unsigned.
func (b *Bundle) Pack(opt bundle.PackOptions) ([]byte, *bundle.Packed) {
	dir, err := os.MkdirTemp("", "verifytest-")
	must(err)
	defer os.RemoveAll(dir)
	write := func(name string, data []byte) {
		path, mode := filepath.Join(dir, filepath.FromSlash(name)), os.FileMode(0o644)
		if filepath.Ext(name) == ".sh" {
			mode = 0o755
		}
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		must(os.WriteFile(path, data, mode))
	}
	m := b.Manifest
	write(bundle.ManifestName, m.Encode())
	for name, data := range b.Files {
		write(name, []byte(data))
	}
	var out bytes.Buffer
	packed, err := bundle.Pack(dir, &out, opt)
	must(err)
	return out.Bytes(), packed
}

// Sign packs b and signs it with the keys.
func (b *Bundle) Sign(keys ...string) []byte {
	raw, packed := b.Pack(bundle.PackOptions{})
	return Attach(raw, Signatures(packed.Raw, keys...), nil)
}

// Digest is the digest that b will have.
func (b *Bundle) Digest() string {
	_, packed := b.Pack(bundle.PackOptions{})
	return packed.Digest
}

// Attach is [bundle.Attach] in memory.
func Attach(raw []byte, sigs, atts []bundle.Attached) []byte {
	var out bytes.Buffer
	must(bundle.Attach(&out, bytes.NewReader(raw), sigs, atts))
	return out.Bytes()
}

// Entry is an entry of a container that [Container] writes as it is told.
type Entry struct {
	Name string
	Data []byte
	Edit func(*tar.Header) // may be nil
}

// Container writes a tar of the entries, with the headers that a bundle has but
// for what Edit does.
func Container(entries ...Entry) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: e.Name, Size: int64(len(e.Data)), Mode: 0o644, ModTime: Created(), Format: tar.FormatUSTAR,
		}
		if e.Edit != nil {
			e.Edit(h)
		}
		must(w.WriteHeader(h))
		_, err := w.Write(e.Data[:min(h.Size, int64(len(e.Data)))])
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}

// Entries takes a well-formed container apart.
func Entries(raw []byte) []Entry {
	var out []Entry
	r := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := r.Next()
		if err != nil {
			return out
		}
		data := make([]byte, h.Size)
		for n := 0; n < len(data); {
			k, err := r.Read(data[n:])
			n += k
			if n < len(data) {
				must(err)
			}
		}
		out = append(out, Entry{Name: h.Name, Data: data})
	}
}
