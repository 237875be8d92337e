package runner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// PlanSchema is the schema of [Plan].
const PlanSchema = "stella.plan/1"

// Plan is what a start freezes: which bytes every step will run. Its JCS form
// is a sealed blob, and the SHA-256 of that is the run's planHash.
type Plan struct {
	Schema   string     `json:"schema"`
	DAG      PlanDAG    `json:"dag"`
	Platform string     `json:"platform"` // GOOS/GOARCH
	Steps    []PlanStep `json:"steps"`    // by stepId; those of on_failure and on_cancel included

	// subs are the encoded plans of sub-runs that steps name, not yet sealed.
	subs [][]byte
}

// PlanDAG names the DAG version; the digest is of its bundle's manifest.
type PlanDAG struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
}

// PlanStep is what one step runs.
type PlanStep struct {
	StepID      string           `json:"stepId"`
	Plugin      *PlanPlugin      `json:"plugin,omitempty"`
	Action      string           `json:"action,omitempty"`
	Entry       string           `json:"entry,omitempty"` // SHA-256 of the bytes that run
	Interpreter *PlanInterpreter `json:"interpreter,omitempty"`
	Data        []PlanData       `json:"data,omitempty"`
	SubPlan     string           `json:"subPlan,omitempty"`
}

// PlanPlugin names a plugin bundle; the digest is of its manifest.
type PlanPlugin struct {
	Publisher string `json:"publisher"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
}

// PlanInterpreter is a program of the host and its digest at planning.
type PlanInterpreter struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// PlanData is a data bundle that the step sees.
type PlanData struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"`
}

// Catalog finds what a plan is made of. The engine satisfies it from the
// sealed store, under the trust in force.
type Catalog interface {
	// Resolve returns the manifest and digest that a reference means, if it may
	// be used now.
	Resolve(ref manifests.Ref, kind manifests.Kind) (digest string, m *manifests.Bundle, err error)
	// HashHostFile returns the SHA-256 of a program of the host.
	HashHostFile(path string) (string, error)
	// SubDAG returns a published version that may be started now, and the digest of
	// its bundle.
	SubDAG(id, version string) (digest string, d *manifests.DAG, err error)
	// Capacity is that of a semaphore; 0 if the site has none of that name.
	Capacity(semaphore string) int64
}

// A PlanError lists everything that keeps a DAG from being planned.
type PlanError struct{ Faults manifests.Faults }

func (e *PlanError) Error() string { return e.Faults.Error() }

// NewPlan resolves what the steps of d name, sub-runs with all that theirs name.
// All faults are in one *[PlanError].
func NewPlan(d *manifests.DAG, digest string, c Catalog) (*Plan, error) {
	pl := &planner{Catalog: c, refs: map[string]resolved{}, subs: map[string]subPlan{}}
	return pl.plan(d, digest, nil)
}

// planner resolves each name once.
type planner struct {
	Catalog
	refs map[string]resolved
	subs map[string]subPlan // by id@version
}

type resolved struct {
	digest string
	m      *manifests.Bundle
	err    error
}

type subPlan struct {
	hash  string
	raw   [][]byte // the plan itself and those below it
	dag   *manifests.DAG
	wants wanted
	err   error
}

func (pl *planner) resolve(ref manifests.Ref, kind manifests.Kind) (string, *manifests.Bundle, error) {
	key := string(kind) + " " + ref.String()
	r, ok := pl.refs[key]
	if !ok {
		r.digest, r.m, r.err = pl.Resolve(ref, kind)
		pl.refs[key] = r
	}
	return r.digest, r.m, r.err
}

// sub plans a sub-run; above are the DAGs that lead to it.
func (pl *planner) sub(name string, above []string) subPlan {
	if s, ok := pl.subs[name]; ok {
		return s
	}
	s := pl.newSub(name, above)
	pl.subs[name] = s
	return s
}

