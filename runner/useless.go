package runner

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/stellarun/stella/manifests"
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
		if s.Checkpoint != nil {
			c.undecidable(s)
		}
	}
	return c.faults
}

// notA is the type of what an expression gives, "" where that is the one that is wanted,
// or only known when it is evaluated.
func (c *compiler) notA(want string, x *expr) string {
	if name, ok := strings.CutPrefix(strings.TrimSpace(x.text), "inputs."); ok && len(x.names.inputs) == 1 && name == x.names.inputs[0] {
		if in, ok := c.dag.Inputs[name]; ok && in.Type != want {
			return fmt.Sprintf("the input %s, of type %s", name, in.Type)
		}
		return ""
	}
	known := map[cel.Kind]string{
		cel.BoolKind: "boolean", cel.IntKind: "integer", cel.UintKind: "integer", cel.DoubleKind: "number", cel.StringKind: "string", cel.BytesKind: "bytes",
		cel.ListKind: "array", cel.MapKind: "object", cel.NullTypeKind: "null", cel.TimestampKind: "timestamp", cel.DurationKind: "duration", cel.TypeKind: "type",
	}
	if got := known[x.kind]; got != "" && got != want {
		return "of type " + got
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
