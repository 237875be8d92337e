package initproc

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestSpecsComeBackAsTheyWere(t *testing.T) {
	for _, s := range []Spec{
		{},
		{Args: []string{"a", "", "ü"}, Env: []string{"A=B"}, Dir: "/", Files: []int{2, 1},
			Rlimits: []Rlimit{{4, 0}, {2, 1 << 40}}},
	} {
		raw, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if n := int(u32(raw[1:])); n != len(raw)-SpecHead {
			t.Errorf("length %d of %d bytes", n, len(raw))
		}
		got, err := DecodeSpec(raw[SpecHead:])
		if err != nil || !reflect.DeepEqual(*got, s) {
			t.Errorf("%+v, %v, want %+v", got, err, s)
		}
	}
	if _, err := (&Spec{Dir: strings.Repeat("x", MaxSpec)}).Encode(); err != ErrSpecTooLarge {
		t.Errorf("a spec beyond the limit: %v", err)
	}
}

// FuzzSpec: what is accepted encodes to the same bytes.
func FuzzSpec(f *testing.F) {
	raw, err := (&Spec{Args: []string{"a"}, Files: []int{1}, Rlimits: []Rlimit{{1, 2}}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[SpecHead:])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := DecodeSpec(raw)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil || !bytes.Equal(again[SpecHead:], raw) {
			t.Errorf("%q became %q, %v", raw, again, err)
		}
	})
}

func TestStatusesComeBackAsTheyWere(t *testing.T) {
	want := Status{
		Kind: Ended, Stage: StageFork, Errno: 1, PID: 2, Wait: 3, Killed: 4, Survivors: 5,
		UserUs: 1 << 40, SystemUs: 7, MaxRSS: 8,
	}
	raw := want.Encode()
	if got, ok := DecodeStatus(raw); !ok || got != want {
		t.Errorf("%+v, %v, want %+v", got, ok, want)
	}
	if _, ok := DecodeStatus(raw[1:]); ok {
		t.Error("a short record was accepted")
	}
}

func TestStatLines(t *testing.T) {
	line := func(name string) string {
		return "17 (" + name + ") S 3 17 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99887766 1024 0\n"
	}
	want := Process{PID: 17, Parent: 3, Session: 5, State: 'S', Start: 99887766}
	for _, name := range []string{"sleep", "a b", "x) R 1 1 1", "", ")"} {
		if got, ok := parseStat([]byte(line(name))); !ok || got != want {
			t.Errorf("name %q: %+v, %v", name, got, ok)
		}
	}
	for _, s := range []string{"", "17", "17 (x)", "17 (x) S 3", "x (x) S 3 17 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5"} {
		if got, ok := parseStat([]byte(s)); ok {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

func TestProcessesShowsThisOne(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	list := descendants(os.Getpid())
	if len(list) != 1 || list[0].PID != c.Process.Pid || list[0].Parent != os.Getpid() {
		t.Fatalf("descendants %+v, want only %d", list, c.Process.Pid)
	}
	// A process of another age with this number is left alone.
	other := list[0]
	other.Start++
	if Kill(other) {
		t.Error("a process was killed that was not meant")
	}
	if !Kill(list[0]) {
		t.Error("the process was not found")
	}
	c.Wait()
	if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", c.ProcessState)
	}
}

// TestImportsStayLight: see the package comment.
func TestImportsStayLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{join .Imports \" \"}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(out)), "errors os os/signal runtime syscall time unsafe"; got != want {
		t.Errorf("imports %s, want %s", got, want)
	}
}
