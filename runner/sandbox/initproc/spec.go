package initproc

import "errors"

// MaxSpec bounds the encoded form of a [Spec] in bytes, without [SpecHead].
const MaxSpec = 1 << 20

// SpecHead is the number of bytes in front of a spec: a letter, then its length.
// With the first come descriptors (unix(7), SCM_RIGHTS): the program's stdin,
// stdout and stderr, and the files of the spec, of which the first is executed.
const SpecHead = 5

const specStart = 'S' // unlike any command

// Errors of a spec that cannot be sent or read.
var (
	ErrSpecTooLarge = errors.New("initproc: the spec is larger than 1 MiB")
	ErrBadSpec      = errors.New("initproc: malformed spec")
)

// A Rlimit is one resource limit (setrlimit(2)), soft and hard alike.
type Rlimit struct {
	Resource int
	Value    uint64
}

// A Spec says what the init process starts and how. Strings hold no NUL.
type Spec struct {
	Args    []string // argv, with argv[0]
	Env     []string // the whole environment
	Dir     string   // working directory, absolute
	Files   []int    // which of the files that come with it, from 1, become 3, 4, … of the program; no others pass
	Rlimits []Rlimit

	passed []int // descriptors
}

// Encode returns the form that travels: the head, then the fields.
func (s *Spec) Encode() ([]byte, error) {
	b := make([]byte, SpecHead, 4096)
	b = appendStrings(b, s.Args)
	b = appendStrings(b, s.Env)
	b = appendString(b, s.Dir)
	b = appendU32(b, uint32(len(s.Files)))
	for _, f := range s.Files {
		b = appendU32(b, uint32(f))
	}
	b = appendU32(b, uint32(len(s.Rlimits)))
	for _, r := range s.Rlimits {
		b = appendU32(b, uint32(r.Resource))
		b = appendU64(b, r.Value)
	}
	if len(b)-SpecHead > MaxSpec {
		return nil, ErrSpecTooLarge
	}
	appendU32(append(b[:0], specStart), uint32(len(b)-SpecHead))
	return b, nil
}

// DecodeSpec reads what Encode wrote, without the head. Anything
// else is [ErrBadSpec].
func DecodeSpec(b []byte) (*Spec, error) {
	d := decoder{b: b}
	var s Spec
	s.Args = d.strs()
	s.Env = d.strs()
	s.Dir = d.str()
	for range d.count(4) {
		s.Files = append(s.Files, int(d.u32()))
	}
	for range d.count(12) {
		s.Rlimits = append(s.Rlimits, Rlimit{Resource: int(d.u32()), Value: d.u64()})
	}
	if d.bad || len(d.b) > 0 {
		return nil, ErrBadSpec
	}
	return &s, nil
}

func appendString(b []byte, s string) []byte {
	b = appendU32(b, uint32(len(s)))
	return append(b, s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = appendU32(b, uint32(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// A decoder takes fields off b; bad stays set after the first that is not there.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return u32(p)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return u64(p)
	}
	return 0
}

func (d *decoder) str() string { return string(d.take(int(d.u32()))) }

// count reads the length of a list whose items take at least size bytes each.
func (d *decoder) count(size int) int {
	n := int(d.u32())
	if n > len(d.b)/size {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) strs() []string {
	var list []string
	for range d.count(4) {
		list = append(list, d.str())
	}
	return list
}
