package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
)

// Limits of the two lines of an entry, in bytes without the line feed.
const (
	MaxEnvelope = 8 << 10
	MaxData     = 64 << 10
)

// An Entry is the two lines of an entry, without line feeds.
type Entry struct {
	Envelope []byte
	Data     []byte
	Head     Envelope // what the envelope line says
}

// A DataLine is the content of a data line.
type DataLine struct {
	Data json.RawMessage `json:"data"` // canonical; an object
	Salt string          `json:"salt"` // 64 hex digits
	Seq  int64           `json:"seq"`  // of the envelope that it belongs to
}

// Seal encodes an entry. data is the struct of e.Type, a pointer to it, or what
// [Encode] made of either; nil stands for {} where the type allows that. Salt must be fresh and random: it
// keeps withheld data from being guessed. DataHash is set here, and V where it
// is 0. A line beyond its limit is [ErrTooLarge].
func Seal(e Envelope, data any, salt [32]byte) (Entry, error) { return new(Sealer).Seal(e, data, salt) }

// A Sealer encodes one entry after the other in the same memory. The zero value is ready. It is
// for one goroutine.
type Sealer struct{ envelope, data []byte }

// Seal is [Seal]; its lines are good until the next call.
func (s *Sealer) Seal(e Envelope, data any, salt [32]byte) (Entry, error) {
	info, ok := lookup(e.Type)
	if !ok {
		return Entry{}, fmt.Errorf("ledger: %q: %w", string(e.Type), ErrUnknownType)
	}
	if e.V == 0 {
		e.V = info.Version
	}
	if e.V != info.Version {
		return Entry{}, fmt.Errorf("ledger: %s version %d: %w", e.Type, e.V, ErrUnknownType)
	}
	raw, err := encodeData(info, data)
	if err != nil {
		return Entry{}, err
	}
	s.data = append(append(s.data[:0], dataHead...), raw...)
	var text [2 * len(salt)]byte
	hex.Encode(text[:], salt[:])
	s.data = appendTail(s.data, text[:], e.Seq)
	if len(s.data) > MaxData {
		return Entry{}, fmt.Errorf("ledger: data of %s has %d bytes: %w", e.Type, len(s.data), ErrTooLarge)
	}
	e.DataHash = hashHex(s.data)
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	if s.envelope, err = e.appendLine(s.envelope[:0]); err != nil {
		return Entry{}, &FormError{What: "envelope", Err: err}
	}
	if len(s.envelope) > MaxEnvelope {
		return Entry{}, fmt.Errorf("ledger: envelope of %s has %d bytes: %w", e.Type, len(s.envelope), ErrTooLarge)
	}
	return Entry{Envelope: s.envelope, Data: s.data, Head: e}, nil
}

// appendLine appends to b, which is empty, what [jcs.Marshal] gives of an envelope, written
// by hand: every entry has one, and this takes a tenth of the time.
func (e *Envelope) appendLine(b []byte) ([]byte, error) {
	w := lineWriter{b: b}
	w.text("actor", e.Actor, true)
	w.number("attempt", int64(e.Attempt), false)
	w.text("dagId", e.DAGID, false)
	w.text("dagVersion", e.DAGVersion, false)
	w.plain("dataHash", e.DataHash)
	w.text("runId", e.RunID, false)
	w.number("seq", e.Seq, true)
	w.text("stepId", e.StepID, false)
	w.text("tenant", e.Tenant, true)
	w.plain("time", e.Time)
	w.text("traceId", e.TraceID, false)
	w.text("type", string(e.Type), true)
	w.number("v", int64(e.V), true)
	return append(w.b, '}'), w.err
}

// A lineWriter writes the members of an object, which come in the order of
// their keys. What is absent is left out where it need not be there.
type lineWriter struct {
	b   []byte
	err error
}

func (w *lineWriter) key(k string) {
	if len(w.b) == 0 {
		w.b = append(w.b, '{')
	} else {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, k...)
	w.b = append(w.b, '"', ':')
}

func (w *lineWriter) text(k, v string, always bool) {
	if v == "" && !always {
		return
	}
	w.key(k)
	b, err := jcs.AppendString(w.b, v)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%s: %w", k, err)
	}
	w.b = b
}

