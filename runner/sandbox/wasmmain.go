package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"

	"github.com/stellarun/stella/runner"
)

// WASMMain must be the first call in main. In the process that runs a
// WebAssembly module it does so and does not return; in any other it does
// nothing.
func WASMMain() {
	if len(os.Args) < 3 || os.Args[0] != wasmMarker {
		return
	}
	unix.CloseOnExec(wasmModuleFD)
	unix.CloseOnExec(wasmStatusFD)
	res := runWASM(os.Args[1], os.Args[2], os.Args[3:])
	code := 1
	if res.Ended {
		code = int(min(res.Exit, 255))
	}
	raw, err := json.Marshal(res)
	if err == nil {
		_, err = unix.Write(wasmStatusFD, raw)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stella: reporting the end of the module:", err)
	}
	os.Exit(code)
}

// runWASM compiles and runs the module of wasmModuleFD.
func runWASM(determinism, memory string, args []string) wasmResult {
	limit, err := strconv.ParseUint(memory, 10, 63)
	if err != nil {
		return refused("memory limit: %v", err)
	}
	module, err := io.ReadAll(os.NewFile(wasmModuleFD, "module"))
	if err != nil {
		return refused("reading the module: %v", err)
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		return refused("opening the attempt's folder: %v", err)
	}
	defer root.Close()

	mem := &guestMemory{limit: limit}
	ctx := experimental.WithMemoryAllocator(context.Background(), mem)
	ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	// Without CloseOnContextDone: it makes tight loops many times slower and
	// does not end blocked calls. The deadline ends this process.
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCustomSections(false))
	defer r.Close(ctx)
	host, err := wasi_snapshot_preview1.NewBuilder(r).Compile(ctx)
	if err != nil {
		return refused("compiling the host functions: %v", err)
	}
	guest, err := r.CompileModule(ctx, module)
	if err != nil {
		return refused("not a valid module: %v", err)
	}
	if problem := checkModule(guest, host); problem != "" {
		return refused("%s", problem)
	}
	wasi := wazero.NewModuleConfig().WithName(wasi_snapshot_preview1.ModuleName)
	if _, err := r.InstantiateModule(ctx, host, wasi); err != nil {
		return refused("instantiating the host functions: %v", err)
	}
	cfg := guestConfig(determinism, args).
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(newGuestFS(root, determinism == "fixed"), "/"))
	return runGuest(ctx, r, guest, cfg, mem)
}

func refused(format string, args ...any) wasmResult {
	return wasmResult{Stop: runner.StopWASM, Detail: cutText(fmt.Sprintf(format, args...), maxWASMDetail)}
}

// guestConfig is what the guest sees beside files. With determinism "fixed",
// clocks, sleeping and random bytes are wazero's own, the same in every run;
// nothing secret may be made of such bytes.
func guestConfig(determinism string, args []string) wazero.ModuleConfig {
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithStdin(os.Stdin).WithStdout(os.Stdout).WithStderr(os.Stderr).
		WithArgs(append([]string{"plugin"}, args...)...)
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		cfg = cfg.WithEnv(k, v)
	}
	if determinism == "real" {
		cfg = cfg.WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(rand.Reader)
	}
	return cfg
}

// checkModule says why a module cannot run here, before any of it does: it may
// import functions of WASI preview 1 only, and of those none that has to do
// with sockets.
func checkModule(guest, host wazero.CompiledModule) string {
	offered := host.ExportedFunctions()
	for _, f := range guest.ImportedFunctions() {
		module, name, _ := f.Import()
		switch {
		case module != wasi_snapshot_preview1.ModuleName:
			return fmt.Sprintf("imports %s.%s: only %s is offered", module, name, wasi_snapshot_preview1.ModuleName)
		case offered[name] == nil || strings.HasPrefix(name, "sock_"):
			return fmt.Sprintf("imports %s.%s, which is not offered", module, name)
		}
	}
	for _, m := range guest.ImportedMemories() {
		module, name, _ := m.Import()
		return fmt.Sprintf("imports the memory %s.%s, which is not offered", module, name)
	}
	f := guest.ExportedFunctions()[entryPoint]
	if f == nil || len(f.ParamTypes()) > 0 || len(f.ResultTypes()) > 0 {
		return "exports no function " + entryPoint + " without parameters and results"
	}
	return ""
}

