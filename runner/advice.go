package runner

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// Check reads a DAG spec and says everything that is wrong with it, by line: what
// the file says, what its expressions say, and what this version does not
// execute. What could be read comes along; it is nil if nothing could.
func Check(file string, raw []byte) (*manifests.DAG, manifests.Faults) {
	d, faults := manifests.CheckDAG(file, raw)
	if d == nil {
		return nil, faults
	}
	whole := *d
	if len(faults) > 0 {
		for _, list := range []*[]manifests.Step{&whole.Steps, &whole.OnFailure, &whole.OnCancel} {
			*list = slices.Clone(*list)
			for i := range *list {
				if s := &(*list)[i]; s.Plugin == nil && s.DAG == "" && s.Checkpoint == nil {
					s.Plugin = &manifests.Ref{} // what it runs could not be read; it is no gate
				}
			}
		}
	}
	said := len(faults)
	for _, f := range Validate(&whole) {
		f.File = file
		if !slices.ContainsFunc(faults[:said], func(x manifests.Fault) bool { return x.Line == f.Line && x.Text == f.Text }) {
			faults = append(faults, f)
		}
	}
	slices.SortStableFunc(faults, func(a, b manifests.Fault) int { return cmp.Compare(a.Line, b.Line) })
	return d, faults
}

// Advise says what in a valid spec does nothing, or never happens. None of it
// keeps the DAG from being published.
func Advise(file string, d *manifests.DAG) manifests.Faults {
	a := advice{file: file, dag: d, inputs: map[string]bool{}}
	for _, s := range allSteps(d) {
		a.step(s)
	}
	a.uses(anyMap(d.Outputs))
	for _, name := range sortedKeys(d.Inputs) {
		if !a.all && !a.inputs[name] {
			a.add(d.Lines[manifests.At("inputs", name)], manifests.At("inputs", name), "no expression uses it", "")
		}
	}
	slices.SortStableFunc(a.notes, func(x, y manifests.Fault) int { return cmp.Compare(x.Line, y.Line) })
	return a.notes
}

// advice collects what [Advise] says.
type advice struct {
	file   string
	dag    *manifests.DAG
	inputs map[string]bool // those that an expression names
	all    bool            // an expression uses the inputs as a whole
	notes  manifests.Faults
}

func (a *advice) add(line int, key, text, hint string) {
	a.notes = append(a.notes, manifests.Fault{File: a.file, Line: line, Key: key, Text: text, Hint: hint})
}

func (a *advice) step(s *manifests.Step) {
	key := "step " + s.ID + " "
	if s.When != "" {
		if a.expression(s.When) {
			a.constant(s, key+"when")
		}
	}
	a.uses(anyMap(s.With))
	a.uses(s.ForEach)
	if s.Checkpoint != nil {
		a.uses(s.Checkpoint.Question)
	}
	if list, ok := s.ForEach.([]any); ok && len(list) == 0 {
		a.add(s.Line, key+"for_each", "has no items: nothing runs", "")
	}
	if len(s.Retry.RetryOn) > 0 && s.Retry.MaxAttempts == 1 {
		a.add(s.Line, key+"retry.retry_on", "does nothing: there is one attempt", "set max_attempts")
	}
	for _, code := range s.Retry.RetryOn {
		if known := retryable(); !slices.Contains(known, code) {
			hint := ""
			if near := manifests.Nearest(code, known); near != "" {
				hint = "did you mean " + near + "?"
			}
			a.add(s.Line, key+"retry.retry_on", fmt.Sprintf("no attempt that may be retried ends with %q", code), hint)
		}
	}
}

// constant tells of a condition that names nothing what it always is.
func (a *advice) constant(s *manifests.Step, key string) {
	x, err := compileExpr(s.When)
	if err != nil {
		return // Validate has said so
	}
	line := s.Line
	if n, ok := s.Lines["when"]; ok {
		line = n
	}
	switch v, err := x.eval(context.Background(), Scope{}); {
	case err == nil && v == false:
		a.add(line, key, "is never true: the step never runs", "disabled = true says so")
	case err == nil && v == true:
		a.add(line, key, "is always true", "leave it out")
	}
}

// retryable is what the attempts end with that retry_on can choose from.
func retryable() []string {
	var out []string
	for _, c := range []state.Code{state.StepFailed, state.StepRetryable, state.StepCrashed, state.Timeout, state.Stalled} {
		out = append(out, string(c))
	}
	for _, o := range []state.Outcome{state.OutcomeFailed, state.Crashed, state.TimedOut} {
		out = append(out, string(o))
	}
	return out
}

// uses takes note of the inputs that the expressions in a value name.
func (a *advice) uses(value any) {
	switch v := value.(type) {
	case string:
		for {
			_, after, ok := strings.Cut(v, "${")
			if !ok {
				return
			}
			end, err := manifests.ExpressionEnd(after)
			if err != nil {
				return
			}
			a.expression(strings.TrimSpace(after[:end]))
			v = after[end+1:]
		}
	case []any:
		for _, e := range v {
			a.uses(e)
		}
	case map[string]any:
		for _, k := range sortedKeys(v) {
			a.uses(v[k])
		}
	}
}

// expression takes note of the inputs that one expression names, and says
// whether it names nothing at all.
func (a *advice) expression(text string) (constant bool) {
	env, err := exprEnv()
	if err != nil {
		return false
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return false
	}
	return a.names(parsed)
}

func (a *advice) names(parsed *cel.Ast) (constant bool) {
	whole, named, idents := 0, 0, 0
	isInputs := func(e ast.Expr) bool {
		return e.Kind() == ast.IdentKind && strings.TrimPrefix(e.AsIdent(), ".") == "inputs"
	}
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			idents++
			if isInputs(e) {
				whole++
			}
		case ast.SelectKind:
			if isInputs(e.AsSelect().Operand()) {
				a.inputs[e.AsSelect().FieldName()] = true
				named++
			}
		case ast.CallKind:
			c := e.AsCall()
			if c.FunctionName() == operators.Index && len(c.Args()) == 2 && isInputs(c.Args()[0]) && c.Args()[1].Kind() == ast.LiteralKind {
				if field, ok := c.Args()[1].AsLiteral().(types.String); ok {
					a.inputs[string(field)] = true
					named++
				}
			}
		}
	}))
	a.all = a.all || whole > named
	return idents == 0
}
