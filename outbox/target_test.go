package outbox

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
)

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func event(n string) Event {
	return Event{ID: "ops/" + n, Body: []byte(`{"actor":"x","id":"ops/` + n + `"}`)}
}

func line(n string) string { return string(event(n).Body) + "\n" }

func fileIn(dir string) *file {
	return &file{path: filepath.Join(dir, "outbox", "ops.ndjson"), folder: filepath.Join(dir, "outbox")}
}

func mustTake(t *testing.T, x target, events ...Event) {
	t.Helper()
	if n, err := x.deliver(context.Background(), events); n != len(events) || err != nil {
		t.Fatalf("deliver = %d, %v, want all %d", n, err, len(events))
	}
}

func TestAFileGetsALineForEachEvent(t *testing.T) {
	dir := t.TempDir()
	f := fileIn(dir)
	mustTake(t, f, event("1"), event("2"))
	mustTake(t, f, event("3"))
	if got, want := read(t, f.path), line("1")+line("2")+line("3"); got != want {
		t.Errorf("file %q, want %q", got, want)
	}
	for path, want := range map[string]fs.FileMode{f.path: 0o600, f.folder: fs.ModeDir | 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, fi.Mode(), err, want)
		}
	}
	if err := os.Rename(f.path, f.path+".1"); err != nil { // somebody rotates it
		t.Fatal(err)
	}
	mustTake(t, f, event("4"))
	if got := read(t, f.path); got != line("4") {
		t.Errorf("after it was moved away: %q", got)
	}
}

func TestATornLineIsCutOffAndAnythingElseIsEnded(t *testing.T) {
	whole := line("1")
	for _, c := range []struct{ before, after string }{
		{"", ""},
		{whole, whole},
		{whole + whole[:20], whole},
		{whole + whole[:4], whole},
		{whole[:1], ""},
		{whole + whole[:20] + "\x00\x00\x00", whole},
		{whole + "\x00\x00", whole},
		{whole + line("2")[:len(whole)-1], whole + line("2")}, // only its end is missing
		{"notes of mine", "notes of mine\n"},
		{whole + "{\"note\":1", whole + "{\"note\":1\n"},
		{strings.Repeat("x", maxLine+5), strings.Repeat("x", maxLine+5) + "\n"},
		{whole + strings.Repeat("\x00", maxLine), whole + strings.Repeat("\x00", maxLine) + "\n"},
	} {
		f := fileIn(t.TempDir())
		mustTake(t, f, event("0"))
		if err := os.WriteFile(f.path, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		mustTake(t, f, event("9"))
		if got := read(t, f.path); got != c.after+line("9") {
			t.Errorf("%.40q becomes %.40q, want %.40q", c.before, got, c.after+line("9"))
		}
	}
}

func TestAFileThatCannotBeWrittenStaysAsItWas(t *testing.T) {
	dir := t.TempDir()
	for name, put := range map[string]func(path string) error{
		"link":   func(p string) error { return os.Symlink("/dev/null", p) },
		"pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"folder": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(dir, name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		n, err := (&file{path: path}).deliver(context.Background(), []Event{event("1")})
		if n != 0 || err == nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if name == "pipe" && !errors.Is(err, fsx.ErrNotRegular) {
			t.Errorf("pipe: %v", err)
		}
	}
	if n, err := (&file{path: filepath.Join(dir, "none", "x")}).deliver(context.Background(), []Event{event("1")}); n != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder of others is made: %d, %v", n, err)
	}
	var refused *refusal
	if _, err := (&file{path: dir}).deliver(context.Background(), []Event{event("1")}); errors.As(err, &refused) {
		t.Errorf("the event is at fault: %v", err)
	}
}

// listen serves a Unix socket: answer says what comes back for a line, "" hangs up.
func listen(t *testing.T, answer func(line string) string) *socket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				a := answer(line)
				if a == "" {
					break
				}
				if _, err := io.WriteString(c, a); err != nil {
					break
				}
			}
			c.Close()
		}
	}()
	return &socket{path: path, timeout: 10 * time.Second}
}

