package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/provenance"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

var _ api.Attestations = (*site)(nil)

// AttestRun signs what the ledger says of a completed run. That it has is recorded
// before anybody gets it: a statement under the site's key that the ledger does not
// name was not made here.
func (s *site) AttestRun(ctx context.Context, id string, req api.AttestRequest) (api.Attestation, error) {
	e := s.e
	run, err := s.run(id)
	if err != nil {
		return api.Attestation{}, err
	}
	if run.Status != state.Completed {
		return api.Attestation{}, notCompleted(run)
	}
	e.attesting.Lock()
	defer e.attesting.Unlock()
	st, err := provenance.Make(ctx, told{e}, provenance.Options{SiteID: e.db.SiteID(), RunID: id, Artifacts: req.Artifacts})
	if err != nil {
		return api.Attestation{}, attestError(id, err)
	}
	signed, err := verify.SignStatement(st.Payload, e.keys.site)
	if err != nil {
		return api.Attestation{}, internal(err)
	}
	out := api.Attestation{
		RunID: id, PredicateType: provenance.PredicateType, Statement: bundle.Digest(st.Payload), SHA256: bundle.Digest(signed.Data), Bundle: signed.Data,
	}
	rec := &ledger.RunAttestation{SHA256: out.SHA256, Statement: out.Statement, Subjects: len(st.Subjects)}
	for _, x := range st.Subjects {
		out.Subjects = append(out.Subjects, api.AttestedSubject{Name: x.Name, SHA256: x.SHA256})
		if len(req.Artifacts) > 0 {
			rec.Artifacts = append(rec.Artifacts, x.Name)
		}
	}
	if slices.ContainsFunc(st.Attested, func(a ledger.RunAttestation) bool { return a.SHA256 == out.SHA256 }) {
		return out, nil
	}
	if _, err := e.db.Commit(id, state.Proposal{Type: ledger.RunAttested, Actor: s.actor, Data: rec}); err != nil {
		return api.Attestation{}, dbError(err)
	}
	out.New = true
	return out, nil
}

// notCompleted says why there is no statement about a run, and what would lead to one.
func notCompleted(run state.Run) *api.Error {
	id := run.RunID
	e := &api.Error{Code: api.CodeNotCompleted, Message: fmt.Sprintf("run %s is %s: only a run that is completed is attested", id, run.Status)}
	switch run.Status {
	case state.Cancelled:
		e.Hint = "it stays so: stella orch run start begins another"
	case state.Failed:
		e.Message += "; " + run.FailureReason
		if run.FailedStep != "" {
			e.Message += " in " + run.FailedStep
		}
		e.Hint = "see what failed with stella orch run inspect " + id + "; stella orch run retry " + id + " reopens it"
	case state.Checkpoint:
		e.Hint = "it waits for people: stella orch approvals list --run " + id
	default:
		e.Hint = "wait for its end: stella orch run stream " + id + "; where nobody executes it: stella orch run resume " + id
	}
	return e
}

func attestError(id string, err error) error {
	var erased *provenance.ErasedError
	var subject *provenance.SubjectError
	switch {
	case errors.As(err, &erased):
		return damaged("run %s cannot be attested: nothing is left of the data of entry %d", id, erased.Seq)
	case errors.As(err, &subject):
		e := invalid("%s", strings.TrimPrefix(err.Error(), "provenance: "))
		switch {
		case subject.Many:
			e.Hint = "say which: " + some20(subject.Are)
		case len(subject.Are) > 0:
			e.Hint = "it has " + some20(subject.Are)
		default:
			e.Hint = "it has none; without --artifact the statement is about its outputs"
		}
		return e
	case errors.Is(err, provenance.ErrTooLarge):
		e := invalid("%s", strings.TrimPrefix(err.Error(), "provenance: "))
		e.Hint = "--artifact limits it to some of them"
		return e
	case errors.Is(err, provenance.ErrNotCompleted):
		return internal(err) // its record says that it is
	}
	return dbError(err)
}

