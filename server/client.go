package server

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/stellarun/stella/server/api"
)

// ErrUnreachable means that nobody answered: no process listens on the socket,
// or it went away before its answer was complete. Everything but CreateExport
// may simply be asked again.
var ErrUnreachable = errors.New("nobody answers")

// Limits of an answer.
const (
	maxAnswer = 256 << 20
	maxLine   = 64 << 20 // the report of 10,000 bundles has 20 MiB
)

// ClientOptions says where a site is served and who asks.
type ClientOptions struct {
	Socket      string // required
	Cookie      []byte // required; what keys/cookie holds
	Tenant      string // "": the site's default
	Traceparent string // sent with every request when set
	// Owners are the uids that may serve the socket; to anybody else the
	// cookie is not shown. Empty: nobody is refused.
	Owners []int
	// Patience is how long the process behind the socket may be silent: who does not even
	// answer then that it is there makes a request a *[SilentError]. Zero: for ever.
	Patience time.Duration
}

// Client is a site behind a socket. Its methods may be called from any
// goroutine. Errors of the site are *[api.Error], as the site itself returns
// them; everything else is a *[SilentError], or wraps [ErrUnreachable] or the error of ctx.
type Client struct {
	opt  ClientOptions
	http *http.Client
	pid  atomic.Int32 // of who listens; 0 before somebody was reached
}

var _ api.Site = (*Client)(nil)

// NewClient returns a client that connects when it is first used.
func NewClient(opt ClientOptions) *Client {
	c := &Client{opt: opt}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:        c.dial,
			DisableCompression: true,
			MaxIdleConns:       4,
			IdleConnTimeout:    30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dial connects, and makes sure that the other end is who it should be.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.opt.Socket)
	if err != nil {
		if notServed(err) {
			return nil, fmt.Errorf("server: %s: %w", c.opt.Socket, ErrUnreachable)
		}
		return nil, err
	}
	cred, err := credentials(conn)
	if err == nil {
		c.pid.Store(cred.Pid)
	}
	if len(c.opt.Owners) == 0 {
		return conn, nil
	}
	if err == nil && !slices.Contains(c.opt.Owners, int(cred.Uid)) {
		err = &api.Error{
			Code:    api.CodeUnauthenticated,
			Message: fmt.Sprintf("the socket %s is served by uid %d, who does not own the site", c.opt.Socket, cred.Uid),
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// call is one request.
type call struct {
	method string
	path   string // below Prefix, escaped
	query  url.Values
	body   any // nil: none
	stream bool
}

// open sends a request and returns the answer if it is not an error. Closing its body ends
// the request.
func (c *Client) open(ctx context.Context, q call) (*http.Response, error) {
	var body io.Reader
	if q.body != nil {
		b, err := encode(q.body)
		if err != nil {
			return nil, &api.Error{Code: api.CodeInvalid, Message: err.Error()}
		}
		body = bytes.NewReader(b)
	}
	ctx, stop := c.watched(ctx)
	u := "http://stella" + Prefix + q.path
	if len(q.query) > 0 {
		u += "?" + q.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, q.method, u, body)
	if err != nil {
		stop()
		return nil, fmt.Errorf("server: %w", err)
	}
	set := func(name, value string) {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	set(HeaderCookie, string(trimCookie(c.opt.Cookie)))
	set(HeaderTenant, c.opt.Tenant)
	set(HeaderTraceparent, c.opt.Traceparent)
	if body != nil {
		set("Content-Type", "application/json")
	}
	if q.stream {
		set("Accept", ContentNDJSON)
	}
	res, err := c.http.Do(r)
	if err != nil {
		err = lost(ctx, err) // before ctx ends
		stop()
		return nil, err
	}
	res.Body = &watchedBody{res.Body, ctx, stop}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		return nil, failure(ctx, res)
	}
	return res, nil
}

// lost is what a call says when no answer, or only a part of one, came.
func lost(ctx context.Context, err error) error {
	var e *api.Error
	var silent *SilentError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &silent):
		return silent
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrUnreachable):
		return err
	}
	return fmt.Errorf("server: %w: %v", ErrUnreachable, err)
}

// failure reads the error out of an answer.
func failure(ctx context.Context, res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, maxLine))
	if err != nil {
		return lost(ctx, err)
	}
	var w wrapped
	if err := json.Unmarshal(b, &w); err != nil || w.Error == nil || w.Error.Code == "" {
		return &api.Error{Code: api.CodeInternal, Message: "the answer " + strconv.Itoa(res.StatusCode) + " is not one of stella's"}
	}
	return w.Error
}

// ask sends a request and decodes the answer into a T.
func ask[T any](ctx context.Context, c *Client, q call) (T, int, error) {
	var v T
	res, err := c.open(ctx, q)
	if err != nil {
		return v, 0, err
	}
	defer res.Body.Close()
	b, err := readAll(ctx, res.Body)
	if err != nil {
		return v, 0, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, 0, fmt.Errorf("server: the answer cannot be read: %w", err)
	}
	return v, res.StatusCode, nil
}

func readAll(ctx context.Context, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil {
		return nil, lost(ctx, err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("server: the answer is larger than %d bytes", maxAnswer)
	}
	return b, nil
}

// get is ask for what needs no status.
func get[T any](ctx context.Context, c *Client, q call) (T, error) {
	v, _, err := ask[T](ctx, c, q)
	return v, err
}

// follow sends a request, hands each event to f, and decodes the result.
func follow[T any](ctx context.Context, c *Client, q call, f func(event) error) (T, error) {
	var v T
	q.stream = true
	res, err := c.open(ctx, q)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	in := bufio.NewScanner(res.Body)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			if !in.Scan() { // the process went away in the midst of a line
				return v, lost(ctx, cmp.Or(in.Err(), io.ErrUnexpectedEOF))
			}
			return v, fmt.Errorf("server: the answer cannot be read: %w", err)
		}
		switch {
		case e.Error != nil:
			return v, e.Error
		case e.Result != nil:
			if err := json.Unmarshal(e.Result, &v); err != nil {
				return v, fmt.Errorf("server: the answer cannot be read: %w", err)
			}
			return v, nil
		}
		if err := f(e); err != nil {
			return v, err
		}
	}
	if err := in.Err(); err != nil {
		return v, lost(ctx, err)
	}
	return v, lost(ctx, io.ErrUnexpectedEOF)
}

// long is a call that may report progress.
func long[T any](ctx context.Context, c *Client, q call, p api.Progress) (T, error) {
	if p == nil {
		return get[T](ctx, c, q)
	}
	return follow[T](ctx, c, q, func(e event) error {
		if e.Progress != nil {
			p(e.Progress.Done, e.Progress.Total)
		}
		return nil
	})
}
