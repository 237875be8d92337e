package runner

import (
	"encoding/json"
	"fmt"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// MaxOutputsBytes bounds the outputs of a run, and of a step, in canonical form: those
// of one with for_each are the outputs of all its items.
const MaxOutputsBytes = 64 << 20

// A valueError is a value that must not be kept, since nobody could read it back: it
// is too large, or no JSON. It is the run's own fault, and fails a step or a run.
type valueError struct {
	code state.Code
	text string
}

func (e *valueError) Error() string { return e.text }

// fits says whether something of that size may be sealed: whoever reads it back takes
// no more. Whatever is sealed of a size that others decide goes through it.
func fits(what string, size, most int) error {
	if size <= most {
		return nil
	}
	return &valueError{state.ResourceLimit, fmt.Sprintf("%s have %d bytes in canonical form; at most %d", what, size, most)}
}

// maxListedBytes bounds what a spec makes each entry about a step carry: the data of an
// entry has at most 64 KiB, and what cannot be written ends the process.
const maxListedBytes = 16 << 10

// oversized names the lists of a DAG that no entry has room for.
func oversized(d *manifests.DAG) manifests.Faults {
	var faults manifests.Faults
	for _, s := range allSteps(d) {
		lists := map[string]any{"locks and semaphores": locksOf(s), "secrets": s.Secrets}
		if s.Checkpoint != nil {
			lists["checkpoint.approvers"], lists["checkpoint.options"] = s.Checkpoint.Approvers, s.Checkpoint.Options
		}
		for _, key := range sortedKeys(lists) {
			raw, err := json.Marshal(lists[key])
			if err == nil && len(raw) > maxListedBytes {
				faults = append(faults, manifests.Fault{
					File: "dag.toml", Line: s.Line, Key: "step " + s.ID + " " + key,
					Text: fmt.Sprintf("take %d bytes in each entry about the step; at most %d", len(raw), maxListedBytes), Hint: "name fewer, or one for all of them",
				})
			}
		}
	}
	return faults
}

// seal encodes outputs, seals them and returns their digest. What cannot be kept is a
// *valueError, with the given code where it is no JSON.
func (r *Runner) seal(outputs any, invalid state.Code) (string, error) {
	raw, err := jcs.Marshal(outputs)
	if err != nil {
		return "", &valueError{invalid, "the outputs: " + err.Error()}
	}
	if err := fits("the outputs", len(raw), MaxOutputsBytes); err != nil {
		return "", err
	}
	return r.opt.Sealed.Put(raw)
}

// sealItems seals {"items": outputs}. It is put together from the canonical form of
// each, so that what is too large is never there as a whole.
func (r *Runner) sealItems(outputs []any) (string, error) {
	const head, tail = `{"items":[`, `]}`
	joined, size := []byte(head), len(head)+len(tail)
	for i, v := range outputs {
		raw, err := jcs.Marshal([]any{[]any{v}}) // as deep as it is going to lie
		if err != nil {
			return "", &valueError{state.ContractViolation, fmt.Sprintf("the outputs of item %d, in a list: %v", i, err)}
		}
		if raw = raw[2 : len(raw)-2]; i > 0 {
			raw = append([]byte{','}, raw...)
		}
		if size += len(raw); size <= MaxOutputsBytes {
			joined = append(joined, raw...)
		}
	}
	if err := fits("the outputs of its items", size, MaxOutputsBytes); err != nil {
		return "", err
	}
	return r.opt.Sealed.Put(append(joined, tail...))
}
