package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// world is a runner on a real store, with a fake executor and sealed content
// in memory.
type world struct {
	t      *testing.T
	home   string
	db     *store.DB
	sealed *memory
	exec   *fake
	r      *runner.Runner
	now    func() time.Time
}

// memory is sealed content in memory. Every plugin has the actions of plugin.
type memory struct {
	mu       sync.Mutex
	blobs    map[string][]byte
	plugin   *manifests.Bundle
	refused  error
	dags     map[string]*manifests.DAG // published, by id@version
	disabled map[string]bool
	judged   func(digest string) (ledger.TrustRef, error) // instead of refused; nil for none
	rotten   string                                       // digest of a blob that cannot be read
	gone     atomic.Bool                                  // manifests cannot be read
}

func (m *memory) Put(raw []byte) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := runner.Hash(raw)
	m.blobs[d] = bytes.Clone(raw)
	return d, nil
}

func (m *memory) PutFrom(r io.Reader, _ int64) (string, int64, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return "", 0, err
	}
	d, err := m.Put(raw)
	return d, int64(len(raw)), err
}

func (m *memory) Read(digest string, limit int64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	raw, ok := m.blobs[digest]
	switch {
	case !ok || digest == m.rotten:
		return nil, fmt.Errorf("no blob %s", digest)
	case limit > 0 && int64(len(raw)) > limit:
		return nil, fmt.Errorf("blob %s has more than %d bytes", digest, limit)
	}
	return raw, nil
}

func (m *memory) Open(digest string) (io.ReadCloser, error) {
	raw, err := m.Read(digest, 0)
	return io.NopCloser(bytes.NewReader(raw)), err
}

func (m *memory) Manifest(string) (*manifests.Bundle, error) {
	if m.gone.Load() {
		return nil, errors.New("its manifest is not here")
	}
	return m.plugin, nil
}

func (m *memory) Judge(digest string) (ledger.TrustRef, error) {
	if judged := m.judged; judged != nil {
		return judged(digest)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return ledger.TrustRef{}, m.refused
}

// refuse lets Judge refuse everything from now on.
func (m *memory) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = err
}

func (m *memory) Resolve(ref manifests.Ref, _ manifests.Kind) (string, *manifests.Bundle, error) {
	return strings.Repeat("1", 64), m.plugin, nil
}

func (m *memory) SubDAG(id, version string) (string, *manifests.DAG, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dags[id+"@"+version]
	if d == nil {
		return "", nil, fmt.Errorf("there is no %s@%s", id, version)
	}
	return dagDigest(d), d, nil
}

