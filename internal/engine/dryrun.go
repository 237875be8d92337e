package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// PlanRun implements [api.Planning].
func (s *site) PlanRun(_ context.Context, req api.StartRequest) (api.RunPlan, error) {
	e := s.e
	if strings.HasPrefix(req.RunToken, "stella:") {
		return api.RunPlan{}, invalid("run tokens that begin with stella: are reserved")
	}
	canonical, hash, err := runner.CanonicalInputs(req.Inputs)
	if err != nil {
		return api.RunPlan{}, &api.Error{Code: api.CodeInputsInvalid, Message: err.Error()}
	}
	token := req.RunToken
	if err := checkStart(&req); err != nil {
		return api.RunPlan{}, err
	}
	d := dryRun{s: s, req: req, named: token != "", out: api.RunPlan{
		Tenant: s.tenant, DAGID: req.DAGID, InputsHash: hash, Priority: req.Priority, AllowPlain: e.site.AllowPlain, Workers: e.site.Workers,
		Problems: []api.PlanProblem{}, Limits: []api.PlanLimit{}, Paused: []api.QueueStop{}, Steps: []api.PlannedStep{},
	}}
	if e.opt.Executor != nil {
		d.out.Tier = e.opt.Executor.Tier()
	}
	if token != "" {
		if done, err := d.before(token, hash); done || err != nil {
			return d.out, err
		}
	}
	e.gate.RLock()
	defer e.gate.RUnlock()
	if err := d.plan(canonical); err != nil {
		return d.out, err
	}
	d.out.Startable = len(d.out.Problems) == 0
	return d.out, nil
}

// dryRun gathers what a start would do.
type dryRun struct {
	s     *site
	req   api.StartRequest
	named bool // the caller knows the token
	out   api.RunPlan
	locks map[[2]string]api.Lock
}

// problem takes over what would keep the start from being accepted; false for an
// error that is about us.
func (d *dryRun) problem(err error) bool {
	var why *api.Error
	if err == nil || !errors.As(dbError(err), &why) || why.Code == api.CodeInternal || why.Code == api.CodeDamaged {
		return false
	}
	d.out.Problems = append(d.out.Problems, api.PlanProblem{Code: string(why.Code), Message: why.Message, Faults: why.Faults, Hint: why.Hint})
	return true
}

// before looks whether the token is taken; done says that there is nothing to plan.
func (d *dryRun) before(token, hash string) (done bool, err error) {
	run, err := d.s.e.db.RunByToken(d.s.tenant, token)
	switch {
	case store.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, dbError(err)
	}
	if d.problem(conflicting(run, d.req, hash)) {
		return false, nil // the rest is worth knowing all the same
	}
	d.out.Run, d.out.Startable, d.out.DAGVersion, d.out.DAGDigest, d.out.PlanHash = &run, true, run.DAGVersion, run.DAGDigest, run.PlanHash
	return true, nil
}

// plan finds everything that is wrong with the start, and what it would run.
func (d *dryRun) plan(canonical []byte) error {
	e := d.s.e
	d.problem(d.s.accepts(d.named))
	if d.out.Tier == "plain" && !e.site.AllowPlain {
		d.problem(plainForbidden())
	}
	q, err := e.db.Queue()
	if err != nil {
		return dbError(err)
	}
	d.out.Paused = stops(q.Paused, d.s.tenant)
	rec, err := e.findDAG(d.req.DAGID, d.req.Version)
	if err != nil {
		var why *api.Error
		if errors.As(err, &why) && why.Code == api.CodeDAGDisabled && d.problem(err) {
			return nil // nothing would run
		}
		return err
	}
	d.out.DAGVersion, d.out.DAGDigest = rec.Version, rec.Digest
	if _, err := e.sealed.Judge(rec.Digest); err != nil && !d.problem(judged(rec.DAGID+" "+rec.Version, err)) {
		return dbError(err)
	}
	spec, _, err := e.dagSpec(rec.Digest)
	if err != nil {
		return dbError(err)
	}
	d.out.FailFast, d.out.TimeoutMs = spec.FailFast, spec.Timeout.Milliseconds()
	if d.out.Parallel = spec.MaxParallelSteps; d.out.Parallel == 0 {
		d.out.Parallel = e.site.MaxParallelSteps
	}
	if err := d.readLocks(); err != nil {
		return err
	}
	p, err := e.newPlan(spec, rec.Digest)
	if d.problem(err) {
		d.unplanned(spec, err)
		return nil
	} else if err != nil {
		return dbError(err)
	}
	raw, err := p.Encode()
	if err != nil {
		return internal(err)
	}
	d.out.PlanHash = runner.Hash(raw)
	err = d.steps("", runner.Start{Tenant: d.s.tenant, DAG: spec, Plan: p, Inputs: canonical, RunToken: d.req.RunToken}, false)
	if d.problem(err) { // the inputs do not fit; the steps are planned all the same
		err = d.steps("", runner.Start{Tenant: d.s.tenant, DAG: spec, Plan: p, RunToken: d.req.RunToken}, false)
	}
	d.limits(spec)
	return dbError(err)
}

