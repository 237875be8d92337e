package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/telemetry"
)

// Secrets are the secrets of a site, under the trust in force.
type Secrets interface {
	// Granted says whether the policy in force lets an attempt have a secret.
	Granted(w SecretWish) bool
	// Take reads the newest version; [ErrNoSecret] where there is none.
	Take(tenant, name string) (version int64, value []byte, err error)
}

// SecretWish is a secret that an attempt should be given.
type SecretWish struct {
	Name, Tenant, DAGPublisher, DAGID, Publisher, Plugin string
}

// A SecretFile is a secret for a task: it finds it in $STELLA_SECRETS/NAME, while
// it runs and no longer.
type SecretFile struct {
	Name  string
	Value []byte
}

// ErrNoSecret says that there is no secret of a name.
var ErrNoSecret = errors.New("runner: there is no such secret")

// errPlainSecrets is why no attempt of tier plain is given a secret.
var errPlainSecrets = errors.New("this tier writes secrets to a folder on disk, which other programs of the same user can read while the attempt runs: set allow_plain_secrets = true in site.toml if you accept that")

// secretRefusal is a secret that an attempt may not have, or that is not there.
type secretRefusal struct {
	code state.Code
	text string
}

func (e *secretRefusal) Error() string  { return e.text }
func (e *secretRefusal) Reason() string { return string(e.code) }

// given is what an attempt is given. Its values exist while the attempt does.
type given struct {
	names  []string // sorted
	files  []SecretFile
	uses   []ledger.SecretUse
	redact *telemetry.Redactor // nil without secrets
}

// forget drops the values.
func (g *given) forget() {
	for _, f := range g.files {
		clear(f.Value)
	}
	g.files = nil
}

// mask is a message without the values.
func (g *given) mask(s string) string {
	if g.redact == nil {
		return s
	}
	return g.redact.Text(s)
}

// wished are the secrets that a step names, and those that its parameters refer
// to as {"secretRef": NAME}; sorted, each once.
func wished(step *manifests.Step, params any) []string {
	out := slices.Clone(step.Secrets)
	eachRef(params, func(name string) { out = append(out, name) })
	slices.Sort(out)
	return slices.Compact(out)
}

// eachRef finds the objects {"secretRef": NAME} in a value.
func eachRef(v any, found func(name string)) {
	switch x := v.(type) {
	case []any:
		for _, v := range x {
			eachRef(v, found)
		}
	case map[string]any:
		if name, ok := secretRef(x); ok {
			found(name)
			return
		}
		for _, v := range x {
			eachRef(v, found)
		}
	}
}

// secretRef is the name in {"secretRef": NAME}.
func secretRef(v any) (string, bool) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return "", false
	}
	name, ok := m["secretRef"].(string)
	return name, ok && manifests.ValidName(name)
}

// mayHave says whether an attempt of n may be given these secrets now: the
// action's manifest asks for each, and the policy grants it.
func (r *Runner) mayHave(e *execution, dag string, n *node, names []string) error {
	if len(names) == 0 {
		return nil
	}
	m, err := r.opt.Sealed.Manifest(n.plan.Plugin.Digest)
	if err != nil {
		return err
	}
	d, err := r.opt.Sealed.Manifest(dag)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(m.Plugin.Actions[n.plan.Action].Secrets, name) {
			return &secretRefusal{state.SecretNotGranted, fmt.Sprintf("the action %s of %s does not ask for the secret %s in its manifest", n.plan.Action, m.Ref(), name)}
		}
		w := SecretWish{name, e.tenant, d.Publisher, e.dag.ID, m.Publisher, m.Name}
		if r.opt.Secrets == nil || !r.opt.Secrets.Granted(w) {
			return &secretRefusal{state.SecretNotGranted, fmt.Sprintf("the policy does not grant the secret %s to %s/%s in runs of %s/%s in tenant %s: stella trust add %s --secret %s=%s,%s,%s/%s",
				name, m.Publisher, m.Name, d.Publisher, e.dag.ID, e.tenant, m.Publisher, name, e.tenant, m.Name, d.Publisher, e.dag.ID)}
		}
	}
	return nil
}

// takeSecrets reads what an attempt is given, each in its newest version.
func (r *Runner) takeSecrets(e *execution, names []string) (g given, err error) {
	g.names = names
	if len(names) == 0 {
		return g, nil
	}
	if r.opt.Executor != nil && r.opt.Executor.Tier() == "plain" && !r.opt.PlainSecrets {
		return g, errPlainSecrets
	}
	defer func() {
		if err != nil {
			g.forget()
		}
	}()
	var all []telemetry.Secret
	for _, name := range names {
		version, value, err := r.opt.Secrets.Take(e.tenant, name)
		if errors.Is(err, ErrNoSecret) {
			return g, &secretRefusal{state.SecretMissing, fmt.Sprintf("there is no secret %s in tenant %s: stella secret set %s", name, e.tenant, name)}
		}
		if err != nil {
			return g, err
		}
		g.files = append(g.files, SecretFile{name, value})
		g.uses = append(g.uses, ledger.SecretUse{Name: name, Version: version})
		all = append(all, telemetry.Secret{Name: name, Value: value})
	}
	g.redact, err = telemetry.NewRedactor(r.opt.RedactKey, all)
	return g, err
}

