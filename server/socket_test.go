package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

func TestTheSocketBelongsToItsOwnerAlone(t *testing.T) {
	s := serve(t, newFake(), nil)
	fi, err := os.Lstat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fi.Mode(); got != os.ModeSocket|0o600 {
		t.Errorf("mode of the socket = %v, want a socket with 0600", got)
	}
	names, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil || len(names) != 1 {
		t.Errorf("the folder holds %v, want the socket alone (%v)", names, err)
	}
}

func TestADeadHoldersSocketIsReplaced(t *testing.T) {
	path := filepath.Join(socketDir(t), "stella.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close() // its file stays, as after a kill
	c := server.NewClient(server.ClientOptions{Socket: path, Cookie: []byte(cookie)})
	if _, err := c.Status(t.Context()); !errors.Is(err, server.ErrUnreachable) {
		t.Fatalf("Status at a dead socket = %v, want ErrUnreachable", err)
	}
	l, err := server.Listen(path)
	if err != nil {
		t.Fatalf("Listen over a dead socket: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close left the socket: %v", err)
	}
}

func TestAHolderRemovesOnlyItsOwnSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "stella.sock")
	first, err := server.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := server.Listen(path) // the first is gone as far as the second knows
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the first holder removed the second's socket: %v", err)
	}
	second.Close()
}

func TestNothingButASocketIsReplaced(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "stella.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := server.Listen(path); err == nil {
		l.Close()
		t.Error("Listen replaced a regular file")
	}
	link := filepath.Join(dir, "link.sock")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if l, err := server.Listen(link); err == nil {
		l.Close()
		t.Error("Listen replaced a link")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file in the way holds %q, %v", b, err)
	}
	if l, err := server.Listen(filepath.Join(dir, strings.Repeat("x", 120))); err == nil {
		l.Close()
		t.Error("Listen took a path that no socket can have")
	}
}

func TestTheLongestPathWorks(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, strings.Repeat("x", server.MaxSocketPath-len(dir)-1))
	l, err := server.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestTheCookieIsNotShownToStrangers(t *testing.T) {
	s := serve(t, newFake(), nil)
	c := server.NewClient(server.ClientOptions{Socket: s.path, Cookie: []byte(cookie), Owners: []int{os.Getuid() + 1}})
	defer c.Close()
	_, err := c.Status(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeUnauthenticated {
		t.Errorf("Status at a stranger's socket = %v, want UNAUTHENTICATED", err)
	}
}

// TestAStepMayNotSpeakToItsSite plays a process below the server: for this
// test the server takes our parent for itself.
func TestAStepMayNotSpeakToItsSite(t *testing.T) {
	s := serve(t, newFake(), server.WithSelf(os.Getppid()))
	_, err := s.Status(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeForbidden {
		t.Errorf("Status from inside an attempt = %v, want FORBIDDEN", err)
	}
}

func TestServeSaysWhenItCannotAccept(t *testing.T) {
	l, err := server.Listen(filepath.Join(socketDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = server.Serve(context.Background(), l, server.Options{Site: newFake().as, Cookie: []byte(cookie)})
	if err == nil {
		t.Error("Serve on a closed listener returned nil")
	}
}

// A process that is killed in the midst of a line has not answered, and that is what is said.
func TestAHolderThatIsKilledInTheMidstOfALine(t *testing.T) {
	path := filepath.Join(socketDir(t), "stella.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"line\":\r\n")
			conn.Close()
		}
	}()
	c := server.NewClient(server.ClientOptions{Socket: path, Cookie: []byte(cookie)})
	err = c.RunLogs(t.Context(), api.LogQuery{RunID: "01a21c28-0f7b-7dca-a119-d3368343df45"}, func(api.LogLine) error { return nil })
	if !errors.Is(err, server.ErrUnreachable) {
		t.Errorf("%v, want ErrUnreachable", err)
	}
}
