package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// A request may take as long as it likes, for as long as the process behind the socket is
// alive. Whether it is, it is asked beside the request, in a way that needs nothing of the
// site: OPTIONS *, which net/http answers by itself.

// A SilentError says that a process holds the socket and does not answer even that it is
// there: it hangs, or was stopped.
type SilentError struct {
	PID int // 0 where it is not known
	For time.Duration
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("server: the process behind the socket (pid %d) has not answered for %v", e.PID, e.For)
}

// watched is the context of a request, which ends with a *[SilentError] as its cause when the
// other end is not alive. Whoever calls it calls the function when the answer is read.
func (c *Client) watched(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c.opt.Patience > 0 {
			select {
			case <-time.After(c.opt.Patience / 5): // most requests are answered before
			case <-ctx.Done():
				return
			}
			if c.silent(ctx) {
				cancel(&SilentError{PID: int(c.pid.Load()), For: c.opt.Patience})
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// silent says whether nothing at all is answered. Who has closed the socket is not: he ends
// what is under way.
func (c *Client) silent(ctx context.Context) bool {
	ctx, stop := context.WithTimeoutCause(ctx, c.opt.Patience*4/5, &SilentError{})
	defer stop()
	r := &http.Request{Method: http.MethodOptions, URL: &url.URL{Scheme: "http", Host: "stella", Opaque: "*"}, Header: http.Header{}}
	res, err := c.http.Do(r.WithContext(ctx))
	if err == nil {
		res.Body.Close()
		return false
	}
	var late *SilentError
	return errors.As(context.Cause(ctx), &late)
}

// watchedBody is an answer whose reader is told if the other end dies in the midst of it.
type watchedBody struct {
	io.ReadCloser
	ctx  context.Context
	stop func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var silent *SilentError
	if err != nil && errors.As(context.Cause(b.ctx), &silent) {
		err = silent
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.stop()
	return b.ReadCloser.Close()
}
