package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newRootCmd makes all commands, or verify alone where the arguments ask for it.
func newRootCmd(a *app, args ...string) *cobra.Command {
	c := group("stella", "Run signed work on a machine without a network, and keep the evidence",
		"stella admits signed bundles, runs the DAGs in them, records every step in an\n"+
			"append-only ledger, and exports evidence that others can verify. It uses no network:\n"+
			"everything comes and goes as files, but for the webhooks that site.toml may name.\n\n"+
			"Commands find their site by --home. Where a daemon or another command holds the\n"+
			"site, they speak to it through its socket; otherwise they open it themselves.")
	c.SilenceErrors, c.SilenceUsage = true, true
	c.CompletionOptions.DisableDefaultCmd = true
	c.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		err := notEmpty(cmd) // before defaults take the place of what was given
		if resolved := a.resolve(); err == nil {
			err = resolved
		}
		return err
	}
	c.SetOut(a.stdout.w)
	c.SetErr(a.stderr.w)
	c.SetIn(a.stdin)
	c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		_ = a.resolve() // so that the error comes in the form that was asked for
		return usage(cmd, err)
	})
	a.addGlobalFlags(c)
	if isVerify(args) {
		c.AddCommand(newVerifyCmd(a))
	} else {
		c.AddCommand(allCommands(a)...)
	}
	describeArgs(a, c)
	return c
}

func allCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newInitCmd(a), newStatusCmd(a), newDaemonCmd(a),
		newBundleCmd(a), newVerifyCmd(a), newTrustCmd(a), newOrchCmd(a), newSecretCmd(a), newSessionCmd(a), newWorkspaceCmd(a), newLockCmd(a),
		newLedgerCmd(a), newExportCmd(a), newMaintenanceCmd(a),
		newVersionCmd(a), newCompletionCmd(a),
	}
}

// group is a command that only holds others. Without arguments it prints its
// help; an unknown word is an error, which cobra alone would let pass.
func group(use, short, long string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				err = fmt.Errorf("%w; did you mean %q?", err, near[0])
			}
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(sub...)
	return c
}

// describeArgs makes every complaint about arguments name the help of its
// command.
func describeArgs(a *app, c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				_ = a.resolve()
				return usage(cmd, err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		describeArgs(a, sub)
	}
}

func newCompletionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Print the completion script of a shell",
		Long:      "Print a script that completes commands, flags and values: for bash, zsh or fish.",
		Example:   "  stella completion bash > /etc/bash_completion.d/stella",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			switch root, out := c.Root(), a.stdout.w; args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			default:
				return root.GenFishCompletion(out, true)
			}
		},
	}
}
