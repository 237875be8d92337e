package runner

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// A site that has run ten thousand DAGs, each with a plugin and a sub-run of its own,
// keeps nothing of them once their last run has ended, whether its steps have run,
// waited at a limit, or gone another way meanwhile.
func TestNothingIsKeptOfRunsThatHaveEnded(t *testing.T) {
	r := New(Options{Workers: 4, Concurrency: manifests.Concurrency{PerDAG: 1, PerPlugin: 1}})
	taken := make(chan item, 4)
	r.start = func(it item) { taken <- it }
	const dags = 10_000
	for i := range dags {
		var runs []*execution
		for j := range 2 { // of the second one a step waits for the limits that the first has
			e := &execution{
				r: r, runID: fmt.Sprintf("%d-%d", i, j), tenant: "default", dag: &manifests.DAG{ID: fmt.Sprint("d", i)},
				plan: &Plan{Steps: []PlanStep{{SubPlan: fmt.Sprint("sub", i)}}},
				run:  state.Run{RunID: fmt.Sprintf("%d-%d", i, j), PlanHash: fmt.Sprint("plan", i)},
			}
			r.adopt(e)
			n := &node{id: "a", step: &manifests.Step{}, plan: &PlanStep{Plugin: &PlanPlugin{Publisher: "acme", Name: fmt.Sprint("p", i)}}}
			r.enqueue(item{e: e, n: n, age: int64(j)})
			runs = append(runs, e)
			r.progs.put(fmt.Sprint("dag", i), &program{})
		}
		gates, plans, _, _ := r.Kept()
		if it := <-taken; gates != 2 || plans != 2 || len(taken) > 0 || it.e != runs[0] {
			t.Fatalf("%d gates, %d plans, %d taken", gates, plans, len(taken))
		}
		if i%2 == 0 { // the other one is ended where it waits
			runs[1].setEnded()
			r.drop(runs[1])
		}
		r.done(item{e: runs[0], n: &node{id: "a", plan: &PlanStep{Plugin: &PlanPlugin{Publisher: "acme", Name: fmt.Sprint("p", i)}}}}, false)
		if i%2 == 1 {
			r.done(<-taken, false)
			r.drop(runs[1])
		}
		r.drop(runs[0])
	}
	if gates, plans, lanes, programs := r.Kept(); gates != 0 || plans != 0 || lanes > 1 || programs > maxPrograms {
		t.Errorf("after %d DAGs: %d gates, %d plans, %d lanes, %d programs", dags, gates, plans, lanes, programs)
	}
}

// onePlan is sealed content of which there is one plan.
type onePlan struct{ Sealed }

func (onePlan) Read(string, int64) ([]byte, error) {
	return fmt.Appendf(nil, `{"schema":%q}`, PlanSchema), nil
}

// Many attempts ask for a plan that is read for the first time.
func TestAPlanIsReadForManyAtOnce(t *testing.T) {
	for range 50 {
		r := New(Options{Sealed: onePlan{}})
		r.plans["p"] = &usedPlan{runs: 1}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 4 {
					if p, err := r.planOf("p"); err != nil || p == nil {
						t.Errorf("planOf = %v, %v", p, err)
					}
				}
			})
		}
		all.Wait()
	}
}
