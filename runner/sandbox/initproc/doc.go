// Package initproc is the init process of attempts, one after the other: the
// parent of the program that runs, the reaper of everything that program starts,
// and the one that leaves nothing alive behind it.
//
// It is the program stella-init, which holds nothing else, or, where the build has
// not put that into stella, stella's own binary started again, both under the
// name [Marker]. The init function takes the process over and never returns, so
// that main and the packages that come after this one are never initialised. That
// is the reason for a module of its own with this odd path: Go initialises packages in the
// order of their import paths as far as their imports allow, so a package that
// sorts first and imports next to nothing comes before the heavy ones. Measured
// on two cores, from fork to exit, median of 300: 8.5 ms to reach main in a
// binary with all of stella's libraries, 1.6 ms until this package has taken
// over, 0.8 ms for an empty Go program. Hence the rules of this package: of the
// standard library only os, os/signal, syscall, runtime, time, errors and
// unsafe; an import that sorts late (strings, strconv, encoding/binary) makes
// all those come first that sort between, and costs 0.5 ms alone. The function
// init here is the one exception to the rule that there is none.
//
// What it is told comes as a [Spec] on [SpecFD], for which it may wait long. That
// socket also is
// a lifeline: further bytes are commands ([CommandTerm], [CommandKill]), and
// its end means that stella has died, be it by SIGKILL, and that everything
// below must die as well. What happened goes out on [StatusFD] as [Status]
// records.
//
// It starts the program on a thread of its own that is locked and stays: the
// parent-death signal is bound to the thread that forked, and fences are meant
// to be put on that thread only, so that the main thread, which kills, stays
// outside of them.
package initproc

// Names under which stella's binary is started, as argv[0].
const (
	Marker      = "stella-init"
	ProbeMarker = "stella-probe" // ends at once with [ProbeExit]: what a probe runs as its program
)

// ProbeExit is the exit code of a process started as [ProbeMarker]: a number
// that nothing returns by accident.
const ProbeExit = 83

// Descriptors of the init process, beside which it has those of its attempt.
const (
	SpecFD   = 3 // Spec, then commands; its end is the end of stella
	StatusFD = 4
	nullFD   = 5 // /dev/null, what 0, 1 and 2 are while there is no program
)

// Commands, one byte each.
const (
	CommandTerm = 'T' // SIGTERM to the program's process group
	CommandKill = 'K' // SIGKILL to everything
)
