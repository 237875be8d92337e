package runner

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/stellarun/stella/manifests"
)

// maxExplained bounds the faults of a spec that are told with their places: who
// has a thousand of them is not helped by the next.
const maxExplained = 1000

// maxIssues bounds what is said about one expression: the first faults lead to
// the others.
const maxIssues = 3

// An exprFault is one thing wrong in an expression, with its place there.
type exprFault struct {
	line, column int // from 1
	text, hint   string
}

// exprFaults is the error of an expression that does not compile.
type exprFaults []exprFault

func (f exprFaults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.place() + x.text
		if x.hint != "" {
			lines[i] += " (" + x.hint + ")"
		}
	}
	return strings.Join(lines, "; ")
}

func (f *exprFault) place() string {
	if f.line > 1 {
		return fmt.Sprintf("line %d, character %d: ", f.line, f.column)
	}
	return fmt.Sprintf("character %d: ", f.column)
}

// celFaults says in plain words what CEL says of an expression. Of a syntax
// error only the first is told: the parser has lost its way by then.
func celFaults(text string, issues *cel.Issues) exprFaults {
	var out exprFaults
	for _, e := range issues.Errors() {
		f := exprFault{line: e.Location.Line(), column: e.Location.Column() + 1}
		syntax, isSyntax := strings.CutPrefix(e.Message, "Syntax error: ")
		if isSyntax {
			f.text, f.hint = syntaxWords(syntax)
			if f.hint == "" && follows(text, f, "not") {
				f.hint = "write !"
			}
		} else {
			f.text, f.hint = checkWords(e.Message)
		}
		if out = append(out, f); isSyntax || len(out) == maxIssues {
			break
		}
	}
	return out
}

// follows says whether a word stands before the place of a fault.
func follows(text string, f exprFault, word string) bool {
	lines := strings.Split(text, "\n")
	if f.line < 1 || f.line > len(lines) {
		return false
	}
	before := []rune(lines[f.line-1])
	before = before[:min(max(f.column-1, 0), len(before))]
	words := strings.Fields(string(before))
	return len(words) > 0 && strings.EqualFold(words[len(words)-1], word)
}

// syntaxWords turns what the parser says into words.
func syntaxWords(m string) (text, hint string) {
	token, rest, _ := strings.Cut(m, "'")
	if i := strings.LastIndex(rest, "' expecting"); i >= 0 {
		rest = rest[:i]
	}
	rest = strings.TrimSuffix(rest, "'")
	switch {
	case strings.HasPrefix(token, "missing ") || strings.HasPrefix(m, "missing "):
		want, _, _ := strings.Cut(strings.TrimPrefix(m, "missing "), " at ")
		return strings.Trim(want, "'") + " is missing", ""
	case strings.Contains(m, "'<EOF>'"):
		if strings.HasSuffix(m, "expecting ':'") {
			return "the expression ends too early", "a condition has three parts: test ? then : else"
		}
		return "the expression ends too early", ""
	case strings.HasPrefix(m, "token recognition error"):
		switch {
		case strings.HasPrefix(rest, "="):
			return "= is no operator", "compare with =="
		case strings.HasPrefix(rest, "'"), strings.HasPrefix(rest, `"`):
			return "the text has no end", ""
		case strings.HasPrefix(rest, "&"), strings.HasPrefix(rest, "|"):
			return rest[:1] + " is no operator", "write " + strings.Repeat(rest[:1], 2)
		}
		return fmt.Sprintf("%q is not CEL", rest), ""
	case strings.HasPrefix(m, "mismatched input"), strings.HasPrefix(m, "extraneous input"):
		return fmt.Sprintf("%q does not belong here", rest), wordHint(rest)
	}
	return m, ""
}

// wordHint is for those who write another language.
func wordHint(word string) string {
	switch strings.ToLower(word) {
	case "and":
		return "write &&"
	case "or":
		return "write ||"
	case "is", "eq":
		return "compare with =="
	case ">":
		return "unequal is !="
	}
	return ""
}

