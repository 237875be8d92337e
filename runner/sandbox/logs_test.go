package sandbox_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLinesArriveAsTheyWereWritten(t *testing.T) {
	task, rec := task(t, "echo", "first", "", "third", "\x1b[31mraw\x01\xff", "no line feed")
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	if want, got := "first\n\nthird\n\x1b[31mraw\x01\xff\nno line feed", rec.stdout(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBothStreamsAreToldOneLineAtATime(t *testing.T) {
	task, rec := task(t, "flood-both", "20000")
	exited(t, execute(t, task), 0, rec)
	if len(rec.lines["stdout"]) != 20000 || len(rec.lines["stderr"]) != 20000 {
		t.Errorf("%d lines of stdout, %d of stderr", len(rec.lines["stdout"]), len(rec.lines["stderr"]))
	}
	if rec.broken.Load() {
		t.Error("Log was called while it was at work")
	}
}

// TestAFloodIsCutInTheMiddle: the program is never held up, the first and the
// last half of the cap are kept, and every byte is accounted for.
func TestAFloodIsCutInTheMiddle(t *testing.T) {
	const limit = 1 << 20
	for name, c := range map[string]struct{ total, line int }{
		"many lines":       {20 << 20, 128},
		"very short lines": {4 << 20, 2},
		"one single line":  {20 << 20, 0},
	} {
		t.Run(name, func(t *testing.T) {
			task, rec := task(t, "flood", strconv.Itoa(c.total), strconv.Itoa(c.line))
			task.Limits.Log = limit
			begin := time.Now()
			rep := execute(t, task)
			exited(t, rep, 0, rec)
			var kept, longest int64
			for _, l := range rec.lines["stdout"] {
				n := int64(len(l))
				longest = max(longest, n)
				kept += n
				if n < 64<<10 || c.line > 0 {
					kept++ // its line feed
				}
			}
			if kept > limit || longest > 64<<10 {
				t.Errorf("kept %d bytes in lines of up to %d", kept, longest)
			}
			if c.line == 128 && kept < limit*9/10-2*64<<10 || kept < limit/2-64<<10 {
				t.Errorf("kept only %d bytes", kept)
			}
			if c.line > 0 && kept+rep.Dropped != int64(c.total) {
				t.Errorf("kept %d, dropped %d, written %d", kept, rep.Dropped, c.total)
			}
			if rep.Dropped == 0 {
				t.Error("nothing was dropped")
			}
			t.Logf("%v", time.Since(begin))
		})
	}
}

func TestTheLastLinesAreKept(t *testing.T) {
	task, rec := task(t)
	shell(t, &task, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo the end")
	task.Limits.Log = 1000
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	last := rec.order[len(rec.order)-1]
	if rec.order[0] != "line 0" || last != "the end" || !strings.Contains(rec.stdout(), "line 1999") || rep.Dropped < 10_000 {
		t.Errorf("first %q, last %q, dropped %d", rec.order[0], last, rep.Dropped)
	}
}

func TestClosingItsOutputEarlyIsNoEnd(t *testing.T) {
	task, rec := task(t, "close")
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	if string(rep.Output.Values["after"]) != "true" {
		t.Errorf("values %v", rep.Output.Values)
	}
}

// TestADaemonThatHoldsTheOutputHoldsNobodyUp is TestDaemonsDieWithTheProgram
// for a program that is killed.
func TestADaemonThatHoldsTheOutputHoldsNobodyUp(t *testing.T) {
	task, _ := task(t, "daemon-and-ignore")
	task.Timeout, task.Grace = 100*time.Millisecond, 0
	begin := time.Now()
	rep := execute(t, task)
	if d := time.Since(begin); d > 30*time.Second || rep.Signal != "SIGKILL" || rep.Leftover != 1 {
		t.Errorf("took %v, signal %q, leftover %d", d, rep.Signal, rep.Leftover)
	}
}
