package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// stick puts bundles into a folder, under names of the test's choice.
func stick(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (l *lab) media(req api.MediaRequest, watch func(api.MediaEvent)) api.MediaReport {
	l.t.Helper()
	rep, err := l.site().ImportMedia(context.Background(), req, watch)
	if err != nil {
		l.t.Fatal(err)
	}
	return rep
}

// versions makes n versions of one data bundle, the newest first by name.
func (l *lab) versions(n int) string {
	files := map[string]string{}
	for i := 1; i <= n; i++ {
		files[fmt.Sprintf("%03d.stella", n-i)] = l.dataFile("audit-data", i, map[string]string{"a.txt": fmt.Sprintf("version %d", i)})
	}
	return stick(l.t, files)
}

// Versions of one bundle go in by their sequence, whatever they are called, and
// each is held against the floor that the one before it leaves.
func TestMediaAreImportedBySequence(t *testing.T) {
	l := newLab(t)
	dir := l.versions(5)
	rep := l.media(api.MediaRequest{Paths: []string{dir}}, nil)
	if rep.Admitted != 5 || rep.Refused+rep.Failed+rep.Again != 0 {
		t.Errorf("the report is %+v", rep)
	}
	rep = l.media(api.MediaRequest{Paths: []string{dir, filepath.Join(dir, "000.stella")}}, nil)
	if rep.Admitted != 0 || rep.Again != 5 {
		t.Errorf("again: %+v", rep)
	}
	l.audit()
	l.verify()
}

// Trust is judged before everything else, since it may be what lets the rest in.
// What nobody known has signed comes last.
func TestTrustComesFirst(t *testing.T) {
	l := newLab(t)
	acme := l.key
	raw, err := os.ReadFile(filepath.Join(l.home, "keys", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	if l.key, err = verify.ParsePrivateKey(raw); err != nil {
		t.Fatal(err)
	}
	status, err := l.site().Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	trust := l.bundle(map[string]string{"stella.toml": fmt.Sprintf(`schema = "stella.bundle/1"
kind = "trust"
publisher = "fleet"
name = "zz-trust"
version = "1.0.0"
sequence = 1
audience = [%q]
%s
[trust]
revocations = "revocations.toml"
`, status.SiteID, created), "revocations.toml": "no revocations"})
	if l.key, err = verify.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	stranger := l.dataFile("audit-a", 1, map[string]string{"a.txt": "x"})
	l.key = acme
	dir := stick(t, map[string]string{
		"a.stella": stranger, "b.stella": l.dagFile("1.0.0", hello), "c.stella": l.scriptFile("audit-hello", helloScript, true),
		"d.stella": trust,
	})
	var order []string
	l.media(api.MediaRequest{Paths: []string{dir}}, func(e api.MediaEvent) {
		if name := filepath.Base(e.Path); len(order) == 0 || order[len(order)-1] != name && e.Item == nil {
			order = append(order, name)
		}
	})
	if diff := cmp.Diff([]string{"d.stella", "c.stella", "b.stella", "a.stella"}, order); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
}

// A file that cannot be read, and one that is gone when its turn comes, fail by
// themselves; the others are admitted.
func TestAMediumThatFails(t *testing.T) {
	l := newLab(t)
	dir := l.versions(3)
	gone := l.dataFile("audit-gone", 1, map[string]string{"a.txt": "gone"})
	rep := l.media(api.MediaRequest{Paths: []string{dir, gone, "/proc/self/mem"}}, func(api.MediaEvent) { os.Remove(gone) })
	if rep.Admitted != 3 || rep.Failed != 2 || rep.Seq == 0 {
		t.Errorf("the report is %+v", rep)
	}
	want := map[string]api.Code{gone: api.CodeNotFound, "/proc/self/mem": api.CodeMedium}
	for _, item := range rep.Imports {
		if code := want[item.Path]; code != "" && (item.Outcome != api.OutcomeFailed || item.Error.Code != code || item.Error.Message == "") {
			t.Errorf("%s: %+v, %v; want %s", item.Path, item, item.Error, code)
		}
	}
	quarantined, err := os.ReadDir(filepath.Join(l.home, "quarantine"))
	if err != nil || len(quarantined) != 0 {
		t.Errorf("left in quarantine: %v, %v", quarantined, err)
	}
	l.audit()
}

// An import that is interrupted keeps what it has admitted, says so in its
// receipt, and is simply repeated.
func TestAnInterruptedImportIsRepeated(t *testing.T) {
	l := newLab(t)
	dir := l.versions(4)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rep, err := l.site().ImportMedia(ctx, api.MediaRequest{Paths: []string{dir}, Carrier: "Ann"}, func(e api.MediaEvent) {
		if e.Item != nil {
			cancel()
		}
	})
	if err == nil || rep.Admitted == 0 || rep.Admitted == 4 || len(rep.Imports) != 4 {
		t.Fatalf("the report is %+v, %v", rep, err)
	}
	var receipt struct {
		Carrier     string
		Interrupted bool
		Files       []struct{ Outcome string }
	}
	if err := json.Unmarshal(rep.Receipt, &receipt); err != nil {
		t.Fatal(err)
	}
	notTried := 0
	for _, f := range receipt.Files {
		if f.Outcome == api.OutcomeNotTried {
			notTried++
		}
	}
	if !receipt.Interrupted || receipt.Carrier != "Ann" || notTried != 4-rep.Admitted {
		t.Errorf("the receipt is %s", rep.Receipt)
	}
	again := l.media(api.MediaRequest{Paths: []string{dir}}, nil)
	if again.Again != rep.Admitted || again.Admitted != 4-rep.Admitted {
		t.Errorf("repeated: %+v, after %d", again, rep.Admitted)
	}
	l.audit()
	l.verify()
}

// Two imports of one medium at a time both succeed.
func TestTwoImportsAtOnce(t *testing.T) {
	l := newLab(t)
	dir := l.versions(12)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			rep, err := l.site().ImportMedia(context.Background(), api.MediaRequest{Paths: []string{dir}}, nil)
			if err != nil || rep.Admitted+rep.Again != 12 {
				t.Errorf("%+v, %v", rep, err)
			}
		})
	}
	wg.Wait()
	l.audit()
	l.verify()
}

