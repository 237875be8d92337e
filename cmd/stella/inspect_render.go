package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/stellarun/stella/verify"
)

func (in *inspected) render(s *screen) {
	s.fields(in.facts()...)
	if len(in.Findings) > 0 {
		s.printf("\nFound:\n")
		for _, f := range in.Findings {
			in.renderFinding(s, f)
		}
	}
	for _, t := range in.TrustFiles {
		renderTrustFile(s, t)
	}
	in.renderAuthorities(s)
	if in.Report != nil {
		s.printf("\nBy the trust at hand, at %s: %s\n\n", seconds(in.Report.Now), decided(in.Report))
		renderJudgement(s, in.Report)
	} else if len(in.Signatures) > 0 {
		s.printf("\nSigners are as the file says; a site or --trust verifies them: stella bundle verify\n")
	}
	for _, d := range in.Demands {
		renderDemand(s, d)
	}
	if in.described != nil && len(in.Files) > 0 {
		rows := make([][]string, len(in.Files))
		for i, f := range in.Files {
			rows[i] = []string{f.Mode, strconv.FormatInt(f.Size, 10), short(f.SHA256), f.Path}
		}
		s.printf("\n")
		s.table([]string{"MODE", "SIZE", "SHA256", "PATH"}, rows)
	}
}

// facts are what the file is.
func (in *inspected) facts() []string {
	var out []string
	switch {
	case in.described != nil && in.Name != "":
		out = append(out, "bundle", in.Publisher+"/"+in.Name+"@"+in.Version, "kind", in.Kind)
	default:
		out = append(out, "file", in.File, "what", in.What)
		if in.What == whatUnknown {
			out = append(out, "looks like", in.LooksLike)
		}
	}
	if d := in.described; d != nil {
		out = append(out, "digest", "sha256:"+d.Digest)
		if d.Name != "" {
			out = append(out, "sequence", strconv.FormatInt(d.Sequence, 10), "created", seconds(d.Created), "not before", seconds(d.NotBefore),
				"expires", seconds(d.Expires), "size", fmt.Sprintf("%s in %d files", size(in.Bytes), len(d.Files)))
		}
		out = append(out, "container", in.container())
		for _, x := range d.Audience {
			out = append(out, "audience", x)
		}
		if len(d.Absent) > 0 {
			out = append(out, "left out", fmt.Sprintf("%d contents: this is a delta", len(d.Absent)))
		}
		if in.manifest != nil && in.manifest.Trust != nil && len(in.TrustFiles) == 0 {
			out = append(out, "trust files", "compressed: shown where --trust or a site admits the bundle")
		}
		if len(in.Signatures) == 0 && in.What == whatBundle && len(in.Findings) == 0 {
			out = append(out, "signed by", "nobody: stella bundle sign")
		}
	}
	for _, f := range in.Facts {
		out = append(out, f[0], f[1])
	}
	if in.Key != nil {
		out = append(out, "id", in.Key.ID, "curve", in.Key.Curve)
	}
	if in.What == whatPrivateKey {
		out = append(out, "secret", "this is a private key: it signs, and belongs on no stick")
	}
	for _, x := range in.Signatures {
		out = append(out, "signed by", claimOf(x))
		out = append(out, claimTimes(x)...)
	}
	for _, x := range in.Attestations {
		out = append(out, "attested by", claimOf(x), "predicate", x.PredicateType)
		out = append(out, claimTimes(x)...)
	}
	return append(out, "sha256", in.hash())
}

// hash is the hash of the file, or of how much of it was read.
func (in *inspected) hash() string {
	if in.SHA256 == "" || in.Bytes == in.Size {
		return in.SHA256
	}
	return fmt.Sprintf("%s of the first %d bytes of %d", in.SHA256, in.Bytes, in.Size)
}

func (in *inspected) container() string {
	switch {
	case in.What == whatManifest:
		return "none"
	case in.evidence.Damage != nil:
		return fmt.Sprintf("damaged at byte %d: %s", in.evidence.Damage.Offset, in.evidence.Damage.Reason)
	case in.manifest == nil:
		return "not compared, since stella.toml cannot be read"
	}
	return "ok"
}

