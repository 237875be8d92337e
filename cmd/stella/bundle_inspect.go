package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

func newBundleInspectCmd(a *app) *cobra.Command {
	var opt inspectOptions
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Look at a bundle, signed or not, or at any file that belongs to one",
		Long: "Look at a bundle without a site: what it says it is, which files it holds, who says to\n" +
			"have signed it, and what a policy would have to say to believe them. The container is\n" +
			"checked against the manifest, as far as that goes without decompressing anything. What\n" +
			"is damaged is told with reason, entry and offset beside all that could be read; the exit\n" +
			"code is then 5.\n\n" +
			"Where a site is at hand, or --trust names a folder laid out like trust/ of one, the\n" +
			"bundle is judged as well, check by check, with the line of policy.toml that names each\n" +
			"signer. Nothing is opened, locked or recorded; what the site has admitted before (the\n" +
			"floors) is not known here. stella bundle verify knows it.\n\n" +
			"FILE may also be a Sigstore file (*.sigstore.json), a public key, a trusted_root.json, or\n" +
			"root.toml, policy.toml, revocations.toml, extension.toml, whose signatures lie in\n" +
			"FILE.signatures; a DAG, a site.toml or the receipt of an import. --manifest writes the\n" +
			"exact stella.toml, which is what is signed.",
		Example: "  stella bundle inspect match-1.2.0.stella\n" +
			"  stella bundle inspect match-1.2.0.stella --trust fleet/trust --output json\n" +
			"  stella bundle inspect match-1.2.0.stella --manifest > stella.toml\n" +
			"  stella bundle inspect acme.key.pub\n" +
			"  stella bundle inspect /media/stick/trust/policy.toml",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runBundleInspect(a, args[0], opt) },
	}
	f := c.Flags()
	f.BoolVar(&opt.manifest, "manifest", false, "write the exact stella.toml")
	f.StringVar(&opt.trust, "trust", "", "`DIR` with trust files to judge by (default: those of the site, where there is one)")
	f.StringVar(&opt.siteID, "site-id", "", "`ID` of the site that judges (default: that of the site)")
	f.StringVar(&opt.asOf, "as-of", "", "`TIME` of the judgement (default: now)")
	return c
}

// inspectOptions are the flags of bundle inspect.
type inspectOptions struct {
	manifest            bool
	trust, siteID, asOf string
}

// inspected is what inspect prints.
type inspected struct {
	File string `json:"file"`
	What string `json:"what"` // bundle, sigstore, public-key, …
	// LooksLike is what a file seems to be that is nothing of ours.
	LooksLike string `json:"looksLike,omitempty"`
	*described
	Signatures   []*verify.Description `json:"signatures"`
	Attestations []*verify.Description `json:"attestations"`
	Key          *inspectedKey         `json:"key,omitempty"`
	Facts        [][2]string           `json:"facts,omitempty"` // of a DAG, a site.toml or a receipt
	TrustedRoot  []verify.Authority    `json:"trustedRoot,omitempty"`
	TrustFiles   []*inspectedTrust     `json:"trustFiles,omitempty"`
	Demands      []demanded            `json:"demands"` // what to write to believe each signer
	Findings     []finding             `json:"findings"`
	Report       *api.Report           `json:"report,omitempty"` // the judgement, where there is trust at hand
	SHA256       string                `json:"sha256,omitempty"` // of the first Bytes bytes; absent where nothing was read
	Bytes        int64                 `json:"bytes"`            // that were read
	Size         int64                 `json:"size"`             // of the file

	judge    *engine.Outside // nil without trust
	evidence verify.Case
	contents map[string][]byte // of a trust bundle, by path
	// malformed are signatures and attestations that no site would take, with the
	// reason.
	malformed map[*verify.Description]string
	manifest  *manifests.Bundle
}

// described is what a manifest says.
type described struct {
	Digest    string           `json:"digest"`
	Kind      string           `json:"kind"`
	Publisher string           `json:"publisher"`
	Name      string           `json:"name"`
	Version   string           `json:"version"`
	Sequence  int64            `json:"sequence"`
	Created   string           `json:"created"`
	NotBefore string           `json:"notBefore,omitempty"`
	Expires   string           `json:"expires,omitempty"`
	Audience  []string         `json:"audience"`
	Files     []api.BundleFile `json:"files"`
	Absent    []string         `json:"absent"` // contents that a delta leaves out
}

