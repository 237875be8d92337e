package server_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stellarun/stella/server"
)

// listening is a socket and a client that waits for whoever serves it for so long.
func listening(t *testing.T, patience time.Duration) (net.Listener, *server.Client) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(socketDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := server.NewClient(server.ClientOptions{Socket: l.Addr().String(), Cookie: []byte(cookie), Patience: patience})
	t.Cleanup(c.Close)
	return l, c
}

// As a process that was stopped: the system takes connections for it, which nobody reads.
func TestWhoDoesNotAnswerAtAllIsGivenUp(t *testing.T) {
	_, c := listening(t, 100*time.Millisecond)
	var silent *server.SilentError
	if _, err := c.Status(t.Context()); !errors.As(err, &silent) || silent.PID != os.Getpid() {
		t.Errorf("a socket that nobody reads: %v, want a SilentError of this process", err)
	}
}

// pulsed serves requests by f, and the question whether it is alive with yes until dead.
func pulsed(t *testing.T, patience time.Duration, dead *atomic.Bool, f func(w http.ResponseWriter, asked <-chan struct{})) *server.Client {
	t.Helper()
	l, c := listening(t, patience)
	asked, ends := make(chan struct{}, 1000), make(chan struct{})
	srv := &http.Server{DisableGeneralOptionsHandler: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodOptions:
			f(w, asked)
		case dead.Load():
			<-ends
		default:
			asked <- struct{}{}
		}
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(l) }()
	t.Cleanup(func() { close(ends); srv.Close(); <-ended })
	return c
}

func TestWhoIsAliveMayTakeAsLongAsHeLikes(t *testing.T) {
	c := pulsed(t, 2*time.Second, new(atomic.Bool), func(w http.ResponseWriter, asked <-chan struct{}) {
		for range 6 { // longer than the patience
			<-asked
		}
		_, _ = w.Write([]byte(`{"siteId":"s"}`))
	})
	if st, err := c.Status(t.Context()); err != nil || st.SiteID != "s" {
		t.Errorf("an answer that took long: %+v, %v", st, err)
	}
}

func TestWhoDiesInTheMidstOfAnAnswerIsGivenUp(t *testing.T) {
	var dead atomic.Bool
	over := make(chan struct{})
	c := pulsed(t, 100*time.Millisecond, &dead, func(w http.ResponseWriter, asked <-chan struct{}) {
		_, _ = w.Write([]byte(`{"siteId":`))
		_ = http.NewResponseController(w).Flush()
		dead.Store(true)
		<-over
	})
	var silent *server.SilentError
	if _, err := c.Status(t.Context()); !errors.As(err, &silent) {
		t.Errorf("half an answer, and no sign of life: %v, want a SilentError", err)
	}
	close(over)
}
