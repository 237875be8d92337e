package export

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Between the look at a name and its taking somebody else may come: theirs stays, unless it was
// to be replaced.
func TestTheLastStepReplacesNothingUnasked(t *testing.T) {
	for _, force := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "a.tar")
		o, err := NewOutput(path, OutputOptions{Force: force})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(o.Finish(), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{false: "mine", true: "new"}[force]
		if err := o.place(1); errors.Is(err, fs.ErrExist) == force {
			t.Errorf("force %v: %v", force, err)
		}
		if raw, err := os.ReadFile(path); err != nil || string(raw) != want {
			t.Errorf("force %v: %q, %v", force, raw, err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
}
