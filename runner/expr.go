package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/stellarun/stella/manifests"
)

// Limits of one expression (THREATS 24).
const (
	maxExprBytes = 4096
	maxExprCost  = 1 << 20
	maxExprDepth = 32
)

// Scope is what expressions see. Values are of the JSON kinds: nil, bool,
// int64, float64, string, []any, map[string]any.
type Scope struct {
	Inputs map[string]any
	Steps  map[string]any // step id → {"status","outputs","artifacts"}
	Run    map[string]any
}

// exprEnv is made at the first expression: building it costs a millisecond
// that most commands need not pay.
var exprEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("inputs", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("steps", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("run", cel.MapType(cel.StringType, cel.DynType)),
		cel.ParserExpressionSizeLimit(maxExprBytes),
		cel.ParserRecursionLimit(maxExprDepth),
	)
})

// expr is a compiled expression.
type expr struct {
	text    string
	program cel.Program
	steps   []string // the step ids that it names
}

func compileExpr(text string) (*expr, error) {
	env, err := exprEnv()
	if err != nil {
		return nil, fmt.Errorf("runner: CEL: %w", err)
	}
	if len(text) > maxExprBytes {
		return nil, fmt.Errorf("expression of %d bytes; at most %d", len(text), maxExprBytes)
	}
	checked, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, errors.New(strings.TrimPrefix(issues.Errors()[0].Message, "undeclared reference"))
	}
	prg, err := env.Program(checked, cel.CostLimit(maxExprCost), cel.InterruptCheckFrequency(128))
	if err != nil {
		return nil, err
	}
	return &expr{text, prg, namedSteps(checked.NativeRep())}, nil
}

// namedSteps finds steps.ID and steps["ID"] in an expression.
func namedSteps(a *ast.AST) []string {
	var out []string
	isSteps := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "steps" }
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			if s := e.AsSelect(); isSteps(s.Operand()) {
				out = append(out, s.FieldName())
			}
		case ast.CallKind:
			c := e.AsCall()
			if c.FunctionName() == "_[_]" && len(c.Args()) == 2 && isSteps(c.Args()[0]) && c.Args()[1].Kind() == ast.LiteralKind {
				if id, ok := c.Args()[1].AsLiteral().(types.String); ok {
					out = append(out, string(id))
				}
			}
		}
	}))
	return out
}

func (x *expr) eval(ctx context.Context, s Scope) (any, error) {
	out, _, err := x.program.ContextEval(ctx, map[string]any{"inputs": s.Inputs, "steps": s.Steps, "run": s.Run})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", x.text, err)
	}
	v, err := plain(out, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", x.text, err)
	}
	return v, nil
}

// plain turns a CEL value into one of the JSON kinds.
func plain(v ref.Val, depth int) (any, error) {
	if depth > maxExprDepth {
		return nil, errors.New("the value is nested too deeply")
	}
	switch x := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(x), nil
	case types.Int:
		return int64(x), nil
	case types.Uint:
		return int64(x), nil
	case types.Double:
		return float64(x), nil
	case types.String:
		return string(x), nil
	case traits.Mapper:
		out := map[string]any{}
		for it := x.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			name, ok := k.(types.String)
			if !ok {
				return nil, errors.New("a map key is not a string")
			}
			e, err := plain(x.Get(k), depth+1)
			if err != nil {
				return nil, err
			}
			out[string(name)] = e
		}
		return out, nil
	case traits.Lister:
		var out []any
		for it := x.Iterator(); it.HasNext() == types.True; {
			e, err := plain(it.Next(), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		if out == nil {
			out = []any{}
		}
		return out, nil
	}
	return nil, fmt.Errorf("a value of type %s cannot be used here", v.Type().TypeName())
}

// template is a value with ${ CEL } in its strings, compiled. It is evaluated
// in a single pass: what an expression gives is never looked at again.
type template struct {
	value any                // as in the file
	exprs map[string][]piece // by string
}

type piece struct {
	text string // literal, or
	expr *expr
}

func compileTemplate(value any) (*template, error) {
	t := &template{value: value, exprs: map[string][]piece{}}
	return t, t.compile(value)
}

