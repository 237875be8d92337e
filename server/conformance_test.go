package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stellarun/stella/server/api"
)

// progressLog keeps what a Progress was told last.
type progressLog struct {
	Told        bool
	Done, Total int64
}

func (p *progressLog) note(done, total int64) { p.Told, p.Done, p.Total = true, done, total }

// A siteCall is one question to a site, and what it answers.
type siteCall struct {
	name   string
	method string // of api.Site
	do     func(context.Context, api.Site) (any, error)
}

func start(dag, token, inputs string) func(context.Context, api.Site) (any, error) {
	return func(ctx context.Context, s api.Site) (any, error) {
		return s.StartRun(ctx, api.StartRequest{
			DAGID: dag, Version: "1.0.0", RunToken: token, Inputs: json.RawMessage(inputs),
			Metadata: map[string]string{"k": "<v>"}, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		})
	}
}

func importing(path string) func(context.Context, api.Site) (any, error) {
	return func(ctx context.Context, s api.Site) (any, error) {
		var p progressLog
		res, err := s.ImportBundle(ctx, api.ImportRequest{Path: path}, p.note)
		return []any{res, p.Told}, err
	}
}

func logs(q api.LogQuery) func(context.Context, api.Site) (any, error) {
	return func(ctx context.Context, s api.Site) (any, error) {
		var got []api.LogLine
		err := s.RunLogs(ctx, q, func(l api.LogLine) error { got = append(got, l); return nil })
		return got, err
	}
}

func capture(q api.CaptureQuery) func(context.Context, api.Site) (any, error) {
	return func(ctx context.Context, s api.Site) (any, error) {
		var got []api.LogLine
		err := s.CaptureSession(ctx, q, func(l api.LogLine) error { got = append(got, l); return nil })
		return got, err
	}
}

func reading(digest string) func(context.Context, api.Site) (any, error) {
	return func(ctx context.Context, s api.Site) (any, error) {
		var got strings.Builder
		err := s.ReadArtifact(ctx, digest, &got)
		return got.String(), err
	}
}

var errEnough = errors.New("enough")