func TestASocketAnswersEachLine(t *testing.T) {
	var got []string
	s := listen(t, func(line string) string { got = append(got, line); return "ok\n" })
	mustTake(t, s, event("1"), event("2"))
	if want := []string{line("1"), line("2")}; !slices.Equal(got, want) {
		t.Errorf("it received %q, want %q", got, want)
	}
}

func TestAnAnswerThatIsNotOk(t *testing.T) {
	for _, c := range []struct {
		answer, want string
		refused      bool
	}{
		{"disk full\n", `it answered "disk full", not ok`, true},
		{"OK\n", `it answered "OK", not ok`, true},
		{"\x1b[2J\n", `it answered "\x1b[2J", not ok`, true},
		{"ok" + strings.Repeat(" ", 10*maxAnswer), `it answered "ok`, true},
		{"", "it hung up without an answer", false},
	} {
		s := listen(t, func(line string) string {
			if strings.Contains(line, "ops/1") {
				return "ok\r\n"
			}
			return c.answer
		})
		n, err := s.deliver(context.Background(), []Event{event("1"), event("2"), event("3")})
		var refused *refusal
		if n != 1 || err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &refused) != c.refused {
			t.Errorf("%.20q: %d, %v, want 1 and %q, refused %v", c.answer, n, err, c.want, c.refused)
		}
	}
}

func TestASocketThatIsSilent(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	s := listen(t, func(string) string { <-hang; return "" })
	s.timeout = 10 * time.Millisecond
	if n, err := s.deliver(context.Background(), []Event{event("1")}); n != 0 || err == nil || err.Error() != "no answer in 10ms" {
		t.Errorf("%d, %v", n, err)
	}
	s.timeout = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if n, err := s.deliver(ctx, []Event{event("1")}); n != 0 || err == nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
	s.path += ".none"
	if n, err := s.deliver(context.Background(), []Event{event("1")}); n != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %d, %v", n, err)
	}
}

const secretText = "0123456789abcdef0123456789abcdef"

func hook(t *testing.T, s manifests.Sink, handle http.HandlerFunc) *webhook {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte(secretText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.URL == "" {
		s.URL = server.URL + "/hook?x=1"
	}
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
	}
	h := newWebhook(s, secret, func() time.Time { return time.Unix(1795305600, 5) })
	t.Cleanup(h.close)
	return h
}

