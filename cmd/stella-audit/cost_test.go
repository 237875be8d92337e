package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// nested is text that stands in so many lists.
func nested(depth int, text string) string {
	return strings.Repeat("[", depth) + text + strings.Repeat("]", depth)
}

// JSON has one form, which is demanded before anything is made of it.
func TestJSONHasOneForm(t *testing.T) {
	for name, c := range map[string]struct{ raw, says string }{
		"an object":                   {`{"":{},"a":[],"b":[{"c":"\"\\"},1,-1.5,1e-7,true,null,""],"é":"\u0001\n<>&` + "\u2028" + `"}`, "ok"},
		"in the order of UTF-16":      {`{"` + "\U0001F600" + `":1,"` + "\uFB33" + `":2}`, "ok"},
		"64 deep":                     {`{"a":` + nested(63, `"x"`) + `}`, "ok"},
		"64 deep, and braces in text": {`{"a":` + nested(63, `"\"[[[{{{"`) + `}`, "ok"},
		"65 deep":                     {`{"a":` + nested(64, `"x"`) + `}`, "64 deep"},
		"65 deep, without a value":    {`{"a":` + nested(64, "") + `}`, "64 deep"},
		"not in the order of UTF-16":  {`{"` + "\uFB33" + `":1,"` + "\U0001F600" + `":2}`, "form"},
		"another order":               {`{"b":1,"a":2}`, "form"},
		"another order, deep":         {`{"a":[{"b":1,"a":2}]}`, "form"},
		"a name twice":                {`{"a":1,"a":2}`, "form"},
		"an empty name twice":         {`{"":1,"":2}`, "form"},
		"white space":                 {`{"a": 1}`, "form"},
		"white space, deep":           {`{"a":[1 ]}`, "form"},
		"a line feed":                 {"{\"a\":1}\n", "end"},
		"another escape":              {`{"a":"\u0041"}`, "form"},
		"an escaped slash":            {`{"a":"\/"}`, "form"},
		"an escaped name":             {`{"\u0061":1}`, "form"},
		"a lone surrogate":            {`{"a":"\ud800"}`, "form"},
		"not UTF-8":                   {"{\"a\":\"\xff\"}", "form"},
		"a large number":              {`{"a":9007199254740992}`, "form"},
		"a huge number":               {`{"a":1e999}`, ""},
		"minus zero":                  {`{"a":-0}`, "form"},
		"another number":              {`{"a":1.0}`, "form"},
		"another exponent":            {`{"a":1E3}`, "form"},
		"megabytes of escapes":        {`{"a":"` + strings.Repeat(`\n`, 1<<20) + `"}`, "form"},
		"two values":                  {`{}{}`, ""},
		"cut short":                   {`{"a":"`, ""},
		"no object":                   {`[]`, ""},
		"nothing":                     {``, ""},
	} {
		found := outcome(func() { decode([]byte(c.raw), maxRun, "") })
		if found.status+found.text != "ok" && c.says == "ok" || found.status == "ok" && c.says != "ok" || c.says != "ok" && !strings.Contains(found.text, c.says) {
			t.Errorf("%s: %s %s, want %q", name, found.status, found.text, c.says)
		}
	}
}

// How often an object is asked for memory does not depend on what is in it.
func TestTheFormIsSeenWithoutMemory(t *testing.T) {
	raw := []byte(`{"a":[` + strings.Repeat(`{},[],"x",{"":[]},`, 100_000) + `"x"],"b":0}`)
	if n := testing.AllocsPerRun(1, func() { canonical(raw, maxRun, "") }); n > 400_000 { // of names
		t.Errorf("%.0f allocations", n)
	}
}

// What is one form for the other judge is one here, whatever is changed in it.
func TestOneFormForBoth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	good := 0
	for range 30_000 {
		raw := randomJSON(r, 0)
		if i := r.IntN(len(raw)); r.IntN(2) == 0 {
			raw = raw[:i] + []string{"", " ", "\"", "\\", ",", "{", "]", ":", "0", "-", "\n", "\xff"}[r.IntN(12)] + raw[i+r.IntN(2):]
		}
		raw = `{"":` + raw + `}`
		other := jcs.Check([]byte(raw)) == nil
		if found := outcome(func() { decode([]byte(raw), maxRun, "") }); (found.status == "ok") != other {
			t.Fatalf("%q: %s %s, and the other judge takes it: %t", raw, found.status, found.text, other)
		}
		if other {
			good++
		}
	}
	if good < 3_000 || good > 27_000 {
		t.Errorf("%d of them were good: too few to compare", good)
	}
}