// claimOf is who a file says to have signed.
func claimOf(d *verify.Description) string {
	if d.Flow == verify.FlowCertificate {
		return fmt.Sprintf("san %q issuer %q, certificate of %s from %s until %s", d.SAN, d.Issuer, d.CA, seconds(d.NotBefore), seconds(d.NotAfter))
	}
	return "key " + d.ID
}

// claimTimes are the log entries and timestamps of a file.
func claimTimes(d *verify.Description) []string {
	var out []string
	for _, e := range d.Entries {
		at := ""
		if e.Time != "" {
			at = " at " + seconds(e.Time)
		}
		out = append(out, "logged", fmt.Sprintf("%s, entry %d of log %s%s", e.Kind, e.Index, e.LogID, at))
	}
	for _, at := range d.TimesGiven {
		if at == "" {
			at = "at a time that cannot be read"
		}
		out = append(out, "timestamp", seconds(at))
	}
	return out
}

func (in *inspected) renderFinding(s *screen, f finding) {
	s.printf("  %s\n", join(": ", f.Reason, f.Entry, f.Detail))
	if f.Offset > 0 {
		s.printf("    at byte %d\n", f.Offset)
	}
	for _, x := range f.Faults {
		s.printf("    %s\n", x)
	}
	if f.Hint != "" {
		s.printf("    hint: %s\n", f.Hint)
	}
}

func renderTrustFile(s *screen, t *inspectedTrust) {
	s.printf("\n")
	facts := []string{"trust file", t.File}
	for _, f := range t.Facts {
		facts = append(facts, f[0], f[1])
	}
	facts = append(facts, "sha256", t.SHA256)
	if len(t.Signatures) == 0 {
		facts = append(facts, "signed by", "nobody: "+t.File+".signatures holds no signature")
	}
	for _, x := range t.Signatures {
		who := "key " + x.ID + ", " + x.State
		if len(x.Roles) > 0 {
			who += ", roles " + strings.Join(x.Roles, ", ")
		}
		facts = append(facts, "signed by", who)
	}
	s.fields(facts...)
	if len(t.Rows) > 0 {
		s.printf("\n")
		s.table(t.Header, t.Rows)
	}
}

func (in *inspected) renderAuthorities(s *screen) {
	var rows [][]string
	for _, a := range in.TrustedRoot {
		row := []string{a.Kind, a.URI, seconds(a.From), seconds(a.Until), a.Fault}
		for _, p := range a.Pins {
			row[4] = join(" ", p.SPKI, p.Subject)
			rows = append(rows, row)
			row = []string{"", "", seconds(p.From), seconds(p.Until), ""}
		}
		if len(a.Pins) == 0 {
			rows = append(rows, row)
		}
	}
	if len(rows) > 0 {
		s.printf("\n")
		s.table([]string{"KIND", "URI", "FROM", "UNTIL", "PIN (SHA-256 OF THE SPKI) AND SUBJECT"}, rows)
	}
}

func renderDemand(s *screen, d demanded) {
	if d.Refused != "" {
		s.printf("\nDo not add the signer %s: %s\n", d.Signer, d.Refused)
		return
	}
	what := "To believe the signer "
	if d.Attester {
		what = "To demand attestations of "
	}
	s.printf("\n%s%s", what, d.Signer)
	for _, l := range d.Lines {
		if l.Matches {
			at := l.File
			if l.Line > 0 {
				at += ":" + strconv.Itoa(l.Line)
			}
			s.printf(" (named at %s: %s)", at, l.Entry)
		}
	}
	s.printf(":\n")
	if d.Command != "" {
		s.printf("  %s\n", d.Command)
	}
	for line := range strings.Lines(d.TOML) {
		s.printf("  %s\n", strings.TrimSuffix(line, "\n"))
	}
	if d.Note != "" {
		s.printf("  (%s)\n", d.Note)
	}
}
