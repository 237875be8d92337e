package export_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/telemetry"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

const siteID = "00112233445566778899aabbccddeeff"

// site is a whole site in memory: a real ledger, and what it names.
type site struct {
	t        testing.TB
	at       time.Time
	entries  []export.Entry
	hashes   []ledger.Hash
	notes    [][]byte
	sizes    []int64
	byRun    map[string][]int // run → its entries
	blobs    map[string][]byte
	segments map[string][]byte
	gone     map[string]string // digest → reason why it is withheld
	origin   string
	logKey   ed25519.PrivateKey
	siteKey  *ecdsa.PrivateKey
}

// start is the time of entry 0.
var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func newSite(t testing.TB) *site {
	s := &site{
		t: t, at: start, origin: ledger.Origin(siteID, 1),
		byRun: map[string][]int{}, blobs: map[string][]byte{}, segments: map[string][]byte{}, gone: map[string]string{},
		logKey:  ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)),
		siteKey: p256(t, 11),
	}
	s.init(s.root(), s.policy())
	return s
}

// init records entry 0.
func (s *site) init(root, policy string) {
	s.add(ledger.Envelope{Type: ledger.SiteInitialized, Actor: "system:init"}, &ledger.SiteInit{
		SiteID: siteID, Root: root, Policy: policy,
		Keys: map[string]string{"log": spki(s.t, s.logKey.Public()), "site": spki(s.t, &s.siteKey.PublicKey)},
	})
}

