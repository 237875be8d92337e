package manifests_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/stellarun/stella/manifests"
)

// scanLines returns the faults of a scan, one a line.
func scanLines(raw string) []string {
	var all []string
	for _, f := range manifests.Scan("f", []byte(raw)) {
		all = append(all, strings.TrimPrefix(f.String(), "f:"))
	}
	return all
}

func TestScanNamesEachFault(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"an empty file has nothing wrong", "", ""},
		{"a key may have four parts and no more", "a.b.c.d = 1\na.b.c.e.f = 1",
			`2: a.b.c.e.…: the name has 5 parts, at most 4 are allowed (quote a name that has dots in it)`},
		{"a header may have four parts and no more", "[a.b.c.d]\n[a.b.c.d.e]\nx = 1\nx = 2",
			`2: a.b.c.d.…: the name has 5 parts, at most 4 are allowed (quote a name that has dots in it)
			 4: x: the key is set twice, first on line 3`},
		{"nesting ends at eight", "a = [[[[[[[[1]]]]]]]]\nb = [{x = [{x = [{x = [{x = 1}]}]}]}]\nc = [[[[[[[[[1]]]]]]]]]\nd = 1\nd = 2",
			`3: c[0][0][0][0][0][0][0][0]: lists and tables stand more than 8 deep in each other
			 5: d: the key is set twice, first on line 4`},
		{"a line may have 4 KiB", "a = '" + strings.Repeat("x", 4096-6) + "'\nb = '" + strings.Repeat("x", 4096-5) + "'\n#" + strings.Repeat("é", 2048),
			`2: the line has 4097 bytes, at most 4096 are allowed (break it up; in a """ string a \ at the end of a line joins it to the next)
			 3: the line has 4097 bytes, at most 4096 are allowed (break it up; in a """ string a \ at the end of a line joins it to the next)`},
		{"lines inside a text of several lines count too", "a = '''\n" + strings.Repeat("x", 4097) + "'''",
			`2: the line has 4100 bytes, at most 4096 are allowed (break it up; in a """ string a \ at the end of a line joins it to the next)`},
		{"NUL", "a = 1\n# \x00\n",
			`2: the character U+0000 cannot be seen and is not allowed (take it out; where a string needs it, write \u0000)`},
		{"control characters, one fault a line", "# \x1b[31m\x07\n# \x7f\n# \u0085\n#\t tabs are seen",
			`1: the character U+001B cannot be seen and is not allowed (take it out; where a string needs it, write \u001b)
			 2: the character U+007F cannot be seen and is not allowed (take it out; where a string needs it, write \u007f)
			 3: the character U+0085 cannot be seen and is not allowed (take it out; where a string needs it, write \u0085)`},
		{"characters that turn text around", "a = 1 # \u202e1 = b",
			`1: the character U+202E cannot be seen and is not allowed (take it out; where a string needs it, write \u202e)`},
		{"bytes that are not UTF-8", "a = '\xff'\nb = '\xed\xa0\x80'",
			`1: byte 0xff is not UTF-8 (save the file as UTF-8)
			 2: byte 0xed is not UTF-8 (save the file as UTF-8)`},
		{"a byte order mark", "\ufeffa = 1\n# \ufeff",
			`1: begins with a byte order mark (save the file as UTF-8 without it)
			 2: the character U+FEFF cannot be seen and is not allowed (take it out; where a string needs it, write \ufeff)`},
		{"a carriage return alone", "a = 1\r\nb = 2\r\r\n# c\rd",
			`2: a carriage return that no line feed follows (end lines with a line feed alone)
			 2: want the end of the line, found the end of the line (one key to a line; text stands in quotes)
			 3: a carriage return that no line feed follows (end lines with a line feed alone)`},
		{"all doubles are named", "a = 1\na = 2\n\"a\" = 3\n'\\a' = 4\n\"\\u0061\" = 5",
			`2: a: the key is set twice, first on line 1
			 3: a: the key is set twice, first on line 1
			 5: a: the key is set twice, first on line 1`},
		{"doubles in inline tables", "a = { b = 1, b = 2, c = { d = 1,\n d = 2 } }\nx = [{y = 1}, {y = 1, y = 2}]",
			`1: a.b: the key is set twice, first on line 1
			 2: a.c.d: the key is set twice, first on line 1
			 3: x[1].y: the key is set twice, first on line 3`},
		{"tables set twice", "[a]\n[b]\n[a]\n[[c]]\n[c]\n[[a]]\nd = 1\n[a.d]\n[[c]]\n[c.x]\n[c.x]",
			`3: a: the table is set twice, first on line 1
			 5: c: line 4 begins a list of tables of this name (write [[…]] for one more)
			 6: a: line 1 makes this one table, not a list of tables
			 11: c[1].x: the table is set twice, first on line 10`},
		{"a table that came with its parts may be set once", "[a.b]\n[a]\n[a]\n[x.y.z]\n[x]\ny.w = 1\n[p]\nq.r = 1\n[p.q.s]\n[p.q]",
			`3: a: the table is set twice, first on line 2
			 6: x.y.w: x.y is set on line 4; a dotted key cannot add to it (put the key where that table stands)
			 10: p.q: the table is set twice, first on line 8`},
		{"a table where a value is", "a = 1\nb = [1]\nc = {}\n[a]\n[a.x]\n[[b]]\n[b.x]\n[c]\n[c.x]\n[[c]]",
			`4: a: the name is set twice, first on line 1 as a value
			 5: a.x: a is set on line 1; nothing can be added to it here
			 6: b: the name is set twice, first on line 2 as a value
			 7: b.x: b is set on line 2; nothing can be added to it here
			 8: c: the table is set twice, first on line 3
			 9: c.x: c is set on line 3; nothing can be added to it here
			 10: c: line 3 makes this one table, not a list of tables`},
		{"dotted keys stay in their section", "a.b = 1\na.c = 2\n[a]\n[x.y]\n[x]\ny.z = 1\n[a.d]\n[t]\nu.v = 1\n[t.u]\n[t.u.w]\n[p]\nq = 1\nq.r = 2",
			`3: a: the table is set twice, first on line 1
			 6: x.y.z: x.y is set on line 4; a dotted key cannot add to it (put the key where that table stands)
			 10: t.u: the table is set twice, first on line 9
			 14: p.q.r: p.q is set on line 13; a dotted key cannot add to it (put the key where that table stands)`},
		{"dotted keys stay in their braces", "a = { b.c = 1, b.d = 2, b.c.e = 3 }\nf = { g = {}, g.h = 1 }",
			`1: a.b.c.e: a.b.c is set on line 1; a dotted key cannot add to it (put the key where that table stands)
			 2: f.g.h: f.g is set on line 2; a dotted key cannot add to it (put the key where that table stands)`},
		{"keys of no use", "\"\" = 1\n''.a = 1\n\"a\\nb\" = 1\n\"\\u202e\" = 1\n" + strings.Repeat("k", 257) + " = 1\n" + strings.Repeat("k", 256) + " = 1",
			`1: the key is empty
			 2: the key is empty
			 3: the key "a\nb" has characters that cannot be seen
			 4: the key "\u202e" has characters that cannot be seen
			 5: a part of the key has 257 bytes, at most 256 are allowed`},
		{"syntax, each place once", "a\nb = \nc = 'x\nd = \"y\ne = foo\nf = True\n = 1\n[g\n[[h]\n[]\ni = 1 2\nj = \"\\q\"\nk = \"\\uD800\"\né = 1\nl = [1, 2}\nm = [,]\nn = { o 1 }\np = 1",
			`1: want = after the key, found the end of the line
			 2: want a value, found the end of the line
			 3: the text has no closing ' (text over several lines stands in ''')
			 4: the text has no closing " (text over several lines stands in """)
			 5: "foo" is not a value (text stands in quotes; true and false are lower-case)
			 6: "True" is not a value (text stands in quotes; true and false are lower-case)
			 7: want a key, found '='
			 8: want ] after the name of the table, found the end of the line
			 9: want ]] after the name of the table, found the end of the line
			 10: want a key, found ']'
			 11: want the end of the line, found '2' (one key to a line; text stands in quotes)
			 12: a backslash before 'q' has no meaning (write \\ for a backslash, or use '…')
			 13: \u wants the 4 hex digits of a character
			 14: want a key, found 'é'
			 15: want a comma or the ] of the list that begins on line 15, found '}'
			 16: want a value, found ','
			 17: want = after the key, found '1'`},
		{"one mistake inside a list is one fault", "a = [\n 'b',\n c,\n 'd',\n ['e'],\n]\nf = 1\nf = 2",
			`3: "c" is not a value (text stands in quotes; true and false are lower-case)
			 8: f: the key is set twice, first on line 7`},
		{"what never ends", "a = [1,\n2", `2: the list that begins on line 1 has no end`},
		{"a text that never ends", "a = 1\nb = \"\"\"\n[c]\n", `2: the text that begins here has no end (it ends with """)`},
		{"too many quotes", `a = """x""""""`, `1: 6 quotes in a row`},
	} {
		if diff := cmp.Diff(lines(c.want), scanLines(c.raw)); diff != "" {
			t.Errorf("%s\n(-want +got)\n%s", c.name, diff)
		}
	}
}

