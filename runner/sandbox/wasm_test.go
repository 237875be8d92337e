package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner"
)

// A wasmModule is a module with one function of its own, exported as _start.
type wasmModule struct {
	imports []wasmImport
	min     int    // pages of memory, exported
	body    []byte // of _start, without the end
	data    string // at offset 256
	entry   string // default _start
}

type wasmImport struct {
	module, name string
	params       int // i32
	result       bool
}

func leb(n int) []byte { // signed LEB128, good for any small number
	var b []byte
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func uleb(n int) []byte {
	var b []byte
	for n > 0x7f {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func wasmName(s string) []byte { return append(uleb(len(s)), s...) }

func wasmSection(id byte, items ...[]byte) []byte {
	body := uleb(len(items))
	for _, i := range items {
		body = append(body, i...)
	}
	return slices.Concat([]byte{id}, uleb(len(body)), body)
}

// encode is the binary format (WebAssembly 1.0, section 5).
func (m wasmModule) encode() []byte {
	types := [][]byte{{0x60, 0, 0}}
	var imports [][]byte
	for _, i := range m.imports {
		t := append([]byte{0x60, byte(i.params)}, slices.Repeat([]byte{0x7f}, i.params)...)
		if i.result {
			t = append(t, 1, 0x7f)
		} else {
			t = append(t, 0)
		}
		imports = append(imports, slices.Concat(wasmName(i.module), wasmName(i.name), []byte{0}, uleb(len(types))))
		types = append(types, t)
	}
	entry := m.entry
	if entry == "" {
		entry = "_start"
	}
	code := slices.Concat([]byte{0}, m.body, []byte{0x0b})
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		wasmSection(1, types...),
		wasmSection(2, imports...),
		wasmSection(3, []byte{0}),
		wasmSection(5, append([]byte{0}, uleb(m.min)...)),
		wasmSection(7,
			slices.Concat(wasmName(entry), []byte{0}, uleb(len(imports))),
			slices.Concat(wasmName("memory"), []byte{2, 0})),
		wasmSection(10, append(uleb(len(code)), code...)),
		wasmSection(11, slices.Concat([]byte{0, 0x41}, leb(256), []byte{0x0b}, wasmName(m.data))),
	)
}

// Instructions.
func i32(n int) []byte  { return append([]byte{0x41}, leb(n)...) }
func call(n int) []byte { return append([]byte{0x10}, uleb(n)...) }

const (
	opUnreachable = "\x00"
	opDrop        = "\x1a"
	opGrow        = "\x40\x00"
	opForever     = "\x03\x40\x0c\x00\x0b" // loop, br 0, end
)

const wasi = "wasi_snapshot_preview1"

func procExit() wasmImport { return wasmImport{wasi, "proc_exit", 1, false} }

func wasmTask(t testing.TB, raw []byte) (runner.Task, *recorder) {
	t.Helper()
	task, rec := task(t)
	task.Args = nil
	task.Runtime = manifests.RuntimeWASM
	task.Entry = bytesContent(raw)
	return task, rec
}

func TestExitCodesOfModules(t *testing.T) {
	for _, code := range []int{0, 42, 75, 256} {
		task, rec := wasmTask(t, wasmModule{
			imports: []wasmImport{procExit()}, min: 1, body: slices.Concat(i32(code), call(0)),
		}.encode())
		exited(t, execute(t, task), code, rec)
	}
	task, rec := wasmTask(t, wasmModule{min: 1}.encode())
	exited(t, execute(t, task), 0, rec) // it just returns
}

func TestAnInfiniteLoopEndsAtTheDeadline(t *testing.T) {
	task, _ := wasmTask(t, wasmModule{min: 1, body: []byte(opForever)}.encode())
	task.Timeout = 150 * time.Millisecond
	rep := execute(t, task)
	if rep.Stop != runner.StopDeadline || rep.Signal != "SIGTERM" || rep.ExitCode != nil || rep.Usage.WallMs > 30_000 {
		t.Errorf("stop %q (%s), signal %q, exit code %v, %d ms", rep.Stop, rep.Detail, rep.Signal, rep.ExitCode, rep.Usage.WallMs)
	}
}

func TestModulesThatCannotRunSayWhy(t *testing.T) {
	for name, c := range map[string]struct {
		raw    []byte
		detail string
	}{
		"a function of another host":            {wasmModule{min: 1, imports: []wasmImport{{"env", "now", 0, true}}}.encode(), "env.now"},
		"a socket function":                     {wasmModule{min: 1, imports: []wasmImport{{wasi, "sock_accept", 3, true}}}.encode(), "sock_accept"},
		"an unknown WASI function":              {wasmModule{min: 1, imports: []wasmImport{{wasi, "sudo", 0, true}}}.encode(), "sudo"},
		"a WASI function with other parameters": {wasmModule{min: 1, imports: []wasmImport{{wasi, "proc_exit", 3, false}}}.encode(), "proc_exit"},
		"no entry":                              {wasmModule{min: 1, entry: "main"}.encode(), "_start"},
		"no module":                             {[]byte("\x00asm\x01\x00\x00\x00\xff\xff"), "not a valid module"},
		"a text":                                {[]byte("hello"), "not a valid module"},
	} {
		t.Run(name, func(t *testing.T) {
			task, _ := wasmTask(t, c.raw)
			rep := execute(t, task)
			if rep.Stop != runner.StopWASM || !strings.Contains(rep.Detail, c.detail) || rep.ExitCode != nil {
				t.Errorf("stop %q (%s), exit code %v, want %q", rep.Stop, rep.Detail, rep.ExitCode, c.detail)
			}
		})
	}
}

func TestTraps(t *testing.T) {
	for name, body := range map[string][]byte{
		"unreachable": []byte(opUnreachable), "stack overflow": call(0),
		"out of bounds": slices.Concat(i32(1<<30), []byte{0x28, 0, 0}, []byte(opDrop)), // i32.load
	} {
		t.Run(name, func(t *testing.T) {
			task, _ := wasmTask(t, wasmModule{min: 1, body: body}.encode())
			rep := execute(t, task)
			if rep.Stop != runner.StopTrap || !strings.Contains(rep.Detail, name) || len(rep.Detail) > 1<<10 || rep.ExitCode != nil {
				t.Errorf("stop %q (%s), exit code %v", rep.Stop, rep.Detail, rep.ExitCode)
			}
		})
	}
}

func TestMemoryOfAModuleIsBounded(t *testing.T) {
	grow := func(pages int, then string) []byte {
		return slices.Concat(i32(pages), []byte(opGrow), []byte(opDrop), []byte(then))
	}
	exit := string(slices.Concat(i32(2), call(0)))
	for name, c := range map[string]struct {
		module wasmModule
		stop   runner.Stop
		code   int
	}{
		"growing within the limit":          {wasmModule{min: 1, body: grow(63, "")}, "", 0},
		"refused, and the guest copes":      {wasmModule{min: 1, body: grow(64, "")}, "", 0},
		"refused, and the guest traps":      {wasmModule{min: 1, body: grow(64, opUnreachable)}, runner.StopMemory, -1},
		"refused, and the guest gives up":   {wasmModule{min: 1, body: grow(64, exit)}, runner.StopMemory, 2},
		"a trap that is none of its":        {wasmModule{min: 1, body: grow(63, opUnreachable)}, runner.StopTrap, -1},
		"more than the limit to begin with": {wasmModule{min: 65, body: nil}, runner.StopMemory, -1},
	} {
		t.Run(name, func(t *testing.T) {
			c.module.imports = []wasmImport{procExit()}
			task, _ := wasmTask(t, c.module.encode())
			task.Limits.Memory = 64 << 16 // 64 pages
			rep := execute(t, task)
			code := -1
			if rep.ExitCode != nil {
				code = *rep.ExitCode
			}
			if rep.Stop != c.stop || code != c.code {
				t.Errorf("stop %q (%s), exit code %d, want %q and %d", rep.Stop, rep.Detail, code, c.stop, c.code)
			}
		})
	}
}

// randomModule writes 16 random bytes to stdout, as 8 lines.
func randomModule() []byte {
	return wasmModule{
		imports: []wasmImport{{wasi, "random_get", 2, true}, {wasi, "fd_write", 4, true}},
		min:     1,
		data:    "\x00\x02\x00\x00\x10\x00\x00\x00", // iovec: 512, 16
		body: slices.Concat(i32(512), i32(16), call(0), []byte(opDrop),
			i32(1), i32(256), i32(1), i32(300), call(1), []byte(opDrop)),
	}.encode()
}

func TestDeterminism(t *testing.T) {
	random := func(determinism string) string {
		task, rec := wasmTask(t, randomModule())
		task.Determinism = determinism
		exited(t, execute(t, task), 0, rec)
		return rec.stdout()
	}
	if a, b := random("fixed"), random("fixed"); a != b || a == "" {
		t.Errorf("fixed: %q and %q", a, b)
	}
	if a, b := random("real"), random("real"); a == b {
		t.Errorf("real: %q twice", a)
	}
}

// guest compiles testdata/guest for one platform.
func guest(goos, goarch string) func() string {
	return sync.OnceValue(func() string {
		path := filepath.Join(built, "guest-"+goos)
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/guest")
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
		if out, err := c.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("building the guest: %v\n%s", err, out))
		}
		return path
	})
}

