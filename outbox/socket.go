package outbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// maxAnswer is the most that is read of an answer.
const maxAnswer = 256

// socket sends a line for each event over a Unix socket, and wants the line "ok"
// back before it sends the next.
type socket struct {
	path    string
	timeout time.Duration
}

func (t *socket) close() {}

func (t *socket) deliver(ctx context.Context, events []Event) (int, error) {
	dialer := net.Dialer{Timeout: t.timeout}
	c, err := dialer.DialContext(ctx, "unix", t.path)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	answers := bufio.NewReader(c)
	for n, e := range events {
		if err := t.send(ctx, c, answers, e); err != nil {
			return n, err
		}
	}
	return len(events), nil
}

func (t *socket) send(ctx context.Context, c net.Conn, answers *bufio.Reader, e Event) error {
	if err := c.SetDeadline(time.Now().Add(t.timeout)); err != nil {
		return err
	}
	if ctx.Err() != nil { // or the deadline of the end would be the one just replaced
		return ctx.Err()
	}
	if _, err := c.Write(append(e.Body, '\n')); err != nil {
		return t.silent(err)
	}
	answer, err := readLine(answers)
	if err != nil {
		return t.silent(err)
	}
	if answer != "ok" {
		return &refusal{fmt.Sprintf("it answered %q, not ok", answer)}
	}
	return nil
}

// silent says that no answer came, and why.
func (t *socket) silent(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer in %s", t.timeout)
	case errors.Is(err, io.EOF):
		return errors.New("it hung up without an answer")
	}
	return err
}

// readLine reads a line without its end. Of one that is too long it returns the
// beginning, which is no answer that anybody waits for.
func readLine(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for b.Len() < maxAnswer {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			break
		}
		b.WriteByte(c)
	}
	return strings.TrimSuffix(b.String(), "\r"), nil
}
