package verifytest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
)

// Where fields lie in a header of POSIX.1-1988 ustar.
const (
	modeField     = 100
	uidField      = 108
	gidField      = 116
	sizeField     = 124
	timeField     = 136
	checksumField = 148
	typeField     = 156
	linkField     = 157
	magicField    = 257
	unameField    = 265
	gnameField    = 297
	majorField    = 329
	prefixField   = 345
)

// small is the container that the attacks change: one signature, two blobs.
func small() []byte { return NewBundle().Sign("acme-1") }

// headers are the offsets of the headers in a well-formed container.
func headers(raw []byte) []int {
	var out []int
	at := 0
	for _, e := range Entries(raw) {
		out = append(out, at)
		at += 512 + (len(e.Data)+511)/512*512
	}
	return out
}

// Patched is a container whose entry number n has the bytes of field in its
// header, with a checksum that fits.
func Patched(raw []byte, n, field int, value string) []byte {
	raw = bytes.Clone(raw)
	h := raw[headers(raw)[n]:][:512]
	copy(h[field:], value)
	copy(h[checksumField:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[checksumField:], fmt.Sprintf("%06o\x00 ", sum))
	return raw
}

// attacks are what somebody without a key can do to a container.
func (l *list) attacks() {
	l.types()
	l.names()
	l.headers()
	l.places()
	l.ends()
}

func (l *list) attack(name string, want bundle.Reason, note string, raw []byte) {
	l.add(name, trustPlain, string(want), note, raw)
}

// inserted is the small container with one more entry behind the last.
func inserted(e Entry) []byte { return Container(append(Entries(small()), e)...) }

// types: entries that are no regular files.
func (l *list) types() {
	last := len(Entries(small())) - 1
	set := func(edit func(*tar.Header)) []byte {
		e := Entries(small())
		e[last].Edit = func(h *tar.Header) { h.Size = 0; edit(h) }
		return Container(e...)
	}
	l.attack("hard-link", bundle.EntryLink, "a hard link to the manifest", set(func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeLink, bundle.ManifestName }))
	l.attack("char-device", bundle.EntryDevice, "/dev/zero in the place of a blob", set(func(h *tar.Header) { h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 5 }))
	l.attack("block-device", bundle.EntryDevice, "a disk in the place of a blob", set(func(h *tar.Header) { h.Typeflag, h.Devmajor = tar.TypeBlock, 8 }))
	l.attack("fifo", bundle.EntryDevice, "a pipe in the place of a blob", set(func(h *tar.Header) { h.Typeflag = tar.TypeFifo }))
	l.attack("folder", bundle.EntryFolder, "a folder before its files", Container(slices.Insert(Entries(small()), 1, Entry{Name: "signatures/", Edit: func(h *tar.Header) { h.Typeflag = tar.TypeDir }})...))
	l.attack("pax-local", bundle.EntryExtended, "a PAX header renames a blob", set(func(h *tar.Header) { h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"comment": "x"} }))
	for _, c := range []struct {
		name string
		want bundle.Reason
		note string
		flag string
	}{
		{"pax-global", bundle.EntryExtended, "a PAX header for all that follows", "g"},
		{"gnu-long-name", bundle.EntryExtended, "a GNU long name for the next entry", "L"},
		{"gnu-long-link", bundle.EntryExtended, "a GNU long link for the next entry", "K"},
		{"gnu-sparse", bundle.EntrySparse, "a GNU sparse file", "S"},
		{"contiguous", bundle.EntryType, "a contiguous file", "7"},
		{"volume-label", bundle.EntryType, "a GNU volume label", "V"},
		{"type-nul", bundle.HeaderInvalid, "a regular file as tars before ustar wrote it", "\x00"},
	} {
		l.attack(c.name, c.want, c.note, Patched(small(), last, typeField, c.flag))
	}
}

