// Package garbage says when garbage is collected in a process of stella.
package garbage

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
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
	// rareHeap is the percentage while long work goes on, which makes much garbage beside what
	// must not wait for its collection.
	rareHeap = 400
)

var ballast []byte

// mode is what the collector is set to.
var mode = struct {
	sync.Mutex
	percent int  // while no long work goes on
	rare    bool // it goes on
}{percent: 100}

// PutOff lets a short command end before the first collection of garbage. From that one on
// the heap is kept small, though not so small that collecting becomes most of the work. It
// comes first of all: what the packages of stella's libraries make is nearly enough to begin
// a collection.
func PutOff() {
	if os.Getenv("GOGC") != "" {
		return // somebody knows better
	}
	ballast = make([]byte, unused)
	set(quickHeap)
	type mark struct{ self *mark } // not among the tiny objects, which share a block
	m := &mark{}
	runtime.AddCleanup(m, func(int) { set(100) }, 0)
}

func set(percent int) {
	mode.Lock()
	defer mode.Unlock()
	if mode.percent = percent; !mode.rare {
		debug.SetGCPercent(percent)
	}
}

// Rarely lets garbage be collected at 40 MiB, while long work goes on, and not at 16; and as
// before again.
func Rarely(on bool) {
	if os.Getenv("GOGC") != "" {
		return
	}
	mode.Lock()
	defer mode.Unlock()
	if mode.rare = on; on {
		debug.SetGCPercent(rareHeap)
	} else {
		debug.SetGCPercent(mode.percent)
	}
}
