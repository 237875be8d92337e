package server

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
)

// decode reads the body of a request into v, a pointer to a struct. One form
// is accepted: one JSON object, no key twice, no key that v does not have,
// keys spelt as they are.
func (q *request) decode(v any) error {
	if len(q.body) == 0 {
		q.body = []byte("{}")
	} else if t, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return invalid("the Content-Type must be application/json")
	}
	body, err := jcs.Canonicalize(q.body)
	if err != nil {
		return invalid("the body is not one JSON value: %v", err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil || keys == nil {
		return invalid("the body must be a JSON object")
	}
	known := fieldNames(reflect.TypeOf(v).Elem())
	for k := range keys {
		if !known[k] {
			return invalid("unknown key %q in the body", k)
		}
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(v); err != nil {
		return invalid("the body does not fit: %v", err)
	}
	return nil
}

// fieldNames are the JSON names of the fields of a struct, those of embedded
// structs among them.
func fieldNames(t reflect.Type) map[string]bool {
	out := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" || !f.Anonymous {
			out[name] = true
		}
	}
	return out
}

// params reads the query of a request. After the last one, err says whether
// any was malformed, given twice or unknown.
type params struct {
	values url.Values
	bad    error
}

func (q *request) params() *params {
	values, err := url.ParseQuery(q.URL.RawQuery)
	p := &params{values: values}
	if err != nil {
		p.bad = invalid("the query cannot be read: %v", err)
	}
	return p
}

func (p *params) str(name string) string {
	v := p.values[name]
	delete(p.values, name)
	if len(v) > 1 && p.bad == nil {
		p.bad = invalid("the parameter %s is given twice", name)
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

func (p *params) int64(name string) int64 {
	s := p.str(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && p.bad == nil {
		p.bad = invalid("the parameter %s must be an integer", name)
	}
	return n
}

func (p *params) int(name string) int {
	n := p.int64(name)
	if int64(int(n)) != n && p.bad == nil {
		p.bad = invalid("the parameter %s is out of range", name)
	}
	return int(n)
}

func (p *params) bool(name string) bool {
	switch s := p.str(name); s {
	case "", "false":
		return false
	case "true":
		return true
	default:
		if p.bad == nil {
			p.bad = invalid("the parameter %s must be true or false", name)
		}
		return false
	}
}

func (p *params) err() error {
	if p.bad != nil {
		return p.bad
	}
	for name := range p.values {
		return invalid("unknown parameter %q", name)
	}
	return nil
}
