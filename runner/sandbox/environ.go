package sandbox

import (
	"path"
	"strconv"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner"
)

// environ is the whole environment of a program; nothing is inherited. base is
// the attempt's folder as the program sees it: the host's path, or "/" for a
// WebAssembly guest. now is the start, for the deadline.
func environ(t *runner.Task, base string, now time.Time) []string {
	env := []string{
		"PATH=/usr/bin:/bin",
		"HOME=" + path.Join(base, workDir),
		"TMPDIR=" + path.Join(base, tmpDir),
		"LANG=C.UTF-8",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(t.SourceDate.Unix(), 10),
		"STELLA_API=" + strconv.Itoa(plugin.API),
		"STELLA_RUN_ID=" + t.RunID,
		"STELLA_STEP_ID=" + t.StepID,
		"STELLA_ATTEMPT=" + strconv.Itoa(t.Attempt),
		"STELLA_IDEMPOTENCY_KEY=" + t.IdempotencyKey,
		"STELLA_INPUT=" + path.Join(base, inputFile),
		"STELLA_OUTPUT=" + path.Join(base, outputFile),
		"STELLA_WORKSPACE=" + path.Join(base, workDir),
		"STELLA_ARTIFACTS=" + path.Join(base, artifactsDir),
		"STELLA_SECRETS=" + path.Join(base, secretsDir),
		"STELLA_BUNDLE=" + path.Join(base, bundleDir),
	}
	if t.Timeout > 0 {
		env = append(env, "STELLA_DEADLINE="+stamp.Format(now.Add(t.Timeout)))
	}
	return env
}
