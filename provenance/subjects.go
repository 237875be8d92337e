package provenance

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stellarun/stella/runner/state"
)

// outputsName is the subject that is the run's outputs, endName the one that stands
// for a run that has given nothing. Those of artifacts have a slash.
const (
	outputsName = "outputs"
	endName     = "run.completed"
)

// subjects are what a run has given: the artifacts of the attempts that count, by
// step and name, and its outputs. Of a run that has given neither it is the entry by
// which it was completed.
func (m *maker) subjects(s *story) ([]resource, error) {
	var made []resource
	for _, id := range slices.Sorted(maps.Keys(s.made)) {
		if s.steps[id].Status != state.Completed || !s.counts(id) {
			continue
		}
		for _, a := range s.made[id] {
			made = append(made, resource{Name: id + "/" + a.Name, Digest: sha(a.SHA256), MediaType: a.MediaType})
		}
	}
	slices.SortStableFunc(made, func(a, b resource) int { return strings.Compare(a.Name, b.Name) })
	out := made
	switch {
	case len(m.opt.Artifacts) > 0:
		var err error
		if out, err = choose(made, m.opt.Artifacts); err != nil {
			return nil, err
		}
	case s.run.OutputsHash != "":
		out = append(out, resource{Name: outputsName, Digest: sha(s.run.OutputsHash), MediaType: "application/json"})
	case len(made) == 0:
		out = []resource{{Name: endName, Digest: sha(digestOf(s.end)), MediaType: "application/json"}}
	}
	if len(out) > maxSubjects {
		return nil, fmt.Errorf("provenance: %d artifacts, verifiers take %d: %w", len(out), maxSubjects, ErrTooLarge)
	}
	return out, nil
}

// choose picks the artifacts that were asked for, in their own order.
func choose(made []resource, names []string) ([]resource, error) {
	wanted := map[string]bool{}
	for _, name := range names {
		var are []string
		for _, r := range made {
			_, bare, _ := strings.Cut(r.Name, "/")
			if r.Name == name || bare == name {
				are = append(are, r.Name)
			}
		}
		switch len(are) {
		case 0:
			for _, r := range made {
				are = append(are, r.Name)
			}
			return nil, &SubjectError{Name: name, Are: are}
		case 1:
			wanted[are[0]] = true
		default:
			return nil, &SubjectError{Name: name, Are: are, Many: true}
		}
	}
	return slices.DeleteFunc(slices.Clone(made), func(r resource) bool { return !wanted[r.Name] }), nil
}
