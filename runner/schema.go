package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"
)

// Limits of JSON Schemas, which come from plugins, and of what is checked
// against them (THREATS 6).
const (
	maxSchemaBytes = 256 << 10
	maxSchemaDepth = 64        // objects and lists of the schema inside each other
	maxSchemaSteps = 2_000_000 // schemas that one value meets, counted with repetition
	maxSchemaStack = 512       // references and levels of the value inside each other
	maxSchemasKept = 64        // compiled
)

// schemas holds compiled JSON Schemas by digest, so that a plugin that runs a
// thousand times is compiled once.
type schemas struct {
	mu   sync.Mutex
	byID map[string]*schema
}

func newSchemas() *schemas { return &schemas{byID: map[string]*schema{}} }

// A schema refers to nothing outside of itself.
type schema struct {
	compiled *jsonschema.Resolved
	root     any
	id       string         // $id of the root
	anchors  map[string]any // by name
	targets  map[string]any // of references
}

// validate checks a JSON object against the schema with this digest.
func (s *schemas) validate(digest string, load func() ([]byte, error), object []byte) error {
	var value any
	if err := json.Unmarshal(object, &value); err != nil {
		return err
	}
	c, err := s.get(digest, load)
	if err != nil {
		return err
	}
	return c.check(value)
}

// get compiles the schema with this digest, once.
func (s *schemas) get(digest string, load func() ([]byte, error)) (*schema, error) {
	s.mu.Lock()
	c, ok := s.byID[digest]
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	raw, err := load()
	if err != nil {
		return nil, err
	}
	if c, err = compileSchema(raw); err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= maxSchemasKept {
		clear(s.byID) // those in use come back at their next turn
	}
	s.byID[digest] = c
	return c, nil
}

// compileSchema reads a schema. The compiler may load nothing: it has no loader,
// and a reference to anything outside the schema is refused before it sees it.
func compileSchema(raw []byte) (*schema, error) {
	if len(raw) > maxSchemaBytes {
		return nil, fmt.Errorf("%d bytes; at most %d", len(raw), maxSchemaBytes)
	}
	if err := shallow(raw); err != nil {
		return nil, err
	}
	c := &schema{anchors: map[string]any{}, targets: map[string]any{}}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // numbers stay as they are written
	if err := dec.Decode(&c.root); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	if m, ok := c.root.(map[string]any); ok {
		c.id, _ = m["$id"].(string)
	}
	if err := c.closed(c.root, true); err != nil {
		return nil, err
	}
	for ref := range c.targets {
		if c.targets[ref] = c.at(ref); c.targets[ref] == nil {
			return nil, fmt.Errorf("it refers to %.100q, which is not there", ref)
		}
	}
	return c, c.compile()
}

// compile hands the schema to the library as it was looked at here: members
// that were there twice are once.
func (c *schema) compile() (err error) {
	defer rescue(&err)
	raw, err := json.Marshal(c.root)
	if err != nil {
		return err
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	c.compiled, err = s.Resolve(&jsonschema.ResolveOptions{})
	return err
}

// check checks a value. The library has assertions about schemas, which are for
// the author of the plugin to hear of, and no reason to stop.
func (c *schema) check(value any) (err error) {
	defer rescue(&err)
	w := weighing{schema: c}
	if err := w.meet(c.root, value, 0); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	return c.compiled.Validate(value)
}

// rescue makes an error of a panic.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("schema: it cannot be used: %.200v", p)
	}
}