func TestScanRecordsKeys(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"dots and quoted dots are two things", "a.b = 1\n\"a.b\" = 2\n'c\\d' = 3\n\"e\\u0066\" = 4",
			"\"a.b\" value\n\"c\\\\d\" value\na table\na.b value\nef value"},
		{"headers inside texts are text", "a = \"\"\"\n[b]\nc = 1\n\"\"\"\nd = '''\n[[e]]\n'''\nf = \"\"\"\\\"\"\"\n[g]\"\"\"\"\"\nh = \"[i]\" # [j]",
			"a value\nd value\nf value\nh value"},
		{"tables in lists have indexes", "[[s]]\nx = 1\n[s.t]\ny = 1\n[[s]]\n[[s.u]]\n[[s.u]]\nz = [[1, {w = 2}], []]",
			"s tables\ns[0] table\ns[0].t table\ns[0].t.y value\ns[0].x value\ns[1] table\ns[1].u tables\ns[1].u[0] table\ns[1].u[1] table\n" +
				"s[1].u[1].z list\ns[1].u[1].z[0] list\ns[1].u[1].z[0][0] value\ns[1].u[1].z[0][1] table\ns[1].u[1].z[0][1].w value\ns[1].u[1].z[1] list"},
		{"dates, floats and numbers of other bases are single values",
			"a = 1979-05-27 07:32:00Z\nb = 07:32:00\nc = [1979-05-27 , 0xDEAD_beef, -1.5e+3, +inf, nan, 0o7, 0b1]\nd = 1979-05-27 # x\ne = true",
			"a value\nb value\nc list\nc[0] value\nc[1] value\nc[2] value\nc[3] value\nc[4] value\nc[5] value\nc[6] value\nd value\ne value"},
		{"inline tables over lines", "a = { b = 1, # c\n\n  d.e = {},\n}",
			"a table\na.b value\na.d table\na.d.e table"},
		{"a table may come after its parts", "[a.b]\n[a]\nc = 1", "a table\na.b table\na.c value"},
	} {
		if got := scanLines(c.raw); got != nil {
			t.Errorf("%s: %v", c.name, got)
		}
		if diff := cmp.Diff(strings.Split(c.want, "\n"), manifests.Keys([]byte(c.raw))); diff != "" {
			t.Errorf("%s\n(-want +got)\n%s", c.name, diff)
		}
		if same, ok := manifests.Agree([]byte(c.raw), []byte(c.raw)); !same || !ok {
			t.Errorf("%s: the parser disagrees: same %v, ok %v", c.name, same, ok)
		}
	}
}