// A finding is something that is not as it should be.
type finding struct {
	Reason string   `json:"reason"`
	Entry  string   `json:"entry,omitempty"`
	Offset int64    `json:"offset,omitempty"`
	Detail string   `json:"detail"`
	Faults []string `json:"faults,omitempty"`
	Hint   string   `json:"hint,omitempty"`
}

func runBundleInspect(a *app, file string, opt inspectOptions) error {
	if opt.manifest {
		head, err := readHead(file)
		if err != nil {
			return err
		}
		a.stdout.exact(head.Manifest)
		return a.stdout.err
	}
	in := &inspected{
		File: file, Signatures: []*verify.Description{}, Attestations: []*verify.Description{}, Demands: []demanded{}, Findings: []finding{},
	}
	var err error
	if in.judge, err = a.judgedBy(opt); err != nil {
		return err
	}
	if err := in.open(file); err != nil {
		return err
	}
	if opt.asOf != "" && in.Report != nil {
		engine.ReportAsOf(in.Report, in.judge.Now)
	}
	if err := a.emit(in, func(s *screen) { in.render(s) }); err != nil {
		return err
	}
	return in.damage()
}

// damage is the first finding, as the error that ends the command.
func (in *inspected) damage() error {
	if len(in.Findings) == 0 {
		return nil
	}
	f := in.Findings[0]
	text := f.Reason
	if f.Entry != "" {
		text += ": " + f.Entry
	}
	return &api.Error{
		Code: api.Code(f.Reason), Message: in.File + ": " + text + ": " + f.Detail, Hint: f.Hint, Faults: f.Faults,
		Refusal: &api.Refusal{
			Reason: f.Reason, Stage: string(verify.StageOf(bundle.Reason(f.Reason))), Subject: f.Entry, Detail: f.Detail, Hint: f.Hint,
			Offset: f.Offset, SHA256: in.SHA256,
		},
	}
}

// find adds a finding. What err is for the judge or for the container counts
// more than the reason given.
func (in *inspected) find(reason verify.Reason, entry string, err error) {
	f := finding{Reason: string(reason), Entry: entry, Detail: err.Error()}
	var form *bundle.FormatError
	var refused *verify.RejectError
	var faults manifests.Faults
	switch {
	case errors.As(err, &form):
		f.Reason, f.Entry, f.Offset, f.Detail = string(form.Reason), form.Entry, form.Offset, form.Detail
	case errors.As(err, &refused):
		f.Reason, f.Entry, f.Detail = string(refused.Reason), refused.Subject, refused.Detail
	case errors.As(err, &faults):
		f.Detail = fmt.Sprintf("it has %d faults", len(faults))
		if len(faults) == 1 {
			f.Detail = "it has a fault"
		}
		for _, x := range faults {
			f.Faults = append(f.Faults, x.String())
		}
	}
	f.Hint = within(verify.HintOf(bundle.Reason(f.Reason)))
	in.Findings = append(in.Findings, f)
}

// open reads a file of whatever kind. An error is about reading it at all.
func (in *inspected) open(path string) error {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return fileError(path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fileError(path, err)
	}
	begin := make([]byte, 4<<10)
	n, err := f.ReadAt(begin, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fileError(path, err)
	}
	if in.What = kindOfFile(begin[:n]); in.What == "" || fi.Size() > maxLooked {
		in.What, in.LooksLike = whatBundle, looksLike(begin[:n])
		return in.bundle(f, fi.Size(), notTar(begin[:n]))
	}
	raw, err := fsx.ReadFile(path, maxLooked)
	if err != nil {
		return fileError(path, err)
	}
	in.Bytes, in.Size = int64(len(raw)), int64(len(raw))
	in.SHA256 = hashOfRead(bundle.Digest(raw), in.Bytes)
	in.small(path, raw)
	return nil
}