// plain writes a text of which it is known that it stands for itself.
func (w *lineWriter) plain(k, v string) {
	w.key(k)
	w.b = append(append(append(w.b, '"'), v...), '"')
}

func (w *lineWriter) number(k string, v int64, always bool) {
	if v == 0 && !always {
		return
	}
	w.key(k)
	w.b = strconv.AppendInt(w.b, v, 10)
}

const dataHead = `{"data":`

// appendTail appends what comes after the data in a data line.
func appendTail[S string | []byte](b []byte, salt S, seq int64) []byte {
	b = append(append(b, `,"salt":"`...), salt...)
	b = strconv.AppendInt(append(b, `","seq":`...), seq, 10)
	return append(b, '}')
}

// check holds what every envelope must fulfil beyond its encoding.
func (e *Envelope) check() error {
	switch {
	case e.Seq < 0 || e.Seq >= MaxSize:
		return malformed("envelope", "seq %d", e.Seq)
	case e.V < 1:
		return malformed("envelope", "version %d", e.V)
	case e.Attempt < 0:
		return malformed("envelope", "attempt %d", e.Attempt)
	case e.Type == "":
		return malformed("envelope", "no type")
	case e.Actor == "":
		return malformed("envelope", "no actor")
	case !isHash(e.DataHash):
		return malformed("envelope", "dataHash is not 64 hex digits")
	}
	if _, err := stamp.Parse(e.Time); err != nil {
		return &FormError{What: "envelope", Err: err}
	}
	return nil
}

// ParseEnvelope reads an envelope line, without its line feed. Everything but
// the one encoding of an envelope is a *[FormError]; whether the type is
// [Known] and its version is one that this stella reads are questions of their
// own.
func ParseEnvelope(line []byte) (Envelope, error) {
	if len(line) > MaxEnvelope {
		return Envelope{}, &FormError{What: "envelope", Err: ErrTooLarge}
	}
	e := splitEnvelope(line)
	var room [512]byte
	if again, err := e.appendLine(room[:0]); err != nil || !bytes.Equal(line, again) {
		e = Envelope{}
		if err := decode("envelope", line, &e); err != nil { // it has a backslash, or something is wrong
			return Envelope{}, err
		}
	}
	if err := e.check(); err != nil {
		return Envelope{}, err
	}
	return e, nil
}

// splitEnvelope takes an envelope line apart that [Envelope.appendLine] has put together without
// a backslash; of any other bytes it returns what does not make up the line again.
func splitEnvelope(line []byte) (e Envelope) {
	r := lineReader{line[min(len(line), 1):]}
	e.Actor = r.text("actor")
	e.Attempt = int(r.number("attempt"))
	e.DAGID = r.text("dagId")
	e.DAGVersion = r.text("dagVersion")
	e.DataHash = r.text("dataHash")
	e.RunID = r.text("runId")
	e.Seq = r.number("seq")
	e.StepID = r.text("stepId")
	e.Tenant = r.text("tenant")
	e.Time = r.text("time")
	e.TraceID = r.text("traceId")
	e.Type = Type(r.text("type"))
	e.V = int(r.number("v"))
	return e
}

// A lineReader reads what a [lineWriter] wrote; what is not next is absent.
type lineReader struct{ rest []byte }

// value reads a member whose value lies between quotes, if any, and ends before one of end.
func (r *lineReader) value(k, quote, end string) string {
	tail, ok := bytes.CutPrefix(r.rest, []byte(`"`+k+`":`+quote))
	i := bytes.IndexAny(tail, end)
	if !ok || i < 0 {
		return ""
	}
	r.rest = bytes.TrimPrefix(tail[i+len(quote):], []byte(","))
	return string(tail[:i])
}

func (r *lineReader) text(k string) string { return r.value(k, `"`, `"`) }

func (r *lineReader) number(k string) int64 {
	n, _ := strconv.ParseInt(r.value(k, "", ",}"), 10, 64) // what is no number does not come back
	return n
}