// guestTask is a task for a plugin of the SDK.
func guestTask(t *testing.T, path string, runtime manifests.Runtime, params string) (runner.Task, *recorder) {
	t.Helper()
	task, rec := task(t)
	task.Args = nil
	task.Runtime, task.Entry = runtime, file(t, path)
	input := bytesContent([]byte("the input"))
	task.Files = []runner.Placed{
		{Path: "inputs/" + input.SHA256, Mode: "0644", Content: input},
		{Path: "bundle/lib/z", Mode: "0644", Content: bytesContent([]byte("z"))},
		{Path: "bundle/a", Mode: "0644", Content: bytesContent([]byte("a"))},
	}
	raw, err := json.Marshal(plugin.Request{
		API: plugin.API, RunID: task.RunID, StepID: "step", Attempt: 1,
		Params: json.RawMessage(strings.ReplaceAll(params, "INPUT", input.SHA256)),
		Inputs: map[string]plugin.Input{input.SHA256: {Path: "inputs/" + input.SHA256, SHA256: input.SHA256, Size: 9}},
	})
	if err != nil {
		t.Fatal(err)
	}
	task.Request = raw
	return task, rec
}

// TestAPluginOfTheSDK runs the same source as a program and as a module. The
// module takes its second to compile, hence one test for all that needs it.
func TestAPluginOfTheSDK(t *testing.T) {
	t.Run("exec", func(t *testing.T) { testGuest(t, guest("linux", "")(), manifests.RuntimeExec) })
	t.Run("wasm", func(t *testing.T) {
		if testing.Short() {
			t.Skip("compiling a Go module takes a second and more")
		}
		testGuest(t, guest("wasip1", "wasm")(), manifests.RuntimeWASM)
	})
}

