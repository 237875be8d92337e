package engine

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Names of the files in keys/: one key per purpose.
const (
	logKey    = "log.key"    // Ed25519, signs checkpoints
	siteKey   = "site.key"   // P-256, signs exports and attestations
	ageKey    = "age.key"    // X25519, in the form that age reads
	hmacKey   = "hmac.key"   // 32 bytes in hex: idempotency keys
	redactKey = "redact.key" // 32 bytes in hex: redaction markers
	cookieKey = "cookie"     // 32 bytes in hex: whoever can read it may use the socket
	rootKey   = "root.key"   // P-256, only where the site is its own root
	logPub    = "log.pub"    // what an auditor holds, SPKI PEM; derived
	sitePub   = "site.pub"   // likewise
)

// maxKeyFile bounds what is read of a key file.
const maxKeyFile = 16 << 10

// newKeys makes the keys of a site in dir and returns the public ones by
// purpose, as base64 of their SPKI DER.
func newKeys(dir string, withRoot bool) (map[string]string, error) {
	pub := map[string]string{}
	files := map[string][]byte{}
	add := func(purpose string, key any) error {
		der, err := x509.MarshalPKIXPublicKey(key)
		pub[purpose] = base64.StdEncoding.EncodeToString(der)
		return err
	}
	logPublic, logPriv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(logPriv)
	if err != nil {
		return nil, err
	}
	files[logKey] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if files[logPub], err = publicPEM(logPublic); err != nil {
		return nil, err
	}
	if err := add("log", logPublic); err != nil {
		return nil, err
	}
	names := map[string]string{"site": siteKey}
	if withRoot {
		names["root"] = rootKey
	}
	for purpose, name := range names {
		key, err := verify.GenerateKey()
		if err != nil {
			return nil, err
		}
		if files[name], err = verify.MarshalPrivateKey(key); err != nil {
			return nil, err
		}
		if err := add(purpose, &key.PublicKey); err != nil {
			return nil, err
		}
		if purpose == "site" {
			if files[sitePub], err = publicPEM(&key.PublicKey); err != nil {
				return nil, err
			}
		}
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	files[ageKey] = []byte(strings.ToUpper(bech32("age-secret-key-", x.Bytes())) + "\n")
	if err := add("age", x.PublicKey()); err != nil {
		return nil, err
	}
	for _, name := range []string{hmacKey, redactKey, cookieKey} {
		var b [32]byte
		rand.Read(b[:])
		files[name] = []byte(hex.EncodeToString(b[:]) + "\n")
	}
	for name, raw := range files {
		if err := fsx.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			return nil, err
		}
	}
	return pub, nil
}

// keys are the private keys that an open site uses.
type keys struct {
	log    ed25519.PrivateKey
	site   *ecdsa.PrivateKey
	hmac   []byte
	age    []byte // as in the file
	redact []byte
	cookie []byte // as in the file, without its line feed
}

