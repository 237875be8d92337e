package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
)

// maxTrustText bounds a trusted_root.json of the command line.
const maxTrustText = 4 << 20

// trustAddOptions are the flags of trust add.
type trustAddOptions struct {
	key, from, until, policy, trustedRoot string
	san, sanRegexp, issuer                string
	attestations, secrets                 []string
	add                                   api.TrustAddition
}

func newTrustAddCmd(a *app) *cobra.Command {
	var opt trustAddOptions
	c := &cobra.Command{
		Use:   "add [PUBLISHER]",
		Short: "Add a publisher, or a signer or demand of one",
		Long: "Add to the policy and sign it with the root's key: a publisher with the kinds and name\n" +
			"prefixes that it may bring, a further key or certificate identity, or what is demanded of\n" +
			"its signatures. --policy takes a whole policy.toml instead. The new policy has the next\n" +
			"serial and is in force at once; the ledger records it.",
		Example: "  stella trust add acme --secret db=default,probe,acme/nightly\n" +
			"  stella trust add acme --key acme.pub --kind plugin,dag,data --name acme.,audit\n" +
			"  stella trust add acme --key acme-2.pub --threshold 2 --root-key /media/root.key\n" +
			"  stella trust add acme --certificate-identity release@acme.example \\\n" +
			"      --certificate-oidc-issuer https://idp.acme.example \\\n" +
			"      --trusted-root trusted_root.json --require-tlog 1\n" +
			"  stella trust add acme --attestation https://slsa.dev/provenance/v1=builder.pub,https://build.acme.example",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				opt.add.Publisher = args[0]
			}
			if err := adds(c); err != nil {
				return err
			}
			return runTrustAdd(c.Context(), a, opt)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.policy, "policy", "", "`FILE` with a whole policy.toml, which is given the next serial and dates")
	f.StringVar(&opt.key, "key", "", "`FILE` with a public key of the publisher, PEM")
	f.StringVar(&opt.san, "certificate-identity", "", "`NAME` in a certificate of the publisher")
	f.StringVar(&opt.sanRegexp, "certificate-identity-regexp", "", "`RE2` that the whole name matches")
	f.StringVar(&opt.issuer, "certificate-oidc-issuer", "", "`ISSUER` of the identity")
	f.StringSliceVar(&opt.add.Kinds, "kind", nil, "`KINDS` of bundles: plugin, dag, data, secrets")
	f.StringSliceVar(&opt.add.Names, "name", nil, "`PREFIXES` of bundle names")
	f.IntVar(&opt.add.Threshold, "threshold", 0, "`N` signers that a bundle needs (1 for a new publisher)")
	f.StringVar(&opt.add.Level, "level", "", "`LEVEL`, enforce or audit (enforce for a new publisher)")
	f.StringVar(&opt.from, "valid-from", "", "`TIME` before which the key is not valid")
	f.StringVar(&opt.until, "valid-until", "", "`TIME` after which the key is not valid")
	f.IntVar(&opt.add.TLog, "require-tlog", 0, "`N` log entries that each signature needs")
	f.IntVar(&opt.add.Timestamps, "require-timestamps", 0, "`N` timestamps that each signature needs")
	f.IntVar(&opt.add.SCT, "require-sct", 0, "`N` certificate timestamps that each certificate needs")
	f.BoolVar(&opt.add.Audience, "require-audience", false, "bundles must say for which sites they are")
	f.StringArrayVar(&opt.attestations, "attestation", nil, "`TYPE=KEYFILE[,BUILDER]`: a predicate type that must be attested by that key")
	f.StringVar(&opt.trustedRoot, "trusted-root", "", "`FILE` trusted_root.json that certificates, logs and timestamps are checked against")
	f.StringVar(&opt.add.Network, "network", "", "`WHAT` its plugins may use: none or loopback")
	f.StringSliceVar(&opt.add.HostRead, "host-read", nil, "host `PATHS` that its plugins may read")
	f.StringSliceVar(&opt.add.Interpreters, "interpreter", nil, "`PROGRAMS` of the host that its scripts may name, such as /bin/sh")
	f.StringArrayVar(&opt.secrets, "secret", nil, "`NAME=TENANT,PLUGIN,DAG`: a secret that a plugin may be given in runs of a DAG (dag_id, or publisher/dag_id)")
	rootKeyFlags(c, &opt.add.RootKey, &opt.add.DryRun)
	c.MarkFlagsMutuallyExclusive("certificate-identity", "certificate-identity-regexp")
	return c
}

