package telemetry

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stellarun/stella/internal/jcs"
)

// forms are the ways in which a value may appear, without line feeds and
// carriage returns, each once and at least [MinSecret] bytes long.
func forms(value []byte) [][]byte {
	seen := map[string]bool{}
	var out [][]byte
	add := func(b []byte) {
		b = squeeze(b)
		if len(b) >= MinSecret && !seen[string(b)] {
			seen[string(b)] = true
			out = append(out, b)
		}
	}
	encoded := func(b []byte) {
		for shift := range 3 {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				add(inBase64(enc, b, shift))
			}
		}
		add([]byte(hex.EncodeToString(b)))
		add([]byte(strings.ToUpper(hex.EncodeToString(b))))
	}
	add(value)
	encoded(value)
	text(value, add)
	if lines := bytes.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 1 {
		for _, l := range lines {
			add(l)
			text(l, add)
			if len(l) >= MinSecret {
				encoded(l)
			}
		}
	}
	return out
}

// inBase64 is what of a value is the same in every encoding of a text in which
// the value begins shift bytes after a multiple of three.
func inBase64(enc *base64.Encoding, value []byte, shift int) []byte {
	padded := append(make([]byte, shift), value...)
	s := enc.EncodeToString(padded)
	from := (shift*8 + 5) / 6
	to := len(padded) * 8 / 6
	if from >= to {
		return nil
	}
	return []byte(s[from:to])
}

// text adds the forms in which texts quote others.
func text(value []byte, add func([]byte)) {
	s := string(value)
	for _, escaped := range []string{url.QueryEscape(s), url.PathEscape(s), percent(s)} {
		add([]byte(escaped))
		add([]byte(lowerHex(escaped)))
	}
	add([]byte(html.EscapeString(s)))
	add([]byte(strings.ReplaceAll(s, "'", `'\''`)))
	add([]byte(strings.ReplaceAll(s, "'", `'"'"'`)))
	add([]byte(inside(strconv.Quote(s))))
	add([]byte(inside(strconv.QuoteToASCII(s))))
	if !utf8.Valid(value) {
		return
	}
	if raw, err := json.Marshal(s); err == nil {
		add([]byte(inside(string(raw))))
	}
	if raw, err := jcs.Marshal(s); err == nil {
		add([]byte(inside(string(raw))))
		add([]byte(strings.ReplaceAll(inside(string(raw)), "/", `\/`)))
		add(asciiJSON(inside(string(raw))))
	}
}

func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// percent escapes everything but letters, digits and -._~, as RFC 3986 has it.
func percent(s string) string {
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		out.WriteByte('%')
		out.WriteByte("0123456789ABCDEF"[c>>4])
		out.WriteByte("0123456789ABCDEF"[c&15])
	}
	return out.String()
}

// lowerHex puts the digits of percent escapes into lower case.
func lowerHex(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// asciiJSON escapes what lies beyond ASCII in the inside of a JSON string.
func asciiJSON(s string) []byte {
	var out []byte
	for _, r := range s {
		switch {
		case r < 0x80:
			out = append(out, byte(r))
		case r >= 0x10000:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
