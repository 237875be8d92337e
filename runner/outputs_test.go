package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A run whose outputs cannot be fails like any other: it is on record before
// on_failure runs, whoever goes on finds it there, and a retry mends it.
func TestOutputsThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		value, code, message, hint string
		whole                      bool
	}{
		"no value":                      {value: `""`, code: "EXPRESSION_INVALID", message: "outputs: n: ", hint: "they read b: stella orch run retry RUN --step b; "},
		"too large":                     {value: `"` + strings.Repeat("x", 1<<19) + `"`, code: "RESOURCE_LIMIT", message: "the outputs have ", hint: "they read b: "},
		"no value, read from all steps": {value: `""`, code: "EXPRESSION_INVALID", message: "outputs: n: ", hint: "they read a, b: stella orch run retry RUN --step STEP; ", whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			mended := false
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			w := newWorld(t, func(within context.Context, task runner.Task) (runner.Report, error) {
				if task.StepID == "tidy" && task.Attempt == 1 {
					stop()
					<-within.Done()
					return runner.Report{Stop: runner.StopShutdown}, nil
				}
				r := exit(0)
				r.Output.Values = map[string]json.RawMessage{"n": json.RawMessage(c.value)}
				if mended {
					r.Output.Values["n"] = json.RawMessage(`"1"`)
				}
				return r, nil
			})
			d := dag(func(d *manifests.DAG) {
				d.OnFailure = dag(nil, "tidy").Steps
				text := "int(steps.b.outputs.n)"
				switch {
				case c.whole:
					text = "steps.map(s, int(steps[s].outputs.n))"
				case c.code == "RESOURCE_LIMIT":
					text = "[" + strings.Repeat("steps.b.outputs.n,", 130) + "1]"
				}
				d.Outputs = map[string]any{"n": "${ " + text + " }"}
			}, "a", "b<a")
			run := w.start(d, "{}")
			if err := w.r.Run(ctx, true); err != nil {
				t.Fatal(err)
			}
			w.reopen()
			if run, _ = w.db.Run(run.RunID); run.Status != state.Running || run.FailCode != c.code {
				t.Fatalf("while it cleans up, the run is %s, and is to fail with %q", run.Status, run.FailCode)
			}
			if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
				t.Fatal(err)
			}
			got, steps := w.finish(run.RunID)
			want := map[string]string{"a": "completed", "b": "completed", "tidy": "completed"}
			if diff := cmp.Diff(want, steps); got.Status != state.Failed || got.FailureReason != c.code || !strings.HasPrefix(got.Message, c.message) || diff != "" {
				t.Fatalf("the run is %s %s %q\n%s", got.Status, got.FailureReason, got.Message, diff)
			}
			w.reopen()
			var refused *runner.ConflictError
			_, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7"})
			if !errors.As(err, &refused) || !strings.HasPrefix(refused.Hint, strings.ReplaceAll(c.hint, "RUN", run.RunID)) {
				t.Errorf("a retry of no step: %v, %+v", err, refused)
			}
			mended = true
			if _, err := w.r.Retry(w.opened(got, d), runner.Retry{Actor: "uid:7", StepID: "a", Downstream: true}); err != nil {
				t.Fatal(err)
			}
			if got, _ = w.finish(run.RunID); got.Status != state.Completed || got.FailureReason != "" || got.FailCode != "" {
				t.Errorf("mended, the run is %s %s %s", got.Status, got.FailureReason, got.FailCode)
			}
		})
	}
}
