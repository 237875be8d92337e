package engine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// leaveScript writes a log that is too long for the database and one artifact, which is the
// input it was given.
const leaveScript = `i=0
while [ $i -lt 200 ]; do i=$((i+1)); echo "line $i of what is too long for the database"; done
sed -n 's/.*"who": *"\([^"]*\)".*/\1/p' "$STELLA_INPUT" >"$STELLA_ARTIFACTS/report.txt"
echo '{"artifact":{"name":"report.txt"}}' >>"$STELLA_OUTPUT"
echo '{"output":{"n":42}}' >>"$STELLA_OUTPUT"
`

// leave runs a DAG with one such step, for somebody.
func (l *lab) leave(who string) (run string) {
	l.t.Helper()
	run = l.start(api.StartRequest{DAGID: "audit", Inputs: []byte(`{"who":"` + who + `"}`)}).Run.RunID
	l.execute()
	return run
}

// leaver is a lab whose runs leave something.
func leaver(t *testing.T, more string) *lab {
	l := newLab(t)
	l.script("audit-hello", leaveScript, true)
	l.publish("1.0.0", strings.Replace(hello[:strings.LastIndex(hello, "[[step]]")], "action = \"run\"", "action = \"run\"\n"+more, 1))
	return l
}

// archive moves what is older than a millisecond. What this process has sealed within the
// hour stays in its place too; the site is opened anew, which forgets that.
func (l *lab) archive() api.ArchiveReport {
	l.t.Helper()
	l.reopen()
	rep, err := l.site().ArchiveRuns(context.Background(), api.ArchiveRequest{OlderThanMs: 1}, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return rep
}

// window exports a closed window and returns the archive.
func (l *lab) window(to string) (raw []byte, res api.ExportResult) {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "a.tar")
	res, err := l.site().CreateExport(context.Background(), api.ExportRequest{Path: path, To: to}, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if raw, err = os.ReadFile(path); err != nil {
		l.t.Fatal(err)
	}
	return raw, res
}

func (l *lab) artifact(run string) (digest, text string, err error) {
	l.t.Helper()
	list, err := l.site().ListArtifacts(context.Background(), run)
	if err != nil || len(list) == 0 {
		l.t.Fatalf("artifacts of %s: %v, %v", run, list, err)
	}
	var out bytes.Buffer
	err = l.site().ReadArtifact(context.Background(), list[0].SHA256, &out)
	return list[0].SHA256, out.String(), err
}

func (l *lab) sealedFile(digest string) string {
	return filepath.Join(l.home, "sealed", "sha256", digest[:2], digest)
}

// After an archiving everything is read as before, from the archive, and the ledger, the
// audit and a second archiving find nothing to complain of.
func TestArchivedRunsAreReadAsBefore(t *testing.T) {
	ctx := context.Background()
	l := leaver(t, "")
	run := l.leave("me")
	text := l.text(run)
	digest, _, _ := l.artifact(run)
	if _, err := l.site().Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	before, res := l.window("")
	rep := l.archive()
	if rep.Runs != 1 || rep.Logs != 1 || rep.Artifacts != 1 || len(rep.Archives) != 1 || rep.Archives[0].State != api.ArchiveHere || rep.Busy != 0 {
		t.Errorf("archived %+v, want a log and an artifact of a run", rep)
	}
	if left := l.stored(); len(left) > 0 {
		t.Errorf("segments are left: %v", left)
	}
	if _, err := os.Stat(l.sealedFile(digest)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the artifact is left: %v", err)
	}
	for _, look := range []string{"at once", "opened anew"} {
		if got := l.text(run); got != text {
			t.Errorf("%s: the run wrote %q, before it %q", look, got, text)
		}
		if _, got, err := l.artifact(run); got != "me" || err != nil {
			t.Errorf("%s: the artifact is %q, %v", look, got, err)
		}
		if after, _ := l.window(res.To); !bytes.Equal(before, after) {
			t.Errorf("%s: the same window gives other bytes", look)
		}
		l.audit()
		l.verify()
		l.reopen()
	}
	if again := l.archive(); again.Runs+again.Logs+again.Artifacts+again.Finished != 0 || len(again.Archives) > 0 {
		t.Errorf("a second archiving moved %+v", again)
	}
	state, err := l.site().ListArchives(ctx)
	if err != nil || len(state) != 1 || state[0].Seq != rep.Archives[0].Seq {
		t.Errorf("archives: %+v, %v", state, err)
	}
}

// What an archive away takes along is missed by nobody but who asks for it, and an export
// says what it lacks.
func TestAnArchiveThatIsAway(t *testing.T) {
	ctx := context.Background()
	l := leaver(t, "")
	run := l.leave("me")
	if _, err := l.site().Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	before, res := l.window("")
	made := l.archive().Archives[0]
	tape := filepath.Join(t.TempDir(), "tape.tar")
	if err := os.Rename(made.Path, tape); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := l.site().RunLogs(ctx, api.LogQuery{RunID: run}, func(api.LogLine) error { return nil })
		if codeOf(err) != api.CodeArchiveAway || !strings.Contains(err.(*api.Error).Faults[0], made.File) {
			t.Errorf("logs: %v", err)
		}
		if _, _, err := l.artifact(run); codeOf(err) != api.CodeArchiveAway {
			t.Errorf("artifact: %v", err)
		}
		check, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil)
		if err != nil || len(check.Away) != 1 || check.Away[0].Files != 2 || check.Away[0].File != made.File {
			t.Errorf("verify: %+v, %v", check.Away, err)
		}
		if rep := l.audit(); len(rep.Findings) != 1 || rep.Findings[0].Kind != "away" {
			t.Errorf("audit: %+v", rep.Findings)
		}
		snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: t.TempDir()}, nil)
		if err != nil || len(snap.Away) != 1 || snap.Away[0] != made.File {
			t.Errorf("snapshot: %+v, %v", snap, err)
		}
		gaps, lacks := l.window(res.To)
		if bytes.Equal(gaps, before) || lacks.Withheld != 1 || len(lacks.Away) != 1 {
			t.Errorf("an export of what is away: %+v", lacks)
		}
		again, _ := l.window(res.To)
		if !bytes.Equal(gaps, again) {
			t.Error("the same gaps give other bytes")
		}
		if got := l.judge(gaps, 0); got != export.Incomplete {
			t.Errorf("the export is %s, want INCOMPLETE", got)
		}
		if got := l.judge(gaps, 1); got != export.Verified {
			t.Errorf("the export is %s to who knows of the gap", got)
		}
		l.reopen()
	}
	back := filepath.Join(l.home, "archives", "any name")
	if err := os.Rename(tape, back); err != nil {
		t.Fatal(err)
	}
	if got := l.text(run); !strings.Contains(got, "line 200") {
		t.Errorf("brought back, the run wrote %q", got)
	}
	if after, _ := l.window(res.To); !bytes.Equal(before, after) {
		t.Error("brought back, the same window gives other bytes")
	}
	l.audit()
	l.verify()
}

