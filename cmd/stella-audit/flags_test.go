package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

const site = "00112233445566778899aabbccddeeff"

// noteOf is a note of the log whose archive lies in testdata.
func noteOf(t *testing.T, siteID string, size int64) []byte {
	t.Helper()
	note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: ledger.Origin(siteID, 1), Size: size}, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return note
}

// What the auditor got wrong accuses nobody; what cannot be judged hides nothing of the rest.
func TestMistakesOfTheAuditor(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, raw []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile("testdata/archive.tar")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ledger.NewWitnessKey("w.example/a", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	const tar = "testdata/archive.tar"
	cut, age, part := write("cut.tar", good[:len(good)/2]), write("x.tar.age", []byte("age-encryption.org/v1\n")), write("x.tar.001", good[:1000])
	junk, other, inside := write("junk", []byte("x")), write("other", noteOf(t, strings.Repeat("0", 32), 20)), write("inside", noteOf(t, site, 18))
	proof := write("proof", []byte(`{"oldSize":9,"size":21,"proof":[]}`))
	missing := filepath.Join(dir, "nothere.tar")
	for name, tc := range map[string]struct {
		args string
		code int
		want []string // in the output
		not  string   // and this is not
	}{
		"no note":                           {"-previous " + junk + " " + tar, 1, []string{"--previous " + junk + ": no signed tree head"}, "archive "},
		"a note of another site":            {"-previous " + other + " " + tar, 1, []string{"previous    not judged  the note is of site 000", "NOT JUDGED"}, "failed"},
		"a cosigned note of another":        {"-witness " + k.Witness.String() + " -cosigned " + other + " " + tar, 1, []string{"witnesses   not judged  the note is of site 000"}, "failed"},
		"no proof":                          {"-previous " + inside + " " + tar, 8, []string{"missing     18 to 21 is needed", "stella ledger prove --consistency 18 --to 21"}, "this proof"},
		"a proof for other sizes":           {"-previous " + inside + " -consistency " + proof + " " + tar, 8, []string{"18 to 21 is needed, given: [9] to [21]"}, "failed"},
		"a proof without a note":            {"-consistency " + proof + " " + tar, 1, []string{"--consistency goes with --previous"}, "archive "},
		"a cosigned proof without one":      {"-cosigned-consistency " + proof + " " + tar, 1, []string{"--cosigned-consistency with --cosigned"}, "archive "},
		"a flag behind the archive":         {tar + " -withheld 1", 1, []string{"flags stand before the archives"}, "archive "},
		"an empty site":                     {"-site-id= " + tar, 1, []string{"--site-id is empty"}, "archive "},
		"fewer than none":                   {"-min -1 " + tar, 1, []string{"-1 witnesses are demanded"}, "archive "},
		"less than nothing withheld":        {"-withheld -1 " + tar, 1, []string{"--withheld -1 is neither a number"}, "archive "},
		"a witness as text":                 {"-witness " + k.Witness.String() + " " + tar, 0, []string{"skipped: without --witness, and --cosigned"}, ""},
		"no witness":                        {"-witness w+x " + tar, 1, []string{`"w+x" is neither the public key of a witness`}, "archive "},
		"an encrypted archive":              {age, 1, []string{"it is encrypted, or a part: "}, "FAILED"},
		"a part":                            {part, 1, []string{"it is encrypted, or a part: "}, "FAILED"},
		"a cut archive":                     {cut, 7, []string{"failed      it is cut short, in or behind \"ledger/"}, ""},
		"one cut, and one missing":          {cut + " " + missing, 7, []string{"FAILED", "nothere.tar: "}, ""},
		"one missing, and one that is good": {missing + " " + tar, 1, []string{"VERIFIED", "nothere.tar: ", "meets       not judged"}, "FAILED"},
	} {
		var out bytes.Buffer
		code := run(append([]string{"-log-key", "testdata/log.pub", "-site-key", "testdata/site.pub"}, strings.Fields(tc.args)...), &out, &out)
		bad := code != tc.code || tc.not != "" && strings.Contains(out.String(), tc.not)
		for _, w := range tc.want {
			bad = bad || !strings.Contains(out.String(), w)
		}
		if bad {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", name, code, tc.code, tc.want, &out)
		}
	}
}

// Both have one form of JSON, that of RFC 8785.
func TestOneFormOfJSON(t *testing.T) {
	values := []any{
		map[string]any{"\U0001F600": 1, "\uff61": 2, "\ue000": 3, "a": 4, "": 5, "\U0010ffff": 6, "\ud7ff": 7, "a\uff61": 8, "a\U0001F600": 9},
		[]any{"<&>\u2028\u2029\x7f\b\f\n\r\t\"\\\x00\x1f/\ufffd", "\\u003c", []any{}, map[string]any{}, nil, true, -1, 0, 1<<53 - 1},
	}
	for _, v := range values {
		want, err := jcs.Marshal(map[string]any{"": v})
		if err != nil {
			t.Fatal(err)
		}
		if found := outcome(func() { decode(want, maxRun, "") }); found.status != "ok" {
			t.Errorf("%s: %s", want, found.text)
		}
	}
	for _, raw := range []string{`{"a":-0}`, `{"a":9007199254740992}`, `{"a":"\u003c"}`, `{"a":1,"a":1}`, `{"b":1,"a":1}`, `{"a":1.0}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":1} `, `{"` + "\uff61" + `":1,"` + "\U0001F600" + `":1}`} {
		if found := outcome(func() { decode([]byte(raw), maxRun, "") }); found.status == "ok" {
			t.Errorf("%s was taken", raw)
		}
		var v any
		if canonical, err := jcs.Canonicalize([]byte(raw)); err == nil && string(canonical) == raw && json.Unmarshal([]byte(raw), &v) == nil {
			t.Errorf("%s is canonical", raw)
		}
	}
}

// What a comment says is no reason to refuse a file that stella takes.
func TestParseTOMLReadsNoComments(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		ok   bool
	}{
		"dots in a comment":     {"# " + strings.Repeat(".", 600) + "\na = 1\n", true},
		"brackets in a comment": {"# " + strings.Repeat("[", 600) + "\na = 1\n", true},
		"deep tables":           {"a = " + strings.Repeat("[", 600) + "\n", false},
		"a long key":            {"a" + strings.Repeat(".a", 600) + " = 1\n", false},
	} {
		if found := outcome(func() { parseTOML([]byte(tc.file)) }); (found.status == "ok") != tc.ok {
			t.Errorf("%s: %s %s", name, found.status, found.text)
		}
	}
}
