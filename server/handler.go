package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stellarun/stella/server/api"
)

// errDraining is the cause with which requests that only wait are ended.
var errDraining = errors.New("server: shutting down")

// handler turns requests into calls of a site.
type handler struct {
	opt    Options
	mux    *http.ServeMux
	drain  context.Context // done: no new requests
	active sync.WaitGroup  // requests under way
	denied denials
}

func newHandler(drain context.Context, opt Options) *handler {
	h := &handler{opt: opt, mux: http.NewServeMux(), drain: drain}
	for pat, n := range nodes(Routes()) {
		last := "" // the wildcard that brings a verb along
		if n.verbs() {
			last = lastWildcard(pat)
		}
		h.mux.HandleFunc(Prefix+pat, func(w http.ResponseWriter, r *http.Request) { h.dispatch(w, r, n, last) })
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.render(w, &request{Request: r}, &api.Error{Code: api.CodeNotFound, Message: "no route " + r.Method + " " + r.URL.Path})
	})
	return h
}

// A request is one authenticated request on its way to a site.
type request struct {
	*http.Request
	site    api.Site
	body    []byte
	id      string // {id} without its verb
	traceID string // of the traceparent header, else made here
	traced  bool   // the caller sent a traceparent
	began   bool   // something of the answer has been written
}

// ServeHTTP is the only way in: it authenticates, then routes.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.active.Add(1)
	defer h.active.Done()
	if err := h.authenticate(r); err != nil {
		if n, due := h.denied.note(time.Now()); due {
			h.opt.Log.Warn("requests refused", "count", n, "last", err.Error())
		}
		h.render(w, &request{Request: r}, err)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// authenticate says who may speak at all: THREATS 17 and 39.
func (h *handler) authenticate(r *http.Request) error {
	p, ok := r.Context().Value(peerKey{}).(peer)
	if !ok {
		return &api.Error{Code: api.CodeUnauthenticated, Message: "the connection has no peer credentials"}
	}
	if err := p.admit(); err != nil {
		return err
	}
	if r.Host != "stella" && r.Host != "localhost" {
		return &api.Error{Code: api.CodeForbidden, Message: "the Host header must be stella or localhost"}
	}
	if r.Header.Get("Origin") != "" {
		return &api.Error{Code: api.CodeForbidden, Message: "requests from web pages are refused"}
	}
	if c := r.Header.Values(HeaderCookie); len(c) != 1 || !sameCookie(c[0], h.opt.Cookie) {
		return &api.Error{
			Code:    api.CodeUnauthenticated,
			Message: "the " + HeaderCookie + " header is missing or wrong",
			Hint:    "it holds the content of keys/cookie in the site's home",
		}
	}
	return nil
}

// dispatch finds the route of a request, runs it, and renders its error.
func (h *handler) dispatch(w http.ResponseWriter, r *http.Request, n node, last string) {
	q := &request{Request: r, id: r.PathValue("id")}
	began := time.Now()
	var err error
	defer func() {
		if p := recover(); p != nil {
			h.opt.Log.Error("handler panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &api.Error{Code: api.CodeInternal, Message: "a fault in stella; its log has the details"}
		}
		if err != nil {
			h.render(w, q, err)
		}
		h.opt.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "trace_id", q.traceID,
			"ms", time.Since(began).Milliseconds(), "error", code(err))
	}()
	var verb string
	if last != "" {
		name := r.PathValue(last)
		if i := strings.LastIndexByte(name, ':'); i >= 0 {
			name, verb = name[:i], name[i+1:]
		}
		r.SetPathValue(last, name)
		q.id = r.PathValue("id")
	}
	route, err := find(w, r, n[verb])
	if err != nil {
		return
	}
	if err = h.prepare(w, q, route); err != nil {
		return
	}
	if route.waits {
		ctx, cancel := context.WithCancelCause(r.Context())
		stop := context.AfterFunc(h.drain, func() { cancel(errDraining) })
		defer func() { stop(); cancel(nil) }()
		q.Request = r.WithContext(ctx)
	}
	err = route.handle(h, w, q)
}

func find(w http.ResponseWriter, r *http.Request, byMethod map[string]*Route) (*Route, error) {
	if route := byMethod[r.Method]; route != nil {
		return route, nil
	}
	e := &api.Error{Code: api.CodeNotFound, Message: "no route " + r.Method + " " + r.URL.Path}
	if len(byMethod) > 0 {
		methods := slices.Sorted(maps.Keys(byMethod))
		w.Header().Set("Allow", strings.Join(methods, ", "))
		e.Hint = "this path takes " + strings.Join(methods, ", ")
	}
	return nil, e
}

// prepare reads what every request may carry: trace, tenant, key, body.
func (h *handler) prepare(w http.ResponseWriter, q *request, route *Route) error {
	var err error
	if q.traceID, q.traced, err = traceOf(q.Header.Get(HeaderTraceparent)); err != nil {
		return err
	}
	if h.drain.Err() != nil {
		return &api.Error{Code: api.CodeStopping, Message: "this process is shutting down", Hint: "try again"}
	}
	tenant := q.Header.Get(HeaderTenant)
	if tenant == "" {
		tenant = h.opt.Tenant
	}
	if tenant == "" {
		return &api.Error{Code: api.CodeTenantRequired, Message: "no tenant", Hint: "send the " + HeaderTenant + " header"}
	}
	if !validName(tenant) {
		return invalid("the tenant must match [a-z0-9][a-z0-9.-]{0,62}")
	}
	if key := q.Header.Get(HeaderIdempotencyKey); key != "" && route.Once {
		return invalid("%s is not kept for %s %s: repeating it is not the same as doing it once", HeaderIdempotencyKey, route.Method, route.Path)
	}
	if q.body, err = readBody(w, q.Request); err != nil {
		return err
	}
	p := q.Context().Value(peerKey{}).(peer)
	who := api.Principal{Name: p.principal, Tenant: tenant}
	q.site = h.opt.Site(who)
	return nil
}

// readBody reads the whole body at once, so that the time for reading a request
// does not count against its answer.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, invalid("the body is larger than %d bytes", maxBody)
	case err != nil:
		return nil, invalid("the body cannot be read: %v", err)
	}
	return b, nil
}

