package engine_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stellarun/stella/archive"
	"github.com/stellarun/stella/server/api"
)

// spoiled changes what stands in the middle of each file of a tar whose name begins so. One
// bit alone could be one that a decoder does not look at.
func spoiled(t *testing.T, raw []byte, prefixes ...string) []byte {
	t.Helper()
	raw, n := bytes.Clone(raw), 0
	for at := 0; at+512 <= len(raw) && raw[at] != 0; {
		name := string(bytes.TrimRight(raw[at:at+100], "\x00"))
		size, err := strconv.ParseInt(strings.Trim(string(raw[at+124:at+136]), " \x00"), 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range prefixes {
			if strings.HasPrefix(name, p) {
				for i := int(size) / 3; i <= int(size)*2/3; i++ {
					raw[at+512+i] ^= 0x55
				}
				n++
			}
		}
		at += 512 + (int(size)+511)/512*512
	}
	if n == 0 {
		t.Fatalf("nothing is called %v", prefixes)
	}
	return raw
}

// put writes a file into archives/ of the home, or elsewhere.
func (l *lab) put(path string, raw []byte) string {
	l.t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(l.home, "archives", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o400); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// archived is a lab with a run of which all is in an archive, and the archive.
func archived(t *testing.T) (l *lab, run, text string, made api.Archive, good []byte) {
	t.Helper()
	l = leaver(t, "")
	run = l.leave("me")
	text = l.text(run)
	made = l.archive().Archives[0]
	good, err := os.ReadFile(made.Path)
	if err != nil {
		t.Fatal(err)
	}
	return l, run, text, made, good
}

// reads says that all of the run is read as before, and the ledger verifies.
func (l *lab) reads(run, text string) api.LedgerReport {
	l.t.Helper()
	if got := l.text(run); got != text {
		l.t.Errorf("the run wrote %q, before it %q", got, text)
	}
	if _, got, err := l.artifact(run); got != "me" || err != nil {
		l.t.Errorf("the artifact is %q, %v", got, err)
	}
	check, err := l.site().VerifyLedger(context.Background(), api.LedgerCheck{Full: true}, nil)
	if err != nil || len(check.Away) > 0 {
		l.t.Errorf("verify: %+v, %v", check, err)
	}
	return check
}

// A damaged file beside a good copy does not stand before it, whichever comes first by name.
// It is named, and a snapshot takes the good one.
func TestAGoodCopyBesideADamagedArchive(t *testing.T) {
	ctx := context.Background()
	l, run, text, made, good := archived(t)
	for _, tc := range []struct{ what, bad, good string }{
		{"the damaged one has its name", made.File, "z-good.tar"},
		{"the damaged one comes first", "a-bad.tar", made.File},
		{"the damaged one comes last", "z-bad.tar", made.File},
	} {
		for how, raw := range map[string][]byte{
			"contents": spoiled(t, good, "logs/", "artifacts/"), "its list": spoiled(t, good, "list.json"),
			"its end": good[:len(good)-600], "README": spoiled(t, good, "README"),
		} {
			if how == "its list" && tc.bad != made.File {
				continue // that is no archive of this site, and nobody expects one of that name
			}
			t.Run(tc.what+"/"+how, func(t *testing.T) {
				l.t = t
				if err := os.RemoveAll(filepath.Join(l.home, "archives")); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(filepath.Join(l.home, "archives"), 0o755); err != nil {
					t.Fatal(err)
				}
				bad := l.put(tc.bad, raw)
				l.reopen()
				err := l.site().RunLogs(ctx, api.LogQuery{RunID: run}, func(api.LogLine) error { return nil })
				if (how == "contents" || how == "its list") && codeOf(err) != api.CodeDamaged {
					t.Errorf("alone it is read as %v", err)
				}
				l.put(tc.good, good)
				l.reads(run, text) // by the process that has seen the other alone
				l.reopen()
				check := l.reads(run, text)
				if len(check.Spoiled) != 1 || !strings.Contains(check.Spoiled[0], tc.bad+" is damaged") || !strings.Contains(check.Spoiled[0], tc.good+" is whole") {
					t.Errorf("verify says %q of the damaged one", check.Spoiled)
				}
				if all, err := l.site().ListArchives(ctx); err != nil || all[0].State != api.ArchiveHere || len(all[0].Damaged) != 1 || !strings.HasPrefix(all[0].Damaged[0], bad) {
					t.Errorf("archives: %+v, %v", all, err)
				}
				rep, err := l.site().AuditStorage(ctx, nil)
				if err != nil || len(rep.Findings) != 1 || rep.Findings[0].Kind != "corrupt" || rep.Findings[0].Path != "archives/"+tc.bad {
					t.Errorf("audit: %+v, %v", rep.Findings, err)
				}
				snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: t.TempDir()}, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(filepath.Join(snap.Path, "archives", tc.good))
				if _, berr := os.Stat(filepath.Join(snap.Path, "archives", tc.bad)); err != nil || !bytes.Equal(got, good) || !os.IsNotExist(berr) {
					t.Errorf("the snapshot does not have the good one alone: %v, %v", err, berr)
				}
			})
		}
	}
}

// Where no copy has it whole, it is damaged for everybody.
func TestAllCopiesOfAnArchiveAreDamaged(t *testing.T) {
	ctx := context.Background()
	l, run, _, made, good := archived(t)
	l.put(made.File, spoiled(t, good, "logs/", "artifacts/"))
	l.put("a.tar", spoiled(t, good, "logs/", "artifacts/"))
	l.reopen()
	if _, err := l.site().Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.site().RunLogs(ctx, api.LogQuery{RunID: run}, func(api.LogLine) error { return nil }); codeOf(err) != api.CodeDamaged {
			t.Errorf("logs: %v", err)
		}
		if _, _, err := l.artifact(run); codeOf(err) != api.CodeDamaged {
			t.Errorf("artifact: %v", err)
		}
		if _, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil); codeOf(err) != api.CodeDamaged {
			t.Errorf("verify: %v", err)
		}
		if _, err := l.site().CreateExport(ctx, api.ExportRequest{Path: filepath.Join(t.TempDir(), "a.tar")}, nil); codeOf(err) != api.CodeDamaged {
			t.Errorf("export: %v", err)
		}
		if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: t.TempDir()}, nil); codeOf(err) != api.CodeDamaged {
			t.Errorf("snapshot: %v", err)
		}
	}
	rep, err := l.site().AuditStorage(ctx, nil)
	if err != nil || rep.Damage < 2 {
		t.Errorf("audit: %+v, %v", rep.Findings, err)
	}
	if all, err := l.site().ListArchives(ctx); err != nil || all[0].State != api.ArchiveDamaged || len(all[0].Damaged) != 2 {
		t.Errorf("archives: %+v, %v", all, err)
	}
}