// p256 is the key with the private scalar d.
func p256(t testing.TB, d int64) *ecdsa.PrivateKey {
	t.Helper()
	raw := make([]byte, 32)
	binary.BigEndian.PutUint64(raw[24:], uint64(d))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func spki(t testing.TB, pub any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func publicPEM(t testing.TB, pub any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// blob seals content and returns its digest.
func (s *site) blob(content string) string {
	sum := sha256.Sum256([]byte(content))
	digest := hex.EncodeToString(sum[:])
	s.blobs[digest] = []byte(content)
	return digest
}

// believed is what the site believes: acme's key may sign, if somebody else has reviewed.
var believed = sync.OnceValue(func() verify.Files {
	trust := verifytest.NewTrust()
	trust.Revocations = nil
	trust.Acme().Require.Attestations = []manifests.RequiredAttestation{
		{PredicateType: verifytest.Review, Keys: []string{verifytest.PEM("reviewer")}},
	}
	return trust.Files()
})

// matcher is the manifest of acme's plugin.
var matcher = sync.OnceValue(func() string {
	b := verifytest.NewPlugin()
	b.Manifest.Name, b.Manifest.Version, b.Manifest.Sequence = "acme.match", "1.0.0", 1
	_, packed := b.Pack(bundle.PackOptions{})
	return string(packed.Raw)
})

// review is what the reviewer says of it.
var review = sync.OnceValue(func() string {
	return string(verifytest.Attestation(digest([]byte(matcher())), verifytest.Review, `{}`, "reviewer").Data)
})

func (s *site) root() string { return s.blob(string(believed().Roots[0].Raw)) }

func (s *site) policy() string { return s.blob(string(believed().Policy.Raw)) }

// segment stores the output of an attempt.
func (s *site) segment(lines ...string) *ledger.LogRef {
	var out bytes.Buffer
	seg := telemetry.NewSegment(&out, 4<<10)
	for i, l := range lines {
		if err := seg.Line([]string{"stdout", "stderr"}[i%2], s.at.Add(time.Duration(i)*time.Millisecond), []byte(l)); err != nil {
			s.t.Fatal(err)
		}
	}
	ref, err := seg.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	s.segments[ref.SHA256] = out.Bytes()
	return &ref
}

// add appends an entry one second after the last.
func (s *site) add(e ledger.Envelope, data any) {
	s.t.Helper()
	e.Seq, e.Time = int64(len(s.entries)), stamp.Format(s.at)
	s.at = s.at.Add(time.Second)
	salt := sha256.Sum256(fmt.Appendf(nil, "salt %d", e.Seq))
	line, err := ledger.Seal(e, data, salt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.append(line)
}

func (s *site) append(line ledger.Entry) {
	s.t.Helper()
	seq := int64(len(s.entries))
	env, err := ledger.ParseEnvelope(line.Envelope)
	if err != nil {
		s.t.Fatal(err)
	}
	s.byRun[env.RunID] = append(s.byRun[env.RunID], len(s.entries))
	s.entries = append(s.entries, export.Entry{Seq: seq, Envelope: line.Envelope, Data: line.Data})
	hashes, err := ledger.StoredHashes(seq, line.Envelope, s)
	if err != nil {
		s.t.Fatal(err)
	}
	s.hashes = append(s.hashes, hashes...)
}

// checkpoint signs and stores the present tree head.
func (s *site) checkpoint() []byte {
	s.t.Helper()
	size := int64(len(s.entries))
	root, err := ledger.TreeHash(size, s)
	if err != nil {
		s.t.Fatal(err)
	}
	note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: s.origin, Size: size, Root: root}, s.logKey)
	if err != nil {
		s.t.Fatal(err)
	}
	s.notes, s.sizes = append(s.notes, note), append(s.sizes, size)
	return note
}

const (
	runA = "0190b0a0-0000-7000-8000-00000000000a"
	runB = "0190b0a0-0000-7000-8000-00000000000b"
	runC = "0190b0a0-0000-7000-8000-00000000000c"
)

func (s *site) run(t ledger.Type, id string) ledger.Envelope {
	return ledger.Envelope{
		Type: t, Actor: "uid:1000(ada)", Tenant: "default", RunID: id, DAGID: "audit-nightly", DAGVersion: "1.2.3",
		TraceID: "4bf92f3577b34da6a3ce929d0e0e47" + id[len(id)-2:],
	}
}

func (s *site) step(t ledger.Type, run, id string, attempt int) ledger.Envelope {
	e := s.run(t, run)
	e.StepID, e.Attempt = id, attempt
	return e
}

func (s *site) trust() ledger.TrustRef {
	return ledger.TrustRef{Root: s.root(), RootVersion: 1, Policy: s.policy(), PolicySerial: 1}
}

func (s *site) startRun(id string) {
	s.add(s.run(ledger.RunStarted, id), &ledger.RunStart{
		RunToken: "t-" + id, PlanHash: s.blob("plan"), InputsHash: s.blob(`{"k":"v"}`), DAGDigest: s.blob("dag manifest"),
		Trust: s.trust(), Steps: 1, Metadata: map[string]string{"ticket": "7"},
	})
	s.add(s.step(ledger.StepQueued, id, "match", 0), &ledger.StepQueue{Reason: "ready"})
}

// startRunOf is a run of its own with a plan.
func (s *site) startRunOf(plan string) {
	id := fmt.Sprintf("0190b0a0-0000-7000-8000-%012d", len(s.entries))
	s.add(s.run(ledger.RunStarted, id), &ledger.RunStart{
		RunToken: "t-" + id, PlanHash: plan, InputsHash: s.blob(`{"k":"v"}`), DAGDigest: s.blob("dag manifest"), Trust: s.trust(), Steps: 1,
	})
}

func (s *site) startAttempt(id string, n int) {
	s.add(s.step(ledger.AttemptStarted, id, "match", n), &ledger.AttemptStart{
		Generation: 1, Owner: "boot/1", Tier: "landlock", Plugin: s.blob(matcher()), Entry: strings.Repeat("e", 64),
		InputsHash: s.blob(`{"k":"v"}`), PlanHash: s.blob("plan"), Trust: s.trust(),
	})
}

func (s *site) endAttempt(id string, n int, outcome, code string, logs *ledger.LogRef) {
	e := &ledger.AttemptEnd{Generation: 1, Outcome: outcome, ErrorCode: code, Logs: logs}
	if outcome == "succeeded" {
		e.OutputsHash = s.blob(`{"hits":3}`)
	}
	s.add(s.step(ledger.AttemptEnded, id, "match", n), e)
}

func (s *site) completeRun(id string) {
	s.add(s.step(ledger.StepCompleted, id, "match", 0), &ledger.StepEnd{OutputsHash: s.blob(`{"hits":3}`)})
	s.add(s.run(ledger.RunCompleted, id), &ledger.RunEnd{OutputsHash: s.blob(`{"all":3}`)})
}

// busySite is a site with a story: a bundle let in, one refused, a run that
// succeeds at the second attempt, one that is cancelled, one that goes on.
// The seq of the first entry of each part is in the comments; a second an
// entry.
func busySite(t testing.TB) *site {
	s := newSite(t) // 0
	sig := verifytest.Signatures([]byte(matcher()), "acme-1")[0]
	admin := func(ty ledger.Type) ledger.Envelope { return ledger.Envelope{Type: ty, Actor: "uid:0(root)"} }
	s.add(admin(ledger.BundleAdmitted), &ledger.BundleAdmission{ // 1
		Verdict: ledger.Verdict{
			Decision: "admitted", Digest: s.blob(matcher()), Kind: "plugin", Publisher: "acme", Name: "acme.match",
			Version: "1.0.0", Sequence: 1, Threshold: 1, Trust: s.trust(), Now: stamp.Format(s.at), Checks: []string{"signature"},
			Signers:      []ledger.SignerRef{{ID: sig.ID, Publisher: "acme", Flow: "key", File: s.blob(string(sig.Data))}},
			Attestations: []string{s.blob(review())},
		},
		FileSHA256: strings.Repeat("f", 64), Signatures: []string{s.blob(string(sig.Data))}, Attestations: []string{s.blob(review())}, ContentDigest: strings.Repeat("c", 64),
	})
	s.add(admin(ledger.BundleRejected), &ledger.BundleRejection{Reason: "SIGNER_UNKNOWN", FileSHA256: strings.Repeat("f", 64)}) // 2
	s.add(admin(ledger.DAGPublished), &ledger.DAGPublication{                                                                   // 3
		DAGID: "audit-nightly", Version: "1.2.3", Digest: s.blob("dag manifest"), Spec: s.blob("dag spec"), Publisher: "acme",
	})
	s.startRun(runA)                                                                            // 4, 5
	s.startAttempt(runA, 1)                                                                     // 6
	s.endAttempt(runA, 1, "failed", "STEP_FAILED", s.segment("try 1", "oh no \x00\u2028"))      // 7
	s.add(s.step(ledger.StepQueued, runA, "match", 0), &ledger.StepQueue{Reason: "retry"})      // 8
	s.checkpoint()                                                                              // size 9
	s.startRun(runB)                                                                            // 9, 10
	s.startAttempt(runA, 2)                                                                     // 11
	s.endAttempt(runA, 2, "succeeded", "", s.segment("try 2", "ok", strings.Repeat("x", 5000))) // 12
	s.completeRun(runA)                                                                         // 13, 14
	s.add(s.run(ledger.RunCancelRequested, runB), &ledger.Note{Reason: "not needed"})           // 15
	s.add(s.step(ledger.StepCancelled, runB, "match", 0), &ledger.StepEnd{Reason: "asked"})     // 16
	s.add(s.run(ledger.RunCancelled, runB), &ledger.RunEnd{})                                   // 17
	s.startRun(runC)                                                                            // 18, 19
	s.startAttempt(runC, 1)                                                                     // 20
	s.checkpoint()                                                                              // size 21
	s.endAttempt(runC, 1, "succeeded", "", s.segment())                                         // 21
	s.completeRun(runC)                                                                         // 22, 23
	s.checkpoint()                                                                              // size 24
	return s
}

// consistency is a proof between two trees of the site.
func (s *site) consistency(a, b int64) *export.Consistency {
	s.t.Helper()
	from, to := min(a, b), max(a, b)
	proof, err := ledger.ProveConsistency(to, from, s)
	if err != nil {
		s.t.Fatal(err)
	}
	return &export.Consistency{From: from, To: to, Proof: proof}
}

// second is the time of entry n.
func second(n int) string { return stamp.Format(start.Add(time.Duration(n) * time.Second)) }

// window is the one that holds the entries from ≤ seq < to.
func window(from, to int) export.Window { return export.Window{From: second(from), To: second(to)} }

func (s *site) options(w export.Window) export.CreateOptions {
	return export.CreateOptions{
		Window: w, Stella: "0.1.0", TempDir: s.t.TempDir(),
		LogKey: publicPEM(s.t, s.logKey.Public()), SiteKey: publicPEM(s.t, &s.siteKey.PublicKey),
		Sign: s.sign,
	}
}

func (s *site) sign(sums []byte) ([]byte, error) {
	a, err := verify.SignManifest(sums, s.siteKey)
	return a.Data, err
}

// archive makes the archive of a window.
func (s *site) archive(w export.Window) []byte {
	s.t.Helper()
	var out bytes.Buffer
	if _, err := export.Create(context.Background(), s, &out, s.options(w)); err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	return out.Bytes()
}

// auditor is what somebody who trusts the site's keys verifies with.
func (s *site) auditor() export.VerifyOptions {
	return export.VerifyOptions{LogKey: publicPEM(s.t, s.logKey.Public()), SiteKey: publicPEM(s.t, &s.siteKey.PublicKey), SiteID: siteID}
}

// check verifies a tar.
func check(t testing.TB, tar []byte, opt export.VerifyOptions) *export.Report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, tar, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := export.Verify(context.Background(), path, opt)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	agree(t, path, opt, r)
	return r
}

// failed lists the names of the checks that failed.
func failed(r *export.Report) (names []string) {
	for _, c := range r.Checks {
		if c.Status == export.Bad {
			names = append(names, c.Name)
		}
	}
	return names
}

// explain shows what did not hold.
func explain(r *export.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Verdict)
	for _, c := range r.Checks {
		if c.Status != export.OK {
			fmt.Fprintf(&b, "  %s %s: %s (%s:%d)\n", c.Status, c.Name, c.Detail, c.File, c.Line)
		}
	}
	return b.String()
}

