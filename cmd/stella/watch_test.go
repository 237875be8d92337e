package main

import "testing"

// What a run waits for is said once, when it is found twice in turn.
func TestSaysWhatHolds(t *testing.T) {
	var w watcher
	for i, look := range []struct {
		run, waiting string
		said         bool
	}{
		{"a", "the queue is paused", false},
		{"b", "the queue is paused", false},
		{"a", "the queue is paused", true},
		{"a", "the queue is paused", false},
		{"a", "a free worker", false}, // passes
		{"a", "lock merge, held by step s of run x", false},
		{"a", "lock merge, held by step s of run y", true}, // it changes hands faster than one looks
		{"a", "lock merge", false},
		{"a", "the queue is paused", false},
		{"a", "the queue is paused", false},
		{"b", "the queue is paused", true},
		{"b", "the queue is paused by x: a disk, held by y", false}, // words of people
		{"b", "the queue is paused by x: a disk, held by y", true},
		{"b", "the queue is paused by x: a disk, held by z", false},
		{"b", "the queue is paused by x: a disk, held by z", true},
	} {
		if said := w.news(look.run, look.waiting); said != look.said {
			t.Errorf("look %d: run %s, %s: said %v", i, look.run, look.waiting, said)
		}
	}
}
