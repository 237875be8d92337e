package report

import "fmt"

// Chart geometry, in units of the view box.
const (
	chartWidth  = 960
	chartLabel  = 330 // width of the names on the left
	chartNumber = 56  // width of the numbers on the right
	chartRow    = 34
	chartBar    = 18
	chartRows   = 12 // packages shown
)

// chart draws the packages with the most findings as bars: what a later
// version ends, and what none does.
func (p *page) chart(v view) {
	rows := v.groups[:min(len(v.groups), chartRows)]
	most := rows[0].Findings // groups are sorted by it
	height := len(rows)*chartRow + 8
	p.put(lit("<section aria-labelledby=\"chart\">\n<h2 id=\"chart\">Where the findings are</h2>\n"))
	if rest := len(v.groups) - len(rows); rest > 0 {
		p.put(lit("<p>The "), txt(fmt.Sprint(len(rows))), lit(" packages with the most findings; "), txt(fmt.Sprint(rest)), lit(" more are in the table below.</p>\n"))
	}
	p.put(lit("<p class=\"legend\" aria-hidden=\"true\"><span class=\"key fix\"></span>a fixed version exists <span class=\"key open\"></span>no fix known</p>\n"),
		lit("<div class=\"scroll\">\n<svg role=\"img\" aria-labelledby=\"charttitle\" viewBox=\"0 0 "), num(chartWidth), lit(" "), num(height), lit("\">\n<title id=\"charttitle\">Findings per package. The same numbers are in the next table.</title>\n"),
		lit("<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" class=\"hatchback\"/><rect width=\"2\" height=\"6\" class=\"hatchline\"/></pattern></defs>\n"))
	space := chartWidth - chartLabel - chartNumber
	for i, g := range rows {
		top := 4 + i*chartRow
		fix, all := space*g.fixable()/most, max(space*g.Findings/most, 3)
		text := top + chartRow/2 + 5
		p.put(lit("<text class=\"name\" text-anchor=\"end\" x=\""), num(chartLabel-14), lit("\" y=\""), num(text), lit("\">"), txt(tail(g.Package.Name+" "+g.Package.Version, 40)), lit("</text>\n"))
		bar := top + (chartRow-chartBar)/2
		p.rect("track", chartLabel, bar, space)
		if g.Unfixed == 0 {
			fix = all
		}
		if fix > 0 {
			p.rect("fix", chartLabel, bar, fix)
		}
		if fix < all {
			p.rect("open", chartLabel+fix, bar, all-fix)
		}
		p.put(lit("<text class=\"count\" x=\""), num(chartLabel+all+10), lit("\" y=\""), num(text), lit("\">"), num(g.Findings), lit("</text>\n"))
	}
	p.put(lit("</svg>\n</div>\n</section>\n"))
}

func (p *page) rect(class lit, x, y, width int) {
	p.put(lit("<rect class=\""), class, lit("\" x=\""), num(x), lit("\" y=\""), num(y),
		lit("\" width=\""), num(width), lit("\" height=\""), num(chartBar), lit("\" rx=\"3\"/>\n"))
}

func num(n int) node { return txt(fmt.Sprint(n)) }

// tail shortens a name from the left, where module paths say least.
func tail(s string, most int) string {
	r := []rune(visible(s))
	if len(r) <= most {
		return string(r)
	}
	return "…" + string(r[len(r)-most+1:])
}
