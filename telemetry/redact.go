package telemetry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sort"
	"time"
)

// MinSecret is how many bytes, line feeds and carriage returns not counted, a
// value must have to be masked: a shorter one would be found everywhere.
const MinSecret = 6

// Secret is a value that must not appear, with the name that stands in its place.
type Secret struct {
	Name  string
	Value []byte
}

// A Redactor replaces known values by [redacted:NAME:tag] wherever they appear:
// as they are, each line of them, and in the forms that programs give to text
// (see forms). Line feeds and carriage returns do not count, so that a value that
// was wrapped, or that an output of several lines holds, is found. It is a
// courtesy to programs that are careless, no fence against those that mean to tell.
//
// It never changes; its methods may be called from any goroutine.
type Redactor struct {
	auto    automaton
	markers []string // by secret
}

// NewRedactor returns a redactor of these secrets; the tag of a marker is made
// with key, so that equal values can be told without telling which. A value that
// is shorter than [MinSecret] is an error.
func NewRedactor(key []byte, secrets []Secret) (*Redactor, error) {
	r := &Redactor{}
	var all []needle
	for i, s := range secrets {
		if !Maskable(s.Value) {
			return nil, errors.New("telemetry: the secret " + s.Name + " is too short to be masked")
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(s.Value)
		r.markers = append(r.markers, "[redacted:"+s.Name+":"+hex.EncodeToString(mac.Sum(nil)[:4])+"]")
		for _, f := range forms(s.Value) {
			all = append(all, needle{f, i})
		}
	}
	r.auto = newAutomaton(all)
	return r, nil
}

// Maskable says whether a value is long enough to be masked.
func Maskable(value []byte) bool { return len(squeeze(value)) >= MinSecret }

// squeeze is b without line feeds and carriage returns.
func squeeze(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if c != '\n' && c != '\r' {
			out = append(out, c)
		}
	}
	return out
}

// Text returns s with all values masked, and a beginning of one at its end.
func (r *Redactor) Text(s string) string {
	out := ""
	st := r.Stream(func(_ time.Time, line []byte) { out += string(line) })
	st.Line(time.Time{}, []byte(s)) // line feeds inside of a line count as little as between lines
	st.Close()
	return out
}

// Find returns the name of a secret that stands in b, "" if none does.
func (r *Redactor) Find(b []byte) string {
	var s scan
	for _, c := range b {
		if name, ok := r.step(&s, c); ok {
			return name
		}
	}
	return ""
}

// scan is a place in a stream that is only searched.
type scan struct{ state int32 }

func (r *Redactor) step(s *scan, c byte) (string, bool) {
	if c == '\n' || c == '\r' {
		return "", false
	}
	s.state = r.auto.next(s.state, c)
	if m := r.auto.matchAt(s.state); m != noMatch {
		return r.nameOf(m), true
	}
	return "", false
}

func (r *Redactor) nameOf(state int32) string {
	marker := r.markers[r.auto.nodes[state].secret]
	return marker[len("[redacted:") : len(marker)-len(":12345678]")]
}

// A LeakError says that a secret was found where it must not be.
type LeakError struct{ Name string }

func (e *LeakError) Error() string { return "it holds the secret " + e.Name }

// Guard returns a reader of what from gives that ends with a *[LeakError] as
// soon as a secret was read.
func (r *Redactor) Guard(from io.Reader) io.Reader { return &guard{r: r, from: from} }

type guard struct {
	r    *Redactor
	from io.Reader
	at   scan
	err  error
}

func (g *guard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.from.Read(p)
	for _, c := range p[:n] {
		if name, ok := g.r.step(&g.at, c); ok {
			g.err = &LeakError{name}
			return 0, g.err
		}
	}
	return n, err
}

// Stream returns a masker of one stream of lines. emit receives the masked lines
// in order and must not keep them. A line is held back while its end may be the
// beginning of a secret that goes on in the next.
func (r *Redactor) Stream(emit func(at time.Time, line []byte)) *Stream {
	return &Stream{r: r, emit: emit}
}