func rootKeyFlags(c *cobra.Command, rootKey *string, dryRun *bool) {
	c.Flags().StringVar(rootKey, "root-key", "", "`FILE` with the private key of the root (default keys/root.key in the home)")
	c.Flags().BoolVar(dryRun, "dry-run", false, "show what would be, and change nothing")
}

func runTrustAdd(ctx context.Context, a *app, opt trustAddOptions) error {
	add, err := opt.addition()
	if err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		report, err := r.AddTrust(ctx, add)
		if err != nil {
			return err
		}
		return trustEdited(a, report)
	})
}

// addition reads the files that the flags name.
func (opt *trustAddOptions) addition() (api.TrustAddition, error) {
	add := opt.add
	if (add.Publisher == "") == (opt.policy == "") {
		return add, invalid("name a publisher, or give a whole --policy")
	}
	for _, x := range []struct {
		path string
		most int64
		to   *string
	}{{opt.policy, manifests.MaxBytes, &add.Policy}, {opt.trustedRoot, maxTrustText, &add.TrustedRoot}} {
		if x.path == "" {
			continue
		}
		raw, err := fsx.ReadFile(x.path, x.most)
		if err != nil {
			return add, fileError(x.path, err)
		}
		*x.to = string(raw)
	}
	if opt.key != "" {
		raw, err := publicKey(opt.key)
		if err != nil {
			return add, err
		}
		add.Key = string(raw)
	}
	if (opt.san+opt.sanRegexp == "") != (opt.issuer == "") {
		return add, invalid("an identity is --certificate-identity or --certificate-identity-regexp, together with --certificate-oidc-issuer")
	}
	if opt.issuer != "" {
		add.Identity = &api.TrustIdentity{Issuer: opt.issuer, SAN: opt.san, SANRegexp: opt.sanRegexp}
	}
	for _, text := range opt.attestations {
		d, err := attestationDemand(text)
		if err != nil {
			return add, err
		}
		add.Attestations = append(add.Attestations, d)
	}
	for _, text := range opt.secrets {
		g, err := secretGrant(text)
		if err != nil {
			return add, err
		}
		add.Secrets = append(add.Secrets, g)
	}
	var err error
	if add.ValidFrom, err = stampFlag(opt.from); err != nil {
		return add, err
	}
	if add.ValidUntil, err = stampFlag(opt.until); err != nil {
		return add, err
	}
	return add, absoluteFlag(&add.RootKey)
}

// attestationDemand reads TYPE=KEYFILE[,BUILDER].
func attestationDemand(text string) (api.TrustAttestator, error) {
	i := strings.LastIndexByte(text, '=')
	if i <= 0 || i == len(text)-1 {
		return api.TrustAttestator{}, invalid("--attestation is TYPE=KEYFILE or TYPE=KEYFILE,BUILDER, not %q", text)
	}
	file, builder, _ := strings.Cut(text[i+1:], ",")
	raw, err := publicKey(file)
	if err != nil {
		return api.TrustAttestator{}, err
	}
	return api.TrustAttestator{PredicateType: text[:i], Keys: []string{string(raw)}, Builder: builder}, nil
}

// secretGrant reads NAME=TENANT,PLUGIN,DAG.
func secretGrant(text string) (api.TrustGrant, error) {
	name, rest, _ := strings.Cut(text, "=")
	parts := strings.Split(rest, ",")
	if name == "" || len(parts) != 3 {
		return api.TrustGrant{}, invalid("--secret is NAME=TENANT,PLUGIN,DAG, not %q", text)
	}
	return api.TrustGrant{Name: name, Tenant: parts[0], Plugin: parts[1], DAG: parts[2]}, nil
}

// stampFlag turns a time of the command line, "" where there is none, into our
// form.
func stampFlag(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	at, err := parseTime(text)
	if err != nil {
		return "", err
	}
	return stamp.Format(at), nil
}

// absoluteFlag makes a path of the command line good for another process.
func absoluteFlag(path *string) error {
	if *path == "" {
		return nil
	}
	abs, err := absolute(*path)
	*path = abs
	return err
}

