package ledger_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

const siteID = "00112233445566778899aabbccddeeff"

// logKey is a key that everybody knows.
func logKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("ledger test key"))
	return ed25519.NewKeyFromSeed(seed[:])
}

func logPub() ed25519.PublicKey { return logKey().Public().(ed25519.PublicKey) }

// digest is some digest, a different one for each s.
func digest(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// hashes keeps stored hashes in memory.
type hashes []ledger.Hash

func (h hashes) ReadHashes(indexes []int64) ([]ledger.Hash, error) {
	out := make([]ledger.Hash, len(indexes))
	for i, at := range indexes {
		if at < 0 || at >= int64(len(h)) {
			return nil, fmt.Errorf("no hash at index %d", at)
		}
		out[i] = h[at]
	}
	return out, nil
}

// tree is the tree of n leaves with different lines, and its leaves.
func tree(t testing.TB, n int64) (hashes, []ledger.Hash) {
	t.Helper()
	var h hashes
	var leaves []ledger.Hash
	for i := range n {
		line := fmt.Appendf(nil, "line %d", i)
		if ledger.StoredHashCount(i) != int64(len(h)) {
			t.Fatalf("StoredHashCount(%d) = %d, but %d are stored", i, ledger.StoredHashCount(i), len(h))
		}
		more, err := ledger.StoredHashes(i, line, h)
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, more...)
		leaves = append(leaves, ledger.LeafHash(line))
	}
	return h, leaves
}

// sample is a small ledger: the story of a run with one step.
func sample(t testing.TB) []ledger.Entry {
	t.Helper()
	trust := ledger.TrustRef{Root: digest("root"), RootVersion: 1, Policy: digest("policy"), PolicySerial: 3}
	run := ledger.Envelope{
		Actor: "uid:1000(operator)", DAGID: "nightly.audit", DAGVersion: "1.4.0", RunID: "0193a5d4-7f2c-7c3a-9d1e-5b2f4a6c8e01",
		Tenant: "default", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
	}
	attempt := run
	attempt.Actor, attempt.StepID, attempt.Attempt = "system:runner", "collect", 1
	exit := 0
	story := []struct {
		typ  ledger.Type
		env  ledger.Envelope
		data any
	}{
		{ledger.SiteInitialized, ledger.Envelope{Actor: "uid:0(root)"}, ledger.SiteInit{
			SiteID: siteID, Keys: map[string]string{"log": "MCowBQYDK2VwAyEA", "site": "MFkwEwYHKoZIzj0C"},
			Root: digest("root"), Policy: digest("policy"),
		}},
		{ledger.RunStarted, run, &ledger.RunStart{
			RunToken: "2026-11-22/a<b>&\u2028c", PlanHash: digest("plan"), InputsHash: digest("inputs"), DAGDigest: digest("dag"),
			Metadata: map[string]string{"\ue000": "private use", "😀": "beyond the plane"}, Trust: trust, Steps: 1,
		}},
		{ledger.AttemptStarted, attempt, &ledger.AttemptStart{
			Generation: 1, Owner: "boot/1", Tier: "ns", Plugin: digest("plugin"), Entry: digest("entry"),
			InputsHash: digest("inputs"), PlanHash: digest("plan"), Trust: trust,
		}},
		{ledger.AttemptEnded, attempt, &ledger.AttemptEnd{
			Generation: 1, Outcome: "succeeded", ExitCode: &exit, OutputsHash: digest("outputs"),
			Artifacts: []ledger.Artifact{{Name: "report.json", SHA256: digest("report"), Size: 1 << 40}},
			Usage:     &ledger.Usage{WallMs: 1250, UserMs: 900, SystemMs: 40, MaxRSS: 31 << 20},
			Fences:    []ledger.Fence{{Name: "network", State: "active", Proof: "no route"}},
		}},
		{ledger.RunResumed, run, nil},
	}
	at := time.Date(2026, 11, 22, 8, 21, 0, 123456789, time.UTC)
	var entries []ledger.Entry
	for i, s := range story {
		s.env.Seq, s.env.Type, s.env.Time = int64(i), s.typ, stamp.Format(at)
		entry, err := ledger.Seal(s.env, s.data, sha256.Sum256(fmt.Appendf(nil, "salt %d", i)))
		if err != nil {
			t.Fatalf("Seal(%s) = %v", s.typ, err)
		}
		entries = append(entries, entry)
		if i != 2 { // the next has the same time, which is allowed
			at = at.Add(1500 * time.Millisecond)
		}
	}
	return entries
}

// stored is the tree of entries.
func stored(t testing.TB, entries []ledger.Entry) hashes {
	t.Helper()
	var h hashes
	for i, e := range entries {
		more, err := ledger.StoredHashes(int64(i), e.Envelope, h)
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, more...)
	}
	return h
}

// signed is the checkpoint of entries.
func signed(t testing.TB, entries []ledger.Entry) []byte {
	t.Helper()
	root, err := ledger.TreeHash(int64(len(entries)), stored(t, entries))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: ledger.Origin(siteID, 1), Size: int64(len(entries)), Root: root}, logKey())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// verify is what an auditor does with a whole ledger and its checkpoint.
func verify(entries []ledger.Entry, checkpoint []byte) error {
	c, err := ledger.OpenCheckpoint(checkpoint, logPub(), siteID)
	if err != nil {
		return err
	}
	v, err := ledger.NewVerifier(ledger.VerifierOptions{})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, _, err := v.Add(e.Envelope, e.Data); err != nil {
			return err
		}
	}
	if v.Size() != c.Size || v.Root() != c.Root {
		return fmt.Errorf("root of size %d is not the checkpoint's of size %d", v.Size(), c.Size)
	}
	return nil
}

// change replaces the first old by new, and fails if there is none.
func change(t testing.TB, s, old, new string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("%q does not hold %q", s, old)
	}
	return strings.Replace(s, old, new, 1)
}
