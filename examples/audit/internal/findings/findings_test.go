package findings_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/osv"
)

const now = "2026-11-22T00:00:00Z"

// module is a Go module as the inventory lists it.
func module(name, version string, paths ...string) cyclonedx.Component {
	c := cyclonedx.Component{Type: "library", Ref: "go:" + name + "@" + version, Name: name, Version: version}
	if version != "" {
		c.PURL = "pkg:golang/" + strings.ToLower(name) + "@" + version
	}
	for _, p := range paths {
		c.Properties = append(c.Properties, cyclonedx.Property{Name: cyclonedx.PropPath, Value: p})
	}
	return c
}

// deb is a Debian package as the inventory lists it.
func deb(name, arch, source, version string) cyclonedx.Component {
	return cyclonedx.Component{
		Type: "library", Ref: "deb:" + name + ":" + arch, Name: name, Version: version,
		PURL:       "pkg:deb/debian/" + name + "@" + strings.ReplaceAll(version, "+", "%2B") + "?arch=" + arch + "&distro=debian-12",
		Properties: []cyclonedx.Property{{Name: cyclonedx.PropDebSource, Value: source}, {Name: cyclonedx.PropDebSourceVers, Value: version}},
	}
}

func bill(components ...cyclonedx.Component) findings.Bill {
	return findings.Bill{Name: "sbom", SHA256: "ab", Bill: cyclonedx.Bill{
		Timestamp: now, Subject: cyclonedx.Component{Name: "m1"}, Components: components,
	}}
}

// record is a record about one package, fixed in one version; "" is never.
func record(id, ecosystem, name, fixed string, aliases ...string) osv.Record {
	kind := osv.RangeSemver
	if strings.HasPrefix(ecosystem, "Debian") {
		kind = osv.RangeEcosystem
	}
	events := []osv.Event{{Introduced: "0"}}
	if fixed != "" {
		events = append(events, osv.Event{Fixed: fixed})
	}
	return osv.Record{ID: id, Modified: now, Aliases: aliases, Affected: []osv.Affected{{
		Package: osv.Package{Ecosystem: ecosystem, Name: name}, Ranges: []osv.Range{{Type: kind, Events: events}},
	}}}
}

