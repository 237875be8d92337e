package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// judgeOptions are the flags of bundle verify.
type judgeOptions struct {
	asOf   string
	trust  string // folder; "" asks the site
	siteID string
}

func runBundleVerify(ctx context.Context, a *app, file string, opt judgeOptions) error {
	if opt.trust != "" {
		return verifyOutside(ctx, a, file, opt)
	}
	if opt.siteID != "" {
		return invalid("--site-id goes with --trust: a site knows its own id")
	}
	req := api.VerifyRequest{}
	if opt.asOf != "" {
		t, err := parseTime(opt.asOf)
		if err != nil {
			return err
		}
		req.AsOf = stamp.Format(t)
	}
	var err error
	if req.Path, err = absolute(file); err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		v, err := r.VerifyBundle(ctx, req, a.progressOf("verifying"))
		if err != nil {
			return err
		}
		return emitVerdict(a, v)
	})
}

// verifyOutside judges under a folder of trust files, without a site.
func verifyOutside(ctx context.Context, a *app, file string, opt judgeOptions) error {
	out := engine.Outside{SiteID: opt.siteID, Stella: version, Now: a.now()}
	var err error
	if opt.asOf != "" {
		if out.Now, err = parseTime(opt.asOf); err != nil {
			return err
		}
	}
	if out.Trust, out.Files, err = loadTrustDir(opt.trust); err != nil {
		return err
	}
	v, err := out.VerifyBundle(ctx, file, a.progressOf("verifying"))
	if err != nil && opt.asOf != "" {
		err = engine.JudgedAsOf(err, out.Now)
	}
	if err != nil {
		return err
	}
	return emitVerdict(a, v)
}

// loadTrustDir loads trust files, and says what is wrong with them.
func loadTrustDir(dir string) (*verify.Trust, *verify.Files, error) {
	t, files, err := engine.LoadTrustDir(dir)
	switch {
	case err == nil:
		return t, files, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("%s: %v", dir, err),
			Hint: "--trust takes a folder like trust/ of a site: root/1.toml and policy.toml, each with its .signatures"}
	}
	lines := strings.Split(err.Error(), "\n") // faults are lines
	return nil, nil, &api.Error{Code: api.CodeInvalid, Message: dir + ": " + lines[0], Faults: lines[1:],
		Hint: "look at one file of it with: stella bundle inspect " + filepath.Join(dir, "policy.toml")}
}

// emitVerdict prints a verdict in full.
func emitVerdict(a *app, v ledger.Verdict) error {
	return a.emit(v, func(s *screen) {
		facts := []string{"bundle", v.Publisher + "/" + v.Name + "@" + v.Version, "kind", v.Kind, "decision", v.Decision, "digest", "sha256:" + v.Digest}
		s.fields(append(facts, verdictFacts(v)...)...)
	})
}

// verdictFacts are who vouched for a bundle, under which trust, and what was
// checked.
func verdictFacts(v ledger.Verdict) []string {
	var out []string
	for _, x := range v.Signers {
		who := "key " + x.ID
		if x.Flow == verify.FlowCertificate {
			who = x.SAN + " by " + x.Issuer
		}
		out = append(out, "signed by", who)
	}
	for _, id := range v.Ignored {
		out = append(out, "ignored", "signature of the unknown key "+id)
	}
	out = append(out, "signers", count(len(v.Signers), "counts", "count")+", "+count(v.Threshold, "is demanded", "are demanded"))
	for _, x := range v.Attestations {
		out = append(out, "attestation", "sha256:"+x)
	}
	for _, x := range v.Softened {
		out = append(out, "softened", x)
	}
	if v.TrustedTime != "" {
		out = append(out, "signed at", seconds(v.TrustedTime))
	}
	return append(append(out, "judged at", seconds(v.Now), "checks", strings.Join(v.Checks, ", ")), trustFacts(v.Trust)...)
}

// trustFacts name the trust files of a judgement.
func trustFacts(t ledger.TrustRef) []string {
	out := []string{
		"root", fmt.Sprintf("version %d, sha256:%s", t.RootVersion, t.Root),
		"policy", fmt.Sprintf("serial %d, sha256:%s", t.PolicySerial, t.Policy),
	}
	if t.Revocations != "" {
		out = append(out, "revocations", "serial "+strconv.FormatInt(t.RevocationSerial, 10)+", sha256:"+t.Revocations)
	}
	if t.TrustedRoot != "" {
		out = append(out, "trusted root", "sha256:"+t.TrustedRoot)
	}
	return out
}

// renderJudgement prints a judgement check by check, then signer by signer.
func renderJudgement(s *screen, r *api.Report) {
	var rows [][]string
	for _, c := range r.Checks {
		rows = append(rows, []string{c.Name, strings.ReplaceAll(c.State, "_", " "), join(": ", c.Reason, c.Detail)})
	}
	s.table([]string{"CHECK", "RESULT", "WHY"}, rows)
	rows = nil
	for _, x := range r.Signatures {
		rows = append(rows, signerRows("signature", x)...)
	}
	for _, x := range r.Attestations {
		rows = append(rows, signerRows("attestation", x)...)
	}
	if len(rows) > 0 {
		s.printf("\n")
		s.table([]string{"", "BY", "RESULT", "WHY OR POLICY LINE"}, rows)
	}
	if len(r.Demands) > 0 {
		s.printf("\nThe policy demands of this publisher:\n")
		for _, d := range r.Demands {
			s.printf("  %s\n", d)
		}
	}
}

// decided is what a report came to, and what level audit let pass for that.
func decided(r *api.Report) string {
	out := join(" ", r.Decision, r.Reason)
	if len(r.Softened) > 0 {
		out += " (level audit lets pass: " + strings.Join(r.Softened, ", ") + ")"
	}
	return out
}

// signerRows are what became of a signature, and a line for each entry of the
// policy that names its signer or comes near.
func signerRows(what string, x api.SignerReport) [][]string {
	who := x.SAN
	if who == "" {
		who = short(x.ID)
	}
	rows := [][]string{{what, who, strings.ReplaceAll(x.State, "_", " "), join(": ", x.Reason, x.Detail)}}
	for _, l := range x.Lines {
		at := l.File
		if l.Line > 0 {
			at += ":" + strconv.Itoa(l.Line)
		}
		text := at + ": " + l.Entry
		if !l.Matches {
			text += ", does not match: " + l.Why
		}
		rows = append(rows, []string{"", "", "", text})
	}
	return rows
}

// join joins what is not empty.
func join(sep string, parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, sep)
}
