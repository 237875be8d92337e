package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// fake is a small site in memory. Two of them that are asked the same things
// answer the same things.
type fake struct {
	mu      sync.Mutex // guards runs, stopped, forced
	runs    []state.Run
	stopped bool
	forced  bool

	principal api.Principal
	ended     chan struct{} // closed: open runs end
	waiting   chan struct{} // receives once for each WaitRun and followed log
}

func newFake() *fake {
	return &fake{ended: make(chan struct{}), waiting: make(chan struct{}, 100)}
}

func fuzzRun() state.Run { return state.Run{RunID: "run-1", DAGID: "audit", Status: state.Planning} }

// as makes the fake say who asked.
func (f *fake) as(p api.Principal) api.Site {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.principal = p
	return f
}

func notFound(what string) error {
	return &api.Error{Code: api.CodeNotFound, Message: what + " is not here"}
}

func (f *fake) ImportBundle(ctx context.Context, req api.ImportRequest, p api.Progress) (api.ImportResult, error) {
	switch {
	case strings.HasSuffix(req.Path, "refused.stella"):
		return api.ImportResult{}, &api.Error{
			Code: "SIGNER_UNKNOWN", Message: "no signature of a known signer", Hint: "see stella bundle inspect",
			Refusal: &api.Refusal{Reason: "SIGNER_UNKNOWN", Subject: "signatures/", Offset: 1024, SHA256: "ab", Digest: "cd", Seq: 7},
		}
	case strings.HasSuffix(req.Path, "slow.stella"):
		if p != nil {
			p(1, 2)
		}
		return api.ImportResult{}, f.wait(ctx)
	case strings.HasSuffix(req.Path, "late.stella"):
		if p != nil {
			p(1, 3)
		}
		return api.ImportResult{}, &api.Error{Code: "ROLLBACK", Message: "older than the floor", Refusal: &api.Refusal{Reason: "ROLLBACK"}}
	}
	if p != nil {
		p(1, 2)
		p(2, 2)
	}
	return api.ImportResult{Verdict: verdict(), Already: true, Seq: 9, Bytes: 2048}, nil
}

func verdict() ledger.Verdict {
	return ledger.Verdict{
		Decision: "admitted", Digest: "d1", Kind: "plugin", Publisher: "acme", Name: "acme.match", Version: "1.2.3",
		Sequence: 4, Threshold: 1, Signers: []ledger.SignerRef{{ID: "k", Publisher: "acme", Flow: "key", File: "f"}},
		Trust: ledger.TrustRef{Root: "r", RootVersion: 1, Policy: "p", PolicySerial: 3}, Now: "2026-11-22T00:00:00.000000000Z",
		Checks: []string{"signature"},
	}
}

func (f *fake) VerifyBundle(_ context.Context, req api.VerifyRequest, p api.Progress) (ledger.Verdict, error) {
	if req.AsOf != "" {
		return ledger.Verdict{}, &api.Error{Code: "EXPIRED", Message: "expired at " + req.AsOf, Refusal: &api.Refusal{Reason: "EXPIRED"}}
	}
	if p != nil {
		p(5, 0)
	}
	return verdict(), nil
}

func (f *fake) ImportMedia(_ context.Context, req api.MediaRequest, watch func(api.MediaEvent)) (api.MediaReport, error) {
	if len(req.Paths) == 0 {
		return api.MediaReport{}, &api.Error{Code: api.CodeInvalid, Message: "no paths"}
	}
	items := []api.ImportItem{
		{Path: "/m/a<b>.stella", Outcome: api.OutcomeAdmitted, SHA256: "ab", ImportResult: &api.ImportResult{Verdict: verdict(), Seq: 9, Bytes: 2048}},
		{Path: "/m/c.stella", Outcome: api.OutcomeRefused, Error: &api.Error{Code: "ROLLBACK", Message: "old", Refusal: &api.Refusal{Reason: "ROLLBACK"}}},
	}
	for i := range items {
		if watch != nil {
			watch(api.MediaEvent{File: i + 1, Files: 2, Path: items[i].Path, Done: 1, Total: 2, Item: &items[i]})
		}
	}
	return api.MediaReport{DryRun: req.DryRun, Imports: items, Skipped: []api.Skipped{{Path: "/m/._a", Why: "macOS"}},
		Media: []ledger.Medium{{Mount: "/m", Label: req.Carrier}}, Admitted: 1, Refused: 1, Seq: 12,
		ReceiptSHA256: "cd", Receipt: json.RawMessage(`{"a":"<&>"}`)}, nil
}

