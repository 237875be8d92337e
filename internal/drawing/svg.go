package drawing

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// SVG writes the graph as one SVG file: it names nothing outside, holds no
// script, and follows the light or dark scheme of who looks at it.
func SVG(w io.Writer, g Graph) error {
	p := newPen(w)
	frames, width, height := arrange(g, bendsFor)
	p.printf("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"stella\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"title\">\n",
		width, height, width, height)
	p.printf("<title id=\"title\">%s</title>\n<style>\n%s</style>\n", escape(strings.TrimSpace(clean(g.Title)+" "+clean(g.Note))), style)
	p.printf("<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path class=\"head\" d=\"M0 0L8 4L0 8Z\"/></marker></defs>\n")
	p.printf("<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", width, height)
	p.printf("<text class=\"title\" x=\"%d\" y=\"%d\">%s</text>\n", margin, margin+line-4, escape(cut(clean(g.Title), titleColumns(width))))
	if g.Note != "" {
		p.printf("<text class=\"said\" x=\"%d\" y=\"%d\">%s</text>\n", margin, margin+2*line-4, escape(cut(clean(g.Note), titleColumns(width))))
	}
	for i := range frames {
		p.frame(&frames[i])
	}
	p.printf("</svg>\n")
	return p.end()
}

// titleColumns is how much of a title fits into the width of a drawing.
func titleColumns(width int) int { return (width - 2*margin) * 4 / heading }

// arrange gives each group its place: the first above, the others below it side
// by side.
func arrange(g Graph, bends func(nodes int) int) (frames []frame, width, height int) {
	y := margin + line + 12
	if g.Note != "" {
		y += line
	}
	least := columns(cut(clean(g.Title), 100)) * heading / 4
	width = max(least, columns(cut(clean(g.Note), 100))*letter/4) + 2*margin
	x, bottom := margin, y
	for i, group := range g.Groups {
		f := lay(group, bends)
		pad, head := 0, 0
		if f.name != "" { // it has a border
			pad, head = padding, line+6
			f.w = max(f.w, columns(clean(f.name))*heading/4)
		}
		f.move(x+pad, y+pad+head)
		f.x, f.y, f.w, f.h = x, y, f.w+2*pad, f.h+2*pad+head
		frames = append(frames, f)
		width, bottom = max(width, f.x+f.w+margin), max(bottom, f.y+f.h)
		if x += f.w + beside; i == 0 {
			x, y = margin, bottom+beside
		}
	}
	return frames, width, bottom + margin
}

func (f *frame) move(x, y int) {
	for i := range f.boxes {
		f.boxes[i].x, f.boxes[i].y = f.boxes[i].x+x, f.boxes[i].y+y
	}
	for i := range f.arrows {
		for k := range f.arrows[i].points {
			f.arrows[i].points[k].x += x
			f.arrows[i].points[k].y += y
		}
	}
}

// A pen writes, and keeps the first error.
type pen struct {
	w   *bufio.Writer
	err error
}

func newPen(w io.Writer) *pen { return &pen{w: bufio.NewWriter(w)} }

func (p *pen) end() error {
	if p.err == nil {
		p.err = p.w.Flush()
	}
	return p.err
}

func (p *pen) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

func (p *pen) frame(f *frame) {
	if f.name != "" {
		p.printf("<g class=\"group\"><rect class=\"border\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\"/>", f.x, f.y, f.w, f.h)
		p.printf("<text class=\"title\" x=\"%d\" y=\"%d\">%s</text></g>\n", f.x+padding, f.y+padding+line-6, escape(clean(f.name)))
	}
	p.printf("<g class=\"edges\">\n")
	for _, a := range f.arrows {
		p.printf("<path d=\"%s\" marker-end=\"url(#head)\"/>\n", a.path())
	}
	p.printf("</g>\n")
	for i := range f.boxes {
		p.box(&f.boxes[i])
	}
}

// path is straight down from each odd point to the next, and bends between.
func (a *arrow) path() string {
	var b strings.Builder
	at := a.points[0]
	fmt.Fprintf(&b, "M%d %d", at.x, at.y)
	for _, to := range a.points[1:] {
		switch {
		case to.x == at.x && to.y == at.y:
		case to.x == at.x:
			fmt.Fprintf(&b, "V%d", to.y)
		default:
			mid := (at.y + to.y) / 2
			fmt.Fprintf(&b, "C%d %d %d %d %d %d", at.x, mid, to.x, mid, to.x, to.y)
		}
		at = to
	}
	return b.String()
}

