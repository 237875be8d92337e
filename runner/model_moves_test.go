package runner_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// move makes one move. Its error is what whoever asked for it was told.
func (s *stage) move(m move) error {
	switch m.Kind {
	case "start":
		return s.start(m)
	case "finish":
		if x, ok := pick(s.box.list(s.model.order()), m.A); ok {
			e, _ := pick(ends(), m.B)
			x.end <- e
			synctest.Wait()
		}
	case "flow":
		for _, x := range s.box.list(s.model.order()) {
			if !s.box.stubborn(x.task) || m.A%2 == 0 {
				x.end <- end{report: exit(0)}
				synctest.Wait()
			}
		}
	case "decide":
		return s.answer(m)
	case "wait":
		waits := []time.Duration{time.Millisecond, 2 * time.Second, 5 * time.Minute, 40 * time.Minute, 3 * time.Hour}
		d, _ := pick(waits, m.A)
		time.Sleep(d)
	case "jump":
		jumps := []time.Duration{-4 * time.Minute, -time.Second, time.Minute, 2 * time.Hour, 20 * 24 * time.Hour}
		d, _ := pick(jumps, m.A)
		if s.disk.LastTime().Sub(s.now().Add(d)) < 5*time.Minute { // else the site stops until somebody accepts the clock
			s.offset.Add(int64(d))
		}
	case "crash":
		return s.reopen(m.A%4 > 0)
	case "away":
		if err := s.reopen(false); err != nil {
			return err
		}
		d, _ := pick([]time.Duration{time.Minute, 40 * time.Minute, 3 * time.Hour}, m.A)
		time.Sleep(d)
	case "arm":
		s.disk.arm(1+m.A%8, m.B%2 == 0)
	case "pause":
		q, err := s.disk.ChangeQueue(ledger.QueuePaused, "uid:9", ledger.QueueChange{})
		if err == nil {
			s.r.StopQueue(q)
		}
		return err
	case "unpause":
		return s.unpause()
	case "lose":
		return s.lose(m)
	default:
		return s.byHand(m)
	}
	return nil
}

func (s *stage) start(m move) error {
	if len(s.starts) == 4 {
		return nil
	}
	d, _ := pick(s.DAGs, m.A)
	p, err := runner.NewPlan(d, dagDigest(d), s.sealed)
	if err != nil {
		return err
	}
	run, err := s.r.StartRun(context.Background(), runner.Start{
		Tenant: "default", Actor: "uid:0(root)", RunToken: runner.NewRunToken(time.Now()), TraceID: runner.NewTraceID(),
		DAG: d, Plan: p, Inputs: []byte("{}"), Priority: int64(m.B % 3),
	})
	if err == nil {
		s.starts = append(s.starts, run.RunID)
	}
	return err
}

// answer lets somebody decide, now and then about what was decided already.
func (s *stage) answer(m move) error {
	recs, _, err := s.disk.Approvals("default", m.B%3 > 0, "", 100, nil)
	if err != nil {
		return err
	}
	rec, ok := pick(recs, m.A)
	if !ok {
		return nil
	}
	what, _ := pick([]string{"continue", "continue", "retry", "retry", "abort"}, m.C)
	back := ""
	if what == "retry" && m.B%2 == 0 {
		back = aStep(s.model.dags[rec.Run.DAGID], m.C/5)
	}
	actor := fmt.Sprintf("uid:%d", m.B%3)
	if err := s.decide(rec, actor, what, back); err != nil {
		return err
	}
	return s.recorded(rec.Run.RunID, actor, ledger.ApprovalDecided)
}

// lose takes a lock away from its holder.
func (s *stage) lose(m move) error {
	held, err := s.disk.Locks("")
	if err != nil {
		return err
	}
	rec, ok := pick(held, m.A)
	if !ok {
		return nil
	}
	h, _ := pick(rec.Holders, m.B)
	return s.r.LoseLock(ledger.LockForced, "uid:9", rec.Tenant, ledger.LockLoss{
		Kind: rec.Kind, Name: rec.Name, RunID: h.RunID, StepID: h.StepID, Fence: h.Fence,
	})
}

