package store

import (
	"testing"
	"testing/synctest"
	"time"
)

// Work in the background waits for the end of a commit, though not for one that does not end.
func TestWorkWaitsForACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &DB{}
		begun := time.Now()
		p := db.Pace()
		step := func(name string, most time.Duration) {
			t.Helper()
			from := time.Now()
			if p.Step(); time.Since(from) != most {
				t.Errorf("%s: it waits %s, want %s", name, time.Since(from), most)
			}
		}
		time.Sleep(workPiece)
		step("no commit", 0)
		end := db.commits()
		p = db.Pace()
		step("its piece is not at its end", 0)
		time.Sleep(workPiece)
		time.AfterFunc(mostPause/2, end)
		step("a commit that ends", mostPause/2)
		step("it has ended", 0)

		defer db.commits()()
		step("the next, in the piece after the pause", 0)
		time.Sleep(workPiece)
		step("one that hangs", mostPause)
		step("it hangs still, and the work goes on", 0)
		time.Sleep(workPiece)
		step("it hangs still, a piece later", mostPause)
		if took, most := time.Since(begun), 4*workPiece+5*mostPause/2; took != most {
			t.Errorf("it took %s, want %s", took, most)
		}
	})
}