// traceOf takes the trace id out of a W3C traceparent; without one it makes an
// id, so that an error can be found in the log.
func traceOf(header string) (id string, sent bool, err error) {
	if header == "" {
		var b [16]byte
		rand.Read(b[:])
		return hex.EncodeToString(b[:]), false, nil
	}
	id, ok := ParseTraceparent(header)
	if !ok {
		return "", false, invalid("the traceparent header is not 00-TRACEID-PARENTID-FLAGS")
	}
	return id, true, nil
}

// ParseTraceparent takes the trace id out of a W3C traceparent.
func ParseTraceparent(s string) (traceID string, ok bool) {
	p := strings.Split(s, "-")
	if len(p) < 4 || len(p[0]) != 2 || len(p[1]) != 32 || len(p[2]) != 16 || len(p[3]) != 2 {
		return "", false
	}
	if p[0] == "ff" || p[0] == "00" && len(p) != 4 { // later versions may append fields
		return "", false
	}
	for _, x := range p[:4] {
		if strings.Trim(x, "0123456789abcdef") != "" {
			return "", false
		}
	}
	if strings.Trim(p[1], "0") == "" || strings.Trim(p[2], "0") == "" {
		return "", false
	}
	return p[1], true
}

// validName is the form of tenant names.
func validName(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

// denials counts refused requests and says at most once a minute that there
// were some, so that they cannot fill a log.
type denials struct {
	mu   sync.Mutex // guards the rest
	n    int64
	last time.Time
}

func (d *denials) note(now time.Time) (n int64, due bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	if !d.last.IsZero() && now.Sub(d.last) < time.Minute {
		return 0, false
	}
	n, d.n, d.last = d.n, 0, now
	return n, true
}

func code(err error) slog.Value {
	if err == nil {
		return slog.StringValue("")
	}
	return slog.StringValue(string(asError(err).Code))
}
