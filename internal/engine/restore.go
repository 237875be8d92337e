package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// A snapshot is put in the place of what a home has while nobody holds the site. What the
// ledger had beyond it is lost, and that is on record: the first entry of the new epoch names
// what was adopted and the highest checkpoint that is known (THREATS 27). Floors that are
// ahead of it refuse everything until each is waived by name. Where runs are open in the
// snapshot the queue is paused and approvals are asked for again: what was done and decided after
// it only people can know.

// RestoreOptions say what is restored where. Home is required, and one of ID and Latest unless
// there is only the end of another one to do.
type RestoreOptions struct {
	Home          string
	Dir           string // folder of snapshots; default snapshots/ of the home
	ID            string
	Latest        bool
	Epoch         int64 // of what follows; 0: the one after the highest that is known
	Actor, Reason string
	Accept        time.Time // of another clock, typed by whoever restores what is far from the clock; zero for none
	Identity      []byte    // of age, for a snapshot that is encrypted
	DryRun        bool
	Now           func() time.Time // default time.Now
	Progress      api.Progress
}

// maxRunsShown bounds how many open runs an answer lists.
const maxRunsShown = 20

// Restore restores a snapshot, or finishes a restore that was cut off.
func Restore(ctx context.Context, opt RestoreOptions) (api.Restored, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	out := api.Restored{NewEpoch: api.NewEpoch{DryRun: opt.DryRun, Floors: []string{}, Runs: []string{}}}
	if err := typedNow(opt.Accept, opt.Now()); err != nil {
		return out, err
	}
	u, err := finishCutOff(opt.Home, opt.ID, opt.DryRun)
	if err != nil {
		return out, err
	}
	if u != nil {
		return restoredAfterAll(opt.Home, u), nil
	}
	snap, err := opt.choose()
	if err != nil {
		return out, err
	}
	out.Snapshot = snap
	x := &restoring{opt: opt, out: &out, from: snap.Path}
	if snap.Encrypted {
		from, done, err := opt.decrypt(ctx, snap)
		if err != nil {
			return out, err
		}
		defer done()
		x.from = from
	}
	if err := x.prepare(); err != nil {
		return out, err
	}
	r, err := store.Restore(ctx, store.RestoreOptions{
		Home: opt.Home, From: x.from, Kept: opt.Now().UTC().Format("20060102T150405Z"), DryRun: opt.DryRun, Progress: opt.Progress,
		Verify: x.signed,
		Belong: x.keys.belong,
		Check: store.CheckOptions{OpenNote: func(note []byte) (ledger.Checkpoint, error) {
			return ledger.OpenCheckpoint(note, x.keys.logPublic(), x.siteID)
		}},
		Open:    store.Options{Now: opt.Now},
		Adopted: x.adopted,
		Begin:   x.begin,
		Told:    x.told,
	})
	if err != nil {
		return out, restoreError(opt.Home, err)
	}
	x.tell(r)
	return out, nil
}

// tell says what is, or would be, restored.
func (x *restoring) tell(r store.Restored) {
	was := x.out.Snapshot
	x.out.Snapshot = showSnapshot(r.Snapshot, was.Path)
	x.out.Snapshot.Encrypted = was.Encrypted
	if !x.opt.DryRun {
		x.out.Kept = filepath.Join(x.opt.Home, r.Kept)
	}
}

// told is what whoever finishes it is told.
func (x *restoring) told(r store.Restored) ([]byte, error) {
	x.tell(r)
	return json.Marshal(x.out)
}

// choose finds the snapshot that is meant.
func (opt RestoreOptions) choose() (api.Snapshot, error) {
	if opt.ID == "" && !opt.Latest {
		return api.Snapshot{}, &api.Error{Code: api.CodeInvalid, Message: "no snapshot is named", Hint: "name one with --id ID, or the newest with --latest"}
	}
	all, err := Snapshots(opt.Home, opt.Dir)
	if err != nil {
		return api.Snapshot{}, err
	}
	if len(all) == 0 {
		return api.Snapshot{}, &api.Error{Code: api.CodeNotFound, Message: "there is no snapshot", Hint: "--from names another folder of snapshots"}
	}
	if opt.Latest {
		return all[len(all)-1], nil
	}
	i := slices.IndexFunc(all, func(s api.Snapshot) bool { return s.ID == opt.ID })
	if i < 0 {
		return api.Snapshot{}, &api.Error{Code: api.CodeNotFound, Message: "there is no snapshot " + opt.ID, Hint: "the newest is " + all[len(all)-1].ID}
	}
	return all[i], nil
}

