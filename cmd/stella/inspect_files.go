package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// maxLooked bounds the files that are read whole.
const maxLooked = 4 << 20

// What a file is, in the words of inspect.
const (
	whatBundle      = "bundle"
	whatManifest    = "manifest" // stella.toml by itself
	whatSigstore    = "sigstore"
	whatTrustedRoot = "trusted-root"
	whatPublicKey   = "public-key"
	whatPrivateKey  = "private-key"
	whatRoot        = "root"
	whatPolicy      = "policy"
	whatRevocations = "revocations"
	whatExtension   = "extension"
	whatDAG         = "dag"
	whatSite        = "site"
	whatReceipt     = "receipt" // of an import
	whatUnknown     = "unknown"
)

// kindOfFile tells by its beginning what a file is; "" is a bundle, or nothing
// that is known.
func kindOfFile(begin []byte) string {
	for schema, what := range map[string]string{
		manifests.BundleSchema: whatManifest, manifests.RootSchema: whatRoot, manifests.PolicySchema: whatPolicy,
		manifests.RevocationsSchema: whatRevocations, manifests.ExtensionSchema: whatExtension,
		manifests.DAGSchema: whatDAG, manifests.SiteSchema: whatSite,
	} {
		if bytes.HasPrefix(begin, []byte(`schema = "`+schema+`"`)) {
			return what
		}
	}
	text := bytes.TrimSpace(begin)
	switch {
	case bytes.HasPrefix(text, []byte("{")) && bytes.Contains(begin, trustedRootType):
		return whatTrustedRoot
	case bytes.HasPrefix(text, []byte("{")):
		return whatSigstore
	case bytes.HasPrefix(text, []byte("-----BEGIN PRIVATE KEY")):
		return whatPrivateKey
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return whatPublicKey
	}
	return ""
}

// trustedRootType is part of the mediaType of each trusted_root.json, which may
// stand anywhere in it.
var trustedRootType = []byte("dev.sigstore.trustedroot")

// looksLike names some forms in which a bundle may come by mistake.
func looksLike(begin []byte) string {
	for magic, what := range map[string]string{
		"\x1f\x8b": "a gzip file: gunzip it", "PK\x03\x04": "a zip file: unzip it", "\x28\xb5\x2f\xfd": "a zstd file: unzstd it",
		"\xfd7zXZ\x00": "an xz file: unxz it", "<!DOCTYPE": "a web page: the download failed", "<html": "a web page: the download failed",
	} {
		if bytes.HasPrefix(begin, []byte(magic)) {
			return what
		}
	}
	switch {
	case len(begin) == 0:
		return "empty"
	case len(bytes.Trim(begin, "\x00")) == 0:
		return "zeros: the copy failed, or the medium is damaged"
	}
	return ""
}

// errNoBundle is about files that belong to bundles, and are none.
var errNoBundle = errors.New("it is the manifest of a bundle, and no bundle")

// small reads a file that was read whole.
func (in *inspected) small(path string, raw []byte) {
	switch {
	case in.What == whatSigstore && bytes.Contains(raw, trustedRootType):
		in.What = whatTrustedRoot
	case in.What == whatSigstore && bytes.Contains(raw, receiptType):
		in.What = whatReceipt
	}
	switch in.What {
	case whatManifest:
		in.find(bundle.NotABundle, "", errNoBundle)
		in.described = &described{Digest: bundle.Digest(raw), Files: nil}
		m, err := manifests.ParseBundle(path, raw)
		if err != nil { // not packed yet, perhaps
			m, err = manifests.ParseSource(path, raw)
		}
		if err != nil {
			in.find(verify.ManifestInvalid, "", err)
			return
		}
		in.describe(m)
	case whatSigstore:
		d, err := verify.Look(raw)
		if err != nil {
			in.find(verify.SignatureMalformed, "", err)
		}
		if d != nil && d.Statement {
			in.Attestations = append(in.Attestations, d)
		} else if d != nil {
			in.Signatures = append(in.Signatures, d)
		}
		in.demandSigners()
	case whatTrustedRoot:
		var err error
		if in.TrustedRoot, err = verify.DescribeTrustedRoot(raw); err != nil {
			in.find(verify.TrustInvalid, "", err)
		}
	case whatPublicKey, whatPrivateKey:
		in.key(raw)
	case whatDAG:
		in.dag(path, raw)
	case whatSite:
		in.siteFile(path, raw)
	case whatReceipt:
		in.receipt(raw)
	default:
		in.trustFile(in.What, filepath.Base(path), raw, signaturesBeside(path))
	}
}