// TestDisagreementIsNoticed gives the scan one text and the parser another: a
// file that the two read differently is refused.
func TestDisagreementIsNoticed(t *testing.T) {
	texts := []string{"a = 1", "a = []", "a = [1]", "a = [[]]", "a = {}", "a = {b = 1}", "a = {b = []}", "[[a]]", "[[a]]\n[[a]]", "[[a]]\nb = 1", "b = 1", ""}
	for i, x := range texts {
		for j, y := range texts {
			same, ok := manifests.Agree([]byte(x), []byte(y))
			if !ok || same != (i == j) {
				t.Errorf("scan of %q, parse of %q: same %v, ok %v", x, y, same, ok)
			}
		}
	}
}

// hostile are files that cost a TOML parser far more than their length, each in
// a given size.
func hostile() map[string]func(n int) string {
	repeat := func(s string) func(int) string {
		return func(n int) string { return "a = " + strings.Repeat(s, n/len(s)) + "\n" }
	}
	numbered := func(head, line string) func(int) string {
		return func(n int) string {
			var b strings.Builder
			b.WriteString(head)
			for i := 0; b.Len() < n; i++ {
				fmt.Fprintf(&b, line, i)
			}
			return b.String()
		}
	}
	long := strings.Repeat("k", 250)
	return map[string]func(int) string{
		"a dotted key of many parts":        func(n int) string { return strings.Repeat("a.", n/2) + "a = 1\n" },
		"a header of many parts":            func(n int) string { return "[" + strings.Repeat("a.", n/2) + "a]\n" },
		"nested brackets":                   repeat("["),
		"nested brackets on lines":          repeat("[\n"),
		"nested braces":                     repeat("{a="),
		"one long line":                     func(n int) string { return "a = '" + strings.Repeat("x", n) + "'\n" },
		"very many keys":                    numbered("", "k%d=1\n"),
		"very many elements":                repeat("[\n1,"),
		"short keys under long headers":     numbered("["+long+"."+long+"."+long+"."+long+"]\n", "k%d=1\n"),
		"deep inline tables, again":         numbered("", "[[a.b.c.d]]\na.b.c.d={a.b.c.d={a.b.c.d={a.b.c.d={a.b.c.d={a.b.c.d={a.b.c.d={a.b.c.d=%d}}}}}}}\n"),
		"one table again and again":         func(n int) string { return strings.Repeat("[a]\n", n/4) },
		"control characters on every line":  func(n int) string { return strings.Repeat("\x01\n", n/2) },
		"lines that are no TOML":            func(n int) string { return strings.Repeat("?\n", n/2) },
		"texts that begin and never end":    repeat("\"\"\"\n'''\n"),
		"backslashes":                       repeat("\"\"\"\\\n"),
		"key after key that is no key":      numbered("", "k%d = [\n"),
		"a million lines and then a fault":  func(n int) string { return strings.Repeat("\n", n-2) + "?" },
		"quoted keys of nothing but escape": numbered("", "\"\\u0061\\u0062%d\" = \"\\u0000\"\nx.\"\\u0061\" = 1\n"),
	}
}

