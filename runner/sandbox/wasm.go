package sandbox

import (
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/stellarun/stella/runner"
)

// wasmMarker is argv[0] of the process that runs a WebAssembly module; argv[1]
// is the determinism, argv[2] the most bytes of linear memory, and the rest are
// the guest's arguments. Its environment is the guest's, its working directory
// the attempt's folder.
const wasmMarker = "stella-wasm"

// Descriptors of that process.
const (
	wasmModuleFD = 3 // sealed
	wasmStatusFD = 4 // one wasmResult
)

// maxWASMDetail bounds what is told of a trap, in bytes.
const maxWASMDetail = 1 << 10

// A wasmResult is how a module ended, as its runtime saw it. The guest cannot
// reach the descriptor that it is written to.
type wasmResult struct {
	Ended  bool        `json:"ended"`            // by itself, with Exit
	Exit   uint32      `json:"exit"`             // given to proc_exit
	Stop   runner.Stop `json:"stop,omitempty"`   // wasm | trap | memory
	Detail string      `json:"detail,omitempty"` // of Stop
}

// readWASMResult reads the result once the process is gone. Without one, the
// runtime itself was ended.
func readWASMResult(r *os.File) wasmResult {
	r.SetReadDeadline(time.Now().Add(drainPause))
	raw, err := io.ReadAll(io.LimitReader(r, 8<<10))
	var res wasmResult
	if err != nil || json.Unmarshal(raw, &res) != nil {
		return wasmResult{}
	}
	return res
}

// apply makes of the runtime's exit code, which says little, what the result
// says. A cause of ours that came first stays.
func (w wasmResult) apply(r *runner.Report) {
	switch {
	case w.Ended:
		code := int(w.Exit)
		r.ExitCode = &code
	case r.ExitCode != nil:
		// The exit code is the runtime's own, and means nothing to a plugin.
		if w.Stop == "" {
			w.Stop, w.Detail = runner.StopTrap, "the WebAssembly runtime failed; its output says why"
		}
		r.ExitCode = nil
	}
	if r.Stop == "" && w.Stop != "" {
		r.Stop, r.Detail = w.Stop, cutText(w.Detail, maxWASMDetail)
	}
}

// cutText shortens s to at most n bytes without splitting a character.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
