package drawing

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// everything is a graph with all that a step can have.
func everything() Graph {
	return Graph{
		Title: "release 2.0.0",
		Note:  "failed: STEP_FAILED in each",
		Groups: []Group{
			{Nodes: []Node{
				{ID: "build", Does: "acme/build@1.0.0 compile", State: "completed", Detail: "attempt 2, 1.2s"},
				{ID: "pair", Does: "acme/ship@1.0.0 ship", Each: true, Marks: []string{"for each of 3 items"}, Needs: []string{"build"}, State: "running", Detail: "attempt 1"},
				{ID: "ask", Kind: Gate, Does: "approval: Ship to <prod> & \"go\"?", Needs: []string{"build", "pair"}, State: "checkpoint_pending"},
				{ID: "each", Does: "acme/ship@1.0.0 ship", Marks: []string{"when inputs.count > 0", "then approval: Seen?"}, Asks: true, Needs: []string{"build"}, State: "failed", Detail: "attempt 1, STEP_FAILED"},
				{ID: "child", Kind: Run, Does: "run of cleanup@1.0.0", Disabled: true, Marks: []string{"disabled"}, Needs: []string{"ask", "build"}, State: "skipped"},
				{ID: "last", Does: "acme/mail@1.0.0 send", Needs: []string{"child", "each"}, State: "queued"},
			}},
			{Name: "on_failure", Nodes: []Node{{ID: "tell-all", Does: "acme/mail@1.0.0 send"}, {ID: "wait", Kind: Gate, Does: "approval: Seen?", Needs: []string{"tell-all"}}}},
			{Name: "on_cancel", Nodes: []Node{{ID: "sweep", Does: "acme/mail@1.0.0 send", State: "cancelled"}}},
		},
	}
}

func TestEverythingIsDrawnAsBefore(t *testing.T) {
	for _, f := range []struct {
		name string
		draw func(io.Writer, Graph) error
	}{
		{"all.svg", SVG}, {"all.mmd", Mermaid}, {"all.dot", DOT}, {"all.txt", func(w io.Writer, g Graph) error {
			for _, l := range Text(g) {
				fmt.Fprintf(w, "%s%s [%s, %s] %s\n", l.Head, l.ID, l.State, l.Detail, l.Rest)
			}
			return nil
		}},
	} {
		var got bytes.Buffer
		if err := f.draw(&got, everything()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", f.name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got), UPDATE_GOLDEN=1 writes it:\n%s", path, diff)
		}
	}
}

// parse reads an SVG file and returns how often each element stands in it.
func parse(t interface{ Fatalf(string, ...any) }, raw []byte) map[string]int {
	count := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(raw))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		count[e.Name.Local]++
		for _, a := range e.Attr {
			if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" || a.Name.Local == "src" {
				t.Fatalf("<%s> has %s=%q", e.Name.Local, a.Name.Local, a.Value)
			}
			if a.Name.Local == "class" && strings.HasPrefix(a.Value, "step ") {
				count["step"]++
			}
		}
	}
}

func TestTextFromOutsideIsHarmless(t *testing.T) {
	evil := "</title><script>alert(1)</script>\x00\x1b[31m\u202e\ufffe\xff]]>\n\"'&"
	g := Graph{Title: evil, Note: evil, Groups: []Group{{Name: evil, Nodes: []Node{{ID: evil, Does: evil, Marks: []string{evil}, State: "x\" onload=\"y", Detail: evil}}}}}
	var out bytes.Buffer
	if err := SVG(&out, g); err != nil {
		t.Fatal(err)
	}
	if n := parse(t, out.Bytes()); n["script"] != 0 || n["title"] != 2 || n["step"] != 1 {
		t.Errorf("elements: %v", n)
	}
	for name, draw := range map[string]func(io.Writer, Graph) error{"mermaid": Mermaid, "dot": DOT, "svg": SVG} {
		out.Reset()
		if err := draw(&out, g); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x00\x1b\u202e\ufffe") || !bytes.Equal(bytes.ToValidUTF8(out.Bytes(), nil), out.Bytes()) {
			t.Errorf("%s lets through what misleads: %q", name, out.String())
		}
	}
}

// shape is what two drawings of one graph have in common.
func shape(nodes int, needs func(i int) []int) Graph {
	var g Group
	for i := range nodes {
		n := Node{ID: fmt.Sprintf("s%d", i), Does: "acme/work@1.0.0 say"}
		for _, k := range needs(i) {
			n.Needs = append(n.Needs, fmt.Sprintf("s%d", k))
		}
		g.Nodes = append(g.Nodes, n)
	}
	return Graph{Title: "flow 1.0.0", Groups: []Group{g}}
}

