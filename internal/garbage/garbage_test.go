package garbage

import (
	"runtime/debug"
	"testing"
)

// percent is what the collector is set to.
func percent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

// While long work goes on garbage is collected rarely, whatever is set meanwhile, and
// afterwards as it was set.
func TestRarely(t *testing.T) {
	t.Setenv("GOGC", "")
	set(quickHeap)
	defer set(100)
	Rarely(true)
	set(100) // the first collection
	if got := percent(); got != rareHeap {
		t.Errorf("%d %% while a work goes on, want %d", got, rareHeap)
	}
	Rarely(false)
	if got := percent(); got != 100 {
		t.Errorf("%d %% afterwards, want 100", got)
	}
	t.Setenv("GOGC", "50")
	Rarely(true)
	if got := percent(); got != 100 {
		t.Errorf("%d %% where somebody has set GOGC, want what it was, 100", got)
	}
}
