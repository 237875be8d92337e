package provenance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/provenance"
	"github.com/stellarun/stella/runner"
)

// site is a ledger in memory.
type site struct {
	t    *testing.T
	seq  int64
	runs map[string][]provenance.Entry
	plan runner.Plan
}

const (
	parent = "01935b1e-0000-7000-8000-000000000001"
	child  = "01935b1e-0000-7000-8000-000000000002"
	person = "uid:1000(ann)"
)

func sum(c string) string { return strings.Repeat(c, 64) }

func newSite(t *testing.T) *site {
	s := &site{t: t, runs: map[string][]provenance.Entry{}}
	s.plan = runner.Plan{DAG: runner.PlanDAG{ID: "flow", Version: "1.0.0", Digest: sum("d")}, Platform: "linux/amd64"}
	s.start(parent, &ledger.RunStart{RunToken: "t", PlanHash: sum("a"), InputsHash: sum("b"), DAGDigest: sum("d"), Steps: 3})
	return s
}

func (s *site) start(run string, d *ledger.RunStart) { s.add(run, ledger.RunStarted, "", 0, person, d) }

// add writes an entry; actor "" is the runner.
func (s *site) add(run string, typ ledger.Type, step string, attempt int, actor string, data any) {
	s.t.Helper()
	if actor == "" {
		actor = "system:runner"
	}
	e, err := ledger.Seal(ledger.Envelope{
		Seq: s.seq, Time: stamp.Format(time.Unix(1_800_000_000+s.seq, 0)), Type: typ, Actor: actor, Tenant: "default",
		RunID: run, DAGID: "flow", DAGVersion: "1.0.0", StepID: step, Attempt: attempt,
	}, data, [32]byte{1})
	if err != nil {
		s.t.Fatal(err)
	}
	s.seq++
	s.runs[run] = append(s.runs[run], provenance.Entry{Envelope: e.Envelope, Data: e.Data})
}

// attempt is one try at a step, with an artifact of its name.
func (s *site) attempt(run, step string, n, generation int, outcome string) {
	s.t.Helper()
	s.add(run, ledger.StepQueued, step, 0, "", &ledger.StepQueue{Reason: "ready"})
	s.add(run, ledger.AttemptStarted, step, n, "", &ledger.AttemptStart{Generation: generation, Tier: "landlock", Trust: ledger.TrustRef{Extension: sum("e")}})
	s.add(run, ledger.AttemptEnded, step, n, "", &ledger.AttemptEnd{
		Generation: generation, Outcome: outcome, Artifacts: []ledger.Artifact{{Name: "out", SHA256: sum(fmt.Sprint(n))}},
		Logs: &ledger.LogRef{SHA256: sum("f"), Bytes: 3, Records: 1},
	})
}

// done is a step that succeeds at once.
func (s *site) done(run, step string) {
	s.t.Helper()
	s.attempt(run, step, 1, 1, "succeeded")
	s.add(run, ledger.StepCompleted, step, 0, "", &ledger.StepEnd{})
}

func (s *site) end(run string, outputs string) {
	s.t.Helper()
	s.add(run, ledger.RunCompleted, "", 0, "", &ledger.RunEnd{OutputsHash: outputs})
}

