package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// newOptions are the flags of bundle new.
type newOptions struct {
	runtime, publisher, name string
}

func newBundleNewCmd(a *app) *cobra.Command {
	opt := newOptions{runtime: "exec", publisher: "example"}
	c := &cobra.Command{
		Use:   "new KIND DIR",
		Short: "Make a source folder to begin with",
		Long: "Make a source folder that packs, and runs, as it is: of kind plugin, dag or data. The\n" +
			"folder must not be there yet; the bundle is named like it, unless --name says otherwise.",
		Example:   "  stella bundle new plugin hello --publisher acme\n  stella bundle new plugin hello --runtime wasm",
		ValidArgs: []string{"plugin", "dag", "data"},
		Args:      cobra.ExactArgs(2),
		RunE:      func(_ *cobra.Command, args []string) error { return runBundleNew(a, args[0], args[1], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.runtime, "runtime", opt.runtime, "`RUNTIME` of a plugin: exec or wasm")
	f.StringVar(&opt.publisher, "publisher", opt.publisher, "`PUBLISHER` of the bundle")
	f.StringVar(&opt.name, "name", "", "`NAME` of the bundle (default: that of the folder)")
	return c
}

func runBundleNew(a *app, kind, dir string, opt newOptions) error {
	t := bundle.Template{Kind: manifests.Kind(kind), Publisher: opt.publisher, Name: opt.name, Created: a.now().UTC()}
	switch t.Kind {
	case manifests.KindPlugin:
		t.Runtime = manifests.Runtime(opt.runtime)
		if t.Runtime != manifests.RuntimeExec && t.Runtime != manifests.RuntimeWASM {
			return invalid("--runtime is exec or wasm, not %q", opt.runtime)
		}
	case manifests.KindDAG, manifests.KindData:
	default:
		return invalid("KIND is plugin, dag or data, not %q", kind)
	}
	path, err := absolute(dir)
	if err != nil {
		return err
	}
	if t.Name == "" {
		t.Name = filepath.Base(path)
	}
	if !manifests.ValidName(t.Name) || !manifests.ValidName(t.Publisher) {
		return invalid("%q and %q must be names: [a-z0-9][a-z0-9.-]{0,62}; see --name and --publisher", t.Name, t.Publisher)
	}
	files, err := t.Files()
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &api.Error{Code: api.CodeConflict, Message: dir + " exists", Hint: "name a folder that is not there yet"}
		}
		return fileError(dir, err)
	}
	for _, f := range files {
		to := filepath.Join(path, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fileError(to, err)
		}
		if err := os.WriteFile(to, f.Data, f.Mode); err != nil {
			return fileError(to, err)
		}
	}
	a.stderr.note("next: stella bundle pack %s", dir)
	return a.acted(false, map[string]string{"kind": kind, "publisher": t.Publisher, "name": t.Name, "folder": path}, func(s *screen) {
		for _, f := range files {
			s.printf("%s\n", filepath.Join(dir, filepath.FromSlash(f.Path)))
		}
	})
}

// packOptions are the flags of bundle pack.
type packOptions struct {
	out   string
	bases []string
	force bool
}

