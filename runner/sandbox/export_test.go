package sandbox

import "time"

// SetPatience shortens how long a silent init process is waited for.
func (s *Sandbox) SetPatience(d time.Duration) { s.patience = d }

// SetWASMSlack sets what the runtime of a WebAssembly module may take beside
// the guest's memory, in bytes.
func (s *Sandbox) SetWASMSlack(n int64) { s.slack = n }

// SetStartWait shortens how long an init process may take to begin with a spec.
func (s *Sandbox) SetStartWait(d time.Duration) { s.startWait = d }
