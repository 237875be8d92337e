package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// maxOverview bounds the steps of an overview.
const maxOverview = 200

// GetRun reads a run with all steps of its plan, and their items.
func (s *site) GetRun(_ context.Context, id string) (api.RunDetail, error) {
	run, err := s.run(id)
	if err != nil {
		return api.RunDetail{}, err
	}
	o, _ := s.e.opened(run) // what cannot be read is said
	steps, err := s.steps(o)
	if err != nil {
		return api.RunDetail{}, err
	}
	parent, err := s.parentOf(run)
	return api.RunDetail{Run: run, StepList: steps, Parent: parent, Damage: s.e.damage(o)}, err
}

// RunOverview reads a run with the steps that matter now: all of a small one, and
// of a large one those that do something, wait for people or have failed. What it
// costs does not grow with the run.
func (s *site) RunOverview(ctx context.Context, id string) (api.RunDetail, error) {
	run, err := s.run(id)
	if err != nil || run.Steps+run.Items <= maxOverview {
		if err != nil {
			return api.RunDetail{}, err
		}
		return s.GetRun(ctx, id)
	}
	live, err := s.e.db.LiveSteps(id, maxOverview)
	if err != nil {
		return api.RunDetail{}, dbError(err)
	}
	out := api.RunDetail{Run: run, StepList: []api.StepInfo{}, LeftOut: run.Steps + run.Items - len(live), Damage: s.e.knownDamage(run)}
	d, _, err := s.e.dagSpec(run.DAGDigest)
	if err != nil {
		d, out.Damage = &manifests.DAG{}, damageText(run, err)
	}
	rest := s.rest(run)
	for _, rec := range live {
		info := api.StepInfo{Step: rec}
		if st := findStep(d, rec.StepID); st != nil {
			info.Needs, info.Action = st.Needs, st.Action
			info.Waiting, info.GivenUp = s.waiting(run, d, st, rec, nil, rest), rest.lingers[rec.StepID].Former
		}
		out.StepList = append(out.StepList, info)
	}
	out.Parent, err = s.parentOf(run)
	return out, err
}

// findStep finds the step that a record is of; that of an item is its step's.
func findStep(d *manifests.DAG, id string) *manifests.Step {
	id, _, _ = strings.Cut(id, ".")
	for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
		for i := range list {
			if list[i].ID == id {
				return &list[i]
			}
		}
	}
	return nil
}

// steps joins the records of a run's steps with its plan and its spec; the items
// of a step follow it.
func (s *site) steps(o runner.Opened) ([]api.StepInfo, error) {
	records, err := s.e.db.Steps(o.Run.RunID)
	if err != nil {
		return nil, dbError(err)
	}
	if o.DAG == nil {
		return bareSteps(records), nil
	}
	items := map[string][]state.Step{}
	for id, rec := range records {
		if step, _, isItem := strings.Cut(id, "."); isItem {
			items[step] = append(items[step], rec)
		}
	}
	out, rest := []api.StepInfo{}, s.rest(o.Run)
	for _, st := range runner.Order(o.DAG) {
		rec, ok := records[st.ID]
		if !ok {
			rec = state.Step{StepID: st.ID, Status: state.Pending}
		}
		slices.SortFunc(items[st.ID], func(a, b state.Step) int { return itemNumber(a.StepID) - itemNumber(b.StepID) })
		cleanup := isCleanup(o.DAG, st.ID)
		count, begun, over := rec.Count, rec.Status != state.Pending, rec.Status.Ended()
		for _, rec := range append([]state.Step{rec}, items[st.ID]...) {
			if begun && rec.StepID != st.ID && rec.Status == state.Pending && (over || itemNumber(rec.StepID) >= count) {
				continue // its list was longer once, or it has ended without one
			}
			rec = state.Shown(&o.Run, rec, cleanup)
			info := api.StepInfo{Step: rec, Needs: st.Needs, Action: st.Action}
			info.Plugin = pluginOf(o.Plan, st.ID)
			info.Waiting, info.GivenUp = s.waiting(o.Run, o.DAG, st, rec, records, rest), rest.lingers[rec.StepID].Former
			out = append(out, info)
		}
	}
	return out, nil
}

