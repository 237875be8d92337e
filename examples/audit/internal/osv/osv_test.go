package osv_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stellarun/stella/examples/audit/internal/osv"
)

func TestCompare(t *testing.T) {
	module := osv.Package{Ecosystem: "Go", Name: "example.com/m"}
	stdlib := osv.Package{Ecosystem: "Go", Name: "stdlib"}
	deb := osv.Package{Ecosystem: "Debian:12", Name: "a"}
	for _, c := range []struct {
		name  string
		pkg   osv.Package
		order []string
	}{
		{"precedence of Semantic Versioning 2.0, section 11", module, []string{
			"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
		}},
		{"with and without v", module, []string{"v1.2.3", "1.2.4", "v1.10.0", "2.0.0"}},
		{"pseudo-versions lie between releases", module, []string{
			"v0.0.0-20200101000000-000000000000", "v0.0.0-20210101000000-ffffffffffff",
			"v1.2.2", "v1.2.3-0.20200101000000-aaaaaaaaaaaa", "v1.2.3-pre", "v1.2.3-pre.0.20200101000000-aaaaaaaaaaaa", "v1.2.3",
		}},
		{"releases of Go", stdlib, []string{
			"1.20.14", "1.21.0-0", "1.21beta1", "1.21rc2", "1.21rc10", "1.21.0", "1.21.3", "go1.21.10", "1.22.0-rc.1", "go1.22rc2", "go1.22.0",
		}},
		{"Debian", deb, []string{"1.0~rc1", "1.0", "1.0-1", "1:0"}},
	} {
		for i := 0; i+1 < len(c.order); i++ {
			a, b := c.order[i], c.order[i+1]
			if got, err := osv.Compare(c.pkg, a, b); err != nil || got != -1 {
				t.Errorf("%s: Compare(%s, %s) = %d, %v; want -1", c.name, a, b, got, err)
			}
			if got, err := osv.Compare(c.pkg, b, a); err != nil || got != 1 {
				t.Errorf("%s: Compare(%s, %s) = %d, %v; want 1", c.name, b, a, got, err)
			}
		}
	}
	for _, c := range []struct {
		pkg  osv.Package
		a, b string
	}{
		{module, "1.2.3+build", "v1.2.3"}, {module, "2.0.0+incompatible", "v2.0.0"}, {module, "v1.0.0+dirty", "1.0.0"},
		{stdlib, "go1.21", "1.21.0"}, {stdlib, "go1.22rc1", "1.22.0-rc.1"}, {stdlib, "go1.21.3-distro.1", "1.21.3"}, {stdlib, "go1.26.1 X:nodwarf5", "1.26.1"},
	} {
		if got, err := osv.Compare(c.pkg, c.a, c.b); err != nil || got != 0 {
			t.Errorf("Compare(%s, %s) = %d, %v; want 0", c.a, c.b, got, err)
		}
	}
	for _, c := range []struct {
		pkg osv.Package
		v   string
	}{
		{module, ""}, {module, "(devel)"}, {module, "01.0.0"}, {module, "1.2.3.4"}, {stdlib, ""}, {stdlib, "devel +abc"}, {stdlib, "go1.x"}, {stdlib, "go"},
		{deb, "1 2"}, {osv.Package{Ecosystem: "npm", Name: "a"}, "1.0.0"},
	} {
		if got, err := osv.Compare(c.pkg, c.v, c.v); !errors.Is(err, osv.ErrVersion) {
			t.Errorf("Compare(%q) in %s = %d, %v; want ErrVersion", c.v, c.pkg.Ecosystem, got, err)
		}
	}
}

