package manifests_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
)

func TestEveryKeyOfASinkHasItsFieldAndDefault(t *testing.T) {
	s := parsed(t, "site", "site/sinks.toml").(*manifests.Site)
	check(t, s.Sinks, []manifests.Sink{
		{Name: "record", Kind: manifests.SinkFile, Path: "outbox/record.ndjson", Topics: []string{"run.*", "approval.*", "step.failed"},
			MaxAttempts: 10, Backoff: 5 * time.Second, Timeout: 10 * time.Second},
		{Name: "desk", Kind: manifests.SinkSocket, Path: "/run/desk/events.sock", Topics: []string{"approval.*", "outbox.dead"}, Tenant: "ops",
			MaxAttempts: 10, Backoff: 5 * time.Second, Timeout: 10 * time.Second, FromStart: true},
		{Name: "hook", Kind: manifests.SinkWebhook, URL: "http://collector.lan:8080/stella?site=7", SecretFile: "keys/hook.key", PlainHTTP: true,
			Topics: []string{"*"}, MaxAttempts: 3, Backoff: time.Minute, Timeout: 30 * time.Second},
	})
}

// TestSinkFaults changes the sinks of a site.
func TestSinkFaults(t *testing.T) {
	runFaults(t, lang("site"), "site/sinks.toml", []faultCase{
		{"everything out of range",
			`name = "record" => name = "Record"
			 kind = "socket" => kind = "pipe"
			 path = "/run/desk/events.sock" => path = "../events.sock"
			 topics = ["approval.*", "outbox.dead"] => topics = ["approval", "*.dead", "run.a*", "Run.started", "run.*", "run.*"]
			 tenant = "ops" => tenant = ""
			 from = "start" => from = "now"
			 max_attempts = 3 => max_attempts = 101
			 backoff = "1m" => backoff = "61m"
			 timeout = "30s" => timeout = "6m"`,
			`4: sink[0].name: "Record" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 8: sink[1].kind: "pipe" is not one of the choices (want file, socket or webhook)
			 9: sink[1].path: "../events.sock" is not allowed here (want a path in its shortest form, absolute or relative to the home)
			 10: sink[1].topics[0]: "approval" is not allowed here (want a type of entries such as "step.failed", or several as "run.*", or "*")
			 10: sink[1].topics[1]: "*.dead" is not allowed here (want a type of entries such as "step.failed", or several as "run.*", or "*")
			 10: sink[1].topics[2]: "run.a*" is not allowed here (want a type of entries such as "step.failed", or several as "run.*", or "*")
			 10: sink[1].topics[3]: "Run.started" is not allowed here (want a type of entries such as "step.failed", or several as "run.*", or "*")
			 10: sink[1].topics[5]: "run.*" stands in the list twice (first on line 10)
			 11: sink[1].tenant: "" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 12: sink[1].from: "now" is not one of the choices (want end or start)
			 21: sink[2].max_attempts: 101 is out of range (want 1 to 100)
			 22: sink[2].backoff: "61m" is too long (at most 1h)
			 23: sink[2].timeout: "6m" is too long (at most 5m)`},
		{"what must be there",
			`name = "record"⏎ =>
			 path = "/run/desk/events.sock"⏎ =>
			 url = "http://collector.lan:8080/stella?site=7"⏎ =>
			 secret_file = "keys/hook.key"⏎ =>
			 topics = ["*"] => topics = []`,
			`3: sink[0].name: is missing
			 5: sink[1].path: is missing
			 12: sink[2].url: is missing
			 12: sink[2].secret_file: is missing
			 16: sink[2].topics: an empty list is a sink for nothing (leave it out for the default, or name some: "run.*")`},
		{"keys of another kind",
			`kind = "webhook" => kind = "file"
			 tenant = "ops" => url = "https://x/"
			 name = "record" => name = "record"⏎color = 1`,
			`5: sink[0].color: unknown key (known here: allow_plain_http, backoff, from, kind, max_attempts, name, path, secret_file, tenant, timeout, topics, url)
			 12: sink[1].url: a sink of kind socket has no such key
			 18: sink[2].url: a sink of kind file has no such key
			 19: sink[2].secret_file: a sink of kind file has no such key
			 20: sink[2].allow_plain_http: a sink of kind file has no such key`},
		{"two sinks of one name, and two of one path",
			`name = "desk" => name = "record"
			 path = "/run/desk/events.sock" => path = "outbox/record.ndjson"`,
			`7: sink[1].name: "record" names two sinks (first on line 3)
			 9: sink[1].path: two sinks have this path (first on line 3)`},
		{"plain http to elsewhere",
			`allow_plain_http = true => allow_plain_http = false`,
			`17: sink[2].url: plain http to another machine can be read and changed on the way (use https, or set allow_plain_http = true where the network is trusted)`},
	})
}

func TestURLsOfWebhooks(t *testing.T) {
	parse := func(url string) error {
		_, err := manifests.ParseSite("f", []byte("schema = \"stella.site/1\"\n[[sink]]\nname = \"a\"\nkind = \"webhook\"\nsecret_file = \"keys/a\"\nurl = \""+url+"\"\n"))
		return err
	}
	for _, url := range []string{"https://a.example/x?y=z", "https://[::1]:8443", "http://127.0.0.1:9000/", "http://localhost/", "http://[::1]/", "http://127.9.9.9/"} {
		if err := parse(url); err != nil {
			t.Errorf("%s is refused: %v", url, err)
		}
	}
	for _, url := range []string{"", "ftp://a/", "a.example/x", "https://", "https://user:pw@a/", "https://a/#f", "https:a", "http://10.0.0.1/", "http://localhost.example/",
		"http://127.0.0.1.example/", "https://a/ b", "https://" + strings.Repeat("a", 2048)} {
		if err := parse(url); err == nil {
			t.Errorf("%s is accepted", url)
		}
	}
}

func TestASiteHasNotTooManySinks(t *testing.T) {
	text := "schema = \"stella.site/1\"\n"
	for i := range 33 {
		text += fmt.Sprintf("[[sink]]\nname = \"s%d\"\n", i)
	}
	if _, err := manifests.ParseSite("f", []byte(text)); err == nil || !strings.Contains(err.Error(), "there are 33 sinks, at most 32 are allowed") {
		t.Errorf("ParseSite = %v", err)
	}
}

func (g gen) sinks() []manifests.Sink {
	var all []manifests.Sink
	for i := range g.upTo("sinks", 3) {
		s := manifests.Sink{Name: fmt.Sprint(i, g.name("sink")), Topics: g.some("topics", func(label string) string { return g.pick(label, "*", "run.*", "step.failed") }),
			Tenant: g.pick("tenant", "", g.name("tenant")), MaxAttempts: g.upTo("attempts", 99) + 1, Backoff: g.duration("backoff", time.Hour),
			Timeout: g.duration("timeout", 5*time.Minute), FromStart: g.flip("from")}
		if s.Topics == nil {
			s.Topics = manifests.DefaultTopics()
		}
		switch s.Kind = manifests.SinkKind(g.pick("kind", "file", "socket", "webhook")); s.Kind {
		case manifests.SinkWebhook:
			s.SecretFile, s.PlainHTTP = g.pick("secret", "keys/a.key", "/etc/a.key"), g.flip("plain")
			s.URL = g.pick("url", "https://a.example/x", "http://127.0.0.1/")
		default:
			s.Path = fmt.Sprint(g.hostPath("path"), i)[g.upTo("relative", 1):]
		}
		all = append(all, s)
	}
	return all
}
