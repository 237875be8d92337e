package outbox

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

var everything = manifests.Sink{Name: "all", Topics: []string{"*"}}

// TestPayload holds the form that docs/format.md describes. Receivers rely on it.
func TestPayload(t *testing.T) {
	m := newMemory()
	m.add(ledger.Envelope{Type: ledger.RunFailed, Actor: "system:runner", Tenant: "default", RunID: "r-1", StepID: "s", Attempt: 2, DAGID: "audit",
		DAGVersion: "1.0.0", TraceID: strings.Repeat("0a", 16)}, &ledger.RunEnd{FailureReason: "STEP_FAILED", FailedStep: "s"})
	m.add(ledger.Envelope{Type: ledger.SiteStopped}, &ledger.SiteStop{Reason: "orderly"})
	for i, want := range []string{
		`{"actor":"system:runner","attempt":2,"dagId":"audit","dagVersion":"1.0.0","data":{"failedStep":"s","failureReason":"STEP_FAILED"},"id":"all/0/HASH","runId":"r-1","schema":"stella.event/1","seq":0,"siteId":"00112233445566778899aabbccddeeff","stepId":"s","tenant":"default","time":"2026-11-22T00:00:00.000000000Z","topic":"run.failed","traceId":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}`,
		`{"actor":"uid:0(root)","data":{"reason":"orderly"},"id":"all/1/HASH","schema":"stella.event/1","seq":1,"siteId":"00112233445566778899aabbccddeeff","tenant":"","time":"2026-11-22T00:00:01.000000000Z","topic":"site.stopped"}`,
	} {
		env, err := ledger.ParseEnvelope(m.lines[i].Envelope)
		if err != nil {
			t.Fatal(err)
		}
		e, ok, err := EventOf(&everything, testSite, m.lines[i])
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if want = strings.Replace(want, "HASH", env.DataHash[:16], 1); string(e.Body) != want {
			t.Errorf("payload %s\nwant    %s", e.Body, want)
		}
		if err := jcs.Check(e.Body); err != nil || strings.Contains(string(e.Body), "salt") {
			t.Errorf("the payload is not canonical, or holds the salt: %v", err)
		}
	}
	m.lines[1].Data = nil // erased
	if e, ok, err := EventOf(&everything, testSite, m.lines[1]); err != nil || !ok || strings.Contains(string(e.Body), "data") {
		t.Errorf("without data: %s, %v, %v", e.Body, ok, err)
	}
	m.lines[0].Envelope = []byte("{}")
	if _, _, err := EventOf(&everything, testSite, m.lines[0]); err == nil {
		t.Error("a damaged entry is an event")
	}
}

func TestASinkIsSentWhatItAsksFor(t *testing.T) {
	m := newMemory()
	for _, e := range []struct {
		typ  ledger.Type
		data any
	}{
		{ledger.RunStarted, &ledger.RunStart{}}, {ledger.StepFailed, &ledger.StepEnd{}}, {ledger.StepCompleted, &ledger.StepEnd{}},
		{ledger.SiteStopped, &ledger.SiteStop{}},
		{ledger.OutboxDead, &ledger.OutboxDeath{Sink: "a", Topic: "run.started"}},
		{ledger.OutboxDead, &ledger.OutboxDeath{Sink: "b", Topic: "run.started"}},
		{ledger.OutboxDead, &ledger.OutboxDeath{Sink: "b", Topic: "outbox.dead"}},
		{ledger.OutboxRequeued, &ledger.OutboxRequeue{Sink: "a"}}, {ledger.OutboxForgotten, &ledger.OutboxForget{Sink: "b"}},
	} {
		env := ledger.Envelope{Type: e.typ, Tenant: "x"}
		if strings.HasPrefix(string(e.typ), "site.") || isOutbox(string(e.typ)) {
			env.Tenant = ""
		}
		m.add(env, e.data)
	}
	for _, c := range []struct{ topics, tenant, want string }{
		{"run.*", "", "0"}, {"run.*,approval.*,step.failed", "", "01"}, {"step.*", "", "12"}, {"step.completed", "", "2"}, {"run.start", "", ""},
		// Of the outbox a sink hears what is not about itself, and not the end of
		// an event of the outbox, which two broken sinks would tell each other for ever.
		{"*", "", "012358"}, {"outbox.*", "", "58"}, {"*", "x", "012"}, {"*", "y", ""}, {"site.*", "x", ""},
	} {
		s := manifests.Sink{Name: "a", Topics: strings.Split(c.topics, ","), Tenant: c.tenant}
		got := ""
		for i, l := range m.lines {
			_, ok, err := EventOf(&s, testSite, l)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				got += string(rune('0' + i))
			}
		}
		if got != c.want {
			t.Errorf("topics %s, tenant %q: %s, want %s", c.topics, c.tenant, got, c.want)
		}
	}
}

