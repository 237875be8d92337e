package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// signatureFolder is where the signatures of a trust file lie, beside it.
const (
	signatureFolder = ".signatures"
	signatureFile   = ".sigstore.json"
)

// breakGlassOptions are the flags of trust break-glass.
type breakGlassOptions struct {
	until, reason, file, out string
	keys                     []string
	dryRun                   bool
}

func newTrustBreakGlassCmd(a *app) *cobra.Command {
	var opt breakGlassOptions
	c := &cobra.Command{
		Use:   "break-glass",
		Short: "Go on for a while with trust that has expired",
		Long: "Where trust has expired and nothing newer can be had, enough holders of the root's\n" +
			"break_glass role can put the end off: for this site, for exactly the files in force, and\n" +
			"for no longer than the root allows. The ledger records who and why, and every verdict\n" +
			"that rests on it says so. Newer trust files end it.\n\n" +
			"With the keys at hand it is one command. Otherwise --out writes the text, each holder\n" +
			"signs it with stella trust sign, and --file puts it in force.",
		Example: "  stella trust break-glass --reason \"ten days from port\" --until 2027-03-15 \\\n" +
			"      --key captain.key --key engineer.key\n" +
			"  stella trust break-glass --reason \"ten days from port\" --out extension.toml\n" +
			"  stella trust sign extension.toml --key captain.key\n" +
			"  stella trust break-glass --file extension.toml",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runBreakGlass(c.Context(), a, opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.until, "until", "", "`TIME` until which it lasts (default: as long as the root allows)")
	f.StringVar(&opt.reason, "reason", "", "`TEXT` that is signed and recorded")
	f.StringArrayVar(&opt.keys, "key", nil, "`FILE` with a private key of the role; may be given again")
	f.StringVar(&opt.out, "out", "", "`FILE` to write the text to, for others to sign")
	f.StringVar(&opt.file, "file", "", "`FILE` with a text that others have signed")
	f.BoolVar(&opt.dryRun, "dry-run", false, "judge it, or print the text, and change nothing")
	c.MarkFlagsMutuallyExclusive("file", "reason")
	c.MarkFlagsMutuallyExclusive("file", "out")
	c.MarkFlagsMutuallyExclusive("out", "key")
	c.MarkFlagsOneRequired("file", "reason")
	return c
}

func runBreakGlass(ctx context.Context, a *app, opt breakGlassOptions) error {
	draft := api.TrustExtension{Reason: opt.reason}
	var err error
	if draft.Until, err = stampFlag(opt.until); err != nil {
		return err
	}
	if opt.out != "" {
		if err := absent(opt.out); err != nil {
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		x := api.TrustExtension{DryRun: opt.dryRun}
		var err error
		if opt.file != "" {
			x.Text, x.Signatures, err = readSigned(opt.file)
		} else {
			var report api.TrustReport
			report, err = r.ExtendTrust(ctx, draft)
			x.Text = report.Extension
		}
		if err != nil {
			return err
		}
		if opt.file == "" && len(opt.keys) == 0 {
			return a.writeDraft(opt, x.Text)
		}
		if err := a.signWith(&x, opt.keys); err != nil {
			return err
		}
		if !opt.dryRun {
			if err := a.confirm("Go on with expired trust? It is recorded, and every verdict says so."); err != nil {
				return err
			}
		}
		report, err := r.ExtendTrust(ctx, x)
		if err != nil {
			return err
		}
		return a.extended(report)
	})
}

// writeDraft gives the text to those who are to sign it.
func (a *app) writeDraft(opt breakGlassOptions, text string) error {
	if opt.out == "" {
		a.stdout.exact([]byte(text))
		return a.stdout.err
	}
	if err := fsx.WriteFile(opt.out, []byte(text), fsx.ByUmask(0o666)); err != nil {
		return fileError(opt.out, err)
	}
	a.stderr.note("next: stella trust sign %s --key FILE, by each holder; then stella trust break-glass --file %s", opt.out, opt.out)
	return a.acted(false, map[string]string{"path": opt.out, "sha256": bundle.Digest([]byte(text))}, func(s *screen) {
		s.fields("file", opt.out, "sha256", bundle.Digest([]byte(text)))
	})
}

// extended says until when trust goes on.
func (a *app) extended(report api.TrustReport) error {
	x, err := manifests.ParseExtension("extension.toml", []byte(report.Extension))
	if err != nil {
		return err
	}
	if report.DryRun {
		a.stderr.note("dry run: nothing was changed")
	}
	return a.acted(report.DryRun, report, func(s *screen) {
		s.fields("extended until", seconds(stamp.Format(x.Until)), "reason", x.Reason, "extension", "sha256:"+bundle.Digest([]byte(report.Extension)))
	})
}

// signWith adds signatures by keys that are at hand.
func (a *app) signWith(x *api.TrustExtension, keys []string) error {
	for _, path := range keys {
		sig, err := a.signText([]byte(x.Text), path)
		if err != nil {
			return err
		}
		if x.Signatures == nil {
			x.Signatures = map[string]string{}
		}
		x.Signatures[sig.ID] = string(sig.Data)
	}
	return nil
}

func (a *app) signText(raw []byte, keyFile string) (bundle.Attached, error) {
	key, err := a.privateKey(keyFile)
	if err != nil {
		return bundle.Attached{}, err
	}
	return verify.SignManifest(raw, key)
}

// readSigned reads a trust file with the signatures beside it.
func readSigned(file string) (text string, sigs map[string]string, err error) {
	raw, err := fsx.ReadFile(file, manifests.MaxBytes)
	if err != nil {
		return "", nil, fileError(file, err)
	}
	dir := file + signatureFolder
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, &api.Error{Code: api.CodeInvalid, Message: file + " is not signed: there is no folder " + dir,
			Hint: "stella trust sign " + file + " --key FILE"}
	}
	if err != nil {
		return "", nil, fileError(dir, err)
	}
	if len(entries) > bundle.MaxSignatures {
		return "", nil, invalid("%s holds more than %d files", dir, bundle.MaxSignatures)
	}
	sigs = map[string]string{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), signatureFile)
		if !ok {
			return "", nil, invalid("%s is not a signature file", filepath.Join(dir, e.Name()))
		}
		sig, err := fsx.ReadFile(filepath.Join(dir, e.Name()), bundle.MaxSignature)
		if err != nil {
			return "", nil, fileError(filepath.Join(dir, e.Name()), err)
		}
		sigs[id] = string(sig)
	}
	return string(raw), sigs, nil
}