func newBundlePackCmd(a *app) *cobra.Command {
	var opt packOptions
	c := &cobra.Command{
		Use:   "pack DIR",
		Short: "Pack a source folder",
		Long: "Pack a source folder into an unsigned bundle, NAME-VERSION.stella. The same folder gives\n" +
			"the same bytes. With --base the contents that earlier bundles of the same publisher and name\n" +
			"hold are left out: a delta. The manifest, hence the signature, is the same. A site takes a\n" +
			"delta if it has admitted bundles that hold the rest, and nobody has revoked them.",
		Example: "  stella bundle pack hello\n  stella bundle pack hello --base hello-1.0.0.stella -o hello-1.0.1.delta.stella",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runBundlePack(a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVarP(&opt.out, "out", "o", "", "`FILE` to write (default NAME-VERSION.stella here)")
	f.StringArrayVar(&opt.bases, "base", nil, "bundle `FILE` whose contents the receiver holds; may be given several times")
	f.BoolVar(&opt.force, "force", false, "replace the file")
	return c
}

// packed is what pack prints.
type packed struct {
	Path      string   `json:"path"`
	Kind      string   `json:"kind"`
	Publisher string   `json:"publisher"`
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Digest    string   `json:"digest"` // of the manifest: what is to be signed
	SHA256    string   `json:"sha256"` // of the file
	Bytes     int64    `json:"bytes"`
	Omitted   []string `json:"omitted"`
}

func runBundlePack(a *app, dir string, opt packOptions) error {
	pack, bases, err := deltaOf(opt.bases)
	if err != nil {
		return err
	}
	out := opt.out
	if out == "" {
		raw, err := fsx.ReadFile(filepath.Join(dir, bundle.ManifestName), bundle.MaxManifest)
		if err != nil {
			return fileError(filepath.Join(dir, bundle.ManifestName), err)
		}
		m, err := manifests.ParseSource(filepath.Join(dir, bundle.ManifestName), raw)
		if err != nil {
			return faulty(dir, err)
		}
		out = bundle.FileName(m)
	}
	if !opt.force {
		if err := absentElse(out, "choose another name with --out, or replace it with --force"); err != nil {
			return err
		}
	}
	f, err := fsx.Create(out, fsx.ByUmask(0o666))
	if err != nil {
		return fileError(out, err)
	}
	defer f.Close()
	p, err := bundle.Pack(dir, f, pack)
	if err != nil {
		return faulty(dir, err)
	}
	for i, base := range bases {
		if base.Publisher != p.Manifest.Publisher || base.Name != p.Manifest.Name || base.Kind != p.Manifest.Kind {
			return invalid("%s is the %s %s/%s: a delta takes only what the same publisher and name brought before", opt.bases[i], base.Kind, base.Publisher, base.Name)
		}
	}
	if err := f.Commit(); err != nil {
		return fileError(out, err)
	}
	return a.printPacked(out, p)
}

// deltaOf reads the bundles whose contents are to be left out.
func deltaOf(files []string) (bundle.PackOptions, []*manifests.Bundle, error) {
	if len(files) == 0 {
		return bundle.PackOptions{}, nil, nil
	}
	var bases []*manifests.Bundle
	held := map[string]bool{}
	for _, file := range files {
		head, err := readHead(file)
		if err != nil {
			return bundle.PackOptions{}, nil, err
		}
		bases = append(bases, head.bundle)
		for _, f := range head.bundle.Files {
			held[f.SHA256] = true
		}
	}
	return bundle.PackOptions{Omit: func(sum string) bool { return held[sum] }}, bases, nil
}

func (a *app) printPacked(out string, p *bundle.Packed) error {
	m := p.Manifest
	res := packed{
		Path: out, Kind: string(m.Kind), Publisher: m.Publisher, Name: m.Name, Version: m.Version, Digest: p.Digest,
		SHA256: p.FileSHA256, Bytes: p.FileBytes, Omitted: p.Omitted,
	}
	if res.Omitted == nil {
		res.Omitted = []string{}
	}
	return a.acted(false, res, func(s *screen) {
		s.fields("file", out, "bundle", m.Ref(), "kind", res.Kind, "digest", "sha256:"+p.Digest, "size", size(p.FileBytes))
		if len(res.Omitted) > 0 {
			s.fields("left out", count(len(res.Omitted), "content", "contents")+" of what the receiver holds")
		}
	})
}

func newBundleKeygenCmd(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key that signs bundles",
		Long: "Make an ECDSA key on P-256: the private key as PKCS#8 PEM, readable by you alone, and the\n" +
			"public key beside it as FILE.pub, which cosign reads too. Nothing is replaced.",
		Example: "  stella bundle keygen --out acme.key",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return runBundleKeygen(a, out) },
	}
	c.Flags().StringVarP(&out, "out", "o", "", "`FILE` of the private key (required)")
	_ = c.MarkFlagRequired("out")
	return c
}

func runBundleKeygen(a *app, out string) error {
	for _, path := range []string{out, out + ".pub"} {
		if err := absent(path); err != nil {
			return err
		}
	}
	key, err := verify.GenerateKey()
	if err != nil {
		return err
	}
	private, err := verify.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := fsx.WriteFile(out, private, 0o600); err != nil {
		return fileError(out, err)
	}
	if err := fsx.WriteFile(out+".pub", public, 0o644); err != nil {
		return fileError(out+".pub", err)
	}
	id := verify.KeyID(&key.PublicKey)
	return a.acted(false, map[string]string{"id": id, "private": out, "public": out + ".pub"}, func(s *screen) {
		s.fields("key", id, "private", out, "public", out+".pub")
	})
}

// signOptions are the flags of bundle sign.
type signOptions struct {
	key    string
	attach []string
}