// judge is the verdict on an archive by the keys of the site.
func (l *lab) judge(raw []byte, withheld int64) export.Verdict {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "judged.tar")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		l.t.Fatal(err)
	}
	logKey, err := os.ReadFile(filepath.Join(l.home, "keys", "log.pub"))
	if err != nil {
		l.t.Fatal(err)
	}
	siteKey, err := os.ReadFile(filepath.Join(l.home, "keys", "site.pub"))
	if err != nil {
		l.t.Fatal(err)
	}
	rep, err := export.Verify(context.Background(), path, export.VerifyOptions{LogKey: logKey, SiteKey: siteKey, Withheld: withheld})
	if err != nil {
		l.t.Fatal(err)
	}
	return rep.Verdict
}

// What something else names stays in its place: another run, the cache, a bundle, evidence.
func TestAnArchivingLeavesWhatOthersName(t *testing.T) {
	ctx := context.Background()
	archived := func(l *lab, rep api.ArchiveReport, run string) bool {
		digest, _, err := l.artifact(run)
		if err != nil {
			l.t.Fatal(err)
		}
		_, err = os.Stat(l.sealedFile(digest))
		gone := errors.Is(err, os.ErrNotExist)
		if want := int64(0); !gone && rep.Artifacts != want {
			l.t.Errorf("it is in its place, and the report says %+v", rep)
		}
		return gone
	}
	t.Run("the cache", func(t *testing.T) {
		l := leaver(t, "cache = {ttl = \"1h\"}")
		run := l.leave("me")
		if archived(l, l.archive(), run) {
			t.Error("what the cache gives to others was moved")
		}
		if _, err := l.site().ClearCache(ctx, api.CacheClearing{}); err != nil {
			t.Fatal(err)
		}
		if !archived(l, l.archive(), run) {
			t.Error("what nobody names any more is in its place")
		}
	})
	t.Run("a run that is younger", func(t *testing.T) {
		l := leaver(t, "")
		run := l.leave("me")
		l.reopen()
		later := time.Now()
		l.leave("me")
		rep, err := l.site().ArchiveRuns(ctx, api.ArchiveRequest{OlderThanMs: time.Since(later).Milliseconds() + 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if archived(l, rep, run) || rep.Logs != 1 || rep.Runs != 1 {
			t.Errorf("archived %+v, want nothing but the older log", rep)
		}
	})
	t.Run("a bundle", func(t *testing.T) {
		l := leaver(t, "")
		l.importFile(l.dataFile("audit-data", 1, map[string]string{"a.txt": "me"}))
		run := l.leave("me")
		if archived(l, l.archive(), run) {
			t.Error("the contents of a bundle were moved")
		}
	})
	t.Run("evidence", func(t *testing.T) { // outputs of the same bytes
		l := newLab(t)
		l.script("audit-hello", "printf '{\"n\":42}' >\"$STELLA_ARTIFACTS/report.txt\"\n"+leaveScript[strings.Index(leaveScript, "echo '{\"artifact"):], true)
		l.publish("1.0.0", hello[:strings.LastIndex(hello, "[[step]]")])
		run := l.leave("me")
		if archived(l, l.archive(), run) {
			t.Error("the outputs of a run were moved")
		}
	})
	t.Run("a run that waits for it", func(t *testing.T) {
		l := newLab(t)
		l.script("audit-once", leaveScript, true)
		l.publishChild()
		l.publish("1.0.0", "[[step]]\nid = \"sub\"\ndag = \"audit-child@1.0.0\"\n[[step]]\nid = \"ask\"\nneeds = [\"sub\"]\n[step.checkpoint]\nquestion = \"go on?\"\n")
		parent := l.start(api.StartRequest{DAGID: "audit"}).Run.RunID
		if err := l.e.Execute(ctx, engine.Unattended); err != nil {
			t.Fatal(err)
		}
		if rep := l.archive(); rep.Runs != 0 || rep.Logs != 0 {
			t.Errorf("archived %+v of a sub-run whose run is open", rep)
		}
		if _, err := l.site().CancelRun(ctx, parent, ""); err != nil {
			t.Fatal(err)
		}
		l.execute()
		if rep := l.archive(); rep.Runs != 1 || rep.Logs != 1 {
			t.Errorf("archived %+v, want the log of the sub-run", rep)
		}
	})
}

// A run that was archived goes on like any when a step of it is retried; while its archive is
// away, the attempt that needs an artifact says which file to bring back.
func TestAnArchivedRunIsRetried(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	door := filepath.Join(t.TempDir(), "door")
	l.script("audit-hello", leaveScript, true)
	l.script("audit-use", "cat \"$PWD\"/../inputs/*\n[ -e "+door+" ] || exit 3\n", true)
	steps := hello[:strings.LastIndex(hello, "[[step]]")] + "[[step]]\nid = \"use\"\nplugin = \"acme/audit-use@1.0.0\"\naction = \"run\"\nneeds = [\"a\"]\n" +
		"with = {file = '${ steps.a.artifacts[\"report.txt\"] }'}\n"
	l.publish("1.0.0", steps)
	run := l.leave("me")
	made := l.archive().Archives[0]
	tape := filepath.Join(t.TempDir(), "tape.tar")
	if err := os.Rename(made.Path, tape); err != nil {
		t.Fatal(err)
	}
	retry := func() api.RunInspection {
		t.Helper()
		l.reopen()
		if _, err := l.site().RetryRun(ctx, run, api.RetryRequest{}); err != nil {
			t.Fatal(err)
		}
		l.execute()
		d, err := l.site().InspectRun(ctx, run)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if err := os.WriteFile(door, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := retry()
	if last := d.Attempts[len(d.Attempts)-1]; d.Run.Status != state.Failed || last.End == nil || last.End.ErrorCode != "INFRA" || !strings.Contains(last.End.Message, made.File) {
		t.Errorf("with its archive away the run is %s, its last attempt %+v", d.Run.Status, last.End)
	}
	if err := os.Rename(tape, made.Path); err != nil {
		t.Fatal(err)
	}
	if d := retry(); d.Run.Status != state.Completed {
		t.Errorf("the run is %s %s, want completed", d.Run.Status, d.Run.FailureReason)
	}
	l.audit()
	l.verify()
}

// What a run leaves that is reopened while old ones are looked for stays in its place.
func TestARunIsReopenedWhileOthersAreArchived(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	door := filepath.Join(t.TempDir(), "door")
	l.script("audit-hello", leaveScript, true)
	l.script("audit-use", "[ -e "+door+" ] || exit 65\necho open\n", true)
	l.publish("1.0.0", hello[:strings.LastIndex(hello, "[[step]]")]+"[[step]]\nid = \"use\"\nplugin = \"acme/audit-use@1.0.0\"\naction = \"run\"\nneeds = [\"a\"]\n")
	run := l.leave("me")
	l.reopen()
	begun := false
	rep, err := l.site().ArchiveRuns(ctx, api.ArchiveRequest{OlderThanMs: 1}, func(int64, int64) {
		if begun {
			return
		}
		begun = true
		if err := os.WriteFile(door, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.site().RetryRun(ctx, run, api.RetryRequest{}); err != nil {
			t.Fatal(err)
		}
		l.execute()
	})
	if err != nil || !begun || rep.Artifacts != 1 {
		t.Fatalf("%+v, %v, begun %v", rep, err, begun)
	}
	d, err := l.site().InspectRun(ctx, run)
	if err != nil || d.Run.Status != state.Completed {
		t.Fatalf("%s, %v", d.Run.Status, err)
	}
	l.audit()
	l.verify()
}