// fromTar is a source of what an archive holds.
type fromTar struct{ *archive.File }

func (f fromTar) Open(_ bool, digest string) (io.ReadCloser, error) { return f.File.Open(digest) }

// An archive that nobody has recorded is read where it helps, and never in the way: neither of
// one that is here, nor of what is said where that is away.
func TestAForeignArchiveIsNotInTheWay(t *testing.T) {
	ctx := context.Background()
	l, run, text, made, good := archived(t)
	site := string(good[bytes.Index(good, []byte(`"siteId":"`))+len(`"siteId":"`):][:32])
	f, err := archive.Index(made.Path, site)
	if err != nil {
		t.Fatal(err)
	}
	v, err := archive.Verify(ctx, made.Path, archive.VerifyOptions{SiteID: site})
	if err != nil {
		t.Fatal(err)
	}
	v.List.Before = "2020-01-01T00:00:00.000000000Z"
	other := filepath.Join(t.TempDir(), "other.tar")
	if err := archive.Write(ctx, other, archive.Options{List: v.List, Source: fromTar{f}, Sign: func(b []byte) ([]byte, error) { return b, nil }}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	broken := spoiled(t, raw, "logs/", "artifacts/")
	l.put("a.tar", broken)
	for range 2 {
		l.reopen()
		l.reads(run, text)
	}
	if err := os.Remove(made.Path); err != nil {
		t.Fatal(err)
	}
	l.reopen()
	if err := l.site().RunLogs(ctx, api.LogQuery{RunID: run}, func(api.LogLine) error { return nil }); codeOf(err) != api.CodeArchiveAway {
		t.Errorf("logs: %v", err)
	}
	if check, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil); err != nil || len(check.Away) != 1 || check.Away[0].Files != 2 {
		t.Errorf("verify: %+v, %v", check.Away, err)
	}
	l.put("a.tar", raw)
	l.reopen()
	l.reads(run, text)
	l.put(made.File, spoiled(t, good, "logs/"))
	l.reopen()
	if got := l.text(run); got != text {
		t.Errorf("beside the damaged one the run wrote %q, before it %q", got, text)
	}
}

// An archive that cannot be opened is as one that is away, and the file is named.
func TestAnArchiveThatCannotBeOpened(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root opens every file")
	}
	ctx := context.Background()
	l, run, text, made, _ := archived(t)
	for _, name := range []string{made.File, "back.tar"} {
		path := filepath.Join(l.home, "archives", name)
		if err := os.Rename(made.Path, path); err != nil {
			t.Fatal(err)
		}
		made.Path = path
		for _, look := range []string{"as it was", "opened anew"} {
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			if look == "opened anew" {
				l.reopen()
			}
			err := l.site().RunLogs(ctx, api.LogQuery{RunID: run}, func(api.LogLine) error { return nil })
			if codeOf(err) != api.CodeArchiveUnreadable || !strings.Contains(err.(*api.Error).Faults[0], path+": permission denied") {
				t.Errorf("%s, %s: logs: %v", name, look, err)
			}
			if _, _, err := l.artifact(run); codeOf(err) != api.CodeArchiveUnreadable || !strings.Contains(err.Error(), path) {
				t.Errorf("%s, %s: artifact: %v", name, look, err)
			}
			check, err := l.site().VerifyLedger(ctx, api.LedgerCheck{Full: true}, nil)
			if err != nil || len(check.Away) != 1 || check.Away[0].Files != 2 || !strings.Contains(check.Away[0].Unread, path) {
				t.Errorf("%s, %s: verify: %+v, %v", name, look, check.Away, err)
			}
			if rep := l.audit(); len(rep.Findings) != 1 || rep.Findings[0].Kind != "away" || !strings.Contains(rep.Findings[0].Detail, path) {
				t.Errorf("%s, %s: audit: %+v", name, look, rep.Findings)
			}
			if all, err := l.site().ListArchives(ctx); err != nil || all[0].State != api.ArchiveUnreadable {
				t.Errorf("%s, %s: archives: %+v, %v", name, look, all, err)
			}
			if snap, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{Dir: t.TempDir()}, nil); err != nil || len(snap.Away) != 1 {
				t.Errorf("%s, %s: snapshot: %+v, %v", name, look, snap, err)
			}
			if err := os.Chmod(path, 0o400); err != nil {
				t.Fatal(err)
			}
			l.reads(run, text)
		}
	}
}
