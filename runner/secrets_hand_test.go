package runner_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// What is given to a step by hand is held against the secrets of the step, like what
// the step gives out.
func TestNothingGivenByHandHoldsASecretOfTheStep(t *testing.T) {
	skips := func(step string) func(*world, runner.Opened, string) error {
		return func(w *world, o runner.Opened, text string) error {
			_, err := w.r.Skip(o, runner.Skip{Actor: "uid:7", Reason: "r", StepID: step, Output: json.RawMessage(`{"v":["` + text + `"]}`)})
			return err
		}
	}
	retries := func(w *world, o runner.Opened, text string) error {
		_, err := w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "a", Input: json.RawMessage(`{"v":{"` + text + `":1}}`)})
		return err
	}
	for _, c := range []struct {
		name   string
		dag    *manifests.DAG
		child  func(*manifests.DAG) // of steps x, y<x
		inputs string
		give   func(*world, runner.Opened, string) error
		free   bool // the control: what is given may be whatever it is
	}{
		{name: "skip", dag: dag(needsDB, "a", "b<a"), give: skips("a")},
		{name: "skip of a step without secrets", dag: dag(needsDB, "a", "b"), give: skips("b"), free: true},
		{name: "skip of an item", dag: dag(func(d *manifests.DAG) { needsDB(d); d.Steps[0].ForEach = []any{int64(1)} }, "a"), give: skips("a.0")},
		{name: "skip of a step with for_each", dag: dag(func(d *manifests.DAG) { needsDB(d); d.Steps[0].ForEach = []any{int64(1)} }, "a"), give: skips("a")},
		{name: "skip of a step that was given a reference", dag: dag(func(d *manifests.DAG) {
			d.Inputs = map[string]manifests.Input{"obj": {Type: "object"}}
			d.Steps[0].With = map[string]any{"x": "${ inputs.obj }"}
		}, "a"), inputs: `{"obj":{"secretRef":"db"}}`, give: skips("a")},
		{name: "skip of a sub-run in which a step was given one", dag: parent(nil, "sub"), child: needsDB, give: skips("sub")},
		{name: "skip of a sub-run without secrets", dag: parent(nil, "sub"), child: func(*manifests.DAG) {}, give: skips("sub"), free: true},
		{name: "retry", dag: dag(needsDB, "a"), give: retries},
		{name: "retry with a reference to it", dag: dag(nil, "a"), give: func(w *world, o runner.Opened, text string) error {
			_, err := w.r.Retry(o, runner.Retry{Actor: "uid:7", StepID: "a", Input: json.RawMessage(`{"x":{"secretRef":"db"},"v":"` + text + `"}`)})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) { return exit(1), nil })
			g := w.withSecrets(true)
			for i := range c.dag.Steps {
				c.dag.Steps[i].AllowSkip, c.dag.FailFast = true, false
			}
			if c.child != nil {
				w.child(c.child, "x", "y<x")
			}
			if c.inputs == "" {
				c.inputs = "{}"
			}
			run := w.start(c.dag, c.inputs)
			run, _ = w.finish(run.RunID)
			if run.Status != state.Failed {
				t.Fatalf("the run is %s", run.Status)
			}
			w.r = w.giving(g, false) // nobody executes here what is given secrets
			w.refuses(w.opened(run, c.dag), c.free, c.give)
		})
	}
}

// refuses tries to give a step a secret by hand, as it is and in disguise, and then
// something harmless.
func (w *world) refuses(o runner.Opened, free bool, give func(*world, runner.Opened, string) error) {
	w.t.Helper()
	for _, text := range []string{"so it was " + password, base64.StdEncoding.EncodeToString([]byte(password)), strings.Replace(password, "u", `\u0075`, 1)} {
		if free {
			break
		}
		var refused *runner.RequestError
		if err := give(w, o, text); !errors.As(err, &refused) || !strings.Contains(err.Error(), "holds the secret db") || strings.Contains(err.Error(), password) {
			w.t.Errorf("given %s: %v", text, err)
		}
	}
	text := "harmless"
	if free {
		text = password
	}
	if err := give(w, o, text); err != nil {
		w.t.Errorf("given %s: %v", text, err)
	}
}

// A grant that is taken back hides nothing from who has seen it; and nobody learns by
// such a refusal what a secret is that the step has never had.
func TestWhichSecretsCountForWhatIsGivenByHand(t *testing.T) {
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) { return exit(1), nil })
	g := w.withSecrets(true)
	d := dag(func(d *manifests.DAG) { needsDB(d); d.Steps[0].AllowSkip = true }, "a")
	for _, granted := range []bool{true, false} {
		w.r = w.giving(g, true)
		run := w.start(d, "{}")
		run, _ = w.finish(run.RunID)
		g.takeBack()
		w.r = w.giving(g, true)
		_, err := w.r.Skip(w.opened(run, d), runner.Skip{Actor: "uid:7", Reason: "r", StepID: "a", Output: json.RawMessage(`{"v":"` + password + `"}`)})
		if (err != nil) != granted {
			t.Errorf("its attempt was given it: %v; the skip: %v", granted, err)
		}
	}
}

// People who decide are held to the same.
func TestNoModificationHoldsASecretOfTheStep(t *testing.T) {
	for _, what := range []string{"continue", "retry"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, says)
			w.withSecrets(true)
			d := gated(1, func(d *manifests.DAG) { d.Steps[1].Secrets = []string{"db"} })
			run := w.start(d, "{}")
			w.background()
			s := w.asked(run.RunID, "b")
			w.refuses(w.opened(run, d), false, func(w *world, o runner.Opened, text string) error {
				m := decision(s, "uid:7", what)
				m.Modifications = json.RawMessage(`{"v":"` + text + `"}`)
				_, err := w.r.Decide(o, m)
				return err
			})
		})
	}
}
