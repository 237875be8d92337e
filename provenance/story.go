package provenance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// story is a run as its entries tell it: of the run that is attested up to its end,
// of a sub-run up to the end of that.
type story struct {
	path    string // the steps above it, each with a slash
	through int64  // the last entry that counts; -1: the run's end

	run      *state.Run
	steps    map[string]*state.Step
	attempts map[string]*state.Attempt
	made     map[string][]ledger.Artifact // by step, of the attempt that counts
	changed  map[string]bool              // steps whose outputs somebody has given
	logs     []logged
	acts     []act
	tiers    map[string]int
	extended []string // extensions of expired trust that attempts rested on
	subs     []subRun
	attested []ledger.RunAttestation

	end     []byte // the envelope that ended it; nil if it was open
	lastSeq int64
}

// logged is the output of one attempt.
type logged struct {
	step    string
	attempt int
	outcome string
	ledger.LogRef
}

// subRun is a run that a step has started.
type subRun struct{ stepID, runID string }

// act is what somebody, and not the program, did to a run. What he wrote is in it by
// the hash of the entry's data.
type act struct {
	Seq      int64  `json:"seq"`
	Type     string `json:"type"`
	Actor    string `json:"actor"`
	StepID   string `json:"stepId,omitempty"`
	Attempt  int    `json:"attempt,omitempty"`
	Decision string `json:"decision,omitempty"`
	SHA256   string `json:"sha256,omitempty"` // of the sealed patch, or of outputs that he gave
	DataHash string `json:"dataHash"`
}

// read reads a run. One without an end where it must have one is [ErrNotCompleted].
func (m *maker) read(runID, path string, through int64) (*story, error) {
	s := &story{
		path: path, through: through, steps: map[string]*state.Step{}, attempts: map[string]*state.Attempt{},
		made: map[string][]ledger.Artifact{}, changed: map[string]bool{}, tiers: map[string]int{},
	}
	for raw, err := range m.src.RunEntries(runID) {
		if err == nil {
			err = m.ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("provenance: run %s: %w", runID, err)
		}
		e, err := ledger.ParseEnvelope(raw.Envelope)
		if err != nil {
			return nil, fmt.Errorf("provenance: run %s: %w", runID, err)
		}
		after := through >= 0 && e.Seq > through || through < 0 && s.completed()
		if after && e.Type != ledger.RunAttested {
			continue // it changes nothing of what the run was
		}
		data, err := decode(e, raw)
		if err != nil {
			return nil, err
		}
		if after {
			s.attested = append(s.attested, *data.(*ledger.RunAttestation))
			continue
		}
		if err := s.take(state.Change{Envelope: e, Data: data}, raw.Envelope); err != nil {
			return nil, fmt.Errorf("provenance: entry %d: %w", e.Seq, err)
		}
	}
	if s.run == nil || through < 0 && !s.completed() {
		return nil, fmt.Errorf("provenance: run %s: %w", runID, ErrNotCompleted)
	}
	return s, nil
}

func (s *story) completed() bool { return s.run != nil && s.run.Status == state.Completed }

// decode reads the data of an entry, or what remains of it.
func decode(e ledger.Envelope, raw Entry) (any, error) {
	what := raw.Remains
	switch {
	case raw.Data != nil:
		line, err := ledger.ParseData(raw.Data)
		if err != nil {
			return nil, fmt.Errorf("provenance: entry %d: %w", e.Seq, err)
		}
		what = line.Data
	case what == nil:
		return nil, &ErasedError{e.Seq}
	}
	data, err := ledger.DecodeData(e.Type, what)
	if err != nil {
		return nil, fmt.Errorf("provenance: entry %d: %w", e.Seq, err)
	}
	return data, nil
}

// take moves the story by one entry.
func (s *story) take(c state.Change, envelope []byte) error {
	id := c.Envelope.StepID
	v := state.View{Run: s.run, Step: s.steps[id], Attempt: s.attempts[id]}
	if err := state.Apply(&v, c); err != nil {
		return err
	}
	s.run = v.Run
	if id != "" {
		s.steps[id], s.attempts[id] = v.Step, v.Attempt
	}
	s.note(c, envelope)
	if a, ok := acted(c); ok {
		s.acts = append(s.acts, a)
	}
	return nil
}

// note keeps what the projections do not.
func (s *story) note(c state.Change, envelope []byte) {
	id := c.Envelope.StepID
	switch d := c.Data.(type) {
	case *ledger.AttemptStart:
		s.tiers[d.Tier]++
		if x := d.Trust.Extension; x != "" && !slices.Contains(s.extended, x) {
			s.extended = append(s.extended, x)
		}
	case *ledger.AttemptEnd:
		if delete(s.made, id); state.Outcome(d.Outcome) == state.Succeeded {
			s.made[id] = d.Artifacts
		}
		if d.Logs != nil {
			s.logs = append(s.logs, logged{id, c.Envelope.Attempt, d.Outcome, *d.Logs})
		}
	case *ledger.CacheHit:
		s.made[id] = d.Artifacts
	case *ledger.SubrunStart:
		s.subs = append(s.subs, subRun{id, d.RunID})
	case *ledger.StepInvalidation:
		delete(s.made, id)
		delete(s.changed, id)
	case *ledger.StepEnd:
		if d.Overridden {
			s.changed[id] = true
		}
	case *ledger.RunGeneration:
		s.end = nil // it goes on
	case *ledger.RunEnd:
		s.end = bytes.Clone(envelope)
	}
	s.lastSeq = c.Envelope.Seq
}

// acted says whether an entry tells what somebody did, as opposed to the program
// that executed the run.
func acted(c state.Change) (act, bool) {
	e := c.Envelope
	if strings.HasPrefix(e.Actor, "system:") || e.Type == ledger.RunStarted {
		return act{}, false
	}
	a := act{Seq: e.Seq, Type: string(e.Type), Actor: e.Actor, StepID: e.StepID, Attempt: e.Attempt, DataHash: e.DataHash}
	switch d := c.Data.(type) {
	case *ledger.ApprovalDecision:
		a.Decision, a.SHA256 = d.Decision, d.Modifications
	case *ledger.ApprovalRefusal:
		a.Decision = d.Decision
	case *ledger.StepInvalidation:
		a.SHA256 = d.Overlay
	case *ledger.StepEnd:
		a.SHA256 = d.OutputsHash
	}
	return a, true
}

// counts says whether a step is one of the run's, and not an item of a list that was
// longer once.
func (s *story) counts(id string) bool {
	of, item, isItem := strings.Cut(id, ".")
	if !isItem {
		return true
	}
	n, err := strconv.Atoi(item)
	return err == nil && s.steps[of] != nil && n < s.steps[of].Count
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
