package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

func newTrustCmd(a *app) *cobra.Command {
	return group("trust", "Whom the site believes",
		"Show and change what the site believes: which publishers may bring what and by which keys,\n"+
			"what is revoked, and who may change that. A site that is its own root signs with its key;\n"+
			"a fleet's trust comes in signed bundles.",
		newTrustShowCmd(a), newTrustAddCmd(a), newTrustRenewCmd(a), newTrustRotateCmd(a), newTrustRevokeCmd(a), newTrustImportCmd(a),
		newTrustBreakGlassCmd(a), newTrustWaiveCmd(a), newTrustAcceptTimeCmd(a), newTrustSignCmd(a))
}

func newTrustShowCmd(a *app) *cobra.Command {
	var text string
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the trust in force",
		Long: "Show the root with its roles, the publishers of the policy with their signers, and what is\n" +
			"revoked. --text prints one of the files itself: root, policy, revocations or extension.",
		Example: "  stella trust show\n  stella trust show --text policy",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runTrustShow(c.Context(), a, text) },
	}
	c.Flags().StringVar(&text, "text", "", "print the exact text of one `FILE`: root, policy, revocations or extension")
	_ = c.RegisterFlagCompletionFunc("text", cobra.FixedCompletions([]string{"root", "policy", "revocations", "extension"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runTrustShow(ctx context.Context, a *app, text string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		report, err := r.ShowTrust(ctx)
		if err != nil {
			return err
		}
		if text == "" {
			return renderTrust(a, report)
		}
		exact, ok := map[string]string{
			"root": report.Root, "policy": report.Policy, "revocations": report.Revocations, "extension": report.Extension,
		}[text]
		switch {
		case !ok:
			return invalid("--text is root, policy, revocations or extension, not %q", text)
		case exact == "":
			return &api.Error{Code: api.CodeNotFound, Message: "there is no " + text + ".toml in force"}
		}
		a.stdout.exact([]byte(exact))
		return a.stdout.err
	})
}

// trustEdited says what trust is after it was changed.
func trustEdited(a *app, report api.TrustReport) error {
	if a.silent(report.DryRun) {
		a.warn(report.Warnings)
		return nil
	}
	return renderTrust(a, report)
}

func renderTrust(a *app, report api.TrustReport) error {
	root, err := manifests.ParseRoot("root.toml", []byte(report.Root))
	if err != nil {
		return err
	}
	policy, err := manifests.ParsePolicy("policy.toml", []byte(report.Policy))
	if err != nil {
		return err
	}
	revs := new(manifests.Revocations)
	if report.Revocations != "" {
		if revs, err = manifests.ParseRevocations("revocations.toml", []byte(report.Revocations)); err != nil {
			return err
		}
	}
	a.warn(report.Warnings)
	if report.DryRun {
		a.stderr.note("dry run: nothing was changed")
	}
	return a.emit(report, func(s *screen) {
		facts := []string{
			"root", fmt.Sprintf("version %d until %s, sha256:%s", root.Version, seconds(stamp.Format(root.Expires)), report.Trust.Root),
			"policy", fmt.Sprintf("serial %d until %s, sha256:%s", policy.Serial, seconds(stamp.Format(policy.NextUpdate)), bundle.Digest([]byte(report.Policy))),
		}
		if report.Revocations != "" {
			facts = append(facts, "revocations", fmt.Sprintf("serial %d until %s, %d revoked, sha256:%s",
				revs.Serial, seconds(stamp.Format(revs.NextUpdate)), len(revs.Revoked), bundle.Digest([]byte(report.Revocations))))
		}
		for _, role := range slices.Sorted(maps.Keys(root.Roles)) {
			r := root.Roles[role]
			facts = append(facts, "role "+role, fmt.Sprintf("%d of %s", r.Threshold, strings.Join(keyIDs(r.Keys), ", ")))
		}
		if report.Ended > 0 {
			facts = append(facts, "ended", count(report.Ended, "attempt", "attempts")+" that it no longer allows")
		}
		if report.RootKey != "" {
			facts = append(facts, "root key", report.RootKey)
		}
		s.fields(facts...)
		renderPolicy(s, policy)
		renderRevocations(s, revs)
		renderRefused(s, report.Refused)
	})
}

func renderPolicy(s *screen, policy *manifests.Policy) {
	if len(policy.Publishers) == 0 {
		s.printf("\nNobody is trusted yet: stella trust add\n")
		return
	}
	var rows [][]string
	for _, p := range policy.Publishers {
		rows = append(rows, publisherRows(p)...)
	}
	s.printf("\n")
	s.table([]string{"PUBLISHER", "LEVEL", "SIGNERS", "KINDS", "NAMES", "KEY OR IDENTITY"}, rows)
}

func renderRevocations(s *screen, revs *manifests.Revocations) {
	if len(revs.Revoked) == 0 {
		return
	}
	var rows [][]string
	for _, v := range revs.Revoked {
		what, name := "identity", v.SAN+" by "+v.Issuer
		for kind, id := range map[string]string{"key": v.Key, "manifest": v.Manifest, "blob": v.Blob} {
			if id != "" {
				what, name = kind, id
			}
		}
		from := "the beginning"
		if !v.From.IsZero() {
			from = seconds(stamp.Format(v.From))
		}
		rows = append(rows, []string{what, name, from, v.Reason})
	}
	s.printf("\n")
	s.table([]string{"REVOKED", "WHICH", "FROM", "REASON"}, rows)
}

func renderRefused(s *screen, refused []api.RefusedBundle) {
	if len(refused) == 0 {
		return
	}
	var rows [][]string
	for _, b := range refused {
		rows = append(rows, []string{b.Ref, short(b.Digest), b.Reason})
	}
	s.printf("\n")
	s.table([]string{"NO LONGER ALLOWED", "DIGEST", "REASON"}, rows)
}

// keyIDs are the ids of keys in PEM.
func keyIDs(pems []string) []string {
	out := make([]string, len(pems))
	for i, pem := range pems {
		out[i] = "a key that cannot be read"
		if pub, err := verify.ParsePublicKey([]byte(pem)); err == nil {
			out[i] = verify.KeyID(pub)
		}
	}
	return out
}

// warn says what is about to end.
func (a *app) warn(warnings []string) {
	for _, w := range warnings {
		a.stderr.note("warning: %s", w)
	}
}

// publisherRows is a row for each key and identity of a publisher.
func publisherRows(p manifests.Publisher) [][]string {
	var signers []string
	for _, k := range p.Keys {
		id := keyIDs([]string{k.PEM})[0]
		if !k.ValidUntil.IsZero() {
			id += " until " + seconds(stamp.Format(k.ValidUntil))
		}
		signers = append(signers, id)
	}
	for _, i := range p.Identities {
		signers = append(signers, i.SAN+i.SANRegexp+" by "+i.Issuer)
	}
	kinds := make([]string, len(p.Kinds))
	for i, k := range p.Kinds {
		kinds[i] = string(k)
	}
	rows := make([][]string, len(signers))
	for i, signer := range signers {
		rows[i] = []string{"", "", "", "", "", signer}
		if i == 0 {
			rows[i] = []string{p.Name, p.Level, strconv.Itoa(p.Threshold), strings.Join(kinds, ","), strings.Join(p.Names, ","), signer}
		}
	}
	return rows
}