// checkWords turns what the checker says into words.
func checkWords(m string) (text, hint string) {
	if rest, ok := strings.CutPrefix(m, "undeclared reference to '"); ok {
		name, rest, _ := strings.Cut(rest, "'")
		if _, near, ok := strings.Cut(rest, "did you mean '"); ok {
			near, _, _ = strings.Cut(near, "'")
			hint = "did you mean " + near + "?"
		}
		if name == "not" {
			hint = "write !"
		}
		return fmt.Sprintf("there is no variable or function %q", name), hint
	}
	if rest, ok := strings.CutPrefix(m, "found no matching overload for '"); ok {
		name, rest, _ := strings.Cut(rest, "'")
		_, args, _ := strings.Cut(rest, "applied to '")
		args = strings.TrimSuffix(args, "'")
		if op, ok := operators.FindReverse(name); ok && op != "" {
			name = op
		}
		return fmt.Sprintf("%s does not take %s", strings.Trim(name, "_"), args), typeHint(name, args)
	}
	return m, ""
}

func typeHint(name, args string) string {
	switch {
	case strings.Contains(args, "double") && strings.Contains(args, "int"):
		return "convert one of them: double(x), int(x)"
	case name == "+" && strings.Contains(args, "string"):
		return "make text of it: string(x)"
	}
	return ""
}

// explain replaces the faults of one field from the given one on: each at the
// line of its text and at its place in the expression, with the name that was
// meant, and not only the first of them. Where it finds none, they stay.
func (c *compiler) explain(from int, s *manifests.Step, field string, value any) {
	if len(c.faults) == from || from > maxExplained {
		return
	}
	before := append(manifests.Faults(nil), c.faults[from:]...)
	c.faults = c.faults[:from]
	c.walk(s, field, value)
	if len(c.faults) == from {
		c.faults = append(c.faults, before...)
	}
}

// walk judges every expression in a value.
func (c *compiler) walk(s *manifests.Step, path string, value any) {
	switch v := value.(type) {
	case string:
		c.text(s, path, v)
	case []any:
		for i, e := range v {
			c.walk(s, manifests.At(path, i), e)
		}
	case map[string]any:
		for _, k := range sortedKeys(v) {
			c.walk(s, manifests.At(path, k), v[k])
		}
	}
}

// text judges every expression in one text.
func (c *compiler) text(s *manifests.Step, path, v string) {
	if path == "when" {
		if strings.HasPrefix(strings.TrimSpace(v), "${") {
			c.add(c.lineOf(s, path), keyOf(s, path), "is CEL itself") // as parsing says
			return
		}
		c.expression(s, path, v, "")
		return
	}
	for {
		_, after, ok := strings.Cut(v, "${")
		if !ok {
			return
		}
		end, err := manifests.ExpressionEnd(after)
		if err != nil {
			c.add(c.lineOf(s, path), keyOf(s, path), err.Error())
			return
		}
		if text := strings.TrimSpace(after[:end]); text != "" {
			c.expression(s, path, text, "in ${ "+clipText(text)+" }, ")
		} else {
			c.add(c.lineOf(s, path), keyOf(s, path), "${ } is empty")
		}
		v = after[end+1:]
	}
}

func keyOf(s *manifests.Step, path string) string {
	if s == nil {
		return path
	}
	return "step " + s.ID + " " + path
}

// clipText bounds how much of an expression a message repeats.
func clipText(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 40 {
		return string(r[:39]) + "…"
	}
	return s
}