func (t *template) compile(v any) error {
	switch x := v.(type) {
	case string:
		if _, ok := t.exprs[x]; ok || !strings.Contains(x, "${") {
			return nil
		}
		pieces, err := splitTemplate(x)
		if err != nil {
			return err
		}
		t.exprs[x] = pieces
	case []any:
		for _, e := range x {
			if err := t.compile(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, k := range sortedKeys(x) {
			if err := t.compile(x[k]); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
	}
	return nil
}

// splitTemplate cuts text into literals and expressions.
func splitTemplate(text string) ([]piece, error) {
	var out []piece
	rest := text
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			if rest != "" {
				out = append(out, piece{text: rest})
			}
			return out, nil
		}
		if i > 0 {
			out = append(out, piece{text: rest[:i]})
		}
		rest = rest[i+2:]
		end, err := manifests.ExpressionEnd(rest)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		x, err := compileExpr(strings.TrimSpace(rest[:end]))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		out = append(out, piece{expr: x})
		rest = rest[end+1:]
	}
}

// named lists the steps that the template's expressions name.
func (t *template) named() []string {
	var out []string
	for _, text := range sortedKeys(t.exprs) {
		for _, p := range t.exprs[text] {
			if p.expr != nil {
				out = append(out, p.expr.steps...)
			}
		}
	}
	return out
}

func (t *template) eval(ctx context.Context, s Scope) (any, error) { return t.resolve(ctx, t.value, s) }

func (t *template) resolve(ctx context.Context, v any, s Scope) (any, error) {
	switch x := v.(type) {
	case string:
		pieces, ok := t.exprs[x]
		if !ok {
			return x, nil
		}
		return evalPieces(ctx, pieces, s)
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			var err error
			if out[i], err = t.resolve(ctx, e, s); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			var err error
			if out[k], err = t.resolve(ctx, e, s); err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
		}
		return out, nil
	}
	return v, nil
}

// evalPieces gives the value of a lone expression as it is, and otherwise the
// text of all pieces.
func evalPieces(ctx context.Context, pieces []piece, s Scope) (any, error) {
	if len(pieces) == 1 && pieces[0].expr != nil {
		return pieces[0].expr.eval(ctx, s)
	}
	var b strings.Builder
	for _, p := range pieces {
		if p.expr == nil {
			b.WriteString(p.text)
			continue
		}
		v, err := p.expr.eval(ctx, s)
		if err != nil {
			return nil, err
		}
		text, err := scalarText(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.expr.text, err)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func scalarText(v any) (string, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case bool:
		return strconv.FormatBool(x), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case float64:
		raw, err := json.Marshal(x)
		return string(raw), err
	}
	return "", errors.New("only text, numbers and booleans can stand inside text")
}

// decodeJSON reads JSON into the kinds that expressions use.
func decodeJSON(raw []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch x := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(string(x), 10, 64); err == nil {
			return n
		}
		f, _ := x.Float64() // the text is a JSON number
		return f
	case []any:
		for i := range x {
			x[i] = numbers(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = numbers(x[k])
		}
	}
	return v
}

// program is the compiled expressions of a DAG.
type program struct {
	when    map[string]*expr
	with    map[string]*template
	outputs *template
}

// compile compiles every expression of d and checks that each names only steps
// that lie before it. All faults come at once.
func compile(d *manifests.DAG) (*program, manifests.Faults) {
	p := &program{when: map[string]*expr{}, with: map[string]*template{}}
	var faults manifests.Faults
	add := func(line int, key string, err error) {
		faults = append(faults, manifests.Fault{File: "dag.toml", Line: line, Key: key, Text: err.Error()})
	}
	for _, s := range allSteps(d) {
		var before map[string]bool
		check := func(key string, names []string) {
			if len(names) > 0 && before == nil {
				before = ancestors(d, s)
			}
			for _, n := range names {
				if !before[n] {
					add(s.Line, "step "+s.ID+" "+key, fmt.Errorf("it uses steps[%q], which is not among the steps it needs", n))
				}
			}
		}
		if s.When != "" {
			x, err := compileExpr(s.When)
			if err != nil {
				add(s.Line, "step "+s.ID+" when", err)
			} else {
				check("when", x.steps)
				p.when[s.ID] = x
			}
		}
		t, err := compileTemplate(anyMap(s.With))
		if err != nil {
			add(s.Line, "step "+s.ID+" with", err)
			continue
		}
		check("with", t.named())
		p.with[s.ID] = t
	}
	t, err := compileTemplate(anyMap(d.Outputs))
	if err != nil {
		add(0, "outputs", err)
		return p, faults
	}
	p.outputs = t
	known := map[string]bool{}
	for i := range d.Steps {
		known[d.Steps[i].ID] = true
	}
	for _, n := range t.named() {
		if !known[n] {
			add(0, "outputs", fmt.Errorf("there is no step %q", n))
		}
	}
	return p, faults
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
