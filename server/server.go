// Package server carries [api.Site] over HTTP/1.1 on the Unix socket of a site:
// a handler for the process that holds the site, and a client that is itself
// an api.Site. It decides who may speak (peer credentials, cookie, host), what
// a request may look like (sizes, times, one form for each body), and how an
// error travels. It refuses to know anything of stores, runs or bundles, and
// listens on no network.
//
// [Serve] starts one goroutine that accepts, and net/http one a connection;
// all have ended when it returns. [Client] starts one a request, which ends with that.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/stellarun/stella/server/api"
)

// Prefix is what the path of every route begins with.
const Prefix = "/api/v1/orchestrator"

// Headers of a request.
const (
	HeaderCookie         = "X-Stella-Cookie" // hex, from keys/cookie of the site
	HeaderTenant         = "X-Stella-Tenant"
	HeaderTraceparent    = "Traceparent"
	HeaderIdempotencyKey = "Idempotency-Key"
)

// Limits of a request. Bodies name large files by path, so they are small.
const (
	maxBody       = 4 << 20
	maxHeader     = 16 << 10
	maxWait       = 25 * time.Second // of one long poll
	readTimeout   = 30 * time.Second // for the whole request
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	writeTimeout  = 30 * time.Second // for each piece of an answer
	drainTimeout  = 10 * time.Second
)

// Options says what [Serve] serves, and to whom.
type Options struct {
	Site   func(api.Principal) api.Site // required; the site as one principal sees it
	Cookie []byte                       // required; what keys/cookie holds
	Owner  int                          // uid of the site's owner; it and root may speak
	Tenant string                       // of requests that name none; "" refuses them
	Log    *slog.Logger                 // nil: nothing is logged
	// Drain is how long requests may go on once ctx is done. Those that only
	// wait are ended at once, the others when it is over; both are told to try
	// again, since another process can answer them. Zero means 10 s.
	Drain time.Duration

	self        int           // process whose descendants are refused; zero: this one
	readTimeout time.Duration // zero: the constant
}

func (o *Options) check() error {
	switch {
	case o.Site == nil:
		return errors.New("server: Options.Site is missing")
	case len(trimCookie(o.Cookie)) < 32:
		return errors.New("server: Options.Cookie is shorter than 32 digits")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Drain == 0 {
		o.Drain = drainTimeout
	}
	if o.self == 0 {
		o.self = os.Getpid()
	}
	if o.readTimeout == 0 {
		o.readTimeout = readTimeout
	}
	return nil
}

// Serve answers requests on l until ctx is done, then lets those under way end
// and returns nil. It closes l. Only the holder of the site's lock may call it.
func Serve(ctx context.Context, l net.Listener, opt Options) error {
	if err := opt.check(); err != nil {
		l.Close()
		return err
	}
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	h := newHandler(ctx, opt)
	fresh := freshConns{open: map[net.Conn]bool{}}
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return withPeer(ctx, c, &opt) },
		ConnState:         fresh.note,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       opt.readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		cancel(errDraining)
		srv.Close()
		h.active.Wait()
		return fmt.Errorf("server: accept: %w", err)
	case <-ctx.Done():
	}
	l.Close()
	<-ended
	fresh.close()
	soft, stop := context.WithTimeout(base, opt.Drain)
	defer stop()
	if err := srv.Shutdown(soft); err != nil {
		cancel(errDraining) // those that are still busy are asked to give up
		hard, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		if err := srv.Shutdown(hard); err != nil {
			srv.Close()
		}
	}
	h.active.Wait()
	return nil
}

// freshConns knows the connections that have not yet sent a byte. Shutdown
// would wait seconds for them; their clients lose nothing when they are closed,
// because they find the next holder of the site.
type freshConns struct {
	mu   sync.Mutex // guards open
	open map[net.Conn]bool
}

func (f *freshConns) note(c net.Conn, s http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s == http.StateNew {
		f.open[c] = true
	} else {
		delete(f.open, c)
	}
}

func (f *freshConns) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		c.Close()
	}
}