// randomJSON is often in its one form.
func randomJSON(r *rand.Rand, depth int) string {
	text := []string{`""`, `"a"`, `"b"`, `"\\"`, `"\""`, `"\\\""`, "\"\u2028<é\"", `"\u001f"`, `"\u0020"`, "\"\U0001F600\"", "\"\uFB33\""}
	some := []string{}
	switch n := r.IntN(7); {
	case depth > 4 || n < 2:
		return append(text, "0", "1.5", "-1", "1e3", "-0", "1e-7", "1e+21", "null", "true", "9007199254740991", "9007199254740992")[r.IntN(len(text)+11)]
	case n < 4:
		for range r.IntN(4) {
			some = append(some, randomJSON(r, depth+1))
		}
		return "[" + strings.Join(some, ",") + "]"
	}
	for range r.IntN(3) {
		some = append(some, text[r.IntN(len(text))]+":"+randomJSON(r, depth+1))
	}
	return "{" + strings.Join(some, ",") + "}"
}

// What a parser of TOML would take hours for, or gigabytes, is refused; all that stella takes is not.
func TestTOMLIsBounded(t *testing.T) {
	long := strings.Repeat("x", 4000)
	for name, c := range map[string]struct {
		raw string
		ok  bool
	}{
		"all that is allowed":                {"a.\"b\".'c.d'.e=[[[[[[[{f.g.h.i=1.5,j=2026-11-28T00:00:00.5Z}]]]]]]]\n[[k.l.m.n]] # [[[[[[[[[[[[.......\n\"]\"=\"[[[[[[[[[[...........\"\n", true},
		"text of all forms":                  {"a=\"\"\"\n\"[[[[[[[[[\\\"\"\"[[[[[[[[[\"\"\"\"\"\nb='''\n'[[[[[[[[[\\'''''\nc=[\"\",'',\"\\\"[[[[[[[[[[\",'\\',\"#[[[[[[[[[\"]\nd=\"\"\"\"\"\"\ne=''''''\n", true},
		"a line of 4096 bytes":               {"a=\"" + strings.Repeat("x", 4092) + "\"\r\n#" + strings.Repeat("x", 4095) + "\n", true},
		"a name far in":                      {strings.Repeat(" ", 3000) + "a = 1\n", true},
		"many lists":                         {"a=[\n" + strings.Repeat("[\"]\",\"x.x\"],\n", 30_000) + "]\n", true},
		"65,536 keys":                        {keys(65_536), true},
		"65,537 keys":                        {keys(65_537), false},
		"a line of 4097 bytes":               {"a=\"" + strings.Repeat("x", 4093) + "\"\n", false},
		"9 deep":                             {"a=[[[[[[[[[1]]]]]]]]]\n", false},
		"9 deep, over lines":                 {"a=[\n[\n[\n[{b=[\n[\n[\n[1]]]]}]]]]\n", false},
		"deep behind text that closes":       {"a=\"]]]]]]]]]]]\"\nb=[[[[[[[[[1]]]]]]]]]\n", false},
		"deep behind a name that closes":     {"\"]]]]]]]]]]]\"=[[[[[[[[[1]]]]]]]]]\n", false},
		"deep behind lines that close":       {"a=\"\"\"\n]]]]]]]]]]]]\n\"\"\"\nb=[[[[[[[[[1]]]]]]]]]\n", false},
		"deep behind a comment that closes":  {"#]]]]]]]]]]]\nb=[[[[[[[[[1]]]]]]]]]\n", false},
		"deep behind lines that close late":  {"a=[\"\"\"\\\\\"\"\"\"\"\",[[[[[[[[[1]]]]]]]]]] # \"\n", false},
		"5 parts":                            {"a.b.c.d.e=1\n", false},
		"5 parts behind a quoted =":          {"\"=\".b.c.d.e=1\n", false},
		"5 parts behind quoted brackets":     {"\"[{,\".b.'}]'.d.e=1\n", false},
		"5 parts with blanks":                {"a . b .\tc . d . e = 1\n", false},
		"a table of 5 parts":                 {"[a.'='.c.d.e]\n", false},
		"tables of 5 parts":                  {"[[ a.b.c.\"]\".e ]]\n", false},
		"5 parts, in a table in a line":      {"a={b=1,c.d.e.f.g=1}\n", false},
		"a long name":                        {"\"" + long + "\"=1\n", false},
		"a long name in a table":             {"a={b=1,\n" + long + "={c=1}}\n", false},
		"a long name behind quoted brackets": {"\"" + strings.Repeat("=", 2000) + "\"=1\n", false},
		"a parser's own limit of lists":      {"a=" + strings.Repeat("[", 100_000) + "\n", false},
		"what closes more than was opened":   {"a=1\n]\n", false},
	} {
		if found := outcome(func() { parseTOML([]byte(c.raw)) }); (found.status == "ok") != c.ok {
			t.Errorf("%s: %s %.300s", name, found.status, found.text)
		}
	}
}

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d=1\n", i)
	}
	return b.String()
}

