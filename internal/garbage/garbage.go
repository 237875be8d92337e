// Package garbage says when garbage is collected in a process of stella.
package garbage

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// unused counts as in use, so that garbage is collected when there are 16 MiB on the heap
	// and not 4. Nothing is written to it: it takes addresses and no memory. Without it a busy
	// daemon, which keeps few MiB, spends a fifth of its time on collecting.
	unused = 8 << 20
	// quickHeap is the percentage at which garbage is first collected when 32 MiB are in use
	// beside that: most commands have ended by then. Measured: a run of one step took 33 ms
	// of processor time instead of 40.
	quickHeap = 1000
)

var ballast []byte

// PutOff lets a short command end before the first collection of garbage. From that one on
// the heap is kept small, though not so small that collecting becomes most of the work. It
// comes first of all: what the packages of stella's libraries make is nearly enough to begin
// a collection.
func PutOff() {
	if os.Getenv("GOGC") != "" {
		return // somebody knows better
	}
	ballast = make([]byte, unused)
	debug.SetGCPercent(quickHeap)
	type mark struct{ self *mark } // not among the tiny objects, which share a block
	m := &mark{}
	runtime.AddCleanup(m, func(int) { debug.SetGCPercent(100) }, 0)
}