func (f *fake) AuditStorage(_ context.Context, p api.Progress) (api.AuditReport, error) {
	if p == nil {
		return api.AuditReport{Blobs: 1}, nil
	}
	p(3, 4)
	return api.AuditReport{Blobs: 2, Damage: 1, Findings: []api.Finding{
		{Kind: "missing", Damage: true, Path: "sealed/<x>", SHA256: "ab", What: "evidence", Seq: 3, Bundle: "acme/x@1.0.0", Fix: "import it"},
	}, More: 2}, nil
}

func (f *fake) CollectGarbage(_ context.Context, req api.GCRequest, _ api.Progress) (api.GCReport, error) {
	if req.Keep < 0 {
		return api.GCReport{}, &api.Error{Code: api.CodeInvalid, Message: "keep"}
	}
	return api.GCReport{DryRun: req.DryRun, Blobs: int64(req.Keep), Bundles: []string{"acme/x@1.0.0"},
		Kept: []api.Kept{{Bundle: "acme/y@1.0.0", Why: "a run"}}, Seq: []int64{4}}, nil
}

func (f *fake) ListBundles(_ context.Context, q api.BundleQuery) ([]api.Bundle, error) {
	if q.Kind == "none" {
		return nil, nil
	}
	return []api.Bundle{{Digest: "d1", Kind: q.Kind, Publisher: q.Publisher, Name: q.Name, Version: "1.0.0", Sequence: 1, Seq: 3}}, nil
}

func (f *fake) ShowBundle(_ context.Context, ref string) (api.BundleDetail, error) {
	if ref != "acme/acme.match@1.2.3+b.1" {
		return api.BundleDetail{}, notFound(fmt.Sprintf("bundle %q", ref))
	}
	return api.BundleDetail{
		Bundle: api.Bundle{Digest: "d1"}, Admission: ledger.BundleAdmission{Verdict: verdict(), Signatures: []string{"s"}},
		Manifest: "schema = \"stella.bundle/1\"\n# <&>\u2028", Files: []api.BundleFile{{Path: "a", SHA256: "x", Size: 1, Mode: "0644"}},
	}, nil
}

func (f *fake) PublishDAG(_ context.Context, ref string) (api.DAG, error) {
	if ref == "bad" {
		return api.DAG{}, &api.Error{Code: api.CodeDAGInvalid, Message: "2 faults", Faults: []string{"dag.toml:3: a", "dag.toml:4: b"}}
	}
	return api.DAG{DAGID: "audit", Version: "1.0.0", Digest: ref, Enabled: true}, nil
}

func (f *fake) ListDAGs(_ context.Context, q api.DAGQuery) ([]api.DAG, error) {
	return []api.DAG{{DAGID: "audit" + q.DAGID, Version: "1.0.0", Enabled: q.Active}}, nil
}

func (f *fake) ShowDAG(_ context.Context, id, version string) (api.DAGDetail, error) {
	if id != "audit" {
		return api.DAGDetail{}, notFound("DAG " + id)
	}
	return api.DAGDetail{DAG: api.DAG{DAGID: id, Version: version}, Spec: "dag_id = \"audit\"\n"}, nil
}

