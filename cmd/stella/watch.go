package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// watchPause is between two looks at the entries of a run. After silence of so many of them
// it is asked what the run waits for, and what it waits for the next time as well is said.
const (
	watchPause = 100 * time.Millisecond
	silence    = 5
)

// A watcher stays with runs until they have ended, and says on stderr what
// their entries say. Begun again, it does not repeat itself.
type watcher struct {
	next map[string]int64 // first entry of a run that was not shown
	runs []state.Run      // all that are watched
	wide int              // characters of an id that tell them apart
	stay bool             // also while only people let them go on
	told map[string]bool  // what was said that a run waits for

	found map[string]string // what a run waited for when that was asked last
}

// until returns when all runs have ended.
func (w *watcher) until(ctx context.Context, a *app, r *reached, runs []state.Run) error {
	w.runs, w.wide = runs, apart(runs)
	for _, run := range runs {
		w.begin(a, run)
	}
	for _, run := range runs {
		if err := w.one(ctx, a, r, run, len(runs) > 1); err != nil {
			return err
		}
	}
	return nil
}

// label is what lines about a run begin with where several are watched.
func (w *watcher) label(id string) string { return id[:min(len(id), max(w.wide, shortest))] }

// shortest is the least that is shown of the id of a run.
const shortest = 12

// apart is how many characters of their ids tell runs apart: those that were started in
// one moment have a long beginning in common.
func apart(runs []state.Run) int {
	wide := shortest
	ids := make([]string, len(runs))
	for i, run := range runs {
		ids[i] = run.RunID
	}
	slices.Sort(ids)
	for i := 1; i < len(ids); i++ {
		n := 0
		for n < len(ids[i]) && n < len(ids[i-1]) && ids[i][n] == ids[i-1][n] {
			n++
		}
		wide = max(wide, n+1)
	}
	return wide
}

func (w *watcher) one(ctx context.Context, a *app, r *reached, run state.Run, many bool) error {
	if !w.shows(a) {
		return w.wait(ctx, a, r, run.RunID, many)
	}
	if _, begun := w.next[run.RunID]; !begun {
		return nil // nothing happened any more
	}
	if !run.Status.Ended() {
		if err := w.wait(ctx, a, r, run.RunID, many); err != nil {
			return err
		}
	}
	return w.show(ctx, a, r, run.RunID, many)
}

// begin says that a run is watched, and what keeps it from going on.
func (w *watcher) begin(a *app, run state.Run) {
	if w.next == nil {
		w.next = map[string]int64{}
	}
	if _, begun := w.next[run.RunID]; begun || run.Status.Ended() || !w.shows(a) {
		return
	}
	w.next[run.RunID] = run.FirstSeq
	a.stderr.note("run %s of %s %s", run.RunID, run.DAGID, run.DAGVersion)
	if run.Status == state.Checkpoint && w.stay {
		a.stderr.note("it waits for people, and so does this command: stella orch approvals list --run %s", run.RunID)
	}
}

// shows says whether what happens is shown.
func (w *watcher) shows(a *app) bool { return !a.stderr.quiet && a.opt.output == outTable }

// wait returns when the run has ended; until then it shows what is new, of all runs
// that are watched.
func (w *watcher) wait(ctx context.Context, a *app, r *reached, id string, many bool) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := r.WaitRun(ctx, id)
		ended <- err
	}()
	look := time.NewTicker(watchPause)
	defer look.Stop()
	for quiet := 1; ; quiet++ {
		select {
		case err := <-ended:
			cancel()
			return err
		case <-look.C:
			over, err := false, error(nil)
			if r.held == nil { // else the execution itself ends
				over, err = w.left(ctx, r)
			}
			if over && err == nil {
				if err = w.rest(ctx, a, r, w.runs); err == nil {
					err = errPeople
				}
			}
			if err != nil {
				cancel()
				<-ended
				return err
			}
			for _, run := range w.runs {
				if _, watched := w.next[run.RunID]; !watched {
					continue
				}
				from := w.next[run.RunID]
				if err := w.show(ctx, a, r, run.RunID, many); err != nil {
					cancel()
					<-ended
					return err
				}
				if w.next[run.RunID] != from {
					quiet = 0
					delete(w.found, run.RunID)
				}
			}
			if quiet > 0 && quiet%silence == 0 {
				w.explain(ctx, a, r)
			}
		}
	}
}

