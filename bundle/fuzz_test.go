package bundle_test

import (
	"bytes"
	"testing"

	"github.com/stellarun/stella/bundle"
)

// FuzzRead: a bundle has one encoding. Whatever is accepted, written again from
// what was read, gives the same bytes.
func FuzzRead(f *testing.F) {
	one := content{path: "a.txt", data: []byte("first")}
	text := bytes.Repeat([]byte("text "), 100)
	two := content{path: "b.txt", data: text, stored: compress(f, text)}
	stella := entry{name: "stella.toml", data: manifest(one, two)}
	seeds := [][]byte{
		plain(f, one),
		plain(f, one, two),
		container(f, append([]entry{stella, signature(1), signature(2), attestation("x")}, blobs(one, two)...)...),
		container(f, append([]entry{stella, signature(1)}, blobs(two)...)...),
		container(f, stella),
	}
	accepted := 0
	for _, s := range seeds {
		f.Add(s)
		if _, err := readAll(bytes.NewReader(s), spool(f), bundle.Limits{}, func(string) bool { return true }); err == nil {
			accepted++
		}
	}
	if accepted != len(seeds) {
		f.Fatalf("%d of %d seeds are accepted", accepted, len(seeds))
	}
	place := spool(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := readAll(bytes.NewReader(raw), place, bundle.Limits{Bytes: 1 << 20}, func(string) bool { return true })
		if err != nil {
			return
		}
		if got.bytes != int64(len(raw)) || got.sha256 != digest(raw) {
			t.Fatalf("%d of %d bytes were read", got.bytes, len(raw))
		}
		var again bytes.Buffer
		if err := bundle.Attach(&again, bytes.NewReader(raw), nil, nil); err != nil {
			t.Fatalf("accepted, but cannot be written again: %v", err)
		}
		if !bytes.Equal(again.Bytes(), raw) {
			t.Fatal("accepted, but written again it has other bytes")
		}
	})
}