func (m *memory) DAG(digest string) (*manifests.DAG, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.dags {
		if dagDigest(d) == digest {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no DAG %s", digest)
}

func (m *memory) publish(d *manifests.DAG) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dags[d.ID+"@"+d.Version] = d
}

func (m *memory) Startable(id, version string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disabled[id+"@"+version] {
		return fmt.Errorf("%s@%s is disabled", id, version)
	}
	return nil
}

func (m *memory) Capacity(string) int64 { return 3 }

// dagDigest stands for the digest of a DAG's bundle.
func dagDigest(d *manifests.DAG) string { return runner.Hash(fmt.Append(nil, d.ID, "@", d.Version)) }

func (m *memory) HashHostFile(string) (string, error) { return strings.Repeat("2", 64), nil }

// fake executes by a function; it counts how many run at once.
type fake struct {
	mu   sync.Mutex
	now  int
	most int
	seen []string
	run  func(ctx context.Context, t runner.Task) (runner.Report, error)
}

func (f *fake) Tier() string { return "plain" }

// list is what was begun, while more may be.
func (f *fake) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// peak is how many ran at once.
func (f *fake) peak() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

func (f *fake) Execute(ctx context.Context, t runner.Task) (runner.Report, error) {
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.seen = append(f.seen, fmt.Sprintf("%s.%d", t.StepID, t.Attempt))
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	return f.run(ctx, t)
}

func exit(code int) runner.Report { return runner.Report{ExitCode: &code} }

func ok(context.Context, runner.Task) (runner.Report, error) { return exit(0), nil }

func newStore(home string, now func() time.Time) (*store.DB, error) {
	d := strings.Repeat("0", 64)
	return store.Create(home,
		ledger.SiteInit{SiteID: strings.Repeat("ab", 16), Keys: map[string]string{"log": "AA=="}, Root: d, Policy: d},
		ledger.TrustChange{Root: d, RootVersion: 1, Policy: d, PolicySerial: 1, Signatures: []string{}, Reason: "init"},
		"uid:0(root)", store.Options{Now: now})
}

func newMemory() *memory {
	return &memory{
		blobs: map[string][]byte{}, dags: map[string]*manifests.DAG{}, disabled: map[string]bool{},
		plugin: &manifests.Bundle{
			Kind: manifests.KindPlugin, Publisher: "p", Name: "n", Version: "1.0.0",
			Files: []manifests.File{{Path: "bin/x", SHA256: strings.Repeat("3", 64), Size: 1, Mode: "0755"}},
			Plugin: &manifests.Plugin{Runtime: manifests.RuntimeExec, Entry: map[string]string{"any": "bin/x"}, Actions: map[string]manifests.Action{
				"go": {Idempotent: true}, "once": {},
			}},
		},
	}
}

func newWorld(t *testing.T, run func(context.Context, runner.Task) (runner.Report, error)) *world {
	t.Helper()
	home := t.TempDir()
	for _, dir := range []string{"sealed/sha256", "quarantine", "cache", "runs", "logs"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	db, err := newStore(home, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, home: home, db: db, exec: &fake{run: run}, now: time.Now, sealed: newMemory()}
	w.r = w.runner(1)
	t.Cleanup(func() { // w.db may have been replaced by then
		if _, err := w.db.Check(context.Background(), store.CheckOptions{}); err != nil {
			t.Errorf("the store is damaged: %v", err)
		}
		w.db.Close()
	})
	return w
}

func (w *world) runner(workers int) *runner.Runner { return w.on(w.db, workers) }

// on makes a runner that works on a store of its own.
func (w *world) on(s runner.Store, workers int) *runner.Runner {
	return runner.New(runner.Options{
		Store: s, Sealed: w.sealed, Executor: w.exec, Now: w.now, Rand: func() float64 { return 0.5 }, Workers: workers,
		RunsDir: filepath.Join(w.home, "runs"), LogsDir: filepath.Join(w.home, "logs"), HMACKey: []byte("k"), Owner: "test",
	})
}

func (w *world) reopen() {
	w.t.Helper()
	w.db.Close()
	db, err := store.Open(w.home, store.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = db
	w.r = w.runner(1)
}

// dag makes a DAG of steps "id" or "id<need,need"; change adapts it.
func dag(change func(*manifests.DAG), steps ...string) *manifests.DAG {
	d := &manifests.DAG{ID: "d", Version: "1.0.0", FailFast: true}
	for _, s := range steps {
		id, needs, _ := strings.Cut(s, "<")
		st := manifests.Step{
			ID: id, Plugin: &manifests.Ref{Publisher: "p", Name: "n", Version: "1.0.0"}, Action: "go", Idempotent: true,
			MaxInterruptions: 3, Retry: manifests.Retry{MaxAttempts: 1, Backoff: time.Millisecond, MaxBackoff: time.Second},
		}
		if needs != "" {
			st.Needs = strings.Split(needs, ",")
		}
		d.Steps = append(d.Steps, st)
	}
	if change != nil {
		change(d)
	}
	return d
}

func (w *world) start(d *manifests.DAG, inputs string) state.Run {
	w.t.Helper()
	run, err := w.tryStart(d, inputs)
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

func (w *world) tryStart(d *manifests.DAG, inputs string) (state.Run, error) {
	w.sealed.publish(d)
	p, err := runner.NewPlan(d, dagDigest(d), w.sealed)
	if err != nil {
		return state.Run{}, err
	}
	return w.r.StartRun(context.Background(), runner.Start{
		Tenant: "default", Actor: "uid:0(root)", RunToken: runner.NewRunToken(time.Now()), TraceID: runner.NewTraceID(),
		DAG: d, Plan: p, Inputs: []byte(inputs),
	})
}

// finish runs until nothing is left and returns the run and its steps.
func (w *world) finish(id string) (state.Run, map[string]string) {
	w.t.Helper()
	if err := w.r.Run(context.Background(), true); err != nil {
		w.t.Fatal(err)
	}
	return w.look(id)
}

func (w *world) look(id string) (state.Run, map[string]string) {
	w.t.Helper()
	run, err := w.db.Run(id)
	if err != nil {
		w.t.Fatal(err)
	}
	steps, err := w.db.Steps(id)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, s := range steps {
		out[s.StepID] = string(s.Status)
		if code := s.ErrorCode + s.Reason; code != "" && s.Status != state.Completed {
			out[s.StepID] += " " + code
		}
	}
	return run, out
}

func TestOutcomesOfRuns(t *testing.T) {
	fail := func(ids ...string) func(context.Context, runner.Task) (runner.Report, error) {
		return func(_ context.Context, t runner.Task) (runner.Report, error) {
			if slices.Contains(ids, t.StepID) {
				return exit(1), nil
			}
			return exit(0), nil
		}
	}
	for _, c := range []struct {
		name  string
		dag   *manifests.DAG
		run   func(context.Context, runner.Task) (runner.Report, error)
		want  state.Status
		why   string
		steps map[string]string
		order []string
	}{
		{
			name: "a chain completes in order", dag: dag(nil, "c<b", "b<a", "a"), run: ok,
			want: state.Completed, steps: map[string]string{"a": "completed", "b": "completed", "c": "completed"},
			order: []string{"a.1", "b.1", "c.1"},
		},
		{
			name: "ties go by step id", dag: dag(nil, "b", "a", "d<a", "c<b"), run: ok,
			want: state.Completed, order: []string{"a.1", "b.1", "c.1", "d.1"},
			steps: map[string]string{"a": "completed", "b": "completed", "c": "completed", "d": "completed"},
		},
		{
			name: "with fail_fast a failure ends the run and starts nothing more",
			dag:  dag(nil, "a", "b", "c<a"), run: fail("a"), want: state.Failed, why: "STEP_FAILED",
			steps: map[string]string{"a": "failed STEP_FAILED", "b": "skipped RUN_FAILING", "c": "skipped UPSTREAM_FAILED"},
			order: []string{"a.1"},
		},
		{
			name: "without fail_fast the other branches go on",
			dag:  dag(func(d *manifests.DAG) { d.FailFast = false }, "a", "b", "c<a", "d<b"), run: fail("a"),
			want: state.Failed, why: "STEP_FAILED",
			steps: map[string]string{"a": "failed STEP_FAILED", "b": "completed", "c": "skipped UPSTREAM_FAILED", "d": "completed"},
		},
		{
			name: "continue_on_error satisfies the need of others",
			dag:  dag(func(d *manifests.DAG) { d.Steps[0].ContinueOnError = true }, "a", "b<a"), run: fail("a"),
			want: state.Completed, steps: map[string]string{"a": "failed STEP_FAILED", "b": "completed"},
		},
		{
			name: "a false condition and disabled satisfy, and are recorded",
			dag: dag(func(d *manifests.DAG) {
				d.Steps[0].When = "1 == 2"
				d.Steps[1].Disabled = true
			}, "a", "b", "c<a,b"), run: ok,
			want: state.Completed, steps: map[string]string{"a": "skipped CONDITION_FALSE", "b": "skipped DISABLED", "c": "completed"},
		},
		{
			name: "a condition that is no condition fails the step",
			dag:  dag(func(d *manifests.DAG) { d.Steps[0].When = "1 + 1" }, "a"), run: ok,
			want: state.Failed, why: "EXPRESSION_INVALID", steps: map[string]string{"a": "failed EXPRESSION_INVALIDwhen: it gives a value of type integer"},
		},
		{
			name: "on_failure runs after the failure, and the run fails",
			dag: dag(func(d *manifests.DAG) {
				d.OnFailure = dag(nil, "tidy").Steps
			}, "a"), run: fail("a"), want: state.Failed, why: "STEP_FAILED",
			steps: map[string]string{"a": "failed STEP_FAILED", "tidy": "completed"}, order: []string{"a.1", "tidy.1"},
		},
		{
			name: "a run without failure leaves on_failure alone",
			dag:  dag(func(d *manifests.DAG) { d.OnFailure = dag(nil, "tidy").Steps }, "a"), run: ok,
			want: state.Completed, steps: map[string]string{"a": "completed"},
		},
		{
			name: "a retry is counted and may succeed",
			dag:  dag(func(d *manifests.DAG) { d.Steps[0].Retry.MaxAttempts = 3 }, "a"),
			run: func(_ context.Context, t runner.Task) (runner.Report, error) {
				return exit(map[int]int{1: 1, 2: 75, 3: 0}[t.Attempt]), nil
			},
			want: state.Completed, steps: map[string]string{"a": "completed"}, order: []string{"a.1", "a.2", "a.3"},
		},
		{
			name: "retry_on narrows what is tried again",
			dag: dag(func(d *manifests.DAG) {
				d.Steps[0].Retry.MaxAttempts = 3
				d.Steps[0].Retry.RetryOn = []string{"TIMEOUT"}
			}, "a"), run: fail("a"), want: state.Failed, why: "STEP_FAILED",
			steps: map[string]string{"a": "failed STEP_FAILED"}, order: []string{"a.1"},
		},
		{
			name: "a rejected step is never tried again",
			dag:  dag(func(d *manifests.DAG) { d.Steps[0].Retry.MaxAttempts = 3 }, "a"),
			run:  func(context.Context, runner.Task) (runner.Report, error) { return exit(65), nil },
			want: state.Failed, why: "STEP_REJECTED", steps: map[string]string{"a": "failed STEP_REJECTED"}, order: []string{"a.1"},
		},
		{
			name: "a fault of ours is tried again on its own count", dag: dag(nil, "a"),
			run: func(_ context.Context, t runner.Task) (runner.Report, error) {
				if t.Attempt == 1 {
					return runner.Report{}, errors.New("no memory for a pipe")
				}
				return exit(0), nil
			},
			want: state.Completed, steps: map[string]string{"a": "completed"}, order: []string{"a.1", "a.2"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.run)
			run := w.start(c.dag, "{}")
			got, steps := w.finish(run.RunID)
			if got.Status != c.want || got.FailureReason != c.why {
				t.Errorf("the run is %s %q, want %s %q", got.Status, got.FailureReason, c.want, c.why)
			}
			if diff := cmp.Diff(c.steps, steps); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if c.order != nil && !slices.Equal(w.exec.seen, c.order) {
				t.Errorf("executed %v, want %v", w.exec.seen, c.order)
			}
		})
	}
}

func TestOutputsAndArtifactsReachLaterSteps(t *testing.T) {
	var request []byte
	var files []runner.Placed
	w := newWorld(t, func(_ context.Context, t runner.Task) (runner.Report, error) {
		if t.StepID == "b" {
			request, files = t.Request, t.Files
			return exit(0), nil
		}
		r := exit(0)
		r.Output.Values = map[string]json.RawMessage{"n": json.RawMessage("3")}
		r.Output.Artifacts = []runner.ArtifactFile{{Name: "sbom", MediaType: "text/plain", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("hello")), nil
		}}}
		return r, nil
	})
	d := dag(func(d *manifests.DAG) {
		d.Inputs = map[string]manifests.Input{"who": {Type: "string", Default: "you"}}
		d.Steps[1].With = map[string]any{
			"text": "n is ${ steps.a.outputs.n + 1 } for ${ inputs.who }", "file": "${ steps.a.artifacts.sbom }",
			"list":   []any{"${ inputs.who }", int64(1)},
			"forged": map[string]any{"name": "x", "sha256": strings.Repeat("5", 64), "size": int64(1), "mediaType": ""},
		}
		d.Outputs = map[string]any{"total": "${ steps.a.outputs.n * 2 }"}
	}, "a", "b<a")
	run := w.start(d, `{"who":"me"}`)
	got, _ := w.finish(run.RunID)
	if got.Status != state.Completed {
		t.Fatalf("the run is %s %s", got.Status, got.FailureReason)
	}
	out, err := w.sealed.Read(got.OutputsHash, 0)
	if err != nil || string(out) != `{"total":6}` {
		t.Errorf("outputs %s, %v", out, err)
	}
	sum := runner.Hash([]byte("hello"))
	for _, want := range []string{`"text":"n is 4 for me"`, `"list":["me",1]`, `"sha256":"` + sum + `"`, `"inputs":{"` + sum + `":{`} {
		if !bytes.Contains(request, []byte(want)) {
			t.Errorf("the request lacks %s:\n%s", want, request)
		}
	}
	if len(files) != 1 || files[0].Path != "inputs/"+sum {
		t.Errorf("files placed: %+v; a forged artifact must place none", files)
	}
}

func TestParallelismIsLimited(t *testing.T) {
	release := make(chan struct{})
	started := make(chan struct{}, 16)
	w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
		started <- struct{}{}
		<-release
		return exit(0), nil
	})
	w.r = w.runner(8)
	d := dag(func(d *manifests.DAG) { d.MaxParallelSteps = 3 }, "a", "b", "c", "d", "e", "f")
	run := w.start(d, "{}")
	go func() {
		for range 3 {
			<-started
		}
		close(release)
	}()
	got, _ := w.finish(run.RunID)
	if got.Status != state.Completed || w.exec.most != 3 {
		t.Errorf("the run is %s, %d steps ran at once; want 3", got.Status, w.exec.most)
	}
}