// shallow refuses a schema that is nested too deep: a decoder reads each level
// once more.
func shallow(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	for depth := 0; ; {
		tok, err := dec.Token()
		if err != nil {
			return nil // the end, or what Unmarshal will say better
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxSchemaDepth {
			return fmt.Errorf("nested more than %d deep", maxSchemaDepth)
		}
	}
}

// closed refuses references that lead out of the schema, or that mean something
// else from place to place, and takes note of the others and of the anchors.
func (c *schema) closed(v any, root bool) error {
	m, _ := v.(map[string]any)
	for key, x := range m {
		if like := keywordLike(key); like != "" {
			return fmt.Errorf("%.100q is not %s, but would be taken for it", key, like)
		}
		text, isText := x.(string)
		switch {
		case isText && key == "$ref" && !c.local(text):
			return fmt.Errorf("it refers to %.100q, which is outside of it", text)
		case isText && key == "$ref":
			c.targets[text] = nil
		case key == "$dynamicRef" || key == "$recursiveRef" || key == "$dynamicAnchor":
			return fmt.Errorf("%s is not supported", key)
		case key == "$id" && !root:
			return errors.New("$id stands below the top")
		case isText && key == "$anchor":
			c.anchors[text] = v
		}
		for _, below := range schemasOf(key, x) {
			if err := c.closed(below, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// schemasOf lists the schemas in the value of a keyword.
func schemasOf(key string, v any) []any {
	switch key {
	case "not", "if", "then", "else", "items", "additionalItems", "contains", "unevaluatedItems", "additionalProperties",
		"unevaluatedProperties", "propertyNames", "contentSchema", "allOf", "anyOf", "oneOf", "prefixItems":
		if list, ok := v.([]any); ok {
			return list
		}
		return []any{v}
	case "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies":
		var out []any
		members, _ := v.(map[string]any)
		for _, x := range members {
			out = append(out, x)
		}
		return out
	}
	return nil
}

// keywordLike is the keyword that the library would take key for, since it does
// not mind the case of letters; "" where that is key itself, or none.
func keywordLike(key string) string {
	like := ""
	for _, k := range [...]string{
		"$anchor", "$comment", "$defs", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef", "$ref", "$schema", "$vocabulary",
		"additionalItems", "additionalProperties", "allOf", "anyOf", "const", "contains", "contentEncoding", "contentMediaType",
		"contentSchema", "default", "definitions", "dependencies", "dependentRequired", "dependentSchemas", "deprecated", "description",
		"else", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "items", "maxContains", "maxItems", "maxLength",
		"maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "not", "oneOf",
		"pattern", "patternProperties", "prefixItems", "properties", "propertyNames", "readOnly", "required", "then", "title", "type",
		"unevaluatedItems", "unevaluatedProperties", "uniqueItems", "writeOnly",
	} {
		if k == key {
			return ""
		}
		if strings.EqualFold(k, key) {
			like = k
		}
	}
	return like
}

// local says whether ref is a place in the schema.
func (c *schema) local(ref string) bool {
	return strings.HasPrefix(ref, "#") || c.id != "" && (ref == c.id || strings.HasPrefix(ref, c.id+"#"))
}

// at is what ref refers to; nil if there is nothing.
func (c *schema) at(ref string) any {
	_, fragment, _ := strings.Cut(ref, "#")
	fragment, err := url.PathUnescape(fragment)
	if err != nil {
		return nil
	}
	if fragment != "" && fragment[0] != '/' {
		return c.anchors[fragment]
	}
	v := c.root
	for part := range strings.SplitSeq(strings.TrimPrefix(fragment, "/"), "/") {
		if fragment == "" {
			break
		}
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 || n >= len(in) {
				return nil
			}
			v = in[n]
		default:
			return nil
		}
	}
	return v
}

// weighing counts what a value costs a schema before the library spends it: a
// schema may lead to itself without an end, or in ever more ways at each level.
type weighing struct {
	*schema
	steps int
}

// meet counts v meeting a schema, and all that follows from that.
func (w *weighing) meet(schema, v any, depth int) error {
	m, ok := schema.(map[string]any)
	if !ok {
		return nil // none, true or false
	}
	if w.steps++; w.steps > maxSchemaSteps || depth > maxSchemaStack {
		return errors.New("checking this value would cost too much: the schema leads to itself, or to the same in too many ways")
	}
	if err := w.again(m, v, depth); err != nil {
		return err
	}
	switch v := v.(type) {
	case map[string]any:
		return w.members(m, v, depth)
	case []any:
		return w.items(m, v, depth)
	}
	return nil
}

// again meets the schemas that a value meets along with m.
func (w *weighing) again(m map[string]any, v any, depth int) error {
	if ref, ok := m["$ref"].(string); ok {
		if err := w.meet(w.targets[ref], v, depth+1); err != nil {
			return err
		}
	}
	for _, key := range [...]string{"allOf", "anyOf", "oneOf"} {
		list, _ := m[key].([]any)
		for _, x := range list {
			if err := w.meet(x, v, depth+1); err != nil {
				return err
			}
		}
	}
	for _, key := range [...]string{"not", "if", "then", "else"} {
		if err := w.meet(m[key], v, depth+1); err != nil {
			return err
		}
	}
	for _, key := range [...]string{"dependentSchemas", "dependencies"} {
		members, _ := m[key].(map[string]any)
		for _, x := range members {
			if err := w.meet(x, v, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *weighing) members(m, v map[string]any, depth int) error {
	properties, _ := m["properties"].(map[string]any)
	patterns, _ := m["patternProperties"].(map[string]any)
	for name, x := range v {
		for _, s := range [...]any{properties[name], m["additionalProperties"], m["unevaluatedProperties"]} {
			if err := w.meet(s, x, depth+1); err != nil {
				return err
			}
		}
		for _, s := range patterns {
			if err := w.meet(s, x, depth+1); err != nil {
				return err
			}
		}
		if err := w.meet(m["propertyNames"], name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *weighing) items(m map[string]any, v []any, depth int) error {
	prefix, _ := m["prefixItems"].([]any)
	older, _ := m["items"].([]any)
	for i, x := range v {
		next := []any{m["items"], m["contains"], m["unevaluatedItems"], m["additionalItems"]}
		for _, list := range [][]any{prefix, older} {
			if i < len(list) {
				next = append(next, list[i])
			}
		}
		for _, s := range next {
			if err := w.meet(s, x, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
