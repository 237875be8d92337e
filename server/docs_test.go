package server_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/server"
)

// TestRoutesAreDocumented compares the table of docs/api.md with the table
// that the handler is built from, line by line.
func TestRoutesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(?:GET|POST|PUT|DELETE) /.*\\|$")
	got := row.FindAllString(string(raw), -1)
	var want []string
	for _, r := range server.Routes() {
		line := "| `" + r.Method + " " + r.Path + "` | " + strings.TrimPrefix(string(r.Scope), "orchestrator:") + " | " + r.Does
		if r.Stream {
			line += "; stream"
		}
		if r.Once {
			line += "; once"
		}
		want = append(want, line+" |")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/api.md and the routes differ (-routes +file):\n%s", diff)
	}
}

// TestEveryRouteIsServed asks each route of the table: none may be unknown.
func TestEveryRouteIsServed(t *testing.T) {
	f := newFake()
	f.runs = append(f.runs, fuzzRun())
	s := serve(t, f, nil)
	fill := strings.NewReplacer("{id}", "run-1", "{step}", "a", "{version}", "1", "{ref}", "acme%2Facme.match@1.2.3%2Bb.1", "{seq}", "1", "{hash}", sumOf("hello"), "{event}", "ops%2F2")
	for _, r := range server.Routes() {
		path := fill.Replace(r.Path)
		if strings.HasPrefix(path, "/dags/run-1") {
			path = strings.Replace(path, "run-1", "audit", 1)
		}
		body := ""
		switch {
		case r.Method == "POST" && r.Path == "/trust":
			body = `{"publisher":"acme"}`
		case r.Method == "POST" && r.Path == "/trust:revoke":
			body = `{"reason":"stolen"}`
		case r.Method == "POST" && r.Path == "/trust:accept-time":
			body = `{"time":"now"}`
		case strings.HasSuffix(r.Path, ":disable"):
			body = `{"reason":"wrong"}`
		case r.Method == "POST" && r.Path == "/exports":
			body = `{"path":"/x","force":true}`
		case r.Method == "POST" && r.Path == "/bundles:import":
			body = `{"paths":["/x"]}`
		case r.Method == "POST":
			body = "{}"
		}
		if status, _, b := raw(t, s.path, r.Method, server.Prefix+path, body, nil); status >= 300 {
			t.Errorf("%s %s: %d %s", r.Method, r.Path, status, b)
		}
	}
}
