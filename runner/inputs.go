package runner

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/manifests"
)

// MaxInputsBytes bounds the inputs of a start.
const MaxInputsBytes = 1 << 20

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
	if err := fits("the inputs", len(canonical), MaxInputsBytes); err != nil {
		return nil, "", err
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
			out[name] = declared(decl.Type, v)
		case decl.Default != nil:
			out[name] = declared(decl.Type, decl.Default)
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
		if _, ok := secretRef(v); ok {
			return ""
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

// inEnum compares canonical forms: an enum of 2.0 has 2 in it.
func inEnum(enum []any, v any) bool {
	given, err := jcs.Marshal(v)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(enum, func(e any) bool {
		raw, err := jcs.Marshal(e)
		return err == nil && bytes.Equal(raw, given)
	})
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
