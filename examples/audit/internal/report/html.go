package report

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// HTML writes the page. It needs nothing from outside, runs no script, and its
// content policy allows neither: only the style sheet with the digest named.
func HTML(a Audit) []byte {
	v := newView(a)
	p := new(page)
	sum := sha256.Sum256([]byte(styleSheet))
	p.put(lit("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"),
		lit(`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-`),
		txt(base64.StdEncoding.EncodeToString(sum[:])), lit("'; base-uri 'none'; form-action 'none'\">\n"),
		lit(`<meta name="viewport" content="width=device-width, initial-scale=1">`+"\n"),
		lit(`<meta name="color-scheme" content="light dark">`+"\n"),
		lit(`<meta name="referrer" content="no-referrer">`+"\n<title>"), txt(v.title), lit("</title>\n<style>"),
		lit(styleSheet), lit("</style>\n</head>\n<body>\n"))
	p.header(v)
	p.put(lit("<main>\n"))
	p.tiles(v)
	if len(v.groups) > 0 {
		p.chart(v)
		p.upgrades(v)
		p.findings(v)
	}
	p.programs(v)
	p.skipped(v)
	p.method(v)
	p.put(lit("</main>\n</body>\n</html>\n"))
	return p.Bytes()
}

func (p *page) header(v view) {
	mood := lit("calm")
	if len(v.groups) > 0 {
		mood = "alert"
	}
	p.put(lit("<header>\n<p class=\"eyebrow\">Software audit</p>\n<h1>"), txt(v.title), lit("</h1>\n<p class=\"facts\">"))
	first := true
	for _, fact := range []string{v.subject, v.system, v.date} {
		if fact == "" {
			continue
		}
		if !first {
			p.put(lit(`<span aria-hidden="true"> · </span>`))
		}
		p.put(lit("<span>"), txt(fact), lit("</span>"))
		first = false
	}
	p.put(lit("</p>\n<p class=\"verdict "), mood, lit("\">"), txt(v.verdict), lit("</p>\n</header>\n"))
}

func (p *page) tiles(v view) {
	c := v.Document.Counts
	p.put(lit("<dl class=\"tiles\">\n"))
	for _, t := range []struct {
		n    int
		name lit
	}{
		{c.Packages, "packages judged"}, {c.Affected, "affected"}, {c.Findings, "findings"},
		{c.Fixable, "findings with a fix"}, {c.Skipped, "not judged"},
	} {
		p.put(lit("<div><dt>"), t.name, lit("</dt><dd>"), num(t.n), lit("</dd></div>\n"))
	}
	p.put(lit("</dl>\n"))
	if !v.rated() {
		return
	}
	p.put(lit("<ul class=\"levels\" aria-label=\"Findings by severity\">\n"))
	for _, l := range v.levels {
		p.put(lit("<li>"), badge(l.level), lit(" "), num(l.n), lit("</li>\n"))
	}
	p.put(lit("</ul>\n"))
}

// badge is a level with its colour; the word carries the meaning.
func badge(l osv.Level) node {
	switch l {
	case osv.LevelCritical:
		return lit(`<span class="badge critical">critical</span>`)
	case osv.LevelHigh:
		return lit(`<span class="badge high">high</span>`)
	case osv.LevelMedium:
		return lit(`<span class="badge medium">medium</span>`)
	case osv.LevelLow:
		return lit(`<span class="badge low">low</span>`)
	case osv.LevelNone:
		return lit(`<span class="badge">none</span>`)
	}
	return lit(`<span class="badge">unrated</span>`)
}