// A Stream masks lines as they come. It is for one goroutine.
type Stream struct {
	r    *Redactor
	emit func(time.Time, []byte)

	state int32
	buf   []byte // raw bytes of the lines that are held, behind those that have gone
	where []int  // of each byte that counts, its place in buf
	lines []held
	found []span // sorted, apart from each other

	// What has gone: lines, their bytes, and matches that end with them.
	first, gone, next int
}

type held struct {
	at  time.Time
	end int // in buf
}

// A span is a match, by places in where.
type span struct {
	from, to int
	secret   int
}

// Line adds one line, without its line feed.
func (s *Stream) Line(at time.Time, line []byte) {
	for _, c := range line {
		s.buf = append(s.buf, c)
		if c == '\n' || c == '\r' {
			continue
		}
		s.where = append(s.where, len(s.buf)-1)
		s.state = s.r.auto.next(s.state, c)
		if m := s.r.auto.matchAt(s.state); m != noMatch {
			n := &s.r.auto.nodes[m]
			s.match(span{len(s.where) - int(n.depth), len(s.where), int(n.secret)})
		}
	}
	s.lines = append(s.lines, held{at, len(s.buf)})
	s.release(len(s.where) - int(s.r.auto.nodes[s.state].depth))
}

// match adds a match, joined with those that it overlaps.
func (s *Stream) match(m span) {
	for len(s.found) > 0 && s.found[len(s.found)-1].to > m.from {
		last := s.found[len(s.found)-1]
		if last.from <= m.from {
			m.from, m.secret = last.from, last.secret
		}
		s.found = s.found[:len(s.found)-1]
	}
	s.found = append(s.found, m)
}

// Close emits what is held back. The beginning of a secret, where the stream
// ends in it, is masked as well.
func (s *Stream) Close() {
	if n := s.r.auto.nodes[s.state]; n.depth >= MinSecret {
		s.match(span{len(s.where) - int(n.depth), len(s.where), int(n.secret)})
	}
	s.release(len(s.where))
}

// release emits the lines that lie before place n: no match that is still to come
// begins before it. One that goes beyond it may grow, and has its marker.
func (s *Stream) release(n int) {
	safe := len(s.buf)
	if n < len(s.where) {
		safe = s.where[n]
	}
	for ; s.first < len(s.lines) && s.lines[s.first].end <= safe; s.first++ {
		l := s.lines[s.first]
		s.emit(l.at, s.masked(s.gone, l.end))
		s.gone = l.end
	}
	if s.gone > 0 && 2*s.gone >= len(s.buf) {
		s.forget()
	}
}

// masked is buf[from:to] with its matches replaced: each where it begins.
func (s *Stream) masked(from, to int) []byte {
	if s.next == len(s.found) || s.raw(s.found[s.next].from) >= to {
		return s.buf[from:to]
	}
	var out []byte
	at := from
	for s.next < len(s.found) {
		m := s.found[s.next]
		a, b := s.raw(m.from), s.raw(m.to-1)+1
		if a >= to {
			break
		}
		if a >= from {
			out = append(append(out, s.buf[at:a]...), s.r.markers[m.secret]...)
		}
		at = min(b, to)
		if b > to {
			break // it goes on in the next line
		}
		s.next++
	}
	return append(out, s.buf[at:to]...)
}

// raw is where a place lies in buf: -1 in a line that has gone.
func (s *Stream) raw(place int) int {
	if place < 0 {
		return -1
	}
	return s.where[place]
}

// forget drops what has gone.
func (s *Stream) forget() {
	n := sort.SearchInts(s.where, s.gone)
	keep := s.found[:0]
	for _, m := range s.found[s.next:] { // one may begin in a line that has gone: its marker went with that
		keep = append(keep, span{m.from - n, m.to - n, m.secret})
	}
	s.found = keep
	left := copy(s.buf, s.buf[s.gone:])
	clear(s.buf[left:])
	s.buf = s.buf[:left]
	s.where = append(s.where[:0], s.where[n:]...)
	for i := range s.where {
		s.where[i] -= s.gone
	}
	s.lines = append(s.lines[:0], s.lines[s.first:]...)
	for i := range s.lines {
		s.lines[i].end -= s.gone
	}
	s.first, s.gone, s.next = 0, 0, 0
}
