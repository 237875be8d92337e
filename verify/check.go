package verify

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// Options are those of [Check]. Now is required.
type Options struct {
	Now    time.Time
	Limits bundle.Limits
	SiteID string // "" outside a site
	Stella string // version of this program, for min_stella
	// Spool holds the stored bytes of one compressed blob at a time.
	Spool bundle.Spool
	// Floors reads what the site knows of earlier admissions. Nil outside a
	// site: then no floor applies, and the verdict's checks do not name them.
	Floors func(m *manifests.Bundle, digest string) (Floors, error)
	// Have says whether the site holds a blob of an admitted, unrevoked bundle
	// of the same publisher and name, and has hashed it again (THREATS 20). It
	// is asked only for blobs that the file leaves out. Nil: all must be there.
	Have func(m *manifests.Bundle, sha256 string) bool
	// Files are the trust files in force, of the Trust that judges. With them a
	// bundle of kind trust is judged to its end: whether what it brings may
	// follow what is in force. Without, only its container and signers are.
	Files *Files
}

// A Sink takes the contents of a bundle as they are verified.
type Sink interface {
	// Blob begins the content of b. A nil writer means that it is not needed;
	// it is verified all the same.
	Blob(b *bundle.Blob) (BlobWriter, error)
}

// A BlobWriter takes one content. What is written is not verified until Commit;
// Abort is called instead when it is refused or cannot be read.
type BlobWriter interface {
	io.Writer
	Commit() error
	Abort() error
}

// Result is what [Check] found. After a refusal it holds what was read until
// then, and no Verdict.
type Result struct {
	Verdict      *ledger.Verdict
	Manifest     *manifests.Bundle // nil until its signatures were verified
	Raw          []byte            // stella.toml
	Digest       string            // of Raw
	Signatures   []bundle.Attached
	Attestations []bundle.Attached
	Absent       []string // blobs that the file leaves out and the site holds
	FileSHA256   string   // of the bytes read
	FileBytes    int64    // how many: the offset, after a refusal
	// Next is what a bundle of kind trust puts in force, with its files; nil
	// where it changes nothing, and of other kinds.
	Next      *Trust
	NextFiles Files
	// TrustedTime is that of [Signed.TrustedTime]; the verdict carries it too.
	TrustedTime time.Time

	trust    *Trust  // that it was judged under
	opt      Options // likewise
	attested bool    // all attestations were read
	ended    bool    // the container was read to its end
	judged   bool    // everything but the contents was admitted
	floors   *Floors // that it was judged by

	epoch int64
}

// Check reads and judges a bundle in the order that the package comment gives,
// and hands each verified content to sink; with a nil sink contents are
// verified and dropped. A refusal is a [*RejectError], with a Result of what was
// read. Nothing that sink was given counts before Check returns nil: the last
// byte of the file can refuse it.
func Check(r io.Reader, t *Trust, opt Options, sink Sink) (*Result, error) {
	in := bundle.NewReader(r, opt.Limits)
	c := &checking{Reader: in, trust: t, opt: opt, sink: sink, res: &Result{trust: t, opt: opt}}
	err := c.run()
	c.res.FileSHA256, c.res.FileBytes = in.FileSHA256(), in.Offset()
	if err != nil {
		c.res.Verdict = nil
		return c.res, refusal(err)
	}
	return c.res, nil
}

// refusal turns a broken rule of the container into a refusal.
func refusal(err error) error {
	var f *bundle.FormatError
	if errors.As(err, &f) {
		return reject(f.Reason, f.Entry, "%s", f.Detail).because(f)
	}
	return err
}

// checking is one Check under way.
type checking struct {
	*bundle.Reader
	trust *Trust
	opt   Options
	sink  Sink
	res   *Result
	again bool              // it was admitted before
	taken map[string][]byte // contents of a bundle of kind trust
}