// inspectedKey is a key file.
type inspectedKey struct {
	ID    string `json:"id"` // SHA-256 of the SPKI
	Curve string `json:"curve"`
}

// key reads a key file. Of a private one, nothing but the id of its public half
// is shown.
func (in *inspected) key(raw []byte) {
	pub, err := verify.ParsePublicKey(raw)
	if in.What == whatPrivateKey {
		key, perr := verify.ParsePrivateKey(raw)
		if err = perr; err == nil {
			pub = &key.PublicKey
		}
	}
	if err != nil {
		in.find(verify.SignatureMalformed, "", err)
		in.Findings[len(in.Findings)-1].Hint = "stella bundle keygen makes keys: P-256, in PEM"
		return
	}
	in.Key = &inspectedKey{ID: verify.KeyID(pub), Curve: pub.Params().Name}
	pem, err := verify.MarshalPublicKey(pub)
	if err != nil {
		return
	}
	in.demand(&verify.Description{ID: in.Key.ID, Flow: verify.FlowKey}, string(pem))
}

// inspectedTrust is a trust file and who signed it.
type inspectedTrust struct {
	File       string       `json:"file"`
	Kind       string       `json:"kind"`
	SHA256     string       `json:"sha256"`
	Facts      [][2]string  `json:"facts"`
	Rows       [][]string   `json:"rows,omitempty"`
	Header     []string     `json:"header,omitempty"`
	Signatures []roleSigner `json:"signatures"`
}

// roleSigner is a signature over a trust file. State says what is known of it.
type roleSigner struct {
	ID    string   `json:"id"`
	Roles []string `json:"roles,omitempty"` // that its key has, where it verifies
	State string   `json:"state"`
}

// trustFile reads root.toml, policy.toml, revocations.toml or extension.toml.
func (in *inspected) trustFile(what, name string, raw []byte, sigs []bundle.Attached) {
	t := &inspectedTrust{File: name, Kind: what, SHA256: bundle.Digest(raw), Signatures: []roleSigner{}}
	in.TrustFiles = append(in.TrustFiles, t)
	var root *manifests.Root
	var err error
	switch what {
	case whatRoot:
		if root, err = manifests.ParseRoot(name, raw); err == nil {
			t.root(root)
		}
	case whatPolicy:
		var p *manifests.Policy
		if p, err = manifests.ParsePolicy(name, raw); err == nil {
			t.policy(p)
		}
	case whatRevocations:
		var r *manifests.Revocations
		if r, err = manifests.ParseRevocations(name, raw); err == nil {
			t.revocations(r)
		}
	case whatExtension:
		var x *manifests.Extension
		if x, err = manifests.ParseExtension(name, raw); err == nil {
			t.extension(x)
		}
	}
	if err != nil {
		in.find(verify.TrustInvalid, name, err)
	}
	by := "its own keys"
	if root == nil && in.judge != nil {
		root, by = in.judge.Trust.Root(), "the root at hand"
	}
	for _, sig := range sigs {
		t.Signatures = append(t.Signatures, in.roleSigner(name, raw, sig, root, by))
	}
}

// roleSigner verifies a signature by a root, where there is one.
func (in *inspected) roleSigner(name string, raw []byte, sig bundle.Attached, root *manifests.Root, by string) roleSigner {
	s := roleSigner{ID: sig.ID}
	d, err := verify.Look(sig.Data)
	if err == nil && (d.Digest != bundle.Digest(raw) && len(d.Digest) == 64) {
		err = errors.New("it is over other bytes")
	}
	if err == nil && root != nil {
		s.Roles, err = verify.RoleSigner(root, raw, sig)
	}
	switch {
	case err != nil:
		s.State = "invalid: " + err.Error()
		in.find(verify.TrustInvalid, name+".signatures/"+sig.ID+".sigstore.json", err)
	case root == nil:
		s.State = "not verified: no root is at hand (--trust)"
	case len(s.Roles) == 0:
		s.State = "unknown to " + by
	default:
		s.State = "verified by " + by
	}
	return s
}

func (t *inspectedTrust) fact(name, value string) {
	if value != "" {
		t.Facts = append(t.Facts, [2]string{name, value})
	}
}