func TestCancel(t *testing.T) {
	started := make(chan struct{})
	w := newWorld(t, func(ctx context.Context, t runner.Task) (runner.Report, error) {
		if t.StepID == "tidy" {
			return exit(0), nil
		}
		close(started)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), runner.ErrCancelled) {
			return runner.Report{}, fmt.Errorf("cause %v", context.Cause(ctx))
		}
		return runner.Report{Stop: runner.StopCancel}, nil
	})
	d := dag(func(d *manifests.DAG) { d.OnCancel = dag(nil, "tidy").Steps }, "a", "b<a", "c")
	run := w.start(d, "{}")
	go func() {
		<-started
		if _, err := w.r.Cancel("uid:7", "enough", w.opened(run, d)); err != nil {
			t.Error(err)
		}
	}()
	got, steps := w.finish(run.RunID)
	if got.Status != state.Cancelled || got.CancelledBy != "uid:7" || got.CancelReason != "enough" {
		t.Errorf("the run is %+v", got)
	}
	want := map[string]string{
		"a": "cancelled RUN_CANCELLED", "b": "cancelled RUN_CANCELLED", "c": "cancelled RUN_CANCELLED", "tidy": "completed",
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if _, err := w.r.Cancel("uid:7", "again", w.opened(got, d)); err != nil {
		t.Errorf("cancelling what is cancelled: %v", err)
	}
}