// pluginOf is what a plan, if it can be read, says that a step runs.
func pluginOf(plan *runner.Plan, stepID string) *state.Plugin {
	if plan == nil {
		return nil
	}
	p := plan.Step(stepID)
	if p == nil || p.Plugin == nil {
		return nil
	}
	return &state.Plugin{Publisher: p.Plugin.Publisher, Name: p.Plugin.Name, Version: p.Plugin.Version, Digest: p.Plugin.Digest}
}

// isCleanup says whether a step is one of on_failure or on_cancel.
func isCleanup(d *manifests.DAG, id string) bool {
	is := func(s manifests.Step) bool { return s.ID == id }
	return slices.ContainsFunc(d.OnFailure, is) || slices.ContainsFunc(d.OnCancel, is)
}

func itemNumber(id string) int {
	n := 0
	_, number, _ := strings.Cut(id, ".")
	_, _ = fmt.Sscanf(number, "%d", &n)
	return n
}

// rest is what keeps a run from going on and is not on record.
type rest struct {
	givenUp bool
	lingers map[string]runner.Linger // by step
}

func (s *site) rest(run state.Run) rest {
	if run.Status.Ended() {
		return rest{}
	}
	return rest{s.e.runner.Fault(run.RunID) != nil, s.e.runner.Lingers(run.RunID)}
}

// waiting says in words what a step waits for. Without records its needs are not
// looked at.
func (s *site) waiting(run state.Run, d *manifests.DAG, st *manifests.Step, rec state.Step, records map[string]state.Step, rest rest) string {
	if run.Status.Ended() {
		return ""
	}
	if rest.givenUp && !rec.Status.Ended() {
		return "nothing: the run was given up for a fault in stella; stella daemon restart takes it up again"
	}
	if l := rest.lingers[rec.StepID]; l.Why != "" {
		if text := s.peopleOf(l.Former); text != "" {
			return l.Why + " and" + strings.TrimPrefix(text, ",")
		}
		return l.Why
	}
	switch rec.Status {
	case state.Pending:
		return waitingForNeeds(d, st, records)
	case state.Queued:
		return s.waitingInQueue(run, rec)
	case state.CheckpointPending:
		return s.waitingForPeople(run, rec)
	case state.Running:
		if c := rec.Child; c != nil && c.Status == "" && !rec.Open {
			return "run " + c.RunID + " of " + c.DAGID + " " + c.DAGVersion + s.peopleOf(c.RunID)
		}
	}
	return ""
}

// waitingForNeeds names what a step needs and has not ended, or where all of that has, what
// comes before that and is done again.
func waitingForNeeds(d *manifests.DAG, st *manifests.Step, records map[string]state.Step) string {
	if records == nil {
		return ""
	}
	word := "needs "
	seen := map[string]bool{}
	for level := st.Needs; len(level) > 0; word = "comes after " {
		var open, next []string
		for _, id := range level {
			if seen[id] {
				continue
			}
			seen[id] = true
			if !records[id].Status.Ended() {
				open = append(open, id)
			} else if need := findStep(d, id); need != nil {
				next = append(next, need.Needs...)
			}
		}
		if len(open) > 0 {
			slices.Sort(open)
			return word + strings.Join(open, ", ")
		}
		level = next
	}
	return ""
}

// peopleOf names the first approval that a sub-run waits for, itself or further
// down; "" where it waits for none, or that cannot be read now.
func (s *site) peopleOf(runID string) string {
	if runID == "" {
		return ""
	}
	run, err := s.e.db.Run(runID)
	if err != nil || run.Status.Ended() || run.Open > 0 {
		return ""
	}
	steps, err := s.e.db.LiveSteps(runID, maxQueued)
	if err != nil {
		return ""
	}
	for _, st := range steps {
		switch c := st.Child; {
		case st.Status == state.CheckpointPending && st.Approval != nil:
			return ", which waits for people; see: stella orch approvals show " + state.ApprovalID(runID, st.StepID, st.Approval.Attempt)
		case st.Status == state.Running && c != nil && c.Status == "":
			if text := s.peopleOf(c.RunID); text != "" {
				return text
			}
		}
	}
	return ""
}

