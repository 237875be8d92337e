package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	maxWorkers  = 10000          // of anything that runs side by side
	maxCacheTTL = 24 * time.Hour // CONTRACT section 10
	cacheTTL    = 600 * time.Second
)

// ParseDAG reads a DAG spec. It checks all that needs nothing but the file;
// what the expressions inside ${ } say is for the runner to check, only that
// each has its end is checked here. Its error is [Faults].
func ParseDAG(file string, raw []byte) (*DAG, error) {
	d, faults := CheckDAG(file, raw)
	if len(faults) > 0 {
		return nil, faults
	}
	return d, nil
}

// CheckDAG is [ParseDAG] for those who have more to report: with the faults
// comes what could be read of the spec, where zero values stand for what is
// wrong. It is nil if nothing could.
func CheckDAG(file string, raw []byte) (*DAG, Faults) { return checkDAG(file, raw, false) }

// ParsePublishedDAG is [ParseDAG] for a spec that was published, by whatever version:
// keys that do nothing, and that older versions took, are left out of account.
func ParsePublishedDAG(file string, raw []byte) (*DAG, error) {
	d, faults := checkDAG(file, raw, true)
	if len(faults) > 0 {
		return nil, faults
	}
	return d, nil
}

func checkDAG(file string, raw []byte, published bool) (*DAG, Faults) {
	r := &report{file: file}
	t := open(r, raw, DAGSchema, MaxBytes)
	if t == nil {
		return nil, r.sorted()
	}
	t.need("dag_id", "version")
	d := &DAG{
		ID:          t.text("dag_id", isName()),
		Version:     t.text("version", isVersion()),
		Description: t.text("description", isProse()),
		Inputs:      inputs(t),
		FailFast:    t.boolean("fail_fast", true),
		Outputs:     t.fields("outputs", isField()),
	}
	if l := t.sub("limits"); l != nil {
		d.MaxParallelSteps = int(l.integer("max_parallel_steps", 0, 1, maxWorkers))
		d.Timeout = l.duration("timeout", 0, maxDuration)
		l.done()
	}
	if n := t.node.kids["outputs"]; n != nil && d.Outputs != nil {
		t.templates(d.Outputs, n)
		t.secrets(d.Outputs, n, false)
		d.Lines = expressionLines(d.Lines, "outputs", d.Outputs, n)
	}
	d.Lines = inputLines(d.Lines, d.Inputs, t)
	c := dagCheck{table: t, first: map[string]int{}}
	lists := []struct {
		key   string
		steps *[]Step
		rows  []*table
	}{{key: "step", steps: &d.Steps}, {key: "on_failure", steps: &d.OnFailure}, {key: "on_cancel", steps: &d.OnCancel}}
	for i := range lists {
		l := &lists[i]
		*l.steps, l.rows = c.steps(l.key, d)
	}
	for _, l := range lists {
		c.needs(l.key, l.rows, *l.steps)
	}
	if list, ok := t.values["step"].([]any); ok && len(list) == 0 || !t.has("step") {
		t.fault("step", "is missing", "a DAG has at least one [[step]]")
	}
	t.done()
	if !published {
		r.faults = append(r.faults, r.idle...)
	}
	return d, r.sorted()
}

// dagCheck is what the steps of a spec have in common.
type dagCheck struct {
	*table
	first map[string]int // id → line of the first step that has it
}

// steps reads one list of steps, nil when there are none.
func (c *dagCheck) steps(key string, d *DAG) ([]Step, []*table) {
	rows := c.list(key)
	if len(rows) == 0 {
		return nil, nil
	}
	steps := make([]Step, len(rows))
	for i, row := range rows {
		steps[i] = step(row)
		s := &steps[i]
		if s.ID != "" {
			if line, ok := c.first[s.ID]; ok {
				row.fault("id", s.ID+" is the id of two steps", lineHint(line))
			} else {
				c.first[s.ID] = row.node.kids["id"].line
			}
		}
		if s.DAG != "" && s.DAG == d.ID+"@"+d.Version {
			row.fault("dag", "is this DAG itself", "a run that starts itself never ends")
		}
	}
	return steps, rows
}

