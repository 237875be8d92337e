package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// BundleRecord is the projection of an admitted bundle: its newest admission.
type BundleRecord struct {
	Digest    string                 `json:"digest"`
	Seq       int64                  `json:"seq"`
	FirstSeq  int64                  `json:"firstSeq"`
	Time      string                 `json:"time"`
	Admission ledger.BundleAdmission `json:"admission"`
	// Removed is the entry by which the contents were given up; 0 while they
	// are here. The next admission brings them back.
	Removed int64    `json:"removed,omitempty"`
	Earlier Evidence `json:"earlier,omitzero"` // what came only with earlier admissions
}

// Evidence is digests of files that a bundle was judged by.
type Evidence struct {
	Signatures   []string `json:"signatures,omitempty"`
	Attestations []string `json:"attestations,omitempty"`
}

// Signatures are the digests of all signature files that came with the bundle,
// at its newest admission and at earlier ones, the newest first.
func (r *BundleRecord) Signatures() []string {
	return slices.Concat(r.Admission.Signatures, r.Earlier.Signatures)
}

// Attestations are those of all attestations.
func (r *BundleRecord) Attestations() []string {
	return slices.Concat(r.Admission.Attestations, r.Earlier.Attestations)
}

// Ref is publisher/name@version.
func (r *BundleRecord) Ref() string {
	v := r.Admission.Verdict
	return v.Publisher + "/" + v.Name + "@" + v.Version
}

// Floor is the highest sequence that was admitted for one kind, publisher and
// name, and the digest that holds it. A policy can begin the sequences of a name
// anew, in a higher epoch.
type Floor struct {
	Sequence int64  `json:"sequence"`
	Digest   string `json:"digest"`
	Epoch    int64  `json:"epoch,omitempty"`
}

// below says whether a sequence of an epoch is above the floor, or there is none.
func (f Floor) below(epoch, sequence int64) bool {
	return f.Digest == "" || epoch > f.Epoch || epoch == f.Epoch && sequence > f.Sequence
}