func (s *site) waitingInQueue(run state.Run, rec state.Step) string {
	switch {
	case rec.Due != "" && rec.DueTime().After(s.e.opt.Now()):
		return "due at " + rec.Due
	case !s.e.runner.Executes(run.RunID):
		return "nobody executes the run; see: stella orch run resume " + run.RunID
	}
	if why := s.e.runner.Waits(run.RunID, rec.StepID); why != "" {
		return why
	}
	return "a free worker"
}

// waitingForPeople says who must decide what, and until when.
func (s *site) waitingForPeople(run state.Run, rec state.Step) string {
	a := rec.Approval
	if a == nil {
		return ""
	}
	text := fmt.Sprintf("people: %s (%d of %d decided", a.Request.Question, len(a.Decisions), a.Request.Quorum)
	if len(a.Request.Approvers) > 0 {
		text += ", by " + strings.Join(a.Request.Approvers, " or ")
	}
	starters, err := s.starters(run)
	if err != nil {
		starters = run.Starters() // the rest is worth saying all the same
	}
	if a.Request.ExcludeStarter {
		text += ", not by " + strings.Join(starters, " or ")
	}
	switch {
	case s.e.overdue(a.Request):
		text += ", its time is over since " + a.Request.Expires
	case a.Request.Expires != "":
		text += ", until " + a.Request.Expires
	}
	if note := deadlock(run, rec.StepID, a, a.Reach(starters)); note != "" {
		return text + "): " + note
	}
	return text + "); see: stella orch approvals show " + state.ApprovalID(run.RunID, rec.StepID, a.Attempt)
}

// InspectRun tells the whole story of a run.
func (s *site) InspectRun(_ context.Context, id string) (api.RunInspection, error) {
	run, err := s.run(id)
	if err != nil {
		return api.RunInspection{}, err
	}
	o, _ := s.e.opened(run) // what cannot be read is said, and the rest of the story told
	out := api.RunInspection{Run: run, Inputs: o.Inputs, Executed: s.e.runner.Executes(id), Entries: []api.LedgerLine{}, Children: []state.Run{}, Damage: s.e.damage(o)}
	if o.Plan != nil {
		if out.Plan, err = o.Plan.Encode(); err != nil {
			return out, internal(err)
		}
	}
	if _, spec, err := s.e.dagSpec(run.DAGDigest); err == nil {
		out.Spec = string(spec)
	}
	if run.OutputsHash != "" {
		if out.Outputs, err = s.e.db.Blobs().Read(run.OutputsHash, runner.MaxOutputsBytes); err != nil {
			out.Damage = damageText(run, err)
		}
	}
	if out.Steps, err = s.steps(o); err != nil {
		return out, err
	}
	if out.Parent, err = s.parentOf(run); err != nil {
		return out, err
	}
	if out.Attempts, err = s.e.db.Attempts(id, ""); err != nil {
		return out, dbError(err)
	}
	out.Bundles = []api.UsedBundle{}
	if o.Plan != nil {
		if out.Bundles, err = s.usedBundles(o); err != nil {
			out.Damage = damageText(run, err)
		}
	}
	if run.ReplayOf != "" && run.Status.Ended() {
		if out.Replay, err = s.e.runner.Compare(run); err != nil {
			return out, dbError(err)
		}
	}
	return out, s.entriesOf(&out)
}

// entriesOf adds the entries of a run, and the sub-runs that they name.
func (s *site) entriesOf(out *api.RunInspection) error {
	for l, err := range s.e.db.RunEntries(out.Run.RunID) {
		if err != nil {
			return dbError(err)
		}
		out.Entries = append(out.Entries, line(l))
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			continue
		}
		s.given(out, env.Type, l.Data)
		if env.Type != ledger.SubrunStarted {
			continue
		}
		started, err := dataOf[ledger.SubrunStart](env.Type, l.Data)
		if err != nil {
			return dbError(err)
		}
		child, err := s.run(started.RunID)
		if err != nil {
			return err
		}
		out.Children = append(out.Children, child)
	}
	return nil
}

// maxGiven bounds what is shown of what was given by hand; its digest is in the entry.
const maxGiven = 64 << 10

