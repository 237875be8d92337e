package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Limits of one entry of a collection; a large one makes several.
const (
	maxGCBundles = 500
	maxGCBlobs   = 50_000
	maxKeep      = 1_000_000
)

// errMarkedAgain says that somebody came to rely on what was marked.
var errMarkedAgain = errors.New("engine: marked again")

// CollectGarbage gives up blobs that nothing names, and with Keep the contents
// of superseded bundles that nothing refers to. What it gives up is an entry
// first, then moved to trash/, and deleted by a collection a day later.
func (s *site) CollectGarbage(ctx context.Context, req api.GCRequest, p api.Progress) (api.GCReport, error) {
	e := s.e
	if req.Keep < 0 || req.Keep > maxKeep {
		return api.GCReport{}, invalid("keep is 1 to %d versions, or 0 to keep all", maxKeep)
	}
	e.collecting.Lock()
	defer e.collecting.Unlock()
	c := &collection{s: s, req: req, survey: e.db.NewSurvey(), plans: map[string]bool{}, used: map[string]string{}}
	c.out = api.GCReport{DryRun: req.DryRun, Bundles: []string{}, Kept: []api.Kept{}, Seq: []int64{}}
	if err := c.survey.Advance(ctx, p); err != nil { // what takes long, before anybody has to wait
		return c.out, dbError(err)
	}
	if req.Keep > 0 { // judges everything once, likewise
		if _, err := c.superseded(); err != nil {
			return c.out, dbError(err)
		}
	}
	for again := true; again; {
		var err error
		if again, err = c.round(ctx); err != nil {
			return c.out, dbError(err)
		}
	}
	now, err := e.clock() // one that is not believed empties nothing
	if err != nil {
		return c.out, err
	}
	if len(c.out.Seq) > 0 {
		c.out.TrashedUntil = stamp.Format(now.Add(24 * time.Hour))
	}
	c.out.TrashFiles, c.out.TrashBytes, err = e.db.Blobs().EmptyTrash(ctx, now, req.DryRun)
	if err == nil && !req.DryRun {
		c.out.Waits = e.eraseAgreed() // there may be room for it now
	}
	return c.out, dbError(err)
}

// collection is one collection under way.
type collection struct {
	s      *site
	req    api.GCRequest
	survey *store.Survey
	plans  map[string]bool   // whose bundles are in used
	used   map[string]string // digest of a bundle → who refers to it
	out    api.GCReport
}

// marked is what a round gives up.
type marked struct {
	bundles []store.BundleRecord
	blobs   []string         // sorted
	sizes   map[string]int64 // of blobs, and perhaps of others
	more    bool
}

func (m marked) bytes() int64 {
	var n int64
	for _, d := range m.blobs {
		n += m.sizes[d]
	}
	return n
}

// round marks and moves what fits into one entry, and says whether more is
// left.
func (c *collection) round(ctx context.Context) (bool, error) {
	m, err := c.decide(ctx)
	for errors.Is(err, errMarkedAgain) { // each time one bundle less may go
		m, err = c.decide(ctx)
	}
	if err != nil || len(m.blobs)+len(m.bundles) == 0 {
		return false, err
	}
	c.out.Blobs += int64(len(m.blobs))
	c.out.Bytes += m.bytes()
	for _, rec := range m.bundles {
		c.out.Bundles = append(c.out.Bundles, rec.Ref())
	}
	if c.req.DryRun {
		return false, nil
	}
	if _, err := c.s.e.db.Blobs().Trash(ctx, m.blobs, c.s.e.opt.Now()); err != nil {
		return false, err
	}
	return m.more, nil
}

// decide marks while nobody can start a run or publish a DAG, and writes the
// entry. Imports under way have pinned what they rely on.
func (c *collection) decide(ctx context.Context) (marked, error) {
	e := c.s.e
	if !c.req.DryRun {
		e.gate.Lock()
		defer e.gate.Unlock()
	}
	if err := c.survey.Advance(ctx, nil); err != nil {
		return marked{}, err
	}
	m, err := c.mark()
	if err != nil || c.req.DryRun || len(m.blobs)+len(m.bundles) == 0 {
		return m, err
	}
	all := m.blobs
	pinned := e.db.Blobs().Doom(all)
	if m, err = c.without(m, pinned); err == nil {
		err = c.confirm(ctx, m)
	}
	if err == nil && len(m.blobs)+len(m.bundles) > 0 {
		err = c.record(m)
	}
	if err != nil {
		e.db.Blobs().Spare(all)
	}
	return m, err
}