// names: entries that are called what no entry may be called.
func (l *list) names() {
	named := func(name string) []byte {
		// archive/tar would write some of these in another format.
		return Patched(inserted(Entry{Name: "x", Data: []byte("x")}), len(Entries(small())), 0, name)
	}
	for _, c := range []struct {
		name string
		want bundle.Reason
		note string
		path string
	}{
		{"path-up", bundle.PathTraversal, "out of the folder", "../x"},
		{"path-up-inside", bundle.PathTraversal, "up and down again", "blobs/../x"},
		{"path-absolute", bundle.PathTraversal, "an absolute path", "/etc/passwd"},
		{"path-dot", bundle.PathTraversal, "with ./ before it, as tar writes it", "./x"},
		{"path-empty-part", bundle.PathTraversal, "an empty part", "blobs//x"},
		{"path-slash-behind", bundle.PathTraversal, "a file that is called as a folder", "x/"},
		{"path-backslash", bundle.PathForbidden, "a separator elsewhere", `blobs\x`},
		{"path-drive", bundle.PathForbidden, "a drive", "c:x"},
		{"path-control", bundle.PathForbidden, "an escape for terminals", "x\x1b[2J"},
		{"path-line-feed", bundle.PathForbidden, "a line feed", "x\ny"},
		{"path-space", bundle.PathForbidden, "a blank", "x y"},
		{"path-non-ascii", bundle.PathForbidden, "an umlaut", "\u00e4.txt"},
		{"path-nul", bundle.PathForbidden, "a NUL, and more behind it", "x\x00y"},
		{"macos-double", bundle.EntryUnexpected, "what macOS puts beside a file", "._stella.toml"},
		{"macos-store", bundle.EntryUnexpected, "what macOS puts into a folder", ".DS_Store"},
		{"entry-other-case", bundle.EntryUnexpected, "the manifest in capitals", "STELLA.TOML"},
		{"entry-blob-upper-case", bundle.EntryUnexpected, "a blob whose digest is in capitals", "blobs/sha256/" + strings.Repeat("A", 64)},
		{"entry-signature-upper-case", bundle.EntryUnexpected, "a signature whose id is in capitals", "signatures/" + strings.Repeat("A", 64) + ".sigstore.json"},
	} {
		l.attack(c.name, c.want, c.note, named(c.path))
	}
	// The longest name that USTAR can write needs its prefix, which no bundle has.
	long := Patched(inserted(Entry{Name: "x", Data: []byte("x")}), len(Entries(small())), prefixField, strings.Repeat("p", 155))
	l.attack("path-prefix", bundle.HeaderInvalid, "a name of two fields", Patched(long, len(Entries(small())), 0, strings.Repeat("n", 99)))
	up := Patched(inserted(Entry{Name: "x", Data: []byte("x")}), len(Entries(small())), prefixField, "..")
	l.attack("path-prefix-up", bundle.PathTraversal, "out of the folder by the field before the name", up)
	l.attack("macos-first", bundle.NotABundle, "what macOS puts before the manifest", Container(slices.Insert(Entries(small()), 0, Entry{Name: "._stella.toml", Data: []byte("x")})...))
	l.attack("dot-first", bundle.NotABundle, "tar of a folder: ./stella.toml", Patched(small(), 0, 0, "./stella.toml"))
}