func newBundleSignCmd(a *app) *cobra.Command {
	var opt signOptions
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a bundle, or attach what another tool signed",
		Long: "Add a signature over the manifest of a bundle to the file. --key signs here; --attach takes\n" +
			"a Sigstore file (v0.3) that another tool made, such as cosign sign-blob or attest-blob over\n" +
			"the stella.toml that `bundle inspect --manifest` writes. Signing again with the same key\n" +
			"changes nothing. A key that others can read is used, with a warning. No site is needed.",
		Example: "  stella bundle sign hello-1.0.0.stella --key acme.key\n" +
			"  stella bundle inspect hello-1.0.0.stella --manifest > stella.toml\n" +
			"  cosign sign-blob --key cosign.key --bundle stella.sigstore.json stella.toml\n" +
			"  stella bundle sign hello-1.0.0.stella --attach stella.sigstore.json",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runBundleSign(a, args[0], opt) },
	}
	c.Flags().StringVar(&opt.key, "key", "", "`FILE` with a private key, PKCS#8 PEM on P-256")
	c.Flags().StringArrayVar(&opt.attach, "attach", nil, "Sigstore `FILE` to attach; may be given again")
	c.MarkFlagsOneRequired("key", "attach")
	return c
}

func runBundleSign(a *app, file string, opt signOptions) error {
	head, err := readHead(file)
	if err != nil {
		return err
	}
	var sigs, atts []bundle.Attached
	if opt.key != "" {
		key, err := a.privateKey(opt.key)
		if err != nil {
			return err
		}
		sig, err := verify.SignManifest(head.Manifest, key)
		if err != nil {
			return err
		}
		sigs = append(sigs, sig)
	}
	for _, path := range opt.attach {
		raw, err := fsx.ReadFile(path, bundle.MaxAttestation)
		if err != nil {
			return fileError(path, err)
		}
		at, statement, err := attachment(raw, head.Manifest)
		if err != nil {
			return invalid("%s: %v", path, err)
		}
		if statement {
			atts = append(atts, at)
		} else {
			sigs = append(sigs, at)
		}
	}
	if err := rewrite(file, sigs, atts); err != nil {
		return err
	}
	return a.acted(false, map[string]any{"path": file, "digest": bundle.Digest(head.Manifest), "signatures": ids(sigs), "attestations": ids(atts)},
		func(s *screen) {
			facts := []string{"file", file, "digest", "sha256:" + bundle.Digest(head.Manifest)}
			for _, x := range sigs {
				facts = append(facts, "signature of", "key "+x.ID)
			}
			for _, x := range atts {
				facts = append(facts, "attestation", "sha256:"+x.ID)
			}
			s.fields(facts...)
		})
}

func ids(list []bundle.Attached) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, x.ID)
	}
	return out
}

// rewrite puts further files into a bundle. The bundle is replaced in one step.
func rewrite(file string, sigs, atts []bundle.Attached) error {
	src, err := fsx.OpenRegular(file)
	if err != nil {
		return fileError(file, err)
	}
	defer src.Close()
	dst, err := fsx.Create(file, fsx.ByUmask(0o666))
	if err != nil {
		return fileError(file, err)
	}
	defer dst.Close()
	if err := bundle.Attach(dst, src, sigs, atts); err != nil {
		return containerError(file, err)
	}
	if err := dst.Commit(); err != nil {
		return fileError(file, err)
	}
	return nil
}

// bundleHead is the head of a bundle, with its manifest parsed. Nothing of it
// is authenticated.
type bundleHead struct {
	*bundle.Head
	bundle *manifests.Bundle
}

func readHead(file string) (*bundleHead, error) {
	f, err := fsx.OpenRegular(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	defer f.Close()
	head, err := bundle.NewReader(f, bundle.Limits{}).Head()
	if err != nil {
		return nil, containerError(file, err)
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, head.Manifest)
	if err != nil {
		return nil, faulty(file, err)
	}
	return &bundleHead{head, m}, nil
}

// containerError is a file that is not a bundle, or not a sound one.
func containerError(file string, err error) error {
	var form *bundle.FormatError
	var known *api.Error
	if errors.As(err, &known) {
		return known
	}
	if errors.As(err, &form) {
		return &api.Error{
			Code: api.Code(form.Reason), Message: file + ": " + form.Error(), Hint: verify.HintOf(form.Reason),
			Refusal: &api.Refusal{
				Reason: string(form.Reason), Stage: string(verify.StageOf(form.Reason)), Subject: form.Entry, Detail: form.Detail,
				Hint: verify.HintOf(form.Reason), Offset: form.Offset,
			},
		}
	}
	return faulty(file, err)
}
