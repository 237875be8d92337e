package runner

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzSchema: whatever a plugin brings as a schema, and whatever is checked
// against it, there is an answer, soon, and the same one again.
func FuzzSchema(f *testing.F) {
	for _, s := range []string{
		`{"type":"object","properties":{"a":{"type":"string","pattern":"^a+$"}},"required":["a"],"additionalProperties":false}`,
		`{"$ref":"#"}`, `{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"not":{"$anchor":"x","items":{"$ref":"#x"}}}}}`,
		`{"$id":"https://acme.test/a","properties":{"a":{"$ref":"https://acme.test/a#/properties/b"},"b":{"type":["integer","null"]}}}`,
		`{"if":{"required":["a"]},"then":{"maxProperties":1},"else":false,"dependentSchemas":{"a":{"minProperties":1}}}`,
		`{"properties":{"a":{"prefixItems":[{"const":1}],"items":{"enum":[1,"x",null]},"contains":{"type":"number"},"uniqueItems":true}}}`,
		`{"patternProperties":{"^a":{"multipleOf":0.5}},"propertyNames":{"maxLength":3},"unevaluatedProperties":false}`,
		`{"properties":{"a":{"$ref":"#/properties/a/not","not":{"$ref":"#/properties/a"}}}}`, `true`, `false`, `{"$dynamicRef":"#x"}`,
	} {
		for _, v := range []string{`{}`, `{"a":"aa"}`, `{"a":[1,"x",[1]],"b":{"a":null}}`} {
			f.Add([]byte(s), []byte(v))
		}
	}
	f.Fuzz(func(t *testing.T, raw, value []byte) {
		if len(raw) > 4<<10 || len(value) > 4<<10 {
			return
		}
		began := time.Now()
		load := func() ([]byte, error) { return raw, nil }
		all := newSchemas()
		first := all.validate("x", load, value)
		again := all.validate("x", load, value)
		if (first == nil) != (again == nil) {
			t.Fatalf("%v, then %v", first, again)
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Fatalf("it took %v", d)
		}
		if first == nil && !json.Valid(raw) {
			t.Fatal("a schema that is no JSON accepted something")
		}
	})
}