// some20 lists names, not too many.
func some20(names []string) string {
	if len(names) > 20 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:20], ", "), len(names)-20)
	}
	return strings.Join(names, ", ")
}

// told is the site as package provenance reads it.
type told struct{ e *Engine }

func (t told) RunEntries(runID string) iter.Seq2[provenance.Entry, error] {
	return func(yield func(provenance.Entry, error) bool) {
		for l, err := range t.e.db.RunEntries(runID) {
			if !yield(provenance.Entry{Envelope: l.Envelope, Data: l.Data, Remains: l.Remains()}, err) {
				return
			}
		}
	}
}

func (t told) Plan(hash string) (*runner.Plan, error) { return t.e.plan(hash) }

// Around looks into the records first: they answer where nothing was imported again
// since, and this process executed the run. Else it looks through the ledger, back to
// what held at first.
func (t told) Around(ctx context.Context, first, last int64, digests []string) (provenance.Around, error) {
	b := lookBack{first: first, start: true, bundles: map[string]bool{}, found: provenance.Around{Admissions: map[string][]provenance.Admission{}}}
	for _, d := range digests {
		rec, err := t.e.db.Bundle(d)
		switch {
		case err != nil:
			return b.found, err
		case rec.Seq <= first:
			b.found.Admissions[d] = []provenance.Admission{{Seq: rec.Seq, Verdict: rec.Admission.Verdict}}
		default:
			b.bundles[d] = true
		}
	}
	if own := t.e.begun; own != nil && own.Seq <= first { // nobody else has held the site since
		b.found.Starts, b.start = []provenance.Start{*own}, false
	}
	const page = 512
	for to := last + 1; to > 0 && b.wants(); to -= page {
		var lines []provenance.Entry
		for l, err := range t.e.db.Entries(max(0, to-page), to) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return b.found, err
			}
			lines = append(lines, provenance.Entry{Envelope: l.Envelope, Data: l.Data})
		}
		for _, l := range slices.Backward(lines) {
			if err := b.take(l); err != nil {
				return b.found, err
			}
		}
	}
	slices.Reverse(b.found.Starts)
	for d := range b.found.Admissions {
		slices.Reverse(b.found.Admissions[d])
	}
	return b.found, nil
}

// lookBack goes from entry to entry, the newest first, until it has what held at first.
type lookBack struct {
	first   int64
	start   bool            // the program that executed is still looked for
	bundles map[string]bool // so are the admissions of these
	found   provenance.Around
}

func (b *lookBack) wants() bool { return b.start || len(b.bundles) > 0 }

func (b *lookBack) take(l provenance.Entry) error {
	started := b.start && bytes.Contains(l.Envelope, []byte(`"type":"`+string(ledger.SiteStarted)+`"`))
	admitted := len(b.bundles) > 0 && bytes.Contains(l.Envelope, []byte(`"type":"`+string(ledger.BundleAdmitted)+`"`))
	if !started && !admitted {
		return nil
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil {
		return err
	}
	if l.Data == nil {
		return &provenance.ErasedError{Seq: env.Seq}
	}
	held := env.Seq <= b.first
	switch env.Type {
	case ledger.SiteStarted:
		d, err := dataOf[ledger.SiteStart](env.Type, l.Data)
		if err != nil {
			return err
		}
		b.found.Starts = append(b.found.Starts, provenance.Start{Seq: env.Seq, SiteStart: *d})
		b.start = !held
	case ledger.BundleAdmitted:
		d, err := dataOf[ledger.BundleAdmission](env.Type, l.Data)
		if err != nil {
			return err
		}
		if digest := d.Verdict.Digest; b.bundles[digest] {
			b.found.Admissions[digest] = append(b.found.Admissions[digest], provenance.Admission{Seq: env.Seq, Verdict: d.Verdict})
			if held {
				delete(b.bundles, digest)
			}
		}
	}
	return nil
}
