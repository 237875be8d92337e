package report_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/osv"
	"github.com/stellarun/stella/examples/audit/internal/report"
)

var update = flag.Bool("update", false, "write golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: -want +got:\n%s", name, diff)
	}
}

// audit is a small audit in which every name that comes from outside is name.
func audit(name string) report.Audit {
	m := findings.Package{Ecosystem: "Go", Name: name, Version: "v1.0.0" + name}
	x := findings.Package{Ecosystem: "Debian:12", Name: "x", Version: "1:2.0-1+deb12u1"}
	where := []string{"/bin/" + name, "/bin/b", "/bin/c", "/bin/d", "/bin/e"}
	return report.Audit{
		Title: "Audit of " + name, SHA256: strings.Repeat("ab", 32),
		Document: findings.Document{
			Schema: findings.Schema, Generated: "2026-11-22T08:00:00Z",
			Bills:    []findings.BillRef{{Name: "sbom", SHA256: strings.Repeat("cd", 32), Subject: name, System: "debian 12", Components: 3}},
			Database: findings.Database{Ref: "acme/advisories@1.0.0", Digest: strings.Repeat("ef", 32), Records: 10, Withdrawn: 1},
			Counts:   findings.Counts{Packages: 4, Affected: 2, Findings: 3, Fixable: 2, Skipped: 1},
			Findings: []findings.Finding{
				{Package: x, Advisory: "DSA-1-1", Covers: []string{"CVE-1"}, Fixed: "1:2.0-1+deb12u2", Severity: findings.Severity{Level: osv.LevelUnrated}, Published: "2026-01-02T00:00:00Z", Where: []string{"x:amd64 1:2.0-1+deb12u1"}},
				{Package: m, Advisory: name, Aliases: []string{name}, Fixed: name, Severity: findings.Severity{Level: osv.LevelHigh, Score: "7.5"}, Where: where,
					References: []findings.Reference{{Type: "ADVISORY", URL: "https://example.com/" + name}}},
				{Package: m, Advisory: "GO-2", Severity: findings.Severity{Level: osv.Level(name)}, Where: where, References: []findings.Reference{{Type: "ADVISORY", URL: "javascript:alert(1)//" + name}}},
			},
			Upgrades: []findings.Upgrade{
				{Package: x, To: "1:2.0-1+deb12u2", Findings: 1, Where: []string{"x:amd64 1:2.0-1+deb12u1"}},
				{Package: m, To: name, Findings: 2, Unfixed: 1, Where: where},
			},
			Skipped: []findings.Skipped{{Package: findings.Package{Ecosystem: "Go", Name: name}, Reason: findings.Reason(name), Where: where}},
		},
		Bills: []cyclonedx.Bill{{Components: []cyclonedx.Component{
			{Type: cyclonedx.TypeApplication, Name: name, Version: name, Properties: []cyclonedx.Property{{Name: cyclonedx.PropPath, Value: "/bin/" + name}}},
			{Type: cyclonedx.TypeLibrary, Name: "stdlib", Properties: []cyclonedx.Property{{Name: cyclonedx.PropPath, Value: "/bin/" + name}, {Name: cyclonedx.PropGoVersion, Value: name}}},
			{Type: cyclonedx.TypeLibrary, Name: "m", Properties: []cyclonedx.Property{{Name: cyclonedx.PropPath, Value: "/bin/" + name}}},
		}}},
	}
}

func TestGolden(t *testing.T) {
	a := audit("example.com/m")
	golden(t, "report.html", report.HTML(a))
	golden(t, "report.md", report.Markdown(a))
	table, err := report.UpgradesCSV(a)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "upgrades.csv", table)
}

// hostile lists names that would do harm where they were taken for markup.
func hostile() []string {
	return []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'onmouseover='alert(1)`, `</style><b>`, `</title><b>`, `</svg><b>`, `<!-- `, `]]>`, `&lt;b&gt;`,
		"a\u202eb", "a\x00b", "a\nb\r\n# c", "a\xffb", "a\u2028b", "a|b", "`b`", "[x](https://example.com)", "**b**", "https://example.com", "www.example.com", "user@example.com",
		`=HYPERLINK("https://example.com")`, "-1+1", "@SUM(1)", "\t=1", strings.Repeat("x", 100_000), `\`, "$x$", "~~x~~", "${x}",
	}
}

func TestHTMLEscapesEverything(t *testing.T) {
	clean := structure(t, report.HTML(audit("plain")))
	for _, name := range hostile() {
		page := report.HTML(audit(name))
		if diff := cmp.Diff(clean, structure(t, page)); diff != "" {
			t.Errorf("%.40q changes the structure of the page: -want +got:\n%s", name, diff)
		}
		for _, r := range []string{"\x00", "\u202e", "\u2028", "\xff", "javascript:alert(1)//\" "} {
			if bytes.Contains(page, []byte(r)) {
				t.Errorf("%.40q: %q is in the page", name, r)
			}
		}
		if bytes.Contains(page, []byte(`href="javascript`)) {
			t.Errorf("%.40q: an address that runs a script is linked", name)
		}
	}
}

