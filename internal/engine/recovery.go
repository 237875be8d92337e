package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// RecoverOptions say which ledger is recovered. Home is required.
type RecoverOptions struct {
	Home          string
	Epoch         int64 // of what follows; 0: the one after the highest that is known
	Actor, Reason string
	Accept        time.Time // of another clock, typed by whoever recovers what is far from the clock; zero for none
	DryRun        bool
	Now           func() time.Time // default time.Now
	Progress      api.Progress
}

// Recover goes on with the longest intact prefix of a ledger that is damaged, in a new epoch.
// To one that is sound it does nothing, but for trust/ if that is not what the ledger names, and
// for trust files that are not sealed any more. It is never done unasked.
func Recover(ctx context.Context, opt RecoverOptions) (api.RecoveredLedger, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	x := &recovering{opt: opt, out: api.RecoveredLedger{NewEpoch: api.NewEpoch{DryRun: opt.DryRun, Floors: []string{}, Runs: []string{}}}}
	if err := typedNow(opt.Accept, opt.Now()); err != nil {
		return x.out, err
	}
	u, err := finishCutOff(opt.Home, "", opt.DryRun)
	if err != nil {
		return x.out, err
	}
	if u != nil {
		return recoveredAfterAll(opt.Home, u), nil
	}
	if x.keys, err = readKeys(filepath.Join(opt.Home, "keys")); err != nil {
		return x.out, notRead(opt.Home, err, damaged("keys: %v", err))
	}
	plan, err := store.Recover(ctx, x.options(true))
	if err != nil {
		return x.out, recoverError(opt.Home, err)
	}
	x.tell(plan)
	if x.out.Damage == "" && plan.Lost == plan.Secrets && plan.Unsent == 0 {
		if x.out.Sound, err = x.sound(ctx, plan); err != nil {
			return x.out, err
		}
	}
	if x.out.Sound {
		x.out.Trust, x.out.Runs, x.out.Asked, x.out.Paused = x.anew, []string{}, nil, false // all stays as it is
	}
	if x.far != nil && !x.out.Sound {
		return x.out, x.far
	}
	if opt.DryRun || x.out.Sound {
		return x.out, nil
	}
	r, err := store.Recover(ctx, x.options(false))
	if err != nil {
		return x.out, recoverError(opt.Home, err)
	}
	x.done(r)
	return x.out, nil
}

// recovering is a recovery under way.
type recovering struct {
	opt   RecoverOptions
	keys  *keys
	out   api.RecoveredLedger
	note  string // the highest checkpoint that is known
	epoch int64  // that begins

	gone    vanished // by entries that may be lost
	inForce *inForce // by what was adopted
	newer   *carry
	anew    *api.NewerTrust // what is not known where trust/ is made anew
	later   string          // why a ledger of which nothing is lost is a copy from before
	forgot  store.Forgotten
	typed   time.Time
	far     error    // why nothing can be written: the clock
	copies  []string // paths of checkpoints that count as written, where the ledger does not say which are
}

func (x *recovering) options(dry bool) store.RecoverOptions {
	o := store.RecoverOptions{
		Home: x.opt.Home, Kept: x.opt.Now().UTC().Format("20060102T150405Z"), Open: store.Options{Now: x.opt.Now},
		Adopted: x.adopted, Trust: x.trust, Begin: x.begin, Told: x.told, OpenNote: x.openNote, DryRun: dry,
	}
	if !dry {
		o.Progress = x.opt.Progress
	}
	return o
}

// adopted says what is lost, as far as that is known, and refuses a ledger that its
// checkpoints contradict.
func (x *recovering) adopted(db *store.DB, r store.Recovery) error {
	init, err := db.Initialized()
	if err != nil {
		return err
	}
	if err := ofHome(x.opt.Home, init); err != nil {
		return err
	}
	if err := x.keys.belong(init); err != nil {
		return err
	}
	k, err := lookAround(x.opt.Home, r.Head, x.keys, r.SiteID)
	if err != nil {
		return err
	}
	if err := k.hold(db); err != nil {
		return err
	}
	x.note, x.gone, x.copies = k.note, k.gone, k.copies
	x.out.Floors = k.floors
	if x.forgot, err = db.Forgotten(k.before); err != nil {
		return err
	}
	tellForgotten(&x.out.NewEpoch, x.forgot)
	x.out.Known = k.size
	x.out.Lost = max(0, x.out.Known-r.Size)
	if k.epoch > r.Epoch {
		x.later = fmt.Sprintf("it is of epoch %d, and there was an epoch %d: it is a copy from before", r.Epoch, k.epoch)
	}
	lost := x.out.Lost > 0 || r.Unread > 0 || x.later != ""
	if err := tellOpen(&x.out.NewEpoch, db, lost); err != nil {
		return err
	}
	if x.epoch, err = nextEpoch(x.opt.Epoch, max(r.Epoch, k.epoch, epochOf(x.opt.Home, "", r.SiteID))); err != nil {
		return err
	}
	x.out.Origin = ledger.Origin(r.SiteID, x.epoch)
	x.typed, x.far = k.acceptable(db, x.opt.Accept, x.opt.Now(), x.opt.Home)
	return x.trusted(db, k, lost)
}