// bundle reads a bundle from front to back, as far as that goes. A file that
// is alien does not begin like one.
func (in *inspected) bundle(f *os.File, size int64, alien bool) error {
	r := bundle.NewReader(f, bundle.Limits{Size: size})
	broken := in.head(r)
	in.evidence.Torn = broken != nil
	if broken == nil && in.manifest != nil {
		broken = in.rest(r)
	}
	in.Bytes, in.Size = r.Offset(), size
	in.SHA256 = hashOfRead(r.FileSHA256(), in.Bytes)
	var form *bundle.FormatError
	switch {
	case errors.As(broken, &form):
		if alien {
			form = &bundle.FormatError{Reason: bundle.NotABundle, Detail: "it does not begin as bundles do"}
		}
		found := in.Findings
		in.Findings = nil
		in.find(form.Reason, form.Entry, form)
		in.Findings = append(in.Findings, found...) // the damage comes first
		in.evidence.Damage = form
		if in.evidence.Manifest == nil {
			in.What = whatUnknown
		}
	case broken != nil:
		return fileError(in.File, broken)
	}
	if in.judge != nil && in.evidence.Manifest != nil {
		if err := in.judged(f, size); err != nil {
			return err
		}
	}
	in.demandSigners()
	in.trustBundle()
	return nil
}

// hashOfRead is the hash of what was read, "" for nothing.
func hashOfRead(sha256 string, n int64) string {
	if n == 0 {
		return ""
	}
	return sha256
}

// head reads manifest and signatures.
func (in *inspected) head(r *bundle.Reader) error {
	head, broken := r.Head()
	if head == nil {
		return broken
	}
	in.evidence.Manifest, in.evidence.Signatures, in.evidence.Strangers = head.Manifest, head.Signatures, true
	in.described = &described{Digest: bundle.Digest(head.Manifest), Audience: []string{}, Files: []api.BundleFile{}, Absent: []string{}}
	for _, sig := range head.Signatures {
		in.look(sig, false)
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, head.Manifest)
	switch {
	case err == nil:
		in.manifest = m
		in.describe(m)
	case broken == nil: // else the damage says why
		in.find(verify.ManifestInvalid, bundle.ManifestName, err)
	}
	return broken
}

func (in *inspected) describe(m *manifests.Bundle) {
	d := in.described
	d.Kind, d.Publisher, d.Name, d.Version = string(m.Kind), m.Publisher, m.Name, m.Version
	d.Sequence, d.Created, d.Audience = m.Sequence, stamp.Format(m.Created), append(d.Audience, m.Audience...)
	if !m.NotBefore.IsZero() {
		d.NotBefore = stamp.Format(m.NotBefore)
	}
	if !m.Expires.IsZero() {
		d.Expires = stamp.Format(m.Expires)
	}
	for _, f := range m.Files {
		d.Files = append(d.Files, api.BundleFile{Path: f.Path, SHA256: f.SHA256, Size: f.Size, Mode: f.Mode})
	}
}

// look describes a file of signatures/ or attestations/. What no site would take
// is found, whatever can be read of it.
func (in *inspected) look(at bundle.Attached, attestation bool) {
	read, list := verify.DescribeSignature, &in.Signatures
	if attestation {
		read, list = verify.DescribeAttestation, &in.Attestations
	}
	d, err := read(at)
	if err != nil {
		in.find("", "", err)
	}
	if d == nil {
		return
	}
	*list = append(*list, d)
	if err != nil {
		if in.malformed == nil {
			in.malformed = map[*verify.Description]string{}
		}
		in.malformed[d] = in.Findings[len(in.Findings)-1].Reason
	}
}

// rest reads attestations and blobs, and compares them with the manifest.
// Contents that are not here may be a delta's.
func (in *inspected) rest(r *bundle.Reader) error {
	if err := r.Bind(in.manifest, func(string) bool { return true }); err != nil {
		return err
	}
	for { // one at a time, since all of them may have 16 MiB
		at, err := r.NextAttestation()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		in.look(at, true)
		if in.judge != nil {
			in.evidence.Attestations = append(in.evidence.Attestations, at)
		}
	}
	in.evidence.Attested = true
	if err := in.blobs(r); err != nil {
		return err
	}
	in.Absent = append(in.Absent, r.Absent()...)
	in.evidence.Absent = len(in.Absent)
	err := r.End()
	in.evidence.Ended = err == nil
	return err
}

