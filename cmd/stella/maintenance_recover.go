package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

func newRecoverCmd(a *app) *cobra.Command {
	var opt engine.RecoverOptions
	var accept string
	c := &cobra.Command{
		Use:   "recover",
		Short: "Go on with what is intact of a damaged ledger",
		Long: "Verify a ledger entry by entry, make a new ledger.db of the longest prefix that is intact, and\n" +
			"put it in the place of the damaged one, which is kept in replaced/. What can be read of later\n" +
			"entries is sealed as evidence, and never becomes part of the tree. The ledger goes on in a new\n" +
			"epoch, whose first entry says what was adopted. A ledger that is sound is left alone; where\n" +
			"trust/ is not what it names, that is made anew of sealed files, unless its files are newer:\n" +
			"then ledger.db may be a copy from before. Trust files in force that are lost in sealed/ are\n" +
			"sealed again. Look for a newer snapshot first: it may have more than the prefix.\n\n" +
			"A checkpoint.note, or a copy of it, that covers more than the prefix keeps the site closed\n" +
			"until it is waived by name (trust waive). Where runs are open the queue is paused. Where the\n" +
			"last entry is far from the clock, type the time that another clock shows (--accept-time).",
		Example: "  stella maintenance recover --dry-run\n  stella maintenance recover --reason \"bad sectors\"",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if opt.Accept, err = acceptedTime(accept); err != nil {
				return err
			}
			return runRecover(c.Context(), a, opt)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Reason, "reason", "", "`TEXT` that is recorded")
	f.Int64Var(&opt.Epoch, "epoch", 0, "`N` of the new epoch, where a higher one is known than the home tells")
	f.BoolVar(&opt.DryRun, "dry-run", false, "only say what is damaged, and what would be lost")
	f.StringVar(&accept, "accept-time", "", "`TIME` that another clock shows, where what is put back is far from the clock (recorded)")
	return c
}

func runRecover(ctx context.Context, a *app, opt engine.RecoverOptions) error {
	res, err := a.recoverLedger(ctx, opt)
	if err != nil {
		return err
	}
	return a.acted(opt.DryRun, res, func(s *screen) { renderRecovery(s, res) })
}

// recoverLedger recovers the ledger of the home, once somebody has agreed to what is lost.
func (a *app) recoverLedger(ctx context.Context, opt engine.RecoverOptions) (api.RecoveredLedger, error) {
	if err := a.needHome(); err != nil {
		return api.RecoveredLedger{}, err
	}
	if a.opt.apiURL != "" {
		return api.RecoveredLedger{}, notByAPI("recover")
	}
	if err := a.needOwner(); err != nil {
		return api.RecoveredLedger{}, err
	}
	opt.Home, opt.Actor, opt.Now = a.opt.home, server.LocalPrincipal(os.Getuid()), a.now
	if !opt.DryRun && !a.opt.yes {
		dry := opt
		dry.DryRun = true
		plan, err := engine.Recover(ctx, dry)
		if err == nil && plan.Sound && !plan.TrustAnew && plan.Resealed == 0 {
			plan.DryRun = false // that is what was asked for
			return plan, nil
		}
		if err == nil {
			renderRecovery(a.stderr, plan)
			question := "Go on with what is intact?"
			if plan.Sound {
				question = "Go on?"
			}
			err = a.confirm(question)
		}
		if err != nil && !cutOff(err) {
			return plan, err
		}
	}
	opt.Progress = a.progressOf("verifying")
	return engine.Recover(ctx, opt)
}

// cutOff says whether a restore or a recovery was cut off and has to be finished.
func cutOff(err error) bool {
	var known *api.Error
	return errors.As(err, &known) && known.Code == api.CodeRestoring
}

