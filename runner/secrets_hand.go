package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/telemetry"
)

// What somebody gives a step by hand is held against the same secrets as what the step
// gives out: it is kept where everybody reads it who may read runs.

// tells refuses what is given to a step by hand, a JSON object in canonical form, if it
// holds a secret of the step in its newest version. Whoever gives it learns which, and
// no more. The caller holds e.mu.
func (e *execution) tells(n *node, what string, raw []byte) error {
	names, err := e.secretsOf(n, raw)
	if err != nil || len(names) == 0 {
		return err
	}
	g, err := e.r.newest(e.tenant, names)
	defer g.forget()
	if err != nil {
		return e.fault(what+" of step "+n.id+" cannot be held against its secrets", err)
	}
	if name := g.leaks(raw); name != "" {
		return &RequestError{Text: fmt.Sprintf("%s of step %s holds the secret %s: everybody could read it who may read runs", what, n.id, name)}
	}
	return nil
}

// secretsOf are the secrets that a step may be given now, with what is given to it by
// hand, and those that it, or what it has started, was given before. What the policy
// does not let it have is not looked at.
func (e *execution) secretsOf(n *node, raw []byte) ([]string, error) {
	if n.gate() || e.r.opt.Secrets == nil {
		return nil, nil
	}
	records, err := e.r.opt.Store.Steps(e.runID)
	if err != nil {
		return nil, err
	}
	var byHand any
	if err := json.Unmarshal(raw, &byHand); err != nil {
		return nil, err
	}
	values := []any{byHand, any(n.step.With), n.step.ForEach}
	var names []string
	for _, x := range append(slices.Clone(n.items), n) {
		with := e.prog.with[n.step.ID]
		if params, err := with.eval(context.Background(), e.scope(x, with.named())); err == nil {
			values = append(values, params)
		}
		if patch := x.patch(); patch != "" {
			params, err := e.r.overlaid(nil, patch)
			if err != nil {
				return nil, err
			}
			values = append(values, params)
		}
		used, err := e.r.usedBy(e.runID, records[x.id])
		if err != nil {
			return nil, err
		}
		names = append(names, used...)
	}
	for _, name := range wished(n.step, values) {
		if n.plan.Plugin == nil {
			break // what its sub-run passes on is known once it was
		}
		err := e.r.mayHave(e, e.run.DAGDigest, n, []string{name})
		if refused := (*secretRefusal)(nil); err != nil && !errors.As(err, &refused) {
			return nil, err
		}
		if err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// usedBy are the secrets that a step's attempts, and those of the sub-run that it
// started last, were given.
func (r *Runner) usedBy(runID string, s state.Step) ([]string, error) {
	var names []string
	for i := range s.Attempt {
		a, err := r.opt.Store.Attempt(runID, s.StepID, i+1)
		if err != nil || a.Start == nil {
			continue // a number of something else than an attempt
		}
		for _, use := range a.Start.Secrets {
			names = append(names, use.Name)
		}
	}
	if s.Child == nil {
		return names, nil
	}
	below, err := r.opt.Store.Steps(s.Child.RunID)
	for _, id := range sortedKeys(below) {
		used, err := r.usedBy(s.Child.RunID, below[id])
		if err != nil {
			return nil, err
		}
		names = append(names, used...)
	}
	return names, err
}

// newest reads secrets, as far as there are any.
func (r *Runner) newest(tenant string, names []string) (g given, err error) {
	var all []telemetry.Secret
	for _, name := range names {
		_, value, err := r.opt.Secrets.Take(tenant, name)
		if errors.Is(err, ErrNoSecret) {
			continue
		}
		if err != nil {
			return g, err
		}
		g.files = append(g.files, SecretFile{name, value})
		all = append(all, telemetry.Secret{Name: name, Value: value})
	}
	g.redact, err = telemetry.NewRedactor(r.opt.RedactKey, all)
	return g, err
}
