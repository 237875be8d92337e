package runner

import (
	"maps"
	"sync"
)

// What a runner keeps of runs beyond their models: it does not grow with how many
// DAGs a site has ever run.

// maxPrograms bounds how many compiled DAG versions are kept. Runs that are open have
// theirs themselves.
const maxPrograms = 256

// programs are the compiled expressions of DAG versions, by digest of the bundle.
type programs struct {
	mu sync.Mutex // guards all
	of map[string]*program
}

func (p *programs) get(digest string) *program {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[digest]
}

// put keeps a program. Where there are too many all others go: those that are needed
// are soon compiled again.
func (p *programs) put(digest string, prog *program) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil || len(p.of) >= maxPrograms {
		p.of = map[string]*program{}
	}
	p.of[digest] = prog
}

func (p *programs) copy() map[string]*program {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.of)
}

// usedPlan is a plan that runs which are taken care of have, or name for a sub-run.
type usedPlan struct {
	runs int
	plan *Plan // nil until somebody has read it
}

// plansOf are the hashes of the plan of a run and of those that its steps name.
func plansOf(e *execution) map[string]bool {
	out := map[string]bool{e.run.PlanHash: true}
	for i := range e.plan.Steps {
		if sub := e.plan.Steps[i].SubPlan; sub != "" {
			out[sub] = true
		}
	}
	return out
}

// usePlans keeps the plans of a run while it is taken care of. The caller holds mu.
func (r *Runner) usePlans(e *execution) {
	for hash := range plansOf(e) {
		u := r.plans[hash]
		if u == nil {
			u = &usedPlan{}
			r.plans[hash] = u
		}
		u.runs++
	}
	if u := r.plans[e.run.PlanHash]; u.plan == nil && len(e.plan.subs) == 0 {
		u.plan = e.plan
	}
}

// leavePlans forgets those that no other run has. The caller holds mu.
func (r *Runner) leavePlans(e *execution) {
	for hash := range plansOf(e) {
		if u := r.plans[hash]; u != nil {
			if u.runs--; u.runs == 0 {
				delete(r.plans, hash)
			}
		}
	}
}

// keptPlan is a plan that was read before, nil where none is kept.
func (r *Runner) keptPlan(hash string) *Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.plans[hash]; u != nil {
		return u.plan
	}
	return nil
}

// planOf reads a sealed plan, and keeps it for as long as a run may need it again.
func (r *Runner) planOf(hash string) (*Plan, error) {
	if p := r.keptPlan(hash); p != nil {
		return p, nil
	}
	raw, err := r.opt.Sealed.Read(hash, maxPlanBytes)
	if err != nil {
		return nil, err
	}
	p, err := DecodePlan(raw)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.plans[hash]; u != nil {
		u.plan = p
	}
	return p, nil
}