// ParseData reads a data line, without its line feed. Everything but the one
// encoding of a data line is a *[FormError]. A line that says that its data is
// withheld is none. The result shares no memory with line.
func ParseData(line []byte) (DataLine, error) {
	if len(line) > MaxData {
		return DataLine{}, &FormError{What: "data line", Err: ErrTooLarge}
	}
	d := splitData(line)
	if !d.makesUp(line) {
		if err := jcs.Check(line); err != nil {
			return DataLine{}, &FormError{What: "data line", Err: err}
		}
		return DataLine{}, &FormError{What: "data line", Err: errFields}
	}
	if err := jcs.Check(d.Data); err != nil { // the rest is canonical by now
		return DataLine{}, &FormError{What: "data line", Err: err}
	}
	switch {
	case d.Data[0] != '{':
		return DataLine{}, malformed("data line", "data is no object")
	case !isHash(d.Salt):
		return DataLine{}, malformed("data line", "salt is not 64 hex digits")
	case d.Seq < 0 || d.Seq >= MaxSize:
		return DataLine{}, malformed("data line", "seq %d", d.Seq)
	}
	d.Data = bytes.Clone(d.Data)
	return d, nil
}

// splitData takes a data line apart where the parts must be; of any other
// bytes it returns parts that do not make up the line again.
func splitData(line []byte) DataLine {
	rest, _ := bytes.CutPrefix(line, []byte(`{"data":`))
	data, tail := rest, []byte(nil)
	if i := bytes.LastIndex(rest, []byte(`,"salt":"`)); i >= 0 {
		data, tail = rest[:i], rest[i+len(`,"salt":"`):]
	}
	salt, tail, _ := bytes.Cut(tail, []byte(`","seq":`))
	number, _ := bytes.CutSuffix(tail, []byte(`}`))
	seq, _ := strconv.ParseInt(string(number), 10, 64) // what is no number does not come back
	return DataLine{Data: data, Salt: string(salt), Seq: seq}
}

// makesUp says whether the parts of a data line make up the line again.
func (d *DataLine) makesUp(line []byte) bool {
	var room [128]byte
	tail := appendTail(room[:0], d.Salt, d.Seq)
	return len(line) == len(dataHead)+len(d.Data)+len(tail) && bytes.HasPrefix(line, []byte(dataHead)) && bytes.HasSuffix(line, tail)
}

// Match reads data, which must be the data line that env names: of its digest and
// its seq. Otherwise the error wraps [ErrMismatch].
func Match(env Envelope, data []byte) (DataLine, error) {
	if hashHex(data) != env.DataHash {
		return DataLine{}, fmt.Errorf("ledger: entry %d: digest: %w", env.Seq, ErrMismatch)
	}
	d, err := ParseData(data)
	if err != nil {
		return DataLine{}, fmt.Errorf("ledger: entry %d: %w: %w", env.Seq, ErrMismatch, err)
	}
	if d.Seq != env.Seq {
		return DataLine{}, fmt.Errorf("ledger: entry %d: data line of seq %d: %w", env.Seq, d.Seq, ErrMismatch)
	}
	return d, nil
}

// CheckDataHash returns nil if a data line has the digest that an envelope line names, and
// otherwise [ErrMismatch]. Of the envelope it reads nothing else: for lines that were parsed
// before, such as those of a ledger.
func CheckDataHash(envelope, data []byte) error {
	// That of dataHash, and of no other; never in a string, where quotes have backslashes. It is
	// looked for by its first byte, which is rarer than a quote.
	const key = `Hash":"`
	_, rest, ok := bytes.Cut(envelope, []byte(key))
	sum := sha256.Sum256(data)
	var want [2 * sha256.Size]byte
	hex.Encode(want[:], sum[:])
	if !ok || !bytes.HasPrefix(rest, want[:]) {
		return ErrMismatch
	}
	return nil
}

func hashHex(b []byte) string {
	h := sha256.Sum256(b)
	var text [2 * len(h)]byte
	hex.Encode(text[:], h[:])
	return string(text[:])
}

// isHash says whether s is 64 lower-case hex digits.
func isHash(s string) bool { return len(s) == 64 && isHex(s) }

// noHex is 1 at each byte that is no hex digit in lower case.
var noHex = func() (t [256]byte) {
	for c := range t {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			t[c] = 1
		}
	}
	return t
}()

// isHex has no branch on the digits, which nobody could foretell: every entry passes here.
func isHex(s string) bool {
	var bad byte
	for i := range len(s) {
		bad |= noHex[s[i]]
	}
	return bad == 0
}