// siteCalls asks everything that can be asked, in an order in which the
// answers make sense.
func siteCalls() []siteCall {
	return slices.Concat([]siteCall{
		{"import", "ImportBundle", importing("/m/a.stella")},
		{"import that is refused", "ImportBundle", importing("/m/refused.stella")},
		{"import that is refused after it has begun", "ImportBundle", importing("/m/late.stella")},
		{"import in silence", "ImportBundle", func(ctx context.Context, s api.Site) (any, error) {
			return s.ImportBundle(ctx, api.ImportRequest{Path: "/m/refused.stella"}, nil)
		}},
		{"verify", "VerifyBundle", func(ctx context.Context, s api.Site) (any, error) {
			return s.VerifyBundle(ctx, api.VerifyRequest{Path: "/m/a"}, func(_, _ int64) {})
		}},
		{"verify as of a time", "VerifyBundle", func(ctx context.Context, s api.Site) (any, error) {
			return s.VerifyBundle(ctx, api.VerifyRequest{Path: "/m/a", AsOf: "2026-11-22T00:00:00.000000000Z"}, nil)
		}},
		{"import of media", "ImportMedia", func(ctx context.Context, s api.Site) (any, error) {
			var told []api.MediaEvent
			rep, err := s.ImportMedia(ctx, api.MediaRequest{Paths: []string{"/m"}, DryRun: true, FailFast: true, Carrier: "Ann", Receipt: true},
				func(e api.MediaEvent) { told = append(told, e) })
			return []any{rep, told}, err
		}},
		{"import of media in silence", "ImportMedia", func(ctx context.Context, s api.Site) (any, error) {
			return s.ImportMedia(ctx, api.MediaRequest{Paths: []string{"/m"}}, nil)
		}},
		{"import of nothing", "ImportMedia", func(ctx context.Context, s api.Site) (any, error) {
			return s.ImportMedia(ctx, api.MediaRequest{}, func(api.MediaEvent) {})
		}},
		{"audit", "AuditStorage", func(ctx context.Context, s api.Site) (any, error) {
			var p progressLog
			rep, err := s.AuditStorage(ctx, p.note)
			return []any{rep, p}, err
		}},
		{"audit in silence", "AuditStorage", func(ctx context.Context, s api.Site) (any, error) { return s.AuditStorage(ctx, nil) }},
		{"collect", "CollectGarbage", func(ctx context.Context, s api.Site) (any, error) {
			return s.CollectGarbage(ctx, api.GCRequest{DryRun: true, Keep: 3}, nil)
		}},
		{"collect what cannot be", "CollectGarbage", func(ctx context.Context, s api.Site) (any, error) {
			return s.CollectGarbage(ctx, api.GCRequest{Keep: -1}, func(_, _ int64) {})
		}},
		{"bundles", "ListBundles", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListBundles(ctx, api.BundleQuery{Kind: "plugin", Publisher: "acme", Name: "a b&c"})
		}},
		{"no bundles", "ListBundles", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListBundles(ctx, api.BundleQuery{Kind: "none"})
		}},
		{"a bundle by a name with slash and plus", "ShowBundle", func(ctx context.Context, s api.Site) (any, error) {
			return s.ShowBundle(ctx, "acme/acme.match@1.2.3+b.1")
		}},
		{"an unknown bundle", "ShowBundle", func(ctx context.Context, s api.Site) (any, error) {
			return s.ShowBundle(ctx, "../../etc/passwd%2f?x=y#z")
		}},
		{"a bundle named by two dots", "ShowBundle", func(ctx context.Context, s api.Site) (any, error) {
			return s.ShowBundle(ctx, "..")
		}},
		{"publish", "PublishDAG", func(ctx context.Context, s api.Site) (any, error) { return s.PublishDAG(ctx, "d1") }},
		{"publish with faults", "PublishDAG", func(ctx context.Context, s api.Site) (any, error) { return s.PublishDAG(ctx, "bad") }},
		{"dags", "ListDAGs", func(ctx context.Context, s api.Site) (any, error) { return s.ListDAGs(ctx, api.DAGQuery{}) }},
		{"active versions of a dag", "ListDAGs", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListDAGs(ctx, api.DAGQuery{Active: true, DAGID: "x"})
		}},
		{"disable a dag", "DisableDAG", func(ctx context.Context, s api.Site) (any, error) {
			return s.DisableDAG(ctx, "audit", "1.0.0-rc.1+x", api.DAGSwitch{Reason: "a<b", DryRun: true})
		}},
		{"disable an unknown dag", "DisableDAG", func(ctx context.Context, s api.Site) (any, error) {
			return s.DisableDAG(ctx, "nope", "1", api.DAGSwitch{})
		}},
		{"enable a dag", "EnableDAG", func(ctx context.Context, s api.Site) (any, error) {
			return s.EnableDAG(ctx, "audit", "1.0.0", api.DAGSwitch{Reason: "mended"})
		}},
		{"a dag", "ShowDAG", func(ctx context.Context, s api.Site) (any, error) { return s.ShowDAG(ctx, "audit", "") }},
		{"a dag's version", "ShowDAG", func(ctx context.Context, s api.Site) (any, error) {
			return s.ShowDAG(ctx, "audit", "1.0.0-rc.1+x")
		}},
		{"an unknown dag", "ShowDAG", func(ctx context.Context, s api.Site) (any, error) { return s.ShowDAG(ctx, "nope", "1") }},
		{"set a secret", "SetSecret", func(ctx context.Context, s api.Site) (any, error) {
			return s.SetSecret(ctx, api.SecretRequest{Name: "db", Value: []byte{0, 0xff, '<'}, Reason: "<r>"})
		}},
		{"set a secret that is there", "SetSecret", func(ctx context.Context, s api.Site) (any, error) {
			return s.SetSecret(ctx, api.SecretRequest{Name: "taken", Value: []byte("v")})
		}},
		{"rotate a secret", "RotateSecret", func(ctx context.Context, s api.Site) (any, error) {
			return s.RotateSecret(ctx, api.SecretRequest{Name: "db", Value: []byte("value")})
		}},
		{"secrets", "ListSecrets", func(ctx context.Context, s api.Site) (any, error) { return s.ListSecrets(ctx) }},
		{"uses of a secret", "SecretUses", func(ctx context.Context, s api.Site) (any, error) { return s.SecretUses(ctx, "db") }},
		{"uses of an unknown secret", "SecretUses", func(ctx context.Context, s api.Site) (any, error) { return s.SecretUses(ctx, "nope") }},
		{"remove a version of a secret", "RemoveSecret", func(ctx context.Context, s api.Site) (any, error) {
			return s.RemoveSecret(ctx, api.SecretRemoval{Name: "db", Version: 3, Reason: "<r>", DryRun: true})
		}},
		{"add a schedule", "AddSchedule", func(ctx context.Context, s api.Site) (any, error) {
			return s.AddSchedule(ctx, api.ScheduleRequest{Inputs: json.RawMessage(`{"a":1}`), ScheduleSpec: api.ScheduleSpec{
				Name: "nightly", DAGID: "audit", Version: "1.0.0+x", Cron: "@daily", Zone: "Europe/Berlin", EveryMs: 5, Anchor: "a", CatchUpMs: 7,
				Overlap: "queue", Metadata: map[string]string{"k": "<v>"},
			}})
		}},
		{"add a bad schedule", "AddSchedule", func(ctx context.Context, s api.Site) (any, error) {
			return s.AddSchedule(ctx, api.ScheduleRequest{ScheduleSpec: api.ScheduleSpec{Cron: "bad"}})
		}},
		{"schedules", "ListSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListSchedules(ctx, api.ScheduleQuery{DAGID: "a", State: "stopped"})
		}},
		{"no schedules", "ListSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListSchedules(ctx, api.ScheduleQuery{State: "paused"})
		}},
		{"a schedule", "ShowSchedule", func(ctx context.Context, s api.Site) (any, error) { return s.ShowSchedule(ctx, "nightly") }},
		{"an unknown schedule", "ShowSchedule", func(ctx context.Context, s api.Site) (any, error) { return s.ShowSchedule(ctx, "nope") }},
		{"instants", "NextInstants", func(ctx context.Context, s api.Site) (any, error) { return s.NextInstants(ctx, "nightly", 3) }},
		{"pause a schedule", "PauseSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.PauseSchedules(ctx, api.ScheduleSelection{Name: "nightly", Reason: "holiday"})
		}},
		{"pause all schedules", "PauseSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.PauseSchedules(ctx, api.ScheduleSelection{All: true, DryRun: true})
		}},
		{"resume schedules", "ResumeSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.ResumeSchedules(ctx, api.ScheduleSelection{DAGID: "audit", Version: "1.0.0"})
		}},
		{"remove a schedule", "RemoveSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.RemoveSchedules(ctx, api.ScheduleSelection{Name: "a.b"})
		}},
		{"remove schedules", "RemoveSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.RemoveSchedules(ctx, api.ScheduleSelection{DAGID: "audit"})
		}},
		{"remove an unknown schedule", "RemoveSchedules", func(ctx context.Context, s api.Site) (any, error) {
			return s.RemoveSchedules(ctx, api.ScheduleSelection{Name: "nope"})
		}},
		{"start", "StartRun", start("audit", "t1", `{"a":"<&>","b":[1,{"c":null}]}`)},
		{"start again", "StartRun", start("audit", "t1", `{"a":"<&>","b":[1,{"c":null}]}`)},
		{"start other work with the token", "StartRun", start("audit", "t1", `{}`)},
		{"start where nothing executes", "StartRun", start("locked", "t2", `{}`)},
		{"start with a fault", "StartRun", start("boom", "t3", `{}`)},
		{"runs", "ListRuns", func(ctx context.Context, s api.Site) (any, error) { return s.ListRuns(ctx, api.RunQuery{}) }},
		{"a page of runs", "ListRuns", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListRuns(ctx, api.RunQuery{Active: true, DAGID: "audit", Status: "failed", PageSize: 2, PageToken: "a/b+c="})
		}},
		{"too large a page", "ListRuns", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListRuns(ctx, api.RunQuery{PageSize: 501})
		}},
		{"a run", "GetRun", func(ctx context.Context, s api.Site) (any, error) { return s.GetRun(ctx, "run-1") }},
		{"an unknown run", "GetRun", func(ctx context.Context, s api.Site) (any, error) { return s.GetRun(ctx, "nope") }},
		{"an inspection", "InspectRun", func(ctx context.Context, s api.Site) (any, error) { return s.InspectRun(ctx, "run-1") }},
		{"logs", "RunLogs", logs(api.LogQuery{RunID: "run-1"})},
		{"logs of an attempt", "RunLogs", logs(api.LogQuery{RunID: "run-1", StepID: "x", Attempt: 2})},
		{"logs of an unknown run", "RunLogs", logs(api.LogQuery{RunID: "nope"})},
		{"logs that break off", "RunLogs", logs(api.LogQuery{RunID: "run-1", StepID: "broken"})},
		{"logs that nobody wants any more", "RunLogs", func(ctx context.Context, s api.Site) (any, error) {
			n := 0
			err := s.RunLogs(ctx, api.LogQuery{RunID: "run-1"}, func(api.LogLine) error { n++; return errEnough })
			return []any{n, errors.Is(err, errEnough)}, nil
		}},
		{"sessions", "ListSessions", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListSessions(ctx, api.SessionQuery{All: true, RunID: "run-1", PageSize: 3, PageToken: "a/b+c="})
		}},
		{"no sessions", "ListSessions", func(ctx context.Context, s api.Site) (any, error) { return s.ListSessions(ctx, api.SessionQuery{}) }},
		{"sessions of an unknown run", "ListSessions", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListSessions(ctx, api.SessionQuery{RunID: "nope"})
		}},
		{"a session", "CaptureSession", capture(api.CaptureQuery{RunID: "run-1", StepID: "each.3", Attempt: 2, Tail: 7})},
		{"an unknown session", "CaptureSession", capture(api.CaptureQuery{RunID: "run-1", StepID: "nope"})},
		{"workspaces", "ListWorkspaces", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListWorkspaces(ctx, api.WorkspaceQuery{Stale: true, RunID: "run-1"})
		}},
		{"no workspaces", "ListWorkspaces", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListWorkspaces(ctx, api.WorkspaceQuery{})
		}},
		{"workspaces of an unknown run", "ListWorkspaces", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListWorkspaces(ctx, api.WorkspaceQuery{RunID: "nope"})
		}},
		{"clean workspaces", "CleanWorkspaces", func(ctx context.Context, s api.Site) (any, error) {
			var p progressLog
			rep, err := s.CleanWorkspaces(ctx, api.WorkspaceCleanup{DryRun: true, OlderThanMs: 5}, p.note)
			return []any{rep, p}, err
		}},
		{"clean workspaces of the future", "CleanWorkspaces", func(ctx context.Context, s api.Site) (any, error) {
			return s.CleanWorkspaces(ctx, api.WorkspaceCleanup{OlderThanMs: -1}, nil)
		}},
		{"artifacts", "ListArtifacts", func(ctx context.Context, s api.Site) (any, error) { return s.ListArtifacts(ctx, "run-1") }},
		{"artifacts of an unknown run", "ListArtifacts", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListArtifacts(ctx, "nope")
		}},
		{"an artifact", "ReadArtifact", reading(sumOf("hello"))},
		{"an empty artifact", "ReadArtifact", reading(sumOf(""))},
		{"an unknown artifact", "ReadArtifact", reading(sumOf("other"))},
		{"cancel", "CancelRun", func(ctx context.Context, s api.Site) (any, error) { return s.CancelRun(ctx, "run-1", "wrong day") }},
		{"cancel too late", "CancelRun", func(ctx context.Context, s api.Site) (any, error) { return s.CancelRun(ctx, "run-1", "too late") }},
		{"an overview", "RunOverview", func(ctx context.Context, s api.Site) (any, error) { return s.RunOverview(ctx, "run-1") }},
		{"replay", "ReplayRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.ReplayRun(ctx, "run-1", api.ReplayRequest{Rationale: "audit"})
		}},
		{"replay of an unknown run", "ReplayRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.ReplayRun(ctx, "nope", api.ReplayRequest{Rationale: "audit"})
		}},
		{"attest", "AttestRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.AttestRun(ctx, "run-1", api.AttestRequest{Artifacts: []string{"a/sbom"}})
		}},
		{"attest an unknown run", "AttestRun", func(ctx context.Context, s api.Site) (any, error) {
			return s.AttestRun(ctx, "nope", api.AttestRequest{})
		}},
		{"resume", "ResumeRun", func(ctx context.Context, s api.Site) (any, error) { return s.ResumeRun(ctx, "run-1") }},
		{"resume all", "ResumeRun", func(ctx context.Context, s api.Site) (any, error) { return s.ResumeRun(ctx, "") }},
		{"wait", "WaitRun", func(ctx context.Context, s api.Site) (any, error) { return s.WaitRun(ctx, "run-1") }},
		{"wait for an unknown run", "WaitRun", func(ctx context.Context, s api.Site) (any, error) { return s.WaitRun(ctx, "nope") }},
		{"outbox", "ListOutbox", func(ctx context.Context, s api.Site) (any, error) {
			return s.ListOutbox(ctx, api.OutboxQuery{State: "dead", Sink: "ops", PageSize: 3, PageToken: "ops/1"})
		}},
		{"an empty outbox", "ListOutbox", func(ctx context.Context, s api.Site) (any, error) { return s.ListOutbox(ctx, api.OutboxQuery{}) }},
		{"an event", "ShowEvent", func(ctx context.Context, s api.Site) (any, error) { return s.ShowEvent(ctx, "ops/2") }},
		{"an unknown event", "ShowEvent", func(ctx context.Context, s api.Site) (any, error) { return s.ShowEvent(ctx, "../ops") }},
		{"requeue", "RequeueEvents", func(ctx context.Context, s api.Site) (any, error) {
			return s.RequeueEvents(ctx, api.RequeueRequest{IDs: []string{"ops/2"}, ResetAttempts: true})
		}},
		{"requeue nothing", "RequeueEvents", func(ctx context.Context, s api.Site) (any, error) {
			return s.RequeueEvents(ctx, api.RequeueRequest{AllDead: true, Sink: "none"})
		}},
		{"forget", "ForgetSink", func(ctx context.Context, s api.Site) (any, error) {
			return s.ForgetSink(ctx, api.ForgetRequest{Sink: "ops", DryRun: true})
		}},
		{"ledger", "TailLedger", func(ctx context.Context, s api.Site) (any, error) {
			return s.TailLedger(ctx, api.LedgerQuery{From: 4, Last: true, Limit: 3, Type: "run.started", RunID: "run-1"})
		}},
		{"no entries", "TailLedger", func(ctx context.Context, s api.Site) (any, error) {
			return s.TailLedger(ctx, api.LedgerQuery{Type: "none"})
		}},
		{"an entry", "ShowLedger", func(ctx context.Context, s api.Site) (any, error) { return s.ShowLedger(ctx, 1) }},
		{"an entry that cannot be", "ShowLedger", func(ctx context.Context, s api.Site) (any, error) { return s.ShowLedger(ctx, -1) }},
		{"cosigned", "Cosigned", func(ctx context.Context, s api.Site) (any, error) { return s.Cosigned(ctx) }},
		{"take cosigned", "TakeCosigned", func(ctx context.Context, s api.Site) (any, error) {
			return s.TakeCosigned(ctx, api.CosignedRequest{Note: "a\nb\n", Witnesses: []string{"w+1+x"}, DryRun: true})
		}},
		{"take nothing", "TakeCosigned", func(ctx context.Context, s api.Site) (any, error) {
			return s.TakeCosigned(ctx, api.CosignedRequest{Note: "bad"})
		}},
		{"erasure", "EraseData", func(ctx context.Context, s api.Site) (any, error) {
			return s.EraseData(ctx, api.ErasureRequest{Entries: []int64{3, 4}, Reason: "by law"})
		}},
		{"erasure agreed to", "EraseData", func(ctx context.Context, s api.Site) (any, error) {
			n := int64(7)
			return s.EraseData(ctx, api.ErasureRequest{Agree: &n, DryRun: true})
		}},
		{"erasure agreed to by the same", "EraseData", func(ctx context.Context, s api.Site) (any, error) {
			return s.EraseData(ctx, api.ErasureRequest{Agree: new(int64)})
		}},
		{"snapshot", "CreateSnapshot", func(ctx context.Context, s api.Site) (any, error) {
			var p progressLog
			snap, err := s.CreateSnapshot(ctx, api.SnapshotRequest{Dir: "/out", DryRun: true}, p.note)
			return []any{snap, p}, err
		}},
		{"snapshot in silence", "CreateSnapshot", func(ctx context.Context, s api.Site) (any, error) {
			return s.CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
		}},
		{"snapshot nowhere", "CreateSnapshot", func(ctx context.Context, s api.Site) (any, error) {
			return s.CreateSnapshot(ctx, api.SnapshotRequest{Dir: "nowhere"}, nil)
		}},
		{"snapshots", "ListSnapshots", func(ctx context.Context, s api.Site) (any, error) { return s.ListSnapshots(ctx, "/a b&c") }},
		{"no snapshots", "ListSnapshots", func(ctx context.Context, s api.Site) (any, error) { return s.ListSnapshots(ctx, "") }},
		{"archive runs", "ArchiveRuns", func(ctx context.Context, s api.Site) (any, error) {
			var p progressLog
			rep, err := s.ArchiveRuns(ctx, api.ArchiveRequest{OlderThanMs: 5, DryRun: true}, p.note)
			return []any{rep, p}, err
		}},
		{"archive runs of no age", "ArchiveRuns", func(ctx context.Context, s api.Site) (any, error) {
			return s.ArchiveRuns(ctx, api.ArchiveRequest{OlderThanMs: -1}, nil)
		}},
		{"archives of runs", "ListArchives", func(ctx context.Context, s api.Site) (any, error) { return s.ListArchives(ctx) }},
		{"verify the ledger", "VerifyLedger", func(ctx context.Context, s api.Site) (any, error) {
			return s.VerifyLedger(ctx, api.LedgerCheck{Full: true}, func(_, _ int64) {})
		}},
		{"checkpoint", "Checkpoint", func(ctx context.Context, s api.Site) (any, error) { return s.Checkpoint(ctx) }},
		{"proof", "ProveEntry", func(ctx context.Context, s api.Site) (any, error) { return s.ProveEntry(ctx, 3, 5) }},
		{"proof of an unknown entry", "ProveEntry", func(ctx context.Context, s api.Site) (any, error) { return s.ProveEntry(ctx, 6, 0) }},
		{"consistency", "ProveConsistency", func(ctx context.Context, s api.Site) (any, error) { return s.ProveConsistency(ctx, 4, 0) }},
		{"export", "CreateExport", func(ctx context.Context, s api.Site) (any, error) {
			return s.CreateExport(ctx, api.ExportRequest{From: "f", To: "t", Path: "/out", Force: true}, func(_, _ int64) {})
		}},
		{"export over a file", "CreateExport", func(ctx context.Context, s api.Site) (any, error) {
			return s.CreateExport(ctx, api.ExportRequest{Path: "/out"}, func(_, _ int64) {})
		}},
		{"exports", "ListExports", func(ctx context.Context, s api.Site) (any, error) { return s.ListExports(ctx) }},
		{"trust", "ShowTrust", func(ctx context.Context, s api.Site) (any, error) { return s.ShowTrust(ctx) }},
		{"add to trust", "AddTrust", func(ctx context.Context, s api.Site) (any, error) {
			return s.AddTrust(ctx, api.TrustAddition{Publisher: "acme", Key: "-----BEGIN\n", Kinds: []string{"dag"}, Names: []string{"a"}, Threshold: 1})
		}},
		{"add nobody to trust", "AddTrust", func(ctx context.Context, s api.Site) (any, error) {
			return s.AddTrust(ctx, api.TrustAddition{})
		}},
		{"rotate", "RotateTrust", func(ctx context.Context, s api.Site) (any, error) {
			return s.RotateTrust(ctx, api.TrustRotation{Publisher: "acme", NewKey: "k", OverlapMs: 5, DryRun: true})
		}},
		{"revoke", "RevokeTrust", func(ctx context.Context, s api.Site) (any, error) {
			return s.RevokeTrust(ctx, api.TrustRevocation{Key: "ab", From: "f", Reason: "stolen"})
		}},
		{"revoke without a reason", "RevokeTrust", func(ctx context.Context, s api.Site) (any, error) {
			return s.RevokeTrust(ctx, api.TrustRevocation{Key: "ab"})
		}},
		{"extend", "ExtendTrust", func(ctx context.Context, s api.Site) (any, error) {
			return s.ExtendTrust(ctx, api.TrustExtension{Text: "t", Signatures: map[string]string{"ab": "{}"}})
		}},
		{"accept a time", "AcceptTime", func(ctx context.Context, s api.Site) (any, error) {
			return nil, s.AcceptTime(ctx, api.TimeAcceptance{Time: "now", Reason: "battery"})
		}},
		{"accept no time", "AcceptTime", func(ctx context.Context, s api.Site) (any, error) {
			return nil, s.AcceptTime(ctx, api.TimeAcceptance{})
		}},
		{"status", "Status", func(ctx context.Context, s api.Site) (any, error) { return s.Status(ctx) }},
		{"stop", "Stop", func(ctx context.Context, s api.Site) (any, error) { return nil, s.Stop(ctx, true) }},
	}, recoveryCalls(), queueCalls())
}