func (p *page) upgrades(v view) {
	p.put(lit("<section aria-labelledby=\"upgrades\">\n<h2 id=\"upgrades\">What to upgrade</h2>\n"),
		lit("<p>At the version named here, no advisory of the database applies that a still later version would end.</p>\n"),
		lit("<div class=\"scroll\" role=\"region\" aria-labelledby=\"upgrades\" tabindex=\"0\">\n<table>\n<thead><tr>"),
		lit(`<th scope="col">Package</th><th scope="col">Installed</th><th scope="col">Upgrade to</th><th scope="col" class="n">Findings</th><th scope="col">Found in</th>`),
		lit("</tr></thead>\n<tbody>\n"))
	for _, g := range v.groups {
		p.put(lit("<tr><th scope=\"row\">"), txt(g.Package.Name))
		if remark := v.remark(g.Package); remark != "" {
			p.put(lit("<small>"), txt(remark), lit("</small>"))
		}
		p.put(lit("</th><td class=\"v\">"), txt(g.Package.Version), lit("</td><td class=\"v to\">"))
		if g.To == "" {
			p.put(lit("<span class=\"none\">no fix known</span>"))
		} else {
			p.put(txt(g.To))
			if g.Unfixed > 0 {
				p.put(lit("<small>leaves "), num(g.Unfixed), lit(" open</small>"))
			}
		}
		p.put(lit("</td><td class=\"n\">"), num(g.Findings), lit("</td><td class=\"where\">"))
		p.where(g.Where)
		p.put(lit("</td></tr>\n"))
	}
	p.put(lit("</tbody>\n</table>\n</div>\n</section>\n"))
}

// shownWhere is how many places are shown before the rest folds away.
const shownWhere = 3

func (p *page) where(places []string) {
	for i, w := range places {
		if i == shownWhere && len(places) > shownWhere+1 {
			p.put(lit("<details><summary>"), num(len(places)-i), lit(" more</summary>"))
		}
		p.put(lit("<span>"), txt(w), lit("</span>"))
	}
	if len(places) > shownWhere+1 {
		p.put(lit("</details>"))
	}
}