func TestParseID(t *testing.T) {
	for _, c := range []struct {
		in, sink, hash string
		seq            int64
		ok             bool
	}{
		{"ops/12", "ops", "", 12, true}, {"ops.a-b/0/0123456789abcdef", "ops.a-b", "0123456789abcdef", 0, true},
		{"ops", "", "", 0, false}, {"ops/", "", "", 0, false}, {"ops/x", "", "", 0, false}, {"ops/-1", "", "", 0, false}, {"ops/01", "", "", 0, false},
		{"/1", "", "", 0, false}, {"Ops/1", "", "", 0, false}, {"ops/1/ab", "", "", 0, false}, {"ops/1 ", "", "", 0, false}, {"ops/99999999999999999999", "", "", 0, false},
	} {
		sink, seq, hash, ok := ParseID(c.in)
		if sink != c.sink || seq != c.seq || hash != c.hash || ok != c.ok {
			t.Errorf("ParseID(%q) = %q, %d, %q, %v", c.in, sink, seq, hash, ok)
		}
	}
}

// FuzzParseID holds that an id has one form: what is read gives the same text again.
func FuzzParseID(f *testing.F) {
	f.Add("ops/12")
	f.Add("ops/12/0123456789abcdef")
	f.Fuzz(func(t *testing.T, in string) {
		sink, seq, hash, ok := ParseID(in)
		if !ok {
			return
		}
		again := fmt.Sprintf("%s/%d", sink, seq)
		if hash != "" {
			again += "/" + hash
		}
		if again != in {
			t.Errorf("%q is read as %q", in, again)
		}
	})
}

func TestSinksThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		sink manifests.Sink
		want string
	}{
		{manifests.Sink{Name: "a", Topics: manifests.DefaultTopics(), Path: "outbox/a.ndjson", Kind: manifests.SinkFile}, ""},
		{manifests.Sink{Name: "a", Topics: []string{"*"}, Path: "/var/log/a", Kind: manifests.SinkFile}, ""},
		{manifests.Sink{Name: "a", Topics: []string{"*"}, Path: "stella.sock", Kind: manifests.SinkSocket}, ""},
		{manifests.Sink{Name: "a", Topics: []string{"run.failed", "run.fail"}, Kind: manifests.SinkFile}, `no entry is of type "run.fail"`},
		{manifests.Sink{Name: "a", Topics: []string{"runs.*"}, Kind: manifests.SinkFile}, `no entry is of type "runs.*"`},
		{manifests.Sink{Name: "a", Topics: []string{"*"}, Path: "ledger.db", Kind: manifests.SinkFile}, "lies in its folder outbox"},
		{manifests.Sink{Name: "a", Topics: []string{"*"}, Path: "/home/s/keys/a", Kind: manifests.SinkFile}, "lies in its folder outbox"},
		{manifests.Sink{Name: "a", Topics: []string{"*"}, Path: "outbox", Kind: manifests.SinkFile}, "lies in its folder outbox"},
	} {
		err := Check("/home/s", []manifests.Sink{c.sink})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.sink, err, c.want)
		}
	}
}