// TestClientAnswersLikeTheSite asks a site directly and another of the same
// kind through handler, socket and client: same answers, same errors.
func TestClientAnswersLikeTheSite(t *testing.T) {
	direct := newFake()
	site := direct.as(api.Principal{Name: self(), Tenant: "default"})
	client := serve(t, newFake(), nil)
	for _, c := range siteCalls() {
		want, wantErr := c.do(t.Context(), site)
		got, gotErr := c.do(t.Context(), client)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: through the socket (-direct +client):\n%s", c.name, diff)
		}
		if diff := cmp.Diff(plainError(wantErr), plainError(gotErr)); diff != "" {
			t.Errorf("%s: error through the socket (-direct +client):\n%s", c.name, diff)
		}
	}
}

// plainError is an error as the table compares it: a fault of any other kind
// travels as INTERNAL, and an error without a trace id gets the request's.
func plainError(err error) any {
	var e *api.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		c := *e
		if c.TraceID != "0af7651916cd43dd8448eb211c80319c" {
			c.TraceID = ""
		}
		return c
	}
	return api.Error{Code: api.CodeInternal, Message: err.Error()}
}

func TestEveryMethodOfASiteIsCompared(t *testing.T) {
	asked := map[string]bool{}
	for _, c := range siteCalls() {
		asked[c.method] = true
	}
	site := reflect.TypeFor[api.Site]()
	for i := range site.NumMethod() {
		name := site.Method(i).Name
		if !asked[name] {
			t.Errorf("no call in the table asks %s", name)
		}
		delete(asked, name)
	}
	for name := range asked {
		t.Errorf("the table asks %s, which api.Site does not have", name)
	}
}

func TestEntriesKeepTheirExactBytes(t *testing.T) {
	got, err := serve(t, newFake(), nil).ShowLedger(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := line(1)
	if string(got.Envelope) != string(want.Envelope) || string(got.Data) != string(want.Data) {
		t.Errorf("entry 1 came as %s %s, want %s %s", got.Envelope, got.Data, want.Envelope, want.Data)
	}
}
