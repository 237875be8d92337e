package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cookie = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func self() string { return server.LocalPrincipal(os.Getuid()) }

// socketDir is a folder whose path is short enough for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// A served site is stopped by stop, which waits for Serve and returns its error.
type served struct {
	*server.Client
	path string
	stop func() error
}

// serve puts a fake behind a socket and returns a client of it. When the test
// ends, Serve has returned without an error.
func serve(t *testing.T, f *fake, change func(*server.Options)) *served {
	t.Helper()
	path := filepath.Join(socketDir(t), "stella.sock")
	l, err := server.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	opt := server.Options{Site: f.as, Cookie: []byte(cookie + "\n"), Owner: os.Getuid(), Tenant: "default"}
	if change != nil {
		change(&opt)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var serveErr error
	go func() {
		serveErr = server.Serve(ctx, l, opt)
		close(ended)
	}()
	c := server.NewClient(server.ClientOptions{Socket: path, Cookie: []byte(cookie), Owners: []int{os.Getuid()}})
	s := &served{Client: c, path: path, stop: func() error {
		cancel()
		<-ended
		return serveErr
	}}
	t.Cleanup(func() {
		c.Close()
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return s
}

// raw sends a request by hand. Headers with an empty value are left out, also
// those that are sent by default.
func raw(t *testing.T, path, method, target, body string, header map[string]string) (int, http.Header, []byte) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://stella"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{server.HeaderCookie: cookie, "Content-Type": "application/json"}
	for k, v := range header {
		all[k] = v
	}
	for k, v := range all {
		switch {
		case k == "Host":
			r.Host = v
		case v != "":
			r.Header.Set(k, v)
		}
	}
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return res.StatusCode, res.Header, b
}

// errorOf decodes an error body.
func errorOf(t *testing.T, b []byte) api.Error {
	t.Helper()
	var w struct{ Error api.Error }
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil || w.Error.Code == "" {
		t.Fatalf("body %q is not an error envelope: %v", b, err)
	}
	return w.Error
}

func TestRequestsAreRefused(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil)
	noTenant := serve(t, newFake(), func(o *server.Options) { o.Tenant = "" })
	stranger := serve(t, newFake(), func(o *server.Options) { o.Owner = os.Getuid() + 1000 })
	const runs = server.Prefix + "/runs"
	cases := []struct {
		name, method, path, body string
		header                   map[string]string
		at                       *served
		status                   int
		code                     api.Code
	}{
		{"without a cookie", "GET", runs, "", map[string]string{server.HeaderCookie: ""}, s, 401, api.CodeUnauthenticated},
		{"with another cookie", "GET", runs, "", map[string]string{server.HeaderCookie: strings.Repeat("0", 64)}, s, 401, api.CodeUnauthenticated},
		{"with half the cookie", "GET", runs, "", map[string]string{server.HeaderCookie: cookie[:32]}, s, 401, api.CodeUnauthenticated},
		{"for another host", "GET", runs, "", map[string]string{"Host": "evil.example"}, s, 403, api.CodeForbidden},
		{"from a web page", "GET", runs, "", map[string]string{"Origin": "http://stella"}, s, 403, api.CodeForbidden},
		{"without a tenant", "GET", runs, "", nil, noTenant, 403, api.CodeTenantRequired},
		{"with a malformed tenant", "GET", runs, "", map[string]string{server.HeaderTenant: "A/b"}, s, 400, api.CodeInvalid},
		{"with a malformed trace", "GET", runs, "", map[string]string{"Traceparent": "00-zz"}, s, 400, api.CodeInvalid},
		{"for no route", "GET", server.Prefix + "/nothing", "", nil, s, 404, api.CodeNotFound},
		{"for no verb", "POST", runs + "/r:explode", "", nil, s, 404, api.CodeNotFound},
		{"for a route of another method", "DELETE", runs + "/r", "", nil, s, 404, api.CodeNotFound},
		{"outside the prefix", "GET", "/", "", nil, s, 404, api.CodeNotFound},
		{"with an unknown parameter", "GET", runs + "?activ=true", "", nil, s, 400, api.CodeInvalid},
		{"with a parameter twice", "GET", runs + "?status=a&status=b", "", nil, s, 400, api.CodeInvalid},
		{"with a number that is none", "GET", runs + "?page_size=many", "", nil, s, 400, api.CodeInvalid},
		{"with a number too large", "GET", runs + "?page_size=99999999999999999999", "", nil, s, 400, api.CodeInvalid},
		{"with a truth that is none", "GET", runs + "?active=1", "", nil, s, 400, api.CodeInvalid},
		{"with an entry that is no number", "GET", server.Prefix + "/ledger/entries/x", "", nil, s, 400, api.CodeInvalid},
		{"with a body of another type", "POST", runs, "{}", map[string]string{"Content-Type": "text/plain"}, s, 400, api.CodeInvalid},
		{"with a body that is not JSON", "POST", runs, "{", nil, s, 400, api.CodeInvalid},
		{"with two bodies", "POST", runs, "{}{}", nil, s, 400, api.CodeInvalid},
		{"with a list as a body", "POST", runs, "[]", nil, s, 400, api.CodeInvalid},
		{"with null as a body", "POST", runs, "null", nil, s, 400, api.CodeInvalid},
		{"with an unknown key", "POST", runs, `{"dagID":"a"}`, nil, s, 400, api.CodeInvalid},
		{"with a key twice", "POST", runs, `{"dagId":"a","dagId":"b"}`, nil, s, 400, api.CodeInvalid},
		{"with a key of another type", "POST", runs, `{"dagId":7}`, nil, s, 400, api.CodeInvalid},
		{"with too large a body", "POST", runs, `{"dagId":"` + strings.Repeat("a", 4<<20) + `"}`, nil, s, 400, api.CodeInvalid},
		{"with two tokens", "POST", runs, `{"dagId":"a","runToken":"t"}`, map[string]string{server.HeaderIdempotencyKey: "u"}, s, 400, api.CodeInvalid},
		{"with a key that would not be kept", "POST", server.Prefix + "/exports", `{"path":"/x"}`, map[string]string{server.HeaderIdempotencyKey: "u"}, s, 400, api.CodeInvalid},
		{"with something in an empty body", "POST", runs + ":resume", `{"all":true}`, nil, s, 400, api.CodeInvalid},
		{"for a step that is not there", "GET", runs + "/none/steps/a", "", nil, s, 404, api.CodeNotFound},
	}
	if os.Getuid() != 0 { // root may always speak
		cases = append(cases, struct {
			name, method, path, body string
			header                   map[string]string
			at                       *served
			status                   int
			code                     api.Code
		}{"by another user", "GET", runs, "", nil, stranger, 403, api.CodeForbidden})
	}
	for _, c := range cases {
		status, header, b := raw(t, c.at.path, c.method, c.path, c.body, c.header)
		if e := errorOf(t, b); status != c.status || e.Code != c.code || e.Message == "" {
			t.Errorf("a request %s: %d %v, want %d %s", c.name, status, e, c.status, c.code)
		}
		if got := header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("a request %s: nosniff is missing: %q", c.name, got)
		}
	}
	if runs, _ := f.ListRuns(t.Context(), api.RunQuery{}); len(runs.Runs) != 0 {
		t.Errorf("refused requests started %d runs", len(runs.Runs))
	}
}

