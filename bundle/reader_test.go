package bundle_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/bundle"
)

func TestAWellFormedBundleIsRead(t *testing.T) {
	one := content{path: "a.txt", data: []byte("first")}
	text := bytes.Repeat([]byte("text "), 1000)
	two := content{path: "b.txt", data: text, stored: compress(t, text)}
	empty := content{path: "c.txt", data: []byte{}}
	entries := []entry{{name: "stella.toml", data: manifest(one, two, empty)}, signature(1), signature(2), attestation("[]")}
	raw := container(t, append(entries, blobs(one, two, empty)...)...)

	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(raw), "byte by byte": iotest.OneByteReader(bytes.NewReader(raw)),
	} {
		got, err := readAll(r, spool(t), bundle.Limits{}, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := map[string]string{one.digest(): "first", two.digest(): string(text), empty.digest(): ""}
		if diff := cmp.Diff(want, got.contents); diff != "" {
			t.Errorf("%s: contents (-want +got):\n%s", name, diff)
		}
		if len(got.head.Signatures) != 2 || len(got.attestations) != 1 {
			t.Errorf("%s: %d signatures and %d attestations", name, len(got.head.Signatures), len(got.attestations))
		}
		if got.sha256 != digest(raw) || got.bytes != int64(len(raw)) {
			t.Errorf("%s: file is %s, %d bytes; want %s, %d", name, got.sha256, got.bytes, digest(raw), len(raw))
		}
	}
}

