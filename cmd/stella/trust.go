package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// siteTrust is the trust of a site that this process holds.
type siteTrust struct {
	engine *engine.Engine
	who    api.Principal
}

var _ api.Trust = siteTrust{}

// ShowTrust implements [api.Trust].
func (t siteTrust) ShowTrust(context.Context) (api.TrustReport, error) {
	ref, policy, err := t.engine.Trust()
	return api.TrustReport{Trust: ref, Policy: string(policy)}, err
}

// AddTrust implements [api.Trust].
func (t siteTrust) AddTrust(ctx context.Context, add api.TrustAddition) (api.TrustReport, error) {
	from, err := optionalStamp(add.ValidFrom)
	if err != nil {
		return api.TrustReport{}, err
	}
	until, err := optionalStamp(add.ValidUntil)
	if err != nil {
		return api.TrustReport{}, err
	}
	kinds := make([]manifests.Kind, len(add.Kinds))
	for i, k := range add.Kinds {
		kinds[i] = manifests.Kind(k)
	}
	_, err = t.engine.AddTrust(ctx, t.who.Name, engine.TrustAdd{
		Publisher: add.Publisher, KeyPEM: []byte(add.Key), Kinds: kinds, Names: add.Names, Threshold: add.Threshold,
		Level: add.Level, ValidFrom: from, ValidUntil: until, HostRead: add.HostRead, Interpreters: add.Interpreters, RootKey: add.RootKey,
	})
	if err != nil {
		return api.TrustReport{}, err
	}
	return t.ShowTrust(ctx)
}

// optionalStamp reads a time that may be absent.
func optionalStamp(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := stamp.Parse(s)
	if err != nil {
		return time.Time{}, invalid("%v", err)
	}
	return t, nil
}

func newTrustCmd(a *app) *cobra.Command {
	return group("trust", "Whom the site believes",
		"Show and change the policy: which publishers may bring what, and by which keys.",
		newTrustShowCmd(a), newTrustAddCmd(a))
}

func newTrustShowCmd(a *app) *cobra.Command {
	var text bool
	c := &cobra.Command{
		Use:     "show",
		Short:   "Show the policy in force",
		Long:    "Show the publishers of the policy in force, with their keys. --text prints policy.toml itself.",
		Example: "  stella trust show\n  stella trust show --text",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runTrustShow(c.Context(), a, text) },
	}
	c.Flags().BoolVar(&text, "text", false, "print the exact policy.toml")
	return c
}

func runTrustShow(ctx context.Context, a *app, text bool) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		report, err := r.ShowTrust(ctx)
		if err != nil {
			return err
		}
		if text {
			a.stdout.exact([]byte(report.Policy))
			return nil
		}
		return renderTrust(a, report)
	})
}

func renderTrust(a *app, report api.TrustReport) error {
	policy, err := manifests.ParsePolicy("policy.toml", []byte(report.Policy))
	if err != nil {
		return err
	}
	return a.emit(report, func(s *screen) {
		s.fields(
			"root", fmt.Sprintf("version %d, sha256:%s", report.Trust.RootVersion, report.Trust.Root),
			"policy", fmt.Sprintf("serial %d, sha256:%s", report.Trust.PolicySerial, report.Trust.Policy),
			"next update", seconds(stamp.Format(policy.NextUpdate)),
		)
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
	})
}

// publisherRows is a row for each key and identity of a publisher.
func publisherRows(p manifests.Publisher) [][]string {
	var signers []string
	for _, k := range p.Keys {
		id := "a key that cannot be read"
		if pub, err := verify.ParsePublicKey([]byte(k.PEM)); err == nil {
			id = verify.KeyID(pub)
		}
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

// trustAddOptions are the flags of trust add.
type trustAddOptions struct {
	key, from, until string
	add              api.TrustAddition
}

func newTrustAddCmd(a *app) *cobra.Command {
	var opt trustAddOptions
	c := &cobra.Command{
		Use:   "add PUBLISHER",
		Short: "Add a publisher, or a further key of one",
		Long: "Add to the policy and sign it with the root's key: a publisher with the kinds and name\n" +
			"prefixes that it may bring, or a further key of one that is there. The new policy has\n" +
			"the next serial and is in force at once; the ledger records it.",
		Example: "  stella trust add acme --key acme.pub --kind plugin,dag,data --name acme.,audit\n" +
			"  stella trust add acme --key acme-2.pub --threshold 2 --root-key /media/root.key",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opt.add.Publisher = args[0]
			return runTrustAdd(c.Context(), a, opt)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.key, "key", "", "`FILE` with the public key of the publisher, PEM (required)")
	f.StringSliceVar(&opt.add.Kinds, "kind", nil, "`KINDS` of bundles: plugin, dag, data, trust, secrets")
	f.StringSliceVar(&opt.add.Names, "name", nil, "`PREFIXES` of bundle names")
	f.IntVar(&opt.add.Threshold, "threshold", 0, "`N` signers that a bundle needs (1 for a new publisher)")
	f.StringVar(&opt.add.Level, "level", "", "`LEVEL`, enforce or audit (enforce for a new publisher)")
	f.StringVar(&opt.from, "valid-from", "", "`TIME` before which the key is not valid")
	f.StringVar(&opt.until, "valid-until", "", "`TIME` after which the key is not valid")
	f.StringSliceVar(&opt.add.HostRead, "host-read", nil, "host `PATHS` that its plugins may read")
	f.StringSliceVar(&opt.add.Interpreters, "interpreter", nil, "`PROGRAMS` of the host that its scripts may name, such as /bin/sh")
	f.StringVar(&opt.add.RootKey, "root-key", "", "`FILE` with the private key of the root (default keys/root.key in the home)")
	_ = c.MarkFlagRequired("key")
	return c
}

func runTrustAdd(ctx context.Context, a *app, opt trustAddOptions) error {
	pem, err := fsx.ReadFile(opt.key, 64<<10)
	if err != nil {
		return fileError(opt.key, err)
	}
	add := opt.add
	add.Key = string(pem)
	for _, t := range []struct {
		flag string
		to   *string
	}{{opt.from, &add.ValidFrom}, {opt.until, &add.ValidUntil}} {
		if t.flag == "" {
			continue
		}
		at, err := parseTime(t.flag)
		if err != nil {
			return err
		}
		*t.to = stamp.Format(at)
	}
	if add.RootKey != "" {
		if add.RootKey, err = absolute(add.RootKey); err != nil {
			return err
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		report, err := r.AddTrust(ctx, add)
		if err != nil {
			return err
		}
		return renderTrust(a, report)
	})
}
