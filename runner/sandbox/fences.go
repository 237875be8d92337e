package sandbox

import (
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
)

// Names of fences, as manifests and specs require them and attempts record
// them. Never change or reuse one.
const (
	FenceNoNetwork   = "no_network"  // no socket reaches anything outside the attempt
	FenceFiles       = "files"       // of the host only what was granted can be read or written
	FenceProcesses   = "processes"   // no process outside the attempt can be seen, signalled or traced
	FencePrivileges  = "privileges"  // no capability, and none to be gained by exec
	FenceSyscalls    = "syscalls"    // kernel interfaces that programs do not need are closed
	FenceKillAll     = "kill_all"    // nothing survives the end of the attempt
	FenceMemory      = "memory"      // the attempt's memory is bounded
	FencePIDs        = "pids"        // the number of its processes is bounded
	FenceCPU         = "cpu"         // its CPU time is bounded
	FenceWorkspace   = "workspace"   // what it writes to disk is bounded
	FenceEnvironment = "environment" // nothing is inherited: variables, descriptors, signals
)

// States of a fence.
const (
	fenceActive   = "active"
	fenceDegraded = "degraded"
	fenceOff      = "off"
)

// Fences says what stands around a native program without limits. The report
// of each attempt has the list for that attempt.
func (s *Sandbox) Fences() []ledger.Fence {
	return fences(&runner.Task{Runtime: manifests.RuntimeExec})
}

// fences is the list for one task in tier plain.
func fences(t *runner.Task) []ledger.Fence {
	f := func(name, state, proof string) ledger.Fence {
		return ledger.Fence{Name: name, State: state, Proof: proof}
	}
	list := []ledger.Fence{
		f(FenceNoNetwork, fenceOff, "tier plain has no network namespace and no seccomp filter"),
		f(FenceFiles, fenceOff, "tier plain: files are those of the user that runs stella"),
		f(FenceProcesses, fenceOff, "tier plain: processes of the same user can be seen and signalled"),
		f(FencePrivileges, fenceOff, "tier plain: privileges are those of stella"),
		f(FenceSyscalls, fenceOff, "tier plain has no seccomp filter"),
		f(FenceKillAll, fenceDegraded, "a subreaper and a lifeline kill all descendants; a program of the same user can kill the subreaper first"),
		limit(FenceMemory, t.Limits.Memory > 0, "RLIMIT_DATA holds for each process, not for their sum"),
		f(FencePIDs, fenceOff, "RLIMIT_NPROC would count all processes of the user"),
		limit(FenceCPU, t.Limits.CPU > 0 && t.Timeout > 0, "RLIMIT_CPU holds for each process, not for their sum"),
		limit(FenceWorkspace, t.Limits.Workspace > 0, "RLIMIT_FSIZE bounds each file; the sum is measured at intervals"),
		f(FenceEnvironment, fenceActive, "the list of the contract; descriptors 0, 1 and 2, and 3 for a script; signals at their defaults"),
	}
	if t.Runtime == manifests.RuntimeWASM {
		guest := map[string]string{
			FenceNoNetwork: "a guest that imports socket functions is refused; its runtime is not fenced",
			FenceFiles:     "every path of the guest is resolved below the attempt's folder, links cannot be made; its runtime is not fenced",
			FenceProcesses: "the guest has no function for it; its runtime is not fenced",
			FenceMemory:    "the linear memory is bounded, and RLIMIT_DATA bounds the runtime",
			FencePIDs:      "the guest has no function that starts a process; its runtime is not fenced",
		}
		for i := range list {
			if proof, ok := guest[list[i].Name]; ok {
				list[i].State, list[i].Proof = fenceDegraded, proof
			}
		}
	}
	return list
}

// limit is a fence that stands, with a gap, if its limit was set.
func limit(name string, set bool, gap string) ledger.Fence {
	if !set {
		return ledger.Fence{Name: name, State: fenceOff, Proof: "no limit is set"}
	}
	return ledger.Fence{Name: name, State: fenceDegraded, Proof: gap}
}
