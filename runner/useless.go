package runner

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// What is well-formed and yet cannot work is a fault where a DAG is validated, and only
// there: one that was published before goes on as it did.

// useless says what of a DAG, whose expressions compile, cannot do what it is for.
func useless(d *manifests.DAG, p *program) manifests.Faults {
	c := newCompiler(d)
	for _, s := range allSteps(d) {
		if x := p.when[s.ID]; x != nil {
			if got := c.notA("boolean", x); got != "" {
				c.add(c.lineOf(s, "when"), keyOf(s, "when"), "is "+got+", where a condition is true or false")
			}
		}
		if t := p.forEach[s.ID]; t != nil {
			if got := c.noList(t); got != "" {
				c.add(c.lineOf(s, "for_each"), keyOf(s, "for_each"), "is "+got+", where a list is wanted")
			}
		}
		c.values(s, "with", anyMap(s.With), p.with[s.ID])
		c.values(s, "for_each", s.ForEach, p.forEach[s.ID])
		c.values(s, "checkpoint.question", question(s), p.questions[s.ID])
		if s.Checkpoint != nil {
			c.undecidable(s)
		}
	}
	c.values(nil, "outputs", anyMap(d.Outputs), p.outputs)
	return c.faults
}

// values says which expressions in a value can give nothing that has a place there. That
// they fail would show after what comes before them is done.
func (c *compiler) values(s *manifests.Step, path string, value any, t *template) {
	if t == nil {
		return // it does not compile, which is said
	}
	switch v := value.(type) {
	case string:
		pieces := t.exprs[v]
		for _, p := range pieces {
			if p.expr == nil {
				continue
			}
			if text, hint := c.misplaced(p.expr, len(pieces) > 1); text != "" {
				c.faults = append(c.faults, manifests.Fault{
					File: "dag.toml", Line: c.lineOf(s, path), Key: keyOf(s, path), Text: "in ${ " + clipText(p.expr.text) + " }: " + text, Hint: hint,
				})
			}
		}
	case []any:
		for i, e := range v {
			c.values(s, manifests.At(path, i), e, t)
		}
	case map[string]any:
		for _, k := range sortedKeys(v) {
			c.values(s, manifests.At(path, k), v[k], t)
		}
	}
}

// misplaced says why what an expression gives cannot stand alone, or inside text.
func (c *compiler) misplaced(x *expr, inText bool) (text, hint string) {
	kind := kindName(x.kind)
	if in, ok := c.input(x); ok {
		if kind = in.Type; in.Secret {
			kind = "secret"
		}
	}
	switch kind {
	case "bytes", "timestamp", "duration":
		return "a value of type " + kind + " has no form in JSON", "make text of it: string(x)"
	case "type":
		return "a type is no value in JSON", ""
	case "secret":
		if inText {
			return "a secret cannot stand inside text, where only its reference would be", "give it by itself, as a value"
		}
	case "array", "object", "null":
		if inText {
			return "it is of type " + kind + ": only text, numbers and booleans can stand inside text", "size(x), or one of its values"
		}
	}
	return "", ""
}

// notA is the type of what an expression gives, "" where that is the one that is wanted,
// or only known when it is evaluated.
func (c *compiler) notA(want string, x *expr) string {
	if in, ok := c.input(x); ok {
		if in.Type != want && in.Type != "" { // else that is the fault
			return fmt.Sprintf("the input %s, of type %s", x.names.inputs[0], in.Type)
		}
		return ""
	}
	if got := kindName(x.kind); got != "" && got != want {
		return "of type " + got
	}
	return ""
}

// input is the input that an expression is, and is nothing else.
func (c *compiler) input(x *expr) (manifests.Input, bool) {
	name, ok := strings.CutPrefix(strings.TrimSpace(x.text), "inputs.")
	if !ok || len(x.names.inputs) != 1 || name != x.names.inputs[0] {
		return manifests.Input{}, false
	}
	in, ok := c.dag.Inputs[name]
	return in, ok
}

// kindName is what a kind is called in a spec, "" where it is not known before.
func kindName(k cel.Kind) string {
	switch k {
	case cel.BoolKind:
		return "boolean"
	case cel.IntKind, cel.UintKind:
		return "integer"
	case cel.DoubleKind:
		return "number"
	case cel.StringKind:
		return "string"
	case cel.BytesKind:
		return "bytes"
	case cel.ListKind:
		return "array"
	case cel.MapKind:
		return "object"
	case cel.NullTypeKind:
		return "null"
	case cel.TimestampKind:
		return "timestamp"
	case cel.DurationKind:
		return "duration"
	case cel.TypeKind:
		return "type"
	}
	return ""
}

// noList says what a for_each gives, "" where it may be a list.
func (c *compiler) noList(t *template) string {
	text, ok := t.value.(string)
	if !ok {
		return ""
	}
	pieces, ok := t.exprs[text]
	if !ok {
		return "" // the file has said so
	}
	if len(pieces) != 1 || pieces[0].expr == nil {
		return "text"
	}
	return c.notA("array", pieces[0].expr)
}

// undecidable says why a checkpoint cannot be passed.
func (c *compiler) undecidable(s *manifests.Step) {
	options, ways := s.Checkpoint.Options, 0
	for _, o := range options {
		if o.Decision != "abort" {
			ways++
		}
	}
	if len(options) > 0 && ways == 0 {
		c.add(s.Line, keyOf(s, "checkpoint.options"), "nobody can let it go on: all that is offered is abort")
	}
	people := map[string]bool{}
	for _, who := range s.Checkpoint.Approvers {
		people[state.Person(who)] = true
	}
	if n := len(people); n > 0 && s.Checkpoint.Quorum > n && s.Checkpoint.Quorum <= len(s.Checkpoint.Approvers) { // otherwise the file has said so
		one := "1 person"
		if n > 1 {
			one = fmt.Sprintf("%d people", n)
		}
		c.faults = append(c.faults, manifests.Fault{
			File: "dag.toml", Line: c.lineOf(s, "checkpoint.quorum"), Key: keyOf(s, "checkpoint.quorum"),
			Text: fmt.Sprintf("is %d, and the approvers are %s: %s", s.Checkpoint.Quorum, one, strings.Join(sortedKeys(people), ", ")),
			Hint: "uid:N and uid:N(name) are one person, who decides once",
		})
	}
	for _, who := range s.Checkpoint.Approvers {
		if !principal(who) {
			c.faults = append(c.faults, manifests.Fault{
				File: "dag.toml", Line: s.Line, Key: keyOf(s, "checkpoint.approvers"), Text: fmt.Sprintf("%q names nobody: nobody is called so where decisions are recorded", who),
				Hint: "uid:N, uid:N(name), token:ID or cert:SAN",
			})
		}
	}
}

// principal says whether a text has the form of somebody who can decide.
func principal(who string) bool {
	kind, rest, _ := strings.Cut(who, ":")
	switch kind {
	case "uid":
		n, name, named := strings.Cut(rest, "(")
		return n != "" && strings.Trim(n, "0123456789") == "" && (!named || len(name) > 1 && strings.HasSuffix(name, ")"))
	case "token", "cert":
		return rest != ""
	}
	return false
}
