// Package provenance says of a completed run what it was made of and what became
// of it: an in-toto statement v1 with SLSA provenance v1, about the run's artifacts
// and outputs.
//
// All of it follows from the ledger up to the run's end, and from sealed plans. So
// the same run gives the same bytes, whenever and by whichever process it is asked
// for. Inputs, outputs and what people have written are in it by their hashes only.
// It says as plainly what was skipped, changed by hand, taken from the cache or
// admitted under audit: a statement that leaves these out would say more than the
// ledger does.
//
// The package signs nothing, reads no clock and starts no goroutine. The form is
// part 8 of docs/format.md.
package provenance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
)

// Types of what is stated. They reach disk and policies: never change one.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "https://github.com/stellarun/stella/blob/main/docs/format.md#stella-run-v1"
	builderPrefix = "https://github.com/stellarun/stella/sites/"
)

// Limits of one statement.
const (
	maxSubjects = 1024 // more of them no verifier that is built on sigstore-go takes
	maxListed   = 5000 // of logs, steps and acts each; how many more there are is said
)

// BuilderID is the id under which a site builds.
func BuilderID(siteID string) string { return builderPrefix + siteID }

// Why there is no statement about a run. They come wrapped.
var (
	ErrNotCompleted = errors.New("the run has not been completed")
	ErrTooLarge     = errors.New("the statement would be too large for verifiers")
)

// An ErasedError is an entry of the run of whose data nothing is left: nobody can say
// any more what it was.
type ErasedError struct{ Seq int64 }

func (e *ErasedError) Error() string {
	return fmt.Sprintf("provenance: nothing is left of the data of entry %d", e.Seq)
}

// A SubjectError is an artifact that was asked for and is none of the run's, or more
// than one.
type SubjectError struct {
	Name string
	Are  []string // what it may mean, or all that there are
	Many bool     // it means several
}

func (e *SubjectError) Error() string {
	if e.Many {
		return fmt.Sprintf("provenance: %q is in several steps", e.Name)
	}
	return fmt.Sprintf("provenance: the run has no artifact %q", e.Name)
}

// Entry is one entry as it is stored. Where its data was erased, Data is nil, and Remains
// is what a replay needs of it: that has all that a statement is made from.
type Entry struct{ Envelope, Data, Remains []byte }

// Source is what a statement is made from.
type Source interface {
	// RunEntries yields the entries of a run in order.
	RunEntries(runID string) iter.Seq2[Entry, error]
	// Plan reads a sealed plan.
	Plan(hash string) (*runner.Plan, error)
	// Around says what the site's own entries tell about the time from the entry
	// first to the entry last.
	Around(ctx context.Context, first, last int64, digests []string) (Around, error)
}

// Around is what held at a site while a run was under way. Each list is oldest
// first and begins with what held at its first entry.
type Around struct {
	Starts     []Start                // of the programs that executed steps
	Admissions map[string][]Admission // of bundles, by digest
}

// Start is a [ledger.SiteStarted].
type Start struct {
	Seq int64
	ledger.SiteStart
}

// Admission is a [ledger.BundleAdmitted].
type Admission struct {
	Seq     int64
	Verdict ledger.Verdict
}

// Options name the run. SiteID and RunID are required.
type Options struct {
	SiteID    string
	RunID     string
	Artifacts []string // NAME or STEP/NAME: the statement is about these alone
}

// Statement is what is to be signed.
type Statement struct {
	Payload  []byte // canonical JSON
	Subjects []Subject
	// Attested are the entries after the run's end that record a statement that
	// has left the site.
	Attested []ledger.RunAttestation
}

// Subject is one thing that a statement is about.
type Subject struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Make makes the statement about a completed run. One that is not is
// [ErrNotCompleted].
func Make(ctx context.Context, src Source, opt Options) (*Statement, error) {
	m := &maker{ctx: ctx, src: src, opt: opt}
	run, err := m.read(opt.RunID, "", -1)
	if err != nil {
		return nil, err
	}
	m.last = run.lastSeq
	if err := m.below(run); err != nil {
		return nil, err
	}
	subjects, err := m.subjects(run)
	if err != nil {
		return nil, err
	}
	predicate, err := m.predicate(run)
	if err != nil {
		return nil, err
	}
	out := &Statement{Attested: run.attested}
	out.Payload, err = jcs.Marshal(statement{StatementType, PredicateType, predicate, subjects})
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	// In its envelope it is base64, and there is a little around it.
	if len(out.Payload)/3*4+4096 > bundle.MaxAttestation {
		return nil, fmt.Errorf("provenance: %d bytes: %w", len(out.Payload), ErrTooLarge)
	}
	for _, s := range subjects {
		out.Subjects = append(out.Subjects, Subject{s.Name, s.Digest["sha256"]})
	}
	return out, nil
}

// maker is a statement in the making.
type maker struct {
	ctx  context.Context
	src  Source
	opt  Options
	last int64    // the entry that completed the run
	subs []*story // runs that steps have started, those of the first step first
}

// below reads the sub-runs of a run as they were when the run above all ended.
func (m *maker) below(s *story) error {
	if strings.Count(s.path, "/") > runner.MaxDepth {
		return fmt.Errorf("provenance: run %s: its sub-runs are nested too deep", s.run.RunID)
	}
	for _, sub := range s.subs {
		child, err := m.read(sub.runID, s.path+sub.stepID+"/", m.last)
		if err != nil {
			return err
		}
		m.subs = append(m.subs, child)
		if err := m.below(child); err != nil {
			return err
		}
	}
	return nil
}