func (w *world) opened(run state.Run, d *manifests.DAG) runner.Opened {
	w.t.Helper()
	raw, err := w.sealed.Read(run.PlanHash, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := runner.DecodePlan(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	inputs, err := w.sealed.Read(run.InputsHash, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return runner.Opened{Run: run, DAG: d, Plan: p, Inputs: inputs}
}

// A crash leaves an open attempt. The next open interrupts it at once, and the
// run goes on from there, or does not where that could do something twice.
func TestRecoveryAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*manifests.DAG)
		want   map[string]string
		status state.Status
		again  []string
	}{
		{"an idempotent step is started again", nil, map[string]string{"a": "completed", "b": "completed"}, state.Completed, []string{"a.2", "b.1"}},
		{
			"one that is not waits for a person", func(d *manifests.DAG) { d.Steps[0].Action = "once" },
			map[string]string{"a": "failed INDETERMINATE", "b": "skipped UPSTREAM_FAILED"}, state.Failed, nil,
		},
		{
			"continue_on_error does not hide it", func(d *manifests.DAG) { d.Steps[0].Action = "once"; d.Steps[0].ContinueOnError = true },
			map[string]string{"a": "failed INDETERMINATE", "b": "skipped UPSTREAM_FAILED"}, state.Failed, nil,
		},
		{
			"a poison pill is not started again", func(d *manifests.DAG) { d.Steps[0].MaxInterruptions = 0 },
			map[string]string{"a": "failed POISON_PILL", "b": "skipped UPSTREAM_FAILED"}, state.Failed, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, crash := context.WithCancel(context.Background())
			defer crash()
			stuck := make(chan struct{})
			w := newWorld(t, func(context.Context, runner.Task) (runner.Report, error) {
				close(stuck)
				select {} // until the process is gone, which a closed store stands for
			})
			d := dag(c.change, "a", "b<a")
			run := w.start(d, "{}")
			go w.r.Run(ctx, true) // never returns: its attempt never ends
			<-stuck
			w.exec = &fake{run: ok}
			w.reopen()
			run, err := w.db.Run(run.RunID)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := w.r.Recover(context.Background(), w.opened(run, d)); n != 1 || err != nil {
				t.Fatalf("Recover = %d, %v", n, err)
			}
			a, err := w.db.Attempt(run.RunID, "a", 1)
			if err != nil || a.End == nil || a.End.Outcome != string(state.Interrupted) {
				t.Errorf("attempt 1 is %+v, %v", a, err)
			}
			if run, _ = w.db.Run(run.RunID); !run.Status.Ended() {
				if err := w.r.Resume(context.Background(), "uid:0", w.opened(run, d)); err != nil {
					t.Fatal(err)
				}
			}
			got, steps := w.finish(run.RunID)
			if got.Status != c.status {
				t.Errorf("the run is %s, want %s", got.Status, c.status)
			}
			if diff := cmp.Diff(c.want, steps); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if !slices.Equal(w.exec.seen, c.again) {
				t.Errorf("executed after the crash: %v, want %v", w.exec.seen, c.again)
			}
		})
	}
}

