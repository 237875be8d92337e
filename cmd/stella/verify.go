package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

const (
	maxKeyFile   = 64 << 10
	digestPrefix = "sha256:"
)

// blobOptions are the flags of stella verify.
type blobOptions struct {
	bundle, key, trustedRoot  string // files
	identity, pattern, issuer string
	predicateType, asOf       string
	noLog, noSCT              bool
}

func newVerifyCmd(a *app) *cobra.Command {
	var opt blobOptions
	c := &cobra.Command{
		Use:   "verify FILE|sha256:HEX",
		Short: "Verify a Sigstore signature over any file",
		Long: "Verify a signature over a file, or with --predicate-type an attestation about it: a Sigstore\n" +
			"bundle v0.3, as cosign writes it. FILE may be of any size, and - is stdin; a digest needs no\n" +
			"file. No site and no network are needed, and no trust is looked for: what is believed is\n" +
			"given here, and never depends on what the signature brings. Each file that is named is\n" +
			"a regular one: links, pipes and <(process substitution) are refused, --key and --bundle\n" +
			"included, since they can wait for ever or change between two looks.\n\n" +
			"With --trusted-root there must be one log entry and one trusted time, and for certificates\n" +
			"one certificate timestamp. Less must be asked for by name: --no-log takes the time from a\n" +
			"timestamp authority, and with --key alone goes without; --no-sct is for authorities without\n" +
			"a certificate log. A log entry or timestamp that would not be verified is refused.\n\n" +
			"Exit 0 verified, 5 refused, 1 if no judgement was reached. --output json has \"verdict\":\n" +
			"\"VERIFIED\" and what was verified, or on stderr the refusal. A signal ends it at once.",
		Example: "  stella verify app.tar --bundle app.sigstore.json --key release.pub --no-log\n" +
			"  stella verify app.tar --bundle app.sigstore.json --trusted-root root.json \\\n" +
			"    --certificate-identity release@acme.test --certificate-oidc-issuer https://issuer.test\n" +
			"  stella verify sha256:5f2c… --bundle sbom.sigstore.json --key release.pub --no-log \\\n" +
			"    --predicate-type https://cyclonedx.org/bom",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runVerify(a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.bundle, "bundle", "", "`FILE` with the signature or attestation (required)")
	f.StringVar(&opt.key, "key", "", "`FILE` with the public key that must have signed, PEM")
	f.StringVar(&opt.identity, "certificate-identity", "", "`IDENTITY` that must have signed, exactly as the certificate has it")
	f.StringVar(&opt.pattern, "certificate-identity-regexp", "", "`PATTERN` of the whole identity that must have signed")
	f.StringVar(&opt.issuer, "certificate-oidc-issuer", "", "`URL` of the issuer that must have vouched for the identity, exactly")
	f.StringVar(&opt.trustedRoot, "trusted-root", "", "`FILE` with the trusted_root.json of the Sigstore that is believed")
	f.BoolVar(&opt.noLog, "no-log", false, "demand no log entry")
	f.BoolVar(&opt.noSCT, "no-sct", false, "demand no certificate timestamp")
	f.StringVar(&opt.predicateType, "predicate-type", "", "`URI` of what is stated about the file: demand an attestation")
	f.StringVar(&opt.asOf, "as-of", "", "`TIME` of the judgement (default: now)")
	_ = c.MarkFlagRequired("bundle")
	return c
}

// verified is what stella verify prints. Scripts look for the verdict.
type verified struct {
	Verdict string `json:"verdict"`
	*verify.BlobVerdict
}

const verdictVerified = "VERIFIED" // the only verdict: all else is a refusal

func runVerify(a *app, what string, opt blobOptions) error {
	now := a.now()
	if opt.asOf != "" {
		var err error
		if now, err = parseTime(opt.asOf); err != nil {
			return err
		}
	}
	policy, err := opt.policy()
	if err != nil {
		return err
	}
	v, err := verify.NewBlobVerifier(policy)
	if err != nil {
		return policyError(err)
	}
	sig, err := fsx.ReadFile(opt.bundle, v.Limit())
	if errors.Is(err, fsx.ErrTooLarge) { // refused as such, not as a fault of the disk
		sig, err = make([]byte, v.Limit()+1), nil
	}
	if err != nil {
		return fileError(opt.bundle, err)
	}
	blob, done, err := a.blob(what)
	if err != nil {
		return err
	}
	defer done()
	verdict, err := v.Verify(sig, blob, now)
	if err != nil {
		err = verifyError(what, opt.bundle, err)
		if opt.asOf != "" {
			err = engine.JudgedAsOf(err, now)
		}
		return err
	}
	return a.emit(verified{verdictVerified, verdict}, func(s *screen) { renderBlob(s, verdict) })
}

// policy reads the files that say what is believed.
func (opt *blobOptions) policy() (verify.BlobPolicy, error) {
	p := verify.BlobPolicy{
		SAN: opt.identity, SANRegexp: opt.pattern, Issuer: opt.issuer,
		NoLog: opt.noLog, NoSCT: opt.noSCT, PredicateType: opt.predicateType,
	}
	var err error
	if opt.key != "" {
		if p.Key, err = publicKey(opt.key); err != nil {
			return p, err
		}
	}
	if opt.trustedRoot == "" {
		return p, nil
	}
	if p.TrustedRoot, err = fsx.ReadFile(opt.trustedRoot, verify.MaxTrustedRoot); err != nil {
		return p, fileError(opt.trustedRoot, err)
	}
	if len(p.TrustedRoot) == 0 {
		return p, invalid("%s is empty", opt.trustedRoot)
	}
	return p, nil
}

// blob opens what was signed; the caller calls the function once.
func (a *app) blob(what string) (verify.Blob, func(), error) {
	if digest, ok := strings.CutPrefix(what, digestPrefix); ok {
		return verify.Blob{SHA256: digest}, func() {}, nil
	}
	r := &watched{r: a.stdin, progress: a.progressOf("verifying")}
	if what == "-" {
		return verify.Blob{Content: r}, func() {}, nil
	}
	f, err := fsx.OpenRegular(what)
	if err != nil {
		return verify.Blob{}, nil, fileError(what, err)
	}
	if info, err := f.Stat(); err == nil {
		r.total = info.Size()
	}
	r.r = f
	return verify.Blob{Content: r}, func() { _ = f.Close() }, nil // it was only read
}

// watched is a reader that tells how far it is.
type watched struct {
	r           io.Reader
	progress    api.Progress // may be nil
	done, total int64
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.done += int64(n)
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
	return n, err
}

// policyError is a policy that cannot be judged by, as a fault of the command
// line.
func policyError(err error) error {
	var p *verify.PolicyError
	if !errors.As(err, &p) {
		return err
	}
	hint := p.Hint
	if hint == "" {
		hint = "stella verify --help"
	}
	return &api.Error{Code: api.CodeInvalid, Message: p.Text, Hint: hint}
}

// verifyError is a refusal, or why there was no judgement.
func verifyError(what, file string, err error) error {
	var refused *verify.RejectError
	if errors.As(err, &refused) {
		return &api.Error{
			Code: api.Code(refused.Reason), Message: fmt.Sprintf("%s: %s: %v", what, file, refused), Hint: refused.Hint,
			Refusal: &api.Refusal{
				Reason: string(refused.Reason), Stage: string(verify.StageOf(refused.Reason)), Subject: file, Detail: refused.Detail, Hint: refused.Hint,
			},
		}
	}
	var policy *verify.PolicyError
	if errors.As(err, &policy) {
		return policyError(err)
	}
	return fileError(what, err)
}

func renderBlob(s *screen, v *verify.BlobVerdict) {
	facts := []string{"verdict", verdictVerified, "sha256", v.SHA256}
	if v.Bytes > 0 {
		facts = append(facts, "bytes", strconv.FormatInt(v.Bytes, 10))
	}
	who := "key " + v.KeyID
	if v.Flow == verify.FlowCertificate {
		who = v.SAN + " by " + v.Issuer
	}
	facts = append(facts, "signed by", who, "states", v.PredicateType)
	for _, t := range v.TrustedTimes {
		facts = append(facts, "signed at", seconds(t.Time)+" says the "+strings.ReplaceAll(t.By, "-", " "))
	}
	s.fields(append(facts, "checked", strings.Join(v.Checks, ", "))...)
}