func renderRecovery(s *screen, r api.RecoveredLedger) {
	if r.Sound {
		kv := []string{"ledger", fmt.Sprintf("sound, %d entries; nothing was done", r.Size)}
		if r.TrustAnew || r.Resealed > 0 {
			kv[1] = fmt.Sprintf("sound, %d entries; nothing is done to it", r.Size)
		}
		if r.TrustAnew {
			kv = append(kv, "trust", "not what the ledger names: trust/ is made anew of sealed files")
		}
		if r.Resealed > 0 {
			kv = append(kv, "sealed again", count(int64(r.Resealed), "trust file that was", "trust files that were")+" lost or damaged in sealed/")
		}
		if r.Sealed > 0 {
			kv = append(kv, "also damaged", count(r.Sealed, "secret", "secrets")+" that cannot be read: ledger verify --full names the first, and what helps")
		}
		if r.Kept != "" {
			kv = append(kv, "kept", r.Kept)
		}
		s.fields(append(kv, newerTrust(r.Trust)...)...)
		return
	}
	var kv []string
	if r.Finished {
		kv = append(kv, "finished", cutOffWas(r.Snapshot == "", r.Snapshot))
	}
	if r.Untold {
		renderUntold(s, append(kv, "kept", r.Kept))
		return
	}
	if r.Snapshot == "" {
		kv = append(kv, damageFields(r)...)
	} else {
		kv = append(kv, "entries", strconv.FormatInt(r.Size, 10), "lost", lostOf(r.Known, r.Lost))
	}
	if r.Unread > 0 {
		kv = append(kv, "unread", unreadPages(r.Unread))
	}
	if r.Sealed > 0 {
		kv = append(kv, "also lost", count(r.Sealed, "small sealed file or secret", "small sealed files and secrets")+": ledger verify --full names them")
	}
	if r.Unsent > 0 {
		kv = append(kv, "unsent", count(r.Unsent, "event or sink", "events or sinks")+" (unreadable, or not what was written): what was to be offered may not be")
	}
	kv = append(kv, "origin", r.Origin)
	for _, x := range [][2]string{{"evidence", r.Evidence}, {"kept", r.Kept}, {"open runs", strings.Join(r.Runs, " ")}, {"asked again", strings.Join(r.Asked, " ")}} {
		if x[1] != "" {
			kv = append(kv, x[0], x[1])
		}
	}
	s.fields(slices.Concat(kv, newerTrust(r.Trust), stays(r.NewEpoch), erasedAgain(r.Erased, r.Unsure, r.Waits), willBe(r.NewEpoch))...)
	if r.DryRun {
		s.printf("nothing was changed\n")
		return
	}
	renderNext(s, r.Floors, r.Paused)
}

// damageFields say what is wrong with a ledger, and how far it is intact.
func damageFields(r api.RecoveredLedger) []string {
	return []string{"damage", cmp.Or(r.Damage, "sealed files in ledger.db"), "intact", strconv.FormatInt(r.Size, 10) + " entries",
		"lost", fmt.Sprintf("%d of %d entries that are known", r.Lost, r.Known), "readable", fmt.Sprintf("%d of these", r.Survived)}
}

// cutOffWas says what a restore or a recovery has finished.
func cutOffWas(recovery bool, snapshot string) string {
	if recovery {
		return "a recovery of the ledger that was cut off"
	}
	return "a restore that was cut off, of " + snapshot
}

// renderUntold says what is left to find out of what was finished.
func renderUntold(s *screen, kv []string) {
	s.fields(append(kv, "lost", "not known any more: stella ledger tail --type epoch.begun names what was adopted and the highest checkpoint")...)
	s.printf("next: stella status says whether a floor must be waived, then stella orch queue status whether the queue is paused\n")
}

// unreadPages says that what is lost is not all known.
func unreadPages(n int) string {
	return count(int64(n), "page", "pages") + " of ledger.db: more may be lost than is known"
}

// willBe are fields of a dry run: what will be left to do, as [renderNext] says it afterwards.
func willBe(r api.NewEpoch) (kv []string) {
	if r.DryRun && len(r.Floors) > 0 {
		kv = append(kv, "to waive", strings.Join(r.Floors, " "))
	}
	if r.DryRun && r.Paused {
		kv = append(kv, "queue", "will be paused: look at open runs and at schedules then")
	}
	return kv
}

// renderNext says what is to be done before a site goes on in a new epoch.
func renderNext(s *screen, floors []string, paused bool) {
	for _, f := range floors {
		s.printf("next: stella trust waive %s --reason TEXT\n", f)
	}
	if paused {
		s.printf("the queue is paused: look at the open runs (stella orch run list --active) and at schedules, then stella orch queue resume --all-tenants\n")
	}
}