// restoring is a restore under way.
type restoring struct {
	opt     RestoreOptions
	out     *api.Restored
	from    string // folder of the snapshot
	keys    *keys
	sitePub []byte
	siteID  string
	known   surroundings
	fresh   bool // there was nothing in the home
	typed   time.Time
	newer   *carry
	anew    *inForce // trust/ is to be made of this, in the copy
	forgot  store.Forgotten

	snapEpoch int64 // of the snapshot
	epoch     int64 // that begins
}

// prepare reads the keys of the home, and what is known of the ledger from outside the
// snapshot.
func (x *restoring) prepare() (err error) {
	home := x.opt.Home
	x.fresh = freshPlace(home)
	if x.keys, err = readKeys(filepath.Join(home, "keys")); err != nil {
		return notRead(home, err, &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("keys of the site: %v", err),
			Hint: "a snapshot has none: put the copy of the keys into " + filepath.Join(home, "keys") + " (0700) first"})
	}
	if x.sitePub, err = publicPEM(&x.keys.site.PublicKey); err != nil {
		return internal(err)
	}
	snap, err := store.ReadSnapshot(x.from)
	if err != nil {
		return snapshotDamaged("%v", err)
	}
	if snap.ID != x.out.Snapshot.ID {
		return snapshotDamaged("%s is the snapshot %s", x.out.Snapshot.Path, snap.ID)
	}
	if err := x.ours(snap); err != nil {
		return err
	}
	x.siteID = snap.SiteID
	if _, x.snapEpoch, err = ledger.ParseOrigin(snap.Origin); err != nil {
		return snapshotDamaged("%v", err)
	}
	if err := x.roomFor(snap.Bytes); err != nil {
		return err
	}
	return x.look(store.Peek(home))
}

// signed refuses a list that the site has not signed. In a fresh place nothing else tells a
// snapshot of somebody else from keys of somebody else.
func (x *restoring) signed(sums, sig []byte) error {
	err := export.CheckSums(sums, sig, x.sitePub)
	if errors.Is(err, export.ErrOtherKey) {
		return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf("keys/%s has not signed the snapshot: SHA256SUMS: %v", siteKey, err),
			Hint: "the site is as it was; see that keys/ is the copy that was made of this site, or try another snapshot: stella maintenance snapshots"}
	}
	if err != nil {
		return snapshotDamaged("the snapshot: SHA256SUMS: %v", err)
	}
	return nil
}

// ours refuses the snapshot of another site: the checkpoint of the home is not what is wrong.
// Any other fault of a signature is for the restore to find.
func (x *restoring) ours(snap store.Snapshot) error {
	_, err := store.SignedSums(x.from, func(sums, sig []byte) error { return export.CheckSums(sums, sig, x.sitePub) })
	if !errors.Is(err, export.ErrOtherKey) || snap.SiteID == SiteIDOf(x.opt.Home) {
		return nil
	}
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("the snapshot %s is of another site (%s): it is not signed by the key in %s", snap.ID, snap.SiteID, filepath.Join(x.opt.Home, "keys")),
		Hint: "the site is as it was; give a snapshot of this site, or, in a fresh place, the keys of that one"}
}

// snapshotDamaged says what is wrong with a snapshot, of which the site has nothing yet.
func snapshotDamaged(format string, a ...any) *api.Error {
	return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf(format, a...),
		Hint: "the site is as it was; try another snapshot: stella maintenance snapshots"}
}

// roomFor says whether a snapshot fits beside what the home has.
func (x *restoring) roomFor(need int64) error {
	e := &Engine{opt: Options{Home: x.opt.Home}}
	return e.roomOf("the snapshot", need)
}