func TestAStartIsCreatedOnceAndThenReplayed(t *testing.T) {
	s := serve(t, newFake(), nil)
	const runs = server.Prefix + "/runs"
	trace := map[string]string{
		"Traceparent":               "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		server.HeaderIdempotencyKey: "key-1",
		server.HeaderTenant:         "blue",
	}
	for i, want := range []int{201, 200} {
		status, _, b := raw(t, s.path, "POST", runs, `{"dagId":"audit"}`, trace)
		var res api.StartResult
		if err := json.Unmarshal(b, &res); err != nil {
			t.Fatal(err)
		}
		if status != want || res.Replayed != (i == 1) {
			t.Errorf("start %d: %d replayed=%v, want %d", i+1, status, res.Replayed, want)
		}
		r := res.Run
		if r.RunToken != "key-1" || r.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || r.Tenant != "blue" || r.Actor != self() {
			t.Errorf("start %d: run %+v does not carry key, trace, tenant and actor", i+1, r)
		}
	}
}

func TestAnErrorCarriesTheCallersTrace(t *testing.T) {
	s := serve(t, newFake(), nil)
	_, _, b := raw(t, s.path, "GET", server.Prefix+"/runs/none", "", map[string]string{
		"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
	if e := errorOf(t, b); e.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("trace_id = %q, want the caller's", e.TraceID)
	}
}

func TestAPanicIsAnInternalError(t *testing.T) {
	s := serve(t, newFake(), nil)
	_, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "panic"})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeInternal || strings.Contains(e.Message, "asked for it") {
		t.Errorf("StartRun = %v, want INTERNAL without the panic's text", err)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("the server is gone after a panic: %v", err)
	}
}

func TestAStepShowsItsAttempts(t *testing.T) {
	s := serve(t, newFake(), nil)
	if _, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "audit"}); err != nil {
		t.Fatal(err)
	}
	status, _, b := raw(t, s.path, "GET", server.Prefix+"/runs/run-1/steps/b", "", nil)
	var got struct {
		StepID   string          `json:"stepId"`
		Attempts []state.Attempt `json:"attempts"`
	}
	if err := json.Unmarshal(b, &got); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, b, err)
	}
	if got.StepID != "b" || len(got.Attempts) != 1 || got.Attempts[0].StepID != "b" {
		t.Errorf("step b = %s, want it with its one attempt", b)
	}
}

