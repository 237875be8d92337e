package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// A world says which key signs what. The matrix holds in both: where each
// purpose has a key of its own, and where one careless operator signs all that
// belongs to a site with one key, so that only the form of what is signed keeps
// things apart.
type world struct {
	name string
	one  bool
}

func (w world) key(site, purpose string) string {
	if w.one {
		return "one key of " + site
	}
	return purpose + " of " + site
}

// publisher is the key of a publisher, who is the same for all sites.
func (w world) publisher(site, name string) string {
	if w.one {
		return w.key(site, "")
	}
	return name + "-1"
}

// apart is a key that must not be that of anything else in its trust.
func (w world) apart(site, purpose string) string {
	if w.one {
		return purpose + " apart"
	}
	return w.key(site, purpose)
}

func confusedSite(name string) string  { return digestOf("site " + name)[:32] }
func confusedFleet(name string) string { return digestOf("fleet " + name)[:32] }

func digestOf(s string) string { return bundle.Digest([]byte(s)) }

// signedThing is anything that somebody of ours signs.
type signedThing struct {
	name string
	raw  []byte             // what is signed
	sig  bundle.Attached    // the file that carries the signature; a note carries both
	rest []verifytest.Entry // of its bundle
}

// A slot is a place where something signed is expected: the thing of its name.
type slot struct {
	name string
	ok   func(t *testing.T, x *signedThing) bool
}

var (
	confusedSites      = []string{"a", "b"}
	confusedPublishers = []string{"acme", "other"}
	publishedKinds     = []manifests.Kind{manifests.KindPlugin, manifests.KindDAG, manifests.KindData, manifests.KindSecrets}
)

// TestConfusionMatrix puts every signed thing into every place where something
// signed is expected, as a whole and its signature alone: only the diagonal
// passes.
func TestConfusionMatrix(t *testing.T) {
	for _, w := range []world{{"a key for each purpose", false}, {"one key for all", true}} {
		t.Run(w.name, func(t *testing.T) {
			things, slots := confusedThings(t, w), confusedSlots(t, w)
			if len(things) != len(slots) || len(slots) < 30 {
				t.Fatalf("%d things and %d slots", len(things), len(slots))
			}
			names := func(n int) []string { return []string{things[n].name, slots[n].name} }
			passes := 0
			for i := range things {
				if n := names(i); n[0] != n[1] {
					t.Fatalf("thing and slot %d are %v", i, n)
				}
				row := make([]byte, len(slots))
				for k := range slots {
					row[k] = '.'
					whole := slots[k].ok(t, &things[i])
					// Its signature where the signature of the right thing belongs.
					lent := things[k]
					lent.sig = things[i].sig
					if whole || i != k && slots[k].ok(t, &lent) {
						row[k] = '+'
						passes++
					}
					if got := row[k] == '+'; got != (i == k) {
						t.Errorf("%s in the place of %s: accepted %v", things[i].name, slots[k].name, got)
					}
				}
				t.Logf("%s  %s", row, things[i].name)
			}
			t.Logf("%d things in %d places, %d accepted", len(things), len(slots), passes)
		})
	}
}

func confusedThings(t *testing.T, w world) []signedThing {
	t.Helper()
	var out []signedThing
	sign := func(name string, raw []byte, key string, rest ...verifytest.Entry) {
		out = append(out, signedThing{name, raw, verifytest.Signatures(raw, key)[0], rest})
	}
	for _, s := range confusedSites {
		for _, p := range confusedPublishers {
			for _, k := range publishedKinds {
				raw, rest := unsignedBundle(k, s, p)
				sign(fmt.Sprint("bundle ", k, " ", p, " ", s), raw, w.publisher(s, p), rest...)
			}
		}
	}
	for _, s := range confusedSites {
		raw, rest := unsignedBundle(manifests.KindTrust, s, "fleet")
		sign("bundle trust "+s, raw, w.key(s, "policy"), rest...)
		f := nextFiles(s)
		sign("root "+s, f[0], w.key(s, "root"))
		sign("policy "+s, f[1], w.key(s, "policy"))
		sign("revocations "+s, f[2], w.key(s, "revocation"))
		for _, p := range confusedPublishers {
			manifest, _ := unsignedBundle(manifests.KindData, s, p)
			sig := verifytest.Attestation(bundle.Digest(manifest), verifytest.Review, `{}`, w.key(s, "reviewer"))
			out = append(out, signedThing{"attestation " + p + " " + s, manifest, sig, nil})
		}
		sign("export "+s, sums(s), w.key(s, "site"))
		note, proof, line := ledgerOf(t, s)
		text, _, _ := strings.Cut(string(note), "\n\n")
		out = append(out, signedThing{"checkpoint " + s, []byte(text + "\n"), bundle.Attached{ID: digestOf("x"), Data: note}, nil},
			signedThing{"proof " + s, line, bundle.Attached{ID: digestOf("y"), Data: proof}, nil})
	}
	return out
}