func match(t *testing.T, bills []findings.Bill, records ...osv.Record) findings.Document {
	t.Helper()
	d, err := findings.Match(bills, records, now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func short(d findings.Document) []string {
	var out []string
	for _, f := range d.Findings {
		out = append(out, strings.Join([]string{f.Package.Name, f.Package.Version, f.Advisory, f.Fixed}, " "))
	}
	return out
}

func TestMatch(t *testing.T) {
	one := []findings.Bill{bill(
		module("example.com/m", "v1.0.0", "/bin/b", "/bin/a"), module("example.com/M", "v1.0.0", "/bin/c"), module("stdlib", "1.21.3", "/bin/a"),
		deb("libx1", "amd64", "x", "1:2.0-1+deb12u1"), deb("x-bin", "amd64", "x", "1:2.0-1+deb12u1"),
	)}
	for _, c := range []struct {
		name    string
		records []osv.Record
		want    []string
	}{
		{"nothing known", nil, nil},
		{"a Go module by its exact name", []osv.Record{record("GO-1", "Go", "example.com/m", "1.2.0")}, []string{"example.com/m v1.0.0 GO-1 v1.2.0"}},
		{"a module that differs in case", []osv.Record{record("GO-1", "Go", "example.com/M", "1.2.0")}, []string{"example.com/M v1.0.0 GO-1 v1.2.0"}},
		{"the standard library, in its own notation", []osv.Record{record("GO-1", "Go", "stdlib", "1.21.4")}, []string{"stdlib 1.21.3 GO-1 1.21.4"}},
		{"a Debian source package, once for all its packages", []osv.Record{record("DSA-1-1", "Debian:12", "x", "1:2.0-1+deb12u2")},
			[]string{"x 1:2.0-1+deb12u1 DSA-1-1 1:2.0-1+deb12u2"}},
		{"not by the binary package's name", []osv.Record{record("DSA-1-1", "Debian:12", "libx1", "")}, nil},
		{"not for another release", []osv.Record{record("DSA-1-1", "Debian:11", "x", "")}, nil},
		{"not from another ecosystem", []osv.Record{record("A-1", "npm", "example.com/m", "")}, nil},
		{"a version that is fixed", []osv.Record{record("GO-1", "Go", "example.com/m", "1.0.0")}, nil},
		{"a record that was taken back", []osv.Record{withdrawn(record("GO-1", "Go", "example.com/m", ""))}, nil},
	} {
		d := match(t, one, c.records...)
		if diff := cmp.Diff(c.want, short(d)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
		if d.Counts.Packages != 4 || d.Counts.Findings != len(c.want) || d.Counts.Affected != len(c.want) {
			t.Errorf("%s: counts %+v", c.name, d.Counts)
		}
	}
	d := match(t, one, record("GO-1", "Go", "example.com/m", ""), record("DSA-1-1", "Debian:12", "x", ""))
	if diff := cmp.Diff([]string{"libx1:amd64 1:2.0-1+deb12u1", "x-bin:amd64 1:2.0-1+deb12u1"}, d.Findings[0].Where); diff != "" {
		t.Errorf("where a Debian package is: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/bin/a", "/bin/b"}, d.Findings[1].Where); diff != "" {
		t.Errorf("where a module is: -want +got:\n%s", diff)
	}
}

func withdrawn(r osv.Record) osv.Record {
	r.Withdrawn = now
	return r
}

func TestMatchMergesAliases(t *testing.T) {
	bills := []findings.Bill{bill(module("example.com/m", "v1.0.0"))}
	scored := record("CVE-1", "Go", "example.com/m", "")
	scored.Severity = []osv.Severity{{Type: "CVSS_V3", Score: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"}}
	d := match(t, bills,
		record("GHSA-1", "Go", "example.com/m", "1.3.0", "CVE-1"),
		record("GO-2", "Go", "example.com/m", "1.2.0", "CVE-1"),
		scored,
		record("GO-9", "Go", "example.com/m", "1.9.0", "CVE-9"),
	)
	if diff := cmp.Diff([]string{"example.com/m v1.0.0 GO-2 v1.2.0", "example.com/m v1.0.0 GO-9 v1.9.0"}, short(d)); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	f := d.Findings[0]
	if diff := cmp.Diff([]string{"CVE-1", "GHSA-1"}, f.Aliases); diff != "" {
		t.Errorf("aliases: -want +got:\n%s", diff)
	}
	if f.Severity.Level != osv.LevelHigh || f.Severity.Score != "7.5" {
		t.Errorf("severity %+v; want the one that is known", f.Severity)
	}
}

func TestMatchNamesAnUpgrade(t *testing.T) {
	bills := []findings.Bill{bill(module("example.com/m", "v1.0.0", "/bin/a"))}
	// The fix of GO-1 brings GO-3, which 1.9.0 ends.
	third := record("GO-3", "Go", "example.com/m", "1.9.0")
	third.Affected[0].Ranges[0].Events[0].Introduced = "1.5.0"
	d := match(t, bills, record("GO-1", "Go", "example.com/m", "1.5.0"), record("GO-2", "Go", "example.com/m", "1.2.0"), third, record("GO-4", "Go", "example.com/m", ""))
	want := []findings.Upgrade{{
		Package: findings.Package{Ecosystem: "Go", Name: "example.com/m", Version: "v1.0.0"}, To: "v1.9.0", Findings: 3, Unfixed: 1, Where: []string{"/bin/a"},
	}}
	if diff := cmp.Diff(want, d.Upgrades); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if d.Counts.Fixable != 2 {
		t.Errorf("%d findings can be fixed; want 2", d.Counts.Fixable)
	}
}

func TestMatchSaysWhatItCannotJudge(t *testing.T) {
	app := module("example.com/app", "")
	app.Ref, app.Properties = "file:/bin/app", []cyclonedx.Property{{Name: cyclonedx.PropGoPackage, Value: "example.com/app"}}
	opaque := app
	opaque.Name = "example.com/opaque"
	opaque.Properties = append(slices.Clone(app.Properties), cyclonedx.Property{Name: cyclonedx.PropGoModules, Value: "unknown"})
	command := app
	command.Name, command.Properties = "cmd/go", []cyclonedx.Property{{Name: cyclonedx.PropGoPackage, Value: "cmd/go"}}
	alpine := cyclonedx.Component{Type: "library", Name: "musl", Version: "1.2", PURL: "pkg:apk/alpine/musl@1.2"}
	foreign := deb("x", "amd64", "x", "1.0")
	foreign.PURL = strings.Replace(foreign.PURL, "deb/debian", "deb/ubuntu", 1)
	odd := record("GO-1", "Go", "example.com/odd", "")
	odd.Affected[0].Ranges[0].Type = osv.RangeEcosystem
	d := match(t, []findings.Bill{bill(app, opaque, command, alpine, foreign, module("example.com/m", "v01"), module("example.com/odd", "v1.0.0"))}, odd)
	var got []string
	for _, s := range d.Skipped {
		got = append(got, s.Package.Name+" "+string(s.Reason))
	}
	want := []string{
		"example.com/app no_version", "example.com/m unknown_version", "example.com/odd unknown_order", "example.com/opaque no_modules",
		"musl unknown_ecosystem", "x unknown_ecosystem",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMatchReadsBillsOfOtherTools(t *testing.T) {
	c := cyclonedx.Component{Type: "library", Name: "libssl3", Version: "3.0.11-1", PURL: "pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&upstream=openssl&distro=debian-12.5"}
	g := cyclonedx.Component{Type: "library", Name: "net", Version: "v0.1.0", PURL: "pkg:golang/golang.org/x/net@v0.1.0#http2"}
	d := match(t, []findings.Bill{bill(c, g)}, record("DSA-1-1", "Debian:12", "openssl", "3.0.12"), record("GO-1", "Go", "golang.org/x/net", "0.2.0"))
	if diff := cmp.Diff([]string{"openssl 3.0.11-1 DSA-1-1 3.0.12", "golang.org/x/net v0.1.0 GO-1 v0.2.0"}, short(d)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMatchDependsOnTheContentAlone(t *testing.T) {
	components := []cyclonedx.Component{
		module("example.com/m", "v1.0.0", "/bin/b", "/bin/a"), module("example.com/m", "v1.1.0"), module("example.com/n", ""), deb("libx1", "amd64", "x", "1.0"), deb("x", "amd64", "x", "1.0"),
	}
	records := []osv.Record{
		record("GO-1", "Go", "example.com/m", "1.2.0", "CVE-1"), record("GHSA-1", "Go", "example.com/m", "1.2.0", "CVE-1"), record("GO-2", "Go", "example.com/m", ""),
		record("DSA-1-1", "Debian:12", "x", "2.0"), record("DSA-2-1", "Debian", "x", ""),
	}
	encode := func() []byte {
		raw, err := findings.Encode(match(t, []findings.Bill{bill(components...), bill()}, records...))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	want := encode()
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 30 {
		rnd.Shuffle(len(components), func(i, j int) { components[i], components[j] = components[j], components[i] })
		rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		if got := encode(); !bytes.Equal(want, got) {
			t.Fatalf("seed %d: -want +got:\n%s", seed, cmp.Diff(string(want), string(got)))
		}
	}
	d, err := findings.Decode(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := findings.Encode(d); err != nil || !bytes.Equal(raw, want) {
		t.Errorf("read and written again: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "x", "another schema": `{"schema":"audit.findings/2"}`, "a field that is not known": `{"schema":"audit.findings/1","more":1}`,
		"bytes after the end": `{"schema":"audit.findings/1"} {}`,
	} {
		if _, err := findings.Decode(strings.NewReader(text)); !errors.Is(err, findings.ErrNotFindings) {
			t.Errorf("%s: %v; want ErrNotFindings", name, err)
		}
	}
}

func TestReadAdvisories(t *testing.T) {
	good := func(id string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(`{"id":"` + id + `","modified":"2024-01-01T00:00:00Z"}`)}
	}
	got, err := findings.ReadAdvisories(fstest.MapFS{"b/B-1.json": good("B-1"), "A-1.json": good("A-1"), "SOURCES.md": {Data: []byte("text")}})
	if err != nil || len(got) != 2 || got[0].ID != "A-1" || got[1].ID != "B-1" {
		t.Errorf("ReadAdvisories = %+v, %v; want A-1 and B-1", got, err)
	}
	for name, fsys := range map[string]fstest.MapFS{
		"one id twice":  {"a.json": good("A-1"), "b.json": good("A-1")},
		"a faulty file": {"a.json": good("A-1"), "b.json": {Data: []byte("{")}},
	} {
		if got, err := findings.ReadAdvisories(fsys); !errors.Is(err, findings.ErrAdvisories) {
			t.Errorf("%s: %+v, %v; want ErrAdvisories", name, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	d, err := findings.Match([]findings.Bill{bill(module("example.com/m", "v1.0.0", "/bin/a"))}, []osv.Record{record("GO-1", "Go", "example.com/m", "1.2.0", "CVE-1")}, now)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := findings.Encode(d)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"schema":"audit.findings/1"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := findings.Decode(bytes.NewReader(raw))
		if err != nil {
			return
		}
		once, err := findings.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := findings.Decode(bytes.NewReader(once))
		if err != nil {
			t.Fatal(err)
		}
		twice, err := findings.Encode(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("decode, encode, decode is no fixed point: %v", err)
		}
	})
}