// TOML that the other judge takes is taken here, and what is taken is not deep.
func TestTOMLIsTakenByBoth(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	bits := []string{"a", "b", "1", "x=", "=", "=", "[", "]", "[", "]", "{", "}", "\"", "'", "\"\"\"", "'''", "\\", "\\\\", "\\\"", "#", "\n", "\n", ".", ",", " ", "\n[a", "\nb=", "\nc=[", "\nd={e="}
	taken, both := 0, 0
	for range 20_000 {
		raw := ""
		for range 1 + r.IntN(14) {
			raw += bits[r.IntN(len(bits))]
		}
		raw += "\n"
		var v any
		other := manifests.Scan("x", []byte(raw)) == nil && toml.Unmarshal([]byte(raw), &v) == nil
		found := outcome(func() { v = parseTOML([]byte(raw)) })
		if found.status != "ok" && other {
			t.Errorf("%q: %s", raw, found.text)
		}
		if found.status == "ok" {
			taken++
		}
		if other {
			both++
		}
	}
	if both < 200 || taken < both {
		t.Errorf("%d were taken, %d by both: too few to compare", taken, both)
	}
}

// Trust files are read once, not for each admission; and not all files are kept.
func TestTOMLIsRemembered(t *testing.T) {
	raw := []byte(keys(1000))
	want := fmt.Sprint(parseTOML(raw))
	if n := testing.AllocsPerRun(10, func() { parseTOML(raw) }); n > 10 {
		t.Errorf("%.0f allocations for what is known", n)
	}
	for i := range 100 {
		parseTOML([]byte(keys(i)))
	}
	if len(parsed) > 16 || fmt.Sprint(parseTOML(raw)) != want || len(list(parseTOML([]byte(keys(7))), "k6")) != 1 {
		t.Errorf("%d files are kept, or others than were read", len(parsed))
	}
}

// Each file of a bundle is looked for among all revocations, and of both there may be thousands.
func TestRevocationsAreFoundAtOnce(t *testing.T) {
	var file strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&file, "[[revoke]]\nblob = \"%064x\"\nfrom = \"2026-11-28T00:00:00.000000000Z\"\n", i)
	}
	fmt.Fprintf(&file, "[[revoke]]\nissuer = \"a\"\nsan = \"b\"\n[[revoke]]\nblob = \"%064x\"\n[[revoke]]\nblob = \"%064x\"\nfrom = \"2026-11-27T00:00:00.000000000Z\"\n", 1, 2)
	by := revocations([]byte(file.String()))
	for _, c := range []struct {
		what, since string
		want        bool
	}{
		{fmt.Sprintf("%064x", 0), "2026-11-28T00:00:00.000000000Z", true},
		{fmt.Sprintf("%064x", 0), "2026-11-27T23:59:59.999999999Z", false},
		{fmt.Sprintf("%064x", 0), "", false},
		{fmt.Sprintf("%064x", 1), "", true}, // for all times, whatever else is said of it
		{fmt.Sprintf("%064x", 2), "2026-11-27T00:00:00.000000000Z", true},
		{"ab", "", true},
		{fmt.Sprintf("%064x", 1000), "2026-11-28T00:00:00.000000000Z", false},
		{"", "2026-11-28T00:00:00.000000000Z", false},
	} {
		if got := revoked(by, c.what, c.since); got != c.want {
			t.Errorf("%s at %q: %t", c.what, c.since, got)
		}
	}
	if n := testing.AllocsPerRun(10, func() { revoked(by, "x", "x") }); n > 10 {
		t.Errorf("%.0f allocations for one file", n)
	}
	for _, bad := range []string{"[[revoke]]\n", "[[revoke]]\nkey = \"x\"\nfrom = \"\"\n", "[[revoke]]\nkey = \"x\"\nfrom = \"tomorrow\"\n", "[[revoke]]\nkey = \"x\"\nfrom = 1\n"} {
		if found := outcome(func() { revocations([]byte(bad)) }); found.status != "failed" {
			t.Errorf("%q: %s", bad, found.status)
		}
	}
}

