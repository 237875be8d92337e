package main

import (
	"bufio"
	"crypto/hmac"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stellarun/stella/outbox"
)

// receiver webhook|socket NAME receives events until the script ends. They are
// lines of NAME.got. While there is a file NAME.broken it takes none; a webhook
// takes none either that is not signed with the key in NAME.key. The URL or path
// is in $NAME.
func cmdReceiver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: receiver webhook|socket name")
	}
	r := &scriptReceiver{base: ts.MkAbs(args[1])}
	switch args[0] {
	case "webhook":
		s := httptest.NewServer(r)
		ts.Defer(s.Close)
		ts.Setenv(args[1], s.URL+"/hook")
	case "socket":
		l, err := net.Listen("unix", r.base+".sock")
		ts.Check(err)
		ts.Defer(func() { l.Close() })
		ts.Setenv(args[1], r.base+".sock")
		go r.serve(l)
	default:
		ts.Fatalf("unknown kind %q", args[0])
	}
}

type scriptReceiver struct {
	base string
	mu   sync.Mutex // guards NAME.got
}

func (r *scriptReceiver) broken() bool {
	_, err := os.Lstat(r.base + ".broken")
	return err == nil
}

func (r *scriptReceiver) take(line string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(r.base+".got", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, line)
	return err
}

func (r *scriptReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil || r.broken() {
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	key, err := os.ReadFile(r.base + ".key")
	if err != nil || !signed(req.Header.Get(outbox.HeaderSignature), []byte(strings.TrimSpace(string(key))), body) {
		http.Error(w, "the signature is not right", http.StatusForbidden)
		return
	}
	if err := r.take(req.Header.Get(outbox.HeaderEventID) + " " + string(body)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// signed checks a signature as a receiver should.
func signed(header string, key, body []byte) bool {
	at, _, ok := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	unix, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || time.Since(time.Unix(unix, 0)).Abs() > 5*time.Minute {
		return false
	}
	return hmac.Equal([]byte(header), []byte(outbox.Sign(key, time.Unix(unix, 0), body)))
}

func (r *scriptReceiver) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // the script has ended
		}
		for lines := bufio.NewScanner(c); lines.Scan(); {
			answer := "ok"
			if r.broken() || r.take(lines.Text()) != nil {
				answer = "broken"
			}
			if _, err := fmt.Fprintln(c, answer); err != nil {
				break
			}
		}
		c.Close()
	}
}