// testSecret lets a plugin read a secret, and print it.
func testSecret(t *testing.T, path string, runtime manifests.Runtime) {
	task, rec := guestTask(t, path, runtime, `{"mode":"secret"}`)
	give(t, &task, "db", "hunter2+hunter2")
	task.Request = []byte(strings.Replace(string(task.Request), `"api":1`, `"api":1,"secrets":["db"]`, 1))
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	if got := string(rep.Output.Values["length"]); got != "15" || rec.stdout() != "it is "+task.Redact.Text("hunter2+hunter2") {
		t.Errorf("length %s, stdout %q", got, rec.stdout())
	}
	if _, err := os.Stat(filepath.Join(task.Dir, "secrets")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
}

func testGuest(t *testing.T, path string, runtime manifests.Runtime) {
	testSecret(t, path, runtime)
	mode := "files"
	if runtime == manifests.RuntimeWASM {
		mode = "files and escape"
	}
	task, rec := guestTask(t, path, runtime, `{"mode":"`+mode+`","input":"INPUT"}`)
	var progress []float64
	task.Progress = func(f float64, _ string) { progress = append(progress, f) }
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	want := map[string]json.RawMessage{
		"input": json.RawMessage(`"the input"`), "tmp": json.RawMessage(`"0X234"`), "bundle": json.RawMessage(`["a","lib"]`),
	}
	if diff := cmp.Diff(want, rep.Output.Values); diff != "" || rep.Output.Fault != "" {
		t.Errorf("outputs (-want +got)\n%s\n%s", diff, rep.Output.Fault)
	}
	if diff := cmp.Diff([]float64{1}, progress); diff != "" {
		t.Error(diff)
	}
	if len(rep.Output.Artifacts) != 1 || rep.Output.Artifacts[0].Name != "dir/report.txt" {
		t.Fatalf("artifacts %+v", rep.Output.Artifacts)
	}
	r, err := rep.Output.Artifacts[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if raw, err := io.ReadAll(r); string(raw) != "a report" || err != nil {
		t.Errorf("artifact %q, %v", raw, err)
	}
	if raw, err := os.ReadFile(filepath.Join(task.Dir, "artifacts", "renamed")); string(raw) != "hello" {
		t.Errorf("renamed file %q, %v", raw, err)
	}
	if runtime == manifests.RuntimeWASM {
		return
	}
	task, rec = guestTask(t, path, runtime, `{"mode":"retry"}`)
	rep = execute(t, task)
	exited(t, rep, plugin.ExitRetryable, rec)
	if e := rep.Output.Error; e == nil || !e.Retryable || e.RetryAfterMs != 1500 || e.Message != "busy" {
		t.Errorf("error %+v", e)
	}
	task, rec = guestTask(t, path, runtime, `{"mode":"files","unknown":1}`)
	exited(t, execute(t, task), plugin.ExitRejected, rec)
}
