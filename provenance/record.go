package provenance

import (
	"maps"
	"slices"

	"github.com/stellarun/stella/runner/state"
)

// record is what the ledger says of one run, its exceptions in full: whoever reads
// only this learns of everything that was not done by an attempt of its own that
// succeeded.
type record struct {
	RunID       string `json:"runId"`
	StepID      string `json:"stepId,omitempty"` // of a sub-run: the steps that lead to it
	DAG         dag    `json:"dag"`
	PlanHash    string `json:"planHash"`
	InputsHash  string `json:"inputsHash"`
	OutputsHash string `json:"outputsHash,omitempty"`
	Status      string `json:"status"`
	FirstSeq    int64  `json:"firstSeq"` // entries of the ledger
	LastSeq     int64  `json:"lastSeq"`
	Generation  int    `json:"generation"`
	Overridden  bool   `json:"overridden"` // somebody has changed an input, an output or an end by hand

	Counts     map[state.Status]int `json:"counts"`   // steps and items by status
	Unneeded   int                  `json:"unneeded"` // steps of cleanup that it has ended without
	Tiers      map[string]int       `json:"tiers"`    // of fences: attempts that started behind them
	Extensions []string             `json:"extensions,omitempty"`

	Steps     []exception `json:"steps"`
	MoreSteps int         `json:"moreSteps,omitempty"`
	Acts      []act       `json:"acts"`
	MoreActs  int         `json:"moreActs,omitempty"`
}

// exception is a step that was not simply done.
type exception struct {
	StepID      string  `json:"stepId"`
	Status      string  `json:"status"`
	Reason      string  `json:"reason,omitempty"` // a code
	OutputsHash string  `json:"outputsHash,omitempty"`
	Overridden  bool    `json:"overridden,omitempty"` // its outputs are somebody's, or were changed by him
	Cached      *cached `json:"cached,omitempty"`     // its outputs are those of another run
}

type cached struct {
	RunID   string `json:"runId"`
	StepID  string `json:"stepId"`
	Attempt int    `json:"attempt"`
	Stored  string `json:"stored"`
}

// resource is the run as a byproduct: its digest is that of the envelope that ended
// it, which a proof of the ledger is about. left is how many steps and acts may still
// be listed.
func (s *story) resource(left *int) resource {
	r := s.run
	rec := record{
		RunID: r.RunID, DAG: dag{r.DAGID, r.DAGVersion}, PlanHash: r.PlanHash, InputsHash: r.InputsHash, OutputsHash: r.OutputsHash,
		Status: string(r.Status), FirstSeq: r.FirstSeq, LastSeq: s.lastSeq, Generation: r.Generation, Overridden: r.Overridden,
		Counts: r.Counts, Unneeded: r.Unneeded(), Tiers: s.tiers, Extensions: s.extended,
		Steps: []exception{}, Acts: []act{},
	}
	out := resource{Name: "run", URI: "urn:uuid:" + r.RunID, MediaType: "application/json"}
	if s.path != "" {
		out.Name, rec.StepID = "sub-run", s.path[:len(s.path)-1]
	}
	if s.end != nil {
		out.Digest = sha(digestOf(s.end))
	}
	if rec.Counts == nil {
		rec.Counts = map[state.Status]int{}
	}
	for _, id := range slices.Sorted(maps.Keys(s.steps)) {
		x, ok := s.exception(id)
		if !ok {
			continue
		}
		if *left == 0 {
			rec.MoreSteps++
			continue
		}
		*left--
		rec.Steps = append(rec.Steps, x)
	}
	n := min(len(s.acts), *left)
	*left -= n
	rec.Acts, rec.MoreActs = append(rec.Acts, s.acts[:n]...), len(s.acts)-n
	out.Annotations = rec
	return out
}

// isCode says whether a reason is a code, and no text: that could tell more than it
// should.
func isCode(s string) bool {
	for _, c := range s {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}

func (s *story) exception(id string) (exception, bool) {
	st := s.steps[id]
	x := exception{StepID: id, Status: string(st.Status), Overridden: s.changed[id]}
	if c := st.Cached; c != nil && st.Status == state.Completed {
		x.Cached = &cached{c.RunID, c.StepID, c.Attempt, c.Stored}
	}
	plain := st.Status == state.Completed && !x.Overridden && x.Cached == nil
	if plain || st.Status == state.Pending || !s.counts(id) {
		return x, false
	}
	for _, why := range []string{st.ErrorCode, st.Reason} {
		if x.Reason == "" && isCode(why) {
			x.Reason = why
		}
	}
	x.OutputsHash = st.OutputsHash
	return x, true
}
