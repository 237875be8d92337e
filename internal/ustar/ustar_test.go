package ustar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/ustar"
)

func written(t *testing.T, texts ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := &ustar.Writer{W: &out, Time: 1_800_000_000}
	for i, text := range texts {
		if err := w.Member("folder/"+string(rune('a'+i)), int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What is written is a tar to everybody, and the one form to us.
func TestTheOneForm(t *testing.T) {
	texts := []string{"", "one", strings.Repeat("x", 512), strings.Repeat("y", 513)}
	raw := written(t, texts...)
	members, err := ustar.Index(bytes.NewReader(raw), int64(len(raw)), len(texts))
	if err != nil || len(members) != len(texts) {
		t.Fatalf("%v, %v", members, err)
	}
	other := tar.NewReader(bytes.NewReader(raw))
	for i, m := range members {
		h, err := other.Next()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(other)
		if err != nil || string(text) != texts[i] || h.Name != m.Name || h.Size != m.Size || h.ModTime.Unix() != m.Time {
			t.Errorf("member %d is %+v with %q to others, %+v to us; %v", i, h, text, m, err)
		}
		if got := string(raw[m.Offset : m.Offset+m.Size]); got != texts[i] {
			t.Errorf("member %d holds %q where it is said to lie", i, got)
		}
	}
	if _, err := other.Next(); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
}

// Whatever differs from that form outside of contents is a fault, and what stands before it
// is known all the same.
func TestWhatDiffersIsAFault(t *testing.T) {
	raw := written(t, "one", "two")
	content := map[int]bool{}
	for _, at := range []int{512, 513, 514, 1536, 1537, 1538} {
		content[at] = true
	}
	var form *ustar.FormError
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x20
		members, err := ustar.Index(bytes.NewReader(bad), int64(len(bad)), 10)
		switch {
		case content[i]:
			if err != nil {
				t.Errorf("byte %d of a content: %v", i, err)
			}
		case err == nil: // a letter of a name, or a digit of a number, makes another header, with another checksum
			t.Errorf("byte %d changed and nobody noticed", i)
		case !errors.As(err, &form):
			t.Errorf("byte %d: %v", i, err)
		case i >= 1024+3 && len(members) < 1:
			t.Errorf("byte %d: what stands before it is not known", i)
		}
	}
	for n := range len(raw) {
		if _, err := ustar.Index(bytes.NewReader(raw[:n]), int64(n), 10); !errors.As(err, &form) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if members, err := ustar.Index(bytes.NewReader(raw), int64(len(raw)), 1); !errors.As(err, &form) || len(members) != 1 {
		t.Errorf("more than is allowed: %v, %v", members, err)
	}
	if err := (&ustar.Writer{W: io.Discard}).Member("a", 4, strings.NewReader("one")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a member that ends early: %v", err)
	}
}