// trusted looks for the trust that is in force by what was adopted, and for what is newer. Where
// nothing is lost there is none: then ledger.db may be a copy from before, and what was revoked
// since would be believed again.
func (x *recovering) trusted(db *store.DB, k surroundings, lost bool) error {
	now, _, err := db.Trust()
	if err != nil {
		return err
	}
	h := had{home: x.opt.Home, changes: k.trust, whole: k.whole}
	claim := h.claim()
	if x.inForce, err = trustOf(now, nil, h.files()); err != nil { // roots by keys on P-384 alone are found in trust/ only
		roots, _ := readRoots(filepath.Join(x.opt.Home, "trust", "root"))
		if x.inForce, err = trustOf(now, roots, h.files()); err != nil {
			return err
		}
	}
	history, err := db.TrustChanges()
	if err != nil {
		return err
	}
	if !lost && claim.beyond(x.inForce.Ref()) {
		return claim.rolledBack(x.opt.Home, x.inForce.Ref())
	}
	if n := len(k.trust); n > 0 && claim.beyond(k.trust[n-1].Ref()) {
		h.whole = false // a copy from before, of which something is lost
	}
	x.newer = newerTrust(x.inForce, history, h, x.opt.Now().UTC())
	x.out.Trust = x.newer.tell()
	return nil
}

// tell says what is, or would be, recovered.
func (x *recovering) tell(r store.Recovery) {
	x.out.Size, x.out.Survived, x.out.Sealed, x.out.Unread, x.out.Unsent = r.Size, r.Survived, r.Lost, r.Unread, r.Unsent
	switch {
	case r.Damage != "":
		x.out.Damage = r.Damage
	case x.later != "":
		x.out.Damage = x.later
	case x.out.Lost > 0: // it ends before it should
		x.out.Damage = fmt.Sprintf("it has %d entries, and a checkpoint covers %d", r.Size, x.out.Known)
	case r.Unsent > 0:
		x.out.Damage = "sinks of events, or what waits for them, are not what was written"
	} // else it is what a check has found
}

// done says what was recovered.
func (x *recovering) done(r store.Recovery) {
	x.tell(r)
	x.out.Evidence, x.out.Kept = r.Evidence, filepath.Join(x.opt.Home, r.Kept)
}

// told is what whoever finishes it is told.
func (x *recovering) told(r store.Recovery) ([]byte, error) {
	x.done(r)
	return json.Marshal(x.out)
}

// sound says whether nothing is wrong with a ledger whose entries are all intact; else it
// says what is. An error has left that open: then nothing is done to the ledger.
func (x *recovering) sound(ctx context.Context, plan store.Recovery) (bool, error) {
	if plan.Older { // opening it would change it
		return false, &api.Error{Code: api.CodeConflict, Message: "the ledger is of an older schema, and its entries are intact",
			Hint: "any other command brings it up to date: stella ledger verify; if that says DAMAGED, restore a snapshot: stella maintenance snapshots"}
	}
	db, err := store.Open(x.opt.Home, store.Options{Now: x.opt.Now})
	if err == nil {
		_, err = db.Check(ctx, store.CheckOptions{OpenNote: func(note []byte) (ledger.Checkpoint, error) {
			return x.openNote(db.SiteID(), note)
		}})
		if err == nil {
			err = x.remakeTrust(db)
		}
		err = errors.Join(err, db.Close())
	}
	var damage *store.Damage
	if errors.As(err, &damage) {
		x.out.Damage = damage.Error()
		return false, nil
	}
	if err != nil {
		return false, recoverError(x.opt.Home, err)
	}
	return true, nil
}