func TestContainersThatAreRefused(t *testing.T) {
	one, two := content{path: "a.txt", data: []byte("first")}, content{path: "b.txt", data: []byte("second")}
	stella := entry{name: "stella.toml", data: manifest(one, two)}
	good := append([]entry{stella, signature(1)}, blobs(one, two)...)
	with := func(at int, e ...entry) []byte { return container(t, slices.Insert(slices.Clone(good), at, e...)...) }
	edited := func(edit func(*tar.Header)) []byte {
		all := slices.Clone(good)
		all[2].edit = edit
		return container(t, all...)
	}
	whole := container(t, good...)
	patched := func(at int, c byte) []byte {
		out := bytes.Clone(whole)
		out[at] = c
		return out
	}
	big := func(n int64) func(*tar.Header) { return func(h *tar.Header) { h.Size = n } }
	many := func(n int, make func(int) entry) []entry {
		var out []entry
		for i := range n {
			out = append(out, make(i+10))
		}
		return out
	}
	attestations := many(65, func(i int) entry { return attestation(strings.Repeat("x", i)) })
	slices.SortFunc(attestations, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	lone := container(t, stella)

	for _, c := range []struct {
		name string
		raw  []byte
		want bundle.Reason
	}{
		{"an empty file", nil, bundle.Truncated},
		{"a file that is no tar", bytes.Repeat([]byte("x"), 4096), bundle.NotABundle},
		{"zeros", make([]byte, 1024), bundle.NotABundle},
		{"another first entry", container(t, entry{name: "README", data: []byte("x")}), bundle.NotABundle},
		{"a manifest above 1 MiB", container(t, entry{name: "stella.toml", data: bytes.Repeat([]byte("#"), 1<<20+1)}), bundle.ManifestTooLarge},
		{"another schema", container(t, entry{name: "stella.toml", data: []byte("schema = \"stella.bundle/2\"\n")}), bundle.SchemaUnknown},
		{"a blank before the schema", container(t, entry{name: "stella.toml", data: append([]byte(" "), stella.data...)}), bundle.SchemaUnknown},
		{"an empty manifest", container(t, entry{name: "stella.toml"}), bundle.SchemaUnknown},
		{"no end marker", whole[:len(whole)-1024], bundle.Truncated},
		{"half an end marker", whole[:len(whole)-512], bundle.Truncated},
		{"a cut header", whole[:len(lone)-1024+100], bundle.Truncated},
		{"a cut manifest", whole[:700], bundle.Truncated},
		{"a cut blob", whole[:len(whole)-1024-512+3], bundle.Truncated},
		{"a byte after the end", append(bytes.Clone(whole), 0), bundle.TrailingData},
		{"a third zero block", append(bytes.Clone(whole), make([]byte, 512)...), bundle.TrailingData},
		{"a second block that is not zero", patched(len(whole)-1, 1), bundle.TrailingData},
		{"an upper-case id", with(1, entry{name: bundle.SignatureName(strings.Repeat("A", 64)), data: []byte("{}")}), bundle.EntryUnexpected},
		{"a short id", with(1, entry{name: bundle.SignatureName("ab"), data: []byte("{}")}), bundle.EntryUnexpected},
		{"a signature twice", with(1, signature(1)), bundle.EntryDuplicate},
		{"signatures out of order", with(1, signature(2)), bundle.EntryOrder},
		{"a signature after an attestation", with(2, attestation("x"), signature(2)), bundle.EntryOrder},
		{"an attestation after a blob", with(3, attestation("x")), bundle.EntryOrder},
		{"seventeen signatures", with(2, many(16, signature)...), bundle.SignaturesTooMany},
		{"a large signature", with(1, entry{name: bundle.SignatureName(strings.Repeat("0", 64)), data: make([]byte, 64<<10+1)}), bundle.SignatureTooLarge},
		{"65 attestations", with(2, attestations...), bundle.AttestationsTooMany},
		{"an attestation by another name", with(2, entry{name: bundle.AttestationName(strings.Repeat("0", 64)), data: []byte("x")}), bundle.AttestationDigest},
		{"an attestation twice", with(2, attestation("x"), attestation("x")), bundle.EntryDuplicate},
		{"the manifest twice", with(2, stella), bundle.EntryDuplicate},
		{"a blob twice", with(3, good[2]), bundle.EntryDuplicate},
		{"a blob that nobody named", with(3, entry{name: "blobs/sha256/" + strings.Repeat("0", 64), data: []byte("x")}), bundle.EntryUnexpected},
		{"a file that nobody named", with(4, entry{name: "README", data: []byte("x")}), bundle.EntryUnexpected},
		{"a path that climbs", with(4, entry{name: "../x", data: []byte("x")}), bundle.PathTraversal},
		{"an absolute path", with(4, entry{name: "/etc/x", data: []byte("x")}), bundle.PathTraversal},
		{"a backslash", with(4, entry{name: `c:\x`, data: []byte("x")}), bundle.PathForbidden},
		{"blobs out of order", container(t, stella, good[3], good[2]), bundle.BlobMissing},
		{"a missing first blob", container(t, stella, good[3]), bundle.BlobMissing},
		{"a missing last blob", container(t, stella, good[2]), bundle.BlobMissing},
		{"no blobs", lone, bundle.BlobMissing},
		{"a compressed blob where a plain one is signed", with(2, entry{name: good[2].name + ".zst", data: []byte("x")}), bundle.EntryUnexpected},
		{"a short blob", edited(big(4)), bundle.BlobSize},
		{"a blob with other bytes", patched(512+len(pad(stella.data))+1024+512, 'F'), bundle.BlobDigest},
		{"padding that is not zero", patched(512+len(pad(stella.data))-1, 'x'), bundle.PaddingInvalid},
		{"another time", edited(func(h *tar.Header) { h.ModTime = h.ModTime.Add(1e9) }), bundle.TimeMismatch},
		{"another mode", edited(func(h *tar.Header) { h.Mode = 0o600 }), bundle.HeaderInvalid},
		{"an owner", edited(func(h *tar.Header) { h.Uid = 1 }), bundle.HeaderInvalid},
		{"an owner's name", edited(func(h *tar.Header) { h.Uname = "root" }), bundle.HeaderInvalid},
		{"a group's name", edited(func(h *tar.Header) { h.Gname = "root" }), bundle.HeaderInvalid},
		{"a symbolic link", edited(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0 }), bundle.EntryLink},
		{"a hard link", edited(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "stella.toml", 0 }), bundle.EntryLink},
		{"a folder", edited(func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeDir, 0 }), bundle.EntryFolder},
		{"a pipe", edited(func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeFifo, 0 }), bundle.EntryDevice},
		{"a device", edited(func(h *tar.Header) { h.Typeflag, h.Size, h.Devmajor = tar.TypeChar, 0, 1 }), bundle.EntryDevice},
		{"a PAX header", edited(func(h *tar.Header) { h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"comment": "x"} }), bundle.EntryExtended},
		{"a GNU header", edited(func(h *tar.Header) { h.Format = tar.FormatGNU }), bundle.HeaderInvalid},
		{"a wrong checksum", patched(512+len(pad(stella.data))+148, '7'), bundle.HeaderChecksum},
		{"a name beyond its NUL", patchedHeader(whole, 512+len(pad(stella.data)), 99, 'x'), bundle.PathForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readAll(bytes.NewReader(c.raw), spool(t), bundle.Limits{}, nil)
			f := wantReason(t, err, c.want)
			if f.Offset > int64(len(c.raw)) {
				t.Errorf("offset %d of %d bytes", f.Offset, len(c.raw))
			}
		})
	}
	if _, err := readAll(bytes.NewReader(whole), spool(t), bundle.Limits{}, nil); err != nil {
		t.Fatalf("the control is refused: %v", err)
	}
}

// pad fills data up to whole blocks.
func pad(data []byte) []byte {
	return append(bytes.Clone(data), make([]byte, (512-len(data)%512)%512)...)
}

// patchedHeader changes a byte of a header and makes its checksum right again.
func patchedHeader(raw []byte, header, at int, c byte) []byte {
	out := bytes.Clone(raw)
	h := out[header : header+512]
	h[at] = c
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	for i := range 6 {
		h[148+i] = '0' + byte(sum>>(3*(5-i))&7)
	}
	h[154], h[155] = 0, ' '
	return out
}