// confirm looks again, now that nobody can come to rely on what is doomed: who
// did before has let go of its pins only after its entry was written.
func (c *collection) confirm(ctx context.Context, m marked) error {
	if err := c.survey.Advance(ctx, nil); err != nil {
		return err
	}
	names, err := c.names(m.bundles)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(m.blobs, func(d string) bool { _, ok := names[d]; return ok }) {
		return errMarkedAgain
	}
	return nil
}

// names is what must stay when the contents of some bundles go.
func (c *collection) names(going []store.BundleRecord) (map[string]store.Ref, error) {
	without := map[string]bool{}
	for _, rec := range going {
		without[rec.Digest] = true
	}
	names, err := c.survey.Names(without, func(rec store.BundleRecord, err error) error {
		return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf("the manifest of %s cannot be read, so that nobody knows what it needs: %v", rec.Ref(), err),
			Hint: "stella bundle audit; importing the bundle again puts it right"}
	})
	maps.Copy(names, c.survey.Logs())
	return names, err
}

// record seals the list of blobs and writes the entry.
func (c *collection) record(m marked) error {
	e := c.s.e
	raw, err := jcs.Marshal(map[string]any{"schema": "stella.gc/1", "blobs": m.blobs})
	if err != nil {
		return err
	}
	entry := &ledger.GarbageCollection{Blobs: int64(len(m.blobs)), Bytes: m.bytes()}
	if entry.List, err = e.db.Blobs().Put(raw); err != nil {
		return err
	}
	for _, rec := range m.bundles {
		entry.Bundles = append(entry.Bundles, rec.Digest)
	}
	slices.Sort(entry.Bundles)
	seq, err := e.db.RecordCollection(c.s.actor, entry)
	if err == nil {
		c.out.Seq = append(c.out.Seq, seq)
	}
	return err
}

// without takes pinned blobs, and bundles that contain one, out of what was
// marked.
func (c *collection) without(m marked, pinned []string) (marked, error) {
	c.out.Busy = int64(len(pinned))
	if len(pinned) == 0 {
		return m, nil
	}
	busy := map[string]bool{}
	for _, d := range pinned {
		busy[d] = true
	}
	var spared []string
	for _, rec := range m.bundles {
		files, err := c.survey.Files(rec.Digest)
		if err != nil {
			return m, err
		}
		if slices.ContainsFunc(files, func(f manifests.File) bool { return busy[f.SHA256] }) {
			spared = append(spared, rec.Digest)
		}
	}
	for _, digest := range spared {
		c.used[digest] = "somebody is importing it"
	}
	if len(spared) > 0 { // its other contents were marked too: mark again
		return m, errMarkedAgain
	}
	m.blobs = slices.DeleteFunc(slices.Clone(m.blobs), func(d string) bool { return busy[d] })
	return m, nil
}

// mark finds what may go.
func (c *collection) mark() (marked, error) {
	e := c.s.e
	m := marked{sizes: map[string]int64{}}
	if c.req.Keep > 0 {
		recs, err := c.superseded()
		if err != nil {
			return m, err
		}
		m.more = len(recs) > maxGCBundles
		m.bundles = recs[:min(len(recs), maxGCBundles)]
	}
	names, err := c.names(m.bundles)
	if err != nil {
		return m, err
	}
	err = e.db.Blobs().Each(func(digest string, size int64) error {
		if _, ok := names[digest]; ok {
			return nil
		}
		if _, twice := m.sizes[digest]; twice {
			m.sizes[digest] += size
			return nil
		}
		if len(m.blobs) == maxGCBlobs {
			m.more = true
			return nil
		}
		m.blobs = append(m.blobs, digest)
		m.sizes[digest] = size
		return nil
	})
	if err != nil {
		return m, err
	}
	slices.Sort(m.blobs)
	m.bundles, err = c.worth(m)
	return m, err
}

