package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// entry is one entry of the ledger, read: the lines as an archive holds them,
// and what they say. Data is nil if it was withheld, or if this stella does not
// know the type.
type entry struct {
	state.Change
	envelope []byte
	data     []byte // the data line, or the line that says why there is none
	withheld string // the reason, if it was withheld
	unknown  bool   // a type or version that a newer stella wrote
}

// readEntry reads an entry as a site stores it.
func readEntry(e Entry) (entry, error) {
	line := e.Data
	if line == nil {
		if !validReason(e.Withheld) {
			return entry{}, errors.New("its data is missing without a reason")
		}
		line = withheldLine(e.Seq, e.Withheld)
	}
	out, err := parseEntry(e.Envelope, line)
	if err == nil && out.Envelope.Seq != e.Seq {
		err = fmt.Errorf("it is stored as entry %d", e.Seq)
	}
	return out, err
}

// parseEntry reads the two lines of an entry as an archive holds them. It
// accepts only data that the envelope names, and refusals.
func parseEntry(envelope, data []byte) (entry, error) {
	env, err := parseEnvelope(envelope)
	if err != nil {
		return entry{}, err
	}
	out := entry{Change: state.Change{Envelope: env}, envelope: envelope, data: data}
	if reason, ok := parseWithheld(data, env.Seq); ok {
		out.withheld = reason
		return out, nil
	}
	line, err := ledger.Match(env, data)
	if err != nil {
		return entry{}, err
	}
	if out.unknown = !env.Known(); !out.unknown {
		out.Data, err = ledger.DecodeData(env.Type, line.Data)
	}
	return out, err
}

// parseEnvelope reads an envelope, which must say what it is about.
func parseEnvelope(line []byte) (ledger.Envelope, error) {
	env, err := ledger.ParseEnvelope(line)
	if err == nil {
		err = env.CheckSubject()
	}
	return env, err
}

// withheldLine is what stands in the place of a data line that is withheld. It
// is canonical JSON.
func withheldLine(seq int64, reason string) []byte {
	line := strconv.AppendInt([]byte(`{"seq":`), seq, 10)
	return append(line, `,"withheld":"`+reason+`"}`...)
}

// parseWithheld returns the reason that the line for entry seq gives, if it is
// one that withheldLine writes.
func parseWithheld(line []byte, seq int64) (reason string, ok bool) {
	rest, ok := bytes.CutPrefix(line, withheldLine(seq, "")[:len(withheldLine(seq, ""))-2])
	text, ok2 := bytes.CutSuffix(rest, []byte(`"}`))
	reason = string(text)
	return reason, ok && ok2 && validReason(reason)
}

// runLine is one line of runs.ndjson: everything that the ledger says of a run
// before the end of the window. Where data of the run is withheld, nobody can
// fold it: run and steps are absent.
type runLine struct {
	Events []runEvent   `json:"events"`
	Run    *state.Run   `json:"run,omitempty"`
	RunID  string       `json:"runId"`
	Steps  []state.Step `json:"steps,omitempty"` // by stepId
}

// runEvent is one entry of a run. Both parts are canonical JSON, so that they
// stand here byte for byte as in the ledger's lines.
type runEvent struct {
	Data     json.RawMessage `json:"data"` // data line, or its place holder
	Envelope json.RawMessage `json:"envelope"`
}
