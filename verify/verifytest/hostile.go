package verifytest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// Hostile are files of somebody who has no key (THREATS 40), each as costly to
// read as its sender could make it. None may be admitted, whoever is trusted.
// Some have more than 10 MiB: they are made where they are needed.
func Hostile() map[string][]byte {
	out := map[string][]byte{"zeros": make([]byte, 8<<20)}
	hostileManifests(out)
	hostileSignatures(out)
	hostileAttestations(out)
	// Ten thousand entries and more, none of which costs its sender a thing.
	var many []Entry
	for i := range 100_000 {
		many = append(many, Entry{Name: bundle.SignatureName(fmt.Sprintf("%064x", i))})
	}
	out["100,000 signatures"] = Container(append([]Entry{{Name: bundle.ManifestName, Data: NewBundle().manifest()}}, many...)...)
	return out
}

// filled is a manifest of the largest size, full of one thing.
func filled(filler string) []byte {
	raw := []byte("schema = \"stella.bundle/1\"\n")
	return append(raw, strings.Repeat(filler, (bundle.MaxManifest-len(raw))/len(filler))...)
}

// fill is a text of the size, full of one thing between two others.
func fill(size int, before, filler, after string) []byte {
	return []byte(before + strings.Repeat(filler, (size-len(before)-len(after))/len(filler)) + after)
}

// claimed is a container with signatures that say nothing.
func claimed(manifest []byte, sigs ...[]byte) []byte {
	entries := []Entry{{Name: bundle.ManifestName, Data: manifest}}
	for i, s := range sigs {
		entries = append(entries, Entry{Name: bundle.SignatureName(fmt.Sprintf("%064x", i)), Data: s})
	}
	return Container(entries...)
}

func hostileManifests(out map[string][]byte) {
	nothing := []byte("{}")
	out["dotted keys"] = claimed(filled("a."), nothing)
	out["20,000 parts"] = claimed([]byte("schema = \"stella.bundle/1\"\n"+strings.Repeat("a.", 20_000)+"a = 1\n"), nothing)
	out["brackets"] = claimed(filled("["), nothing)
	out["tables"] = claimed(filled("[[a]]\n"), nothing)
	out["short keys"] = claimed(filled("\"\\u0061\" = 1\n"), nothing)
	out["list of ones"] = claimed(append(filled("a = [ 1,\n 1, 1, 1, 1, 1 ]\n"), '\n'), nothing)
	// As many files as a manifest can list, none of them there.
	m := NewBundle().Manifest
	for i := range 5000 {
		m.Files = append(m.Files, manifests.File{Path: fmt.Sprintf("%d", i), SHA256: digest(fmt.Sprint(i)), Size: 1, Mode: "0644"})
	}
	m.ContentDigest = manifests.ContentDigest(m.Files)
	out["5000 files"] = claimed(m.Encode())
	bomb := compress(make([]byte, 64<<20))
	m.Files = []manifests.File{{
		Path: "bomb", SHA256: digest("bomb"), Size: 1 << 40, Mode: "0644",
		Encoding: bundle.Encoding, StoredSHA256: bundle.Digest(bomb), StoredSize: int64(len(bomb)),
	}}
	m.ContentDigest = manifests.ContentDigest(m.Files)
	out["a bomb"] = Container(Entry{Name: bundle.ManifestName, Data: m.Encode()}, Entry{Name: "blobs/sha256/" + digest("bomb") + ".zst", Data: bomb})
}

func hostileSignatures(out map[string][]byte) {
	const most = bundle.MaxSignature
	for name, sig := range map[string][]byte{
		"nested JSON":     fill(most, `{"verificationMaterial":`, `{"a":`, ""),
		"nested arrays":   fill(most, "", "[", ""),
		"empty entries":   fill(most, `{"verificationMaterial":{"tlogEntries":[{}`, ",{}", `]}}`),
		"empty stamps":    fill(most, `{"verificationMaterial":{"timestampVerificationData":{"rfc3161Timestamps":[{}`, ",{}", `]}}}`),
		"a large payload": fill(most, `{"dsseEnvelope":{"payload":"`, "A", `"}}`),
	} {
		out[name] = claimed(filled("#"), slices.Repeat([][]byte{sig}, bundle.MaxSignatures)...)
	}
	// Sixteen good signatures by strangers over the largest manifest, and one
	// that claims to be by a trusted signer.
	raw := filled("a.")
	var keys []string
	for i := range bundle.MaxSignatures {
		keys = append(keys, fmt.Sprint("stranger-", i))
	}
	entries := []Entry{}
	for _, s := range Signatures(raw, keys...) {
		entries = append(entries, Entry{Name: bundle.SignatureName(s.ID), Data: s.Data})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	out["sixteen strangers"] = Container(append([]Entry{{Name: bundle.ManifestName, Data: raw}}, entries...)...)
	forged := Signatures([]byte("x"), "acme-1")[0]
	out["a forged signer"] = Container(Entry{Name: bundle.ManifestName, Data: raw}, Entry{Name: bundle.SignatureName(forged.ID), Data: forged.Data})
}

// hostileAttestations come with a manifest that anybody may have signed: only
// who looks at a bundle that nobody trusts reads so far.
func hostileAttestations(out map[string][]byte) {
	const most = bundle.MaxAttestation
	manifest := NewBundle().manifest()
	statement := Attestation(NewBundle().Digest(), Review, `"x"`, "stranger")
	with := func(list ...[]byte) []byte {
		entries := []Entry{}
		for _, data := range list {
			entries = append(entries, Entry{Name: bundle.AttestationName(bundle.Digest(data)), Data: data})
		}
		slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
		return Container(append([]Entry{{Name: bundle.ManifestName, Data: manifest}}, entries...)...)
	}
	large := func(n int) []byte { // in canonical form
		return Edit(statement, func(v map[string]any) {
			payload := []byte(fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"%d","subject":[],"predicate":"%s"}`, n, strings.Repeat("x", 3<<20-2048)))
			v["dsseEnvelope"].(object)["payload"] = b64(payload)
		}).Data
	}
	five := [][]byte{}
	for i := range 5 {
		five = append(five, large(i))
	}
	out["five attestations of 4 MiB"] = with(five...)
	out["attested entries"] = with(fill(most, `{"verificationMaterial":{"tlogEntries":[{}`, ",{}", `]}}`))
	out["attested nesting"] = with(fill(most, `{"verificationMaterial":`, `{"a":`, ""))
	out["attested members"] = with(fill(most, `{"mediaType":""`, `,"a":1`, `}`))
	out["attested white space"] = with(fill(most, `{`, " ", `}`))
}