// An envelope has one form for both.
func TestOneFormOfEnvelopesForBoth(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	site := `{"actor":"a","dataHash":"` + hash + `","seq":1,"tenant":"","time":"2026-11-22T09:00:01.000000000Z","type":"site.stopped","v":1}`
	run := `{"actor":"a\"","attempt":1,"dagId":"d","dagVersion":"1.0.0","dataHash":"` + hash + `","runId":"r","seq":7,"stepId":"s","tenant":"t","time":"2026-11-22T09:00:01.000000000Z","traceId":"x","type":"attempt.started","v":1}`
	good := 0
	for _, c := range [][3]string{
		{site}, {run}, {run, `"tenant":"t"`, `"tenant":""`}, {site, `"type":"site.stopped"`, `"type":"moon.landed"`},
		{site, `"tenant":"",`, ""}, {site, `"tenant":""`, `"tenant":3`}, {site, `"tenant":""`, `"tenant":null`}, {site, `{"actor":"a"`, `{"actor":""`},
		{site, `"actor":"a",`, ""}, {site, `{"actor":"a"`, `{"actor":"a","attempt":0`}, {site, `"seq":1`, `"seq":1,"stepId":""`}, {site, `"seq":1,`, ""},
		{site, `"seq":1`, `"runId":"","seq":1`}, {site, `"seq":1`, `"seq":-1`}, {site, `"seq":1`, `"seq":1.5`}, {site, `"seq":1`, `"seq":"1"`}, {site, `"v":1`, `"v":0`},
		{site, `"v":1`, `"v":1,"w":1`}, {site, `"type":"site.stopped"`, `"type":""`}, {site, `"type":"site.stopped",`, ""}, {site, hash, "00"}, {site, `01.0`, `1.0`},
		{run, `"attempt":1`, `"attempt":"1"`}, {run, `"attempt":1`, `"attempt":-1`}, {run, `"attempt":1,`, ""}, {run, `"dagId":"d"`, `"dagId":5`}, {run, `"dagId":"d"`, `"dagId":{}`},
		{run, `"runId":"r"`, `"runId":null`}, {run, `"traceId":"x"`, `"traceId":""`}, {run, `"dagVersion":"1.0.0"`, `"dagVersion":["1.0.0"]`}, {run, `"stepId":"s",`, ""},
	} {
		line := []byte(strings.Replace(c[0], c[1], c[2], 1))
		env, err := ledger.ParseEnvelope(line)
		err = cmp.Or(err, env.CheckSubject())
		if err == nil {
			good++
		}
		if found := outcome(func() { parseEnvelope(line) }); (found.status == "ok") != (err == nil) {
			t.Errorf("%s: %s %s, and the other judge says %v", line, found.status, found.text, err)
		}
	}
	if good != 4 {
		t.Errorf("%d are envelopes, want the first 4", good)
	}
}

// Of types that nobody here knows some are named, and no name is long.
func TestTypesOfANewerStellaAreNamedInShort(t *testing.T) {
	a := &audit{unknown: map[string]bool{}}
	for n := range 10_000 {
		e := entry{typ: strings.Repeat("x", 7000) + strconv.Itoa(n), all: object{"v": 1.0}}
		line := []byte(`{"data":{},"salt":"` + strings.Repeat("0", 64) + `","seq":0}`)
		e.sum = digest(line)
		a.dataOf(e, line)
	}
	if found := outcome(a.checkTypes); found.verdict != incomplete || len(found.text) > 5000 || len(a.unknown) > 21 {
		t.Errorf("%d are kept; %s, %d bytes", len(a.unknown), found.status, len(found.text))
	}
}

// Lines name the same signatures again and again, and of one of them there may be hundreds.
func TestSignaturesAreReadOnce(t *testing.T) {
	raw := []byte(`{"messageSignature":{"signature":""},"verificationMaterial":{"tlogEntries":[` + strings.Repeat("{},", 20_000) + `{}]}}`)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	a := &audit{file: file, members: map[string]*member{evidence + digest(raw): {size: int64(len(raw)), sum: digest(raw)}}}
	a.signature(digest(raw))
	if n := testing.AllocsPerRun(10, func() { a.signature(digest(raw)) }); n > 10 {
		t.Errorf("%.0f allocations for what is known", n)
	}
}
