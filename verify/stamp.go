package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// maxDER is how deep the elements of a timestamp may nest; one with a chain of
// certificates needs about 15.
const maxDER = 32

// Parts of a timestamp that have one accepted form, in DER.
var (
	derGranted    = []byte{0x30, 3, 2, 1, 0} // the whole status: no text, no failure
	derSignedData = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}
	derTSTInfo    = []byte{6, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 0x10, 1, 4}
	derOne        = []byte{2, 1, 1}
	derThree      = []byte{2, 1, 3}
)

// Tags of context-specific elements, all of them constructed.
const tagZero = 0xa0

// element is one element of DER with those in it.
type element struct {
	raw  []byte
	kids []element // of a constructed one
}

// elements reads what fills raw exactly. Lengths are minimal, which the parser
// sees to, and each element ends where the one around it does.
func elements(raw []byte, depth int) ([]element, error) {
	var out []element
	for len(raw) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(raw, &v)
		if err != nil {
			return nil, err
		}
		e := element{raw: v.FullBytes}
		if v.IsCompound {
			if depth == 0 {
				return nil, fmt.Errorf("it is nested more than %d deep", maxDER)
			}
			if e.kids, err = elements(v.Bytes, depth-1); err != nil {
				return nil, err
			}
		}
		out, raw = append(out, e), rest
	}
	return out, nil
}

// is says whether e is exactly want.
func (e element) is(want []byte) bool { return bytes.Equal(e.raw, want) }

// has says whether e is constructed, with that tag and so many elements.
func (e element) has(tag byte, kids int) bool { return e.raw[0] == tag && len(e.kids) == kids }

// stampShape refuses what nothing signs in a timestamp (RFC 3161) and the
// library does not look at: it is a granted response in DER with one signer, and
// holds no more than that needs. (An empty list of certificates may be there or
// not: authorities in use write one.)
func stampShape(raw []byte) error {
	if _, err := stampCertificates(raw); err != nil {
		return fmt.Errorf("%w: a timestamp: %v", errMalformed, err)
	}
	return nil
}

// stampCertificates checks the shape of a timestamp and returns the
// certificates in it, in DER.
func stampCertificates(raw []byte) ([][]byte, error) {
	form := fmt.Errorf("it is not a granted response in the accepted form")
	top, err := elements(raw, maxDER)
	if err != nil {
		return nil, err
	}
	if len(top) != 1 || !top[0].has(0x30, 2) {
		return nil, form
	}
	status, token := top[0].kids[0], top[0].kids[1]
	if !status.is(derGranted) || !token.has(0x30, 2) || !token.kids[0].is(derSignedData) || !token.kids[1].has(tagZero, 1) {
		return nil, form
	}
	data := token.kids[1].kids[0]
	if len(data.kids) < 4 || !data.kids[0].is(derThree) || !data.kids[1].has(0x31, 1) ||
		!data.kids[2].has(0x30, 2) || !data.kids[2].kids[0].is(derTSTInfo) || !data.kids[2].kids[1].has(tagZero, 1) ||
		data.kids[2].kids[1].kids[0].raw[0] != asn1.TagOctetString {
		return nil, form
	}
	digest, rest := data.kids[1].kids[0], data.kids[3:]
	var certs [][]byte
	if rest[0].raw[0] == tagZero {
		for _, c := range rest[0].kids {
			certs = append(certs, c.raw)
		}
		rest = rest[1:]
	}
	if len(rest) != 1 || !rest[0].has(0x31, 1) || !signerShape(rest[0].kids[0], digest) {
		return nil, form
	}
	return certs, nil
}

// signerShape looks at a SignerInfo: its digest is the one named outside, its
// attributes are sorted, and no unsigned ones follow.
func signerShape(s, digest element) bool {
	if !s.has(0x30, 6) || !s.kids[0].is(derOne) || !s.kids[1].has(0x30, 2) || !s.kids[2].is(digest.raw) || s.kids[3].raw[0] != tagZero {
		return false
	}
	return slices.IsSortedFunc(s.kids[3].kids, func(a, b element) int { return bytes.Compare(a.raw, b.raw) })
}

// known says whether the certificates that a timestamp brings are those of an
// authority of m, each once: others would be there unverified.
func (m *material) known(stamp []byte) error {
	certs, err := stampCertificates(stamp)
	if err != nil {
		return err
	}
	var named []*x509.Certificate
	for _, tsa := range m.tsas {
		if s, ok := tsa.(*root.SigstoreTimestampingAuthority); ok {
			named = append(append(named, s.Leaf, s.Root), s.Intermediates...)
		}
	}
	for i, c := range certs {
		again := slices.ContainsFunc(certs[:i], func(x []byte) bool { return bytes.Equal(x, c) })
		if again || !slices.ContainsFunc(named, func(x *x509.Certificate) bool { return x != nil && bytes.Equal(x.Raw, c) }) {
			return fmt.Errorf("a timestamp brings a certificate that is not one of its authority's, or twice")
		}
	}
	return nil
}