func newTrustRenewCmd(a *app) *cobra.Command {
	add := api.TrustAddition{Renew: true}
	c := &cobra.Command{
		Use:   "renew",
		Short: "Sign policy and revocations anew before they run out",
		Long: "Sign policy and revocations as they are with the root's key, with the next serials and\n" +
			"dates from now on: for a site that is its own root, and warns that they are about to end.\n" +
			"A root that ends is rotated; a fleet's trust is renewed by bundles.",
		Example: "  stella trust renew --root-key /media/root.key",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := absoluteFlag(&add.RootKey); err != nil {
				return err
			}
			return a.withSite(c.Context(), func(ctx context.Context, r *reached) error {
				report, err := r.AddTrust(ctx, add)
				if err != nil {
					return err
				}
				return trustEdited(a, report)
			})
		},
	}
	rootKeyFlags(c, &add.RootKey, &add.DryRun)
	return c
}

// trustRotateOptions are the flags of trust rotate.
type trustRotateOptions struct {
	newKey  string
	overlap time.Duration
	r       api.TrustRotation
}

func newTrustRotateCmd(a *app) *cobra.Command {
	var opt trustRotateOptions
	c := &cobra.Command{
		Use:   "rotate root|PUBLISHER",
		Short: "Replace the root's key, or a key of a publisher",
		Long: "Replace a key. Of a publisher: the new key counts at once, and the old one until --overlap\n" +
			"has passed, so that both can sign meanwhile; a stolen key is revoked instead. Of the root:\n" +
			"the new key takes the old one's place in every role, both sign the next root, and the new\n" +
			"one signs policy and revocations anew. Without --new-root-key a key is made, and takes\n" +
			"the place of keys/root.key.",
		Example: "  stella trust rotate acme --new-key acme-2.pub --overlap 720h\n" +
			"  stella trust rotate root --new-root-key /media/root-2.key --root-key /media/root.key",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runTrustRotate(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.newKey, "new-key", "", "`FILE` with the new public key of the publisher, PEM")
	f.StringVar(&opt.r.OldKey, "old-key", "", "`ID` of the publisher's key that goes; needed where it has several")
	f.DurationVar(&opt.overlap, "overlap", 30*24*time.Hour, "`DURATION` for which both keys of the publisher count")
	f.StringVar(&opt.r.NewRootKey, "new-root-key", "", "`FILE` with the private key of the next root (default: one is made)")
	rootKeyFlags(c, &opt.r.RootKey, &opt.r.DryRun)
	return c
}

func runTrustRotate(ctx context.Context, a *app, who string, opt trustRotateOptions) error {
	r := opt.r
	switch {
	case who == "root" && (opt.newKey != "" || r.OldKey != ""):
		return invalid("--new-key and --old-key are for publishers; the root's next key is --new-root-key")
	case who != "root" && (opt.newKey == "" || r.NewRootKey != ""):
		return invalid("%s needs --new-key with its new public key", who)
	case who != "root":
		raw, err := publicKey(opt.newKey)
		if err != nil {
			return err
		}
		r.Publisher, r.NewKey, r.OverlapMs = who, string(raw), opt.overlap.Milliseconds()
	}
	for _, path := range []*string{&r.RootKey, &r.NewRootKey} {
		if err := absoluteFlag(path); err != nil {
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, s *reached) error {
		if who == "root" && !r.DryRun {
			if err := a.confirm("Replace the root's key? What the old key signs from now on counts for nothing."); err != nil {
				return err
			}
		}
		report, err := s.RotateTrust(ctx, r)
		if err != nil {
			return err
		}
		if report.RootKey != "" {
			a.stderr.note("the new %s signs this site's trust: move it off the site, and keep it safe", report.RootKey)
		}
		return trustEdited(a, report)
	})
}

func newTrustRevokeCmd(a *app) *cobra.Command {
	var r api.TrustRevocation
	var from string
	c := &cobra.Command{
		Use:   "revoke",
		Short: "Revoke a key, a bundle, a file or an identity",
		Long: "Add to the revocations and sign them with the root's key. From then on nothing that rests on\n" +
			"what is revoked is admitted or started, and attempts under way that do are ended. With\n" +
			"--from, signatures that a log or timestamp proves to be older stay good. A key that its role\n" +
			"cannot do without is replaced first, with trust rotate.",
		Example: "  stella trust revoke --key 9f86d081… --from 2026-11-01 --reason \"laptop stolen\"\n" +
			"  stella trust revoke --manifest sha256:… --reason \"wrong model\" --dry-run",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runTrustRevoke(c.Context(), a, r, from) },
	}
	f := c.Flags()
	f.StringVar(&r.Key, "key", "", "`ID` of a key: the SHA-256 of its SPKI")
	f.StringVar(&r.Manifest, "manifest", "", "`DIGEST` of a bundle")
	f.StringVar(&r.Blob, "blob", "", "`DIGEST` of a file in bundles")
	f.StringVar(&r.SAN, "certificate-identity", "", "`NAME` in certificates")
	f.StringVar(&r.Issuer, "certificate-oidc-issuer", "", "`ISSUER` of the identity")
	f.StringVar(&from, "from", "", "`TIME` from which it is revoked (default: from the beginning)")
	f.StringVar(&r.Reason, "reason", "", "`TEXT` that is recorded and shown to whoever is refused (required)")
	rootKeyFlags(c, &r.RootKey, &r.DryRun)
	_ = c.MarkFlagRequired("reason")
	c.MarkFlagsOneRequired("key", "manifest", "blob", "certificate-identity")
	c.MarkFlagsMutuallyExclusive("key", "manifest", "blob", "certificate-identity")
	c.MarkFlagsRequiredTogether("certificate-identity", "certificate-oidc-issuer")
	return c
}