// TestHostileFilesStopAtTheScan measures what cannot depend on the machine: the
// bytes that are allocated. They may grow with the file, not faster, and what a
// parser of the whole file reports is what the scan alone reports: the TOML
// parser was never asked.
func TestHostileFilesStopAtTheScan(t *testing.T) {
	for name, make := range hostile() {
		t.Run(name, func(t *testing.T) {
			small, big := []byte(make(160<<10)), []byte(make(800<<10))
			a := allocated(func() { manifests.Scan("f", small) })
			b := allocated(func() { manifests.Scan("f", big) })
			if b > 6*a+1<<20 {
				t.Errorf("5 times the file took %d times the memory: %d and %d bytes", b/max(a, 1), a, b)
			}
			if b > 64<<20 {
				t.Errorf("the scan took %d bytes, more than 64 MiB", b)
			}
			raw := slices.Concat([]byte("schema = \"stella.dag/1\"\n"), big)
			faults := manifests.Scan("f", raw)
			if n := len(faults); n == 0 || n > manifests.MaxFaults+1 {
				t.Fatalf("%d faults", n)
			}
			_, err := manifests.ParseDAG("f", raw)
			if got, _ := err.(manifests.Faults); !slices.Equal(got, faults) {
				t.Errorf("parsing says more or less than the scan: %d faults, first %v; the scan %d, first %v", len(got), got[:min(1, len(got))], len(faults), faults[0])
			}
		})
	}
}