// Being shut down is not failure: the attempt is interrupted and the run goes
// on elsewhere.
func TestShutdownInterrupts(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w := newWorld(t, func(ctx context.Context, _ runner.Task) (runner.Report, error) {
		cancel()
		<-ctx.Done()
		return runner.Report{Stop: runner.StopShutdown}, nil
	})
	cancelled := cancel
	cancel = func() { cancelled() }
	run := w.start(dag(nil, "a"), "{}")
	if err := w.r.Run(ctx, true); err != nil {
		t.Fatal(err)
	}
	got, steps := w.look(run.RunID)
	if got.Status != state.Running || steps["a"] != "queued" {
		t.Errorf("the run is %s, its step %s", got.Status, steps["a"])
	}
	if _, err := w.tryStart(dag(nil, "a"), "{}"); !errors.Is(err, runner.ErrStopping) {
		t.Errorf("a start after the end: %v, want ErrStopping", err)
	}
}

func TestInputsAreCheckedAndNeverCoerced(t *testing.T) {
	d := dag(func(d *manifests.DAG) {
		d.Inputs = map[string]manifests.Input{
			"n": {Type: "integer", Required: true}, "color": {Type: "string", Enum: []any{"red", "blue"}}, "id": {Type: "string", Pattern: "[a-z]+"},
		}
	}, "a")
	for inputs, want := range map[string]string{
		`{"n":5}`:                  "",
		`{}`:                       "required",
		`{"n":"5"}`:                "integer is wanted",
		`{"n":5,"color":"green"}`:  "not one of",
		`{"n":5,"id":"a1"}`:        "does not match",
		`{"n":5,"other":1}`:        "no such input",
		`{"n":5,"color":"red"}`:    "",
		`{"n":1.5}`:                "integer is wanted",
		`{"n":null}`:               "integer is wanted",
		`{"n":5,"id":{"a":[1,2]}}`: "string is wanted",
	} {
		w := newWorld(t, ok)
		_, err := w.tryStart(d, inputs)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("inputs %s: %v, want %q", inputs, err, want)
		}
		if err != nil && w.db.Size() != 2 {
			t.Errorf("inputs %s: refused, and yet %d entries", inputs, w.db.Size())
		}
	}
}