// box draws a node: the form says what it runs, the colour its state.
func (p *pen) box(b *box) {
	n := b.node
	class := "step " + [...]string{Plugin: "plugin", Run: "run", Gate: "gate"}[n.Kind]
	if n.Each {
		class += " each"
	}
	if n.Disabled {
		class += " disabled"
	}
	if n.State != "" {
		class += " is-" + word(n.State)
	}
	p.printf("<g class=\"%s\"><title>%s</title>", class, escape(clean(n.ID)+": "+clean(strings.Join(n.said(), "; "))))
	w, h := b.w, b.h
	if n.Each {
		w, h = w-2*stacked, h-2*stacked
		for i := 2; i > 0; i-- {
			p.printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\"/>", b.x+i*stacked, b.y+i*stacked, w, h)
		}
	}
	indent := padding
	switch n.Kind {
	case Plugin:
		p.printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\"/>", b.x, b.y, w, h)
	case Run:
		p.printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>", b.x, b.y, w, h)
		p.printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>", b.x+3, b.y+3, w-6, h-6)
	case Gate:
		indent += padding
		p.printf("<path d=\"M%d %dH%dL%d %dL%d %dH%dL%d %dZ\"/>", b.x+padding, b.y, b.x+w-padding,
			b.x+w, b.y+h/2, b.x+w-padding, b.y+h, b.x+padding, b.x, b.y+h/2)
	}
	for i, text := range b.lines {
		class := "said"
		if i == 0 {
			class = "id"
		}
		p.printf("<text class=\"%s\" x=\"%d\" y=\"%d\">%s</text>", class, b.x+indent, b.y+padding/2+line*(i+1)-5, escape(text))
	}
	p.printf("</g>\n")
}

// word keeps what can stand in the name of a class.
func word(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r == '_' {
			return r
		}
		return -1
	}, s)
}

// style is the colours of both schemes. Programs that know of no scheme, and of
// no variables, take the light one.
const style = `.stella{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.stella .paper{fill:#ffffff}
.stella text{fill:#1f2328;font-size:12px;stroke:none}
.stella .title{font-size:13px;font-weight:bold}
.stella .id{font-size:13px;font-weight:bold}
.stella .border{fill:none;stroke:#8c959f;stroke-dasharray:6 4}
.stella .edges path{fill:none;stroke:#6e7781;stroke-width:1.2}
.stella .head{fill:#6e7781}
.stella .step rect,.stella .step path{fill:#f6f8fa;stroke:#57606a;stroke-width:1.2}
.stella .run rect{stroke:#6639ba}
.stella .gate path{stroke:#9a6700}
.stella .disabled rect,.stella .disabled path{stroke-dasharray:3 3}
.stella .disabled text{fill:#6e7781}
.stella .is-completed rect,.stella .is-completed path{fill:#dafbe1;stroke:#1a7f37}
.stella .is-failed rect,.stella .is-failed path{fill:#ffebe9;stroke:#cf222e;stroke-width:2}
.stella .is-running rect,.stella .is-running path,.stella .is-queued rect,.stella .is-queued path{fill:#ddf4ff;stroke:#0969da}
.stella .is-checkpoint_pending rect,.stella .is-checkpoint_pending path{fill:#fff8c5;stroke:#9a6700}
.stella .is-cancelled rect,.stella .is-cancelled path,.stella .is-skipped rect,.stella .is-skipped path{fill:#eaeef2;stroke:#8c959f}
@media (prefers-color-scheme:dark){
.stella .paper{fill:#0d1117}
.stella text{fill:#e6edf3}
.stella .border{stroke:#6e7681}
.stella .edges path{stroke:#8b949e}
.stella .head{fill:#8b949e}
.stella .step rect,.stella .step path{fill:#161b22;stroke:#8b949e}
.stella .run rect{stroke:#a371f7}
.stella .gate path{stroke:#d29922}
.stella .disabled text{fill:#8b949e}
.stella .is-completed rect,.stella .is-completed path{fill:#12261e;stroke:#3fb950}
.stella .is-failed rect,.stella .is-failed path{fill:#25171c;stroke:#f85149}
.stella .is-running rect,.stella .is-running path,.stella .is-queued rect,.stella .is-queued path{fill:#121d2f;stroke:#58a6ff}
.stella .is-checkpoint_pending rect,.stella .is-checkpoint_pending path{fill:#272115;stroke:#d29922}
.stella .is-cancelled rect,.stella .is-cancelled path,.stella .is-skipped rect,.stella .is-skipped path{fill:#21262d;stroke:#6e7681}
}
`