func readKeys(dir string) (*keys, error) {
	k := &keys{}
	raw, err := fsx.ReadFile(filepath.Join(dir, logKey), maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("log key: %s is not PEM", logKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	var ok bool
	if k.log, ok = parsed.(ed25519.PrivateKey); !ok {
		return nil, fmt.Errorf("log key: %T is not Ed25519", parsed)
	}
	if k.site, err = readPrivateKey(filepath.Join(dir, siteKey)); err != nil {
		return nil, fmt.Errorf("site key: %w", err)
	}
	if raw, err = fsx.ReadFile(filepath.Join(dir, hmacKey), maxKeyFile); err != nil {
		return nil, fmt.Errorf("hmac key: %w", err)
	}
	if k.hmac, err = hex.DecodeString(strings.TrimSpace(string(raw))); err != nil || len(k.hmac) != 32 {
		return nil, fmt.Errorf("hmac key: %s does not hold 32 bytes in hex", hmacKey)
	}
	if raw, err = fsx.ReadFile(filepath.Join(dir, redactKey), maxKeyFile); err != nil {
		return nil, fmt.Errorf("redact key: %w", err)
	}
	if k.redact, err = hex.DecodeString(strings.TrimSpace(string(raw))); err != nil || len(k.redact) != 32 {
		return nil, fmt.Errorf("redact key: %s does not hold 32 bytes in hex", redactKey)
	}
	if k.age, err = fsx.ReadFile(filepath.Join(dir, ageKey), maxKeyFile); err != nil {
		return nil, fmt.Errorf("age key: %w", err)
	}
	if raw, err = fsx.ReadFile(filepath.Join(dir, cookieKey), maxKeyFile); err != nil {
		return nil, fmt.Errorf("cookie: %w", err)
	}
	k.cookie = []byte(strings.TrimSpace(string(raw)))
	if len(k.cookie) != 64 {
		return nil, fmt.Errorf("cookie: %s does not hold 32 bytes in hex", cookieKey)
	}
	return k, nil
}

func readPrivateKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := fsx.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	return verify.ParsePrivateKey(raw)
}

// signingKey is a private key with what trust files know of it.
type signingKey struct {
	key *ecdsa.PrivateKey
	id  string
	pem string // public
}

func readSigningKey(path string) (*signingKey, error) {
	key, err := readPrivateKey(path)
	if err != nil {
		return nil, err
	}
	return newSigningKey(key)
}

func newSigningKey(key *ecdsa.PrivateKey) (*signingKey, error) {
	pub, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &signingKey{key, verify.KeyID(&key.PublicKey), string(pub)}, nil
}

// logPublic is the key that checks checkpoints.
func (k *keys) logPublic() ed25519.PublicKey { return k.log.Public().(ed25519.PublicKey) }

// ofHome refuses a ledger of another site than the one whose checkpoint the home has: neither
// its keys nor its checkpoint are what is wrong then.
func ofHome(home string, init *ledger.SiteInit) error {
	note, err := fsx.ReadFile(filepath.Join(home, noteName), ledger.MaxNote)
	if err != nil {
		return nil // a floor that is lost is told as such
	}
	says, err := ledger.ParseCheckpoint(note)
	if err != nil {
		return nil
	}
	site, _, err := ledger.ParseOrigin(says.Origin)
	if err != nil || site == init.SiteID {
		return nil
	}
	return &api.Error{Code: api.CodeDamaged, Message: fmt.Sprintf("ledger.db is of site %s, and this home is of site %s, by its %s", init.SiteID, site, noteName),
		Hint: "nothing was written; put back the ledger.db of this site, or restore a snapshot of it: " + restoreCommand(home)}
}

// belong refuses keys that are not those which entry 0 of a ledger binds. What such a key
// signs or encrypts is worth nothing once the right one is back. The key of the root is
// not among them: it changes, and the trust files say which one it is.
func (k *keys) belong(init *ledger.SiteInit) error {
	for _, key := range []struct{ purpose, file string }{{"log", logKey}, {"site", siteKey}, {"age", ageKey}} {
		der, err := base64.StdEncoding.DecodeString(init.Keys[key.purpose])
		if err != nil {
			return damaged("entry 0: its %s key: %v", key.purpose, err)
		}
		bound, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return damaged("entry 0: its %s key: %v", key.purpose, err)
		}
		if !k.has(bound) {
			return &api.Error{Code: api.CodeDamaged, Message: "keys/" + key.file + " is not the key that entry 0 of the ledger binds",
				Hint: "put back the copy of keys/ that was made of this site; nothing was written"}
		}
	}
	return nil
}

// has says whether a public key is that of one of k: each purpose has a kind of its own.
func (k *keys) has(public any) bool {
	switch p := public.(type) {
	case ed25519.PublicKey:
		return k.logPublic().Equal(p)
	case *ecdsa.PublicKey:
		return k.site.PublicKey.Equal(p)
	case *ecdh.PublicKey:
		recipient, err := store.AgeRecipient(k.age)
		return err == nil && recipient == bech32("age", p.Bytes())
	}
	return false
}

// bech32 is the encoding of BIP 173 that age uses for its keys, in lower case.
func bech32(hrp string, data []byte) string {
	const charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	values := regroup(data)
	expanded := make([]byte, 0, 2*len(hrp)+1+len(values)+6)
	for _, c := range []byte(hrp) {
		expanded = append(expanded, c>>5)
	}
	expanded = append(expanded, 0)
	for _, c := range []byte(hrp) {
		expanded = append(expanded, c&31)
	}
	sum := polymod(append(append(expanded, values...), 0, 0, 0, 0, 0, 0)) ^ 1
	out := []byte(hrp + "1")
	for _, v := range values {
		out = append(out, charset[v])
	}
	for i := range 6 {
		out = append(out, charset[sum>>(5*(5-i))&31])
	}
	return string(out)
}

// regroup cuts bytes into groups of five bits.
func regroup(data []byte) []byte {
	var out []byte
	acc, bits := 0, 0
	for _, b := range data {
		acc, bits = acc<<8|int(b), bits+8
		for bits >= 5 {
			bits -= 5
			out = append(out, byte(acc>>bits&31))
		}
		acc &= 1<<bits - 1
	}
	if bits > 0 {
		out = append(out, byte(acc<<(5-bits)&31))
	}
	return out
}

func polymod(values []byte) uint32 {
	sum := uint32(1)
	for _, v := range values {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(v)
		for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	return sum
}
