package server_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// FuzzRequest sends what an authenticated caller could send. Whatever it is,
// the answer is a redirect to the clean path, JSON of a success, or one error
// envelope whose code belongs to its status; and nothing panics.
func FuzzRequest(f *testing.F) {
	paths := strings.NewReplacer("{id}", "run-1", "{step}", "a", "{version}", "1.0.0", "{ref}", "acme%2Fm@1", "{seq}", "1")
	for _, r := range server.Routes() {
		f.Add(r.Method, server.Prefix+paths.Replace(r.Path), "", `{}`, "application/x-ndjson")
		f.Add(r.Method, server.Prefix+paths.Replace(r.Path), "timeout_ms=1&page_size=2", `{"path":"/x","reason":"r"}`, "")
	}
	f.Add("POST", server.Prefix+"/runs", "", `{"dagId":"audit","inputs":{"k":1e400},"runToken":"t"}`, "")
	f.Add("GET", server.Prefix+"/runs/..", "a=%zz", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, body, accept string) {
		site := newFake()
		close(site.ended)
		site.runs = append(site.runs, fuzzRun())
		w := httptest.NewRecorder()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://stella/", strings.NewReader(body))
		if err != nil || !strings.HasPrefix(path, "/") {
			t.Skip("not a request")
		}
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", accept)
		server.HandlerForTest(site.as, cookie).ServeHTTP(w, r)
		checkAnswer(t, method, path, w)
	})
}

func checkAnswer(t *testing.T, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	b := w.Body.Bytes()
	switch {
	case w.Code >= 300 && w.Code < 400:
	case w.Code >= 400:
		e := errorOf(t, b)
		if e.Code == api.CodeInternal || e.Status() != w.Code {
			t.Errorf("%s %q: %d with %v", method, path, w.Code, e)
		}
	case strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain"):
	default:
		for line := range bytes.Lines(b) {
			if !json.Valid(line) {
				t.Errorf("%s %q: %d with %q, which is not JSON", method, path, w.Code, line)
			}
		}
	}
}