// entryPoint is the function that a WASI command exports.
const entryPoint = "_start"

// runGuest instantiates the module, calls its entry, and says how it ended.
func runGuest(ctx context.Context, r wazero.Runtime, guest wazero.CompiledModule, cfg wazero.ModuleConfig, mem *guestMemory) wasmResult {
	instance, err := instantiate(ctx, r, guest, cfg)
	if instance != nil && err == nil {
		_, err = instance.ExportedFunction(entryPoint).Call(ctx)
	}
	var exit *sys.ExitError
	switch {
	case err == nil:
		return wasmResult{Ended: true}
	case errors.As(err, &exit):
		res := wasmResult{Ended: true, Exit: exit.ExitCode()}
		if mem.refused > 0 && res.Exit != 0 {
			res.Stop, res.Detail = runner.StopMemory, mem.text()
		}
		return res
	case mem.refused > 0:
		return wasmResult{Stop: runner.StopMemory, Detail: mem.text()}
	case instance == nil:
		return refused("%v", err)
	}
	return wasmResult{Stop: runner.StopTrap, Detail: cutText(err.Error(), maxWASMDetail)}
}

// instantiate is InstantiateModule, and an error where the allocator had to
// refuse the memory that the module begins with: its interface has no other
// way to say so.
func instantiate(ctx context.Context, r wazero.Runtime, guest wazero.CompiledModule, cfg wazero.ModuleConfig) (m api.Module, err error) {
	defer func() {
		if v := recover(); v != nil {
			if v != errFirstMemory {
				panic(v)
			}
			m, err = nil, errFirstMemory
		}
	}()
	return r.InstantiateModule(ctx, guest, cfg)
}

var errFirstMemory = errors.New("sandbox: the memory that the module begins with is beyond its limit")

// guestMemory allocates the linear memories of one module, and remembers where
// it refused to: a guest that is refused memory ends in a way of its own.
type guestMemory struct {
	limit   uint64 // bytes, for the sum of all memories
	used    uint64
	refused uint64 // the size of the memory that was refused last; 0: none was
	err     error  // why the machine refused it; nil if the limit did
}

func (g *guestMemory) text() string {
	if g.err != nil {
		return fmt.Sprintf("reserving memory for a limit of %d bytes: %v", g.limit, g.err)
	}
	return fmt.Sprintf("memory of %d bytes refused, the limit is %d", g.refused, g.limit)
}

// Allocate implements [experimental.MemoryAllocator].
func (g *guestMemory) Allocate(_, most uint64) experimental.LinearMemory {
	return &linearMemory{guest: g, most: most}
}

// A linearMemory is address space reserved as far as it may grow, so that
// growing neither copies nor moves it.
type linearMemory struct {
	guest *guestMemory
	most  uint64
	space []byte
	size  uint64
}

// Reallocate implements [experimental.LinearMemory]; nil refuses.
func (m *linearMemory) Reallocate(size uint64) []byte {
	first := m.space == nil
	if g := m.guest; g.used-m.size+size > g.limit {
		g.refused = max(size, 1)
		if first {
			panic(errFirstMemory) // see instantiate
		}
		return nil
	}
	if first {
		reserve := max(1, min(m.most, m.guest.limit, math.MaxInt))
		space, err := unix.Mmap(-1, 0, int(reserve), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			m.guest.refused, m.guest.err = max(size, 1), err
			panic(errFirstMemory)
		}
		m.space = space
	}
	m.guest.used += size - m.size
	m.size = size
	return m.space[:size:len(m.space)]
}

// Free implements [experimental.LinearMemory].
func (m *linearMemory) Free() {
	if m.space != nil {
		unix.Munmap(m.space)
		m.space = nil
	}
}
