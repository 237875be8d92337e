package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
)

// maxSecretInput is what is read of a value: one byte more than is taken, and a
// line end.
const maxSecretInput = 64<<10 + 3

func newSecretCmd(a *app) *cobra.Command {
	return group("secret", "Values that steps are given as files",
		"Keep passwords, tokens and keys for steps. A value is encrypted to the site's own age key and\n"+
			"is never shown again: not by a command, not in the ledger, not in logs or exports. A step is\n"+
			"given a secret if its DAG names it, the action's manifest asks for it, and the policy grants\n"+
			"it to that plugin, DAG and tenant (stella trust add --secret). Secrets belong to a tenant.",
		newSecretSetCmd(a), newSecretRotateCmd(a), newSecretListCmd(a), newSecretUsesCmd(a), newSecretRemoveCmd(a))
}

// secretOptions are the flags of secret set and rotate.
type secretOptions struct{ from, reason string }

func (o *secretOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.from, "from", "-", "`FILE` with the value, - for stdin; one line end at its end is not part of it")
	c.Flags().StringVar(&o.reason, "reason", "", "`TEXT` for the record; not the value")
}

func newSecretSetCmd(a *app) *cobra.Command {
	var opt secretOptions
	c := &cobra.Command{
		Use:   "set NAME",
		Short: "Keep a new secret",
		Long: "Keep a value from a file or stdin, 6 bytes to 64 KiB. It never comes from the command line,\n" +
			"which others can read. One line end at its end, LF or CRLF, is not part of the value; a second\n" +
			"one is. A secret that is there is not overwritten: rotate it.",
		Example: "  stella secret set db --from /run/credentials/db\n  printf %s \"$PASSWORD\" | stella secret set db",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runSecretAdd(c.Context(), a, args[0], opt, func(ctx context.Context, r *reached, req api.SecretRequest) (api.Secret, error) {
				return r.SetSecret(ctx, req)
			})
		},
	}
	opt.flags(c)
	return c
}

func newSecretRotateCmd(a *app) *cobra.Command {
	var opt secretOptions
	c := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a secret a new value",
		Long: "Keep a new version of a secret. Attempts that start from now on get it; those under way keep\n" +
			"what they were given. `stella secret uses` says which DAGs and runs are concerned; old versions\n" +
			"stay until they are removed, and are given to nobody.",
		Example: "  stella secret rotate db --from new-password && stella secret uses db",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runSecretAdd(c.Context(), a, args[0], opt, func(ctx context.Context, r *reached, req api.SecretRequest) (api.Secret, error) {
				return r.RotateSecret(ctx, req)
			})
		},
	}
	opt.flags(c)
	return c
}

type secretAdd func(context.Context, *reached, api.SecretRequest) (api.Secret, error)

func runSecretAdd(ctx context.Context, a *app, name string, opt secretOptions, add secretAdd) error {
	value, err := a.secretValue(opt.from)
	if err != nil {
		return err
	}
	defer clear(value)
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		s, err := add(ctx, r, api.SecretRequest{Name: name, Value: value, Reason: opt.reason})
		if err != nil {
			return err
		}
		return a.acted(false, s, func(out *screen) { renderSecret(out, s) })
	})
}

// secretValue reads a value, without the line end at its end.
func (a *app) secretValue(from string) (api.SecretValue, error) {
	var raw []byte
	var err error
	if from != "-" {
		if raw, err = fsx.ReadFile(from, maxSecretInput); err != nil {
			return nil, fileError(from, err)
		}
	} else {
		if f, ok := a.stdin.(*os.File); ok && isTerminal(f) {
			return nil, &api.Error{Code: api.CodeInvalid, Message: "a terminal would show the value",
				Hint: "give --from FILE, or pipe it: printf %s \"$PASSWORD\" | stella secret set NAME"}
		}
		if raw, err = io.ReadAll(io.LimitReader(a.stdin, maxSecretInput)); err != nil {
			return nil, fmt.Errorf("stdin: %w", err)
		}
	}
	if n := len(raw); n > 0 && raw[n-1] == '\n' {
		raw = raw[:n-1]
		if n > 1 && raw[n-2] == '\r' {
			raw = raw[:n-2]
		}
	}
	return raw, nil
}

func granted(list []api.SecretGrant) string {
	var out []string
	for _, g := range list {
		for _, p := range g.Plugins {
			out = append(out, g.Publisher+"/"+p+" in "+strings.Join(g.DAGs, ", "))
		}
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, "; ")
}

func lastUse(s api.Secret) string {
	if s.LastUsed == nil {
		return "-"
	}
	return seconds(s.LastUsed.TimeUTC) + " " + s.LastUsed.DAGID + " " + s.LastUsed.StepID
}

func since(s api.Secret) string {
	if len(s.Versions) == 0 {
		return "-"
	}
	return seconds(s.Versions[len(s.Versions)-1].SinceUTC)
}

