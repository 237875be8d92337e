package engine_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// What the ledger that is replaced has decided for good stays so: a version that was too old to be
// admitted still is, what was admitted is again, its name means no other bytes, and a DAG that was
// disabled does not start.
func TestDecisionsDoNotGoBackWithTheLedger(t *testing.T) {
	ctx := context.Background()
	for _, how := range []string{"restored", "recovered"} {
		t.Run(how, func(t *testing.T) {
			l := newLab(t)
			data := func(version int, text string) string {
				return l.dataFile("audit-tables", version, map[string]string{"a": text})
			}
			old, mine, newest, other := data(1, "1"), data(2, "2"), data(3, "3"), data(2, "other")
			l.script("audit-hello", helloScript, true)
			l.publish("1.0.0", hello)
			second := l.importFile(l.dagFileOf("2.0.0", 2, hello))
			if _, err := l.site().PublishDAG(ctx, second.Verdict.Digest); err != nil {
				t.Fatal(err)
			}
			disable := func(version string) {
				if _, err := l.site().DisableDAG(ctx, "audit", version, api.DAGSwitch{Reason: "it is wrong"}); err != nil {
					t.Fatal(err)
				}
			}
			disable("2.0.0")
			if _, err := l.site().EnableDAG(ctx, "audit", "2.0.0", api.DAGSwitch{}); err != nil {
				t.Fatal(err)
			}
			if _, err := l.site().CreateSnapshot(ctx, api.SnapshotRequest{}, nil); err != nil {
				t.Fatal(err)
			}
			l.importFile(mine)
			l.importFile(newest)
			disable("1.0.0")
			for range 2 { // the second time, of what the first has said
				l.closed()
				dry, done := l.newEpoch(how)
				if want := []string{"acme/audit-tables@1.0.2", "acme/audit-tables@1.0.3"}; !slices.Equal(done.Remembered, want) || !slices.Equal(done.Disabled, []string{"audit@1.0.0"}) {
					t.Errorf("remembered %q, disabled %q", done.Remembered, done.Disabled)
				}
				if !slices.Equal(dry.Remembered, done.Remembered) || !slices.Equal(dry.Disabled, done.Disabled) {
					t.Errorf("a dry run says %q and %q", dry.Remembered, dry.Disabled)
				}
				l.waive("checkpoint.note")
				l.open()
				if how == "recovered" {
					break // it is sound now
				}
			}
			for _, c := range []struct {
				name, path string
				want       verify.Reason
			}{
				{"a version before", old, verify.Rollback},
				{"other bytes of a version that was admitted", other, verify.VersionReused},
				{"what was admitted", mine, ""},
				{"the newest", newest, ""},
				{"a version before, still", old, verify.Rollback},
			} {
				if _, err := l.site().ImportBundle(ctx, api.ImportRequest{Path: c.path}, nil); codeOf(err) != api.Code(c.want) {
					t.Errorf("%s: %v, want %q", c.name, err, c.want)
				}
			}
			if _, err := l.site().StartRun(ctx, api.StartRequest{DAGID: "audit", Version: "1.0.0"}); codeOf(err) != api.CodeDAGDisabled || !strings.Contains(err.Error(), how) {
				t.Errorf("started: %v", err)
			}
			if d, err := l.site().ListDAGs(ctx, api.DAGQuery{}); err != nil || !slices.ContainsFunc(d, func(d api.DAG) bool { return d.Version == "2.0.0" && d.Enabled }) {
				t.Errorf("2.0.0 is not enabled: %+v, %v", d, err)
			}
			l.verify()
			raw, res := l.window("")
			if v := l.judge(raw, res.Withheld); v != export.Verified {
				t.Errorf("the archive is %s", v)
			}
			l.reopen()
		})
	}
}

// newEpoch takes the ledger, which is closed, back to the snapshot or to before it, and returns
// what a dry run said of that, and what was done.
func (l *lab) newEpoch(how string) (dry, done api.NewEpoch) {
	l.t.Helper()
	ctx := context.Background()
	if how == "recovered" {
		l.spoil("snapshot.created")
	}
	both := map[bool]api.NewEpoch{}
	for _, only := range []bool{true, false} {
		if how == "restored" {
			r, err := engine.Restore(ctx, engine.RestoreOptions{Home: l.home, Latest: true, Actor: who, DryRun: only})
			if err != nil {
				l.t.Fatal(err)
			}
			both[only] = r.NewEpoch
			continue
		}
		r, err := engine.Recover(ctx, engine.RecoverOptions{Home: l.home, Actor: who, DryRun: only})
		if err != nil {
			l.t.Fatal(err)
		}
		both[only] = r.NewEpoch
	}
	return both[true], both[false]
}