// expression judges one expression: what CEL says of it, and each name in it, in
// the order of their places.
func (c *compiler) expression(s *manifests.Step, path, text, where string) {
	key, line := keyOf(s, path), c.lineOf(s, path)
	_, err := compileExpr(text)
	var faults exprFaults
	if err != nil && !errors.As(err, &faults) {
		c.add(line, key, where+err.Error())
		return
	}
	for _, p := range placed(text) {
		from := len(c.faults)
		c.check(s, key, p.names)
		if s == nil || s.ForEach == nil || path != "with" && !strings.HasPrefix(path, "with.") {
			c.noItem(s, key, p.names)
		}
		for _, f := range c.faults[from:] {
			if p.at.text, p.at.hint = f.Text, f.Hint; p.at.hint == "" {
				p.at.hint = c.meant(s, p.names)
			}
			if !slices.ContainsFunc(faults, func(x exprFault) bool { return x.text == p.at.text }) { // its first place will do
				faults = append(faults, p.at)
			}
		}
		c.faults = c.faults[:from]
	}
	slices.SortStableFunc(faults, func(a, b exprFault) int { return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column)) })
	for _, f := range faults {
		c.faults = append(c.faults, manifests.Fault{File: "dag.toml", Line: line, Key: key, Text: where + f.place() + f.text, Hint: f.hint})
	}
}

func (c *compiler) lineOf(s *manifests.Step, path string) int {
	lines, line := c.dag.Lines, 0
	if s != nil {
		lines, line = s.Lines, s.Line
	}
	if n, ok := lines[path]; ok {
		return n
	}
	return line
}

// meant is the input, step or field whose name is like the one that is not
// there.
func (c *compiler) meant(s *manifests.Step, n names) string {
	switch {
	case len(n.inputs) > 0:
		return oneOfThem(n.inputs[0], "the inputs are ", sortedKeys(c.dag.Inputs))
	case len(n.run) > 0:
		if near := manifests.Nearest(n.run[0], runFields()); near != "" {
			return "did you mean " + near + "?"
		}
	case len(n.steps) > 0 && !c.steps[n.steps[0]]:
		return oneOfThem(n.steps[0], "it may use ", sortedKeys(c.before(s)))
	case len(n.steps) > 0 && s != nil && n.steps[0] != s.ID:
		return fmt.Sprintf("add %q to its needs", n.steps[0])
	}
	return ""
}

// oneOfThem says which of the known names was meant, or which there are.
func oneOfThem(name, there string, known []string) string {
	known = slices.DeleteFunc(known, func(s string) bool { return s == "" }) // of one whose id is none
	if near := manifests.Nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	if len(known) == 0 || len(known) > 12 {
		return ""
	}
	return there + strings.Join(known, ", ")
}

// A placedName is one name that an expression uses, with its place.
type placedName struct {
	names
	at exprFault
}

// placed finds the names of an expression that can be parsed, each with its
// place.
func placed(text string) []placedName {
	env, err := exprEnv()
	if err != nil {
		return nil
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil
	}
	tree := parsed.NativeRep()
	var out []placedName
	add := func(operand ast.Expr, field string, id int64) {
		if operand.Kind() != ast.IdentKind {
			return
		}
		var p placedName
		list := p.of(strings.TrimPrefix(operand.AsIdent(), "."))
		if list == nil {
			return
		}
		*list = []string{field}
		at := tree.SourceInfo().GetStartLocation(id)
		p.at.line, p.at.column = at.Line(), at.Column()+1
		out = append(out, p)
	}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if name := strings.TrimPrefix(e.AsIdent(), "."); name == "item" || name == "index" {
				at := tree.SourceInfo().GetStartLocation(e.ID())
				out = append(out, placedName{names{item: true}, exprFault{line: at.Line(), column: at.Column() + 1}})
			}
		case ast.SelectKind:
			add(e.AsSelect().Operand(), e.AsSelect().FieldName(), e.AsSelect().Operand().ID())
		case ast.CallKind:
			if call := e.AsCall(); call.FunctionName() == operators.Index && len(call.Args()) == 2 && call.Args()[1].Kind() == ast.LiteralKind {
				if field, ok := call.Args()[1].AsLiteral().(types.String); ok {
					add(call.Args()[0], string(field), call.Args()[0].ID())
				}
			}
		}
	}))
	return out
}
