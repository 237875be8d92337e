package verifytest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
)

// rewritten is the small bundle with another text of its manifest, well signed.
func rewritten(edit func(text string) string) []byte {
	e := Entries(small())
	before := string(e[0].Data)
	text := edit(before)
	if text == before {
		panic("verifytest: the manifest was not changed")
	}
	e[0].Data = []byte(text)
	e[1] = signatureEntry(e[0].Data, "acme-1")
	return Container(e...)
}

// manifestForms are manifests that a publisher signed and that are refused.
func (l *list) manifestForms() {
	swap := func(old, new string) []byte {
		return rewritten(func(s string) string { return strings.Replace(s, old, new, 1) })
	}
	path := func(p string) []byte { return swap(`path = "text.txt"`, `path = `+p) }
	add := func(line string) []byte { return swap("\nkind = ", "\n"+line+"\nkind = ") }
	for _, c := range []struct {
		name string
		want bundle.Reason
		note string
		raw  []byte
	}{
		{"manifest-path-up", bundle.PathTraversal, "a file outside of the folder", path(`"../text.txt"`)},
		{"manifest-path-up-inside", bundle.PathTraversal, "a/../b", path(`"a/../text.txt"`)},
		{"manifest-path-absolute", bundle.PathTraversal, "an absolute path", path(`"/etc/passwd"`)},
		{"manifest-path-dot", bundle.PathTraversal, "a part that is a dot", path(`"./text.txt"`)},
		{"manifest-path-empty", bundle.PathTraversal, "no path", path(`""`)},
		{"manifest-path-empty-part", bundle.PathTraversal, "two slashes", path(`"a//text.txt"`)},
		{"manifest-path-backslash", bundle.PathForbidden, "a separator elsewhere", path(`'a\text.txt'`)},
		{"manifest-path-nul", bundle.PathForbidden, "a NUL", path(`"a\u0000.txt"`)},
		{"manifest-path-control", bundle.PathForbidden, "an escape for terminals", path(`"a\u001b[2J"`)},
		{"manifest-path-non-ascii", bundle.PathForbidden, "an umlaut", path(`"\u00e4.txt"`)},
		{"manifest-path-long", bundle.PathForbidden, "256 bytes", path(`"` + strings.Repeat("x", 256) + `"`)},
		{"manifest-case-collision", verify.CaseCollision, "two files that a folder without case cannot hold", path(`"LIST.txt"`)},
		{"manifest-path-twice", verify.CaseCollision, "one file twice", path(`"list.txt"`)},
		{"manifest-file-below-file", verify.ManifestInvalid, "a file that would have to be a folder too", path(`"list.txt/a"`)},
		{"manifest-deep-key", verify.ManifestTooComplex, "a name of five parts", add("a.b.c.d.e = 1")},
		{"manifest-deep-value", verify.ManifestTooComplex, "nine lists inside each other", add("a = [[[[[[[[[]]]]]]]]]")},
		{"manifest-long-line", verify.ManifestTooComplex, "a line of 4097 bytes", add("#" + strings.Repeat("x", 4096))},
		{"manifest-long-key", verify.ManifestTooComplex, "a name of 257 bytes", add(strings.Repeat("a", 257) + " = 1")},
		{"manifest-duplicate-key", verify.ManifestInvalid, "a key twice", swap("sequence = 7\n", "sequence = 7\nsequence = 8\n")},
		{"manifest-duplicate-table", verify.ManifestInvalid, "a table twice", rewritten(func(s string) string { return s + "\n[data]\nmedia_type = \"text/html\"\n" })},
		{"manifest-other-case", verify.ManifestInvalid, "a key in other letters", swap("sequence = 7", "Sequence = 7")},
		{"manifest-unknown-key", verify.ManifestInvalid, "a key that nobody knows", add("setuid = true")},
		{"manifest-other-section", verify.ManifestInvalid, "a section of another kind", rewritten(func(s string) string { return s + "\n[dag]\nspec = \"list.txt\"\n" })},
		{"manifest-missing-key", verify.ManifestInvalid, "no sequence", swap("sequence = 7\n", "")},
		{"manifest-float", verify.ManifestInvalid, "a sequence with a fraction", swap("sequence = 7", "sequence = 7.5")},
		{"manifest-hidden", verify.ManifestInvalid, "a text that reads in another direction", add("# \u202e")},
		{"manifest-not-utf8", verify.ManifestInvalid, "a byte that is not UTF-8", add("# \xff")},
		{"manifest-content-digest", verify.ManifestInvalid, "the digest of other files", swap(`mode = "0644"`, `mode = "0755"`)},
		{"manifest-byte-order-mark", bundle.SchemaUnknown, "a byte order mark", rewritten(func(s string) string { return "\ufeff" + s })},
		{"manifest-carriage-return", bundle.SchemaUnknown, "lines as Windows ends them", swap("\n", "\r\n")},
	} {
		l.attack(c.name, c.want, c.note, c.raw)
	}
}

