package ledger_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

func newVerifier(t testing.TB, opt ledger.VerifierOptions) *ledger.Verifier {
	t.Helper()
	v, err := ledger.NewVerifier(opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifier(t *testing.T) {
	entries := sample(t)
	h := stored(t, entries)
	v := newVerifier(t, ledger.VerifierOptions{Sizes: []int64{4, 2, 0, 2, 9}})
	for i, e := range entries {
		data := e.Data
		if i == 3 {
			data = nil // withheld
		}
		env, decoded, err := v.Add(e.Envelope, data)
		if err != nil {
			t.Fatal(err)
		}
		if env.Seq != int64(i) || v.Size() != int64(i)+1 || (decoded == nil) != (data == nil) {
			t.Errorf("entry %d: Add = %+v, %v; size %d", i, env, decoded, v.Size())
		}
		if want, err := ledger.TreeHash(v.Size(), h); err != nil || v.Root() != want {
			t.Errorf("size %d: Root = %x, want %x, %v", v.Size(), v.Root(), want, err)
		}
		if start, ok := decoded.(*ledger.RunStart); i == 1 && (!ok || start.Steps != 1) {
			t.Errorf("entry 1 decodes to %#v", decoded)
		}
	}
	for size := range int64(10) {
		want, wantOK := ledger.Hash{}, size == 0 || size == 2 || size == 4 || size == 5
		if wantOK {
			var err error
			if want, err = ledger.TreeHash(size, h); err != nil {
				t.Fatal(err)
			}
		}
		if got, ok := v.RootAt(size); ok != wantOK || got != want {
			t.Errorf("RootAt(%d) = %x, %v; want %x, %v", size, got, ok, want, wantOK)
		}
	}
}

// TestVerifierOfAWindow begins in the middle.
func TestVerifierOfAWindow(t *testing.T) {
	entries := sample(t)
	h := stored(t, entries)
	left, _, err := ledger.WindowEdges(4, 0, 5, h)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, ledger.VerifierOptions{First: 3, Left: left, Sizes: []int64{3, 4}})
	for _, e := range entries[3:] {
		if _, _, err := v.Add(e.Envelope, e.Data); err != nil {
			t.Fatal(err)
		}
	}
	for size := int64(3); size <= 5; size++ {
		want, err := ledger.TreeHash(size, h)
		if got, ok := v.RootAt(size); err != nil || !ok || got != want {
			t.Errorf("RootAt(%d) = %x, %v; want %x, %v", size, got, ok, want, err)
		}
	}
	for _, opt := range []ledger.VerifierOptions{
		{First: -1}, {First: 1}, {First: 3, Left: left[:1]}, {First: 0, Left: left}, {First: ledger.MaxSize + 1}, {First: 1<<63 - 1},
	} {
		if _, err := ledger.NewVerifier(opt); err == nil {
			t.Errorf("NewVerifier(%+v) succeeded", opt)
		}
	}
}

// TestFaults tampers with one entry as somebody would who can compute digests.
func TestFaults(t *testing.T) {
	edit := func(e ledger.Entry, f func(*ledger.Envelope)) ledger.Entry {
		env, err := ledger.ParseEnvelope(e.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		f(&env)
		if e.Envelope, err = jcs.Marshal(env); err != nil {
			t.Fatal(err)
		}
		return e
	}
	withData := func(e ledger.Entry, old, new string) ledger.Entry {
		e.Data = []byte(change(t, string(e.Data), old, new))
		return edit(e, func(env *ledger.Envelope) { env.DataHash = digest(string(e.Data)) })
	}
	for _, tc := range []struct {
		name   string
		tamper func([]ledger.Entry) []ledger.Entry
		seq    int64
		what   string
		is     error
	}{
		{"an entry is missing", func(e []ledger.Entry) []ledger.Entry { return slices.Delete(e, 2, 3) }, 2, ledger.FaultSeq, nil},
		{"the first is missing", func(e []ledger.Entry) []ledger.Entry { return e[1:] }, 0, ledger.FaultSeq, nil},
		{"an entry is there twice", func(e []ledger.Entry) []ledger.Entry { return slices.Insert(e, 2, e[2]) }, 3, ledger.FaultSeq, nil},
		{"two are exchanged", func(e []ledger.Entry) []ledger.Entry { e[2], e[3] = e[3], e[2]; return e }, 2, ledger.FaultSeq, nil},
		{"time goes back", func(e []ledger.Entry) []ledger.Entry {
			e[2] = edit(e[2], func(env *ledger.Envelope) { env.Time = "2026-11-22T08:21:00.000000000Z" })
			return e
		}, 2, ledger.FaultTime, nil},
		{"an unknown type", func(e []ledger.Entry) []ledger.Entry {
			e[4] = edit(e[4], func(env *ledger.Envelope) { env.Type = "run.exploded" })
			return e
		}, 4, ledger.FaultType, ledger.ErrUnknownType},
		{"an unknown version", func(e []ledger.Entry) []ledger.Entry {
			e[4] = edit(e[4], func(env *ledger.Envelope) { env.V = 99 })
			return e
		}, 4, ledger.FaultType, ledger.ErrUnknownType},
		{"a second beginning", func(e []ledger.Entry) []ledger.Entry {
			e[2] = edit(e[0], func(env *ledger.Envelope) { env.Seq, env.Time = 2, "2026-12-01T00:00:00.000000000Z" })
			return e
		}, 2, ledger.FaultType, nil},
		{"another beginning", func(e []ledger.Entry) []ledger.Entry {
			e[0] = edit(e[4], func(env *ledger.Envelope) { env.Seq = 0 })
			return e
		}, 0, ledger.FaultType, nil},
		{"data of another entry", func(e []ledger.Entry) []ledger.Entry { e[2].Data = e[3].Data; return e }, 2, ledger.FaultData, ledger.ErrMismatch},
		{"data of another entry, digest too", func(e []ledger.Entry) []ledger.Entry {
			e[2].Data = e[3].Data
			e[2] = edit(e[2], func(env *ledger.Envelope) { env.DataHash = digest(string(e[3].Data)) })
			return e
		}, 2, ledger.FaultData, ledger.ErrMismatch},
		{"data of another type", func(e []ledger.Entry) []ledger.Entry {
			e[4] = edit(e[4], func(env *ledger.Envelope) { env.Type = ledger.RunStarted })
			return e
		}, 4, ledger.FaultData, nil},
		{"a field that the type does not have", func(e []ledger.Entry) []ledger.Entry {
			e[4] = withData(e[4], `{}`, `{"x":1}`)
			return e
		}, 4, ledger.FaultData, nil},
		{"empty data line", func(e []ledger.Entry) []ledger.Entry { e[1].Data = []byte{}; return e }, 1, ledger.FaultData, ledger.ErrMismatch},
		{"envelope with a line feed", func(e []ledger.Entry) []ledger.Entry { e[1].Envelope = append(e[1].Envelope, '\n'); return e }, 1, ledger.FaultEnvelope, nil},
		{"data in place of the envelope", func(e []ledger.Entry) []ledger.Entry { e[1].Envelope = e[1].Data; return e }, 1, ledger.FaultEnvelope, nil},
	} {
		v := newVerifier(t, ledger.VerifierOptions{})
		var err error
		for _, e := range tc.tamper(sample(t)) {
			if _, _, err = v.Add(e.Envelope, e.Data); err != nil {
				break
			}
		}
		var fault *ledger.Fault
		if !errors.As(err, &fault) || fault.Seq != tc.seq || fault.What != tc.what || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%s: %v; want a fault of %s at %d", tc.name, err, tc.what, tc.seq)
			continue
		}
		if v.Size() != tc.seq {
			t.Errorf("%s: %d entries are intact, want %d", tc.name, v.Size(), tc.seq)
		}
		if _, _, again := v.Add(sample(t)[v.Size()].Envelope, nil); again != err {
			t.Errorf("%s: after the fault Add = %v", tc.name, again)
		}
	}
}

// TestEveryByteCounts changes each byte of the envelopes of a small ledger, and
// some of its data lines.
func TestEveryByteCounts(t *testing.T) {
	entries, checkpoint := sample(t), signed(t, sample(t))
	if err := verify(entries, checkpoint); err != nil {
		t.Fatal(err)
	}
	steps := []int{1, 5} // one digest covers the whole data line
	if testing.Short() {
		steps = []int{7, 29}
	}
	for i := range entries {
		for which, line := range [][]byte{entries[i].Envelope, entries[i].Data} {
			for at := 0; at < len(line); at += steps[which] {
				line[at] ^= 1
				if verify(entries, checkpoint) == nil {
					t.Fatalf("byte %d of entry %d changed and nobody noticed: %s", at, i, line)
				}
				line[at] ^= 1
			}
		}
	}
	if err := verify(entries[:4], checkpoint); err == nil {
		t.Error("the last entry is missing and nobody noticed")
	}
}

func FuzzTamper(f *testing.F) {
	good, checkpoint := sample(f), signed(f, sample(f))
	if err := verify(good, checkpoint); err != nil {
		f.Fatal(err)
	}
	f.Add(uint(0), uint(0), byte(1), []byte{})
	f.Add(uint(3), uint(100), byte(0x20), []byte{})
	f.Add(uint(6), uint(20), byte(0), []byte(" "))
	f.Add(uint(10), uint(90), byte(0), []byte("— w AQIDBAU=\n"))
	f.Fuzz(func(t *testing.T, which, at uint, flip byte, insert []byte) {
		entries, note := slices.Clone(good), bytes.Clone(checkpoint)
		lines := []*[]byte{&note}
		for i := range entries {
			entries[i].Envelope, entries[i].Data = bytes.Clone(entries[i].Envelope), bytes.Clone(entries[i].Data)
			lines = append(lines, &entries[i].Envelope, &entries[i].Data)
		}
		line := lines[which%uint(len(lines))]
		before := bytes.Clone(*line)
		at %= uint(len(*line))
		(*line)[at] ^= flip
		*line = slices.Insert(*line, int(at), insert...)
		if bytes.Equal(*line, before) {
			return
		}
		if err := verify(entries, note); err == nil && line != &note {
			t.Fatalf("%q became %q and nobody noticed", before, *line)
		} else if err == nil && !bytes.HasPrefix(note, before) { // a line after ours may be a cosignature
			t.Fatalf("the checkpoint became %q and nobody noticed", note)
		}
	})
}

func TestFaultText(t *testing.T) {
	err := &ledger.Fault{Seq: 3, What: ledger.FaultData, Err: ledger.ErrMismatch}
	if diff := cmp.Diff("ledger: entry 3: data: data line of another envelope", err.Error()); diff != "" {
		t.Error(diff)
	}
}