// step reads one step.
func step(t *table) Step {
	defer t.done()
	t.need("id")
	s := Step{
		Line:             t.node.line,
		ID:               t.text("id", isStepID()),
		Action:           t.text("action", isStepID()),
		DAG:              t.text("dag", rule{validDAGRef, "id@version"}),
		Needs:            t.texts("needs", isStepID()),
		With:             t.fields("with", isLine(maxKeyPart)),
		When:             t.text("when", rule{func(s string) bool { return strings.TrimSpace(s) != "" && prose(s) }, "CEL"}),
		MaxParallel:      int(t.integer("max_parallel", 0, 1, maxWorkers)),
		Timeout:          t.duration("timeout", 0, maxDuration),
		Retry:            retry(t),
		MaxInterruptions: int(t.integer("max_interruptions", 3, 0, 1000)),
		Secrets:          t.texts("secrets", isName()),
		Locks:            t.texts("locks", isName()),
		Semaphores:       semaphores(t),
		Priority:         t.integer("priority", 0, -1e6, 1e6),
		ContinueOnError:  t.boolean("continue_on_error", false),
		AllowSkip:        t.boolean("allow_skip", false),
		Disabled:         t.boolean("disabled", false),
		Idempotent:       t.boolean("idempotent", true),
		Require:          t.texts("require", isStepID()),
	}
	s.Plugin = pluginRef(t)
	s.Data = refs(t, "data")
	s.ForEach = forEach(t)
	s.Cache = cache(t)
	s.Checkpoint = checkpoint(t)
	s.Lines = stepLines(t, &s)
	stepShape(t)
	if strings.HasPrefix(strings.TrimSpace(s.When), "${") {
		t.fault("when", "is CEL itself", "write it without ${ }")
	}
	if n := t.node.kids["with"]; n != nil && s.With != nil {
		t.templates(s.With, n)
		t.secrets(s.With, n, false)
	}
	return s
}

// stepShape checks that a step is one of the three things it can be, and has no
// key that would do nothing.
func stepShape(t *table) {
	runs := t.has("plugin") || t.has("dag")
	switch {
	case t.has("plugin") && t.has("dag"):
		t.fault("dag", "stands beside plugin", "a step runs a plugin's action or a DAG, not both")
	case t.has("plugin") && !t.has("action"):
		t.fault("action", "is missing", "a plugin runs one of its actions")
	case !t.has("plugin") && t.has("action"):
		t.fault("action", "stands without plugin", `add plugin = "publisher/name@version"`)
	case !runs && !t.has("checkpoint"):
		t.fault("id", "the step does nothing", "want plugin with action, or dag, or checkpoint")
	}
	if !runs && !t.has("action") && t.has("checkpoint") {
		for _, key := range []string{"with", "for_each", "max_parallel", "data", "retry", "cache", "secrets", "require", "max_interruptions"} {
			if t.has(key) {
				t.fault(key, "does nothing here", "an approval gate runs nothing")
			}
		}
	}
	switch gate := !runs && !t.has("action") && t.has("checkpoint"); {
	case gate:
		t.idle("an approval gate runs nothing, and holds nothing while it waits", "locks", "semaphores", "priority", "idempotent")
		t.idle("expires of the checkpoint is until when people may decide", "timeout")
	case t.has("dag") && !t.has("plugin"):
		t.idle("the steps of the sub-run have their own", "cache", "data", "idempotent", "max_interruptions")
	}
	if t.has("dag") && t.has("secrets") {
		t.fault("secrets", "does nothing here", "the steps of the sub-run name theirs")
	}
	if t.has("max_parallel") && !t.has("for_each") {
		t.fault("max_parallel", "does nothing without for_each", "")
	}
	if t.has("cache") && t.has("secrets") {
		t.fault("cache", "stands beside secrets", "what secrets made is never cached")
	}
}

// idle reports keys that do nothing here, and that older versions took.
func (t *table) idle(hint string, keys ...string) {
	for _, key := range keys {
		if kid := t.node.kids[key]; kid != nil && t.has(key) && len(t.report.faults)+len(t.report.idle) < maxFaults {
			t.report.idle = append(t.report.idle, Fault{File: t.report.file, Line: kid.line, Key: t.path(key), Text: "does nothing here", Hint: hint})
		}
	}
}

func validDAGRef(s string) bool {
	id, version, ok := strings.Cut(s, "@")
	return ok && ValidName(id) && ValidVersion(version)
}

func validRef(s string) bool {
	_, err := ParseRef(s)
	return err == nil
}