func TestFilesThatAreTooLargeAreNotLookedAt(t *testing.T) {
	raw := []byte(strings.Repeat("\n", manifests.MaxBytes+1))
	if diff := cmp.Diff([]string{" the file has 1048577 bytes, at most 1048576 are allowed"}, scanLines(string(raw))); diff != "" {
		t.Error(diff)
	}
	if n := allocated(func() { manifests.Scan("f", raw) }); n > 4096 {
		t.Errorf("looking at the length took %d bytes", n)
	}
	for _, l := range languages() {
		head := "schema = \"" + l.schema + "\"\n"
		raw := []byte(head + strings.Repeat("\n", l.most-len(head)))
		if _, err := l.parse("f", raw); err != nil && strings.Contains(err.Error(), "at most") {
			t.Errorf("%s: %d bytes: %v", l.name, len(raw), err)
		}
		_, err := l.parse("f", append(raw, '\n'))
		want := fmt.Sprintf("f: the file has %d bytes, at most %d are allowed", l.most+1, l.most)
		if err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", l.name, err, want)
		}
	}
}

func TestItemsAreCounted(t *testing.T) {
	file := func(n int) string { return "a = [\n" + strings.Repeat("1,\n", n) + "]\n" }
	if got := scanLines(file(manifests.MaxItems - 1)); got != nil {
		t.Errorf("as many as allowed: %v", got)
	}
	want := []string{fmt.Sprintf("%d: more than 65536 keys, tables and list items", manifests.MaxItems+1)}
	if diff := cmp.Diff(want, scanLines(file(manifests.MaxItems))); diff != "" {
		t.Error(diff)
	}
}

func TestFaultsAreCapped(t *testing.T) {
	got := manifests.Scan("f", []byte(strings.Repeat("a = 1\n", manifests.MaxFaults+3)))
	if len(got) != manifests.MaxFaults+1 {
		t.Fatalf("%d faults", len(got))
	}
	if last := got[len(got)-1].String(); last != "f: 2 more faults are not shown" {
		t.Errorf("last fault %q", last)
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// flatten lists decoded values as manifests.Keys lists what the scan saw.
func flatten(value any) []string {
	var all []string
	var walk func(path string, value any)
	walk = func(path string, value any) {
		kind := "value"
		switch v := value.(type) {
		case map[string]any:
			kind = "table"
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(manifests.Join(path, k), v[k])
			}
		case []map[string]any:
			kind = "tables"
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), e)
			}
		case []any:
			kind = "list"
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), e)
			}
		}
		if path != "" {
			all = append(all, path+" "+kind)
		}
	}
	walk("", value)
	slices.Sort(all)
	return all
}

// compare fails unless scan and parser, if both accept raw, see the same keys.
// It says whether both did.
func compare(t interface{ Fatalf(string, ...any) }, raw []byte) bool {
	if len(manifests.Scan("f", raw)) > 0 {
		return false
	}
	var values any
	if _, err := toml.Decode(string(raw), &values); err != nil {
		return false
	}
	if diff := cmp.Diff(flatten(values), manifests.Keys(raw)); diff != "" {
		t.Fatalf("the parser and the scan see different keys (-parser +scan):\n%s\nof\n%s", diff, raw)
	}
	if same, _ := manifests.Agree(raw, raw); !same {
		t.Fatalf("the check of each parse says they differ:\n%s", raw)
	}
	return true
}