// DAGRecord is the projection of a published DAG version.
type DAGRecord struct {
	DAGID     string `json:"dagId"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
	Spec      string `json:"spec"`
	Publisher string `json:"publisher"`
	Enabled   bool   `json:"enabled"`
	Seq       int64  `json:"seq"`
	Time      string `json:"time"`
	// Who disabled or enabled it last, when and why; absent where nobody has.
	Switched *Switched `json:"switched,omitempty"`
}

// project moves the projections by one entry. It is the only place that
// changes them, so that a replay of the ledger must give the same.
func (tx *Tx) project(env ledger.Envelope, data any) error {
	switch d := data.(type) {
	case *ledger.SiteInit:
		return tx.putJSON(bMeta, kSite, firstSite(d))
	case *ledger.EpochStart:
		return errors.Join(tx.projectEpoch(env, d), tx.projectErasure(env, d.Erased))
	case *ledger.Erasure:
		return tx.projectErasure(env, d.Entries)
	case *ledger.TrustChange:
		return tx.projectTrust(d)
	case *ledger.BundleAdmission:
		return tx.projectAdmission(env, d)
	case *ledger.BundleMemory:
		return tx.projectMemory(d)
	case *ledger.ClockAcceptance:
		return tx.projectClock(env, d)
	case *ledger.TrustExtension:
		return tx.putJSON(bMeta, kExtension, d)
	case *ledger.GarbageCollection:
		return tx.projectCollection(env, d)
	case *ledger.DAGPublication:
		return tx.putJSON(bDAGs, pair(d.DAGID, d.Version), DAGRecord{
			DAGID: d.DAGID, Version: d.Version, Digest: d.Digest, Spec: d.Spec, Publisher: d.Publisher,
			Enabled: true, Seq: env.Seq, Time: env.Time,
		})
	case *ledger.DAGSwitch:
		return tx.projectSwitch(env, d)
	case *ledger.ScheduleAddition, *ledger.ScheduleSwitch, *ledger.ScheduleFiring:
		return tx.projectSchedule(env, data)
	case *ledger.SecretChange, *ledger.SecretRemoval:
		return tx.projectSecret(env, data)
	case *ledger.AttemptStart:
		if err := tx.projectSecretUses(env, d.Secrets); err != nil {
			return err
		}
	case *ledger.ExportCreation:
		return tx.putJSON(bExports, be64(env.Seq), d)
	case *ledger.RunArchive:
		return tx.projectArchive(env, d)
	case *ledger.QueueChange:
		return tx.projectQueue(env, d)
	case *ledger.LockLoss:
		return tx.projectLoss(env, d)
	case *ledger.CacheClearing:
		return tx.projectClearing(env, d)
	}
	if env.RunID != "" {
		return tx.projectRun(env, data)
	}
	return nil // the entry only records
}

// maxEarlier bounds what a record keeps of earlier admissions.
const maxEarlier = 64

// only is all without those of others, at most most.
func only(all, others []string, most int) []string {
	var out []string
	for _, d := range all {
		if !slices.Contains(others, d) && len(out) < most {
			out = append(out, d)
		}
	}
	return out
}

// projectTrust puts a change of trust in force. An extension outlives all but
// another root, which is what it was signed under.
func (tx *Tx) projectTrust(d *ledger.TrustChange) error {
	if old := tx.get(bMeta, kTrust); old != nil {
		if err := tx.put(bMeta, kTrustPrev, bytes.Clone(old)); err != nil {
			return err
		}
		var before ledger.TrustChange
		if err := json.Unmarshal(old, &before); err != nil {
			return damaged(err, "meta %s", kTrust)
		}
		if before.Root != d.Root && tx.get(bMeta, kExtension) != nil {
			if err := tx.delete(bMeta, kExtension); err != nil {
				return err
			}
		}
	}
	return tx.putJSON(bMeta, kTrust, d)
}

func (tx *Tx) projectAdmission(env ledger.Envelope, d *ledger.BundleAdmission) error {
	tx.bundles = true
	v := d.Verdict
	rec := BundleRecord{Digest: v.Digest, Seq: env.Seq, FirstSeq: env.Seq, Time: env.Time, Admission: *d}
	var old BundleRecord
	switch err := getJSON(tx.bolt, bBundles, []byte(v.Digest), &old); {
	case err == nil:
		rec.FirstSeq = old.FirstSeq
		rec.Earlier = Evidence{
			Signatures:   only(old.Signatures(), d.Signatures, maxEarlier),
			Attestations: only(old.Attestations(), d.Attestations, maxEarlier),
		}
	case !errors.Is(err, ErrNotFound):
		return err
	}
	return errors.Join(
		tx.raiseFloor(remembered(d)),
		tx.putJSON(bBundles, []byte(v.Digest), rec),
		tx.put(bRefs, []byte(rec.Ref()), []byte(v.Digest)),
		tx.projectTrusted(v.TrustedTime))
}

func (tx *Tx) projectCollection(env ledger.Envelope, d *ledger.GarbageCollection) error {
	tx.bundles = true
	for _, digest := range d.Bundles {
		var rec BundleRecord
		if err := getJSON(tx.bolt, bBundles, []byte(digest), &rec); err != nil {
			return fmt.Errorf("bundle %s: %w", digest, err)
		}
		rec.Removed = env.Seq
		if err := tx.putJSON(bBundles, []byte(digest), rec); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) projectRun(env ledger.Envelope, data any) error {
	view, err := tx.view(env)
	if err != nil {
		return err
	}
	before := stepOf(view)
	if err := state.Apply(&view, state.Change{Envelope: env, Data: data}); err != nil {
		return err
	}
	run := view.Run
	if err := tx.projectRunRecord(env, run); err != nil {
		return err
	}
	if env.StepID == "" {
		if run.Status.Ended() {
			return tx.giveBackGivenUp(run)
		}
		return nil
	}
	if err := tx.projectStep(run, before, *view.Step); err != nil {
		return err
	}
	if err := errors.Join(tx.projectLocks(env, run, view, data), tx.projectCache(env, run, view.Attempt, data)); err != nil {
		return err
	}
	if view.Attempt == nil {
		return nil
	}
	if end, ok := data.(*ledger.AttemptEnd); ok {
		if err := tx.projectArtifacts(run, end.Artifacts); err != nil {
			return err
		}
	}
	tx.moved.attempts[string(attemptRecord(run.RunID, env.StepID, view.Attempt.Attempt))] = view.Attempt
	return nil
}

// stepOf is a copy of the step of a view; a step without a record is pending.
func stepOf(v state.View) state.Step {
	if v.Step == nil {
		return state.Step{Status: state.Pending}
	}
	return *v.Step
}

// projectRunRecord writes the run, and keeps the indexes of runs.
func (tx *Tx) projectRunRecord(env ledger.Envelope, run *state.Run) error {
	id := []byte(run.RunID)
	if env.Type == ledger.RunStarted {
		if err := errors.Join(
			tx.put(bTenantRuns, pair(run.Tenant, run.RunID), []byte{}),
			tx.put(bActive, id, []byte{}),
			tx.put(bTokens, pair(run.Tenant, run.RunToken), id),
		); err != nil {
			return err
		}
	}
	var err error
	switch {
	case run.Status.Ended():
		err = tx.delete(bActive, id)
	case env.Type == ledger.RunReopened:
		err = tx.put(bActive, id, []byte{})
	}
	tx.moved.runs[run.RunID] = run
	return err
}

// projectStep writes a step, and keeps the indexes of steps and approvals.
func (tx *Tx) projectStep(run *state.Run, before, after state.Step) error {
	key := stepKey(run.RunID, after.StepID)
	tx.moved.steps[string(stepRecord(run.RunID, after.StepID))] = &after
	err := errors.Join(
		tx.index(bLive, key, live(before), live(after)),
		tx.index(bDead, key, dead(before), dead(after)))
	a := after.Approval
	if err != nil || a == nil {
		return err
	}
	open := a.Status == state.ApprovalPending
	akey := attemptKey(run.RunID, after.StepID, a.Attempt)
	if before.Approval != nil && before.Approval.Attempt == a.Attempt && len(before.Approval.Decisions) == len(a.Decisions) && before.Approval.Status == a.Status {
		return nil
	}
	return errors.Join(tx.putJSON(bApprovals, akey, a),
		tx.index(bAsked, akey, before.Approval != nil && before.Approval.Attempt == a.Attempt && before.Approval.Status == state.ApprovalPending, open))
}

// index keeps a key in a bucket while something holds of it.
func (tx *Tx) index(bucket, key []byte, before, after bool) error {
	switch {
	case after && !before:
		return tx.put(bucket, key, []byte{})
	case before && !after:
		return tx.delete(bucket, key)
	}
	return nil
}

// live says whether a step is one that somebody who looks at a run wants to see
// first.
func live(s state.Step) bool {
	switch s.Status {
	case state.Queued, state.Running, state.CheckpointPending, state.Failed:
		return true
	}
	return false
}

// dead says whether only a person lets a step go on.
func dead(s state.Step) bool {
	return s.Status == state.Failed && (s.ErrorCode == string(state.PoisonPill) || s.ErrorCode == string(state.Indeterminate))
}

func (tx *Tx) projectArtifacts(run *state.Run, made []ledger.Artifact) error {
	for _, a := range made {
		key := pair(run.Tenant, a.SHA256)
		if tx.get(bArtifacts, key) != nil {
			continue
		}
		if err := tx.put(bArtifacts, key, []byte(run.RunID)); err != nil {
			return err
		}
	}
	return nil
}

func floorOf(t *bolt.Tx, kind, publisher, name string) (Floor, error) {
	var f Floor
	err := getJSON(t, bFloors, floorKey(kind, publisher, name), &f)
	if errors.Is(err, ErrNotFound) {
		return Floor{}, nil
	}
	return f, err
}

func pair(a, b string) []byte { return []byte(a + "\x00" + b) }

func floorKey(kind, publisher, name string) []byte {
	return []byte(kind + "\x00" + publisher + "\x00" + name)
}

func stepKey(runID, stepID string) []byte { return []byte(runID + "/" + stepID) }

func attemptKey(runID, stepID string, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte(runID+"/"+stepID+"/"), uint32(n))
}

// runEntry makes an entry of a run from a proposal.
func runEntry(run *state.Run, p state.Proposal) entry {
	return entry{ledger.Envelope{
		Type: p.Type, Actor: p.Actor, V: 1, Tenant: run.Tenant, RunID: run.RunID, DAGID: run.DAGID,
		DAGVersion: run.DAGVersion, TraceID: run.TraceID, StepID: p.StepID, Attempt: p.Attempt,
	}, p.Data}
}

func unknownRun(id string) error { return fmt.Errorf("run %q: %w", id, ErrNotFound) }