func (f *fake) StartRun(_ context.Context, req api.StartRequest) (api.StartResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch req.DAGID {
	case "locked":
		return api.StartResult{}, &api.Error{Code: api.CodeNotExecuting, Message: "the holder does not execute", Hint: "try again"}
	case "boom":
		return api.StartResult{}, errors.New("disk on fire")
	case "panic":
		panic("fake: asked for it")
	}
	for _, r := range f.runs {
		if r.RunToken != req.RunToken {
			continue
		}
		if r.InputsHash != string(req.Inputs) {
			return api.StartResult{}, &api.Error{Code: api.CodeRunTokenConflict, Message: "the inputs differ"}
		}
		return api.StartResult{Run: r, Replayed: true}, nil
	}
	run := state.Run{
		Tenant: f.principal.Tenant, RunID: fmt.Sprintf("run-%d", len(f.runs)+1), DAGID: req.DAGID, DAGVersion: req.Version,
		RunToken: req.RunToken, TraceID: req.TraceID, Status: state.Planning, InputsHash: string(req.Inputs),
		Metadata: req.Metadata, Actor: f.principal.Name,
	}
	f.runs = append(f.runs, run)
	return api.StartResult{Run: run}, nil
}

func (f *fake) ListRuns(_ context.Context, q api.RunQuery) (api.RunPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.PageSize > 500 {
		return api.RunPage{}, &api.Error{Code: api.CodeInvalid, Message: "a page has at most 500"}
	}
	page := api.RunPage{Runs: slices.Clone(f.runs)}
	if q.Active {
		page.NextPageToken = "next+/=&" + q.PageToken
	}
	return page, nil
}

func (f *fake) find(id string) (state.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.runs {
		if r.RunID == id {
			return r, nil
		}
	}
	return state.Run{}, notFound("run " + id)
}

func (f *fake) GetRun(_ context.Context, id string) (api.RunDetail, error) {
	run, err := f.find(id)
	if err != nil {
		return api.RunDetail{}, err
	}
	return api.RunDetail{Run: run, StepList: []api.StepInfo{
		{Step: state.Step{StepID: "a", Status: state.Completed, Attempt: 2}, Action: "match"},
		{Step: state.Step{StepID: "b", Status: state.Pending}, Needs: []string{"a"}, Waiting: "for a"},
	}}, nil
}

func (f *fake) RunOverview(ctx context.Context, id string) (api.RunDetail, error) {
	d, err := f.GetRun(ctx, id)
	d.LeftOut = 9000
	return d, err
}

func (f *fake) ReplayRun(_ context.Context, id string, req api.ReplayRequest) (api.StartResult, error) {
	run, err := f.find(id)
	if err != nil {
		return api.StartResult{}, err
	}
	run.ReplayOf, run.Rationale = id, req.Rationale
	return api.StartResult{Run: run}, nil
}

// line is an entry with bytes that a careless encoder would change.
func line(seq int64) api.LedgerLine {
	return api.LedgerLine{
		Seq:      seq,
		Envelope: json.RawMessage("{\"actor\":\"<&>\u2028\",\"seq\":1}"),
		Data:     json.RawMessage(`{"data":{"reason":"a<b"},"salt":"00","seq":1}`),
	}
}

func (f *fake) InspectRun(ctx context.Context, id string) (api.RunInspection, error) {
	d, err := f.GetRun(ctx, id)
	if err != nil {
		return api.RunInspection{}, err
	}
	return api.RunInspection{
		Run: d.Run, Steps: d.StepList, Attempts: []state.Attempt{{StepID: "a", Attempt: 1}, {StepID: "b", Attempt: 1}},
		Entries: []api.LedgerLine{line(1)}, Plan: json.RawMessage(`{"schema":"stella.plan/1"}`), Inputs: json.RawMessage(`{}`),
	}, nil
}

