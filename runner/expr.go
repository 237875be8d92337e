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
	"cel.dev/cel-go/common/operators"
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
	Item   any   // of a step with for_each
	Index  int64 // its number, from 0
}

// exprEnv is made at the first expression: building it costs a millisecond
// that most commands need not pay.
var exprEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewCustomEnv(append(library(),
		cel.Variable("inputs", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("steps", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("run", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("item", cel.DynType),
		cel.Variable("index", cel.IntType),
		cel.ParserExpressionSizeLimit(maxExprBytes),
		cel.ParserRecursionLimit(maxExprDepth),
	)...)
})

// expr is a compiled expression.
type expr struct {
	text    string
	program cel.Program
	names   names
	kind    cel.Kind // of what it gives, as far as that is known before
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
		return nil, celFaults(text, issues)
	}
	prg, err := env.Program(checked, cel.CostLimit(maxExprCost), cel.InterruptCheckFrequency(128))
	if err != nil {
		return nil, err
	}
	named, err := namesOf(checked.NativeRep())
	if err != nil {
		return nil, err
	}
	return &expr{text, prg, named, checked.OutputType().Kind()}, nil
}

// names are the fields of the three variables that an expression names.
type names struct {
	inputs, steps, run []string
	whole              bool // steps is used otherwise than by steps.ID and steps["ID"]
	item               bool // item or index is used
}

func (n *names) add(of names) {
	n.inputs = append(n.inputs, of.inputs...)
	n.steps = append(n.steps, of.steps...)
	n.run = append(n.run, of.run...)
	n.whole, n.item = n.whole || of.whole, n.item || of.item
}

// anyStep says whether what a step gives is used.
func (n names) anyStep() bool { return n.whole || len(n.steps) > 0 }

// of is the list of one variable, nil where there is none of that name.
func (n *names) of(variable string) *[]string {
	switch variable {
	case "inputs":
		return &n.inputs
	case "steps":
		return &n.steps
	case "run":
		return &n.run
	}
	return nil
}

// namesOf finds what an expression names as steps.ID and steps["ID"], and so for
// inputs and run. No variable of a macro may have one of these three names: the
// same text would mean something else inside it.
func namesOf(a *ast.AST) (n names, err error) {
	add := func(operand ast.Expr, field string) {
		if operand.Kind() == ast.IdentKind {
			if list := n.of(strings.TrimPrefix(operand.AsIdent(), ".")); list != nil {
				*list = append(*list, field)
			}
		}
	}
	all := 0 // uses of steps, named or not
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			switch strings.TrimPrefix(e.AsIdent(), ".") {
			case "steps":
				all++
			case "item", "index":
				n.item = true
			}
		case ast.SelectKind:
			add(e.AsSelect().Operand(), e.AsSelect().FieldName())
		case ast.CallKind:
			c := e.AsCall()
			if c.FunctionName() == operators.Index && len(c.Args()) == 2 && c.Args()[1].Kind() == ast.LiteralKind {
				if field, ok := c.Args()[1].AsLiteral().(types.String); ok {
					add(c.Args()[0], string(field))
				}
			}
		case ast.ComprehensionKind:
			for _, v := range []string{e.AsComprehension().IterVar(), e.AsComprehension().IterVar2()} {
				if n.of(v) != nil || v == "item" || v == "index" {
					err = fmt.Errorf("%q cannot be the name of a variable here", v)
				}
			}
		}
	}))
	n.whole = all > len(n.steps)
	return n, err
}

func (x *expr) eval(ctx context.Context, s Scope) (any, error) {
	out, _, err := x.program.ContextEval(ctx, map[string]any{
		"inputs": s.Inputs, "steps": s.Steps, "run": s.Run, "item": s.Item, "index": s.Index,
	})
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
		return positiveZero(float64(x)), nil
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

// named is what the template's expressions name.
func (t *template) named() names {
	var out names
	for _, text := range sortedKeys(t.exprs) {
		for _, p := range t.exprs[text] {
			if p.expr != nil {
				out.add(p.expr.names)
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

// asText is any value as text: what cannot stand inside text, as JSON.
func asText(v any) string {
	text, err := scalarText(v)
	if err != nil {
		raw, _ := json.Marshal(v) // of the JSON kinds
		return string(raw)
	}
	return text
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