func newTrustSignCmd(a *app) *cobra.Command {
	var keys []string
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a trust file as one of its roles",
		Long: "Sign root.toml, policy.toml, revocations.toml or extension.toml with a key of the role that\n" +
			"is asked for it. The signature goes into FILE.signatures/, beside those of others, where\n" +
			"stella bundle pack takes it along. No site is needed. The file is checked first.",
		Example: "  stella trust sign policy.toml --key policy-officer.key",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runTrustSign(a, args[0], keys) },
	}
	c.Flags().StringArrayVar(&keys, "key", nil, "`FILE` with a private key, PKCS#8 PEM on P-256; may be given again (required)")
	_ = c.MarkFlagRequired("key")
	return c
}

func runTrustSign(a *app, file string, keys []string) error {
	raw, err := fsx.ReadFile(file, manifests.MaxBytes)
	if err != nil {
		return fileError(file, err)
	}
	if err := parseTrustFile(file, raw); err != nil {
		return faulty(file, err)
	}
	dir := file + signatureFolder
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fileError(dir, err)
	}
	var written []string
	for _, k := range keys {
		sig, err := a.signText(raw, k)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, sig.ID+signatureFile)
		if err := fsx.WriteFile(path, sig.Data, fsx.ByUmask(0o666)); err != nil {
			return fileError(path, err)
		}
		written = append(written, sig.ID)
	}
	return a.acted(false, map[string]any{"path": file, "sha256": bundle.Digest(raw), "signatures": written}, func(s *screen) {
		facts := []string{"file", file, "sha256", bundle.Digest(raw)}
		for _, id := range written {
			facts = append(facts, "signature of", "key "+id)
		}
		s.fields(facts...)
	})
}