// attestationForms are attestations that say the right thing in another way.
func (l *list) attestationForms() {
	sum := NewBundle().Digest()
	built, reviewed := Attestation(sum, Provenance, provenance, "builder"), Attestation(sum, Review, `{}`, "reviewer")
	edited := func(edit func(v map[string]any)) []byte {
		a := Edit(reviewed, edit)
		a.ID = bundle.Digest(a.Data)
		return attest(built, a)
	}
	envelope := func(v map[string]any) object { return v["dsseEnvelope"].(object) }
	blank := bundle.Attached{Data: append(bytes.Clone(reviewed.Data), '\n')}
	blank.ID = bundle.Digest(blank.Data)
	for _, c := range []struct {
		name string
		want bundle.Reason
		note string
		raw  []byte
	}{
		{"attestation-not-canonical", verify.AttestationNotCanonical, "a line feed after the JSON", attest(built, blank)},
		{"attestation-payload-type", verify.AttestationType, "another type of payload", edited(func(v map[string]any) { envelope(v)["payloadType"] = "text/plain" })},
		{"attestation-two-signatures", verify.AttestationMalformed, "an envelope with two signatures", edited(func(v map[string]any) {
			sigs := envelope(v)["signatures"].([]any)
			envelope(v)["signatures"] = append(sigs, sigs[0])
		})},
		{"attestation-keyid", verify.AttestationMalformed, "a key id that nothing signs", edited(func(v map[string]any) {
			envelope(v)["signatures"].([]any)[0].(object)["keyid"] = "acme"
		})},
		{"attestation-payload-changed", verify.AttestationInvalid, "a payload that was not signed", edited(func(v map[string]any) {
			envelope(v)["payload"] = b64([]byte(`{"verificationResult":"PASSED"}`))
		})},
		{"attestation-no-json", verify.AttestationMalformed, "no JSON", attest(built, bundle.Attached{ID: digest("x"), Data: []byte("x")})},
	} {
		l.add(c.name, trustAttested, string(c.want), c.note, c.raw)
	}
}

// zstdMagic begins a frame of RFC 8878.
const zstdMagic = "\x28\xb5\x2f\xfd"

// frames are blobs whose signed stored form is not the one frame that a bundle
// may have.
func (l *list) frames() {
	text := bytes.Repeat([]byte("a line of text\n"), 100)
	good := compress(text)
	// frame is a frame with that header and the text in one block, uncompressed.
	frame := func(header string, kind byte) []byte {
		n := len(text)<<3 | int(kind)<<1 | 1
		return slices.Concat([]byte(zstdMagic), []byte(header), []byte{byte(n), byte(n >> 8), byte(n >> 16)}, text)
	}
	for _, c := range []struct {
		name   string
		want   bundle.Reason
		note   string
		packed []byte
	}{
		{"blob-no-frame", bundle.BlobEncoding, "plain text that is said to be compressed", text},
		{"blob-frame-cut", bundle.BlobEncoding, "a frame without its end", good[:len(good)-1]},
		{"blob-frame-block", bundle.BlobEncoding, "a block of a reserved type", frame("\x00\x58", 3)},
		{"blob-frame-behind", bundle.BlobFrames, "a byte behind the frame", append(bytes.Clone(good), 0)},
		{"blob-frame-skipped", bundle.BlobFrames, "a skippable frame before the frame", append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), good...)},
		{"blob-window", bundle.BlobWindow, "a window of 16 MiB", frame("\x00\x70", 0)},
		{"blob-window-huge", bundle.BlobWindow, "a window of 3.75 TiB", frame("\x00\xff", 0)},
		{"blob-segment", bundle.BlobWindow, "a single segment of 4 GiB", frame("\xa0\xff\xff\xff\xff", 0)},
		{"blob-dictionary", bundle.BlobDictionary, "a frame that needs a dictionary", frame("\x01\x58\x07", 0)},
	} {
		l.attack(c.name, c.want, c.note, stored(text, c.packed))
	}
	l.add("blob-frame-plain", trustPlain, ExpectAdmit, "a frame of one block that is not compressed", stored(text, frame("\x00\x58", 0)))
}
