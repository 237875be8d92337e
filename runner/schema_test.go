package runner

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestASchemaLoadsNothing: a schema comes from signed bytes, and whatever it
// refers to outside of them is refused and not looked at (THREATS 6). A pipe
// would keep whoever opens it waiting, and a listener would hear of a call.
func TestASchemaLoadsNothing(t *testing.T) {
	dir := t.TempDir()
	pipe, secret := filepath.Join(dir, "pipe"), filepath.Join(dir, "secret.json")
	if err := mkfifo(pipe); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte(`{"const":"a secret"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan bool, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		called <- err == nil
	}()
	http := "http://" + l.Addr().String() + "/schema.json"
	t.Chdir(dir) // a relative reference would find the file
	for _, ref := range []string{
		"file://" + pipe, "file://" + secret, secret, "secret.json", "./secret.json#/const", "file:///etc/passwd", "/etc/passwd",
		http, http + "#/a", strings.Replace(http, "http:", "https:", 1), "//" + l.Addr().String() + "/x", "urn:uuid:1", "data:application/json,{}",
		"json-schema.org/draft/2020-12/schema", "ftp://127.0.0.1/x",
	} {
		for _, form := range []string{
			`{"$ref":%q}`, `{"properties":{"a":{"$ref":%q}}}`, `{"$dynamicRef":%q}`, `{"allOf":[{"not":{"$ref":%q}}]}`,
			`{"$defs":{"x":{"$ref":%q}},"$ref":"#/$defs/x"}`, `{"$id":"file://` + dir + `/","$ref":%q}`, `{"items":{"$ref":%q}}`,
		} {
			schema := fmt.Sprintf(form, ref)
			done := make(chan error, 1)
			go func() {
				done <- newSchemas().validate("x", func() ([]byte, error) { return []byte(schema), nil }, []byte(`{"a":1}`))
			}()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%s is accepted", schema)
				} else if strings.Contains(err.Error(), "a secret") || strings.Contains(err.Error(), "root:") {
					t.Errorf("%s: the error tells what the file holds: %v", schema, err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: the compiler opened the pipe", schema)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if <-called {
		t.Error("the compiler called the listener")
	}
}

// TestASchemaHasLimits: of its size, and of what it may cost.
func TestASchemaHasLimits(t *testing.T) {
	deep := strings.Repeat(`{"not":`, 20_000) + `{}` + strings.Repeat(`}`, 20_000)
	for name, schema := range map[string]string{
		"large":     `{"description":"` + strings.Repeat("x", maxSchemaBytes) + `"}`,
		"deep":      deep,
		"no JSON":   `{"type":`,
		"no schema": `[]`,
		"itself":    `{"$ref":"#"}`,
		"by a way":  `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"allOf":[{"$ref":"#/$defs/a"}]}}}`,
		"in not":    `{"$defs":{"a":{"not":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}`,
		"in if":     `{"$defs":{"a":{"if":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}`,
		"odd case":  `{"$Ref":"#"}`,
		"odd s":     `{"propertie\u017f":{"a":{"$ref":"#"}}}`,
		"twice":     `{"not":{"$ref":"#/$defs/a"},"not":{"not":{}},"$defs":{"a":{"not":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}`,
		"nothing":   `{"properties":{"a":{"$ref":"#/properties/a/not"}}}`,
		"two":       `{} {}`,
		"dynamic":   `{"$dynamicAnchor":"x","$dynamicRef":"#x"}`,
	} {
		if err := newSchemas().validate("x", func() ([]byte, error) { return []byte(schema), nil }, []byte(`{"a":1}`)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestAValueMayBeRefusedForItsCost: a schema of a few lines that meets a value
// in ever more ways, level by level, must not keep stella busy for years.
func TestAValueMayBeRefusedForItsCost(t *testing.T) {
	twice := `{"properties":{"a":{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}}}`
	chain := `{"$ref":"#/$defs/0","$defs":{`
	for i := range 40 {
		chain += fmt.Sprintf(`"%d":{"anyOf":[{"$ref":"#/$defs/%d"},{"$ref":"#/$defs/%d"}]},`, i, i+1, i+1)
	}
	chain += `"40":{"type":"string"}}}`
	tree := `{"$id":"https://acme.test/tree","type":"object","properties":{"kids":{"type":"array","items":{"$ref":"#/$defs/kid"}}},` +
		`"$defs":{"kid":{"$anchor":"kid","properties":{"kids":{"items":{"$ref":"https://acme.test/tree#kid"}},"n":{"type":"integer"}},"additionalProperties":false}}}`
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, c := range []struct {
		name, schema, value string
		ok                  bool
	}{
		{"twice at each level", twice, nested(60), false},
		{"twice at few levels", twice, nested(8), true},
		{"twice at each reference", chain, `{}`, false},
		{"a tree", tree, `{"kids":[{"n":1,"kids":[{"n":2},{"n":3,"kids":[]}]}]}`, true},
		{"a tree with a fault", tree, `{"kids":[{"n":1,"kids":[{"n":"x"}]}]}`, false},
		{"a long list", `{"properties":{"a":{"items":{"anyOf":[{"type":"string"},{"type":"integer"}]}}}}`, `{"a":[1` + strings.Repeat(",1", 400_000) + `]}`, true},
		{"deeper than any stack", `{"properties":{"a":{"$ref":"#"}}}`, nested(5000), false},
		{"an anchor that is not there", `{"$ref":"#nowhere"}`, `{}`, false},
		{"$id inside", `{"properties":{"a":{"$id":"b","type":"string"}}}`, `{}`, false},
		{"members that are called as keywords", `{"properties":{"$ref":{"type":"string"},"$id":{"type":"string"}},"const":{"$ref":"http://x"}}`, `{"$ref":"http://x"}`, true},
	} {
		began := time.Now()
		err := newSchemas().validate("x", func() ([]byte, error) { return []byte(c.schema), nil }, []byte(c.value))
		if (err == nil) != c.ok {
			t.Errorf("%s: %.300v, want ok %v", c.name, err, c.ok)
		}
		t.Logf("%s: %v", c.name, time.Since(began)) // without the bound some would take years
	}
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
