package engine

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// TrustAdd is an addition to the policy of a site that has its root's key at
// hand: a publisher, or a further key of one.
type TrustAdd struct {
	Publisher    string
	KeyPEM       []byte // public key
	Kinds        []manifests.Kind
	Names        []string // prefixes of bundle names
	Threshold    int      // 0 leaves it as it is, 1 for a new publisher
	Level        string   // "" means enforce
	ValidFrom    time.Time
	ValidUntil   time.Time
	HostRead     []string // what its plugins may read of the host
	Interpreters []string // programs of the host that its scripts may name
	RootKey      string   // file of the root's private key; "" means keys/root.key
}

// AddTrust adds to the policy, signs it with the next serial, and puts it in
// force: sealed, then recorded, then written to trust/.
func (e *Engine) AddTrust(_ context.Context, actor string, add TrustAdd) (ledger.TrustRef, error) {
	if _, err := verify.ParsePublicKey(add.KeyPEM); err != nil {
		return ledger.TrustRef{}, invalid("%v", err)
	}
	now := e.opt.Now()
	dir := filepath.Join(e.opt.Home, "trust")
	e.mu.Lock()
	defer e.mu.Unlock()
	files, err := readTrust(dir)
	if err != nil {
		return ledger.TrustRef{}, internal(err)
	}
	policy, err := nextPolicy(e.trust.Policy(), add, now)
	if err != nil {
		return ledger.TrustRef{}, err
	}
	keyFile := add.RootKey
	if keyFile == "" {
		keyFile = filepath.Join(e.opt.Home, "keys", rootKey)
	}
	key, err := readPrivateKey(keyFile)
	if err != nil {
		return ledger.TrustRef{}, readError(keyFile, err)
	}
	raw := manifests.EncodePolicy(policy)
	if _, err := manifests.ParsePolicy("policy.toml", raw); err != nil {
		return ledger.TrustRef{}, faults(api.CodeInvalid, "the policy would not be valid", err)
	}
	sig, err := verify.SignManifest(raw, key)
	if err != nil {
		return ledger.TrustRef{}, internal(err)
	}
	files.Policy = verify.RoleFile{Raw: raw, Signatures: []bundle.Attached{sig}}
	next, err := e.trust.Successor(files, now)
	var refusal *verify.RejectError
	if errors.As(err, &refusal) {
		return ledger.TrustRef{}, &api.Error{Code: api.Code(refusal.Reason), Message: refusal.Error(), Hint: refusal.Hint,
			Refusal: &api.Refusal{Reason: string(refusal.Reason), Subject: refusal.Subject}}
	}
	if err != nil {
		return ledger.TrustRef{}, internal(err)
	}
	if err := sealTrust(e.db.Blobs(), files); err != nil {
		return ledger.TrustRef{}, spaceError(err)
	}
	change := next.Change("publisher " + add.Publisher)
	if _, err := e.db.Append(ledger.TrustChanged, actor, &change); err != nil {
		return ledger.TrustRef{}, dbError(err)
	}
	e.trust = next
	if err := writeTrust(dir, files); err != nil {
		return ledger.TrustRef{}, internal(err)
	}
	return next.Ref(), nil
}

// nextPolicy is the policy with the addition and the next serial.
func nextPolicy(old *manifests.Policy, add TrustAdd, now time.Time) (*manifests.Policy, error) {
	p := *old
	p.Serial, p.Issued, p.NextUpdate = old.Serial+1, now, now.AddDate(policyYears, 0, 0)
	p.Publishers = slices.Clone(old.Publishers)
	key := manifests.PublisherKey{PEM: string(add.KeyPEM), ValidFrom: add.ValidFrom, ValidUntil: add.ValidUntil}
	i := slices.IndexFunc(p.Publishers, func(x manifests.Publisher) bool { return x.Name == add.Publisher })
	if i < 0 {
		if len(add.Kinds) == 0 || len(add.Names) == 0 {
			return nil, invalid("a new publisher needs kinds and name prefixes")
		}
		p.Publishers = append(p.Publishers, manifests.Publisher{
			Name: add.Publisher, Level: cmpOr(add.Level, "enforce"), Threshold: max(1, add.Threshold),
			Kinds: add.Kinds, Names: add.Names, Keys: []manifests.PublisherKey{key},
			Allow: manifests.Allow{Network: "none", HostRead: add.HostRead, Interpreters: add.Interpreters},
		})
		return &p, nil
	}
	x := p.Publishers[i]
	x.Keys = append(slices.Clone(x.Keys), key)
	if add.Threshold > 0 {
		x.Threshold = add.Threshold
	}
	if add.Level != "" {
		x.Level = add.Level
	}
	if len(add.Kinds) > 0 {
		x.Kinds = add.Kinds
	}
	if len(add.Names) > 0 {
		x.Names = add.Names
	}
	if len(add.HostRead) > 0 {
		x.Allow.HostRead = add.HostRead
	}
	if len(add.Interpreters) > 0 {
		x.Allow.Interpreters = add.Interpreters
	}
	p.Publishers[i] = x
	return &p, nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Trust is the trust in force, for display: the policy's exact text too.
func (e *Engine) Trust() (ledger.TrustRef, []byte, error) {
	t := e.currentTrust()
	raw, err := fsx.ReadFile(filepath.Join(e.opt.Home, "trust", "policy.toml"), maxTrustFile)
	return t.Ref(), raw, err
}

// LoadTrust loads the trust files of a home without opening its site, for
// judgements outside it. They are held against nothing but their signatures.
func LoadTrust(home string) (*verify.Trust, error) {
	return LoadTrustDir(filepath.Join(home, "trust"))
}
