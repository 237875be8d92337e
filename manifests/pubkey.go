package manifests

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// A pubkey is a public key as a file names it.
type pubkey struct {
	pem string // as encoding/pem writes it
	id  string // hex SHA-256 of its SPKI DER
}

// parseKey reads one public key in PEM (RFC 7468), ECDSA on P-256 or P-384.
//
// No other kind: a Sigstore message signature of an Ed25519 key does not verify
// (the signature covers the message, the bundle holds its digest), and RSA
// brings a choice of paddings. Each key has one accepted encoding, so that it
// has one id.
func parseKey(text string) (pubkey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return pubkey{}, errors.New("is not a key in PEM")
	}
	if block.Type != "PUBLIC KEY" {
		return pubkey{}, fmt.Errorf("is a %s in PEM, not a PUBLIC KEY", show(block.Type))
	}
	canonical := string(pem.EncodeToMemory(block))
	if strings.TrimSpace(text) != strings.TrimSpace(canonical) {
		return pubkey{}, errors.New("is not the plain PEM form of one key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return pubkey{}, errors.New("holds no public key that can be read")
	}
	k, ok := parsed.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
		return pubkey{}, errors.New("is not an ECDSA key on P-256 or P-384")
	}
	if der, err := x509.MarshalPKIXPublicKey(k); err != nil || !bytes.Equal(der, block.Bytes) {
		return pubkey{}, errors.New("is not encoded in the usual way (DER, named curve, uncompressed point)")
	}
	id := sha256.Sum256(block.Bytes)
	return pubkey{pem: canonical, id: hex.EncodeToString(id[:])}, nil
}

const keyHint = "ECDSA on P-256 or P-384, as openssl pkey -pubout writes it"

// key parses a key and reports what is wrong with it at n.
func (r *report) key(value any, n *node) (pubkey, bool) {
	s, ok := value.(string)
	if !ok {
		r.add(n.line, n.path(), "want a string, found "+found(value), keyHint)
		return pubkey{}, false
	}
	k, err := parseKey(s)
	if err != nil {
		r.add(n.line, n.path(), err.Error(), keyHint)
		return pubkey{}, false
	}
	return k, true
}

// pubkeys reads a list of different keys. It also counts those that are wrong,
// and reports a list without any.
func (t *table) pubkeys(name string) (all []pubkey, wrong int) {
	seen := map[string]int{}
	t.elements(name, "a list of keys", func(value any, n *node) {
		k, ok := t.key(value, n)
		if !ok {
			wrong++
			return
		}
		if first := seen[k.id]; first > 0 {
			t.add(n.line, n.path(), "the key stands in the list twice", lineHint(first))
			return
		}
		seen[k.id] = n.line
		all = append(all, k)
	})
	if list, ok := t.values[name].([]any); ok && len(list) == 0 {
		t.fault(name, "has no key", "")
	}
	return all, wrong
}

func pems(keys []pubkey) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k.pem)
	}
	return all
}