func (d *dryRun) readLocks() error {
	all, err := d.s.locks()
	if err != nil {
		return err
	}
	d.locks = map[[2]string]api.Lock{}
	for _, l := range all {
		d.locks[[2]string{l.Kind, l.Name}] = l
	}
	return nil
}

// limits are those of site.toml that the run is under.
func (d *dryRun) limits(spec *manifests.DAG) {
	c := d.s.e.site.Concurrency
	add := func(of, name string, own map[string]int, general int) {
		if n, ok := own[name]; ok {
			general = n
		}
		if general > 0 {
			d.out.Limits = append(d.out.Limits, api.PlanLimit{Of: of + " " + name, Limit: general})
		}
	}
	add("tenant", d.s.tenant, c.Tenant, c.PerTenant)
	add("dag", spec.ID, c.DAG, c.PerDAG)
	seen := map[string]bool{}
	for _, x := range d.out.Steps {
		if x.Plugin == nil || seen[x.Plugin.Publisher+"/"+x.Plugin.Name] {
			continue
		}
		name := x.Plugin.Publisher + "/" + x.Plugin.Name
		seen[name] = true
		add("plugin", name, c.Plugin, c.PerPlugin)
	}
}

// unplanned lists the steps of a DAG that cannot be planned, with what each lacks.
func (d *dryRun) unplanned(spec *manifests.DAG, err error) {
	missing := map[string]string{}
	var plan *runner.PlanError
	if errors.As(err, &plan) {
		for _, f := range plan.Faults {
			missing[strings.TrimPrefix(f.Key, "step ")] = f.Text
		}
	}
	for _, st := range runner.Order(spec) {
		x := d.planned("", runner.Expected{Step: st, Plan: &runner.PlanStep{StepID: st.ID}, Phase: "step"})
		if x.Missing = missing[st.ID]; x.Missing != "" {
			x.Would, x.Why = "fail", x.Missing
		}
		d.out.Steps = append(d.out.Steps, x)
	}
}

