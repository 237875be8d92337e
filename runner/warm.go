package runner

import (
	"fmt"
	"slices"

	"github.com/stellarun/stella/manifests"
)

// Warm compiles what a run of a plan needs, but for its sub-runs: the expressions
// of its DAG, and the schemas of its actions. It returns their digests.
func (r *Runner) Warm(d *manifests.DAG, p *Plan) (schemas []string, err error) {
	if _, err := r.compiled(d, p.DAG.Digest); err != nil {
		return nil, err
	}
	for _, st := range p.Steps {
		if st.Plugin == nil {
			continue
		}
		m, err := r.opt.Sealed.Manifest(st.Plugin.Digest)
		if err != nil {
			return schemas, err
		}
		action := m.Plugin.Actions[st.Action]
		for _, path := range []string{action.Params, action.Outputs} {
			i := slices.IndexFunc(m.Files, func(f manifests.File) bool { return f.Path == path })
			if path == "" || i < 0 {
				continue // an attempt says so
			}
			sum := m.Files[i].SHA256
			load := func() ([]byte, error) { return r.opt.Sealed.Read(sum, maxSchemaBytes) }
			if _, err := r.schemas.get(sum, load); err != nil {
				return schemas, fmt.Errorf("%s: %s: %w", m.Ref(), path, err)
			}
			schemas = append(schemas, sum)
		}
	}
	return schemas, nil
}