// structure lists the elements and the names of their attributes, and fails
// where elements do not close as they open.
func structure(t *testing.T, page []byte) []string {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(page, []byte("<!DOCTYPE html>"))))
	d.Strict, d.AutoClose, d.Entity = false, []string{"meta"}, xml.HTMLEntity
	var out []string
	inStyle := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			line := x.Name.Local
			for _, a := range x.Attr {
				line += " " + a.Name.Local
			}
			out = append(out, line)
			inStyle = x.Name.Local == "style"
		case xml.EndElement:
			inStyle = false
		case xml.Comment, xml.ProcInst, xml.Directive:
			t.Fatalf("%T in the page: %.60q", x, x)
		case xml.CharData:
			if inStyle && bytes.Contains(x, []byte("url(")) && !bytes.Contains(x, []byte("url(#hatch)")) {
				t.Fatal("the style sheet loads something")
			}
		}
	}
}

func TestHTMLNamesItsStyleSheet(t *testing.T) {
	page := string(report.HTML(audit("plain")))
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, ok := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
	attribute := strings.NewReplacer("+", "&#43;").Replace(policy)
	if !ok || !strings.Contains(page, `content="`+policy+`"`) && !strings.Contains(page, `content="`+attribute+`"`) {
		t.Errorf("the page's policy is not %s", policy)
	}
	for _, forbidden := range []string{" style=", "<script", " src=", "<link", "@import", "<iframe", "<object", "<form"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
}

func TestMarkdownEscapesEverything(t *testing.T) {
	lines := strings.Count(string(report.Markdown(audit("plain"))), "\n")
	for _, name := range hostile() {
		text := string(report.Markdown(audit(name)))
		if n := strings.Count(text, "\n"); n != lines {
			t.Errorf("%.40q: %d lines; want %d", name, n, lines)
		}
		for _, raw := range []string{"<script", "<img", "<b>", "\u202e", "[x](", "**b**", "https://example.com)", " www.", "user@example", "~~x"} {
			if strings.Contains(strings.ReplaceAll(text, `\<`, ""), raw) {
				t.Errorf("%.40q: %q stands unescaped", name, raw)
			}
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "| ") && strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") > 6 {
				t.Errorf("%.40q: more cells than columns: %.120q", name, line)
			}
		}
	}
}

func TestUpgradesCSVIsNoFormula(t *testing.T) {
	for _, name := range hostile() {
		raw, err := report.UpgradesCSV(audit(name))
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
		if err != nil || len(rows) != 3 {
			t.Fatalf("%.40q: %d rows, %v", name, len(rows), err)
		}
		for _, cell := range rows[2] {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("%.40q: cell %.40q is a formula", name, cell)
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		counts findings.Counts
		want   string
	}{
		{findings.Counts{}, "Nothing was found that advisories could speak of."},
		{findings.Counts{Packages: 1}, "None of the 1 package is named by an advisory in the database."},
		{findings.Counts{Packages: 9, Affected: 1, Findings: 2, Fixable: 2}, "1 package is affected. A fixed version exists for every finding."},
		{findings.Counts{Packages: 9, Affected: 2, Findings: 2}, "2 packages are affected. No fixed version is known yet."},
		{findings.Counts{Packages: 9, Affected: 2, Findings: 3, Fixable: 1}, "2 packages are affected. For 1 of 3 findings a fixed version exists."},
	} {
		if got := report.Verdict(findings.Document{Counts: c.counts}); got != c.want {
			t.Errorf("%+v: %q; want %q", c.counts, got, c.want)
		}
	}
}

// TestEmpty: an audit without anything is a page, too.
func TestEmpty(t *testing.T) {
	page := report.HTML(report.Audit{})
	structure(t, page)
	if !bytes.Contains(page, []byte("Nothing was found")) || bytes.Contains(page, []byte("<svg")) {
		t.Errorf("the page of nothing:\n%s", page)
	}
	report.Markdown(report.Audit{})
}

// TestManyPackages: the chart shows the first and says how many it leaves out.
func TestManyPackages(t *testing.T) {
	a := audit("plain")
	a.Document.Upgrades = nil
	for i := range 40 {
		a.Document.Upgrades = append(a.Document.Upgrades, findings.Upgrade{Package: findings.Package{Ecosystem: "Go", Name: fmt.Sprint("m", i)}, Findings: 100 - i, Unfixed: i})
	}
	page := report.HTML(a)
	structure(t, page)
	if n := bytes.Count(page, []byte(`class="name"`)); n != 12 || !bytes.Contains(page, []byte("28 more are in the table")) {
		t.Errorf("%d bars; want 12, and 28 more", n)
	}
}

func FuzzHTML(f *testing.F) {
	for _, name := range hostile()[:20] {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return
		}
		if diff := cmp.Diff(structure(t, report.HTML(audit("plain"))), structure(t, report.HTML(audit(name)))); diff != "" {
			t.Errorf("%q changes the structure of the page: -want +got:\n%s", name, diff)
		}
	})
}