func TestTrustThatNoLongerAllowsRejectsTheAttempt(t *testing.T) {
	w := newWorld(t, ok)
	run := w.start(dag(nil, "a"), "{}")
	w.sealed.refused = reason("REVOKED")
	got, steps := w.finish(run.RunID)
	if got.Status != state.Failed || steps["a"] != "failed REVOKED" || len(w.exec.seen) != 0 {
		t.Errorf("the run is %s, step %q, executed %v", got.Status, steps["a"], w.exec.seen)
	}
}

type reason string

func (r reason) Error() string  { return "refused: " + string(r) }
func (r reason) Reason() string { return string(r) }

func TestPlanIsStable(t *testing.T) {
	w := newWorld(t, ok)
	a, err := runner.NewPlan(dag(nil, "a", "b<a"), strings.Repeat("4", 64), w.sealed)
	if err != nil {
		t.Fatal(err)
	}
	b, err := runner.NewPlan(dag(nil, "b<a", "a"), strings.Repeat("4", 64), w.sealed)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := a.Encode()
	y, _ := b.Encode()
	if !bytes.Equal(x, y) {
		t.Errorf("the order of the file changes the plan:\n%s\n%s", x, y)
	}
}

func TestUnsupportedAndBadExpressionsAreRefused(t *testing.T) {
	d := dag(func(d *manifests.DAG) {
		d.Steps[0].Require = []string{"no_network"}
		d.Steps[0].When = "steps.b.outputs.x == 1"
		d.Steps[1].When = "inputs."
		d.Steps[1].With = map[string]any{"x": "${ nope }"}
		d.Outputs = map[string]any{"y": "${ steps.zz.outputs.y }"}
	}, "a", "b<a")
	got := map[string]bool{}
	for _, f := range runner.Validate(d) {
		got[f.Key] = true
	}
	want := map[string]bool{"step a when": true, "step b when": true, "step b with.x": true, "outputs.y": true, "step a require": true}
	if !maps.Equal(got, want) {
		t.Errorf("faults at %v, want %v", got, want)
	}
}
