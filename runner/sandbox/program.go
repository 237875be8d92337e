package sandbox

import (
	"math"
	"os"
	"strconv"
	"syscall"

	"a.stella/initproc"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// Limits of every program.
const (
	maxFiles = 4096 // open descriptors
	// wasmSlack is what the WebAssembly runtime may take besides the guest's
	// memory and what it needs for each byte of a module: compiling takes
	// about 35.
	wasmSlack       = 384 << 20
	wasmDataPerByte = 64
)

// spec says what the init process executes for this task. files are the open
// files that it is handed, the program first.
func (s *Sandbox) spec(t *runner.Task, p *prepared, wasm []*os.File) (spec initproc.Spec, files []*os.File) {
	now := s.now()
	switch {
	case t.Runtime == manifests.RuntimeWASM:
		status, self := wasm[0], wasm[1]
		files = []*os.File{self, p.entry, status}
		spec = initproc.Spec{
			Args:  append([]string{wasmMarker, t.Determinism, strconv.FormatInt(wasmMemory(t), 10)}, t.Args...),
			Env:   environ(t, "/", now),
			Dir:   t.Dir,
			Files: []int{1, 2}, // wasmModuleFD, wasmStatusFD
		}
	case p.interpreter != nil:
		// The interpreter reads the script through descriptor 3, the only one
		// that a program of ours has besides 0, 1 and 2.
		files = []*os.File{p.interpreter, p.entry}
		spec = initproc.Spec{
			Args:  append([]string{t.Interpreter.Path, fdPath(3)}, t.Args...),
			Env:   environ(t, t.Dir, now),
			Dir:   t.Dir + "/" + workDir,
			Files: []int{1},
		}
	default:
		files = []*os.File{p.entry}
		spec = initproc.Spec{
			Args: append([]string{"plugin"}, t.Args...),
			Env:  environ(t, t.Dir, now),
			Dir:  t.Dir + "/" + workDir,
		}
	}
	spec.Rlimits = s.rlimits(t)
	return spec, files
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func wasmMemory(t *runner.Task) int64 {
	if t.Limits.Memory > 0 {
		return t.Limits.Memory
	}
	return defaultWASMMemory
}

// rlimits are the limits that a process carries by itself. They hold for each
// process of an attempt, not for their sum. RLIMIT_AS is not among them, since
// runtimes reserve address space far beyond what they use, and RLIMIT_NPROC is
// not, since it counts all processes of the user. A Go program needs between
// 32 and 64 MiB of RLIMIT_DATA merely to start.
func (s *Sandbox) rlimits(t *runner.Task) []initproc.Rlimit {
	list := []initproc.Rlimit{
		{Resource: syscall.RLIMIT_CORE, Value: 0},
		{Resource: syscall.RLIMIT_NOFILE, Value: maxFiles},
	}
	if t.Limits.Workspace > 0 {
		list = append(list, initproc.Rlimit{Resource: syscall.RLIMIT_FSIZE, Value: uint64(t.Limits.Workspace)})
	}
	if t.Limits.CPU > 0 && t.Timeout > 0 {
		seconds := math.Ceil(min(t.Timeout.Seconds()*t.Limits.CPU, 1e9))
		list = append(list, initproc.Rlimit{Resource: syscall.RLIMIT_CPU, Value: uint64(seconds)})
	}
	if data := s.dataLimit(t); data > 0 {
		list = append(list, initproc.Rlimit{Resource: syscall.RLIMIT_DATA, Value: uint64(data)})
	}
	return list
}

// dataLimit is RLIMIT_DATA in bytes; 0 is none.
func (s *Sandbox) dataLimit(t *runner.Task) int64 {
	if t.Runtime == manifests.RuntimeWASM {
		return wasmMemory(t) + s.slack + wasmDataPerByte*t.Entry.Size
	}
	return t.Limits.Memory
}
