package server

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/stellarun/stella/server/api"
)

// WithReadTimeout shortens the time in which a request must have been read.
func WithReadTimeout(d time.Duration) func(*Options) {
	return func(o *Options) { o.readTimeout = d }
}

// WithSelf makes the server believe that it is another process.
func WithSelf(pid int) func(*Options) { return func(o *Options) { o.self = pid } }

// HandlerForTest is the handler with an owner at its other end, and no socket.
func HandlerForTest(site func(api.Principal) api.Site, cookie string) http.Handler {
	opt := Options{Site: site, Cookie: []byte(cookie), Owner: os.Geteuid(), Tenant: "default"}
	if err := opt.check(); err != nil {
		panic(err)
	}
	h := newHandler(context.Background(), opt)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := peer{uid: os.Geteuid(), principal: "uid:0(root)", admit: func() error { return nil }}
		r.Header.Set(HeaderCookie, cookie)
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
	})
}
