package engine

import (
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// maxForgottenShown bounds how many bundles and versions of DAGs an answer lists.
const maxForgottenShown = 20

// tellForgotten says what the ledger before had decided, and what takes its place does not know.
// Bundles are remembered and versions disabled again, but what is not published cannot be.
func tellForgotten(out *api.NewEpoch, f store.Forgotten) {
	var refs []string
	for _, b := range f.Bundles[:min(len(f.Bundles), maxForgottenShown)] {
		refs = append(refs, b.Ref())
	}
	out.Remembered, out.Disabled, out.Unpublished, out.Unclear = refs, versions(f.Disabled), versions(f.Unpublished), f.Unclear
}

// versions are the first of these.
func versions(dags []store.DisabledDAG) (ids []string) {
	for _, x := range dags[:min(len(dags), maxForgottenShown)] {
		ids = append(ids, x.DAGID+"@"+x.Version)
	}
	return ids
}

// remember lets what was forgotten hold again; how says what was done to the ledger.
func remember(db *store.DB, actor, how string, f store.Forgotten) error {
	return db.Remember(actor, how+": the ledger before had it disabled", f)
}
