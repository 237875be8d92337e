package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// A trustClaim is what the files below trust/ say that they are, each for itself, signed or not
// and whatever became of the others: enough to show that a ledger may be a copy from before.
type trustClaim struct {
	root, policy, revocations int64           // 0: no file says
	revoked                   verify.RoleFile // the revocations, and what is there of their signatures
}

func claimOf(dir string) (c trustClaim) {
	entries, _ := os.ReadDir(filepath.Join(dir, "root"))
	for _, e := range entries[:min(len(entries), 2*maxRootChain)] { // each may have a folder of signatures
		if filepath.Ext(e.Name()) != ".toml" {
			continue
		}
		raw, err := fsx.ReadFile(filepath.Join(dir, "root", e.Name()), maxTrustFile)
		if err != nil {
			continue
		}
		if n, err := rootVersion(raw); err == nil {
			c.root = max(c.root, n)
		}
	}
	if raw, err := fsx.ReadFile(filepath.Join(dir, "policy.toml"), maxTrustFile); err == nil {
		if p, err := manifests.ParsePolicy("policy.toml", raw); err == nil {
			c.policy = p.Serial
		}
	}
	f, _ := readRoleFile(filepath.Join(dir, "revocations.toml"))
	if r, err := manifests.ParseRevocations("revocations.toml", f.Raw); err == nil {
		c.revocations, c.revoked = r.Serial, f
	}
	return c
}

// beyond says whether a file claims to be newer than that of r.
func (c trustClaim) beyond(r ledger.TrustRef) bool {
	return c.against(r) != ""
}

// against says what is newer than that of r.
func (c trustClaim) against(r ledger.TrustRef) string {
	var said []string
	for _, x := range []struct {
		what       string
		there, was int64
	}{{"a root has version", c.root, r.RootVersion}, {"policy.toml has serial", c.policy, r.PolicySerial}, {"revocations.toml has serial", c.revocations, r.RevocationSerial}} {
		if x.there > x.was {
			said = append(said, fmt.Sprintf("%s %d, not %d", x.what, x.there, x.was))
		}
	}
	return strings.Join(said, "; ")
}

// rolledBack says that a ledger may be a copy from before, since the claim is beyond that of r.
func (c trustClaim) rolledBack(home string, r ledger.TrustRef) error {
	snapshot := "the newest snapshot, which takes newer revocations over"
	if c.root > r.RootVersion {
		snapshot = "a snapshot from after the change of the root (one from before takes over nothing that keys of the new root have signed, and those keys cannot change its trust)"
	}
	return &api.Error{Code: api.CodeTrustChanged, Message: "trust/ has newer files than the ledger names: ledger.db may be a copy from before: " + c.against(r),
		Hint: "put back the ledger.db that they belong to, or restore " + snapshot + "; who knows that they are damaged or were never in force moves " + filepath.Join(home, "trust") + " away first"}
}

// follow is what is in force with newer revocations of the claim, and nothing else of it: they
// take nothing away that protects. It is nil where they are no newer, or do not follow.
func (c trustClaim) follow(last *inForce, now time.Time) *inForce {
	if c.revocations <= last.Ref().RevocationSerial {
		return nil
	}
	f := last.files
	f.Revocations = c.revoked
	t, err := last.Follow(f, now)
	if err != nil || !follows(t.Ref(), last.Ref()) {
		return nil
	}
	return &inForce{t, f}
}