// record builds a record about example.com/m from events in short form:
// "i1.0.0 f1.2.0" is introduced and fixed; l is last_affected, m is limit.
func record(t *testing.T, ranges ...string) osv.Record {
	t.Helper()
	var rs []osv.Range
	for _, text := range ranges {
		r := osv.Range{Type: osv.RangeSemver}
		for event := range strings.FieldsSeq(text) {
			switch v := event[1:]; event[0] {
			case 'i':
				r.Events = append(r.Events, osv.Event{Introduced: v})
			case 'f':
				r.Events = append(r.Events, osv.Event{Fixed: v})
			case 'l':
				r.Events = append(r.Events, osv.Event{LastAffected: v})
			case 'm':
				r.Events = append(r.Events, osv.Event{Limit: v})
			}
		}
		rs = append(rs, r)
	}
	return decode(t, osv.Record{
		ID: "T-1", Modified: "2024-01-01T00:00:00Z",
		Affected: []osv.Affected{{Package: osv.Package{Ecosystem: "Go", Name: "example.com/m"}, Ranges: rs}},
	})
}

func decode(t *testing.T, r osv.Record) osv.Record {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	out, err := osv.Decode(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestJudgeRanges(t *testing.T) {
	for _, c := range []struct {
		name     string
		ranges   []string
		affected map[string]string // version → fixed
		not      []string
	}{
		{"from the beginning to a fix", []string{"i0 f1.2.0"},
			map[string]string{"0.0.1": "1.2.0", "v0.0.0-20200101000000-abcdefabcdef": "1.2.0", "1.2.0-rc.1": "1.2.0", "v1.1.9": "1.2.0"}, []string{"1.2.0", "1.2.1", "2.0.0"}},
		{"never fixed", []string{"i1.0.0"}, map[string]string{"1.0.0": "", "9.0.0": ""}, []string{"0.9.0", "1.0.0-rc.1"}},
		{"two intervals, events in any order", []string{"f2.1.0 i0 i2.0.0 f1.2.0"},
			map[string]string{"1.0.0": "1.2.0", "2.0.5": "2.1.0"}, []string{"1.2.0", "1.9.9", "2.1.0"}},
		{"the fault comes back where it was fixed", []string{"i1.0.0 f2.0.0 i2.0.0 f3.0.0"},
			map[string]string{"1.5.0": "2.0.0", "2.0.0": "3.0.0", "2.5.0": "3.0.0"}, []string{"0.9.0", "3.0.0"}},
		{"last_affected belongs to the range", []string{"i1.0.0 l1.5.0"}, map[string]string{"1.0.0": "", "1.5.0": ""}, []string{"1.5.1", "0.1.0"}},
		{"a single version", []string{"i2.0.0 l2.0.0"}, map[string]string{"2.0.0": ""}, []string{"1.9.9", "2.0.1"}},
		{"last_affected, then another interval", []string{"i1.0.0 l1.5.0 i2.0.0 f2.3.0"},
			map[string]string{"1.5.0": "2.3.0", "2.1.0": "2.3.0"}, []string{"1.6.0", "2.3.0"}},
		{"a limit cuts off", []string{"i1.0.0 m2.0.0"}, map[string]string{"1.9.0": ""}, []string{"2.0.0", "3.0.0"}},
		{"below one of two limits is enough", []string{"i1.0.0 m2.0.0 m4.0.0"}, map[string]string{"3.0.0": ""}, []string{"4.0.0"}},
		{"the limit that is none", []string{"i1.0.0 m*"}, map[string]string{"99.0.0": ""}, []string{"0.1.0"}},
		{"two ranges", []string{"i1.0.0 f1.1.0", "i1.5.0 f1.6.0"}, map[string]string{"1.0.5": "1.1.0", "1.5.5": "1.6.0"}, []string{"1.2.0", "1.6.0"}},
		{"pre-releases of the introducing version", []string{"i1.21.0-0 f1.21.3"}, map[string]string{"1.21.0-rc.1": "1.21.3", "1.21.0": "1.21.3"}, []string{"1.20.9"}},
	} {
		r := record(t, c.ranges...)
		for version, fixed := range c.affected {
			v, err := r.Judge(osv.Subject{Ecosystem: "Go", Name: "example.com/m", Version: version})
			if err != nil || !v.Affected || v.Fixed != fixed {
				t.Errorf("%s: %s: %+v, %v; want affected, fixed in %q", c.name, version, v, err, fixed)
			}
		}
		for _, version := range c.not {
			if v, err := r.Judge(osv.Subject{Ecosystem: "Go", Name: "example.com/m", Version: version}); err != nil || v.Affected {
				t.Errorf("%s: %s: %+v, %v; want not affected", c.name, version, v, err)
			}
		}
	}
}

func TestJudgePackages(t *testing.T) {
	events := []osv.Event{{Introduced: "0"}, {Fixed: "1.2-1+deb12u1"}}
	about := func(ecosystem string, kind osv.RangeType, versions ...string) osv.Record {
		return decode(t, osv.Record{ID: "T-1", Modified: "2024-01-01T00:00:00Z", Affected: []osv.Affected{{
			Package: osv.Package{Ecosystem: ecosystem, Name: "a"}, Ranges: []osv.Range{{Type: kind, Events: events}}, Versions: versions,
		}}})
	}
	deb12 := osv.Subject{Ecosystem: "Debian:12", Name: "a", Version: "1.2-1"}
	for _, c := range []struct {
		name   string
		record osv.Record
		asked  osv.Subject
		want   osv.Verdict
	}{
		{"the same release", about("Debian:12", osv.RangeEcosystem), deb12, osv.Verdict{Affected: true, Fixed: "1.2-1+deb12u1"}},
		{"no release means all", about("Debian", osv.RangeEcosystem), deb12, osv.Verdict{Affected: true, Fixed: "1.2-1+deb12u1"}},
		{"another release", about("Debian:11", osv.RangeEcosystem), deb12, osv.Verdict{}},
		{"a release that begins alike", about("Debian:1", osv.RangeEcosystem), deb12, osv.Verdict{}},
		{"another name", about("Debian:12", osv.RangeEcosystem), osv.Subject{Ecosystem: "Debian:12", Name: "A", Version: "1"}, osv.Verdict{}},
		{"the fixed version", about("Debian:12", osv.RangeEcosystem), osv.Subject{Ecosystem: "Debian:12", Name: "a", Version: "1.2-1+deb12u1"}, osv.Verdict{}},
		{"a version that is listed, without an order", about("Alpine:v3.19", osv.RangeEcosystem, "9-r1"),
			osv.Subject{Ecosystem: "Alpine:v3.19", Name: "a", Version: "9-r1"}, osv.Verdict{Affected: true}},
		{"an order that is not known", about("Alpine:v3.19", osv.RangeEcosystem), osv.Subject{Ecosystem: "Alpine:v3.19", Name: "a", Version: "1"}, osv.Verdict{Unknown: true}},
		{"ranges of commits say nothing", about("Debian:12", osv.RangeGit), deb12, osv.Verdict{}},
	} {
		got, err := c.record.Judge(c.asked)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", c.name, err, diff)
		}
	}
	if _, err := about("Debian:12", osv.RangeEcosystem).Judge(osv.Subject{Ecosystem: "Debian:12", Name: "a", Version: "1 2"}); !errors.Is(err, osv.ErrVersion) {
		t.Errorf("a version that is none: %v; want ErrVersion", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const frame = `{"id":"T-1","modified":"2024-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"m"},"ranges":[{"type":"SEMVER","events":%s}]}]}`
	for name, text := range map[string]string{
		"no JSON":                     `{`,
		"two values":                  `{"id":"T-1","modified":"2024-01-01T00:00:00Z"}{}`,
		"no id":                       `{"modified":"2024-01-01T00:00:00Z"}`,
		"a path as id":                `{"id":"../T","modified":"2024-01-01T00:00:00Z"}`,
		"no time":                     `{"id":"T-1"}`,
		"a time that is none":         `{"id":"T-1","modified":"yesterday"}`,
		"withdrawn at no time":        `{"id":"T-1","modified":"2024-01-01T00:00:00Z","withdrawn":"yes"}`,
		"an event of no kind":         fmt.Sprintf(frame, `[{"introduced":"0"},{}]`),
		"an event of two kinds":       fmt.Sprintf(frame, `[{"introduced":"0","fixed":"1.0.0"}]`),
		"nothing introduced":          fmt.Sprintf(frame, `[{"fixed":"1.0.0"}]`),
		"no events":                   fmt.Sprintf(frame, `[]`),
		"a fix that is no version":    fmt.Sprintf(frame, `[{"introduced":"0"},{"fixed":"one"}]`),
		"a limit that is no version":  fmt.Sprintf(frame, `[{"introduced":"0"},{"limit":"one"}]`),
		"events that are not objects": fmt.Sprintf(frame, `["0"]`),
	} {
		if r, err := osv.Decode(strings.NewReader(text)); !errors.Is(err, osv.ErrRecord) {
			t.Errorf("%s: %+v, %v; want ErrRecord", name, r, err)
		}
	}
	if _, err := osv.Decode(strings.NewReader(strings.Repeat(" ", 5<<20))); !errors.Is(err, osv.ErrTooLarge) {
		t.Errorf("5 MiB: %v; want ErrTooLarge", err)
	}
}

// TestRate: vectors whose scores the calculator of the specification gives.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		vector string
		tenths int
		level  osv.Level
	}{
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 98, osv.LevelCritical},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 100, osv.LevelCritical},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", 75, osv.LevelHigh},
		{"CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 61, osv.LevelMedium},
		{"CVSS:3.1/AV:N/AC:L/PR:L/UI:R/S:C/C:L/I:L/A:N", 54, osv.LevelMedium},
		{"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 78, osv.LevelHigh},
		{"CVSS:3.1/AV:L/AC:L/PR:H/UI:N/S:C/C:H/I:H/A:H", 82, osv.LevelHigh},
		{"CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N", 16, osv.LevelLow},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0, osv.LevelNone},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H/E:P/RL:O", 98, osv.LevelCritical},
	} {
		level, tenths, _ := osv.Rate([]osv.Severity{{Type: "CVSS_V3", Score: c.vector}})
		if level != c.level || tenths != c.tenths {
			t.Errorf("%s: %s %d; want %s %d", c.vector, level, tenths, c.level, c.tenths)
		}
	}
	for _, s := range []osv.Severity{
		{Type: "CVSS_V3", Score: "CVSS:3.1/AV:N"},
		{Type: "CVSS_V3", Score: "CVSS:3.1/AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
		{Type: "CVSS_V3", Score: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:X/C:H/I:H/A:H"},
		{Type: "CVSS_V3", Score: "7.5"}, {Type: "CVSS_V4", Score: "CVSS:4.0/AV:N"}, {},
	} {
		if level, _, vector := osv.Rate([]osv.Severity{s}); level != osv.LevelUnrated || vector != s.Score {
			t.Errorf("%+v: %s, %q; want unrated, and the vector kept", s, level, vector)
		}
	}
}

// FuzzDecode: a record that is accepted is one when it is written again, and
// can be asked about anything.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"id":"T-1","modified":"2024-01-01T00:00:00Z"}`,
		`{"id":"T-1","modified":"2024-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"m"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.2.3"},{"introduced":"2.0.0-0"},{"last_affected":"2.1.0"},{"limit":"*"}]}],"versions":["1"]}]}`,
		`{"id":"T-1","modified":"2024-01-01T00:00:00Z","affected":[{"package":{"name":"m"},"versions":[]}]}`, // no versions, and none at all, are one
		`{"id":"T-1","modified":"2024-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"stdlib"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.22rc1"}]}]}]}`,
		`{"id":"T-1","modified":"2024-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"1:0~"},{"fixed":"1:2-3"}]}]}]}`,
	} {
		f.Add(s, "1.0.0")
	}
	f.Fuzz(func(t *testing.T, text, version string) {
		r, err := osv.Decode(strings.NewReader(text))
		if err != nil {
			return
		}
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := osv.Decode(strings.NewReader(string(raw)))
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("written and read again: %v\n%s", err, diff)
		}
		for _, a := range r.Affected {
			s := osv.Subject{Ecosystem: a.Package.Ecosystem, Name: a.Package.Name, Version: version}
			v, err := r.Judge(s)
			if err != nil && !errors.Is(err, osv.ErrVersion) {
				t.Errorf("Judge(%+v): %v", s, err)
			}
			if v.Fixed != "" && !v.Affected {
				t.Errorf("Judge(%+v) = %+v: a fix, but no fault", s, v)
			}
		}
	})
}