func (pl *planner) newSub(name string, above []string) (s subPlan) {
	switch {
	case slices.Contains(above, name):
		s.err = fmt.Errorf("the DAGs start each other: %s", strings.Join(append(above, name), " -> "))
		return s
	case len(above) > MaxDepth:
		s.err = fmt.Errorf("sub-runs are nested more than %d deep", MaxDepth)
		return s
	}
	id, version, _ := strings.Cut(name, "@")
	var digest string
	if digest, s.dag, s.err = pl.SubDAG(id, version); s.err != nil {
		return s
	}
	p, err := pl.plan(s.dag, digest, above)
	if err != nil {
		s.err = fmt.Errorf("dag %s: %w", name, err)
		return s
	}
	raw, err := p.Encode()
	if err != nil {
		s.err = err
		return s
	}
	s.hash, s.raw = Hash(raw), append([][]byte{raw}, p.subs...)
	s.wants = pl.wants(s.dag, append(slices.Clone(above), name))
	return s
}

func (pl *planner) plan(d *manifests.DAG, digest string, above []string) (*Plan, error) {
	above = append(slices.Clone(above), d.ID+"@"+d.Version)
	p := &Plan{
		Schema:   PlanSchema,
		DAG:      PlanDAG{ID: d.ID, Version: d.Version, Digest: digest},
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	var faults manifests.Faults
	for _, s := range allSteps(d) {
		ps, err := pl.step(s, p, above)
		if err != nil {
			faults = append(faults, manifests.Fault{
				File: "dag.toml", Line: s.Line, Key: "step " + s.ID, Text: err.Error(),
			})
			continue
		}
		p.Steps = append(p.Steps, ps)
	}
	if len(faults) > 0 {
		return nil, &PlanError{faults}
	}
	slices.SortFunc(p.Steps, func(a, b PlanStep) int { return strings.Compare(a.StepID, b.StepID) })
	return p, nil
}

func allSteps(d *manifests.DAG) []*manifests.Step {
	var out []*manifests.Step
	for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
		for i := range list {
			out = append(out, &list[i])
		}
	}
	return out
}

func (pl *planner) step(s *manifests.Step, p *Plan, above []string) (PlanStep, error) {
	ps := PlanStep{StepID: s.ID, Action: s.Action}
	for _, name := range sortedKeys(s.Semaphores) {
		if c := pl.Capacity(name); c < s.Semaphores[name] {
			return ps, fmt.Errorf("semaphore %s: the step wants %d, and site.toml gives it %d: [semaphores] %s = N", name, s.Semaphores[name], c, name)
		}
	}
	if s.DAG != "" {
		sub := pl.sub(s.DAG, above)
		if sub.err != nil {
			return ps, sub.err
		}
		ps.SubPlan = sub.hash
		p.subs = append(p.subs, sub.raw...)
		if err := sub.crossed(s); err != nil {
			return ps, err
		}
		return ps, subInputs(s, sub.dag)
	}
	if s.Plugin == nil {
		return ps, nil // a gate
	}
	digest, m, err := pl.resolve(*s.Plugin, manifests.KindPlugin)
	if err != nil {
		return ps, err
	}
	if _, ok := m.Plugin.Actions[s.Action]; !ok {
		return ps, fmt.Errorf("%s has no action %q; it has %s", s.Plugin, s.Action, strings.Join(sortedKeys(m.Plugin.Actions), ", "))
	}
	for _, name := range s.Secrets {
		if !slices.Contains(m.Plugin.Actions[s.Action].Secrets, name) {
			return ps, fmt.Errorf("secrets: %s of %s asks for no secret %s in its manifest: it cannot be given it", s.Action, s.Plugin, name)
		}
	}
	ps.Plugin = &PlanPlugin{s.Plugin.Publisher, s.Plugin.Name, s.Plugin.Version, digest}
	entry, err := EntryFile(m, p.Platform)
	if err != nil {
		return ps, err
	}
	ps.Entry = entry.SHA256
	if ps.Interpreter, err = planInterpreter(m, pl); err != nil {
		return ps, err
	}
	for _, ref := range s.Data {
		digest, _, err := pl.resolve(ref, manifests.KindData)
		if err != nil {
			return ps, err
		}
		ps.Data = append(ps.Data, PlanData{ref.String(), digest})
	}
	return ps, nil
}

