package simtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/outbox"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// audit holds a record against what everybody else knows.
type audit struct {
	*record
	faults []string
	once   map[string]bool // steps, by DAG and id, that must not be repeated silently
	slow   time.Duration   // the longest that an interrupted attempt has waited to be marked
	marks  map[string]int  // interrupted attempts that were marked, by the kind of the process that was killed
}

func (a *audit) fault(format string, args ...any) {
	a.faults = append(a.faults, fmt.Sprintf(format, args...))
}

// acknowledged: nothing that a client was told is missing, and a token has one run.
func (a *audit) acknowledged(acks []ack) {
	runs, tokens := map[string]entry{}, map[string]string{}
	by := map[string]int{} // entries by type, run and actor
	for _, e := range a.entries {
		by[fmt.Sprint(e.Type, e.RunID, e.Actor)]++
		if e.Type == ledger.ApprovalDecided {
			by[fmt.Sprint(e.Type, e.RunID, e.StepID, e.Attempt, e.Actor)]++
		}
		if e.Type != ledger.RunStarted {
			continue
		}
		token := e.data.(*ledger.RunStart).RunToken
		if other := tokens[token]; other != "" {
			a.fault("token %s has two runs: %s and %s", token, other, e.RunID)
		}
		runs[e.RunID], tokens[token] = e, e.RunID
	}
	for _, k := range acks {
		if k.Kind == "foreground" && tokens[k.Token] == "" {
			a.fault("the run of a foreground that has ended is not on record: %+v", k)
		}
		if k.RunID == "" {
			continue
		}
		if k.Seq >= int64(len(a.entries)) || a.entries[k.Seq].RunID != k.RunID {
			a.fault("entry %d was shown to a client, and is gone: %+v", k.Seq, k)
			continue
		}
		if !k.Changed {
			continue
		}
		has := func(t ledger.Type) bool { return by[fmt.Sprint(t, k.RunID, k.Actor)] > 0 }
		ok := true
		switch k.Kind {
		case "start":
			ok = tokens[k.Token] == k.RunID
		case "decide":
			ok = by[fmt.Sprint(ledger.ApprovalDecided, k.RunID, k.StepID, k.Attempt, k.Actor)] == 1
		case "cancel": // somebody else may have asked before
			ok = slices.ContainsFunc(a.entries, func(e entry) bool {
				return e.RunID == k.RunID && (e.Type == ledger.RunCancelRequested || e.Type == ledger.RunAbortRequested)
			})
		case "abort":
			ok = has(ledger.RunAbortRequested) || has(ledger.RunCancelRequested) // by another client of the same person
		case "fail":
			ok = has(ledger.RunFailRequested)
		case "retry":
			ok = has(ledger.StepInvalidated)
		case "skip":
			ok = has(ledger.StepSkipped)
		case "restart":
			ok = has(ledger.RunRestarted)
		case "reset":
			ok = has(ledger.RunReset) || has(ledger.RunReopened)
		case "nudge":
			ok = has(ledger.RunNudged)
		}
		if !ok {
			a.fault("it was acknowledged, and is not on record: %+v\n%s", k, a.story(k.RunID))
		}
	}
}

// try is what the record says of one attempt.
type try struct {
	start, end *entry
	action     string
	asked      bool // somebody has said that it may do twice what it has done
}

// attempts: numbers follow each other, nothing that must not be repeated silently
// is, and what a program has left was begun on record.
func (a *audit) attempts(trace trail) {
	tries, last := map[tried]*try{}, map[[2]string]*try{}
	for i := range a.entries {
		e := &a.entries[i]
		key := [2]string{e.RunID, e.StepID}
		switch d := e.data.(type) {
		case *ledger.AttemptStart:
			t := &try{start: e, action: e.DAGID + "." + strings.Split(e.StepID, ".")[0]}
			if before := last[key]; before != nil {
				a.follows(before, t)
			}
			last[key], tries[tried{e.RunID, e.StepID, e.Attempt}] = t, t
		case *ledger.AttemptEnd:
			t := tries[tried{e.RunID, e.StepID, e.Attempt}]
			if t == nil || t.end != nil {
				a.fault("attempt %d of %s in %s ended without having begun, or twice", e.Attempt, e.StepID, e.RunID)
				continue
			}
			t.end = e
		case *ledger.StepInvalidation:
			if t := last[key]; t != nil {
				t.asked = t.asked || d.Repeat
			}
		case *ledger.Note:
			if t := last[key]; t != nil && e.Type == ledger.RepeatWithdrawn {
				t.asked = false
			}
		case *ledger.StepQueue:
			if t := last[key]; t != nil {
				t.asked = t.asked || d.Repeat
			}
		}
	}
	a.traced(trace.began, tries)
}

func (a *audit) follows(before, t *try) {
	var end *ledger.AttemptEnd
	if before.end != nil {
		end = before.end.data.(*ledger.AttemptEnd)
	}
	switch {
	case end == nil:
		a.fault("attempt %d of %s in %s began while another was under way", t.start.Attempt, t.start.StepID, t.start.RunID)
	case t.start.Attempt <= before.start.Attempt:
		a.fault("attempt %d of %s in %s follows %d", t.start.Attempt, t.start.StepID, t.start.RunID, before.start.Attempt)
	case a.once[t.action] && !before.asked && (end.Outcome == string(state.Interrupted) || end.Outcome == string(state.Succeeded) || end.Outcome == string(state.OutcomeCancelled)):
		a.fault("%s in %s was begun again silently\n%s", t.start.StepID, t.start.RunID, a.story(t.start.RunID))
	}
}

