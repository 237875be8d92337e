package runner

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/stellarun/stella/manifests"
)

// program is the compiled expressions of a DAG, by step id.
type program struct {
	when      map[string]*expr
	with      map[string]*template
	forEach   map[string]*template
	questions map[string]*template
	outputs   *template

	dag    *manifests.DAG
	mu     sync.Mutex          // guards what follows
	upward map[string][]string // see before
}

// before are the steps that have ended where n begins, or the run, if n is nil.
func (p *program) before(n *node) []string {
	id := ""
	if n != nil {
		id = n.step.ID
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if list, ok := p.upward[id]; ok {
		return list
	}
	var list []string
	if n == nil {
		for i := range p.dag.Steps {
			list = append(list, p.dag.Steps[i].ID)
		}
	} else {
		list = sortedKeys(ancestors(p.dag, n.step))
	}
	if p.upward == nil {
		p.upward = map[string][]string{}
	}
	p.upward[id] = list
	return list
}

// compile compiles every expression of d and checks that each names only inputs
// that there are and steps that lie before it. All faults come at once.
func compile(d *manifests.DAG) (*program, manifests.Faults) {
	c := newCompiler(d)
	p := &program{
		dag: d, when: map[string]*expr{}, with: map[string]*template{}, forEach: map[string]*template{}, questions: map[string]*template{},
	}
	for _, s := range allSteps(d) {
		c.step(p, s)
	}
	from := len(c.faults)
	t, err := compileTemplate(anyMap(d.Outputs))
	if err != nil {
		c.add(0, "outputs", err.Error())
	} else {
		p.outputs = t
		c.check(nil, "outputs", t.named())
		c.noItem(nil, "outputs", t.named())
	}
	c.explain(from, nil, "outputs", anyMap(d.Outputs))
	return p, c.faults
}

// step compiles the expressions of one step.
func (c *compiler) step(p *program, s *manifests.Step) {
	key, from := "step "+s.ID+" ", len(c.faults)
	if s.When != "" {
		x, err := compileExpr(s.When)
		if err != nil {
			c.add(s.Line, key+"when", err.Error())
		} else {
			c.check(s, key+"when", x.names)
			c.noItem(s, key+"when", x.names)
			p.when[s.ID] = x
		}
		c.explain(from, s, "when", s.When)
	}
	for _, f := range []struct {
		key   string
		value any
		to    map[string]*template
		items bool // item and index mean something in it
	}{
		{"with", anyMap(s.With), p.with, s.ForEach != nil},
		{"for_each", s.ForEach, p.forEach, false},
		{"checkpoint.question", question(s), p.questions, false},
	} {
		if f.value == nil {
			continue
		}
		from = len(c.faults)
		t, err := compileTemplate(f.value)
		if err != nil {
			c.add(s.Line, key+f.key, err.Error())
		} else {
			named := t.named()
			c.check(s, key+f.key, named)
			if !f.items {
				c.noItem(s, key+f.key, named)
			}
			f.to[s.ID] = t
		}
		c.explain(from, s, f.key, f.value)
	}
}

// question is the question of a checkpoint that has something to evaluate. It may
// use the step itself, whose action is done by then.
func question(s *manifests.Step) any {
	if s.Checkpoint == nil || !strings.Contains(s.Checkpoint.Question, "${") {
		return nil
	}
	return s.Checkpoint.Question
}

func (c *compiler) noItem(s *manifests.Step, key string, n names) {
	line := 0
	if s != nil {
		line = s.Line
	}
	if n.item {
		c.add(line, key, "item and index mean something only in with, and only beside for_each")
	}
}

// runFields are the fields of the variable run.
func runFields() []string {
	return []string{"runId", "dagId", "dagVersion", "tenant", "createdUtc", "runToken"}
}

// A compiler checks what the expressions of a DAG name.
type compiler struct {
	dag    *manifests.DAG
	steps  map[string]bool // ids of all lists
	faults manifests.Faults
}

func newCompiler(d *manifests.DAG) *compiler {
	c := &compiler{dag: d, steps: map[string]bool{}}
	for _, s := range allSteps(d) {
		c.steps[s.ID] = true
	}
	return c
}

func (c *compiler) add(line int, key, text string) {
	c.faults = append(c.faults, manifests.Fault{File: "dag.toml", Line: line, Key: key, Text: text})
}

// check reports the names that step s, or the outputs if it is nil, cannot use.
func (c *compiler) check(s *manifests.Step, key string, n names) {
	line := 0
	if s != nil {
		line = s.Line
	}
	for _, name := range distinct(n.inputs) {
		if _, ok := c.dag.Inputs[name]; !ok {
			c.add(line, key, fmt.Sprintf("there is no input %q", name))
		}
	}
	for _, name := range distinct(n.run) {
		if !slices.Contains(runFields(), name) {
			c.add(line, key, fmt.Sprintf("run has no field %q; it has %s", name, strings.Join(runFields(), ", ")))
		}
	}
	var before map[string]bool
	for _, id := range distinct(n.steps) {
		if s != nil && (slices.Contains(s.Needs, id) || id == s.ID && strings.HasSuffix(key, "checkpoint.question")) {
			continue // no need to look further up
		}
		if before == nil {
			before = c.before(s)
		}
		switch {
		case before[id]:
		case !c.steps[id]:
			c.add(line, key, fmt.Sprintf("there is no step %q", id))
		case s == nil:
			c.add(line, key, fmt.Sprintf("it uses steps[%q], which is not one of [[step]]", id))
		default:
			c.add(line, key, fmt.Sprintf("it uses steps[%q], which is not among the steps it needs", id))
		}
	}
}

// before are the steps that have ended where s begins, or the run, if s is nil.
func (c *compiler) before(s *manifests.Step) map[string]bool {
	if s != nil {
		return ancestors(c.dag, s)
	}
	out := map[string]bool{}
	for i := range c.dag.Steps {
		out[c.dag.Steps[i].ID] = true
	}
	return out
}

// distinct sorts the names and leaves out repetitions.
func distinct(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

func anyMap(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// ancestors are the steps that s needs, directly or not. Cleanup steps may
// also name every ordinary step.
func ancestors(d *manifests.DAG, s *manifests.Step) map[string]bool {
	byID := map[string]*manifests.Step{}
	ordinary := false
	for _, t := range allSteps(d) {
		byID[t.ID] = t
	}
	out := map[string]bool{}
	for i := range d.Steps {
		ordinary = ordinary || d.Steps[i].ID == s.ID
	}
	if !ordinary {
		for i := range d.Steps {
			out[d.Steps[i].ID] = true
		}
	}
	todo := append([]string(nil), s.Needs...)
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if out[id] || byID[id] == nil {
			continue
		}
		out[id] = true
		todo = append(todo, byID[id].Needs...)
	}
	return out
}
