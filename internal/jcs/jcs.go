// Package jcs is the one encoder of JSON that is hashed or signed: the JSON
// Canonicalization Scheme of RFC 8785. One value has one encoding.
//
// It is stricter than the RFC where two readers could see two values: it
// refuses duplicate keys, unpaired surrogates, invalid UTF-8, anything beside
// the one value, nesting deeper than [MaxDepth], and every number of 2^53 or
// more, whichever way it is written. It bounds no sizes: callers cap their
// input, and the output is at most four times as long. It does no I/O and
// starts no goroutine; its functions may be called from any.
package jcs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// MaxDepth is how many objects and arrays may lie inside each other.
const MaxDepth = 64

// An Error says why bytes are not the one JSON value that was expected.
type Error struct {
	Offset  int    // in bytes from the start of the input; for [Marshal], of encoding/json's output
	Problem string // never quotes the input
}

func (e *Error) Error() string {
	return fmt.Sprintf("jcs: %s at byte %d", e.Problem, e.Offset)
}

// Marshal returns the canonical encoding of what encoding/json makes of v: its
// struct tags and Marshaler apply. A string that is not valid UTF-8 is an
// *[Error], where encoding/json alone would replace it.
func Marshal(v any) ([]byte, error) {
	if b, ok := direct(v); ok {
		return b, nil
	}
	return indirect(v)
}

// indirect lets encoding/json encode v first.
func indirect(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("jcs: %w", err)
	}
	// encoding/json writes U+FFFD itself for that character, and this escape
	// for each invalid byte. A Marshaler may have written the escape too, so
	// its presence is only a reason to look.
	if at := bytes.Index(raw, []byte(`\ufffd`)); at >= 0 && hasInvalidUTF8(v) {
		return nil, &Error{Offset: at, Problem: "invalid UTF-8 in a string"}
	}
	return Canonicalize(raw)
}

// Canonicalize returns the canonical encoding of the one JSON value that raw
// holds; white space around it is dropped. Anything else is an *[Error]. The
// result shares no memory with raw.
func Canonicalize(raw []byte) ([]byte, error) {
	p := parser{out: make([]byte, 0, len(raw))}
	if err := p.whole(raw); err != nil {
		return nil, err
	}
	return p.out, nil
}

// AppendString appends the canonical encoding of one string to b, for those who
// write a fixed form by hand. Invalid UTF-8 is an *[Error], and b comes back as
// it was.
func AppendString(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return b, &Error{Problem: "invalid UTF-8 in a string"}
	}
	return appendString(b, s), nil
}

// Check returns nil if raw is exactly the canonical encoding of a JSON value,
// and otherwise an *[Error].
func Check(raw []byte) error {
	p := parsers.Get().(*parser)
	defer p.giveBack()
	if err := p.whole(raw); err != nil {
		return err
	}
	out := p.out
	if bytes.Equal(raw, out) {
		return nil
	}
	at := 0
	for at < len(raw) && at < len(out) && raw[at] == out[at] {
		at++
	}
	return &Error{Offset: at, Problem: "not in canonical form"}
}