func confusedSlots(t *testing.T, w world) []slot {
	t.Helper()
	var out []slot
	add := func(name string, ok func(*testing.T, *signedThing) bool) { out = append(out, slot{name, ok}) }
	for _, s := range confusedSites {
		for _, p := range confusedPublishers {
			for _, k := range publishedKinds {
				add(fmt.Sprint("bundle ", k, " ", p, " ", s), bundleSlot(t, s, p, k, publisherTrust(t, w, s, p, k)))
			}
		}
	}
	for _, s := range confusedSites {
		add("bundle trust "+s, bundleSlot(t, s, "fleet", manifests.KindTrust, roleTrust(t, w, s)))
		for i, role := range []string{"root", "policy", "revocations"} {
			add(role+" "+s, roleSlot(w, s, i))
		}
		for _, p := range confusedPublishers {
			add("attestation "+p+" "+s, attestationSlot(t, w, s, p))
		}
		add("export "+s, exportSlot(t, w, s))
		add("checkpoint "+s, checkpointSlot(s))
		add("proof "+s, proofSlot(t, s))
	}
	return out
}

// unsignedBundle is the manifest of a bundle for one site, and its blobs.
func unsignedBundle(kind manifests.Kind, site, publisher string) ([]byte, []verifytest.Entry) {
	b := verifytest.NewBundle()
	b.Files = map[string]string{"file": "content\n"}
	switch kind {
	case manifests.KindPlugin:
		b = verifytest.NewPlugin()
	case manifests.KindDAG:
		b.Manifest.Data, b.Manifest.DAG = nil, &manifests.DAGFile{Spec: "file"}
	case manifests.KindSecrets:
		b.Manifest.Data, b.Manifest.Secrets = nil, &manifests.SecretsFile{File: "file"}
	case manifests.KindTrust:
		b.Manifest.Data, b.Manifest.Trust = nil, &manifests.TrustFiles{Policy: "file"}
	}
	b.Manifest.Kind, b.Manifest.Publisher, b.Manifest.Name = kind, publisher, publisher+".thing"
	b.Manifest.Audience = []string{confusedSite(site)}
	if kind == manifests.KindTrust {
		b.Manifest.Audience = []string{confusedFleet(site)}
	}
	raw, packed := b.Pack(noOptions())
	return packed.Raw, verifytest.Entries(raw)[1:]
}

// trustOf is the trust of a site, with the keys of its roles.
func trustOf(site string, root, policy, revocation string, publishers ...manifests.Publisher) verify.Files {
	made := verifytest.NewTrust()
	role := func(key string) manifests.Role {
		return manifests.Role{Threshold: 1, Keys: []string{verifytest.PEM(key)}}
	}
	made.Root.FleetID = confusedFleet(site)
	made.Root.Roles = map[string]manifests.Role{"root": role(root), "policy": role(policy), "revocation": role(revocation)}
	made.Policy.Publishers = publishers
	return verify.Files{
		Roots:       []verify.RoleFile{verifytest.Signed(manifests.EncodeRoot(made.Root), root)},
		Policy:      verifytest.Signed(manifests.EncodePolicy(made.Policy), policy),
		Revocations: verifytest.Signed(manifests.EncodeRevocations(made.Revocations), revocation),
	}
}

