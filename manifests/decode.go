package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// open reads a file of the language that schema names and returns its top
// table. It returns nil when there is no use in looking at single keys: the
// report then says why.
func open(r *report, raw []byte, schema string, most int) *table {
	tree, text := scan(r, raw, most)
	if tree == nil {
		return nil
	}
	if ours := firstLine(r, raw, schema); !ours || text == nil {
		return nil
	}
	values, err := decode(text)
	if err != nil {
		r.add(err.Line, err.Key, err.Text, err.Hint)
		return nil
	}
	if !agree(tree, values) {
		r.add(0, "", "the scan and the parser read this file differently", "write it in a plainer way: no dotted keys, one header a table")
		return nil
	}
	t := &table{report: r, node: tree, values: values}
	t.mark("schema")
	return t
}

// firstLine checks the schema line. It returns false when the file is of
// another language, so that its keys would only be nonsense.
func firstLine(r *report, raw []byte, schema string) bool {
	raw = bytes.TrimPrefix(raw, []byte(byteOrderMark)) // the scan has reported it
	want := "schema = \"" + schema + "\""
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	if string(line) == want && len(line) < len(raw) {
		return true
	}
	fault := func(hint string) { r.add(1, "schema", "the first line must be exactly "+want+" and a line feed", hint) }
	got := string(bytes.TrimRight(line, "\r"))
	if got == want {
		fault("lines of this file do not end with a line feed alone")
		return true
	}
	name, value, ok := strings.Cut(got, "=")
	value, _, _ = strings.Cut(value, "#")
	value = strings.Trim(value, " \t\"'")
	if !ok || strings.TrimSpace(name) != "schema" {
		fault("put it before any comment or empty line")
		return true
	}
	if value == schema {
		fault("one space on each side of the =, nothing behind it")
		return true
	}
	language, _, _ := strings.Cut(schema, "/")
	if strings.HasPrefix(value, language+"/") {
		fault("this file is of another version of the language; this stella reads " + schema)
	} else {
		fault("this file is of another kind: " + show(value))
	}
	return false
}

// decode runs the TOML parser over bytes that the scan has passed.
func decode(raw []byte) (values map[string]any, fault *Fault) {
	// The parser panics where it finds itself inconsistent. We know of no input
	// that makes it; a file from outside must not be the one that shows us.
	defer func() {
		if p := recover(); p != nil {
			values, fault = nil, &Fault{Text: "the TOML parser failed: " + show(fmt.Sprint(p))}
		}
	}()
	var v any
	_, err := toml.Decode(string(raw), &v)
	var syntax toml.ParseError
	switch {
	case errors.As(err, &syntax):
		return nil, &Fault{Line: syntax.Position.Line, Text: prosaic(syntax.Message)}
	case err != nil:
		return nil, &Fault{Text: prosaic(err.Error())}
	}
	values, ok := v.(map[string]any)
	if !ok {
		return nil, &Fault{Text: "the file is not a table"}
	}
	return values, nil
}

// prosaic makes a foreign message fit for ours: one line without hidden
// characters, not endless.
func prosaic(s string) string {
	if len(s) <= 256 && plain(s) {
		return s
	}
	return show(s)
}

// agree tells whether the parser found exactly the keys, lists and tables that
// the scan found. Its depth is bounded by the limits of the scan.
func agree(n *node, value any) bool {
	switch v := value.(type) {
	case map[string]any:
		if n.kind != tableNode || len(n.kids) != len(v) {
			return false
		}
		for name, value := range v {
			if kid := n.kids[name]; kid == nil || !agree(kid, value) {
				return false
			}
		}
		return true
	case []map[string]any:
		if n.kind != tablesNode && n.kind != arrayNode || len(n.elems) != len(v) {
			return false
		}
		for i, value := range v {
			if !agree(n.elems[i], value) {
				return false
			}
		}
		return true
	case []any:
		if n.kind != arrayNode || len(n.elems) != len(v) {
			return false
		}
		for i, value := range v {
			if !agree(n.elems[i], value) {
				return false
			}
		}
		return true
	}
	return n.kind == scalarNode
}
