package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/stellarun/stella/server/api"
)

// ContentNDJSON is the media type of streams, one JSON object a line.
const ContentNDJSON = "application/x-ndjson"

// invalid is an [api.CodeInvalid] error.
func invalid(format string, args ...any) error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// asError is the one form in which an error travels. What is not an *api.Error
// is a fault; its text goes out, because only the site's owner and root listen.
func asError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return &api.Error{Code: api.CodeInternal, Message: err.Error()}
}

// wrapped is an error as a body or as the last line of a stream.
type wrapped struct {
	Error *api.Error `json:"error"`
}

// render is the one place that turns an error into an answer.
func (h *handler) render(w http.ResponseWriter, q *request, err error) {
	if q.Context().Err() != nil && errors.Is(context.Cause(q.Context()), errDraining) {
		err = &api.Error{Code: api.CodeStopping, Message: "this process is shutting down", Hint: "try again"}
	}
	e := *asError(err)
	if e.TraceID == "" {
		e.TraceID = q.traceID
	}
	if q.began {
		panic(http.ErrAbortHandler) // half an answer: cut it, so that the client notices
	}
	if e.Status() == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	_ = h.write(w, q, e.Status(), wrapped{&e}) // a client that has gone needs no error
}

// reply writes v as the answer, unless err says that there is none.
func (h *handler) reply(w http.ResponseWriter, q *request, status int, v any, err error) error {
	if err != nil {
		return err
	}
	return h.write(w, q, status, v)
}

func (h *handler) write(w http.ResponseWriter, q *request, status int, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return h.writeBytes(w, q, status, "application/json", b)
}

func (h *handler) writeBytes(w http.ResponseWriter, q *request, status int, contentType string, b []byte) error {
	q.began = true
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	pushDeadline(w)
	w.WriteHeader(status)
	_, err := w.Write(b)
	if err != nil {
		return fmt.Errorf("server: write: %w", err)
	}
	return nil
}

// pushDeadline gives the next piece of an answer its time. A connection that
// cannot have a deadline, as in tests of the handler alone, goes without.
func pushDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// encode is JSON and a line feed. Raw parts keep their exact bytes: the lines
// of ledger entries are hashed.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("server: encode: %w", err)
	}
	return b.Bytes(), nil
}

// An event is one line of a stream. Exactly one field is set; result or error
// comes last.
type event struct {
	Progress *progress       `json:"progress,omitempty"`
	Media    *api.MediaEvent `json:"media,omitempty"`
	Line     *api.LogLine    `json:"line,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *api.Error      `json:"error,omitempty"`
}

type progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

const (
	progressEvery = 100 * time.Millisecond
	flushAfter    = 20 * time.Millisecond
)

// A stream writes events. Its methods may be called from any goroutine.
type stream struct {
	h *handler
	w http.ResponseWriter
	q *request

	mu    sync.Mutex // guards what follows, and w
	timer *time.Timer
	last  time.Time // of the last progress line
	ended bool
	err   error
}

func (h *handler) stream(w http.ResponseWriter, q *request) *stream {
	return &stream{h: h, w: w, q: q}
}

// send writes one event and lets it go out within flushAfter.
func (s *stream) send(e event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.err != nil {
		return s.err
	}
	if s.err = s.put(e); s.err == nil && s.timer == nil {
		s.timer = time.AfterFunc(flushAfter, s.flush)
	}
	return s.err
}

// put writes one event; s.mu is held.
func (s *stream) put(e event) error {
	b, err := encode(e)
	if err != nil {
		return err
	}
	if !s.q.began {
		return s.h.writeBytes(s.w, s.q, http.StatusOK, ContentNDJSON, b)
	}
	pushDeadline(s.w)
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("server: write: %w", err)
	}
	return nil
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	if !s.ended {
		_ = http.NewResponseController(s.w).Flush() // the next write fails as well
	}
}

// due says whether it is time for another line of progress.
func (s *stream) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.last) < progressEvery {
		return false
	}
	s.last = time.Now()
	return true
}

// progress is an [api.Progress].
func (s *stream) progress(done, total int64) {
	if s.due() {
		_ = s.send(event{Progress: &progress{done, total}}) // the end finds out
	}
}

// media passes on what comes of each file, and now and then how far it is.
func (s *stream) media(e api.MediaEvent) {
	if e.Item != nil || s.due() {
		_ = s.send(event{Media: &e}) // the end finds out
	}
}

// end writes the last line. After it nothing is written any more, whoever
// still calls send.
func (s *stream) end(result any, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended = true; s.timer != nil {
		s.timer.Stop()
	}
	if s.err != nil {
		return s.err
	}
	if err != nil {
		if !s.q.began {
			return err
		}
		if errors.Is(context.Cause(s.q.Context()), errDraining) {
			err = &api.Error{Code: api.CodeStopping, Message: "this process is shutting down", Hint: "try again"}
		}
		e := *asError(err)
		if e.TraceID == "" {
			e.TraceID = s.q.traceID
		}
		return s.put(event{Error: &e})
	}
	raw, err := encode(result)
	if err != nil {
		return err
	}
	return s.put(event{Result: bytes.TrimSuffix(raw, []byte("\n"))})
}

// wantsStream says whether the caller accepts a stream.
func (q *request) wantsStream() bool { return strings.Contains(q.Header.Get("Accept"), ContentNDJSON) }

// long answers a request whose work reports progress: as a stream where the
// caller accepts one, else with the result alone.
func (h *handler) long(w http.ResponseWriter, q *request, status int, work func(api.Progress) (any, error)) error {
	if !q.wantsStream() {
		v, err := work(nil)
		return h.reply(w, q, status, v, err)
	}
	s := h.stream(w, q)
	v, err := work(s.progress)
	return s.end(v, err)
}
