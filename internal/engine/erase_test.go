package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// What somebody has said leaves the ledger when two people want it, and nothing else does.
func TestWhatWasSaidIsErasedByTwoPeople(t *testing.T) {
	const said = "Erika Mustermann, room 4711"
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	run := l.start(api.StartRequest{DAGID: "audit", RunToken: "t", Metadata: map[string]string{"for": said}}).Run
	l.execute()
	entry := l.seqOf(run.RunID, ledger.RunStarted)
	before, err := l.site().AttestRun(ctx, run.RunID, api.AttestRequest{})
	if err != nil || !before.New {
		t.Fatalf("%+v, %v", before, err)
	}

	if _, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{0}, Reason: "x"}); codeOf(err) != api.CodeConflict {
		t.Errorf("the first entry: %v", err)
	}
	if _, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{entry}}); codeOf(err) != api.CodeInvalid {
		t.Errorf("without a reason: %v", err)
	}
	req, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{entry, entry}, Reason: "by law"})
	if err != nil || req.Agreed {
		t.Fatalf("%+v, %v", req, err)
	}
	if _, err := l.site().EraseData(ctx, api.ErasureRequest{Agree: &req.Seq}); codeOf(err) != api.CodeForbidden {
		t.Errorf("the same person: %v", err)
	}
	other := l.e.As(api.Principal{Name: "uid:4242(other)"})
	if _, err := other.EraseData(ctx, api.ErasureRequest{Agree: &entry}); codeOf(err) != api.CodeConflict {
		t.Errorf("agreed to what is no request: %v", err)
	}
	if rep, err := other.EraseData(ctx, api.ErasureRequest{Agree: &req.Seq}); err != nil || len(rep.Entries) != 1 || rep.Waits != "" {
		t.Fatalf("%+v, %v", rep, err)
	}
	raw, err := os.ReadFile(filepath.Join(l.home, "ledger.db"))
	if err != nil || bytes.Contains(raw, []byte("Mustermann")) {
		t.Errorf("it is still in ledger.db (%v)", err)
	}
	l.verify()
	if now, err := l.site().InspectRun(ctx, run.RunID); err != nil || len(now.Run.Metadata) > 0 {
		t.Errorf("%+v, %v", now.Run, err)
	}
	l.reopen()
	l.verify()
	line, err := l.site().ShowLedger(ctx, entry)
	if err != nil || line.Data != nil || !strings.Contains(string(line.Envelope), run.RunID) {
		t.Errorf("%+v, %v", line, err)
	}
	now, err := l.site().InspectRun(ctx, run.RunID)
	if err != nil || len(now.Run.Metadata) > 0 || now.Run.RunToken != "t" {
		t.Errorf("%+v, %v", now.Run, err)
	}
	if _, err := l.e.As(api.Principal{Name: "uid:4242(other)"}).EraseData(ctx, api.ErasureRequest{Agree: &req.Seq}); codeOf(err) != api.CodeConflict {
		t.Errorf("agreed twice: %v", err)
	}
	if _, err := l.site().CollectGarbage(ctx, api.GCRequest{}, nil); err != nil {
		t.Error(err)
	}

	// A statement about the run never had what was said.
	after, err := l.site().AttestRun(ctx, run.RunID, api.AttestRequest{})
	if err != nil || after.New || !bytes.Equal(after.Bundle, before.Bundle) {
		t.Errorf("the statement about the run is another, %v", err)
	}

	// Archives say so.
	path := filepath.Join(t.TempDir(), "a.tar")
	if _, err := l.site().CreateExport(ctx, api.ExportRequest{Path: path}, nil); err != nil {
		t.Fatal(err)
	}
	keys := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(l.home, "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for withheld, want := range map[int64]export.Verdict{0: export.Incomplete, 1: export.Verified} {
		rep, err := export.Verify(ctx, path, export.VerifyOptions{LogKey: keys("log.pub"), SiteKey: keys("site.pub"), Withheld: withheld})
		if err != nil || rep.Verdict != want {
			t.Errorf("with %d withheld: %v, %+v", withheld, err, rep)
		}
	}

	// A copy of the site is whole, and so is the site when it goes on.
	if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
		t.Error(err)
	}
	l.start(api.StartRequest{DAGID: "audit", RunToken: "u"})
	l.execute()
	l.verify()
}

