package engine

import (
	"encoding/json"
	"path/filepath"

	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// A restore or a recovery that was cut off is finished by either command, and tells what it
// would have told: its journal keeps that. Another one than is under way never is what
// somebody asked for.

// finishCutOff does the rest of what was cut off, nil for nothing. A dry run finishes nothing,
// and neither does who asks for another snapshot; "" is any.
func finishCutOff(home, snapshot string, dry bool) (*store.Unfinished, error) {
	may := func(u *store.Unfinished) error {
		if snapshot == "" || snapshot == u.Snapshot {
			return nil
		}
		what, how := finisher(u)
		return &api.Error{Code: api.CodeConflict, Message: what + " was cut off: nothing else can be restored before it is finished", Hint: "finish it: " + how}
	}
	if !dry {
		if err := sweepDecrypted(home); err != nil {
			return nil, internal(err)
		}
		u, err := store.FinishRestore(home, may)
		if err != nil {
			return nil, restoreError(home, err)
		}
		return u, nil
	}
	u, err := store.CutOff(home)
	if err == nil && u != nil {
		if err = may(u); err == nil {
			err = store.ErrRestoring
		}
	}
	if err != nil {
		return nil, restoreError(home, err)
	}
	return nil, nil
}

// finisher says what is under way, and what finishes it.
func finisher(u *store.Unfinished) (what, how string) {
	if u.Snapshot == "" {
		return "a recovery of the ledger", "stella maintenance recover"
	}
	return "a restore of the snapshot " + u.Snapshot, "stella maintenance restore-snapshot --id " + u.Snapshot
}

// restoringError says what keeps a home closed, and what finishes it.
func restoringError(home string) *api.Error {
	what, how := "a restore or a recovery", "stella maintenance restore-snapshot --latest"
	if u, err := store.CutOff(home); err == nil && u != nil {
		what, how = finisher(u)
	}
	return &api.Error{Code: api.CodeRestoring, Message: what + " in " + home + " is under way, or was cut off",
		Hint: "if nobody does it now, let it finish: " + how}
}

// restoredAfterAll is what a restore tells of what it has finished.
func restoredAfterAll(home string, u *store.Unfinished) (out api.Restored) {
	if u.Snapshot == "" {
		return api.Restored{Recovery: true, NewEpoch: recoveredAfterAll(home, u).NewEpoch}
	}
	if json.Unmarshal(u.Told, &out) != nil {
		out = api.Restored{Snapshot: api.Snapshot{ID: u.Snapshot}, NewEpoch: api.NewEpoch{Untold: true}}
	}
	out.Finished, out.Kept = true, filepath.Join(home, u.Kept)
	return out
}

// recoveredAfterAll is what a recovery tells of what it has finished.
func recoveredAfterAll(home string, u *store.Unfinished) (out api.RecoveredLedger) {
	if u.Snapshot != "" {
		r := restoredAfterAll(home, u)
		return api.RecoveredLedger{Snapshot: u.Snapshot, Size: r.Snapshot.Size, NewEpoch: r.NewEpoch}
	}
	if json.Unmarshal(u.Told, &out) != nil {
		out = api.RecoveredLedger{NewEpoch: api.NewEpoch{Untold: true}}
	}
	out.Finished, out.Kept = true, filepath.Join(home, u.Kept)
	return out
}