// newestOf is the version that attempts are given, with how many older ones are here.
func newestOf(s api.Secret) string {
	switch n := len(s.Versions); n {
	case 0:
		return "removed"
	case 1:
		return strconv.FormatInt(s.Version, 10)
	default:
		return fmt.Sprintf("%d (and %d older)", s.Version, n-1)
	}
}

func renderSecret(out *screen, s api.Secret) {
	out.fields("secret", s.Name, "version", newestOf(s), "since", since(s), "granted to", granted(s.Granted), "last used", lastUse(s))
}

func newSecretListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List secrets",
		Long: "List the secrets of the tenant: the version that steps are given, since when, to which plugins\n" +
			"in which DAGs the policy grants it, and when a step was given it last. Never a value.",
		Example: "  stella secret list\n  stella secret list --output ndjson",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runSecretList(c.Context(), a) },
	}
}

type secretList struct {
	Secrets []api.Secret `json:"secrets"`
}

func runSecretList(ctx context.Context, a *app) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		list, err := r.ListSecrets(ctx)
		if err != nil {
			return err
		}
		return emitList(a, secretList{list}, list, []string{"SECRET", "VERSION", "SINCE", "LAST USED", "GRANTED TO"}, func(s api.Secret) []string {
			return []string{s.Name, newestOf(s), since(s), lastUse(s), granted(s.Granted)}
		})
	})
}

func newSecretUsesCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "uses NAME",
		Short: "Show what has to do with a secret",
		Long: "Show which published DAG versions name a secret, and which runs and attempts were given which\n" +
			"version of it: what to run again after it was rotated.",
		Example: "  stella secret uses db\n  stella secret uses db --output json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runSecretUses(c.Context(), a, args[0]) },
	}
}

func runSecretUses(ctx context.Context, a *app, name string) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		uses, err := r.SecretUses(ctx, name)
		if err != nil {
			return err
		}
		return a.emit(uses, func(s *screen) { renderSecretUses(s, uses) })
	})
}

func renderSecretUses(s *screen, uses api.SecretUses) {
	rows := make([][]string, len(uses.DAGs))
	for i, d := range uses.DAGs {
		steps := strings.Join(d.Steps, ", ")
		rows[i] = []string{d.DAGID, d.DAGVersion, strconv.FormatBool(d.Enabled), orDash(steps), strconv.FormatInt(d.Attempts, 10), orDash(seconds(d.LastUTC))}
	}
	s.table([]string{"DAG", "VERSION", "ENABLED", "STEPS", "ATTEMPTS", "LAST"}, rows)
	if len(uses.Attempts) == 0 {
		return
	}
	rows = make([][]string, len(uses.Attempts))
	for i, u := range uses.Attempts {
		outcome := orDash(strings.TrimSpace(u.Outcome + " " + u.ErrorCode))
		rows[i] = []string{u.RunID, u.RunStatus, u.StepID + "#" + strconv.Itoa(u.Attempt), strconv.FormatInt(u.Version, 10), seconds(u.TimeUTC), outcome}
	}
	s.printf("\n")
	s.table([]string{"RUN", "STATUS", "ATTEMPT", "SECRET VERSION", "TIME", "OUTCOME"}, rows)
	if uses.More > 0 {
		s.printf("and %d older\n", uses.More)
	}
}

func newSecretRemoveCmd(a *app) *cobra.Command {
	var req api.SecretRemoval
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a version of a secret, or all",
		Long: "Remove the encrypted file of one version, or of all. The newest that is left is given to steps\n" +
			"from then on; without one, attempts that need it are refused (SECRET_MISSING). The record of\n" +
			"what was used when stays. Without --yes it asks.",
		Example: "  stella secret remove db --version 1\n  stella secret remove db --all --reason decommissioned --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req.Name = args[0]
			return runSecretRemove(c.Context(), a, req)
		},
	}
	f := c.Flags()
	f.Int64Var(&req.Version, "version", 0, "`N` of the version that goes")
	f.BoolVar(&req.All, "all", false, "all versions")
	f.StringVar(&req.Reason, "reason", "", "`TEXT` for the record")
	f.BoolVar(&req.DryRun, "dry-run", false, "only say what would go")
	c.MarkFlagsMutuallyExclusive("version", "all")
	c.MarkFlagsOneRequired("version", "all")
	return c
}

func runSecretRemove(ctx context.Context, a *app, req api.SecretRemoval) error {
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		if !req.DryRun {
			what := fmt.Sprintf("Remove version %d of the secret %s?", req.Version, req.Name)
			if req.All {
				what = "Remove all versions of the secret " + req.Name + "?"
			}
			if err := a.confirm(what); err != nil {
				return err
			}
		}
		rep, err := r.RemoveSecret(ctx, req)
		if err != nil {
			return err
		}
		return a.acted(rep.DryRun, rep, func(s *screen) {
			removed := "removed"
			if rep.DryRun {
				removed = "would be removed"
			}
			s.fields("secret", rep.Secret.Name, removed, count(len(rep.Removed), "version", "versions"), "version", newestOf(rep.Secret))
		})
	})
}