// What two people have agreed to erase is shown to nobody from then on, and neither a
// snapshot, a restore nor a recovery brings it back.
func TestWhatWasErasedDoesNotComeBack(t *testing.T) {
	const said = "Erika Mustermann, room 4711"
	ctx := context.Background()
	for _, how := range []string{"restored", "recovered", "recovered without its entry"} {
		t.Run(how, func(t *testing.T) {
			l := newLab(t)
			l.script("audit-hello", helloScript, true)
			l.publish("1.0.0", hello)
			run := l.start(api.StartRequest{DAGID: "audit", RunToken: "t", Metadata: map[string]string{"for": said}}).Run
			l.execute()
			entry := l.seqOf(run.RunID, ledger.RunStarted)
			before, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			req, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{entry}, Reason: "by law"})
			if err != nil {
				t.Fatal(err)
			}
			rep, err := l.e.As(api.Principal{Name: "uid:4242(other)"}).EraseData(ctx, api.ErasureRequest{Agree: &req.Seq})
			if err != nil || len(rep.Copies) != 1 || rep.Copies[0] != before.Path {
				t.Fatalf("%+v, %v", rep, err)
			}

			// The site is open still.
			if line, err := l.site().ShowLedger(ctx, entry); err != nil || line.Data != nil {
				t.Errorf("it is shown: %s, %v", line.Data, err)
			}
			path := filepath.Join(t.TempDir(), "a.tar")
			if res, err := l.site().CreateExport(ctx, api.ExportRequest{Path: path}, nil); err != nil || res.Withheld != 1 {
				t.Errorf("an archive: %+v, %v", res, err)
			}
			l.verify()
			after, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
			if err != nil || speaks(t, after.Path, said) || !speaks(t, before.Path, said) {
				t.Errorf("the snapshot after it, and only that, is without it: %v", err)
			}
			raw, err := os.ReadFile(filepath.Join(after.Path, "ledger.db"))
			sums, serr := os.ReadFile(filepath.Join(after.Path, "SHA256SUMS"))
			if err != nil || serr != nil || !bytes.Contains(sums, fmt.Appendf(nil, "%x  ledger.db\n", sha256.Sum256(raw))) {
				t.Errorf("the snapshot after it is not what its list says (%v, %v)", err, serr)
			}
			if err := l.e.Close(); err != nil {
				t.Fatal(err)
			}

			var again []int64
			switch how {
			case "restored":
				r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, ID: before.ID, Actor: who, Reason: "x"})
				if again = r.Erased; err != nil {
					t.Fatal(err)
				}
			default:
				text := "site.stopped" // of an entry that comes after the erasure
				if how != "recovered" {
					text = "data.erased"
				}
				path := filepath.Join(l.home, "ledger.db")
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, bytes.ReplaceAll(raw, []byte(`"type":"`+text), []byte(`"type":"x`+text[1:])), 0o600); err != nil {
					t.Fatal(err)
				}
				r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
				if again = r.Erased; err != nil || r.Sound {
					t.Fatalf("%+v, %v", r, err)
				}
			}
			if want := how != "recovered"; (len(again) == 1 && again[0] == entry) != want {
				t.Errorf("erased again by the new epoch: %v", again)
			}
			if speaks(t, l.home, said) {
				t.Error("it is in ledger.db before the site is opened")
			}
			if l.tryOpen() != nil {
				l.waive("checkpoint.note")
			}
			l.open()
			l.verify()
			if speaks(t, l.home, said) {
				t.Error("it is in ledger.db again")
			}
			if line, err := l.site().ShowLedger(ctx, entry); err != nil || line.Data != nil {
				t.Errorf("it is shown: %s, %v", line.Data, err)
			}
			if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: t.TempDir()}, nil); err != nil {
				t.Error(err)
			}
			l.reopen()
			l.verify()
		})
	}
}

// speaks says whether the ledger in a folder has a text.
func speaks(t *testing.T, dir, text string) bool {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(raw, []byte(text))
}

// seqOf is the seq of the first entry of a type in a run.
func (l *lab) seqOf(runID string, t ledger.Type) int64 {
	l.t.Helper()
	lines, err := l.site().TailLedger(context.Background(), api.LedgerQuery{RunID: runID, Type: string(t)})
	if err != nil || len(lines) == 0 {
		l.t.Fatalf("%v, %v", lines, err)
	}
	return lines[0].Seq
}