// giveSecrets finds out what an attempt is to be given, and reads it if it may have
// it.
func (r *Runner) giveSecrets(e *execution, dag string, n *node, p *prepared, params any) error {
	names := wished(n.step, params)
	p.secrets.names = names
	if err := r.mayHave(e, dag, n, names); err != nil {
		return err
	}
	var err error
	p.secrets, err = r.takeSecrets(e, names)
	return err
}

// leaks says which secret stands in outputs, as they are in canonical form or in
// one of their texts; "" if none does.
func (g *given) leaks(outputs []byte) string {
	if g.redact == nil {
		return ""
	}
	if name := g.redact.Find(outputs); name != "" {
		return name
	}
	var v any
	if json.Unmarshal(outputs, &v) != nil {
		return ""
	}
	return g.inTexts(v)
}

func (g *given) inTexts(v any) string {
	switch x := v.(type) {
	case string:
		return g.redact.Find([]byte(x))
	case []any:
		for _, v := range x {
			if name := g.inTexts(v); name != "" {
				return name
			}
		}
	case map[string]any:
		for k, v := range x {
			if name := g.redact.Find([]byte(k)); name != "" {
				return name
			}
			if name := g.inTexts(v); name != "" {
				return name
			}
		}
	}
	return ""
}

// PurgeWorkspace removes what an attempt that was given secrets has left, of which
// nobody knows what it holds; files that it was given are overwritten before. It is
// called before the end of the attempt is on record, so that a crash repeats it.
func (r *Runner) PurgeWorkspace(runID, stepID string, attempt int) error {
	dir := filepath.Join(r.opt.RunsDir, runID, stepID, strconv.Itoa(attempt))
	err := errors.Join(fsx.Overwrite(filepath.Join(dir, "secrets")), r.removeWorkspace(dir))
	if err != nil {
		return fmt.Errorf("the workspace %s, which may hold secrets, could not be removed: %w", dir, err)
	}
	return nil
}

// secretive says whether what a step makes may come from a secret: it or anything
// that it may use is given one. Then nothing of it is kept (THREATS 19). What
// cannot be found out counts as secret.
func (r *Runner) secretive(e *execution, n *node, p *prepared) bool {
	if len(p.secrets.names) > 0 || namesSecrets(n.step) || hasSecretInput(e.dag) {
		return true
	}
	e.mu.Lock()
	above, parent := e.above(n), e.run.ParentRunID
	plans := []string{}
	secret := false
	for _, a := range above {
		secret = secret || a.secret || namesSecrets(a.step)
		if a.plan.SubPlan != "" {
			plans = append(plans, a.plan.SubPlan)
		}
	}
	e.mu.Unlock()
	return secret || slices.ContainsFunc(plans, r.secretivePlan) || r.inheritsSecrets(parent)
}

// above are the steps whose results n may use, with their items. The caller holds
// e.mu.
func (e *execution) above(n *node) []*node {
	seen := map[*node]bool{}
	var out []*node
	var add func(*node)
	add = func(x *node) {
		if seen[x] {
			return
		}
		seen[x] = true
		out = append(append(out, x), x.items...)
		for _, need := range x.needs {
			add(need)
		}
	}
	if n.phase != ordinary { // cleanup sees all that there is
		for _, x := range e.nodes {
			add(x)
		}
	}
	if n.parent != nil {
		n = n.parent
	}
	for _, need := range n.needs {
		add(need)
	}
	return out
}

// namesSecrets says whether a spec gives a step a secret by name.
func namesSecrets(s *manifests.Step) bool {
	found := len(s.Secrets) > 0
	eachRef(any(s.With), func(string) { found = true })
	eachRef(s.ForEach, func(string) { found = true })
	return found
}

func hasSecretInput(d *manifests.DAG) bool {
	for _, in := range d.Inputs {
		if in.Secret {
			return true
		}
	}
	return false
}

// secretivePlan says whether anything in a sub-run, or below it, is given a
// secret.
func (r *Runner) secretivePlan(hash string) bool {
	plan, err := r.planOf(hash)
	if err != nil {
		return true
	}
	d, err := r.opt.Sealed.DAG(plan.DAG.Digest)
	if err != nil || hasSecretInput(d) || slices.ContainsFunc(allSteps(d), namesSecrets) {
		return true
	}
	return slices.ContainsFunc(plan.Steps, func(s PlanStep) bool { return s.SubPlan != "" && r.secretivePlan(s.SubPlan) })
}

// inheritsSecrets says whether the inputs of a sub-run may come from a secret:
// anything in the runs above it is given one.
func (r *Runner) inheritsSecrets(parent string) bool {
	if parent == "" {
		return false
	}
	run, err := r.opt.Store.Run(parent)
	return err != nil || r.secretivePlan(run.PlanHash) || r.inheritsSecrets(run.ParentRunID)
}