// byHand is what people do to a run.
func (s *stage) byHand(m move) error {
	o, ok := s.aRun(m.A)
	if !ok {
		return nil
	}
	step, actor := anItem(o.DAG, s.model.aStep(o, m.B), m.C), fmt.Sprintf("uid:%d", 10+len(s.told))
	var run state.Run
	var err error
	var want ledger.Type
	switch m.Kind {
	case "cancel":
		run, err = s.r.Cancel(actor, "r", o)
		if err == nil && !run.CancelRequested() {
			err = fmt.Errorf("cancelled, and yet %+v", run)
		}
	case "abort":
		run, err = s.r.Abort(o, actor, "r")
		if err == nil && !run.Aborted {
			err = fmt.Errorf("aborted, and yet %+v", run)
		}
	case "fail":
		run, err = s.r.Fail(o, actor, state.FailedByHand, "r")
		if err == nil && !run.FailRequested() {
			err = fmt.Errorf("failed, and yet %+v", run)
		}
	case "resume":
		if !o.Run.Status.Ended() {
			return s.resumeOne(o.Run)
		}
	case "retry":
		want = ledger.StepInvalidated
		_, err = s.r.Retry(o, runner.Retry{Actor: actor, Reason: "r", StepID: step, Downstream: m.C%2 == 0, Repeat: m.C/2%2 == 0, Delay: time.Duration(m.C%3) * time.Minute})
	case "skip":
		want = ledger.StepSkipped
		_, err = s.r.Skip(o, runner.Skip{Actor: actor, Reason: "r", StepID: step, Repeat: m.C%2 == 0})
	case "reset":
		want = ledger.RunReset
		run, err = s.r.Reset(o, runner.Reset{Actor: actor, Reason: "r", StepID: step, Repeat: m.C%2 == 0})
		if o.Run.Status == state.Failed || run.ReopenedUTC != o.Run.ReopenedUTC { // its time was over, and nobody had looked
			want = ledger.RunReopened
		}
	case "restart":
		want = ledger.RunRestarted
		_, err = s.r.Restart(o, actor, "r", step, m.C%2 == 0)
	case "nudge":
		want = ledger.RunNudged
		_, err = s.r.Nudge(o, actor, "r")
	default:
		panic("no move " + m.Kind)
	}
	if err != nil || want == "" {
		return err
	}
	return s.recorded(o.Run.RunID, actor, want)
}

// aStep names a step of a DAG, or none.
func aStep(d *manifests.DAG, n int) string {
	id, _ := pick(append(slices.Concat(d.Steps, d.OnFailure, d.OnCancel), manifests.Step{}), n)
	return id.ID
}

// aStep names a step of a run: often one that is under way.
func (m *model) aStep(o runner.Opened, n int) string {
	var live []string
	for id, s := range m.runs[o.Run.RunID].steps {
		if s.status == state.Running || s.status == state.Queued {
			live = append(live, stepOf(id))
		}
	}
	if slices.Sort(live); n%2 > 0 && len(live) > 0 {
		return live[n/2%len(live)]
	}
	return aStep(o.DAG, n/2)
}

// anItem is now and then an item of a step, where it has some.
func anItem(d *manifests.DAG, id string, n int) string {
	for _, s := range slices.Concat(d.Steps, d.OnFailure, d.OnCancel) {
		if s.ForEach == nil || s.ID != id || n%3 == 0 {
			continue
		}
		most := 3
		if list, ok := s.ForEach.([]any); ok {
			most = max(1, len(list))
		}
		return fmt.Sprintf("%s.%d", id, n%most)
	}
	return id
}

// recorded says that something acknowledged is not on record.
func (s *stage) recorded(runID, actor string, want ledger.Type) error {
	for l, err := range s.disk.RunEntries(runID) {
		if err != nil {
			return err
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			return err
		}
		if env.Actor == actor && env.Type == want {
			return nil
		}
	}
	return fmt.Errorf("%s by %s was acknowledged, and is not on record", want, actor)
}

// person says whether an actor is somebody, and not a part of stella.
func person(actor string) bool { return strings.HasPrefix(actor, "uid:") }
