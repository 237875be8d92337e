package runner

import "github.com/stellarun/stella/manifests"

// CheckInputs holds canonical inputs against what a DAG declares, as a start
// does: a fault is an *[InputsError].
func CheckInputs(d *manifests.DAG, canonical []byte) error {
	if _, wrong := resolveInputs(d, canonical); len(wrong) > 0 {
		return &InputsError{wrong}
	}
	return nil
}