// parseTrustFile checks a file of any of the languages that roles sign.
func parseTrustFile(file string, raw []byte) error {
	parsers := map[string]func(string, []byte) error{
		manifests.RootSchema:        func(f string, b []byte) error { _, err := manifests.ParseRoot(f, b); return err },
		manifests.PolicySchema:      func(f string, b []byte) error { _, err := manifests.ParsePolicy(f, b); return err },
		manifests.RevocationsSchema: func(f string, b []byte) error { _, err := manifests.ParseRevocations(f, b); return err },
		manifests.ExtensionSchema:   func(f string, b []byte) error { _, err := manifests.ParseExtension(f, b); return err },
	}
	for schema, parse := range parsers {
		if strings.HasPrefix(string(raw), "schema = \""+schema+"\"\n") {
			return parse(file, raw)
		}
	}
	return invalid("%s is none of root.toml, policy.toml, revocations.toml and extension.toml: its first line says which", file)
}

func newTrustWaiveCmd(a *app) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "waive FLOOR",
		Short: "Go on without a floor that was lost",
		Long: "A site refuses everything when a copy of its newest checkpoint is gone, since nobody could\n" +
			"tell whether its ledger is the newest one. This goes on without that copy, by its name:\n" +
			"the path of checkpoint_copies in site.toml, or checkpoint.note. It is recorded, and the\n" +
			"copy is made anew. A copy that says something else than the ledger cannot be waived.",
		Example: "  stella trust waive /mnt/auditor/checkpoint.note --reason \"the auditor's disk broke\"",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runTrustWaive(c.Context(), a, args[0], reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that is recorded (required)")
	_ = c.MarkFlagRequired("reason")
	return c
}

func runTrustWaive(ctx context.Context, a *app, floor, reason string) error {
	if err := a.confirm("Go on without the floor " + floor + "? An older ledger could not be told from the newest."); err != nil {
		return err
	}
	opt := engine.Options{Mode: engine.ModeCommand, Waive: &engine.Waiver{Floor: floor, Reason: reason, Actor: server.LocalPrincipal(os.Getuid())}}
	return a.reach(ctx, opt, func(ctx context.Context, r *reached) error {
		if r.held == nil {
			if _, err := r.Status(ctx); err != nil {
				return err // nobody holds it: then it is opened here
			}
			return &api.Error{Code: api.CodeConflict, Message: "another process holds the site, and has found its floors whole when it opened it",
				Hint: "stop it, and waive the floor then: stella daemon stop"}
		}
		return a.acted(false, map[string]string{"waived": floor}, func(s *screen) { s.fields("waived", floor) })
	})
}

func newTrustAcceptTimeCmd(a *app) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "accept-time TIME",
		Short: "Accept a clock that is far from the record",
		Long: "Nothing is judged or written while the clock of the machine is behind the ledger, or far\n" +
			"ahead of it (max_gap in site.toml). Where the clock is right and the record is not, type\n" +
			"the time that another clock shows: it must be that of the machine to ten minutes. It is\n" +
			"recorded.",
		Example: "  stella trust accept-time 2027-06-01T08:00:00Z --reason \"laid up over the winter\"",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runAcceptTime(c.Context(), a, args[0], reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that is recorded (required)")
	_ = c.MarkFlagRequired("reason")
	return c
}

func runAcceptTime(ctx context.Context, a *app, text, reason string) error {
	at, err := parseTime(text)
	if err != nil {
		return err
	}
	t := api.TimeAcceptance{Time: stamp.Format(at), Reason: reason}
	opt := engine.Options{Mode: engine.ModeCommand, Accept: &engine.Acceptance{TimeAcceptance: t, Actor: server.LocalPrincipal(os.Getuid())}}
	return a.reach(ctx, opt, func(ctx context.Context, r *reached) error {
		if r.held == nil { // otherwise it was accepted when the site was opened
			if err := r.AcceptTime(ctx, t); err != nil {
				return err
			}
		}
		return a.acted(false, map[string]string{"accepted": t.Time}, func(s *screen) { s.fields("accepted", t.Time) })
	})
}
