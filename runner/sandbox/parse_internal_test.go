package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner"
)

func TestBreachesOfTheOutputContract(t *testing.T) {
	for name, raw := range map[string]string{
		"a key twice in one object":       `{"output":{"k":1,"k":2}}`,
		"a key twice over lines":          `{"output":{"k":1}}` + "\n" + `{"output":{"k":1}}`,
		"a key twice deep inside":         `{"output":{"k":{"a":1,"a":1}}}`,
		"an unknown kind":                 `{"outputs":{"k":1}}`,
		"a kind in capitals":              `{"Output":{"k":1}}`,
		"two kinds":                       `{"output":{"k":1},"progress":1}`,
		"no kind":                         `{}`,
		"a message alone":                 `{"message":"x"}`,
		"a message beside an output":      `{"output":{},"message":"x"}`,
		"null":                            `null`,
		"null for outputs":                `{"output":null}`,
		"an array":                        `[]`,
		"a pair":                          `k=v`,
		"an empty line":                   ``,
		"two objects in a line":           `{"progress":1}{"progress":1}`,
		"progress beyond 1":               `{"progress":1.01}`,
		"progress as text":                `{"progress":"1"}`,
		"an artifact without a name":      `{"artifact":{"path":"x"}}`,
		"an artifact that leads out":      `{"artifact":{"name":"../x"}}`,
		"an absolute artifact":            `{"artifact":{"name":"x","path":"/etc/passwd"}}`,
		"an artifact with a control byte": `{"artifact":{"name":"a\u0007"}}`,
		"an artifact's field in capitals": `{"artifact":{"Name":"x"}}`,
		"a null name":                     `{"artifact":{"name":null}}`,
		"an artifact twice":               `{"artifact":{"name":"x"}}` + "\n" + `{"artifact":{"name":"x"}}`,
		"a media type with a line feed":   `{"artifact":{"name":"x","mediaType":"a\nb"}}`,
		"an error without a code":         `{"error":{"message":"x"}}`,
		"an error with an unknown field":  `{"error":{"code":"X","stack":"x"}}`,
		"two errors":                      `{"error":{"code":"X"}}` + "\n" + `{"error":{"code":"X"}}`,
		"a negative delay":                `{"error":{"code":"X","retryAfterMs":-1}}`,
		"half a millisecond":              `{"error":{"code":"X","retryAfterMs":0.5}}`,
		"a number of 2^53":                `{"output":{"k":9007199254740992}}`,
		"invalid UTF-8":                   "{\"output\":{\"k\":\"\xff\"}}",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parseOutput([]byte(raw + "\n"))
			if err == nil || errors.Is(err, errLimit) {
				t.Errorf("%s: %v, want a fault", raw, err)
			}
		})
	}
}

func TestTheLastLineWithoutItsEndIsDropped(t *testing.T) {
	for raw, truncated := range map[string]bool{
		"": false, `{"output":{"a":1}}` + "\n": false,
		`{"output":{"a":1}}` + "\n" + `{"output":{"b`:      true,
		`{"output":{"a":1}}` + "\n" + `{"output":{"b":1}}`: true,
	} {
		out, _, err := parseOutput([]byte(raw))
		if err != nil || out.Truncated != truncated || out.Values["b"] != nil || raw != "" && out.Values["a"] == nil {
			t.Errorf("%q: %v, truncated %v, values %v", raw, err, out.Truncated, out.Values)
		}
	}
}

// FuzzOutput: what is accepted is canonical and within the limits, and reads
// the same when it is written once more.
func FuzzOutput(f *testing.F) {
	for _, s := range []string{
		`{"output":{"b":{"z":1,"a":[true,null]},"a":1.5}}` + "\n",
		`{"artifact":{"name":"a/b","path":"c","mediaType":"text/plain"}}` + "\n" + `{"progress":0.25,"message":"m"}` + "\n",
		`{"error":{"code":"X","message":"m","retryable":true,"retryAfterMs":5}}` + "\nrest",
		`{"output":{"k":1,"k":2}}` + "\n", "k=v\n", "\n", "{\"output\":{}}\n", `{"output":{"\u2028":"é"}}` + "\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, artifacts, err := parseOutput(raw)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for k, v := range out.Values {
			if err := jcs.Check(v); err != nil || len(v) > plugin.MaxValue {
				t.Errorf("value %q of %q: %v", v, k, err)
			}
			line, _ := json.Marshal(map[string]map[string]json.RawMessage{"output": {k: v}})
			again.Write(append(line, '\n'))
		}
		for _, a := range artifacts {
			if !filepath.IsLocal(a.Path) || !filepath.IsLocal(a.Name) {
				t.Errorf("artifact %+v leads out of its folder", a)
			}
			fmt.Fprintf(&again, "{\"artifact\":{\"name\":%q,\"path\":%q,\"mediaType\":%q}}\n", a.Name, a.Path, a.MediaType)
		}
		if out.Error != nil {
			line, _ := json.Marshal(map[string]*runner.PluginError{"error": out.Error})
			again.Write(append(line, '\n'))
		}
		out.Truncated = false
		out2, artifacts2, err := parseOutput(again.Bytes())
		if err != nil {
			t.Fatalf("%q\nwritten once more: %v", again.Bytes(), err)
		}
		if diff := cmp.Diff(out, out2); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(artifacts, artifacts2); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheTailKeepsTheLastLinesWithinItsLimit(t *testing.T) {
	var tl tail
	tl.limit = 1000
	var kept, dropped int64
	for i := range 5000 {
		line := strings.Repeat("x", i%90)
		kept += int64(len(line)) + 1
		dropped += tl.push("stdout", time.Unix(0, 0), []byte(line))
		if len(tl.buf) > 2*tl.limit+tailHead+90 {
			t.Fatalf("the buffer has %d bytes", len(tl.buf))
		}
	}
	n := 0
	tl.each(func(stream string, _ time.Time, line []byte) {
		n++
		kept -= int64(len(line)) + 1
		if stream != "stdout" {
			t.Errorf("stream %q", stream)
		}
	})
	if kept != dropped || n < 10 {
		t.Errorf("%d lines kept; %d bytes are missing, %d were counted as dropped", n, kept, dropped)
	}
	// One that is larger than everything takes the others with it.
	if tl.push("stderr", time.Unix(0, 0), make([]byte, 1000)) < 1001 || len(tl.buf) != tl.from {
		t.Error("a line beyond the limit was kept")
	}
}
