package runner

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stellarun/stella/internal/jcs"
)

// patchOf reads a merge patch (RFC 7396) that somebody gives by hand.
func patchOf(what string, given json.RawMessage) (canonical []byte, err error) {
	if len(given) > MaxInputsBytes {
		return nil, &RequestError{Text: fmt.Sprintf("%s has %d bytes; at most %d", what, len(given), MaxInputsBytes)}
	}
	canonical, err = jcs.Canonicalize(given)
	if err != nil || canonical[0] != '{' {
		return nil, &RequestError{Text: what + " must be one JSON object"}
	}
	if len(canonical) > MaxInputsBytes { // it may be longer than what was given
		return nil, &RequestError{Text: fmt.Sprintf("%s has %d bytes in canonical form; at most %d", what, len(canonical), MaxInputsBytes)}
	}
	return canonical, nil
}

// checkOverlay says why a step does not take its parameters with a patch on them,
// as far as they are known before it runs (THREATS 22).
func (e *execution) checkOverlay(n *node, patch []byte) error {
	if n.gate() {
		return &RequestError{Text: "step " + n.id + " is an approval gate: it has no parameters that could be changed"}
	}
	if err := e.tells(n, "the input", patch); err != nil {
		return err
	}
	v, err := decodeJSON(patch)
	if err != nil {
		return &RequestError{Text: "the input: " + err.Error()}
	}
	meant := []*node{n}
	switch {
	case n.waiting > 0: // what comes before it is done again first
		return nil
	case n.step.ForEach != nil && n.parent == nil:
		meant = n.items // where there are none yet, each is checked when it begins
	}
	with := e.prog.with[n.step.ID]
	for _, x := range meant {
		params, err := with.eval(context.Background(), e.scope(x, with.named()))
		if err != nil {
			continue // it is looked at again when the step begins
		}
		raw, err := jcs.Marshal(mergePatch(params, v))
		if err != nil {
			return &RequestError{Text: "the input: " + err.Error()}
		}
		fault, err := e.r.takes(n, raw)
		if err != nil {
			return err
		}
		if fault != "" {
			return &RequestError{Text: "the input is not what step " + x.id + " takes: " + fault}
		}
	}
	return nil
}

// takes says what is wrong with the parameters of a step, "" where nothing is.
func (r *Runner) takes(n *node, params []byte) (fault string, err error) {
	if n.plan.Plugin != nil {
		m, err := r.opt.Sealed.Manifest(n.plan.Plugin.Digest)
		if err != nil {
			return "", err
		}
		return r.invalid(m, m.Plugin.Actions[n.plan.Action].Params, params), nil
	}
	plan, err := r.planOf(n.plan.SubPlan)
	if err != nil {
		return "", err
	}
	dag, err := r.opt.Sealed.DAG(plan.DAG.Digest)
	if err != nil {
		return "", err
	}
	if _, faults := resolveInputs(dag, params); len(faults) > 0 {
		return fmt.Sprint(faults[0]), nil
	}
	return "", nil
}

// replaced are the outputs that somebody gives a step.
func (e *execution) replaced(n *node, raw json.RawMessage) (map[string]any, error) {
	if len(raw) == 0 {
		return map[string]any{}, nil
	}
	v, err := decodeJSON(raw)
	outputs, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, &RequestError{Text: "the output is a JSON object"}
	}
	if err := e.r.checkOutputs(n, outputs); err != nil {
		return nil, err
	}
	return outputs, e.tells(n, "the output", raw)
}

// checkOutputs holds replaced outputs against the schema of the step's action.
func (r *Runner) checkOutputs(n *node, outputs map[string]any) error {
	most, action := MaxOutputsBytes, n.plan.Plugin != nil && (n.step.ForEach == nil || n.parent != nil)
	if action {
		most = MaxInputsBytes
	}
	raw, err := jcs.Marshal(outputs)
	if err == nil {
		err = fits("the outputs", len(raw), most)
	}
	if err != nil {
		return &RequestError{Text: "the output is refused: " + err.Error()}
	}
	if !action {
		return nil
	}
	m, err := r.opt.Sealed.Manifest(n.plan.Plugin.Digest)
	if err != nil {
		return err
	}
	if fault := r.invalid(m, m.Plugin.Actions[n.plan.Action].Outputs, raw); fault != "" {
		return &RequestError{Text: "the output is not what step " + n.id + " promises: " + fault}
	}
	return nil
}