func (p *page) findings(v view) {
	p.put(lit("<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">Findings</h2>\n"),
		lit("<div class=\"scroll\" role=\"region\" aria-labelledby=\"findings\" tabindex=\"0\">\n<table class=\"findings\">\n<thead><tr>"),
		lit(`<th scope="col">Advisory</th><th scope="col">Also known as</th>`))
	if v.rated() {
		p.put(lit(`<th scope="col">Severity</th>`))
	}
	p.put(lit(`<th scope="col">Fixed in</th>`))
	if v.dated {
		p.put(lit(`<th scope="col">Published</th>`))
	}
	p.put(lit("</tr></thead>\n"))
	for _, g := range v.groups {
		p.put(lit("<tbody>\n<tr class=\"group\"><th scope=\"rowgroup\" colspan=\""), num(v.columns()), lit("\">"), txt(g.Package.Name),
			lit(" <span class=\"v\">"), txt(g.Package.Version), lit("</span></th></tr>\n"))
		for _, f := range g.list {
			p.put(lit("<tr><th scope=\"row\">"), link{address(f), f.Advisory}, lit("</th><td class=\"ids\">"),
				txt(strings.Join(append(f.Aliases[:len(f.Aliases):len(f.Aliases)], f.Covers...), ", ")), lit("</td>"))
			if v.rated() {
				p.put(lit("<td>"), badge(f.Severity.Level), lit(" "), txt(f.Severity.Score), lit("</td>"))
			}
			p.put(lit("<td class=\"v\">"), orDash(f.Fixed), lit("</td>"))
			if v.dated {
				p.put(lit("<td class=\"v\">"), orDash(shortDate(f.Published)), lit("</td>"))
			}
			p.put(lit("</tr>\n"))
		}
		p.put(lit("</tbody>\n"))
	}
	p.put(lit("</table>\n</div>\n</section>\n"))
}

// columns counts the columns of the table of findings.
func (v view) columns() int {
	n := 3
	for _, shown := range []bool{v.rated(), v.dated} {
		if shown {
			n++
		}
	}
	return n
}

func orDash(s string) node {
	if s == "" {
		return lit(`<span class="none">–</span>`)
	}
	return txt(s)
}

func (p *page) programs(v view) {
	if len(v.programs) == 0 {
		return
	}
	p.put(lit("<section aria-labelledby=\"programs\">\n<h2 id=\"programs\">Go programs</h2>\n"),
		lit("<div class=\"scroll\" role=\"region\" aria-labelledby=\"programs\" tabindex=\"0\">\n<table>\n<thead><tr>"),
		lit(`<th scope="col">Path</th><th scope="col">Program</th><th scope="col">Built with</th><th scope="col" class="n">Modules</th><th scope="col" class="n">Findings</th>`),
		lit("</tr></thead>\n<tbody>\n"))
	for _, g := range v.programs {
		p.put(lit("<tr><th scope=\"row\" class=\"path\">"), txt(g.path), lit("</th><td class=\"path\">"), txt(g.name), lit("</td><td class=\"v\">"), txt(g.toolchain),
			lit("</td><td class=\"n\">"))
		if g.opaque {
			p.put(lit("<span class=\"none\">not recorded</span>"))
		} else {
			p.put(num(g.modules))
		}
		p.put(lit("</td><td class=\"n\">"), num(g.findings), lit("</td></tr>\n"))
	}
	p.put(lit("</tbody>\n</table>\n</div>\n</section>\n"))
}

func (p *page) skipped(v view) {
	if len(v.Document.Skipped) == 0 {
		return
	}
	p.put(lit("<section aria-labelledby=\"skipped\">\n<h2 id=\"skipped\">Not judged</h2>\n"),
		lit("<p>These parts are on the machine, but no advisory could be compared with them.</p>\n"),
		lit("<details><summary>"), txt(plural(len(v.Document.Skipped), "part", "parts")), lit("</summary>\n"),
		lit("<div class=\"scroll\" role=\"region\" aria-labelledby=\"skipped\" tabindex=\"0\">\n<table>\n<thead><tr>"),
		lit(`<th scope="col">Part</th><th scope="col">Version</th><th scope="col">Why</th><th scope="col">Found in</th>`),
		lit("</tr></thead>\n<tbody>\n"))
	for _, s := range v.Document.Skipped {
		p.put(lit("<tr><th scope=\"row\">"), txt(s.Package.Name), lit("</th><td class=\"v\">"),
			orDash(s.Package.Version), lit("</td><td>"), txt(reasonText(s.Reason)), lit("</td><td class=\"where\">"))
		p.where(s.Where)
		p.put(lit("</td></tr>\n"))
	}
	p.put(lit("</tbody>\n</table>\n</div>\n</details>\n</section>\n"))
}

func (p *page) method(v view) {
	db := v.Document.Database
	p.put(lit("<section class=\"method\" aria-labelledby=\"method\">\n<h2 id=\"method\">How this was found</h2>\n"),
		lit("<p>Packages were read from the machine itself: from the build information inside each Go program and from the database of the package manager. "),
		lit("Each was compared with "), txt(plural(db.Records-db.Withdrawn, "advisory", "advisories")))
	if db.Ref != "" {
		p.put(lit(" of "), txt(db.Ref))
	}
	p.put(lit(". A finding says that a vulnerable version is present. It does not say that the program can be attacked: the fault may lie in code that is never called. "),
		lit("What the database does not know is not shown.</p>\n<dl class=\"evidence\">\n"))
	for _, b := range v.Document.Bills {
		p.put(lit("<div><dt>Bill of materials, "), txt(plural(b.Components, "part", "parts")), lit("</dt><dd>"), txt(b.SHA256), lit("</dd></div>\n"))
	}
	if db.Digest != "" {
		p.put(lit("<div><dt>Advisories</dt><dd>"), txt(db.Digest), lit("</dd></div>\n"))
	}
	if v.SHA256 != "" {
		p.put(lit("<div><dt>Findings</dt><dd>"), txt(v.SHA256), lit("</dd></div>\n"))
	}
	p.put(lit("</dl>\n</section>\n"))
}