func (f *fake) ListArtifacts(_ context.Context, id string) ([]api.Artifact, error) {
	if _, err := f.find(id); err != nil {
		return nil, err
	}
	return []api.Artifact{{StepID: "a", Attempt: 1, Name: "sbom", SHA256: sumOf("hello"), Size: 5, MediaType: "text/plain"}}, nil
}

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (f *fake) ReadArtifact(_ context.Context, digest string, w io.Writer) error {
	switch digest {
	case sumOf("hello"):
		_, err := io.WriteString(w, "hello")
		return err
	case sumOf(""):
		return nil
	}
	return notFound("artifact " + digest)
}

func (f *fake) RunLogs(ctx context.Context, q api.LogQuery, out func(api.LogLine) error) error {
	if _, err := f.find(q.RunID); err != nil {
		return err
	}
	for i := range 3 {
		l := api.LogLine{StepID: "a" + q.StepID, Attempt: 1 + q.Attempt, Stream: "stdout", Text: fmt.Sprintf("line %d \x1b[31m", i)}
		if err := out(l); err != nil {
			return err
		}
	}
	if q.StepID == "broken" {
		return &api.Error{Code: api.CodeDamaged, Message: "segment is damaged"}
	}
	if q.Follow {
		return f.wait(ctx)
	}
	return nil
}

func (f *fake) ListSessions(_ context.Context, q api.SessionQuery) (api.SessionPage, error) {
	if q.RunID == "nope" {
		return api.SessionPage{}, notFound("run nope")
	}
	if !q.All {
		return api.SessionPage{}, nil
	}
	return api.SessionPage{NextPageToken: q.PageToken + "+", Sessions: []api.Session{{
		RunID: q.RunID, StepID: "a", Attempt: q.PageSize, State: api.SessionEnded, Outcome: "failed", Bytes: 5, Lines: 1, Dropped: 2,
	}}}, nil
}

func (f *fake) CaptureSession(ctx context.Context, q api.CaptureQuery, out func(api.LogLine) error) error {
	if q.StepID == "nope" {
		return notFound("step nope")
	}
	for i := range int64(2) {
		if err := out(api.LogLine{StepID: q.StepID, Attempt: q.Attempt, Seq: i, Stream: "stderr", Text: fmt.Sprint("tail ", q.Tail)}); err != nil {
			return err
		}
	}
	if q.Follow {
		return f.wait(ctx)
	}
	return nil
}

func (f *fake) ListWorkspaces(_ context.Context, q api.WorkspaceQuery) (api.WorkspacePage, error) {
	switch {
	case q.RunID == "nope":
		return api.WorkspacePage{}, notFound("run nope")
	case !q.Stale:
		return api.WorkspacePage{}, nil
	}
	return api.WorkspacePage{More: 4, Workspaces: []api.Workspace{{
		Path: q.RunID + "/each.3/2", RunID: q.RunID, StepID: "each.3", Attempt: 2, State: api.WorkspaceStale, Why: "its run is failed", Files: 3, Bytes: 70, Partial: true,
	}}}, nil
}

func (f *fake) CleanWorkspaces(_ context.Context, req api.WorkspaceCleanup, p api.Progress) (api.WorkspaceReport, error) {
	if req.OlderThanMs < 0 {
		return api.WorkspaceReport{}, &api.Error{Code: api.CodeInvalid, Message: "older"}
	}
	if p != nil {
		p(1, 3)
	}
	return api.WorkspaceReport{DryRun: req.DryRun, Count: 3, Files: 4, Bytes: req.OlderThanMs, Seq: 12,
		Failed: []api.WorkspaceFailure{{Path: "a<b", Why: "denied"}}, FailedMore: 1}, nil
}

