package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checkTemplate tells whether each ${ of s has its }. Braces inside the strings
// and comments of a CEL expression do not count; what the expression says is
// for CEL to judge. The error says what is open.
func checkTemplate(s string) error {
	for {
		_, rest, ok := strings.Cut(s, "${")
		if !ok {
			return nil
		}
		end, err := ExpressionEnd(rest)
		if err != nil {
			return err
		}
		if strings.TrimSpace(rest[:end]) == "" {
			return fmt.Errorf("${ } is empty")
		}
		s = rest[end+1:]
	}
}

// ExpressionEnd finds the } that closes the expression at the start of s, which is
// what follows a ${. Braces inside strings and comments of CEL do not count.
func ExpressionEnd(s string) (int, error) {
	depth := 1
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i, nil
			}
		case c == '"' || c == '\'':
			n := literalEnd(s[i:], rawPrefix(s[:i]))
			if n < 0 {
				return 0, fmt.Errorf("a string inside ${ } has no end")
			}
			i += n
			continue
		case strings.HasPrefix(s[i:], "//"):
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				return 0, fmt.Errorf("a comment inside ${ } hides its end")
			}
			i += n
		}
		i++
	}
	return 0, fmt.Errorf("${ has no }")
}

// rawPrefix tells whether the word before a quote makes a raw string of it: r, R,
// or those with a b or B.
func rawPrefix(before string) bool {
	start := len(before)
	for start > 0 && before[start-1] != '-' && isBareChar(before[start-1]) {
		start--
	}
	switch strings.ToLower(before[start:]) {
	case "r", "rb", "br":
		return true
	}
	return false
}

// literalEnd is the length of the CEL string at the start of s, -1 if it has no
// end. It has one quote on each side, or three.
func literalEnd(s string, raw bool) int {
	quote := s[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case s[i] == '\\' && !raw:
			i++
		case s[i] == '\n' && len(quote) == 1:
			return -1
		}
	}
	return -1
}

// templates checks every text inside a free value.
func (r *report) templates(value any, n *node) {
	switch v := value.(type) {
	case string:
		if err := checkTemplate(v); err != nil {
			r.add(n.line, n.path(), err.Error(), "write ${ CEL }")
		}
	case []any:
		for i, e := range v {
			r.templates(e, n.elems[i])
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			r.templates(v[name], n.kids[name])
		}
	}
}

// secrets reports texts inside a free value that look like secrets: by the name
// of their key, or because they are a private key. A text with an expression in
// it is none.
func (r *report) secrets(value any, n *node, named bool) {
	switch v := value.(type) {
	case string:
		if v == "" || strings.Contains(v, "${") {
			return
		}
		if named || strings.Contains(v, "-----BEGIN ") && strings.Contains(v, "PRIVATE KEY-----") {
			r.add(n.line, n.path(), "looks like a secret in the clear",
				`name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef`)
		}
	case []any:
		for i, e := range v {
			r.secrets(e, n.elems[i], named)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			r.secrets(v[name], n.kids[name], secretName(name))
		}
	}
}

// secretName tells whether a key by its last word holds a secret: password,
// db_password and clientSecret do, secret_name and secretRef do not.
func secretName(key string) bool {
	words := splitWords(key)
	if len(words) == 0 {
		return false
	}
	last := strings.TrimSuffix(words[len(words)-1], "s")
	if last == "key" && len(words) > 1 {
		last = words[len(words)-2] + "key"
	}
	switch last {
	case "password", "passwd", "passphrase", "pwd", "secret", "token", "credential",
		"apikey", "accesskey", "privatekey", "secretkey", "signingkey":
		return true
	}
	return false
}

// splitWords cuts a key at _, -, . and before capitals, and folds the case.
func splitWords(key string) []string {
	var b strings.Builder
	lower := false
	for i := range len(key) {
		c := key[i]
		if c >= 'A' && c <= 'Z' && lower {
			b.WriteByte(' ')
		}
		lower = isLowerDigit(c)
		b.WriteByte(c)
	}
	return strings.FieldsFunc(strings.ToLower(b.String()), func(c rune) bool {
		return c == '_' || c == '-' || c == '.' || c == ' '
	})
}
