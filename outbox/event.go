package outbox

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

// EventSchema is the first thing that a receiver can tell of an event.
const EventSchema = "stella.event/1"

// An Event is an entry as one sink is sent it.
type Event struct {
	ID     string // SINK/SEQ/HASH; the same at each delivery, and of no other event
	Seq    int64
	Topic  string
	RunID  string // "" for what is about no run
	Tenant string
	Body   []byte // canonical JSON, without line feed; documented in docs/format.md
}

// payload is the body of an event.
type payload struct {
	Actor      string          `json:"actor"`
	Attempt    int             `json:"attempt,omitempty"`
	DAGID      string          `json:"dagId,omitempty"`
	DAGVersion string          `json:"dagVersion,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"` // absent where it was erased
	ID         string          `json:"id"`
	RunID      string          `json:"runId,omitempty"`
	Schema     string          `json:"schema"`
	Seq        int64           `json:"seq"`
	SiteID     string          `json:"siteId"`
	StepID     string          `json:"stepId,omitempty"`
	Tenant     string          `json:"tenant"`
	Time       string          `json:"time"`
	Topic      string          `json:"topic"`
	TraceID    string          `json:"traceId,omitempty"`
}

// EventOf makes the event of a sink that an entry is; ok is false where the sink
// is not sent it.
func EventOf(s *manifests.Sink, siteID string, l store.Lines) (e Event, ok bool, err error) {
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil {
		return e, false, fmt.Errorf("entry %d: %w", l.Seq, err)
	}
	if !matchesAny(s.Topics, env.Type) || s.Tenant != "" && s.Tenant != env.Tenant {
		return e, false, nil
	}
	p := payload{
		Actor: env.Actor, Attempt: env.Attempt, DAGID: env.DAGID, DAGVersion: env.DAGVersion, ID: id(s.Name, env),
		RunID: env.RunID, Schema: EventSchema, Seq: env.Seq, SiteID: siteID, StepID: env.StepID, Tenant: env.Tenant,
		Time: env.Time, Topic: string(env.Type), TraceID: env.TraceID,
	}
	if l.Data != nil {
		line, err := ledger.ParseData(l.Data)
		if err != nil {
			return e, false, fmt.Errorf("entry %d: %w", l.Seq, err)
		}
		p.Data = line.Data
	}
	if isOwn(s.Name, env.Type, p.Data) {
		return e, false, nil
	}
	body, err := jcs.Marshal(p)
	return Event{ID: p.ID, Seq: env.Seq, Topic: p.Topic, RunID: p.RunID, Tenant: p.Tenant, Body: body}, true, err
}

// id names an event. The hash covers a random salt: where a site was restored from
// a copy and writes another entry of the same number, its event has another id,
// and so have those of other sites.
func id(sink string, env ledger.Envelope) string {
	return fmt.Sprintf("%s/%d/%s", sink, env.Seq, env.DataHash[:16])
}

// ParseID reads the id of an event, with or without its hash, which is then "".
func ParseID(s string) (sink string, seq int64, hash string, ok bool) {
	sink, rest, ok := strings.Cut(s, "/")
	number, hash, hashed := strings.Cut(rest, "/")
	if !ok || !manifests.ValidName(sink) || hashed && len(hash) != 16 {
		return "", 0, "", false
	}
	if _, err := fmt.Sscanf(number, "%d", &seq); err != nil || seq < 0 || fmt.Sprint(seq) != number {
		return "", 0, "", false
	}
	return sink, seq, hash, true
}

// isOwn says whether an entry is about what the outbox does and not for this sink:
// about itself, which it would be sent for ever; or about the end of such an
// event, which two sinks could send each other for ever.
func isOwn(sink string, typ ledger.Type, data json.RawMessage) bool {
	if !isOutbox(string(typ)) {
		return false
	}
	var about struct{ Sink, Topic string }
	err := json.Unmarshal(data, &about)
	return err != nil || about.Sink == sink || isOutbox(about.Topic)
}

func isOutbox(topic string) bool { return strings.HasPrefix(topic, "outbox.") }

func matchesAny(topics []string, typ ledger.Type) bool {
	for _, t := range topics {
		if matches(t, typ) {
			return true
		}
	}
	return false
}

// matches says whether a topic of a sink is the type, its family, or everything.
func matches(topic string, typ ledger.Type) bool {
	family, all := strings.CutSuffix(topic, "*")
	return all && strings.HasPrefix(string(typ), family) || topic == string(typ)
}
