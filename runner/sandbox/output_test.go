package sandbox_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner"
)

func TestOutputOfAProgram(t *testing.T) {
	task, rec := task(t, "output",
		`{"output":{"b":{"z":1,"a":[true,null]}}}`,
		`{"progress":0.5,"message":"half"}`,
		`{"artifact":{"name":"report.json","mediaType":"application/json"}}`,
		`{"output":{"a":"x"}}`)
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	want := map[string]json.RawMessage{"a": json.RawMessage(`"x"`), "b": json.RawMessage(`{"a":[true,null],"z":1}`)}
	if diff := cmp.Diff(want, rep.Output.Values); diff != "" || rep.Output.Fault != "" || rep.Output.Truncated {
		t.Errorf("values (-want +got)\n%s\nfault %q, truncated %v", diff, rep.Output.Fault, rep.Output.Truncated)
	}
	if a := rep.Output.Artifacts; len(a) != 1 || a[0].Name != "report.json" || a[0].MediaType != "application/json" {
		t.Errorf("artifacts %+v", a)
	}
}

func TestAnErrorLineIsReportedWithTheExitCode(t *testing.T) {
	task, rec := task(t)
	shell(t, &task, `echo '{"error":{"code":"BUSY","message":"later","retryable":true,"retryAfterMs":1500}}' >> "$STELLA_OUTPUT"; exit 75`)
	rep := execute(t, task)
	exited(t, rep, 75, rec)
	want := &runner.PluginError{Code: "BUSY", Message: "later", Retryable: true, RetryAfterMs: 1500}
	if diff := cmp.Diff(want, rep.Output.Error); diff != "" {
		t.Error(diff)
	}
}

func TestReplacingTheOutputFileIsAFault(t *testing.T) {
	for _, how := range []string{"file", "link", "fifo", "nothing"} {
		t.Run(how, func(t *testing.T) {
			task, rec := task(t, "replace-output", how)
			rep := execute(t, task)
			exited(t, rep, 0, rec)
			if rep.Output.Fault == "" || rep.Output.Values != nil {
				t.Errorf("fault %q, values %v", rep.Output.Fault, rep.Output.Values)
			}
		})
	}
}

func TestTooMuchOutputIsAResourceLimit(t *testing.T) {
	for name, args := range map[string][]string{
		"at the end":         {"grow-output", strconv.Itoa(plugin.MaxOutput + 1)},
		"while it runs on":   {"grow-output", strconv.Itoa(plugin.MaxOutput + 1), "wait"},
		"one value":          {"output", `{"output":{"k":"` + strings.Repeat("v", plugin.MaxValue) + `"}}`},
		"too many keys":      {"output", manyKeys(plugin.MaxKeys + 1)},
		"too many artifacts": {"output", manyArtifacts(plugin.MaxArtifacts + 1)},
	} {
		t.Run(name, func(t *testing.T) {
			task, _ := task(t, args...)
			rep := execute(t, task)
			if rep.Stop != runner.StopResource || rep.Detail == "" || rep.Output.Values != nil || rep.Output.Fault != "" {
				t.Errorf("stop %q (%s), fault %q", rep.Stop, rep.Detail, rep.Output.Fault)
			}
		})
	}
}

func manyKeys(n int) string {
	keys := make(map[string]int, n)
	for i := range n {
		keys[fmt.Sprintf("k%d", i)] = i
	}
	raw, _ := json.Marshal(map[string]any{"output": keys})
	return string(raw)
}

func manyArtifacts(n int) string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf(`{"artifact":{"name":"a%d"}}`, i))
	}
	return strings.Join(lines, "\n")
}

func TestArtifactsAreRegularFilesWithOneName(t *testing.T) {
	task, rec := task(t, "artifacts")
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	want := map[string]bool{"dir/good": true, "sparse": true}
	got := make(map[string]bool)
	for _, a := range rep.Output.Artifacts {
		got[a.Name] = false
		r, err := a.Open() // must not wait for the named pipe
		if err != nil {
			t.Logf("%s: %v", a.Name, err)
			delete(got, a.Name)
			continue
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(r, head); err != nil || a.Name == "dir/good" && string(head) != "good" {
			t.Errorf("%s: read %q, %v", a.Name, head, err)
		}
		got[a.Name] = true
		r.Close()
	}
	if len(rep.Output.Artifacts) != 9 {
		t.Errorf("%d artifacts announced, want 9", len(rep.Output.Artifacts))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("opened (-want +got)\n%s", diff)
	}
}

func TestTheArtifactsFolderCannotBeExchanged(t *testing.T) {
	task, rec := task(t)
	shell(t, &task, `mv ../artifacts ../old; mkdir ../artifacts; echo foreign > ../artifacts/x
echo '{"artifact":{"name":"x"}}' >> "$STELLA_OUTPUT"`)
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	if len(rep.Output.Artifacts) != 1 {
		t.Fatalf("artifacts %v, fault %q", rep.Output.Artifacts, rep.Output.Fault)
	}
	if r, err := rep.Output.Artifacts[0].Open(); err == nil {
		r.Close()
		t.Error("a file of the exchanged folder was opened")
	}
}

// TestProgressIsFollowedWhileItRuns: the program goes on only once its first
// line was passed on.
func TestProgressIsFollowedWhileItRuns(t *testing.T) {
	task, rec := task(t, "progress")
	type step struct {
		Fraction float64
		Message  string
	}
	var got []step
	task.Progress = func(f float64, m string) {
		if got = append(got, step{f, m}); len(got) == 1 {
			f, err := os.OpenFile(filepath.Join(task.Dir, "work", "go-on"), os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		}
	}
	task.Timeout = 30 * time.Second
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	if diff := cmp.Diff([]step{{0.25, "a quarter"}, {1, ""}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if string(rep.Output.Values["done"]) != "true" {
		t.Errorf("values %v", rep.Output.Values)
	}
}

func TestTheWorkspaceIsBounded(t *testing.T) {
	for name, args := range map[string][]string{
		"while it runs on": {"fill", strconv.Itoa(8 << 20), "wait"},
		"at the end":       {"fill", strconv.Itoa(8 << 20)},
		"by one file":      {"big-file", strconv.Itoa(8 << 20)},
	} {
		t.Run(name, func(t *testing.T) {
			task, rec := task(t, args...)
			task.Limits.Workspace = 4 << 20
			rep := execute(t, task)
			if args[0] == "big-file" { // it may be stopped before it says "file too large"
				fi, err := os.Stat(filepath.Join(task.Dir, "work", "big"))
				if err != nil || fi.Size() != task.Limits.Workspace {
					t.Errorf("writing one file: %v, %v; %q", fi, err, rec.stdout())
				}
			}
			if rep.Stop != runner.StopResource || !strings.Contains(rep.Detail, "workspace") {
				t.Errorf("stop %q (%s)", rep.Stop, rep.Detail)
			}
		})
	}
}