func runTrustRevoke(ctx context.Context, a *app, r api.TrustRevocation, from string) error {
	for _, digest := range []*string{&r.Key, &r.Manifest, &r.Blob} {
		*digest = strings.TrimPrefix(*digest, "sha256:")
	}
	var err error
	if r.From, err = stampFlag(from); err != nil {
		return err
	}
	if err := absoluteFlag(&r.RootKey); err != nil {
		return err
	}
	return a.withSite(ctx, func(ctx context.Context, s *reached) error {
		if !r.DryRun && !a.opt.yes {
			plan := r
			plan.DryRun = true
			report, err := s.RevokeTrust(ctx, plan)
			if err != nil {
				return err
			}
			if err := a.confirm(fmt.Sprintf("Revoke it? %s refused from then on, and attempts that use them end.", count(len(report.Refused), "admitted bundle is", "admitted bundles are"))); err != nil {
				return err
			}
		}
		report, err := s.RevokeTrust(ctx, r)
		if err != nil {
			return err
		}
		return trustEdited(a, report)
	})
}

func newTrustImportCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Take in trust bundles: roots, policies, revocations",
		Long: "Judge bundles of kind trust and put in force what they bring: a next root, which the roots\n" +
			"before and after have signed, a policy or revocations with a higher serial. They are\n" +
			"signed by the roles of the root in force, and for this site or its fleet. What is no\n" +
			"longer allowed ends at once. Other bundles are refused here: stella bundle import takes\n" +
			"all kinds.",
		Example: "  stella trust import /media/stick/fleet-trust-7.stella",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runTrustImport(c.Context(), a, args) },
	}
}

func runTrustImport(ctx context.Context, a *app, files []string) error {
	for _, file := range files {
		path, err := absolute(file)
		if err != nil {
			return err
		}
		err = a.withSite(ctx, func(ctx context.Context, r *reached) error {
			res, err := r.ImportBundle(ctx, api.ImportRequest{Path: path, Kind: string(manifests.KindTrust)}, a.progressOf("importing"))
			if err != nil {
				return err
			}
			return a.trustImported(res)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// trustImported says what a trust bundle has changed.
func (a *app) trustImported(res api.ImportResult) error {
	a.warn(res.Warnings)
	return a.acted(false, res, func(s *screen) {
		v := res.Verdict
		what := "nothing: it was in force already, or is older"
		if res.TrustChanged {
			what = "trust is changed: stella trust show"
		}
		s.fields("bundle", v.Publisher+"/"+v.Name+"@"+v.Version, "digest", "sha256:"+v.Digest, "changed", what)
		if res.Ended > 0 {
			s.fields("ended", count(res.Ended, "attempt", "attempts")+" that it no longer allows")
		}
		renderRefused(s, res.Refused)
	})
}