func loaded(t *testing.T, f verify.Files) *verify.Trust {
	t.Helper()
	trust, err := verify.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// publisherTrust lets one publisher publish one kind.
func publisherTrust(t *testing.T, w world, site, publisher string, kind manifests.Kind) *verify.Trust {
	p := verifytest.Publisher(publisher, w.publisher(site, publisher))
	p.Kinds = []manifests.Kind{kind}
	return loaded(t, trustOf(site, w.apart(site, "root"), w.apart(site, "policy"), w.apart(site, "revocation"), p))
}

// roleTrust knows the roles of the site and no publisher.
func roleTrust(t *testing.T, w world, site string) *verify.Trust {
	return loaded(t, trustOf(site, w.key(site, "root"), w.key(site, "policy"), w.key(site, "revocation")))
}

// bundleSlot is the door of a site, for whoever wants a bundle of one kind by
// one publisher: the door takes in trust files as well.
func bundleSlot(t *testing.T, site, publisher string, kind manifests.Kind, trust *verify.Trust) func(*testing.T, *signedThing) bool {
	opt := options(t)
	opt.SiteID = confusedSite(site)
	return func(t *testing.T, x *signedThing) bool {
		raw := verifytest.Container(append([]verifytest.Entry{
			{Name: bundle.ManifestName, Data: x.raw}, {Name: bundle.SignatureName(x.sig.ID), Data: x.sig.Data},
		}, x.rest...)...)
		res, err := verify.Check(bytes.NewReader(raw), trust, opt, nil)
		return judgedRight(t, err) && res.Verdict.Kind == string(kind) && res.Verdict.Publisher == publisher
	}
}

// judgedRight says whether there was no refusal; another error is none.
func judgedRight(t *testing.T, err error) bool {
	t.Helper()
	if err != nil && !refused(err) {
		t.Errorf("not judged: %v", err)
	}
	return err == nil
}

// nextFiles are a root, a policy and revocations that may follow those of
// trustOf, by a root that has the same keys.
func nextFiles(site string) [3][]byte {
	made := verifytest.NewTrust()
	made.Root.FleetID, made.Root.Version = confusedFleet(site), 2
	made.Policy.Serial, made.Revocations.Serial = 2, 2
	made.Policy.Publishers = nil
	return [3][]byte{manifests.EncodeRoot(made.Root), manifests.EncodePolicy(made.Policy), manifests.EncodeRevocations(made.Revocations)}
}

// roleSlot is the file of a role in the trust of a site.
func roleSlot(w world, site string, which int) func(*testing.T, *signedThing) bool {
	before := trustOf(site, w.key(site, "root"), w.key(site, "policy"), w.key(site, "revocation"))
	// The next root names other keys for the roles; it is the chain that counts.
	policy, revocations := verifytest.Signed(before.Policy.Raw, "policy"), verifytest.Signed(before.Revocations.Raw, "revocation")
	return func(_ *testing.T, x *signedThing) bool {
		f := before
		file := verify.RoleFile{Raw: x.raw, Signatures: []bundle.Attached{x.sig}}
		switch which {
		case 0:
			file.Signatures = append(file.Signatures, verifytest.Signatures(x.raw, "root")...)
			f.Roots = []verify.RoleFile{f.Roots[0], file}
			f.Policy, f.Revocations = policy, revocations
		case 1:
			f.Policy = file
		case 2:
			f.Revocations = file
		}
		_, err := verify.Load(f)
		return err == nil
	}
}

// attestationSlot is attestations/ in a bundle that needs one.
func attestationSlot(t *testing.T, w world, site, publisher string) func(*testing.T, *signedThing) bool {
	signer := w.publisher(site, publisher)
	if w.one {
		signer = "publisher apart" // who attests is not who signs
	}
	p := verifytest.Publisher(publisher, signer)
	p.Require.Attestations = []manifests.RequiredAttestation{{PredicateType: verifytest.Review, Keys: []string{verifytest.PEM(w.key(site, "reviewer"))}}}
	trust := loaded(t, trustOf(site, w.apart(site, "root"), w.apart(site, "policy"), w.apart(site, "revocation"), p))
	opt := options(t)
	opt.SiteID = confusedSite(site)
	manifest, rest := unsignedBundle(manifests.KindData, site, publisher)
	sig := verifytest.Signatures(manifest, signer)[0]
	return func(t *testing.T, x *signedThing) bool {
		raw := verifytest.Container(append([]verifytest.Entry{
			{Name: bundle.ManifestName, Data: manifest}, {Name: bundle.SignatureName(sig.ID), Data: sig.Data},
			{Name: bundle.AttestationName(bundle.Digest(x.sig.Data)), Data: x.sig.Data},
		}, rest...)...)
		_, err := verify.Check(bytes.NewReader(raw), trust, opt, nil)
		return judgedRight(t, err)
	}
}

// archiveFiles are the files of an archive that SHA256SUMS lists.
var archiveFiles = []string{
	"README.txt", "keys/log.pub", "keys/site.pub", "ledger/checkpoint.note", "ledger/data.ndjson.zst", "ledger/envelopes.ndjson.zst",
	"ledger/runs.ndjson.zst", "ledger/window.json", "manifest.json", "telemetry/logs.jsonl.zst", "telemetry/metrics.jsonl.zst", "telemetry/traces.jsonl.zst",
}

// sums is the SHA256SUMS of an archive of the site, whose files hold its name.
func sums(site string) []byte {
	var out strings.Builder
	for _, path := range archiveFiles {
		fmt.Fprintf(&out, "%s  %s\n", digestOf(site+path), path)
	}
	return []byte(out.String())
}

// exportSlot is the signature of an archive: good if the list is signed, and is
// that of the files.
func exportSlot(t *testing.T, w world, site string) func(*testing.T, *signedThing) bool {
	dir := t.TempDir()
	write := func(path string, raw []byte) {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range archiveFiles {
		write(path, []byte(site+path))
	}
	return func(t *testing.T, x *signedThing) bool {
		write("SHA256SUMS", x.raw)
		write("SHA256SUMS.sigstore.json", x.sig.Data)
		report, err := export.Verify(t.Context(), dir, export.VerifyOptions{SiteKey: []byte(verifytest.PEM(w.key(site, "site")))})
		if err != nil {
			t.Fatal(err)
		}
		ok := 0
		for _, c := range report.Checks {
			if slices.Contains([]string{"form", "signature", "sums"}, c.Name) && c.Status == export.OK {
				ok++
			}
		}
		return ok == 3
	}
}

func logOf(site string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("log of " + site))
	return ed25519.NewKeyFromSeed(seed[:])
}

func logPub(site string) ed25519.PublicKey { return logOf(site).Public().(ed25519.PublicKey) }

// ledgerOf is the checkpoint of a ledger of one entry, the proof of that entry,
// and its line.
func ledgerOf(t *testing.T, site string) (note, proof, line []byte) {
	t.Helper()
	entry, err := ledger.Seal(ledger.Envelope{Actor: "uid:0", Seq: 0, Time: "2026-11-22T08:21:00.000000000Z", Type: ledger.RunResumed}, &ledger.Note{Reason: site}, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	c := ledger.Checkpoint{Origin: ledger.Origin(confusedSite(site), 1), Size: 1, Root: ledger.LeafHash(entry.Envelope)}
	if note, err = ledger.SignCheckpoint(c, logOf(site)); err != nil {
		t.Fatal(err)
	}
	return note, ledger.FormatProof(0, nil, note, nil), entry.Envelope
}

// checkpointSlot is the signed tree head of a site.
func checkpointSlot(site string) func(*testing.T, *signedThing) bool {
	return func(_ *testing.T, x *signedThing) bool {
		for _, raw := range [][]byte{x.sig.Data, x.raw, slices.Concat(x.raw, []byte("\n"), x.sig.Data)} {
			if _, err := ledger.OpenCheckpoint(raw, logPub(site), confusedSite(site)); err == nil {
				return true
			}
		}
		return false
	}
}

// proofSlot is the proof of an entry of a site.
func proofSlot(t *testing.T, site string) func(*testing.T, *signedThing) bool {
	_, _, line := ledgerOf(t, site)
	return func(_ *testing.T, x *signedThing) bool {
		for _, raw := range [][]byte{x.sig.Data, x.raw} {
			if _, err := ledger.VerifyProof(raw, line, logPub(site), confusedSite(site)); err == nil {
				return true
			}
		}
		return false
	}
}

// TestOneKeyIsTheSameKey keeps the matrix honest: a log's key and a P-256 key
// can never be one.
func TestOneKeyIsTheSameKey(t *testing.T) {
	w := world{one: true}
	if w.key("a", "root") != w.publisher("a", "acme") || w.key("a", "x") == w.key("b", "x") {
		t.Error("the one key of a site is not one")
	}
	der, err := x509.MarshalPKIXPublicKey(logPub("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); err == nil {
		t.Error("trust takes an Ed25519 key")
	}
}
