package runner_test

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/manifests"
)

// drawDAG draws a DAG of at most five steps, and of at most four that clean up. Only one
// with sub-runs can be the parent of others.
func drawDAG(t *rapid.T, id string, sub bool) *manifests.DAG {
	d := &manifests.DAG{ID: id, Version: "1.0.0", FailFast: rapid.Bool().Draw(t, "failFast")}
	d.MaxParallelSteps = rapid.IntRange(0, 3).Draw(t, "parallel")
	if rapid.IntRange(0, 2).Draw(t, "runTimeout") == 0 {
		d.Timeout = 30 * time.Minute
	}
	d.Steps = drawSteps(t, "a", rapid.IntRange(1, 5).Draw(t, "steps"), nil, sub)
	if rapid.Bool().Draw(t, "onFailure") {
		d.OnFailure = drawSteps(t, "m", rapid.IntRange(1, 4).Draw(t, "menders"), d.Steps, sub)
	}
	if rapid.Bool().Draw(t, "onCancel") {
		d.OnCancel = drawSteps(t, "t", rapid.IntRange(1, 3).Draw(t, "tidiers"), d.Steps, sub)
	}
	if rare(t, "outputs") {
		d.Outputs = map[string]any{"n": "${ steps." + d.Steps[0].ID + ".outputs.nothing }"}
	}
	return d
}

// drawSteps draws n steps, named by the alphabet from first on, that need some of one
// another. They may read what the others before give.
func drawSteps(t *rapid.T, first string, n int, before []manifests.Step, sub bool) []manifests.Step {
	var out []manifests.Step
	for i := range n {
		s := drawStep(t, string(rune(int(first[0])+i)), sub)
		for j := range i {
			if rapid.IntRange(0, 2).Draw(t, "needs") == 0 {
				s.Needs = append(s.Needs, out[j].ID)
			}
		}
		if from, ok := pick(append(slices.Clone(before), out...), rapid.IntRange(0, 9).Draw(t, "from")); ok && s.ForEach != nil && rapid.Bool().Draw(t, "listed") {
			s.ForEach = "${ steps." + from.ID + ".outputs.list }"
			if !slices.Contains(s.Needs, from.ID) && slices.ContainsFunc(out, func(x manifests.Step) bool { return x.ID == from.ID }) {
				s.Needs = append(s.Needs, from.ID)
			}
		}
		out = append(out, s)
	}
	return out
}

func rare(t *rapid.T, what string) bool { return rapid.IntRange(0, 4).Draw(t, what) == 0 }

func drawStep(t *rapid.T, id string, sub bool) manifests.Step {
	s := manifests.Step{
		ID: id, Idempotent: true, MaxInterruptions: rapid.IntRange(0, 3).Draw(t, "interruptions"),
		Retry: manifests.Retry{
			MaxAttempts: rapid.IntRange(1, 3).Draw(t, "maxAttempts"), MaxBackoff: time.Hour, Jitter: 0.2,
			Backoff: rapid.SampledFrom([]time.Duration{time.Millisecond, time.Minute}).Draw(t, "backoff"),
		},
		AllowSkip: rapid.Bool().Draw(t, "allowSkip"), ContinueOnError: rare(t, "continueOnError"), Disabled: rare(t, "disabled") && rare(t, "really"),
	}
	if rare(t, "when") {
		s.When = "1 == 2"
	}
	kind := rapid.SampledFrom([]string{"go", "go", "once", "each", "gate", "sub", "eachSub"}).Draw(t, "kind")
	if !sub && (kind == "sub" || kind == "eachSub") {
		kind = "go"
	}
	switch kind {
	case "go", "once", "each":
		s.Plugin, s.Action = &manifests.Ref{Publisher: "p", Name: "n", Version: "1.0.0"}, kind
		if kind == "each" {
			s.Action = rapid.SampledFrom([]string{"go", "once"}).Draw(t, "action")
		}
	case "sub", "eachSub":
		s.DAG = "child@1.0.0"
		if rare(t, "timeout") {
			s.Timeout = 20 * time.Minute
		}
	}
	if kind == "each" || kind == "eachSub" {
		s.ForEach = make([]any, rapid.IntRange(0, 3).Draw(t, "items"))
		for i := range s.ForEach.([]any) {
			s.ForEach.([]any)[i] = int64(i)
		}
		s.MaxParallel = rapid.IntRange(0, 2).Draw(t, "maxParallel")
	}
	if kind == "gate" || rare(t, "checkpoint") {
		s.Checkpoint = &manifests.Checkpoint{
			Question: "go on?", Quorum: rapid.IntRange(1, 2).Draw(t, "quorum"), Required: rare(t, "required"),
			ExcludeStarter: rare(t, "excludeStarter"), Expires: rapid.SampledFrom([]time.Duration{0, 0, 10 * time.Minute}).Draw(t, "expires"),
		}
	}
	if kind == "gate" {
		return s
	}
	if kind == "go" && rare(t, "cache") {
		s.Cache = &manifests.Cache{TTL: time.Hour}
	}
	level := "parent" // a sub-run that waited for what its parent holds would wait for ever
	if !sub {
		level = "child"
	}
	if rare(t, "lock") || s.DAG != "" && rapid.Bool().Draw(t, "lockOfSub") {
		s.Locks = []string{level}
	}
	if rare(t, "semaphore") {
		s.Semaphores = map[string]int64{level: int64(rapid.IntRange(1, 3).Draw(t, "weight"))}
	}
	return s
}

// sketch draws a DAG in a few lines.
func sketch(d *manifests.DAG) string {
	b := fmt.Sprintf("%s failFast=%v parallel=%d timeout=%s outputs=%v", d.ID, d.FailFast, d.MaxParallelSteps, d.Timeout, d.Outputs)
	for _, list := range []struct {
		name  string
		steps []manifests.Step
	}{{"", d.Steps}, {"on_failure ", d.OnFailure}, {"on_cancel ", d.OnCancel}} {
		for _, s := range list.steps {
			b += fmt.Sprintf("\n   %s%s: %s%s needs=%v each=%v/%d tries=%d/%s interruptions=%d", list.name, s.ID, s.Action, s.DAG, s.Needs, s.ForEach, s.MaxParallel,
				s.Retry.MaxAttempts, s.Retry.Backoff, s.MaxInterruptions)
			if s.Checkpoint != nil {
				b += fmt.Sprintf(" checkpoint=%+v", *s.Checkpoint)
			}
			b += fmt.Sprintf(" when=%q cache=%v locks=%v%v goOn=%v skip=%v disabled=%v", s.When, s.Cache != nil, s.Locks, s.Semaphores, s.ContinueOnError, s.AllowSkip, s.Disabled)
		}
	}
	return b
}