// given adds what an entry says that somebody has given by hand: a merge patch, or
// outputs that stand for a step's own. What cannot be read, or is large, is left out.
func (s *site) given(out *api.RunInspection, t ledger.Type, raw []byte) {
	hash := ""
	switch t {
	case ledger.ApprovalDecided:
		if d, err := dataOf[ledger.ApprovalDecision](t, raw); err == nil {
			hash = d.Modifications
		}
	case ledger.StepInvalidated:
		if d, err := dataOf[ledger.StepInvalidation](t, raw); err == nil {
			hash = d.Overlay
		}
	case ledger.StepSkipped, ledger.StepCompleted:
		if d, err := dataOf[ledger.StepEnd](t, raw); err == nil && d.Overridden {
			hash = d.OutputsHash
		}
	}
	if hash == "" || out.Given[hash] != nil {
		return
	}
	if value, err := s.e.db.Blobs().Read(hash, maxGiven); err == nil {
		if out.Given == nil {
			out.Given = map[string]json.RawMessage{}
		}
		out.Given[hash] = value
	}
}

// dataOf decodes a data line; of one that was erased the zero value.
func dataOf[T any](t ledger.Type, raw []byte) (*T, error) {
	if len(raw) == 0 {
		return new(T), nil
	}
	l, err := ledger.ParseData(raw)
	if err != nil {
		return nil, err
	}
	v, err := ledger.DecodeData(t, l.Data)
	if err != nil {
		return nil, err
	}
	return v.(*T), nil
}

// A usedSet collects the bundles that a plan names, in their order there.
type usedSet struct {
	order []string            // digests
	steps map[string][]string // that use one, by digest
	plans map[string]bool     // of sub-runs, that were looked at
}

func (u *usedSet) use(digest, step string) {
	if !slices.Contains(u.order, digest) {
		u.order = append(u.order, digest)
	}
	if step != "" {
		u.steps[digest] = append(u.steps[digest], step)
	}
}

// plan adds what a plan names, and what the plans of its sub-runs do, whose steps are
// below theirs. What many steps run is followed below the first of them.
func (u *usedSet) plan(e *Engine, p *runner.Plan, below string) error {
	for _, st := range p.Steps {
		id := below + st.StepID
		if st.Plugin != nil {
			u.use(st.Plugin.Digest, id)
		}
		for _, d := range st.Data {
			u.use(d.Digest, id)
		}
		if st.SubPlan == "" {
			continue
		}
		sub, err := e.plan(st.SubPlan)
		if err != nil {
			return err
		}
		u.use(sub.DAG.Digest, id)
		if u.plans[st.SubPlan] {
			continue
		}
		u.plans[st.SubPlan] = true
		if err := u.plan(e, sub, id+"/"); err != nil {
			return err
		}
	}
	return nil
}

// usedBundles are the bundles that a plan and those of its sub-runs name, the DAG's
// first, each with its verdict and what the trust in force says of it now. They end
// where a plan cannot be read, which is the error.
func (s *site) usedBundles(o runner.Opened) ([]api.UsedBundle, error) {
	used := usedSet{steps: map[string][]string{}, plans: map[string]bool{}}
	used.use(o.Plan.DAG.Digest, "")
	unread := used.plan(s.e, o.Plan, "")
	order, steps := used.order, used.steps
	out := []api.UsedBundle{}
	for _, digest := range order {
		rec, err := s.e.db.Bundle(digest)
		if err != nil {
			return out, err
		}
		v := rec.Admission.Verdict
		used := api.UsedBundle{Ref: rec.Ref(), Kind: v.Kind, Digest: digest, Steps: steps[digest], Decision: v.Decision, Signers: []string{}, Now: api.BundleOK}
		for _, signer := range v.Signers {
			used.Signers = append(used.Signers, signer.ID)
		}
		if _, err := s.e.sealed.Judge(digest); err != nil {
			used.Now = "cannot be judged: " + err.Error() // the story must be told all the same
			var r *refused
			if errors.As(err, &r) {
				used.Now = r.Reason()
			}
		}
		out = append(out, used)
	}
	return out, unread
}
