package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"strings"
)

// Markdown writes the report as GitHub-flavoured Markdown.
func Markdown(a Audit) []byte {
	v := newView(a)
	var b bytes.Buffer
	c := v.Document.Counts
	fmt.Fprintf(&b, "# %s\n\n", md(v.title))
	var facts []string
	for _, f := range []string{v.subject, v.system, v.date} {
		if f != "" {
			facts = append(facts, md(f))
		}
	}
	fmt.Fprintf(&b, "%s\n\n**%s**\n\n", strings.Join(facts, " · "), v.verdict)
	b.WriteString("| packages judged | affected | findings | with a fix | not judged |\n|---:|---:|---:|---:|---:|\n")
	fmt.Fprintf(&b, "| %d | %d | %d | %d | %d |\n", c.Packages, c.Affected, c.Findings, c.Fixable, c.Skipped)
	if len(v.groups) > 0 {
		writeUpgrades(&b, v)
		writeFindings(&b, v)
	}
	if len(v.Document.Skipped) > 0 {
		b.WriteString("\n## Not judged\n\n| part | version | why |\n|---|---|---|\n")
		for _, s := range v.Document.Skipped {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", md(s.Package.Name), md(s.Package.Version), md(reasonText(s.Reason)))
		}
	}
	writeMethod(&b, v)
	return b.Bytes()
}

func writeUpgrades(b *bytes.Buffer, v view) {
	b.WriteString("\n## What to upgrade\n\n| package | installed | upgrade to | findings | found in |\n|---|---|---|---:|---|\n")
	for _, g := range v.groups {
		to := md(g.To)
		switch {
		case g.To == "":
			to = "no fix known"
		case g.Unfixed > 0:
			to += fmt.Sprintf(" (leaves %d open)", g.Unfixed)
		}
		where := ""
		if len(g.Where) > 0 {
			where = md(g.Where[0])
		}
		if n := len(g.Where) - 1; n > 0 {
			where += fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %d | %s |\n", md(g.Package.Name), md(g.Package.Version), to, g.Findings, where)
	}
}

func writeFindings(b *bytes.Buffer, v view) {
	b.WriteString("\n## Findings\n")
	for _, g := range v.groups {
		fmt.Fprintf(b, "\n### %s %s\n\n| advisory | also known as | severity | fixed in |\n|---|---|---|---|\n", md(g.Package.Name), md(g.Package.Version))
		for _, f := range g.list {
			severity := strings.TrimSpace(string(f.Severity.Level) + " " + f.Severity.Score)
			fixed := md(f.Fixed)
			if fixed == "" {
				fixed = "–"
			}
			also := md(strings.Join(append(f.Aliases[:len(f.Aliases):len(f.Aliases)], f.Covers...), ", "))
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", md(f.Advisory), also, md(severity), fixed)
		}
	}
}

func writeMethod(b *bytes.Buffer, v view) {
	db := v.Document.Database
	b.WriteString("\n## How this was found\n\n")
	fmt.Fprintf(b, "Packages were read from the machine itself and compared with %s", plural(db.Records-db.Withdrawn, "advisory", "advisories"))
	if db.Ref != "" {
		fmt.Fprintf(b, " of %s", md(db.Ref))
	}
	b.WriteString(". A finding says that a vulnerable version is present, not that the program can be attacked. What the database does not know is not shown.\n\n")
	for _, r := range v.Document.Bills {
		fmt.Fprintf(b, "- Bill of materials, %s: `%s`\n", plural(r.Components, "part", "parts"), code(r.SHA256))
	}
	if db.Digest != "" {
		fmt.Fprintf(b, "- Advisories: `%s`\n", code(db.Digest))
	}
	if v.SHA256 != "" {
		fmt.Fprintf(b, "- Findings: `%s`\n", code(v.SHA256))
	}
}

// md escapes foreign text so that it is text wherever it stands in a line:
// no markup, no end of a table cell, no HTML, no link made of an address.
func md(s string) string {
	var b strings.Builder
	for _, r := range visible(s) {
		if r < 0x80 && strings.ContainsRune("\\`*_{}[]<>#|~!&@$\"'^", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return strings.NewReplacer("www.", `www\.`, "://", `\://`).Replace(b.String())
}

// code is for digests, which stand between backticks.
func code(s string) string { return strings.ReplaceAll(visible(s), "`", "'") }

// UpgradesCSV writes what to upgrade as a table for other programs (RFC 4180).
func UpgradesCSV(a Audit) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	rows := [][]string{{"ecosystem", "package", "installed", "upgradeTo", "findings", "withoutFix", "foundIn"}}
	for _, u := range a.Document.Upgrades {
		rows = append(rows, []string{
			cell(u.Package.Ecosystem), cell(u.Package.Name), cell(u.Package.Version), cell(u.To),
			fmt.Sprint(u.Findings), fmt.Sprint(u.Unfixed), cell(strings.Join(u.Where, "; ")),
		})
	}
	err := w.WriteAll(rows)
	return b.Bytes(), err
}

// cell keeps a spreadsheet from taking foreign text for a formula.
func cell(s string) string {
	s = visible(s)
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