// explain says once what keeps runs from going on of which nothing is under way.
func (w *watcher) explain(ctx context.Context, a *app, r *reached) {
	for _, run := range w.runs {
		if _, watched := w.next[run.RunID]; !watched {
			continue
		}
		all, moving := w.held(ctx, r, run.RunID, false)
		if moving || len(all) == 0 {
			delete(w.found, run.RunID)
			continue
		}
		st := all[max(0, slices.IndexFunc(all, func(x holdup) bool { return x.step.Status == state.Queued }))] // its turn before people
		if !w.news(run.RunID, st.step.Waiting) {
			continue
		}
		text := "step " + st.step.StepID
		if len(w.runs) > 1 {
			text = w.label(run.RunID) + "  " + text
		}
		if st.runID != run.RunID {
			text += " of sub-run " + st.runID
		}
		if more := len(all) - 1; more > 0 {
			text += fmt.Sprintf(" (and %d more)", more)
		}
		a.stderr.note("%s waits for: %s", text, st.step.Waiting)
		if st.step.Status == state.Queued {
			a.stderr.note("  %s", moves(ctx, r))
		}
	}
}

// news says whether a run is found to wait for the same again, and that was not said. What
// it waits for between two others, as for a free worker once a queue goes on, is no news, nor
// is who holds a lock at the moment.
func (w *watcher) news(id, waiting string) bool {
	if kind, _, _ := strings.Cut(waiting, " "); kind == "lock" || kind == "semaphore" {
		waiting, _, _ = strings.Cut(waiting, ", held by ")
	}
	if w.told == nil {
		w.told, w.found = map[string]bool{}, map[string]string{}
	}
	again := w.found[id] == waiting
	w.found[id] = waiting
	if !again || w.told[id+waiting] {
		return false
	}
	w.told[id+waiting] = true
	return true
}

// A holdup is a step that waits, and its run.
type holdup struct {
	runID string
	step  api.StepInfo
}

// held finds the steps that wait for their turn in a run, or in its sub-runs, and of a sub-run those
// that wait for people: those of a run that is watched itself are shown as its entries. It says
// whether something is under way, or a time is waited for.
func (w *watcher) held(ctx context.Context, r *reached, id string, sub bool) (all []holdup, moving bool) {
	d, err := r.RunOverview(ctx, id)
	if err != nil { // it is no more than a hint
		return nil, true
	}
	for _, st := range d.StepList {
		switch {
		case st.Status == state.Running && st.Child != nil && st.Child.Status == "":
			below, moving := w.held(ctx, r, st.Child.RunID, true)
			if moving {
				return nil, true
			}
			if _, watched := w.next[st.Child.RunID]; !watched {
				all = append(all, below...)
			}
		case st.Status == state.Running, st.Status == state.Queued && st.DueTime().After(time.Now()):
			return nil, true
		case st.Waiting == "":
		case st.Status == state.Queued, st.Status == state.CheckpointPending && sub:
			all = append(all, holdup{id, st})
		}
	}
	return all, false
}

// moves names the command that lets a queue go on, or that says more about it.
func moves(ctx context.Context, r *reached) string {
	st, err := r.QueueStatus(ctx, api.QueueQuery{})
	if err != nil || len(st.Paused) == 0 {
		return "see: stella orch queue status; stella lock list"
	}
	for _, p := range st.Paused {
		if p.Tenant == "" {
			return "stella orch queue resume --all-tenants lets it go on"
		}
	}
	return "stella orch queue resume lets it go on"
}

// rest shows what is left to show of runs that nobody executes any more.
func (w *watcher) rest(ctx context.Context, a *app, r *reached, runs []state.Run) error {
	for _, run := range runs {
		if _, ok := w.next[run.RunID]; !ok {
			continue
		}
		if err := w.show(ctx, a, r, run.RunID, len(runs) > 1); err != nil {
			return err
		}
	}
	return nil
}

// show writes the entries of a run that were not shown yet.
func (w *watcher) show(ctx context.Context, a *app, r *reached, id string, many bool) error {
	for {
		lines, err := r.TailLedger(ctx, api.LedgerQuery{From: w.next[id], RunID: id, Limit: 500})
		if err != nil {
			return err
		}
		for _, l := range lines {
			w.next[id] = l.Seq + 1
			if text := happening(l); text != "" {
				if many {
					text = w.label(id) + "  " + text
				}
				a.stderr.note("%s", text)
			}
		}
		if len(lines) < 500 {
			return nil
		}
	}
}

// happening says in a line what an entry of a run means to somebody who
// watches; "" where nothing is worth a line.
func happening(l api.LedgerLine) string {
	m, ok := new(timeline).moment(l)
	if !ok || m.minor {
		return ""
	}
	if m.step == "" {
		return m.at + "  " + m.text
	}
	return m.at + "  " + m.step + "  " + m.text
}