func (s *site) RunEntries(runID string) iter.Seq2[provenance.Entry, error] {
	return func(yield func(provenance.Entry, error) bool) {
		for _, e := range s.runs[runID] {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s *site) Plan(string) (*runner.Plan, error) { return &s.plan, nil }

func (s *site) Around(_ context.Context, _, _ int64, digests []string) (provenance.Around, error) {
	a := provenance.Around{Starts: []provenance.Start{{SiteStart: ledger.SiteStart{Stella: "1", BinarySHA256: sum("c")}}}, Admissions: map[string][]provenance.Admission{}}
	for _, d := range digests {
		a.Admissions[d] = []provenance.Admission{{Verdict: ledger.Verdict{Kind: "dag", Publisher: "acme", Name: "flow", Version: "1.0.0"}}}
	}
	return a, nil
}

func (s *site) make(artifacts ...string) (*provenance.Statement, error) {
	return provenance.Make(context.Background(), s, provenance.Options{SiteID: sum("9")[:32], RunID: parent, Artifacts: artifacts})
}

func (s *site) must(artifacts ...string) *provenance.Statement {
	s.t.Helper()
	st, err := s.make(artifacts...)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// said is what a test looks at of a statement.
type said struct {
	Predicate struct {
		RunDetails struct {
			Byproducts []struct {
				Name, URI   string
				Annotations struct {
					RunID, StepID, Status string
					Overridden            bool
					LastSeq               int64
					Tiers                 map[string]int
					Extensions            []string
					Steps                 []struct {
						StepID, Status, Reason string
						Overridden             bool
						Cached                 *struct{ RunID string }
					}
					MoreSteps int
					Acts      []struct {
						Type, Actor, Decision, SHA256 string
					}
				}
			}
		}
	}
}

func read(t *testing.T, st *provenance.Statement) said {
	t.Helper()
	var out said
	if err := json.Unmarshal(st.Payload, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func names(st *provenance.Statement) string {
	var out []string
	for _, x := range st.Subjects {
		out = append(out, x.Name+"="+x.SHA256[:1])
	}
	return strings.Join(out, " ")
}

// What counts is what the last attempt of a completed step has made: not that of a
// failed one, of a step that was begun again, or of an item that is none any more.
func TestSubjectsAreWhatCounts(t *testing.T) {
	s := newSite(t)
	s.attempt(parent, "a", 1, 1, "failed")
	s.attempt(parent, "a", 2, 1, "succeeded")
	s.add(parent, ledger.StepCompleted, "a", 0, "", &ledger.StepEnd{})
	s.attempt(parent, "b", 1, 1, "failed")
	s.add(parent, ledger.StepFailed, "b", 0, "", &ledger.StepEnd{ErrorCode: "STEP_FAILED"})
	s.attempt(parent, "c", 1, 1, "succeeded") // and its approval is refused
	s.add(parent, ledger.StepFailed, "c", 0, "", &ledger.StepEnd{ErrorCode: "APPROVAL_REJECTED"})
	s.add(parent, ledger.StepExpanded, "each", 1, "", &ledger.StepExpansion{Items: sum("1"), Count: 2})
	s.done(parent, "each.0")
	s.done(parent, "each.1")
	s.add(parent, ledger.StepCompleted, "each", 0, "", &ledger.StepEnd{})
	s.add(parent, ledger.StepInvalidated, "each", 0, person, &ledger.StepInvalidation{Reason: "rewind"})
	s.add(parent, ledger.StepExpanded, "each", 2, "", &ledger.StepExpansion{Items: sum("2"), Count: 1})
	s.add(parent, ledger.StepCompleted, "each", 0, "", &ledger.StepEnd{})
	s.add(parent, ledger.StepQueued, "hit", 0, "", &ledger.StepQueue{Reason: "ready"})
	s.add(parent, ledger.StepCached, "hit", 1, "", &ledger.CacheHit{Key: "k", RunID: child, StepID: "x", Attempt: 3, Artifacts: []ledger.Artifact{{Name: "kept", SHA256: sum("7")}}})
	s.add(parent, ledger.StepCompleted, "hit", 0, "", &ledger.StepEnd{})
	s.end(parent, sum("8"))
	st := s.must()
	if got, want := names(st), "a/out=2 each.0/out=1 hit/kept=7 outputs=8"; got != want {
		t.Errorf("subjects are %s, want %s", got, want)
	}
	run := read(t, st).Predicate.RunDetails.Byproducts[0].Annotations
	var steps []string
	for _, x := range run.Steps {
		steps = append(steps, x.StepID+" "+x.Status+" "+x.Reason)
	}
	if diff := cmp.Diff([]string{"b failed STEP_FAILED", "c failed APPROVAL_REJECTED", "hit completed "}, steps); diff != "" {
		t.Errorf("exceptions (-want +got):\n%s", diff)
	}
	if run.Steps[2].Cached == nil || run.Steps[2].Cached.RunID != child {
		t.Error("that outputs came from the cache is not said")
	}
	if len(run.Acts) != 1 || run.Acts[0].Actor != person || !slices.Equal(run.Extensions, []string{sum("e")}) {
		t.Errorf("acts %v, extensions %v: want one rewind, and one extension of expired trust", run.Acts, run.Extensions)
	}
	if got := names(s.must("a/out", "kept")); got != "a/out=2 hit/kept=7" {
		t.Errorf("chosen: %s", got)
	}
	var subject *provenance.SubjectError
	if _, err := s.make("out"); !errors.As(err, &subject) || !subject.Many || len(subject.Are) != 2 {
		t.Errorf("an artifact of two steps: %v", err)
	}
	if _, err := s.make("b/out"); !errors.As(err, &subject) || subject.Many {
		t.Errorf("the artifact of a failed step: %v", err)
	}
}

// A run that has given nothing is stated as the entry that completed it.
func TestARunWithoutOutputs(t *testing.T) {
	s := newSite(t)
	s.end(parent, "")
	if got := names(s.must()); !strings.HasPrefix(got, "run.completed=") {
		t.Errorf("subjects are %s", got)
	}
}

// What comes after the end of a run changes no byte of its statement: refused
// decisions, statements, and a sub-run that somebody has taken up again by itself.
func TestWhatComesLaterChangesNothing(t *testing.T) {
	s := newSite(t)
	s.add(parent, ledger.StepQueued, "sub", 0, "", &ledger.StepQueue{Reason: "ready"})
	s.add(parent, ledger.SubrunStarted, "sub", 1, "", &ledger.SubrunStart{Generation: 1, RunID: child, DAGID: "flow"})
	s.start(child, &ledger.RunStart{PlanHash: sum("a"), Parent: parent, ParentStep: "sub", Steps: 1})
	s.attempt(child, "x", 1, 1, "failed")
	s.add(child, ledger.StepFailed, "x", 0, "", &ledger.StepEnd{ErrorCode: "STEP_FAILED", Reason: "the password is tea"})
	s.add(child, ledger.RunFailed, "", 0, "", &ledger.RunEnd{FailureReason: "STEP_FAILED"})
	s.add(parent, ledger.SubrunEnded, "sub", 1, "", &ledger.SubrunEnd{RunID: child, Status: "failed"})
	s.add(parent, ledger.StepFailed, "sub", 0, "", &ledger.StepEnd{ErrorCode: "orchestration.child.failed"})
	if _, err := s.make(); !errors.Is(err, provenance.ErrNotCompleted) {
		t.Errorf("an open run: %v", err)
	}
	s.add(parent, ledger.RunFailed, "", 0, "", &ledger.RunEnd{})
	if _, err := s.make(); !errors.Is(err, provenance.ErrNotCompleted) {
		t.Errorf("a failed run: %v", err)
	}
	s.add(parent, ledger.RunReopened, "", 0, person, &ledger.RunGeneration{Generation: 2})
	s.add(parent, ledger.StepSkipped, "sub", 0, person, &ledger.StepEnd{Reason: "SKIPPED_BY_HAND", Note: "tea", OutputsHash: sum("5"), Overridden: true})
	s.add(parent, ledger.StepSkipped, "y", 0, "", &ledger.StepEnd{Reason: "tea is out"})
	s.add(parent, ledger.StepSkipped, "z", 0, person, &ledger.StepEnd{OutputsHash: sum("5"), Overridden: true})
	s.add(parent, ledger.StepInvalidated, "z", 0, person, &ledger.StepInvalidation{Reason: "retry"})
	s.attempt(parent, "z", 1, 2, "succeeded")
	s.add(parent, ledger.StepCompleted, "z", 0, "", &ledger.StepEnd{})
	s.end(parent, sum("8"))
	first := s.must()
	x := read(t, first).Predicate.RunDetails.Byproducts
	switch {
	case !x[0].Annotations.Overridden || !x[0].Annotations.Steps[0].Overridden:
		t.Error("that somebody gave outputs by hand is not said")
	case len(x[0].Annotations.Steps) != 2:
		t.Errorf("steps that were not simply done: %+v, want sub and y", x[0].Annotations.Steps)
	case x[1].Name != "sub-run" || x[1].Annotations.Status != "failed" || x[1].Annotations.StepID != "sub":
		t.Errorf("the sub-run is %+v", x[1])
	case x[1].Annotations.Steps[0].Reason != "STEP_FAILED":
		t.Errorf("its step is %+v", x[1].Annotations.Steps)
	case strings.Contains(string(first.Payload), "tea"):
		t.Error("what somebody or something wrote is in the statement")
	}
	s.add(parent, ledger.RunAttested, "", 0, person, &ledger.RunAttestation{SHA256: sum("1"), Statement: sum("2"), Subjects: 1})
	s.add(child, ledger.RunReopened, "", 0, person, &ledger.RunGeneration{Generation: 2})
	s.add(child, ledger.StepInvalidated, "x", 0, person, &ledger.StepInvalidation{Reason: "retry"})
	s.add(parent, ledger.ApprovalRefused, "sub", 1, person, &ledger.ApprovalRefusal{Decision: "abort", Code: "STALE"})
	again := s.must()
	if string(again.Payload) != string(first.Payload) {
		t.Error("the statement changed with what came after the end of the run")
	}
	if len(again.Attested) != 1 || again.Attested[0].SHA256 != sum("1") {
		t.Errorf("attested: %v", again.Attested)
	}
}

// Without all of its data nobody can say what a run was. What people have said is not
// needed: where that was erased the statement stays as it was.
func TestErasedDataIsRefused(t *testing.T) {
	s := newSite(t)
	s.done(parent, "a")
	s.add(parent, ledger.RunRestarted, "", 0, person, &ledger.Nudge{Reason: "tea"})
	s.end(parent, "")
	first, said := s.must(), &s.runs[parent][5]
	kept := said.Data
	line, err := ledger.ParseData(kept)
	if err != nil {
		t.Fatal(err)
	}
	remains, ok, err := ledger.Remains(ledger.RunRestarted, line.Data)
	if err != nil || !ok {
		t.Fatalf("remains: %v, %v", ok, err)
	}
	said.Data, said.Remains = nil, remains
	if got := s.must(); string(got.Payload) != string(first.Payload) {
		t.Error("an erasure changed the statement")
	}
	said.Data, said.Remains = kept, nil
	for i := range s.runs[parent] {
		kept := s.runs[parent][i].Data
		s.runs[parent][i].Data = nil
		var erased *provenance.ErasedError
		if _, err := s.make(); !errors.As(err, &erased) || erased.Seq != int64(i) {
			t.Errorf("entry %d erased: %v", i, err)
		}
		s.runs[parent][i].Data = kept
	}
}

// Verifiers take 1,024 subjects and 4 MiB, and lists are cut before that.
func TestLargeRuns(t *testing.T) {
	s := newSite(t)
	for i := range 6000 {
		s.add(parent, ledger.StepSkipped, fmt.Sprintf("skipped-%d", i), 0, "", &ledger.StepEnd{Reason: "CONDITION_FALSE"})
	}
	for i := range 1025 {
		s.done(parent, fmt.Sprintf("made-%d", i))
	}
	s.end(parent, "")
	if _, err := s.make(); !errors.Is(err, provenance.ErrTooLarge) {
		t.Errorf("1,025 artifacts: %v", err)
	}
	run := read(t, s.must("made-7/out")).Predicate.RunDetails.Byproducts[0].Annotations
	if len(run.Steps) != 5000 || run.MoreSteps != 1000 {
		t.Errorf("%d steps and %d more, want 5000 and 1000", len(run.Steps), run.MoreSteps)
	}
}