// look gathers what is known of the ledger that is replaced, by a configuration in one of these
// folders where the home has none.
func (x *restoring) look(was store.Head, others ...string) (err error) {
	switch {
	case was.Init == nil:
	case was.Init.SiteID != x.siteID: // what another site had or erased is nothing to this one
		was = store.Head{Unread: 1, NotesLost: true}
	default:
		if err := x.keys.belong(was.Init); err != nil {
			return err
		}
	}
	if x.known, err = lookAround(x.opt.Home, was, x.keys, x.siteID, others...); err != nil {
		return err
	}
	known := max(x.snapEpoch, x.known.epoch, epochOf(x.opt.Home, "", x.siteID), epochOf(x.opt.Home, x.opt.Dir, x.siteID))
	if x.epoch, err = nextEpoch(x.opt.Epoch, known); err != nil {
		return err
	}
	x.out.Origin = ledger.Origin(x.siteID, x.epoch)
	return nil
}

// adopted looks again, now that nobody else holds the site, and says what is lost with the
// copy, as far as that is known.
func (x *restoring) adopted(db *store.DB, was store.Head) (err error) {
	if err := x.look(was, db.Home()); err != nil {
		return err
	}
	if err := x.known.hold(db); err != nil {
		return err
	}
	x.out.Floors, x.out.Known, x.out.Unread = x.known.floors, x.known.size, x.known.unread
	x.out.Lost = max(0, x.out.Known-db.Size())
	if x.forgot, err = db.Forgotten(x.known.before); err != nil {
		return err
	}
	tellForgotten(&x.out.NewEpoch, x.forgot)
	if err := tellOpen(&x.out.NewEpoch, db, x.out.Lost > 0 || x.known.blind || x.out.Unread > 0); err != nil {
		return err
	}
	if x.typed, err = x.known.acceptable(db, x.opt.Accept, x.opt.Now(), x.opt.Home, db.Home()); err != nil {
		return err
	}
	return x.trusted(db)
}

// trusted looks for the trust that is in force by the copy, and for what is newer. A snapshot has
// trust/ as it lay there, which may not be what the ledger names: then it is made anew.
func (x *restoring) trusted(db *store.DB) error {
	dir := filepath.Join(db.Home(), "trust")
	look := lookAtTrust(dir)
	own, err := loadTrustFiles(db, dir, look) // an extension changes nothing of what follows
	if err != nil {
		now, _, terr := db.Trust()
		if terr != nil {
			return terr
		}
		if own, err = trustOf(now, look.files.Roots, sealedFiles(db)); err != nil {
			x.newer = &carry{told: api.NewerTrust{Why: fmt.Sprintf("trust/ of the snapshot is not what its ledger names, and cannot be made anew: %v", err)}}
			x.out.Trust = x.newer.tell()
			return nil
		}
		x.anew = own
	}
	history, err := db.TrustChanges()
	if err != nil {
		return err
	}
	x.newer = newerTrust(own, history, had{x.opt.Home, x.known.trust, x.known.whole, x.fresh}, x.opt.Now().UTC())
	x.out.Trust = x.newer.tell()
	return nil
}

// maxEpoch bounds the epochs that can be asked for: others come after it, and are believed.
const maxEpoch = store.MaxEpoch / 2

// nextEpoch is the epoch that is asked for, or the one after the highest that is known.
func nextEpoch(asked, known int64) (int64, error) {
	switch {
	case asked > maxEpoch:
		return 0, invalid("epoch %d is beyond %d", asked, maxEpoch)
	case asked == 0:
		return known + 1, nil
	case asked <= known:
		return 0, invalid("epoch %d is not after %d, which is known", asked, known)
	}
	return asked, nil
}

// begin begins the epoch in the copy.
func (x *restoring) begin(db *store.DB) error {
	again, err := x.known.gone.begin(db, x.opt.Actor, ledger.EpochStart{
		Epoch: x.epoch, Cause: "restored", Known: x.known.note, Snapshot: x.out.Snapshot.ID, Reason: clip(x.opt.Reason),
	}, x.typed)
	if err != nil {
		return err
	}
	x.out.Erased, x.out.Unsure, x.out.Waits = again.erased, again.unsure, again.waits
	if x.anew != nil {
		dir := filepath.Join(db.Home(), "trust")
		if err := errors.Join(os.RemoveAll(dir), writeTrust(dir, x.anew.files)); err != nil {
			return err
		}
	}
	if x.out.Trust, err = x.newer.putInForce(db, x.opt.Actor); err != nil {
		return err
	}
	if err := remember(db, x.opt.Actor, "restored", x.forgot); err != nil {
		return err
	}
	if !x.out.Paused {
		return nil
	}
	return distrust(db, x.opt.Actor, "restored", x.opt.Now())
}

