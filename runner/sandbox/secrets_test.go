package sandbox_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/sandbox"
	"github.com/stellarun/stella/telemetry"
)

func give(t *testing.T, task *runner.Task, name, value string) {
	t.Helper()
	var err error
	if task.Redact, err = telemetry.NewRedactor([]byte("k"), []telemetry.Secret{{Name: name, Value: []byte(value)}}); err != nil {
		t.Fatal(err)
	}
	task.Secrets = []runner.SecretFile{{Name: name, Value: []byte(value)}}
}

// TestASecretLivesAsLongAsItsAttempt: as a file that only its owner reads, gone
// afterwards wherever the program has moved it, and masked in what it writes.
func TestASecretLivesAsLongAsItsAttempt(t *testing.T) {
	task, rec := task(t)
	give(t, &task, "db", "hunter2+hunter2")
	shell(t, &task, `stat -c '%a %n' "$STELLA_SECRETS" "$STELLA_SECRETS/db" | sed 's,/.*/,,'
printf 'a hunter2+'; echo hunter2 b
echo hunter2+
echo hunter2
cat "$STELLA_SECRETS/db" >&2
mv "$STELLA_SECRETS/db" moved; rm -r "$STELLA_SECRETS"; mkdir "$STELLA_SECRETS"; cp moved "$STELLA_SECRETS/other"; chmod 0 "$STELLA_SECRETS"`)
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	marker := task.Redact.Text("hunter2+hunter2")
	if got, want := rec.stdout(), "700 secrets\n400 db\na "+marker+" b\n"+marker+"\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got := strings.Join(rec.lines["stderr"], "\n"); got != marker {
		t.Errorf("stderr %q", got)
	}
	if raw, err := os.ReadFile(filepath.Join(task.Dir, "work", "moved")); err != nil || strings.Trim(string(raw), "\x00") != "" {
		t.Errorf("what was moved holds %q, %v", raw, err)
	}
	if _, err := os.Stat(filepath.Join(task.Dir, "secrets")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
}

// TestACapDoesNotCutASecret: the lines are masked before any is dropped.
func TestACapDoesNotCutASecret(t *testing.T) {
	task, rec := task(t)
	give(t, &task, "db", "hunter2+hunter2")
	task.Limits.Log = 100
	shell(t, &task, `for i in 1 2 3 4 5 6 7 8 9; do echo "$i hunter2+"; echo "hunter2 $i"; done; printf hunter2+hun`)
	exited(t, execute(t, task), 0, rec)
	if got := strings.Join(rec.order, "\n"); strings.Contains(got, "hunter2") || strings.Contains(got, "+hun") {
		t.Errorf("output %q", got)
	}
}

func TestASecretThatWasNotHandedOverIsRemoved(t *testing.T) {
	task, _ := task(t)
	give(t, &task, "db", "hunter2+hunter2")
	task.Secrets = append(task.Secrets, task.Secrets[0]) // twice: the second cannot be made
	if _, err := sandbox.New(sandbox.Options{}).Execute(t.Context(), task); err == nil {
		t.Error("it ran")
	}
	if _, err := os.Stat(filepath.Join(task.Dir, "secrets")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
	task.Redact = nil
	if _, err := sandbox.New(sandbox.Options{}).Execute(t.Context(), task); err == nil || !strings.Contains(err.Error(), "redactor") {
		t.Errorf("without a redactor: %v", err)
	}
}