// TestNoGraphIsTooLarge draws ten thousand steps in the forms that cost most.
func TestNoGraphIsTooLarge(t *testing.T) {
	const n = 10000
	for name, needs := range map[string]func(i int) []int{
		"none needs another": func(int) []int { return nil },
		"a chain": func(i int) []int {
			if i == 0 {
				return nil
			}
			return []int{i - 1}
		},
		"a chain whose steps all need the first and the middle": func(i int) []int {
			if i == 0 {
				return nil
			}
			return []int{i - 1, 0, min(i-1, n/2)}
		},
		"a tree": func(i int) []int {
			if i == 0 {
				return nil
			}
			return []int{i / 2}
		},
		"any three before it": func(i int) []int {
			if i == 0 {
				return nil
			}
			return []int{i * 7919 % i, i * 104729 % i, i * 31 % i}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := shape(n, needs)
			var out bytes.Buffer
			if err := SVG(&out, g); err != nil {
				t.Fatal(err)
			}
			if got := parse(t, out.Bytes()); got["step"] != n {
				t.Errorf("%d steps were drawn", got["step"])
			}
			size := 0
			ids := map[string]int{}
			for _, l := range Text(g) {
				size += len(l.Head) + len(l.ID) + len(l.Rest)
				if l.ID != "" {
					ids[l.ID]++
				}
			}
			if len(ids) != n || size > 400*n {
				t.Errorf("text has %d steps in %d bytes", len(ids), size)
			}
			for _, draw := range []func(io.Writer, Graph) error{Mermaid, DOT} {
				if err := draw(io.Discard, g); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Whatever the graph: no two boxes overlap, every edge goes downward from box
// to box and passes no other, and the same graph gives the same bytes.
func TestRandomGraphs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := Graph{Title: "t"}
		for k := range rapid.IntRange(1, 3).Draw(t, "groups") {
			group := Group{Name: strings.Repeat("g", k)}
			count := rapid.IntRange(0, 40).Draw(t, "nodes")
			for i := range count {
				n := Node{
					ID: fmt.Sprintf("%d-%d", k, i), Does: strings.Repeat("w", rapid.IntRange(0, 60).Draw(t, "width")),
					Kind: Kind(rapid.IntRange(0, 2).Draw(t, "kind")), Each: rapid.Bool().Draw(t, "each"),
					Marks: make([]string, rapid.IntRange(0, 3).Draw(t, "marks")),
				}
				for range rapid.IntRange(0, 4).Draw(t, "needs") {
					if i > 0 {
						n.Needs = append(n.Needs, fmt.Sprintf("%d-%d", k, rapid.IntRange(0, i-1).Draw(t, "need")))
					}
				}
				group.Nodes = append(group.Nodes, n)
			}
			g.Groups = append(g.Groups, group)
		}
		frames, width, height := arrange(g, func(int) int { return rapid.SampledFrom([]int{0, 1, 10, 10000}).Draw(t, "bends") })
		for i := range frames {
			checkFrame(t, &frames[i], width, height)
			for k := range i {
				if overlap(frames[i].x, frames[i].y, frames[i].w, frames[i].h, frames[k].x, frames[k].y, frames[k].w, frames[k].h) {
					t.Fatalf("frames %d and %d overlap", i, k)
				}
			}
		}
		var a, b bytes.Buffer
		if err := errors.Join(SVG(&a, g), SVG(&b, g)); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatalf("the same graph gives other bytes (%v)", err)
		}
		parse(t, a.Bytes())
	})
}

func overlap(ax, ay, aw, ah, bx, by, bw, bh int) bool {
	return ax < bx+bw && bx < ax+aw && ay < by+bh && by < ay+ah
}

func checkFrame(t *rapid.T, f *frame, width, height int) {
	for i, b := range f.boxes {
		if b.x < 0 || b.y < 0 || b.x+b.w > width || b.y+b.h > height {
			t.Fatalf("%s lies at %d,%d of %dx%d", b.node.ID, b.x, b.y, width, height)
		}
		for _, c := range f.boxes[:i] {
			if overlap(b.x, b.y, b.w, b.h, c.x, c.y, c.w, c.h) {
				t.Fatalf("%s and %s overlap: %+v %+v", b.node.ID, c.node.ID, b, c)
			}
		}
	}
	for _, a := range f.arrows {
		from, to := f.boxes[a.from], f.boxes[a.to]
		first, last := a.points[0], a.points[len(a.points)-1]
		if first.y != from.y+from.h || first.x < from.x || first.x > from.x+from.w || last.y != to.y || last.x < to.x || last.x > to.x+to.w {
			t.Fatalf("an edge does not lead from %s to %s: %v", from.node.ID, to.node.ID, a.points)
		}
		if first.y >= last.y {
			t.Fatalf("an edge goes up: %v", a.points)
		}
		for i := 1; i < len(a.points); i++ {
			p, q := a.points[i-1], a.points[i]
			if q.y < p.y {
				t.Fatalf("an edge goes up: %v", a.points)
			}
			for k, b := range f.boxes { // a bend lies between its two points
				if k != a.from && k != a.to && overlap(min(p.x, q.x), p.y, max(p.x, q.x)-min(p.x, q.x)+1, q.y-p.y, b.x, b.y, b.w, b.h) {
					t.Fatalf("the edge from %s to %s passes %s: %v", from.node.ID, to.node.ID, b.node.ID, a.points)
				}
			}
		}
	}
}