func (f *fake) wait(ctx context.Context) error {
	f.waiting <- struct{}{}
	select {
	case <-f.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) CancelRun(_ context.Context, id, reason string) (state.Run, error) {
	run, err := f.find(id)
	if err != nil {
		return run, err
	}
	if reason == "too late" {
		return state.Run{}, &api.Error{Code: api.CodeRunEnded, Message: "the run has ended", TraceID: "0af7651916cd43dd8448eb211c80319c"}
	}
	run.CancelReason, run.CancelledBy = reason, f.principal.Name
	return run, nil
}

func (f *fake) ResumeRun(_ context.Context, id string) ([]state.Run, error) {
	if id == "" {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Clone(f.runs), nil
	}
	run, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return []state.Run{run}, nil
}

func (f *fake) WaitRun(ctx context.Context, id string) (state.Run, error) {
	run, err := f.find(id)
	if err != nil {
		return run, err
	}
	if run.DAGID != "slow" {
		run.Status = state.Completed
		return run, nil
	}
	if err := f.wait(ctx); err != nil {
		return state.Run{}, err
	}
	run.Status = state.Cancelled
	return run, nil
}

func (f *fake) TailLedger(_ context.Context, q api.LedgerQuery) ([]api.LedgerLine, error) {
	if q.Type == "none" {
		return nil, nil
	}
	l := line(q.From)
	l.Data, _ = json.Marshal(q)
	return []api.LedgerLine{l}, nil
}

func (f *fake) ShowLedger(_ context.Context, seq int64) (api.LedgerLine, error) {
	if seq < 0 {
		return api.LedgerLine{}, notFound("entry")
	}
	return line(seq), nil
}

func (f *fake) Cosigned(context.Context) (api.CosignedNote, error) {
	return api.CosignedNote{Seq: 3, Size: 2, Note: "n\n", Witnesses: []string{"w"}}, nil
}

func (f *fake) TakeCosigned(_ context.Context, req api.CosignedRequest) (api.CosignedNote, error) {
	if req.Note == "bad" {
		return api.CosignedNote{}, &api.Error{Code: api.CodeInvalid, Message: "no note"}
	}
	return api.CosignedNote{Note: req.Note, Witnesses: req.Witnesses, DryRun: req.DryRun}, nil
}

func (f *fake) EraseData(_ context.Context, req api.ErasureRequest) (api.ErasureReport, error) {
	if req.Agree != nil && *req.Agree == 0 {
		return api.ErasureReport{}, &api.Error{Code: api.CodeConflict, Message: "the same person"}
	}
	return api.ErasureReport{Seq: 9, Entries: append([]int64{}, req.Entries...), Reason: req.Reason, Agreed: req.Agree != nil}, nil
}

func (f *fake) CreateSnapshot(_ context.Context, req api.SnapshotRequest, p api.Progress) (api.Snapshot, error) {
	if req.Dir == "nowhere" {
		return api.Snapshot{}, &api.Error{Code: api.CodeInvalid, Message: "no folder", Hint: "name one"}
	}
	if p != nil {
		p(1, 2)
	}
	return api.Snapshot{ID: "7-x", Path: req.Dir, Size: 7, DryRun: req.DryRun}, nil
}

func (f *fake) ListSnapshots(_ context.Context, dir string) ([]api.Snapshot, error) {
	if dir == "" {
		return []api.Snapshot{}, nil
	}
	return []api.Snapshot{{ID: "7-x", Path: dir}}, nil
}

func (f *fake) ArchiveRuns(_ context.Context, req api.ArchiveRequest, p api.Progress) (api.ArchiveReport, error) {
	if req.OlderThanMs < 0 {
		return api.ArchiveReport{}, &api.Error{Code: api.CodeInvalid, Message: "no age"}
	}
	if p != nil {
		p(1, 2)
	}
	return api.ArchiveReport{DryRun: req.DryRun, Before: "t", Archives: []api.Archive{{File: "runs-1.tar", State: api.ArchiveHere}}}, nil
}

func (f *fake) ListArchives(context.Context) ([]api.Archive, error) {
	return []api.Archive{{File: "runs-1.tar", State: api.ArchiveAway}}, nil
}

func (f *fake) VerifyLedger(_ context.Context, _ api.LedgerCheck, p api.Progress) (api.LedgerReport, error) {
	if p != nil {
		for i := range int64(1000) {
			p(i, 1000)
		}
	}
	return api.LedgerReport{Origin: "stella/x/1", Size: 1000, Root: "r"}, nil
}

func (f *fake) Checkpoint(context.Context) (api.CheckpointNote, error) {
	return api.CheckpointNote{Size: 5, Root: "r", Note: "stella/x/1\n5\nr\n\n\u2014 k s\n", New: true}, nil
}

func (f *fake) ProveEntry(_ context.Context, seq, to int64) ([]byte, error) {
	if seq > 5 {
		return nil, notFound("entry")
	}
	return fmt.Appendf(nil, "c2sp.org/tlog-proof@v1\nindex 3 of %d\n", to), nil
}

func (f *fake) ProveConsistency(_ context.Context, size, _ int64) (api.ConsistencyProof, error) {
	return api.ConsistencyProof{OldSize: size, Size: 9, Proof: []string{"aa", "bb"}}, nil
}

func (f *fake) CreateExport(_ context.Context, req api.ExportRequest, p api.Progress) (api.ExportResult, error) {
	if p != nil {
		p(1, 1)
	}
	if !req.Force {
		return api.ExportResult{}, &api.Error{Code: api.CodeConflict, Message: req.Path + " is there already"}
	}
	return api.ExportResult{Path: req.Path, From: req.From, To: req.To, Count: 3}, nil
}

func (f *fake) ListExports(context.Context) ([]api.ExportResult, error) {
	return []api.ExportResult{{Seq: 7, Path: "/x", Count: 1}}, nil
}

func (f *fake) ShowTrust(context.Context) (api.TrustReport, error) {
	return api.TrustReport{Trust: ledger.TrustRef{Root: "r"}, Policy: "schema = \"stella.policy/1\"\n"}, nil
}

func (f *fake) AddTrust(_ context.Context, add api.TrustAddition) (api.TrustReport, error) {
	if add.Publisher == "" {
		return api.TrustReport{}, &api.Error{Code: api.CodeInvalid, Message: "no publisher"}
	}
	raw, err := json.Marshal(add)
	return api.TrustReport{Policy: string(raw)}, err
}

func (f *fake) RotateTrust(_ context.Context, r api.TrustRotation) (api.TrustReport, error) {
	raw, err := json.Marshal(r)
	return api.TrustReport{Root: string(raw), DryRun: r.DryRun}, err
}

func (f *fake) RevokeTrust(_ context.Context, r api.TrustRevocation) (api.TrustReport, error) {
	if r.Reason == "" {
		return api.TrustReport{}, &api.Error{Code: api.CodeInvalid, Message: "no reason"}
	}
	raw, err := json.Marshal(r)
	return api.TrustReport{Revocations: string(raw), Ended: 2, Refused: []api.RefusedBundle{{Ref: "a/b@1.0.0", Reason: "REVOKED_KEY"}}}, err
}

func (f *fake) ExtendTrust(_ context.Context, x api.TrustExtension) (api.TrustReport, error) {
	raw, err := json.Marshal(x)
	return api.TrustReport{Extension: string(raw)}, err
}

func (f *fake) AcceptTime(_ context.Context, t api.TimeAcceptance) error {
	if t.Time == "" {
		return &api.Error{Code: api.CodeClockAhead, Message: "no time"}
	}
	return nil
}

func (f *fake) Status(context.Context) (api.SiteStatus, error) {
	return api.SiteStatus{SiteID: "s", Mode: "daemon", PID: 1, Queued: 2, Executing: 1, Trust: ledger.TrustRef{Root: "r"}}, nil
}

func (f *fake) Stop(_ context.Context, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped, f.forced = true, force
	return nil
}
