package runner

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/manifests"
)

// MaxInputsBytes bounds the inputs of a start.
const MaxInputsBytes = 1 << 20

// maxSchemaBytes bounds one JSON Schema of a plugin (THREATS 6).
const maxSchemaBytes = 256 << 10

// CanonicalInputs returns the JCS form of the inputs as given, before defaults,
// and its SHA-256, the run's inputsHash. Empty means {}.
func CanonicalInputs(raw json.RawMessage) (canonical []byte, hash string, err error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = json.RawMessage("{}")
	}
	if len(raw) > MaxInputsBytes {
		return nil, "", fmt.Errorf("inputs of %d bytes; at most %d", len(raw), MaxInputsBytes)
	}
	canonical, err = jcs.Canonicalize(raw)
	if err != nil {
		return nil, "", fmt.Errorf("inputs: %w", err)
	}
	if canonical[0] != '{' {
		return nil, "", errors.New("inputs: a JSON object is wanted")
	}
	return canonical, Hash(canonical), nil
}

// Hash is the lower-case hex SHA-256 of raw.
func Hash(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// resolveInputs checks given inputs against the DAG's declarations, adds
// defaults, and returns the values that expressions see. It coerces nothing.
// All faults come at once.
func resolveInputs(d *manifests.DAG, canonical []byte) (map[string]any, []string) {
	v, err := decodeJSON(canonical)
	if err != nil {
		return nil, []string{err.Error()}
	}
	given, _ := v.(map[string]any)
	var faults []string
	for _, name := range sortedKeys(given) {
		if _, ok := d.Inputs[name]; !ok {
			faults = append(faults, fmt.Sprintf("input %s: the DAG has no such input; it has %v", name, sortedKeys(d.Inputs)))
		}
	}
	out := map[string]any{}
	for _, name := range sortedKeys(d.Inputs) {
		decl := d.Inputs[name]
		v, ok := given[name]
		switch {
		case ok:
			if fault := checkInput(decl, v); fault != "" {
				faults = append(faults, "input "+name+": "+fault)
			}
			out[name] = v
		case decl.Default != nil:
			out[name] = decl.Default
		case decl.Required:
			faults = append(faults, "input "+name+": it is required")
		default:
			out[name] = nil
		}
	}
	return out, faults
}

func checkInput(decl manifests.Input, v any) string {
	if decl.Secret {
		if m, ok := v.(map[string]any); ok && len(m) == 1 {
			if _, ok := m["secretRef"].(string); ok {
				return "secrets cannot be used by this version"
			}
		}
		return `a secret is given only as {"secretRef": NAME}`
	}
	if !isType(decl.Type, v) {
		return fmt.Sprintf("%s is wanted, %s was given (k:=v gives JSON, k=v gives text)", decl.Type, typeName(v))
	}
	if len(decl.Enum) > 0 && !inEnum(decl.Enum, v) {
		raw, _ := json.Marshal(decl.Enum) // values that came from TOML
		return "it is not one of " + string(raw)
	}
	if s, ok := v.(string); ok && decl.Pattern != "" {
		re, err := regexp.Compile(`\A(?:` + decl.Pattern + `)\z`)
		if err != nil {
			return err.Error()
		}
		if !re.MatchString(s) {
			return "it does not match " + decl.Pattern
		}
	}
	return ""
}

func inEnum(enum []any, v any) bool {
	for _, e := range enum {
		if reflect.DeepEqual(e, v) {
			return true
		}
	}
	return false
}

func isType(t string, v any) bool {
	switch x := v.(type) {
	case string:
		return t == "string"
	case bool:
		return t == "boolean"
	case int64:
		return t == "integer" || t == "number"
	case float64:
		return t == "number" || t == "integer" && x == math.Trunc(x)
	case []any:
		return t == "array"
	case map[string]any:
		return t == "object"
	}
	return false
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case int64:
		return "integer"
	case float64:
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// schemas holds compiled JSON Schemas by digest, so that a plugin that runs a
// thousand times is compiled once.
type schemas struct {
	mu   sync.Mutex
	byID map[string]*jsonschema.Resolved
}

// validate checks a JSON object against the schema with this digest. The
// compiler may load nothing: a reference to anything outside the schema is an
// error.
func (s *schemas) validate(digest string, load func() ([]byte, error), object []byte) error {
	var value any
	if err := json.Unmarshal(object, &value); err != nil {
		return err
	}
	s.mu.Lock()
	r, ok := s.byID[digest]
	s.mu.Unlock()
	if !ok {
		raw, err := load()
		if err != nil {
			return err
		}
		if r, err = compileSchema(raw); err != nil {
			return fmt.Errorf("schema: %w", err)
		}
		s.mu.Lock()
		s.byID[digest] = r
		s.mu.Unlock()
	}
	return r.Validate(value)
}

func compileSchema(raw []byte) (*jsonschema.Resolved, error) {
	if len(raw) > maxSchemaBytes {
		return nil, fmt.Errorf("%d bytes; at most %d", len(raw), maxSchemaBytes)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return s.Resolve(&jsonschema.ResolveOptions{}) // no loader: remote references are refused
}

func newSchemas() *schemas { return &schemas{byID: map[string]*jsonschema.Resolved{}} }
