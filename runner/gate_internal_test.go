package runner

import "testing"

// An item that ends while it is put into a line is in none, whichever line it came from.
func TestAnItemThatEndsWhileItIsParkedIsInNoLine(t *testing.T) {
	for _, again := range []bool{false, true} {
		g := &gate{capacity: 1}
		it := item{e: &execution{tenant: "default"}, n: &node{}}
		if again {
			it.came = g.line("default")
		}
		it.e.ended.Store(true) // nobody holds the queue for that
		new(queue).park(it, need{gate: g, weight: 1})
		if l := g.line("default"); len(l.waiting) != 0 || l.trying {
			t.Errorf("came from the line %v: %d wait, trying %v", again, len(l.waiting), l.trying)
		}
	}
}