// A slow medium keeps nobody else waiting.
func TestASlowMediumBlocksNobody(t *testing.T) {
	l := newLab(t)
	slow := l.dataFile("audit-slow", 1, map[string]string{"a.txt": "slow"})
	fast := l.dataFile("audit-fast", 1, map[string]string{"a.txt": "fast"})
	begun, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		_, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: slow}, func(int64, int64) {
			once.Do(func() { close(begun); <-release })
		})
		done <- err
	}()
	<-begun
	l.importFile(fast)
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.audit()
}

// The verdict about a medium that took more than a day is of the time at which it was
// recorded, and by what was in force then.
func TestASlowMediumIsJudgedInTheEnd(t *testing.T) {
	l := newLab(t)
	path := l.dataFile("audit-slow", 1, map[string]string{"a.txt": "slow"})
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	var later atomic.Int64
	var err error
	l.e, err = engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeForeground, Version: "0.1.0", Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.e.Close() })
	begun := time.Now()
	out, err := l.site().ImportBundle(context.Background(), api.ImportRequest{Path: path}, func(int64, int64) { later.Store(int64(30 * time.Hour)) })
	if err != nil {
		t.Fatal(err)
	}
	now, err := stamp.Parse(out.Verdict.Now)
	if err != nil || now.Before(begun.Add(30*time.Hour)) || len(out.Verdict.Checks) == 0 {
		t.Errorf("the verdict is of %s, of a medium that was read from %s on for 30 hours", out.Verdict.Now, stamp.Format(begun))
	}
	d, err := l.site().ShowBundle(context.Background(), out.Verdict.Digest)
	if err != nil || d.Admission.Verdict.Now != out.Verdict.Now {
		t.Errorf("recorded is a verdict of %s, %v; told was one of %s", d.Admission.Verdict.Now, err, out.Verdict.Now)
	}
}

// Requests that make no sense are refused before anything is looked at.
func TestMediaRequests(t *testing.T) {
	l := newLab(t)
	many := make([]string, 65)
	for i := range many {
		many[i] = "/x"
	}
	for name, tc := range map[string]struct {
		req  api.MediaRequest
		want api.Code
	}{
		"no paths":         {api.MediaRequest{}, api.CodeInvalid},
		"too many":         {api.MediaRequest{Paths: many}, api.CodeInvalid},
		"relative":         {api.MediaRequest{Paths: []string{"x"}}, api.CodeInvalid},
		"absent":           {api.MediaRequest{Paths: []string{"/nowhere/at/all"}}, api.CodeNotFound},
		"empty":            {api.MediaRequest{Paths: []string{t.TempDir()}}, api.CodeNotFound},
		"a device":         {api.MediaRequest{Paths: []string{"/dev/zero"}}, api.CodeInvalid},
		"a carrier's bell": {api.MediaRequest{Paths: []string{"/tmp"}, Carrier: "Ann\a"}, api.CodeInvalid},
		"a long carrier":   {api.MediaRequest{Paths: []string{"/tmp"}, Carrier: string(make([]byte, 300))}, api.CodeInvalid},
	} {
		if _, err := l.site().ImportMedia(context.Background(), tc.req, nil); codeOf(err) != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}