// blobs reads every blob to its end. Since nobody has vouched for the digests,
// nothing is decompressed; of a trust bundle what is plain is kept.
func (in *inspected) blobs(r *bundle.Reader) error {
	in.contents = map[string][]byte{}
	kept := int64(0)
	for {
		b, err := r.NextBlob()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if in.manifest.Trust == nil || b.Encoding != "" || kept+b.Size > maxLooked {
			if err := b.CheckStored(); err != nil {
				return err
			}
			continue
		}
		kept += b.Size
		var w growing
		if err := b.CopyTo(&w, nil); err != nil {
			return err
		}
		for _, f := range b.Files {
			in.contents[f.Path] = w
		}
	}
}

// keeper is a sink that keeps the contents of a trust bundle.
type keeper struct {
	contents map[string][]byte
	kept     int64
}

// Blob implements [verify.Sink].
func (k *keeper) Blob(b *bundle.Blob) (verify.BlobWriter, error) {
	if k.kept += b.Size; k.kept > maxLooked {
		return nil, nil
	}
	return &keeping{k: k, files: b.Files}, nil
}

// keeping is one content.
type keeping struct {
	growing
	k     *keeper
	files []manifests.File
}

// Commit implements [verify.BlobWriter].
func (w *keeping) Commit() error {
	for _, f := range w.files {
		w.k.contents[f.Path] = w.growing
	}
	return nil
}

// Abort implements [verify.BlobWriter].
func (w *keeping) Abort() error { return nil }

// growing takes what is written.
type growing []byte

func (g *growing) Write(p []byte) (int, error) {
	*g = append(*g, p...)
	return len(p), nil
}

// judged judges by the trust at hand. Only what this trust would admit is read
// once more, contents included: then they may be decompressed.
func (in *inspected) judged(f *os.File, size int64) error {
	c, o := in.evidence, *in.judge
	c.SiteID, c.Stella, c.Now = o.SiteID, o.Stella, o.Now
	r := o.Trust.Explain(c)
	if r.Decision == verify.Undecided && c.Absent == 0 {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fileError(in.File, err)
		}
		kept := &keeper{contents: map[string][]byte{}}
		var sink verify.Sink
		if in.manifest.Trust != nil {
			sink = kept
		}
		res, err := o.Check(f, size, sink)
		var refused *verify.RejectError
		if err != nil && !errors.As(err, &refused) {
			return fileError(in.File, err)
		}
		if r = res.Report(err); refused != nil {
			in.find("", "", refused)
		} else {
			in.contents = kept.contents
		}
	}
	in.Report = engine.Report(r)
	for i := range in.Report.Checks {
		in.Report.Checks[i].Hint = within(in.Report.Checks[i].Hint)
	}
	return nil
}

// judgedBy is the trust to judge by: that of a folder, that of a site at hand,
// or none. A site whose trust cannot be read is no reason not to look.
func (a *app) judgedBy(opt inspectOptions) (*engine.Outside, error) {
	o := &engine.Outside{SiteID: opt.siteID, Stella: version, Now: a.now()}
	var err error
	if opt.asOf != "" {
		if o.Now, err = parseTime(opt.asOf); err != nil {
			return nil, err
		}
	}
	if opt.trust != "" {
		o.Trust, o.Files, err = loadTrustDir(opt.trust)
		return o, err
	}
	dir := filepath.Join(a.opt.home, "trust")
	if _, err := os.Stat(dir); a.opt.home == "" || err != nil {
		return nil, nil //nolint:nilerr // there is no site
	}
	if o.Trust, o.Files, err = engine.LoadTrustDir(dir); err != nil {
		a.stderr.note("the trust of the site in %s cannot be read, and nothing is judged by it: %s", a.opt.home, err)
		return nil, nil //nolint:nilerr // said
	}
	if o.SiteID == "" {
		o.SiteID = engine.SiteIDOf(a.opt.home)
	}
	return o, nil
}