// worth leaves out bundles of which nothing would go: all that they hold is in
// others too.
func (c *collection) worth(m marked) ([]store.BundleRecord, error) {
	var out []store.BundleRecord
	for _, rec := range m.bundles {
		files, err := c.survey.Files(rec.Digest)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(files, func(f manifests.File) bool { _, ok := m.sizes[f.SHA256]; return ok }) {
			out = append(out, rec)
		}
	}
	return out, nil
}

// superseded lists the bundles whose contents may go, and notes those that are
// kept because somebody refers to them.
func (c *collection) superseded() ([]store.BundleRecord, error) {
	recs, err := c.s.e.db.Bundles()
	if err != nil {
		return nil, err
	}
	old := store.Superseded(c.usable(recs), c.req.Keep)
	if err := c.references(recs, old); err != nil {
		return nil, err
	}
	c.out.Kept = []api.Kept{}
	return slices.DeleteFunc(old, func(rec store.BundleRecord) bool {
		why, ok := c.used[rec.Digest]
		if ok {
			c.out.Kept = append(c.out.Kept, api.Kept{Bundle: rec.Ref(), Why: why})
		}
		return ok
	}), nil
}

// usable leaves out what is revoked: it supersedes nothing, for the version
// before it is the one to fall back on.
func (c *collection) usable(recs []store.BundleRecord) []store.BundleRecord {
	var out []store.BundleRecord
	for _, rec := range recs {
		if c.s.e.stands(rec.Digest) {
			out = append(out, rec)
		}
	}
	return out
}

// references finds which bundles the DAGs and the runs refer to: published
// versions, DAGs that are current though nobody published them, and the plan of
// every run there ever was.
func (c *collection) references(recs, old []store.BundleRecord) error {
	e := c.s.e
	superseded := map[string]bool{}
	for _, rec := range old {
		superseded[rec.Digest] = true
	}
	dags, err := e.db.DAGs("")
	if err != nil {
		return err
	}
	for _, d := range dags {
		delete(superseded, d.Digest)
		c.use(d.Digest, "the DAG version "+d.DAGID+" "+d.Version+" is it")
	}
	for _, rec := range recs {
		if rec.Admission.Verdict.Kind != string(manifests.KindDAG) || superseded[rec.Digest] || rec.Removed > 0 {
			continue
		}
		if err := c.useDAG(rec); err != nil {
			return err
		}
	}
	for hash := range c.survey.Plans() {
		if err := c.usePlan(hash); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) use(digest, why string) {
	if _, ok := c.used[digest]; !ok && digest != "" {
		c.used[digest] = why
	}
}

// useDAG notes the plugins and data that a DAG names.
func (c *collection) useDAG(rec store.BundleRecord) error {
	d, _, err := c.s.e.dagSpec(rec.Digest)
	var faults manifests.Faults
	if errors.As(err, &faults) {
		return nil // it can never be published
	}
	if err != nil {
		return err
	}
	for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
		for _, step := range list {
			refs := slices.Clone(step.Data)
			if step.Plugin != nil {
				refs = append(refs, *step.Plugin)
			}
			for _, ref := range refs {
				digest, err := c.s.e.db.DigestOf(ref.String())
				if err != nil {
					return err
				}
				c.use(digest, "the DAG "+rec.Ref()+" names it")
			}
		}
	}
	return nil
}

// usePlan notes what a run was planned with.
func (c *collection) usePlan(hash string) error {
	if c.plans[hash] {
		return nil
	}
	plan, err := c.s.e.plan(hash)
	if err != nil {
		return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf("the plan %s of a run cannot be read, so that nobody knows what it needs: %v", hash, err),
			Hint: "stella bundle audit"}
	}
	c.plans[hash] = true
	why := "a run of " + plan.DAG.ID + " " + plan.DAG.Version + " was planned with it"
	used := map[string]bool{plan.DAG.Digest: true}
	for _, step := range plan.Steps {
		if step.Plugin != nil {
			used[step.Plugin.Digest] = true
		}
		for _, d := range step.Data {
			used[d.Digest] = true
		}
		if step.SubPlan != "" {
			if err := c.usePlan(step.SubPlan); err != nil {
				return err
			}
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(used)) {
		c.use(digest, why)
	}
	return nil
}