// TestAShutdownEndsThoseWhoWait: requests that wait are told to try again,
// requests that work are waited for.
func TestAShutdownEndsThoseWhoWait(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil)
	if _, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "slow"}); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	go func() { _, err := s.WaitRun(t.Context(), "run-1"); errs <- err }()
	go func() {
		errs <- s.RunLogs(t.Context(), api.LogQuery{RunID: "run-1", Follow: true}, func(api.LogLine) error { return nil })
	}()
	<-f.waiting
	<-f.waiting
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the shutdown took %v", d)
	}
	for range 2 {
		var e *api.Error
		if err := <-errs; !errors.As(err, &e) || e.Code != api.CodeStopping {
			t.Errorf("a waiting request ended with %v, want STOPPING", err)
		}
	}
	if _, err := s.Status(t.Context()); !errors.Is(err, server.ErrUnreachable) {
		t.Errorf("after the shutdown: %v, want ErrUnreachable", err)
	}
}

// TestAShutdownEndsLongWorkInTime: work that is not done when the time is over
// is to be asked for again, of the next holder of the site.
func TestAShutdownEndsLongWorkInTime(t *testing.T) {
	f := newFake()
	s := serve(t, f, func(o *server.Options) { o.Drain = 20 * time.Millisecond })
	errs := make(chan error, 2)
	for _, p := range []api.Progress{nil, func(_, _ int64) {}} {
		go func() {
			_, err := s.ImportBundle(t.Context(), api.ImportRequest{Path: "/m/slow.stella"}, p)
			errs <- err
		}()
		<-f.waiting
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var e *api.Error
		if err := <-errs; !errors.As(err, &e) || e.Code != api.CodeStopping {
			t.Errorf("work that was cut off ended with %v, want STOPPING", err)
		}
	}
}

// TestAnIdleClientDoesNotHoldUpAShutdown: neither one that has asked before
// nor one that never says a word.
func TestAnIdleClientDoesNotHoldUpAShutdown(t *testing.T) {
	s := serve(t, newFake(), nil)
	if _, err := s.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	raw(t, s.path, "GET", server.Prefix+"/admin/status", "", nil) // connections are accepted in order
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("the shutdown took %v", d)
	}
}

func TestFollowedLogsComeAtOnceAndEndWithTheRun(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil)
	if _, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "slow"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	lines := make(chan string, 3)
	done := make(chan error, 1)
	go func() {
		done <- s.RunLogs(ctx, api.LogQuery{RunID: "run-1", Follow: true}, func(l api.LogLine) error {
			lines <- l.Text
			return nil
		})
	}()
	for range 3 { // all three come, although the stream goes on
		select {
		case <-lines:
		case err := <-done:
			t.Fatalf("the stream ended early: %v", err)
		}
	}
	close(f.ended)
	if err := <-done; err != nil {
		t.Errorf("RunLogs = %v", err)
	}
}

// TestALongAnswerOutlivesTheReadDeadline: net/http ends a request whose
// deadline for reading passes while the handler works.
func TestALongAnswerOutlivesTheReadDeadline(t *testing.T) {
	s := serve(t, newFake(), server.WithReadTimeout(50*time.Millisecond))
	if _, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "slow"}); err != nil {
		t.Fatal(err)
	}
	status, _, b := raw(t, s.path, "GET", server.Prefix+"/runs/run-1/wait?timeout_ms=200", "", nil)
	if status != 202 {
		t.Errorf("a wait of 200 ms with 50 ms for reading: %d %s, want 202", status, b)
	}
}

func TestALongPollAnswersInTime(t *testing.T) {
	s := serve(t, newFake(), nil)
	if _, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "slow"}); err != nil {
		t.Fatal(err)
	}
	status, _, b := raw(t, s.path, "GET", server.Prefix+"/runs/run-1/wait?timeout_ms=1", "", nil)
	var run state.Run
	if err := json.Unmarshal(b, &run); err != nil || status != 202 || run.Status != state.Planning {
		t.Errorf("wait: %d %s, want 202 and the run as it is", status, b)
	}
}

func TestACallerWhoGoesAwayEndsItsCall(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil)
	if _, err := s.StartRun(t.Context(), api.StartRequest{DAGID: "slow"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := s.WaitRun(ctx, "run-1"); done <- err }()
	<-f.waiting
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("WaitRun = %v, want context.Canceled", err)
	}
}

func TestServeChecksItsOptions(t *testing.T) {
	for name, opt := range map[string]server.Options{
		"no site":        {Cookie: []byte(cookie)},
		"no cookie":      {Site: newFake().as},
		"a short cookie": {Site: newFake().as, Cookie: []byte("abc\n")},
	} {
		l, err := server.Listen(filepath.Join(socketDir(t), "s"))
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Serve(t.Context(), l, opt); err == nil {
			t.Errorf("%s: Serve returned nil", name)
		}
	}
}