// headers: regular files that are written in another form.
func (l *list) headers() {
	last := len(Entries(small())) - 1
	size := Entries(small())[last].Data
	for _, c := range []struct {
		name  string
		want  bundle.Reason
		note  string
		field int
		value string
	}{
		{"header-setuid", bundle.HeaderInvalid, "mode 4755", modeField, "0004755\x00"},
		{"header-uid", bundle.HeaderInvalid, "another owner", uidField, "0001750\x00"},
		{"header-gid", bundle.HeaderInvalid, "another group", gidField, "0001750\x00"},
		{"header-user", bundle.HeaderInvalid, "the name of an owner", unameField, "root"},
		{"header-group", bundle.HeaderInvalid, "the name of a group", gnameField, "wheel"},
		{"header-device", bundle.HeaderInvalid, "a device number at a regular file", majorField, "0000010\x00"},
		{"header-link", bundle.HeaderInvalid, "a target at a regular file", linkField, "/etc/passwd"},
		{"header-gnu", bundle.HeaderInvalid, "GNU tar's magic", magicField, "ustar  \x00"},
		{"header-v7", bundle.HeaderInvalid, "no magic", magicField, "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"header-behind", bundle.HeaderInvalid, "a byte behind all fields", 511, "x"},
		{"header-time-base-256", bundle.HeaderInvalid, "a time in base 256", timeField, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
		{"size-base-256", bundle.EntrySize, "the right size in base 256", sizeField, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00" + string([]byte{byte(len(size) >> 8), byte(len(size))})},
		{"size-8-gib", bundle.EntrySize, "8 GiB, which octal cannot say", sizeField, "\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00"},
		{"size-negative", bundle.EntrySize, "a negative size", sizeField, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"},
		{"size-blanks", bundle.EntrySize, "a size filled up with blanks, as old tars wrote it", sizeField, fmt.Sprintf("%11o ", len(size))},
		{"size-huge", bundle.TooLarge, "the largest size that octal can say", sizeField, "77777777777\x00"},
	} {
		l.attack(c.name, c.want, c.note, Patched(small(), last, c.field, c.value))
	}
	wrong := small()
	wrong[headers(wrong)[last]+sizeField+5] ^= 1
	l.attack("checksum-wrong", bundle.HeaderChecksum, "a bit of a header is turned over", wrong)
	other := small()
	field := other[headers(other)[last]+checksumField:][:8]
	copy(field, "0"+string(field[:6])+"\x00")
	l.attack("checksum-form", bundle.HeaderInvalid, "the right checksum in other digits", other)
}

// places: good entries where they do not belong.
func (l *list) places() {
	e := func() []Entry { return Entries(NewBundle().Sign("acme-1", "acme-2")) }
	statement := Attestation(NewBundle().Digest(), Review, `{}`, "reviewer")
	attestation := Entry{Name: bundle.AttestationName(statement.ID), Data: statement.Data}
	l.attack("duplicate-manifest", bundle.EntryDuplicate, "a second manifest", Container(append(e(), e()[0])...))
	l.attack("duplicate-blob", bundle.EntryDuplicate, "a blob twice", Container(append(e(), e()[4])...))
	l.attack("signature-late", bundle.EntryOrder, "a signature behind the blobs", Container(append(slices.Delete(e(), 2, 3), e()[2])...))
	l.attack("attestation-late", bundle.EntryOrder, "an attestation behind the blobs", Container(append(e(), attestation)...))
	l.attack("attestation-first", bundle.EntryOrder, "an attestation before a signature", Container(slices.Insert(e(), 2, attestation)...))
	l.attack("blobs-swapped", bundle.BlobMissing, "a blob behind one that the manifest names later: not there in its turn", blobsSwapped())
	l.attack("unexpected-blob", bundle.EntryUnexpected, "a blob that the manifest does not name", inserted(Entry{Name: "blobs/sha256/" + digest("x"), Data: []byte("x")}))
	l.attack("unexpected-form", bundle.EntryUnexpected, "a plain blob with the name of a compressed one", inserted(Entry{Name: e()[3].Name + ".zst", Data: []byte("x")}))
}

// blobsSwapped has its two blobs in the other order.
func blobsSwapped() []byte {
	b := NewBundle()
	b.Files = map[string]string{"a": "1", "b": "2"}
	e := Entries(b.Sign("acme-1"))
	return Container(e[0], e[1], e[3], e[2])
}

// ends: files that end too early or too late.
func (l *list) ends() {
	raw := small()
	at := headers(raw)
	last := at[len(at)-1]
	end := len(raw) - 1024
	for _, c := range []struct {
		name string
		note string
		cut  int
	}{
		{"empty", "no byte at all", 0},
		{"truncated-first-header", "inside the first header", 100},
		{"truncated-manifest", "inside the manifest", 512 + 10},
		{"truncated-manifest-padding", "between the manifest and the next header", at[1] - 1},
		{"truncated-signature", "inside a signature", at[1] + 512 + 10},
		{"truncated-header", "inside a header", last + 300},
		{"truncated-blob", "inside a blob", last + 512 + 3},
		{"truncated-padding", "inside the padding of the last blob", end - 1},
		{"no-end", "before the end marker", end},
		{"truncated-end", "inside the second block of the end marker", end + 600},
	} {
		l.attack(c.name, bundle.Truncated, c.note, raw[:c.cut])
	}
	l.attack("one-zero-block", bundle.TrailingData, "one block of zeros, then another entry", append(bytes.Clone(raw[:end+512]), raw[:512]...))
	l.attack("three-zero-blocks", bundle.TrailingData, "three blocks of zeros", append(bytes.Clone(raw), make([]byte, 512)...))
	l.attack("blocking-factor", bundle.TrailingData, "filled up to 10 KiB, as tar does", append(bytes.Clone(raw), make([]byte, 10240-len(raw)%10240)...))
	l.attack("two-bundles", bundle.TrailingData, "a second bundle behind the first", append(bytes.Clone(raw), raw...))
}

// signatureForms are signatures that say the right thing in another way.
func (l *list) signatureForms() {
	unsigned, packed := NewBundle().Pack(bundle.PackOptions{})
	sign := func() bundle.Attached { return Signatures(packed.Raw, "acme-1")[0] }
	with := func(sigs ...bundle.Attached) []byte { return Attach(unsigned, sigs, nil) }
	text := func(edit func(string) string) []byte {
		s := sign()
		s.Data = []byte(edit(string(s.Data)))
		return with(s)
	}
	json := func(edit func(v map[string]any)) []byte { return with(Edit(sign(), edit)) }
	hinted := func(hint string) []byte {
		return json(func(v map[string]any) { v["verificationMaterial"].(object)["publicKey"].(object)["hint"] = hint })
	}
	signed := func(value func(string) string) []byte {
		return json(func(v map[string]any) {
			m := v["messageSignature"].(object)
			m["signature"] = value(m["signature"].(string))
		})
	}
	bad, other, id := verify.SignatureMalformed, verify.SignatureNotCanonical, verify.SignatureID
	l.attack("signature-no-json", bad, "no JSON", text(func(string) string { return "x" }))
	l.attack("signature-empty", bad, "an empty file", text(func(string) string { return "" }))
	l.attack("signature-duplicate-member", bad, "a member of the JSON twice", text(func(s string) string {
		return strings.Replace(s, `{"mediaType"`, `{"mediaType":"x","mediaType"`, 1)
	}))
	l.attack("signature-unknown-member", bad, "a member that no Sigstore bundle has", json(func(v map[string]any) { v["note"] = "x" }))
	l.attack("signature-media-type", bad, "a later Sigstore bundle", json(func(v map[string]any) { v["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json" }))
	l.attack("signature-der", bad, "bytes behind the DER of the signature", signed(func(s string) string { return b64(append(unb64(s), 0)) }))
	l.attack("signature-no-hint", id, "it does not say by whom it is", hinted(""))
	l.attack("signature-hint-hex", id, "its key's hash in hex", hinted(KeyID("acme-1")))
	l.attack("signature-hint-unpadded", id, "its key's hash in base64 without padding", hinted(strings.TrimRight(b64(unhex(KeyID("acme-1"))), "=")))
	l.attack("signature-hint-of-another", id, "the hash of another key", hinted(b64(unhex(KeyID("acme-2")))))
	l.attack("signature-blanks", other, "a blank in the JSON", text(func(s string) string { return strings.Replace(s, ":", ": ", 1) }))
	l.attack("signature-order", other, "members in another order", text(func(s string) string {
		first := `"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",`
		return strings.TrimSuffix(strings.Replace(s, first, "", 1), "}") + "," + strings.TrimSuffix(first, ",") + "}"
	}))
	l.attack("signature-escapes", other, "a letter as an escape", text(func(s string) string { return strings.Replace(s, "mediaType", `\u006dediaType`, 1) }))
	l.attack("signature-names", other, "names in the other spelling of protobuf", text(func(s string) string { return strings.Replace(s, "mediaType", "media_type", 1) }))
	l.attack("signature-base64-unpadded", other, "base64 without padding", signed(func(s string) string { return strings.TrimRight(s, "=") }))
	l.attack("signature-base64-url", other, "base64 for URLs", signed(func(s string) string { return strings.NewReplacer("+", "-", "/", "_").Replace(s) }))
	l.malleated(with, packed.Raw)
}

// malleated: whoever has one ECDSA signature can make the other one (r, n-s).
func (l *list) malleated(with func(...bundle.Attached) []byte, manifest []byte) {
	one := Signatures(manifest, "acme-1")[0]
	second := Edit(one, func(v map[string]any) {
		m := v["messageSignature"].(object)
		m["signature"] = b64(malleated(unb64(m["signature"].(string)), true))
	})
	l.add("malleated", trustPlain, ExpectAdmit, "the other signature that follows from one is by the same signer", with(second))
	l.add("malleated-alone", trustTwo, string(verify.ThresholdNotMet), "and makes no second signer", with(second))
	renamed := second
	renamed.ID = KeyID("acme-2")
	l.add("malleated-renamed", trustTwo, string(verify.SignatureID), "nor does another name", with(one, renamed))
	twice := Entries(with(one))
	l.add("malleated-beside", trustTwo, string(bundle.EntryDuplicate), "nor both side by side",
		Container(slices.Insert(twice, 2, Entry{Name: twice[1].Name, Data: second.Data})...))
}
