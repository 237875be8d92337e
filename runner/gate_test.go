package runner_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
)

// A weight that needs the whole of a semaphore is not overtaken by light ones that
// come later.
func TestAHeavyWeightIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var order []string
		w.exec.run = func(_ context.Context, task runner.Task) (runner.Report, error) {
			w.exec.mu.Lock()
			order = append(order, task.StepID)
			w.exec.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			return exit(0), nil
		}
		w.with(func(o *runner.Options) { o.Workers, o.Semaphores = 8, map[string]int64{"s": 3} })
		n := 0
		start := func(name string, weight int64) {
			n++
			w.startIn("default", 0, dag(func(d *manifests.DAG) {
				d.Version = fmt.Sprintf("1.%d.0", n)
				d.Steps[0].Semaphores = map[string]int64{"s": weight}
			}, name))
		}
		start("light1", 1)
		start("light2", 1)
		done := make(chan error)
		go func() { done <- w.r.Run(context.Background(), true) }()
		synctest.Wait()
		start("heavy", 3)
		for i := range 20 {
			time.Sleep(3 * time.Millisecond)
			start(fmt.Sprintf("later%d", i), 1)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if at := slices.Index(order, "heavy"); at != 2 {
			t.Errorf("the heavy one came at place %d of %v, want 2", at, order)
		}
	})
}

func TestAWeightThatTheSiteDoesNotHaveAnyMoreHoldsUpNobody(t *testing.T) {
	w := newWorld(t, ok)
	w.with(func(o *runner.Options) { o.Semaphores = map[string]int64{"s": 1} })
	heavy := w.startIn("default", 0, dag(func(d *manifests.DAG) { d.Steps[0].Semaphores = map[string]int64{"s": 2} }, "a"))
	light := w.startIn("default", 0, dag(func(d *manifests.DAG) {
		d.Version, d.Steps[0].Semaphores = "1.1.0", map[string]int64{"s": 1}
	}, "a"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.r.Run(ctx, false) }()
	w.wait(light.RunID)
	if got := w.r.Waits(heavy.RunID, "a"); got != "semaphore s: it wants 2, and site.toml gives 1" {
		t.Errorf("the heavy one waits for %q", got)
	}
	if _, err := w.r.Cancel("uid:7", "", w.opened(heavy, w.sealed.dags["d@1.0.0"])); err != nil {
		t.Fatal(err)
	}
	w.wait(heavy.RunID)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What waits behind a heavy weight need not wait for it when it goes away.
func TestARunThatEndsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
			time.Sleep(time.Hour)
			return exit(0), nil
		})
		w.with(func(o *runner.Options) { o.Workers, o.Semaphores = 8, map[string]int64{"s": 3} })
		begun := time.Now()
		start := func(version string, weight int64) state.Run {
			return w.startIn("default", 0, dag(func(d *manifests.DAG) {
				d.Version, d.Steps[0].Semaphores = version, map[string]int64{"s": weight}
			}, "a"))
		}
		start("1.0.0", 1)
		done := make(chan error)
		go func() { done <- w.r.Run(context.Background(), true) }()
		synctest.Wait()
		heavy, light := start("1.1.0", 3), start("1.2.0", 1)
		time.Sleep(time.Minute)
		if _, err := w.r.Cancel("uid:7", "", w.opened(heavy, w.sealed.dags["d@1.1.0"])); err != nil {
			t.Fatal(err)
		}
		w.wait(light.RunID)
		if took := time.Since(begun); took != time.Hour+time.Minute {
			t.Errorf("the light one had ended after %s", took)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