// steps lists the steps of a run, and below each sub-run its own; nothing of them
// is kept where a run above is given secrets.
func (d *dryRun) steps(below string, s runner.Start, secret bool) error {
	all, err := d.s.e.runner.Preview(s, d.out.Tier)
	if err != nil {
		return err
	}
	for _, x := range all {
		if secret {
			x.Cache, x.Hit, x.Hits = "", nil, 0
		}
		out := d.planned(below, x)
		if err := d.judge(&out, x); err != nil {
			return err
		}
		i := len(d.out.Steps)
		d.out.Steps = append(d.out.Steps, out)
		if x.Sub == nil {
			continue
		}
		spec, _, err := d.s.e.dagSpec(x.Sub.DAG.Digest)
		if err != nil {
			return err
		}
		sub := runner.Start{Tenant: s.Tenant, DAG: spec, Plan: x.Sub, Inputs: x.Inputs, RunToken: s.RunToken}
		secret := secret || runner.UsesSecrets(s.DAG)
		err = d.steps(out.StepID+"/", sub, secret)
		var wrong *runner.InputsError
		if errors.As(err, &wrong) {
			d.out.Steps[i].Would, d.out.Steps[i].Why = "fail", strings.Join(wrong.Faults, "; ")
			sub.Inputs = nil
			err = d.steps(out.StepID+"/", sub, secret)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// judge says of a plugin and its data whether they may still be used: what is read
// from the cache is judged then, too.
func (d *dryRun) judge(out *api.PlannedStep, x runner.Expected) error {
	if x.Plan.Plugin == nil {
		return nil
	}
	m, err := d.s.e.sealed.Manifest(x.Plan.Plugin.Digest)
	if err != nil {
		return err
	}
	out.Network, out.HostRead = cmp.Or(m.Plugin.Network, "none"), m.Plugin.HostRead
	return nil
}

// planned says what would happen to one step.
func (d *dryRun) planned(below string, x runner.Expected) api.PlannedStep {
	st := x.Step
	out := api.PlannedStep{
		StepID: below + st.ID, Phase: x.Phase, Kind: "gate", Would: "run", Why: x.Fault, DecidedLater: x.Open, Items: x.Items, Cache: x.Cache, Hits: x.Hits,
		Action: st.Action, Entry: x.Plan.Entry, PlanHash: x.Plan.SubPlan, Idempotent: st.Idempotent, MaxAttempts: st.Retry.MaxAttempts,
		Priority: st.Priority, Require: append(slices.Clone(x.Action.Require), st.Require...), Secrets: x.Secrets, AllowSkip: st.AllowSkip,
		ContinueOnErr: st.ContinueOnError, TimeoutMs: x.Limits.Timeout.Milliseconds(), Memory: x.Limits.Memory, CPU: x.Limits.CPU, PIDs: x.Limits.PIDs,
	}
	if out.DecidedLater == nil {
		out.DecidedLater = []string{}
	}
	for _, need := range st.Needs {
		out.Needs = append(out.Needs, below+need)
	}
	if x.Inputs != nil {
		out.InputsHash = runner.Hash(x.Inputs)
	}
	switch {
	case x.Fault != "":
		out.Would = "fail"
	case x.Skipped != "":
		out.Would, out.Why = "skip", string(x.Skipped)
	case x.Cache == runner.CacheHit:
		out.Would = "cached"
	}
	if st.Plugin != nil {
		out.Kind = "plugin"
		out.Plugin = &state.Plugin{Publisher: st.Plugin.Publisher, Name: st.Plugin.Name, Version: st.Plugin.Version}
	}
	if p := x.Plan.Plugin; p != nil {
		out.Plugin.Digest, out.Idempotent = p.Digest, st.Idempotent && x.Action.Idempotent
	}
	if i := x.Plan.Interpreter; i != nil {
		out.Interpreter = &api.PlannedFile{Name: i.Path, Digest: i.SHA256}
	}
	for _, data := range x.Plan.Data {
		out.Data = append(out.Data, api.PlannedFile{Name: data.Ref, Digest: data.Digest})
	}
	if st.DAG != "" {
		out.Kind, out.DAG = "sub-run", st.DAG
	}
	if x.Sub != nil {
		out.DAGDigest = x.Sub.DAG.Digest
	}
	if h := x.Hit; h != nil {
		out.Cached = &api.CacheEntry{Key: h.Key, DAGID: d.out.DAGID, RunID: h.RunID, StepID: h.StepID, Attempt: h.Attempt, InputsHash: h.InputsHash,
			OutputsHash: h.OutputsHash, Artifacts: len(h.Artifacts), StoredUTC: h.Stored, ExpiresUTC: h.Expires, TTLMs: d.left(h.Expires)}
	}
	out.Locks = d.locksOf(st)
	if c := st.Checkpoint; c != nil {
		out.Checkpoint = &api.PlannedApproval{Question: c.Question, Approvers: c.Approvers, Quorum: max(1, c.Quorum), ExcludeStarter: c.ExcludeStarter,
			Required: c.Required, ExpiresMs: c.Expires.Milliseconds()}
	}
	return out
}

func (d *dryRun) left(until string) int64 {
	t, err := stamp.Parse(until)
	if err != nil {
		return 0
	}
	return max(0, t.Sub(d.s.e.opt.Now()).Milliseconds())
}

// locksOf are the locks that a step needs, as they are now.
func (d *dryRun) locksOf(st *manifests.Step) []api.PlannedLock {
	var out []api.PlannedLock
	add := func(kind, name string, weight int64) {
		l := api.PlannedLock{Kind: kind, Name: name, Weight: weight, Capacity: 1}
		if kind == "semaphore" {
			l.Capacity = d.s.e.site.Semaphores[name]
		}
		l.Held = d.locks[[2]string{kind, name}].Held
		out = append(out, l)
	}
	for _, name := range slices.Sorted(slices.Values(st.Locks)) {
		add("lock", name, 1)
	}
	names := make([]string, 0, len(st.Semaphores))
	for name := range st.Semaphores {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add("semaphore", name, st.Semaphores[name])
	}
	return out
}

// plainForbidden says that attempts would run without fences.
func plainForbidden() *api.Error {
	return &api.Error{Code: api.CodePlainForbidden,
		Message: "attempts would run without fences on this machine, and site.toml does not allow that",
		Hint:    "set allow_plain = true in site.toml if you accept it; it is recorded with each attempt"}
}

// conflicting says how a start differs from the run that has its token, nil if it
// is the same.
func conflicting(run state.Run, req api.StartRequest, inputsHash string) error {
	var differs []string
	if req.DAGID != run.DAGID {
		differs = append(differs, fmt.Sprintf("dagId is %q, it was %q", req.DAGID, run.DAGID))
	}
	if req.Version != "" && req.Version != run.DAGVersion {
		differs = append(differs, fmt.Sprintf("version is %q, it was %q", req.Version, run.DAGVersion))
	}
	if inputsHash != run.InputsHash {
		differs = append(differs, fmt.Sprintf("inputsHash is %s, it was %s", inputsHash, run.InputsHash))
	}
	if len(differs) == 0 {
		return nil
	}
	return &api.Error{
		Code: api.CodeRunTokenConflict, Message: "the token belongs to run " + run.RunID + ": " + strings.Join(differs, "; "),
		Faults: differs, Hint: "use another token for other work; nothing was started",
	}
}
