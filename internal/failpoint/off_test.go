//go:build !failpoint

package failpoint_test

import (
	"testing"

	"github.com/stellarun/stella/internal/failpoint"
)

func TestNormalBuildsIgnoreTheEnvironment(t *testing.T) {
	t.Setenv(failpoint.Env, failpoint.FSXWrite+"=error")
	if err := failpoint.Hit(failpoint.FSXWrite); err != nil {
		t.Errorf("Hit = %v", err)
	}
}
