package initproc

// Kind is what a [Status] reports.
type Kind byte

// Kinds. A complete sequence of an attempt is Failed alone, or Starting and one of
// Failed, Unstarted, and Started with Ended after it.
const (
	Starting  Kind = 'B' // from here on the program may run
	Failed    Kind = 'F' // a fault on our side, nothing ran: Stage, Errno
	Unstarted Kind = 'U' // execve refused the program: Errno
	Started   Kind = 'S' // the program runs: PID
	Ended     Kind = 'E' // it has ended and nothing below is left, unless Survivors says so
)

// MaxStatuses is how many records of one attempt come at most.
const MaxStatuses = 3

// Stage is where a [Failed] start failed.
type Stage byte

// Stages.
const (
	StageSpec   Stage = 1
	StageDir    Stage = 2
	StageRlimit Stage = 3
	StageFork   Stage = 4
	StageProc   Stage = 5 // no usable /proc
	StagePrctl  Stage = 6
)

func (s Stage) String() string {
	switch s {
	case StageSpec:
		return "reading the spec"
	case StageDir:
		return "entering the working directory"
	case StageRlimit:
		return "setting resource limits"
	case StageFork:
		return "forking"
	case StageProc:
		return "reading /proc"
	case StagePrctl:
		return "becoming the reaper"
	}
	return "an unknown stage"
}

// StatusSize is the length of one record. It is written in one piece.
const StatusSize = 48

// A Status is one record from the init process.
type Status struct {
	Kind      Kind
	Stage     Stage
	Again     bool   // of Unstarted and Ended: there may be another attempt, to which nothing of this one passes
	Errno     uint32 // of Unstarted and Failed
	PID       uint32 // of the program, as the init process sees it
	Wait      uint32 // wait status of the program (wait(2))
	Killed    uint32 // processes beside the program that had to be killed
	Survivors uint32 // processes that SIGKILL did not end in time
	UserUs    uint64 // CPU time of everything that was reaped, in microseconds
	SystemUs  uint64
	MaxRSS    uint64 // of the largest process, in bytes
}

// Encode returns the record.
func (s *Status) Encode() []byte {
	b := make([]byte, 0, StatusSize)
	again := byte(0)
	if s.Again {
		again = 1
	}
	b = append(b, byte(s.Kind), byte(s.Stage), again, 0)
	for _, v := range []uint32{s.Errno, s.PID, s.Wait, s.Killed, s.Survivors} {
		b = appendU32(b, v)
	}
	for _, v := range []uint64{s.UserUs, s.SystemUs, s.MaxRSS} {
		b = appendU64(b, v)
	}
	return b
}

// DecodeStatus reads one record; false if b is not of its length.
func DecodeStatus(b []byte) (Status, bool) {
	if len(b) != StatusSize {
		return Status{}, false
	}
	return Status{
		Kind: Kind(b[0]), Stage: Stage(b[1]), Again: b[2] == 1,
		Errno: u32(b[4:]), PID: u32(b[8:]), Wait: u32(b[12:]),
		Killed: u32(b[16:]), Survivors: u32(b[20:]),
		UserUs: u64(b[24:]), SystemUs: u64(b[32:]), MaxRSS: u64(b[40:]),
	}, true
}