func (a *audit) traced(trace []tried, tries map[tried]*try) {
	seen := map[tried]bool{}
	for _, x := range trace {
		switch {
		case tries[x] == nil:
			a.fault("a program ran as %+v, and that is not on record", x)
		case seen[x]:
			a.fault("two programs ran as %+v", x)
		}
		seen[x] = true
	}
}

// interrupted: whoever opens a site ends what was under way before anything else
// begins, says why, and does so at once. execs are the processes by their ids.
func (a *audit) interrupted(execs map[int]began) {
	open, restarted := map[tried]entry{}, map[tried]bool{}
	var left int
	var last, now began
	a.marks = map[string]int{}
	for _, e := range a.entries {
		key := tried{e.RunID, e.StepID, e.Attempt}
		switch d := e.data.(type) {
		case *ledger.SiteStart:
			left, last, now = len(open), now, execs[d.PID]
		case *ledger.Nudge:
			for key := range open {
				of := key.runID == e.RunID && (d.Step == "" || key.stepID == d.Step || strings.HasPrefix(key.stepID, d.Step+"."))
				restarted[key] = restarted[key] || of && e.Type == ledger.RunRestarted
			}
		case *ledger.AttemptStart:
			if left > 0 {
				a.fault("entry %d: an attempt begins while %d of a dead process are open", e.Seq, left)
			}
			open[key] = e
		case *ledger.AttemptEnd:
			began, ok := open[key]
			delete(open, key)
			if !ok || left == 0 {
				continue
			}
			left--
			once := a.once[began.DAGID+"."+strings.Split(e.StepID, ".")[0]] && !restarted[key]
			if d.Outcome != string(state.Interrupted) || d.Message == "" || (d.ErrorCode == string(state.Indeterminate)) != once {
				a.fault("entry %d: attempt %d of %s was left by a dead process, and is %s %s %q", e.Seq, e.Attempt, e.StepID, d.Outcome, d.ErrorCode, d.Message)
			}
			a.marks[last.kind]++
			if !now.at.IsZero() {
				a.slow = max(a.slow, e.at.Sub(now.at))
			}
		}
	}
}

// decisions: an approval is closed once, and one that is approved by as many people
// as it takes.
func (a *audit) decisions() {
	type asked struct {
		quorum  int
		agree   map[string]int
		people  map[string]bool
		closed  int
		decided int
	}
	all := map[tried]*asked{}
	for _, e := range a.entries {
		key := tried{e.RunID, e.StepID, e.Attempt}
		x := all[key]
		switch d := e.data.(type) {
		case *ledger.ApprovalRequest:
			all[key] = &asked{quorum: d.Quorum, agree: map[string]int{}, people: map[string]bool{}}
		case *ledger.ApprovalDecision:
			if x == nil || x.closed > 0 || x.people[e.Actor] {
				a.fault("entry %d: a decision on %+v that is not open, or by the same person", e.Seq, key)
				continue
			}
			x.people[e.Actor] = true
			x.agree[d.Decision]++
		case *ledger.ApprovalClosing:
			if x.closed++; x.closed > 1 || d.Result == state.ApprovalApproved && x.agree[d.Decision] != x.quorum {
				a.fault("entry %d: %+v is closed %d times, %s by %d of %d", e.Seq, key, x.closed, d.Result, x.agree[d.Decision], x.quorum)
			}
		}
	}
}

func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// events: what the sink has is on record, each run's in order, and, when it has
// had the time, all of it.
func (a *audit) events(home string, all bool) error {
	raw, err := os.ReadFile(filepath.Join(home, "outbox", "events.ndjson"))
	if err != nil {
		if os.IsNotExist(err) && !all {
			return nil
		}
		return err
	}
	want := map[string]int64{}
	sink := manifests.Sink{Name: "events", Topics: []string{"*"}}
	db, err := open(home)
	if err != nil {
		return err
	}
	defer db.Close()
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			return err
		}
		if e, ok, err := outbox.EventOf(&sink, a.siteID, l); err != nil {
			return err
		} else if ok {
			want[e.ID] = l.Seq
		}
	}
	seen, last := map[string]bool{}, map[string]int64{}
	for text := range strings.Lines(string(raw)) {
		var e struct{ ID, RunID string }
		if !strings.HasSuffix(text, "\n") && !all {
			break // it was being written
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return fmt.Errorf("the line %q of the sink: %w", text, err)
		}
		seq, known := want[e.ID]
		if !known {
			a.fault("the sink has %s, which is not on record", e.ID)
		}
		if run := a.entries[seq].RunID; !seen[e.ID] {
			if seq < last[run] {
				a.fault("the sink has entry %d of run %q after %d", seq, run, last[run])
			}
			last[run], seen[e.ID] = seq, true
		}
	}
	rec, err := db.Sink("events")
	if err != nil && !store.IsNotFound(err) {
		return err
	}
	pending, err := db.OutboxRows("events", 0, 1)
	if err != nil || len(pending) > 0 {
		return errors.Join(err, expect(!all, "the sink has not taken %+v", pending))
	}
	for id, seq := range want {
		if !seen[id] && seq < rec.Next {
			a.fault("the sink is said to have seen %s, entry %d, and has not", id, seq)
		}
	}
	return expect(!all || rec.Next >= int64(len(a.entries))-2, "the sink has seen %d entries of %d", rec.Next, len(a.entries))
}