func TestTheOffsetOfARefusalIsWhatWasHashed(t *testing.T) {
	one := content{path: "a.txt", data: []byte("first")}
	raw := plain(t, one)
	raw[len(raw)-1024-512] ^= 1 // in the blob
	in := bundle.NewReader(bytes.NewReader(raw), bundle.Limits{})
	err := drain(in)
	f := wantReason(t, err, bundle.BlobDigest)
	if f.Offset != in.Offset() || in.FileSHA256() != digest(raw[:f.Offset]) {
		t.Errorf("offset %d, reader at %d with %s, want %s", f.Offset, in.Offset(), in.FileSHA256(), digest(raw[:f.Offset]))
	}
	if again := drainBlobs(in); again != err {
		t.Errorf("after a refusal the reader says %v", again)
	}
}

func TestTheWholeFileIsLimited(t *testing.T) {
	raw := plain(t, content{path: "a.txt", data: []byte("first")})
	if _, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{Bytes: int64(len(raw))}, nil); err != nil {
		t.Fatalf("a file of the limit's size is refused: %v", err)
	}
	_, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{Bytes: int64(len(raw)) - 1}, nil)
	wantReason(t, err, bundle.TooLarge)
}

func TestAllAttestationsAreLimitedTogether(t *testing.T) {
	one := content{path: "a.txt", data: []byte("first")}
	var attestations []entry
	for i := range 5 {
		attestations = append(attestations, attestation(strings.Repeat(string(rune('a'+i)), 4<<20)))
	}
	slices.SortFunc(attestations, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	raw := container(t, append([]entry{{name: "stella.toml", data: manifest(one)}}, attestations...)...)
	_, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, nil)
	wantReason(t, err, bundle.AttestationTooLarge)
	raw = container(t, entry{name: "stella.toml", data: manifest(one)}, attestation(strings.Repeat("x", 4<<20+1)))
	_, err = readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, nil)
	wantReason(t, err, bundle.AttestationTooLarge)
}

func TestAReadErrorIsNoRefusal(t *testing.T) {
	raw := plain(t, content{path: "a.txt", data: []byte("first")})
	broken := errors.New("the stick is gone")
	for _, n := range []int{0, 100, 600, 1200, len(raw) - 1024 - 300, len(raw) - 10, len(raw)} {
		_, err := readAll(io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(broken)), spool(t), bundle.Limits{}, nil)
		var f *bundle.FormatError
		if !errors.Is(err, broken) || errors.As(err, &f) {
			t.Errorf("after %d bytes: %v, want the cause and no refusal", n, err)
		}
	}
}

func TestADeltaLeavesOutWhatTheSiteHolds(t *testing.T) {
	one, two, three := content{path: "a", data: []byte("1")}, content{path: "b", data: []byte("2")}, content{path: "c", data: []byte("3")}
	stella := entry{name: "stella.toml", data: manifest(one, two, three)}
	raw := container(t, append([]entry{stella}, blobs(two)...)...)
	var asked []string
	have := func(sum string) bool { asked = append(asked, sum); return sum != two.digest() }
	got, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, have)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{one.digest(), three.digest()}
	if !slices.Equal(got.absent, want) || !slices.Equal(asked, want) {
		t.Errorf("absent %v, asked for %v, want %v", got.absent, asked, want)
	}
	_, err = readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, func(sum string) bool { return sum != three.digest() })
	if f := wantReason(t, err, bundle.BlobMissing); !strings.Contains(f.Detail, "c is not") {
		t.Errorf("the refusal does not name the file: %v", f)
	}
	raw = container(t, append([]entry{stella}, blobs(three, one)...)...)
	_, err = readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, func(string) bool { return true })
	wantReason(t, err, bundle.EntryOrder)
}

func TestOneContentInTwoFilesIsOneBlob(t *testing.T) {
	one, again := content{path: "a", data: []byte("1")}, content{path: "b", data: []byte("1")}
	raw := container(t, entry{name: "stella.toml", data: manifest(one, again)}, entry{name: one.name(), data: one.data})
	if _, err := readAll(bytes.NewReader(raw), spool(t), bundle.Limits{}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestMethodsOutOfTurnAreErrors(t *testing.T) {
	raw := plain(t, content{path: "a", data: []byte("1")}, content{path: "b", data: []byte("2")})
	in := bundle.NewReader(bytes.NewReader(raw), bundle.Limits{})
	if in.Bind(nil, nil) == nil || in.End() == nil {
		t.Error("Bind or End before Head")
	}
	if _, err := in.NextBlob(); err == nil {
		t.Error("NextBlob before Head")
	}
	if _, err := in.NextAttestation(); err == nil {
		t.Error("NextAttestation before Head")
	}
	b := first(t, in)
	if _, err := in.Head(); err == nil {
		t.Error("Head twice")
	}
	if _, err := in.NextBlob(); err == nil {
		t.Error("NextBlob while one is open")
	}
	if err := b.CopyTo(io.Discard, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.CopyTo(io.Discard, nil); err == nil {
		t.Error("CopyTo twice")
	}
}