func TestAWebhookIsPostedAndSigned(t *testing.T) {
	var got []string
	h := hook(t, manifests.Sink{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if want := Sign([]byte(secretText), time.Unix(1795305600, 0), body); r.Header.Get("Stella-Signature") != want {
			t.Errorf("signature %q, want %q", r.Header.Get("Stella-Signature"), want)
		}
		got = append(got, r.Method+" "+r.URL.String()+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Stella-Event-Id")+" "+string(body))
		w.WriteHeader(202)
	})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1/") // it is not asked
	mustTake(t, h, event("1"), event("2"))
	want := []string{
		`POST /hook?x=1 application/json ops/1 {"actor":"x","id":"ops/1"}`,
		`POST /hook?x=1 application/json ops/2 {"actor":"x","id":"ops/2"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("it received %q, want %q", got, want)
	}
	// Known answer, from: printf '1795305600.{}' | openssl dgst -sha256 -hmac KEY
	if got, want := Sign([]byte(secretText), time.Unix(1795305600, 0), []byte("{}")), "t=1795305600,v1=96f212b9c9d4eed478d56e91bf0dfc07eae69b5d54a67ca3fa8262dbc2748c9b"; got != want {
		t.Errorf("Sign = %q, want %q", got, want)
	}
}

func TestAnswersOfAWebhook(t *testing.T) {
	for _, c := range []struct {
		status  int
		want    string // "" for taken
		refused bool
	}{
		{200, "", false}, {204, "", false}, {299, "", false}, {302, "status 302", true}, {400, "status 400", true}, {500, "status 500", true},
		{401, "status 401", true}, {501, "status 501", true}, {408, "status 408", false}, {429, "status 429", false},
		{502, "status 502", false}, {503, "status 503", false}, {504, "status 504", false}, {507, "status 507", false},
	} {
		asked := 0
		h := hook(t, manifests.Sink{}, func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Location", "/elsewhere")
			if c.status == 507 {
				w.Header().Set("Retry-After", "60")
			}
			w.WriteHeader(c.status)
			if c.status != 204 {
				_, _ = io.WriteString(w, strings.Repeat("secret of theirs ", 10000))
			}
		})
		n, err := h.deliver(context.Background(), []Event{event("1")})
		var refused *refusal
		if (n == 1) != (c.want == "") || (err == nil) != (c.want == "") || err != nil && err.Error() != c.want || errors.As(err, &refused) != c.refused || asked != 1 {
			t.Errorf("%d: %d, %v after %d requests, want %q, refused %v", c.status, n, err, asked, c.want, c.refused)
		}
	}
}

func TestAWebhookThatIsSilent(t *testing.T) {
	hang := make(chan struct{})
	h := hook(t, manifests.Sink{Timeout: 20 * time.Millisecond}, func(http.ResponseWriter, *http.Request) { <-hang })
	defer close(hang)
	n, err := h.deliver(context.Background(), []Event{event("1")})
	if n != 0 || err == nil || err.Error() != "no answer in 20ms" {
		t.Errorf("%d, %v", n, err)
	}
	h = hook(t, manifests.Sink{URL: "http://127.0.0.1:1/secret-path"}, nil)
	n, err = h.deliver(context.Background(), []Event{event("1")})
	if n != 0 || !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%d, %v", n, err)
	}
	h = hook(t, manifests.Sink{Timeout: time.Second}, func(w http.ResponseWriter, _ *http.Request) { // its headers have no end
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(c, "X: "+strings.Repeat("x", 1<<16)+"\r\n"); err != nil {
				return
			}
		}
	})
	if n, err := h.deliver(context.Background(), []Event{event("1")}); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

// A name that is taken for this machine, and is not, gets nothing in plain text.
func TestPlainHTTPStaysOnThisMachine(t *testing.T) {
	for address, ok := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "10.0.0.1:80": false, "[fe80::1]:80": false, "": false} {
		if err := loopbackOnly("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	h := hook(t, manifests.Sink{URL: "http://192.0.2.1/"}, nil)
	if n, err := h.deliver(context.Background(), []Event{event("1")}); n != 0 || err == nil || !strings.Contains(err.Error(), "which is not this machine") {
		t.Errorf("%d, %v", n, err)
	}
}

func TestASecretIsReadByItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct {
		text string
		mode fs.FileMode
		want string
	}{
		{secretText, 0o600, ""}, {secretText + "\r\n", 0o400, ""}, {strings.Repeat("x", maxSecret), 0o600, ""},
		{secretText, 0o640, "can be read or written by others (mode 0640): chmod 600"}, {secretText, 0o602, "mode 0602"},
		{secretText[1:] + "\n", 0o600, "holds 31 bytes, and 32 to 4096 are wanted"}, {strings.Repeat("x", maxSecret+1), 0o600, "4097 bytes"},
	} {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		key, err := readSecret(path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, mode %o: %v, want %q", c.text, c.mode, err, c.want)
		}
		if err == nil && string(key) != strings.TrimRight(c.text, "\r\n") {
			t.Errorf("%q is read as %q", c.text, key)
		}
	}
	if err := os.Symlink("0", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"none", "link", "."} {
		if _, err := readSecret(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	h := hook(t, manifests.Sink{}, func(http.ResponseWriter, *http.Request) { t.Error("it was posted without a key") })
	h.secret += ".none"
	if n, err := h.deliver(context.Background(), []Event{event("1")}); n != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d, %v", n, err)
	}
}
