package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/telemetry"
)

const (
	maxLine   = 64 << 10 // bytes; longer lines are cut into pieces
	firstLine = 4 << 10  // bytes of the buffer of a program that says little
	// Once the processes are dead there is at most a full pipe left to read:
	// 1 MiB if the program made it as large as Linux allows. The pause bounds
	// the wait for somebody outside who holds the other end.
	drainBytes = 1<<20 + maxLine
	drainPause = 100 * time.Millisecond
)

// logs passes the lines of both streams on: the first half of the cap as they
// come, then nothing until the end, then the last half. What lies between is
// counted and dropped. A program is read however much it writes.
type logs struct {
	now  func() time.Time
	emit func(stream string, at time.Time, line []byte)
	mask map[string]*telemetry.Stream // by stream; empty without secrets; mu guards it
	held atomic.Bool                  // somebody held a stream open when all processes were dead

	mu      sync.Mutex // guards what follows, and lets calls of emit follow each other
	head    int64      // bytes that may still be passed on at once
	tail    tail
	dropped int64
}

func newLogs(t *runner.Task, now func() time.Time) *logs {
	limit := t.Limits.Log
	if limit <= 0 {
		limit = defaultLog
	}
	l := &logs{now: now, emit: t.Log, head: limit - limit/2}
	l.tail.limit = int(limit / 2)
	if l.emit == nil {
		l.emit = func(string, time.Time, []byte) {}
	}
	if t.Redact != nil {
		l.mask = map[string]*telemetry.Stream{}
		for _, stream := range []string{"stdout", "stderr"} {
			l.mask[stream] = t.Redact.Stream(func(at time.Time, line []byte) { l.pass(stream, at, line) })
		}
	}
	return l
}

// read splits one stream into lines, until its end or a little after [drain].
// It closes r.
func (l *logs) read(stream string, r *os.File) {
	defer r.Close()
	buf, n := make([]byte, firstLine), 0
	step := func() (int, error) {
		m, err := r.Read(buf[n:])
		full := n+m == len(buf)
		if full && len(buf) < maxLine { // it has much to say
			buf = append(buf, make([]byte, maxLine-len(buf))...)
		}
		n = l.split(stream, buf, n+m)
		return m, err
	}
	var err error
	for err == nil {
		_, err = step()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		for left := drainBytes; left > 0; {
			r.SetReadDeadline(time.Now().Add(drainPause))
			var m int
			if m, err = step(); err != nil {
				break
			}
			left -= m
		}
	}
	if !errors.Is(err, io.EOF) {
		l.held.Store(true)
	}
	if n > 0 {
		l.line(stream, l.now(), buf[:n])
	}
}

// drain tells the readers of both streams that the processes are dead.
func drain(streams []*os.File) {
	for _, r := range streams {
		r.SetReadDeadline(time.Now())
	}
}

// split passes on the lines that buf[:n] completes, moves the rest to the
// front, and returns its length. A buffer without a line feed is a piece of a
// long line.
func (l *logs) split(stream string, buf []byte, n int) int {
	at, from := l.now(), 0
	for {
		i := bytes.IndexByte(buf[from:n], '\n')
		if i < 0 {
			break
		}
		l.line(stream, at, buf[from:from+i])
		from += i + 1
	}
	if from == 0 && n == len(buf) {
		l.line(stream, at, buf)
		return 0
	}
	return copy(buf, buf[from:n])
}

// line masks one line, before the cap could cut a secret in two, and passes it on.
func (l *logs) line(stream string, at time.Time, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.mask[stream]; m != nil {
		m.Line(at, line)
		return
	}
	l.pass(stream, at, line)
}

// pass passes one line on, keeps it for the end, or drops it. The caller holds mu.
func (l *logs) pass(stream string, at time.Time, line []byte) {
	size := int64(len(line)) + 1
	if l.head >= size {
		l.head -= size
		l.emit(stream, at, line)
		return
	}
	l.head = 0 // from here on, the order in which lines came is that of the tail
	l.dropped += l.tail.push(stream, at, line)
}

// flush passes on what was kept for the end and returns the number of bytes
// that were dropped. The readers have ended.
func (l *logs) flush() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, stream := range []string{"stdout", "stderr"} {
		if m := l.mask[stream]; m != nil {
			m.Close()
		}
	}
	l.tail.each(l.emit)
	return l.dropped
}

// A tail holds the last lines in one buffer, each behind a head that counts
// against the limit, so that many short lines cannot take more memory than few
// long ones.
type tail struct {
	limit int
	buf   []byte
	from  int // of the oldest line
}

// tailHead is the length of what precedes a line: stream, time, length.
const tailHead = 1 + 8 + 4

// push adds a line and returns how many bytes of lines it dropped for that.
func (t *tail) push(stream string, at time.Time, line []byte) (dropped int64) {
	need := tailHead + len(line)
	if need > t.limit {
		dropped = int64(len(line)) + 1
		for t.from < len(t.buf) { // it would have pushed all others out
			dropped += t.pop()
		}
		return dropped
	}
	for len(t.buf)-t.from+need > t.limit {
		dropped += t.pop()
	}
	if t.from > t.limit { // at most half of the buffer is behind us
		t.buf = append(t.buf[:0], t.buf[t.from:]...)
		t.from = 0
	}
	t.buf = append(t.buf, stream[3]) // stdout, stderr: 'o' or 'e'
	t.buf = binary.LittleEndian.AppendUint64(t.buf, uint64(at.UnixNano()))
	t.buf = binary.LittleEndian.AppendUint32(t.buf, uint32(len(line)))
	t.buf = append(t.buf, line...)
	return dropped
}

// pop removes the oldest line and returns its length with its line feed.
func (t *tail) pop() int64 {
	n := int(binary.LittleEndian.Uint32(t.buf[t.from+9:]))
	t.from += tailHead + n
	return int64(n) + 1
}

func (t *tail) each(emit func(string, time.Time, []byte)) {
	for b := t.buf[t.from:]; len(b) > 0; {
		stream := "stdout"
		if b[0] == 'e' {
			stream = "stderr"
		}
		at := time.Unix(0, int64(binary.LittleEndian.Uint64(b[1:])))
		n := tailHead + int(binary.LittleEndian.Uint32(b[9:]))
		emit(stream, at, b[tailHead:n])
		b = b[n:]
	}
}
