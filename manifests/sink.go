package manifests

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// SinkKind is how a sink takes events.
type SinkKind string

// Kinds of sinks.
const (
	SinkFile    SinkKind = "file"    // lines appended to a file
	SinkSocket  SinkKind = "socket"  // lines over a Unix socket, each answered
	SinkWebhook SinkKind = "webhook" // HTTP POST, signed
)

// maxSinks is how many sinks a site may have.
const maxSinks = 32

// Sink is one receiver of events, a [[sink]] of site.toml. Paths are absolute or
// relative to the home.
type Sink struct {
	Name        string
	Kind        SinkKind      // default file
	Path        string        // of file, where the default is outbox/NAME.ndjson, and socket
	URL         string        // of webhook
	SecretFile  string        // of webhook: the key of its signature
	PlainHTTP   bool          // of webhook: http to others than this machine
	Topics      []string      // types of entries: exact, "run.*" or "*"; default run.*, approval.*, step.failed
	Tenant      string        // only its entries; "" for all, those of the site too
	MaxAttempts int           // default 10
	Backoff     time.Duration // before the second attempt, doubled from then on; default 5s
	Timeout     time.Duration // of one delivery; default 10s
	FromStart   bool          // when it is new: from the first entry, not from the next
}

// DefaultTopics are those of a sink that names none.
func DefaultTopics() []string { return []string{"run.*", "approval.*", "step.failed"} }

// sinks reads the [[sink]] tables.
func (t *table) sinks() []Sink {
	var all []Sink
	names, files := map[string]int{}, map[string]int{}
	tables := t.list("sink")
	if len(tables) > maxSinks {
		t.faultf("sink", "there are %d sinks, at most %d are allowed", len(tables), maxSinks)
		return nil
	}
	for _, s := range tables {
		sink := s.sink()
		if first := names[sink.Name]; first > 0 {
			s.fault("name", show(sink.Name)+" names two sinks", lineHint(first))
		}
		if first := files[sink.Path]; sink.Path != "" && first > 0 {
			s.fault("path", "two sinks have this path", lineHint(first))
		}
		if sink.Name != "" {
			names[sink.Name] = s.node.line
		}
		if sink.Path != "" {
			files[sink.Path] = s.node.line
		}
		all = append(all, sink)
	}
	return all
}

func (t *table) sink() Sink {
	t.need("name")
	s := Sink{
		Name:        t.text("name", isName()),
		Kind:        SinkKind(t.choice("kind", string(SinkFile), string(SinkSocket), string(SinkWebhook))),
		Path:        t.text("path", isSitePath()),
		URL:         t.text("url", isHookURL()),
		SecretFile:  t.text("secret_file", isSitePath()),
		PlainHTTP:   t.boolean("allow_plain_http", false),
		Topics:      t.texts("topics", isTopic()),
		Tenant:      t.text("tenant", isName()),
		MaxAttempts: int(t.integer("max_attempts", 10, 1, 100)),
		Backoff:     t.duration("backoff", 5*time.Second, time.Hour),
		Timeout:     t.duration("timeout", 10*time.Second, 5*time.Minute),
		FromStart:   t.choice("from", "end", "start") == "start",
	}
	if s.Topics == nil {
		if t.has("topics") {
			t.fault("topics", "an empty list is a sink for nothing", `leave it out for the default, or name some: "run.*"`)
		}
		s.Topics = DefaultTopics()
	}
	t.suits(&s)
	t.done()
	return s
}

// suits holds the keys of a sink against its kind.
func (t *table) suits(s *Sink) {
	of := map[SinkKind][]string{
		SinkFile:    {"path"},
		SinkSocket:  {"path"},
		SinkWebhook: {"url", "secret_file", "allow_plain_http"},
	}[s.Kind]
	for _, key := range []string{"path", "url", "secret_file", "allow_plain_http"} {
		if t.has(key) && !slices.Contains(of, key) {
			t.fault(key, "a sink of kind "+string(s.Kind)+" has no such key", "")
		}
	}
	switch s.Kind {
	case SinkFile:
		if s.Path == "" && s.Name != "" {
			s.Path = "outbox/" + s.Name + ".ndjson"
		}
	case SinkSocket:
		t.need("path")
	case SinkWebhook:
		t.need("url", "secret_file")
		if u, err := url.Parse(s.URL); err == nil && u.Scheme == "http" && !s.PlainHTTP && !isLoopback(u.Hostname()) {
			t.fault("url", "plain http to another machine can be read and changed on the way",
				"use https, or set allow_plain_http = true where the network is trusted")
		}
	}
}

// isLoopback says whether a host of a URL is this machine, by what it is called.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func isSitePath() rule {
	return rule{func(s string) bool { return validHostPath(s) || validHostPath("/"+s) && s != "" },
		"a path in its shortest form, absolute or relative to the home"}
}

func isHookURL() rule {
	return rule{validHookURL, "https://HOST[:PORT]/PATH, or http, without user, password and fragment"}
}

func validHookURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && len(s) <= 2048 && only(s, func(c byte) bool { return c > ' ' && c < 0x7f }) && (u.Scheme == "https" || u.Scheme == "http") &&
		u.Hostname() != "" && u.User == nil && u.Fragment == "" && u.Opaque == ""
}

func isTopic() rule {
	return rule{validTopic, `a type of entries such as "step.failed", or several as "run.*", or "*"`}
}

func validTopic(s string) bool {
	if s == "*" {
		return true
	}
	family, rest, ok := strings.Cut(s, ".")
	word := func(s string) bool {
		return s != "" && len(s) <= 63 && only(s, func(c byte) bool { return c >= 'a' && c <= 'z' || c == '_' })
	}
	return ok && word(family) && (rest == "*" || word(rest))
}

// sinks writes the [[sink]] tables.
func (w *writer) sinks(all []Sink) {
	for _, s := range all {
		w.table("sink", true)
		w.text("name", s.Name)
		w.text("kind", string(s.Kind))
		w.text("path", s.Path)
		w.text("url", s.URL)
		w.text("secret_file", s.SecretFile)
		w.boolean("allow_plain_http", s.PlainHTTP)
		w.texts("topics", s.Topics)
		w.text("tenant", s.Tenant)
		w.integer("max_attempts", int64(s.MaxAttempts))
		w.duration("backoff", s.Backoff)
		w.duration("timeout", s.Timeout)
		if s.FromStart {
			w.text("from", "start")
		}
	}
}
