package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What a preview says about the cache.
const (
	CacheHit       = "hit"
	CacheMiss      = "miss"
	CacheUndecided = "undecided" // its key is known only when the step runs
)

// Expected is what a start would do with one step, as far as that is known before:
// from the plan, and from expressions that name nothing but inputs.
type Expected struct {
	Step    *manifests.Step
	Plan    *PlanStep
	Phase   string           // step | on_failure | on_cancel
	Skipped state.Code       // why it would not run; "" if it would
	Open    []string         // keys of the spec that are decided only when it runs: when, for_each, with
	Items   int              // of a for_each that is known
	Inputs  []byte           // its parameters in canonical JSON, where they are known
	Fault   string           // what would fail it
	Cache   string           // CacheHit and others; "" where nothing is kept
	Hits    int              // items that would be hits
	Hit     *ledger.CacheHit // of a step without items
	Limits  manifests.Limits // of its attempts, with the site's defaults
	Action  manifests.Action // zero of what is no plugin
	Sub     *Plan            // of a sub-run
	Secrets []string         // that its attempts would be given
}

// Preview says what a start would do. It starts, seals and records nothing. The
// inputs are nil where they are not known: of a sub-run whose parameters are not.
// tier is where attempts would run.
func (r *Runner) Preview(s Start, tier string) ([]Expected, error) {
	prog, err := r.compiled(s.DAG, s.Plan.DAG.Digest)
	if err != nil {
		return nil, err
	}
	v := preview{r: r, plan: s.Plan, tier: tier, known: s.Inputs != nil}
	var inputs map[string]any
	if v.known {
		var wrong []string
		if inputs, wrong = resolveInputs(s.DAG, s.Inputs); len(wrong) > 0 {
			return nil, &InputsError{wrong}
		}
	}
	run := state.Run{
		Tenant: s.Tenant, DAGID: s.DAG.ID, DAGVersion: s.DAG.Version, DAGDigest: s.Plan.DAG.Digest, RunToken: s.RunToken,
		CreatedUTC: stamp.Format(r.opt.Now()), Generation: 1,
	}
	if v.e, err = newExecution(run, s.DAG, s.Plan, prog, inputs, nil); err != nil {
		return nil, err
	}
	v.e.r = r
	out := make([]Expected, 0, len(v.e.nodes))
	nodes := slices.Clone(v.e.nodes)
	slices.SortStableFunc(nodes, func(a, b *node) int { return int(a.phase - b.phase) }) // what cleans up comes last
	for _, n := range nodes {
		x, err := v.step(n)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// preview looks at the steps of one run that is not there.
type preview struct {
	r     *Runner
	e     *execution
	plan  *Plan
	tier  string
	known bool // the inputs are
}

// decided says whether expressions that name these things have a value now.
func (v *preview) decided(n names) bool {
	return len(n.steps) == 0 && !n.whole && len(n.run) == 0 && !n.item && (v.known || len(n.inputs) == 0)
}

func (v *preview) step(n *node) (Expected, error) {
	x := Expected{Step: n.step, Plan: n.plan, Phase: [...]string{"step", "on_failure", "on_cancel"}[n.phase]}
	if n.plan.Plugin != nil {
		m, err := v.r.opt.Sealed.Manifest(n.plan.Plugin.Digest)
		if err != nil {
			return x, err
		}
		x.Action = m.Plugin.Actions[n.plan.Action]
		p := prepared{action: x.Action}
		x.Limits = p.limits(v.r.opt.Limits)
		x.Limits.Timeout = shortest(n.step.Timeout, x.Action.Limits.Timeout, v.r.opt.Limits.Timeout)
	}
	if fault, err := v.secrets(n, &x); err != nil || fault != "" {
		x.Fault = fault
		return x, err
	}
	if n.plan.SubPlan != "" {
		var err error
		if x.Sub, err = v.plan.Sub(n.plan.SubPlan); err != nil {
			return x, err
		}
	}
	if n.step.Disabled {
		x.Skipped = state.StepDisabled
		return x, nil
	}
	if !v.condition(n, &x) {
		return x, nil
	}
	if n.step.ForEach != nil {
		return x, v.items(n, &x)
	}
	return x, v.one(n, &x)
}

// secrets says why attempts of a step could not be given the secrets that it names.
func (v *preview) secrets(n *node, x *Expected) (fault string, err error) {
	if x.Secrets = wished(n.step, n.step.With); len(x.Secrets) == 0 || n.plan.Plugin == nil {
		return "", nil
	}
	err = v.r.mayHave(v.e, v.plan.DAG.Digest, n, x.Secrets)
	for _, name := range x.Secrets {
		if err != nil {
			break
		}
		var value []byte
		if _, value, err = v.r.opt.Secrets.Take(v.e.tenant, name); errors.Is(err, ErrNoSecret) {
			err = &secretRefusal{state.SecretMissing, "there is no secret " + name + ": stella secret set " + name}
		}
		clear(value)
	}
	var refused *secretRefusal
	if errors.As(err, &refused) {
		return string(refused.code) + ": " + refused.text, nil
	}
	return "", err
}

// UsesSecrets says whether any attempt of a DAG may be given a secret: nothing of
// its sub-runs is kept then.
func UsesSecrets(d *manifests.DAG) bool {
	return hasSecretInput(d) || slices.ContainsFunc(allSteps(d), namesSecrets)
}

// condition looks at when; it returns whether the step would run.
func (v *preview) condition(n *node, x *Expected) bool {
	when := v.e.prog.when[n.step.ID]
	switch {
	case when == nil:
		return true
	case !v.decided(when.names):
		x.Open = append(x.Open, "when")
		return true
	}
	val, err := when.eval(context.Background(), v.e.scope(n, when.names))
	holds, isBool := val.(bool)
	switch {
	case err != nil || !isBool:
		x.Fault = "when is no condition"
		return false
	case !holds:
		x.Skipped = state.ConditionFalse
	}
	return holds
}

// items looks at the items of a for_each, as far as they are known.
func (v *preview) items(n *node, x *Expected) error {
	t := v.e.prog.forEach[n.step.ID]
	if !v.decided(t.named()) {
		x.Open = append(x.Open, "for_each")
		if n.step.Cache != nil {
			x.Cache = CacheUndecided
		}
		return nil
	}
	val, err := t.eval(context.Background(), v.e.scope(n, t.named()))
	list, isList := val.([]any)
	switch {
	case err != nil || !isList:
		x.Fault = "for_each gives no list"
		return nil
	case len(list) > v.r.opt.MaxItems:
		x.Fault = fmt.Sprintf("for_each gives %d items; at most %d (max_items in site.toml)", len(list), v.r.opt.MaxItems)
		return nil
	}
	x.Items = len(list)
	v.e.makeItems(n, list)
	for _, item := range n.items {
		of := Expected{}
		if err := v.one(item, &of); err != nil {
			return err
		}
		if of.Fault != "" && x.Fault == "" {
			x.Fault = item.id + ": " + of.Fault
		}
		if of.Cache == CacheHit {
			x.Hits++
		}
		if x.Cache == "" || of.Cache != CacheHit {
			x.Cache = of.Cache
		}
		if len(of.Open) > 0 {
			x.Open = of.Open
			break // as those of all others are
		}
	}
	return nil
}

// one looks at the parameters of a step, or of an item, and what is kept under them.
func (v *preview) one(n *node, x *Expected) error {
	if n.gate() {
		return nil
	}
	t := v.e.prog.with[n.step.ID]
	named := t.named()
	named.item = named.item && n.parent == nil
	if !v.decided(named) {
		x.Open = append(x.Open, "with")
		if n.step.Cache != nil {
			x.Cache = CacheUndecided
		}
		return nil
	}
	params, err := t.eval(context.Background(), v.e.scope(n, t.named()))
	if err == nil {
		x.Inputs, err = jcs.Marshal(params)
	}
	if err != nil {
		x.Fault = "with: " + err.Error()
		return nil
	}
	if n.plan.Plugin == nil {
		return nil
	}
	p := &prepared{params: x.Inputs, inputsHash: Hash(x.Inputs)}
	if p.manifest, err = v.r.opt.Sealed.Manifest(n.plan.Plugin.Digest); err != nil {
		return err
	}
	p.action = p.manifest.Plugin.Actions[n.plan.Action]
	if fault := v.r.invalid(p.manifest, p.action.Params, p.params); fault != "" {
		x.Fault = "params: " + fault
		return nil
	}
	return v.kept(n, p, x)
}

// kept looks for what was done before in the same way.
func (v *preview) kept(n *node, p *prepared, x *Expected) error {
	key := v.r.cacheKey(v.e, n, p, v.tier)
	if key == "" {
		return nil
	}
	x.Cache = CacheMiss
	hit, ok, err := v.r.opt.Store.CachedOutputs(key, stamp.Format(v.r.opt.Now()))
	if err != nil || !ok {
		return err
	}
	x.Cache = CacheHit
	if n.parent == nil {
		x.Hit = &hit
	}
	return nil
}

// Sub is the plan of a sub-run, of one that was just made.
func (p *Plan) Sub(hash string) (*Plan, error) {
	for _, raw := range p.subs {
		if Hash(raw) != hash {
			continue
		}
		sub, err := DecodePlan(raw)
		if err != nil {
			return nil, err
		}
		sub.subs = p.subs // those below it are among them
		return sub, nil
	}
	return nil, fmt.Errorf("runner: the plan has no plan %s below it", hash)
}
