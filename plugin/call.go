package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Call is one attempt, as its program sees it. Its methods may be called from
// any goroutine.
type Call struct {
	Request Request // read only

	root, artifacts, secrets string
	deadline                 time.Time

	mu    sync.Mutex // guards what follows
	out   *os.File
	wrote int64
	keys  map[string]bool
	names map[string]bool // artifacts
}

// Params decodes the parameters into v, usually a pointer to a struct. A key
// that v has no field for, or a value of another type, is an *[Error] that
// rejects the attempt.
func (c *Call) Params(v any) error {
	params := c.Request.Params
	if len(params) == 0 {
		params = json.RawMessage("{}")
	}
	d := json.NewDecoder(bytes.NewReader(params))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Rejectf("params: %w", err)
	}
	return nil
}

// Path returns where a path of the request lies for this program.
func (c *Call) Path(rel string) string { return filepath.Join(c.root, filepath.FromSlash(rel)) }

// Input opens an artifact of an earlier step, by its SHA-256. The caller closes
// it.
func (c *Call) Input(sha256 string) (*os.File, error) {
	in, ok := c.Request.Inputs[sha256]
	if !ok {
		return nil, Rejectf("plugin: no input with SHA-256 %s was given", sha256)
	}
	return os.Open(c.Path(in.Path))
}

// Secret reads a secret that the step was granted. Keep it out of outputs,
// logs, arguments and environments.
func (c *Call) Secret(name string) ([]byte, error) {
	if !slices.Contains(c.Request.Secrets, name) {
		return nil, Rejectf("plugin: secret %q was not granted", name)
	}
	return os.ReadFile(filepath.Join(c.secrets, name))
}

// Deadline is when the attempt is stopped; false if there is no deadline. It is
// told by the wall clock and for information only.
func (c *Call) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Output hands over one value under a key that was not used before. The value
// must fit the action's outputs schema, and its numbers must lie below 2^53. It
// counts only if the attempt ends well.
func (c *Call) Output(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("plugin: output %s: %w", key, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(raw) > MaxValue:
		return fmt.Errorf("plugin: output %s has %d bytes, the limit is %d: hand over an artifact", key, len(raw), MaxValue)
	case c.keys[key]:
		return fmt.Errorf("plugin: output %s was already given", key)
	case len(c.keys) == MaxKeys:
		return fmt.Errorf("plugin: output %s: there are %d keys already", key, MaxKeys)
	}
	if err := c.write(map[string]map[string]json.RawMessage{"output": {key: raw}}); err != nil {
		return err
	}
	c.keys[key] = true
	return nil
}

// Artifact creates a file to hand over; name is slash-separated and made of
// [A-Za-z0-9._+@/-]. Closing it hands it over; an artifact that is not closed
// is not handed over.
func (c *Call) Artifact(name, mediaType string) (io.WriteCloser, error) {
	if !validName(name) {
		return nil, fmt.Errorf("plugin: %q is no name for an artifact", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names[name] {
		return nil, fmt.Errorf("plugin: artifact %s was already given", name)
	}
	if len(c.names) == MaxArtifacts {
		return nil, fmt.Errorf("plugin: artifact %s: there are %d already", name, MaxArtifacts)
	}
	path := filepath.Join(c.artifacts, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	c.names[name] = true
	return &artifact{File: f, call: c, name: name, mediaType: mediaType}, nil
}

// An artifact announces itself when it is complete.
type artifact struct {
	*os.File
	call            *Call
	name, mediaType string
}

func (a *artifact) Close() error {
	if err := a.File.Close(); err != nil {
		return err
	}
	type line struct {
		Name      string `json:"name"`
		Path      string `json:"path"`
		MediaType string `json:"mediaType,omitempty"`
	}
	a.call.mu.Lock()
	defer a.call.mu.Unlock()
	return a.call.write(map[string]line{"artifact": {a.name, a.name, a.mediaType}})
}

// Progress says how much of the work is done, from 0 to 1, and what is going
// on. Call it at most every few seconds: each call is a line of [MaxOutput].
func (c *Call) Progress(fraction float64, message string) error {
	if !(fraction >= 0 && fraction <= 1) {
		return fmt.Errorf("plugin: a progress of %v is not between 0 and 1", fraction)
	}
	type line struct {
		Progress float64 `json:"progress"`
		Message  string  `json:"message,omitempty"`
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(line{fraction, cut(message, MaxMessage)})
}

// fail writes the error line.
func (c *Call) fail(e *Error) error {
	type line struct {
		Code         string `json:"code"`
		Message      string `json:"message"`
		Retryable    bool   `json:"retryable,omitempty"`
		RetryAfterMs int64  `json:"retryAfterMs,omitempty"`
	}
	l := line{Code: e.Code, Message: e.Message}
	if e.Retryable && !e.Rejected {
		l.Retryable = true
		l.RetryAfterMs = int64((e.RetryAfter + time.Millisecond - 1) / time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(map[string]line{"error": l})
}

var errOutputFull = errors.New("plugin: the output file would exceed 1 MiB")

// write appends one line in one piece. The caller holds mu.
func (c *Call) write(line any) error {
	raw, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("plugin: output line: %w", err)
	}
	raw = append(raw, '\n')
	if c.wrote+int64(len(raw)) > MaxOutput {
		return errOutputFull
	}
	n, err := c.out.Write(raw)
	c.wrote += int64(n)
	return err
}

// validName is a clean, relative, slash-separated path of [A-Za-z0-9._+@/-].
func validName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && !strings.ContainsRune("._+@/-", rune(c)) {
			return false
		}
	}
	return true
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