// The methods of export.Source.

func (s *site) ReadHashes(indexes []int64) ([]ledger.Hash, error) {
	out := make([]ledger.Hash, len(indexes))
	for i, at := range indexes {
		if at >= int64(len(s.hashes)) {
			return nil, fmt.Errorf("no hash %d", at)
		}
		out[i] = s.hashes[at]
	}
	return out, nil
}

func (s *site) Size() int64 { return int64(len(s.entries)) }

func (s *site) Entries(from, to int64) iter.Seq2[export.Entry, error] {
	return func(yield func(export.Entry, error) bool) {
		for _, e := range s.entries[from:min(to, s.Size())] {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s *site) RunEntries(runID string) iter.Seq2[export.Entry, error] {
	return func(yield func(export.Entry, error) bool) {
		for _, i := range s.byRun[runID] {
			if !yield(s.entries[i], nil) {
				return
			}
		}
	}
}

func (s *site) FirstAtOrAfter(at string) (int64, error) {
	n := sort.Search(len(s.entries), func(i int) bool {
		env, err := ledger.ParseEnvelope(s.entries[i].Envelope)
		if err != nil {
			s.t.Fatal(err)
		}
		return env.Time >= at
	})
	return int64(n), nil
}

func (s *site) CheckpointCovering(seq int64) ([]byte, error) {
	for i, size := range s.sizes {
		if size > seq {
			return s.notes[i], nil
		}
	}
	return nil, nil
}

func (s *site) Blob(digest string) (io.ReadCloser, error) { return s.open(s.blobs, digest) }

func (s *site) LogSegment(digest string) (io.ReadCloser, error) { return s.open(s.segments, digest) }

func (s *site) open(in map[string][]byte, digest string) (io.ReadCloser, error) {
	if reason, ok := s.gone[digest]; ok {
		return nil, &export.WithheldError{Reason: reason}
	}
	raw, ok := in[digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", digest, os.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}
