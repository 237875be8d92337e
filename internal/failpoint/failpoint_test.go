package failpoint_test

import (
	"slices"
	"testing"

	"github.com/stellarun/stella/internal/failpoint"
)

func TestNamesAreDistinct(t *testing.T) {
	names := failpoint.Names()
	slices.Sort(names)
	if got := slices.Compact(slices.Clone(names)); len(got) != len(names) || got[0] == "" {
		t.Errorf("Names holds an empty name or one twice: %q", names)
	}
}