func pluginRef(t *table) *Ref {
	s := t.text("plugin", rule{validRef, refRule})
	if s == "" {
		return nil
	}
	r, _ := ParseRef(s) // the rule has parsed it
	return &r
}

func refs(t *table, key string) []Ref {
	var all []Ref
	for _, s := range t.texts(key, rule{validRef, refRule}) {
		r, _ := ParseRef(s) // the rule has parsed it
		all = append(all, r)
	}
	return all
}

func forEach(t *table) any {
	v := t.free("for_each")
	n := t.node.kids["for_each"]
	switch v := v.(type) {
	case nil:
	case string:
		if !strings.Contains(v, "${") {
			t.fault("for_each", "want a list, or a string with ${ CEL } that gives one", "")
		}
		t.templates(v, n)
	case []any:
		t.templates(v, n)
		t.secrets(v, n, false)
	default:
		t.fault("for_each", "want a list or a string, found "+found(v), "")
	}
	return v
}

// defaultRetry is the rule of a step that has none: one attempt.
func defaultRetry() Retry {
	return Retry{MaxAttempts: 1, Backoff: time.Second, MaxBackoff: 5 * time.Minute, Jitter: 0.2}
}

func retry(t *table) Retry {
	r := defaultRetry()
	s := t.sub("retry")
	if s == nil {
		return r
	}
	defer s.done()
	r.MaxAttempts = int(s.integer("max_attempts", 1, 1, 1000))
	r.Backoff = s.duration("backoff", r.Backoff, maxDuration)
	r.MaxBackoff = s.duration("max_backoff", r.MaxBackoff, maxDuration)
	r.Jitter = s.fraction("jitter", r.Jitter, func(f float64) bool { return f >= 0 && f <= 1 }, "0 to 1")
	r.RetryOn = s.texts("retry_on", rule{validCode, "an error code or outcome, such as STEP_FAILED or timed_out"})
	if r.Backoff > r.MaxBackoff {
		s.fault("backoff", formatDuration(r.Backoff)+" is above max_backoff, "+formatDuration(r.MaxBackoff), "")
	}
	return r
}

func validCode(s string) bool {
	return s != "" && len(s) <= 64 && only(s, func(c byte) bool { return isBareChar(c) || c == '.' })
}

func cache(t *table) *Cache {
	s := t.sub("cache")
	if s == nil {
		return nil
	}
	defer s.done()
	return &Cache{TTL: s.duration("ttl", cacheTTL, maxCacheTTL)}
}

func semaphores(t *table) map[string]int64 {
	s := t.sub("semaphores")
	if s == nil || len(s.values) == 0 {
		return nil
	}
	all := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		all[name] = s.integer(name, 1, 1, 1e6)
		if !ValidName(name) {
			s.fault(name, "the name is not allowed", "want "+nameRule)
		}
	}
	return all
}

func checkpoint(t *table) *Checkpoint {
	s := t.sub("checkpoint")
	if s == nil {
		return nil
	}
	defer s.done()
	s.need("question")
	c := &Checkpoint{
		Question:       s.text("question", isProse()),
		Required:       s.boolean("required", false),
		Approvers:      s.texts("approvers", isLine(256)),
		Quorum:         int(s.integer("quorum", 1, 1, 1000)),
		ExcludeStarter: s.boolean("exclude_starter", false),
		Expires:        s.duration("expires", 0, maxDuration),
	}
	if n := s.node.kids["question"]; n != nil {
		s.templates(c.Question, n)
	}
	labels := map[string]int{}
	for _, o := range s.list("options") {
		o.need("label", "decision")
		c.Options = append(c.Options, Option{
			Label:    o.text("label", isLine(128)),
			Decision: o.text("decision", rule{validDecision, "continue, retry or abort"}),
		})
		o.done()
		label := c.Options[len(c.Options)-1].Label
		if line, ok := labels[label]; ok && label != "" {
			o.fault("label", show(label)+" stands on two options", lineHint(line))
		}
		labels[label] = o.node.line
	}
	if n := len(c.Approvers); n > 0 && c.Quorum > n {
		s.fault("quorum", fmt.Sprintf("%d of %d approvers can never agree", c.Quorum, n), "")
	}
	return c
}

func validDecision(s string) bool { return s == "continue" || s == "retry" || s == "abort" }