func (c *checking) run() error {
	if c.opt.Now.IsZero() {
		return errors.New("verify: Check needs Now")
	}
	head, err := c.Head()
	if err != nil {
		return err
	}
	c.res.Raw, c.res.Digest, c.res.Signatures = head.Manifest, bundle.Digest(head.Manifest), head.Signatures
	signed, err := c.trust.Signatures(head.Manifest, head.Signatures, c.opt.Now)
	if err != nil {
		return err
	}
	c.res.TrustedTime = signed.TrustedTime()
	m, err := parseManifest(head.Manifest)
	if err != nil {
		return err
	}
	c.res.Manifest = m
	j, err := c.judge(m, signed)
	if err != nil {
		return err
	}
	var have func(string) bool
	if c.opt.Have != nil {
		have = func(sha256 string) bool { return c.opt.Have(m, sha256) }
	}
	if err := c.Bind(m, have); err != nil {
		return err
	}
	if err := c.attestations(j); err != nil {
		return err
	}
	if c.res.Verdict, err = j.verdict(); err != nil {
		return err
	}
	c.res.epoch, c.res.judged = j.epoch(), true
	if err := c.blobs(); err != nil {
		return err
	}
	c.res.Absent = c.Reader.Absent()
	if err := c.End(); err != nil {
		return err
	}
	c.res.ended = true
	return c.successor(m)
}

func (c *checking) judge(m *manifests.Bundle, signed *Signed) (*judgement, error) {
	in := Input{Manifest: m, Signed: signed, SiteID: c.opt.SiteID, Stella: c.opt.Stella, Now: c.opt.Now}
	if c.opt.Floors != nil {
		floors, err := c.opt.Floors(m, signed.digest)
		if err != nil {
			return nil, fmt.Errorf("verify: floors: %w", err)
		}
		in.Floors, c.res.floors, c.again = &floors, &floors, floors.Admitted
	}
	return c.trust.judgeManifest(in)
}

func (c *checking) attestations(j *judgement) error {
	for {
		a, err := c.NextAttestation()
		if errors.Is(err, io.EOF) {
			c.res.attested = true
			return nil
		}
		if err != nil {
			return err
		}
		c.res.Attestations = append(c.res.Attestations, a)
		if err := j.attest(a); err != nil {
			return err
		}
	}
}

func (c *checking) blobs() error {
	for {
		b, err := c.NextBlob()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.blob(b); err != nil {
			return err
		}
	}
}

func (c *checking) blob(b *bundle.Blob) error {
	if c.res.Manifest.Kind == manifests.KindTrust && c.opt.Files != nil {
		return c.trustBlob(b)
	}
	return c.copyBlob(b, nil)
}

// copyBlob verifies a content and hands it to the sink, and to also, if it is
// not nil.
func (c *checking) copyBlob(b *bundle.Blob, also io.Writer) error {
	var w BlobWriter
	if c.sink != nil {
		var err error
		if w, err = c.sink.Blob(b); err != nil {
			return fmt.Errorf("blob %s: %w", b.SHA256, err)
		}
	}
	var to io.Writer = io.Discard
	if w != nil {
		to = w
	}
	if also != nil {
		to = io.MultiWriter(to, also)
	}
	if w == nil {
		return b.CopyTo(to, c.opt.Spool)
	}
	if err := b.CopyTo(to, c.opt.Spool); err != nil {
		return errors.Join(err, w.Abort())
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("blob %s: %w", b.SHA256, err)
	}
	return nil
}

// FileSize is how large the file was found to be; FileBytes of it were read.
func (r *Result) FileSize() int64 { return r.opt.Limits.Size }

// Admission is the entry for the ledger, once Check accepted.
func (r *Result) Admission() *ledger.BundleAdmission {
	a := &ledger.BundleAdmission{
		Verdict: *r.Verdict, FileSHA256: r.FileSHA256, FileBytes: r.FileBytes,
		ContentDigest: r.Manifest.ContentDigest, Epoch: r.epoch,
	}
	for _, s := range r.Signatures {
		a.Signatures = append(a.Signatures, bundle.Digest(s.Data))
	}
	for _, at := range r.Attestations {
		a.Attestations = append(a.Attestations, at.ID)
	}
	for _, f := range r.Manifest.Files {
		a.Blobs++
		a.Bytes += f.Size
	}
	return a
}

// Rejection is the entry for the ledger of a refusal by err, nil if err is none.
func (r *Result) Rejection(err error) *ledger.BundleRejection {
	var refused *RejectError
	if !errors.As(err, &refused) {
		return nil
	}
	return &ledger.BundleRejection{Reason: string(refused.Reason), FileSHA256: r.FileSHA256, Offset: r.FileBytes, Digest: r.Digest}
}
