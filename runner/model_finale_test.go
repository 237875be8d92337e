package runner_test

import (
	"errors"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// finale ends every run.
func (s *stage) finale() error {
	s.disk.arm(-1, false)
	switch s.Finale {
	case byAbortOfIdle:
		s.told = append(s.told, "the process ends")
		if err := s.reopen(false); err != nil {
			return err
		}
		fallthrough
	case byAbort:
		return s.abortAll()
	}
	return s.endAll()
}

// abortAll aborts every run: once their attempts have ended, nothing of them is left.
func (s *stage) abortAll() error {
	s.told = append(s.told, "abort everything")
	active, err := s.disk.ActiveRuns()
	if err != nil {
		return err
	}
	slices.SortFunc(active, func(a, b state.Run) int { return int(a.FirstSeq - b.FirstSeq) }) // parents first
	for _, run := range active {
		o, err := s.opened(run)
		if err == nil {
			_, err = s.r.Abort(o, "uid:9", "r")
		}
		if err != nil && !tolerated(err) {
			return err
		}
	}
	if err := s.look(); err != nil {
		return err
	}
	for _, x := range s.box.list(s.model.order()) {
		x.end <- end{report: exit(0)}
		synctest.Wait()
	}
	if err := s.look(); err != nil {
		return err
	}
	if active, err = s.disk.ActiveRuns(); err == nil && len(active) > 0 {
		return fmt.Errorf("an abort has left %+v%s", active[0], s.stories())
	}
	return errors.Join(err, s.nothingHeld())
}

// endAll lets people and programs do their part until every run has ended.
func (s *stage) endAll() error {
	s.told = append(s.told, "end")
	for round := range 500 { // a single worker may have hundreds of attempts to do
		if err := s.unpause(); err != nil {
			return err
		}
		if err := s.resume(); err != nil {
			return err
		}
		for _, x := range s.box.list(s.model.order()) {
			x.end <- end{report: exit(0)}
			synctest.Wait()
		}
		if err := s.decideAll(round); err != nil {
			return err
		}
		if err := s.look(); err != nil {
			return err
		}
		active, err := s.disk.ActiveRuns()
		if err != nil {
			return err
		}
		if len(active) == 0 {
			return s.nothingHeld()
		}
		if round%4 == 3 {
			time.Sleep(time.Hour)
		}
	}
	active, _ := s.disk.ActiveRuns()
	steps, _ := s.disk.Steps(active[0].RunID)
	return fmt.Errorf("it does not end: %+v\nsteps %+v\nthe queue is %+v", active[0], steps, s.r.Queue(""))
}

func (s *stage) nothingHeld() error {
	held, err := s.disk.Locks("")
	gates, plans, _, _ := s.r.Kept()
	switch left := s.r.Lingering("default"); {
	case err != nil:
		return err
	case len(held)+len(left) > 0:
		return fmt.Errorf("locks are held in the end: %+v %+v", held, left)
	case gates+plans > 0:
		return fmt.Errorf("kept in the end are %d limits and %d plans", gates, plans)
	}
	return nil
}

// decideAll lets enough people answer what is asked.
func (s *stage) decideAll(round int) error {
	open, _, err := s.disk.Approvals("default", true, "", 100, nil)
	if err != nil {
		return err
	}
	for _, rec := range open {
		for i := range rec.Approval.Request.Quorum {
			err := s.decide(rec, fmt.Sprintf("uid:%d", 100+2*round+i), "continue", "")
			if err != nil && !tolerated(err) {
				return fmt.Errorf("%w\n%s", err, s.model.story(s.disk.DB, rec.Run.RunID))
			}
		}
	}
	return nil
}

func (s *stage) decide(rec store.ApprovalRecord, actor, what, back string) error {
	o, err := s.opened(rec.Run)
	if err != nil {
		return err
	}
	_, err = s.r.Decide(o, runner.Decision{
		StepID: rec.StepID, Attempt: rec.Approval.Attempt, PlanHash: rec.Run.PlanHash, Actor: actor, Decision: what, BackTo: back,
	})
	return err
}