// subInputs checks the inputs that a step gives to a sub-run, as far as they are
// known before it runs.
func subInputs(s *manifests.Step, d *manifests.DAG) error {
	for _, name := range sortedKeys(s.With) {
		if _, ok := d.Inputs[name]; !ok {
			return fmt.Errorf("with %s: %s has no such input; it has %s", name, s.DAG, strings.Join(sortedKeys(d.Inputs), ", "))
		}
	}
	for _, name := range sortedKeys(d.Inputs) {
		if _, given := s.With[name]; d.Inputs[name].Required && !given {
			return fmt.Errorf("%s wants the input %s: give it in with", s.DAG, name)
		}
	}
	return nil
}

// EntryFile is the file of a plugin that runs on a platform.
func EntryFile(m *manifests.Bundle, platform string) (manifests.File, error) {
	path, ok := m.Plugin.Entry["any"]
	if !ok {
		path, ok = m.Plugin.Entry[platform]
	}
	if !ok {
		return manifests.File{}, fmt.Errorf("%s has no entry for %s; it has %s", m.Ref(), platform, strings.Join(sortedKeys(m.Plugin.Entry), ", "))
	}
	for _, f := range m.Files {
		if f.Path == path {
			return f, nil
		}
	}
	return manifests.File{}, fmt.Errorf("%s: its entry %s is not among its files", m.Ref(), path)
}

// planInterpreter freezes the digest of a script's interpreter: a program of
// the host when the manifest names an absolute path, else a file of the bundle.
func planInterpreter(m *manifests.Bundle, c Catalog) (*PlanInterpreter, error) {
	path := m.Plugin.Interpreter
	switch {
	case path == "":
		return nil, nil
	case strings.HasPrefix(path, "/"):
		sum, err := c.HashHostFile(path)
		if err != nil {
			return nil, fmt.Errorf("interpreter %s: %w", path, err)
		}
		return &PlanInterpreter{path, sum}, nil
	}
	for _, f := range m.Files {
		if f.Path == path {
			return &PlanInterpreter{path, f.SHA256}, nil
		}
	}
	return nil, fmt.Errorf("interpreter %s is not among the files of %s", path, m.Ref())
}

// Encode returns the bytes that are sealed and hashed.
func (p *Plan) Encode() ([]byte, error) {
	raw, err := jcs.Marshal(p)
	if err == nil && len(raw) > maxPlanBytes {
		return nil, &PlanError{manifests.Faults{{File: "dag.toml", Key: "step", Text: fmt.Sprintf("the plan has %d bytes; at most %d", len(raw), maxPlanBytes)}}}
	}
	return raw, err
}

// Step finds a step of the plan, nil if it has none of that id.
func (p *Plan) Step(id string) *PlanStep {
	i, ok := slices.BinarySearchFunc(p.Steps, id, func(s PlanStep, id string) int { return strings.Compare(s.StepID, id) })
	if !ok {
		return nil
	}
	return &p.Steps[i]
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// DecodePlan reads a sealed plan.
func DecodePlan(raw []byte) (*Plan, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var p Plan
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("runner: plan: %w", err)
	}
	if p.Schema != PlanSchema {
		return nil, fmt.Errorf("runner: plan: schema %q, want %q", p.Schema, PlanSchema)
	}
	return &p, nil
}

// Order lists the steps of a DAG, those of on_failure and on_cancel included,
// in the order in which they become due: topological, ties by step id.
func Order(d *manifests.DAG) []*manifests.Step {
	p := &Plan{}
	for _, s := range allSteps(d) {
		p.Steps = append(p.Steps, PlanStep{StepID: s.ID})
	}
	slices.SortFunc(p.Steps, func(a, b PlanStep) int { return strings.Compare(a.StepID, b.StepID) })
	e, err := newExecution(state.Run{}, d, p, nil, nil, nil)
	if err != nil {
		return allSteps(d) // parsing has refused cycles and unknown needs
	}
	out := make([]*manifests.Step, len(e.nodes))
	for i, n := range e.nodes {
		out[i] = n.step
	}
	return out
}
