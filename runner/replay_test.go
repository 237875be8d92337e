package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// replay starts what a run has run once more.
func (w *world) replay(first state.Run, d *manifests.DAG) state.Run {
	w.t.Helper()
	p, err := runner.NewPlan(d, dagDigest(d), w.sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	run, err := w.r.StartRun(context.Background(), runner.Start{
		Tenant: "default", Actor: "uid:0(root)", RunToken: runner.NewRunToken(time.Now()), TraceID: runner.NewTraceID(),
		DAG: d, Plan: p, Inputs: []byte("{}"), ReplayOf: first.RunID, Rationale: "test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

// compared is what the entry says that follows the end of a replay at once, nil if
// none does.
func (w *world) compared(id string) (c *ledger.RunComparison) {
	w.t.Helper()
	for l, err := range w.db.RunEntries(id) {
		if err != nil {
			w.t.Fatal(err)
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			w.t.Fatal(err)
		}
		if env.Type != ledger.RunCompared {
			continue
		}
		if run, _ := w.db.Run(id); c != nil || run.LastSeq != env.Seq {
			w.t.Errorf("it was compared twice, or something came after that")
		}
		c = &ledger.RunComparison{}
		var line struct{ Data json.RawMessage }
		if err := errors.Join(json.Unmarshal(l.Data, &line), json.Unmarshal(line.Data, c)); err != nil {
			w.t.Fatal(err)
		}
	}
	return c
}

// What is written with the end of a replay is what whoever compares the two runs
// afterwards finds.
func TestAReplayIsComparedWithItsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		dag  *manifests.DAG
		run  func(ctx context.Context, replay bool, t runner.Task) (runner.Report, error)
		hand func(*world, state.Run, *manifests.DAG) // what is done to the replay
		want []string                                // fields that differ
	}{
		"the same": {dag: dag(nil, "a", "b<a"), run: makes("x", "x")},
		"another artifact and another end": {
			dag: dag(func(d *manifests.DAG) {
				d.Steps[1].When = `steps.a.artifacts.made.sha256 != "` + runner.Hash([]byte("y")) + `"`
			}, "a", "b<a"),
			run: makes("x", "y"), want: []string{"a artifact made", "b status", "b outputsHash", "b artifact made"},
		},
		"it fails": {
			dag: dag(nil, "a", "b<a"),
			run: func(_ context.Context, replay bool, _ runner.Task) (runner.Report, error) {
				return exit(map[bool]int{true: 1}[replay]), nil
			},
			want: []string{" status", " outputsHash", "a status", "a outputsHash", "b status", "b outputsHash"},
		},
		"it is cancelled before anything begins": {
			dag: dag(nil, "a"), run: makes("x", "x"),
			hand: func(w *world, run state.Run, d *manifests.DAG) {
				if _, err := w.r.Cancel("uid:7", "test", w.opened(run, d)); err != nil {
					w.t.Error(err)
				}
			},
			want: []string{" status", " outputsHash", "a status", "a outputsHash", "a artifact made"},
		},
		"it cannot be read, and is aborted": {
			dag: dag(nil, "a"), run: makes("x", "x"),
			hand: func(w *world, run state.Run, d *manifests.DAG) {
				w.reopen()
				o := w.opened(run, d)
				o.Damage = errors.New("rotten")
				if _, err := w.r.Abort(o, "uid:7", "test"); err != nil {
					w.t.Error(err)
				}
			},
			want: []string{" status", " outputsHash", "a status", "a outputsHash", "a artifact made"},
		},
		"both end in their first entries": {dag: dag(func(d *manifests.DAG) { d.Steps[0].When = "1 == 2" }, "a"), run: makes("x", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			first := ""
			w := newWorld(t, func(ctx context.Context, task runner.Task) (runner.Report, error) {
				return c.run(ctx, task.RunID != first, task)
			})
			begun := w.start(c.dag, "{}")
			first = begun.RunID
			w.finish(first)
			w.reopen()
			run := w.replay(begun, c.dag)
			if c.hand != nil {
				c.hand(w, run, c.dag)
			}
			if run, _ = w.finish(run.RunID); !run.Status.Ended() {
				t.Fatalf("the replay is %s", run.Status)
			}
			got := w.compared(run.RunID)
			want, err := w.r.Compare(run)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("%v; what is on record (+) is not what is there (-):\n%s", err, diff)
			}
			var fields []string
			for _, d := range got.Differs {
				fields = append(fields, d.StepID+" "+d.Field)
			}
			if diff := cmp.Diff(c.want, fields); diff != "" || got.Same != (c.want == nil) {
				t.Errorf("same: %v (-want +got)\n%s", got.Same, diff)
			}
		})
	}
}

// makes hands over an artifact: one in a first run, and one in its replay.
func makes(first, replay string) func(context.Context, bool, runner.Task) (runner.Report, error) {
	return func(_ context.Context, again bool, _ runner.Task) (runner.Report, error) {
		text := map[bool]string{false: first, true: replay}[again]
		r := exit(0)
		r.Output.Artifacts = []runner.ArtifactFile{{Name: "made", MediaType: "text/plain", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader([]byte(text))), nil
		}}}
		return r, nil
	}
}
