package jcs

import (
	"math"
	"strconv"
)

// limit is the first magnitude at which a double no longer tells neighbouring
// integers apart.
const limit = 1 << 53

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number reads a number and writes it as ECMAScript would (RFC 8785 section
// 3.2.2.3): the shortest digits that give the same double.
func (p *parser) number() error {
	at := p.pos
	if p.in[p.pos] == '-' {
		p.pos++
	}
	whole := p.digits()
	if whole == 0 || whole > 1 && p.in[p.pos-whole] == '0' {
		return p.fail(at, "malformed number")
	}
	integer := true
	if p.peek() == '.' {
		p.pos++
		integer = false
		if p.digits() == 0 {
			return p.fail(at, "malformed number")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		integer = false
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if p.digits() == 0 {
			return p.fail(at, "malformed number")
		}
	}
	text := p.in[at:p.pos]
	if integer && whole <= 15 { // below 10^15, hence below 2^53: it stands as it is
		if whole == 1 && text[len(text)-1] == '0' {
			text = text[len(text)-1:] // -0
		}
		p.out = append(p.out, text...)
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.Abs(f) >= limit {
		return p.fail(at, "number of 2^53 or more")
	}
	p.out = appendFloat(p.out, f)
	return nil
}

// digits skips decimal digits and returns how many there were.
func (p *parser) digits() int {
	from := p.pos
	for p.pos < len(p.in) && isDigit(p.in[p.pos]) {
		p.pos++
	}
	return p.pos - from
}

// appendFloat writes f, whose magnitude is below 2^53, as ECMAScript's
// Number::toString does: an exponent only below 10^-6.
func appendFloat(out []byte, f float64) []byte {
	if f == 0 {
		return append(out, '0') // -0 too
	}
	if math.Abs(f) >= 1e-6 {
		return strconv.AppendFloat(out, f, 'f', -1, 64)
	}
	out = strconv.AppendFloat(out, f, 'e', -1, 64)
	if n := len(out); out[n-2] == '0' && out[n-3] == '-' { // e-07 is e-7 there
		out[n-2] = out[n-1]
		out = out[:n-1]
	}
	return out
}