// remakeTrust makes trust/ anew, of sealed files, where it is not what a sound ledger names. What
// was there is kept. A change that was cut off is ended by whoever opens the site. What is sealed no
// more of what is in force is sealed again, before anything is moved.
func (x *recovering) remakeTrust(db *store.DB) error {
	dir := filepath.Join(x.opt.Home, "trust")
	now, before, err := db.Trust()
	if err != nil {
		return err
	}
	look := lookAtTrust(dir)
	if x.out.TrustAnew = !look.is(now) && (before == nil || !underWay(look.files, *before, now)); x.out.TrustAnew {
		x.anew = &api.NewerTrust{Unsure: cmp.Or(had{home: x.opt.Home, whole: true}.strangeKey(x.inForce),
			"trust/ is lost or was changed, which would show it where ledger.db is a copy from before")}
	}
	for _, raw := range trustRaws(x.inForce.files) {
		if _, err := db.Blobs().Check(bundle.Digest(raw)); err != nil {
			x.out.Resealed++
		}
	}
	if x.opt.DryRun {
		return nil
	}
	if x.out.Resealed > 0 {
		if err := sealTrust(db.Blobs(), x.inForce.files); err != nil {
			return err
		}
	}
	if !x.out.TrustAnew {
		return nil
	}
	if x.out.Kept, err = setAside(x.opt.Home, dir); err != nil {
		return err
	}
	return writeTrust(dir, x.inForce.files)
}

// setAside moves trust/ to replaced/, if it is there, and says where to.
func setAside(home, dir string) (kept string, err error) {
	if _, err := os.Lstat(dir); err != nil {
		return "", nil
	}
	replaced := filepath.Join(home, "replaced")
	if err := os.MkdirAll(replaced, 0o700); err != nil {
		return "", err
	}
	if kept, err = os.MkdirTemp(replaced, "trust-"); err != nil {
		return "", err
	}
	return kept, fsx.Rename(dir, filepath.Join(kept, "trust"))
}

// openNote verifies a checkpoint of the site.
func (x *recovering) openNote(siteID string, note []byte) (ledger.Checkpoint, error) {
	return ledger.OpenCheckpoint(note, x.keys.logPublic(), siteID)
}

// trust writes the trust files that are in force by what was adopted.
func (x *recovering) trust(dir string) error { return writeTrust(dir, x.inForce.files) }

// begin begins the epoch with what was adopted.
func (x *recovering) begin(db *store.DB, evidence string) error {
	if x.far != nil {
		return x.far
	}
	if len(x.copies) > 0 {
		if err := db.PutNotePaths(x.copies); err != nil {
			return err
		}
	}
	again, err := x.gone.begin(db, x.opt.Actor, ledger.EpochStart{
		Epoch: x.epoch, Cause: "recovered", Known: x.note, Evidence: evidence, Reason: clip(x.opt.Reason),
	}, x.typed)
	if err != nil {
		return err
	}
	x.out.Erased, x.out.Unsure, x.out.Waits = again.erased, again.unsure, again.waits
	if err := sealTrust(db.Blobs(), x.inForce.files); err != nil { // trust/ may have had what was lost of it
		return err
	}
	if x.out.Trust, err = x.newer.putInForce(db, x.opt.Actor); err != nil {
		return err
	}
	if err := remember(db, x.opt.Actor, "recovered", x.forgot); err != nil {
		return err
	}
	if !x.out.Paused {
		return nil
	}
	return distrust(db, x.opt.Actor, "recovered", x.opt.Now())
}

func recoverError(home string, err error) error {
	switch {
	case errors.Is(err, store.ErrHopeless) && ledgerLost(home) != nil:
		return ledgerLost(home)
	case errors.Is(err, store.ErrHopeless):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: "restore a snapshot: " + restoreCommand(home) + "; the damaged file is as it was"}
	case errors.Is(err, store.ErrNoSite), errors.Is(err, store.ErrNewerSchema):
		return openError(home, err)
	case errors.Is(err, store.ErrOlderSchema):
		return &api.Error{Code: api.CodeConflict, Message: err.Error(),
			Hint: "if no command opens it, restore a snapshot (stella maintenance snapshots), or ask the stella that wrote it; the site is as it was"}
	}
	if known := swapError(home, err); known != nil {
		return known
	}
	return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: "the site is as it was; if that does not pass, restore a snapshot: " + restoreCommand(home)}
}