func (t *inspectedTrust) root(r *manifests.Root) {
	t.fact("version", strconv.FormatInt(r.Version, 10))
	t.fact("fleet", r.FleetID)
	t.dates(r.Issued, "expires", r.Expires)
	if r.MaxExtension > 0 {
		t.fact("max extension", r.MaxExtension.String())
	}
	t.Header = []string{"ROLE", "DEMANDS", "KEY"}
	for _, name := range []string{verify.RoleRoot, verify.RolePolicy, verify.RoleRevocation, "break_glass"} {
		role, ok := r.Roles[name]
		if !ok {
			continue
		}
		for i, pem := range role.Keys {
			row := []string{"", "", keyName(pem)}
			if i == 0 {
				row[0], row[1] = name, fmt.Sprintf("%d of %d", role.Threshold, len(role.Keys))
			}
			t.Rows = append(t.Rows, row)
		}
	}
}

func keyName(pem string) string {
	pub, err := verify.ParsePublicKey([]byte(pem))
	if err != nil {
		return "a key that cannot be read"
	}
	return verify.KeyID(pub)
}

func (t *inspectedTrust) policy(p *manifests.Policy) {
	t.fact("serial", strconv.FormatInt(p.Serial, 10))
	t.fact("root version", strconv.FormatInt(p.RootVersion, 10))
	t.dates(p.Issued, "next update", p.NextUpdate)
	t.fact("trusted root", p.TrustedRootSHA256)
	t.Header = []string{"PUBLISHER", "LEVEL", "SIGNERS", "KINDS", "NAMES", "KEY OR IDENTITY"}
	for _, x := range p.Publishers {
		t.Rows = append(t.Rows, publisherRows(x)...)
	}
}

func (t *inspectedTrust) revocations(r *manifests.Revocations) {
	t.fact("serial", strconv.FormatInt(r.Serial, 10))
	t.fact("root version", strconv.FormatInt(r.RootVersion, 10))
	t.dates(r.Issued, "next update", r.NextUpdate)
	t.Header = []string{"REVOKED", "WHICH", "FROM", "REASON"}
	for _, x := range r.Revoked {
		what, which := "key", x.Key
		switch {
		case x.Manifest != "":
			what, which = "bundle", x.Manifest
		case x.Blob != "":
			what, which = "file", x.Blob
		case x.Issuer != "":
			what, which = "identity", x.SAN+" by "+x.Issuer
		}
		from := "the beginning"
		if !x.From.IsZero() {
			from = seconds(stamp.Format(x.From))
		}
		t.Rows = append(t.Rows, []string{what, which, from, x.Reason})
	}
}

func (t *inspectedTrust) extension(x *manifests.Extension) {
	t.fact("site", x.SiteID)
	t.fact("serial", strconv.FormatInt(x.Serial, 10))
	t.dates(x.Issued, "until", x.Until)
	t.fact("root", x.Root)
	t.fact("policy", x.Policy)
	t.fact("revocations", x.Revocations)
	t.fact("reason", x.Reason)
}

func (t *inspectedTrust) dates(issued time.Time, name string, end time.Time) {
	t.fact("issued", seconds(stamp.Format(issued)))
	t.fact(name, seconds(stamp.Format(end)))
}

// signaturesBeside reads FILE.signatures, as far as it can be read.
func signaturesBeside(path string) []bundle.Attached {
	dir := path + ".signatures"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []bundle.Attached
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".sigstore.json")
		if !ok || len(out) == bundle.MaxSignatures {
			continue
		}
		if data, err := fsx.ReadFile(filepath.Join(dir, e.Name()), bundle.MaxSignature); err == nil {
			out = append(out, bundle.Attached{ID: id, Data: data})
		}
	}
	return out
}

// trustBundle describes the trust files that a bundle holds.
func (in *inspected) trustBundle() {
	if in.manifest == nil || in.manifest.Trust == nil {
		return
	}
	t := in.manifest.Trust
	for _, f := range []struct{ what, path string }{{whatRoot, t.Root}, {whatPolicy, t.Policy}, {whatRevocations, t.Revocations}} {
		raw, ok := in.contents[f.path]
		if f.path == "" || !ok {
			continue
		}
		var sigs []bundle.Attached
		for path, data := range in.contents {
			id, inside := strings.CutPrefix(path, f.path+".signatures/")
			if id, ok := strings.CutSuffix(id, ".sigstore.json"); inside && ok && len(data) <= bundle.MaxSignature {
				sigs = append(sigs, bundle.Attached{ID: id, Data: data})
			}
		}
		slices.SortFunc(sigs, func(a, b bundle.Attached) int { return strings.Compare(a.ID, b.ID) })
		in.trustFile(f.what, f.path, raw, sigs)
	}
}