// tellOpen says what is open in what was adopted, and whether the queue will be paused: where
// runs are, or entries are lost, more may have been done than it knows, by runs or for the
// instants of schedules.
func tellOpen(out *api.NewEpoch, db *store.DB, lost bool) error {
	open, err := db.ActiveRuns()
	out.Runs, out.Asked, out.Paused = []string{}, nil, lost || len(open) > 0
	for _, run := range open {
		steps, serr := asking(db, run)
		err = errors.Join(err, serr)
		for _, s := range steps {
			out.Asked = append(out.Asked, state.ApprovalID(run.RunID, s.StepID, s.Approval.Attempt))
		}
		out.Runs = append(out.Runs, run.RunID)
	}
	out.Runs, out.Asked = out.Runs[:min(len(out.Runs), maxRunsShown)], out.Asked[:min(len(out.Asked), maxRunsShown)]
	return err
}

// distrust pauses the queue. What people have decided of open runs counts no more, and they are
// asked again: the rest of what was decided may be lost.
func distrust(db *store.DB, actor, how string, now time.Time) error {
	open, err := db.ActiveRuns()
	if err != nil {
		return err
	}
	for _, run := range open {
		if err := askAgain(db, actor, run, now); err != nil {
			return err
		}
	}
	_, err = db.ChangeQueue(ledger.QueuePaused, actor, ledger.QueueChange{
		Reason: how + ": more may have been done than is known; look at open runs and at schedules before the queue is resumed",
	})
	return err
}

// asking are the steps of a run whose approvals are open, by id.
func asking(db *store.DB, run state.Run) (open []state.Step, err error) {
	steps, err := db.Steps(run.RunID)
	for _, id := range slices.Sorted(maps.Keys(steps)) {
		if a := steps[id].Approval; a != nil && a.Status == state.ApprovalPending {
			open = append(open, steps[id])
		}
	}
	return open, err
}

// askAgain withdraws the open approvals of a run and asks for them anew, with as much time as
// there was.
func askAgain(db *store.DB, actor string, run state.Run, now time.Time) error {
	steps, err := asking(db, run)
	if err != nil {
		return err
	}
	for _, s := range steps {
		a := s.Approval
		req := a.Request
		req.Generation = run.Generation
		if expires, err := stamp.Parse(req.Expires); err == nil {
			if asked, err := stamp.Parse(a.RequestedUTC); err == nil {
				req.Expires = stamp.Format(now.Add(expires.Sub(asked)))
			}
		}
		of := state.Proposal{Actor: actor, StepID: s.StepID, Attempt: a.Attempt}
		closed, again := of, of
		closed.Type, closed.Data = ledger.ApprovalClosed, &ledger.ApprovalClosing{Result: state.ApprovalWithdrawn}
		again.Type, again.Data = ledger.ApprovalRequested, &req
		if _, err := db.Commit(run.RunID, closed, again); err != nil {
			return err
		}
	}
	return nil
}

func restoreError(home string, err error) error {
	known := swapError(home, err)
	switch {
	case known != nil:
		return known
	case errors.Is(err, store.ErrNewerSchema):
		return &api.Error{Code: api.CodeNewer, Message: "the snapshot was made by a newer stella", Hint: "use that one; the site is as it was"}
	}
	return snapshotDamaged("%v", err)
}

// swapError is what both a restore and a recovery say of an error, nil for any other.
func swapError(home string, err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, store.ErrForked):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(),
			Hint: "no disk does that: entries were replaced after they were signed. The site is as it was; keep it, and find out by whom"}
	case errors.Is(err, store.ErrLocked):
		return &api.Error{Code: api.CodeLocked, Message: "another process holds " + home, Hint: "stop it first: stella daemon stop"}
	case errors.Is(err, store.ErrRestoring):
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			return openError(home, err)
		}
		return &api.Error{Code: api.CodeRestoring, Message: err.Error(),
			Hint: "see to what the system says, then let it finish: stella maintenance restore-snapshot --latest, or stella maintenance recover"}
	case errors.Is(err, store.ErrNoFile):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: "nobody reads a ledger from it; the site is as it was: move it away, then restore a snapshot: " + restoreCommand(home)}
	case errors.Is(err, store.ErrUndone):
		return &api.Error{Code: api.CodeDamaged, Message: err.Error(), Hint: "the site is as it was before; do it again"}
	}
	return Unwritable(home, err)
}
