package verify_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// cosign is the program in a folder of its own, without a network to speak of:
// no home, an empty signing config, an empty trusted root.
type cosign struct {
	t    *testing.T
	path string
	dir  string
}

// newCosign skips the test where there is no cosign, unless the environment
// says that there must be.
func newCosign(t *testing.T) *cosign {
	t.Helper()
	path, err := exec.LookPath("cosign")
	if home, herr := os.UserHomeDir(); err != nil && herr == nil {
		path, err = exec.LookPath(filepath.Join(home, "go", "bin", "cosign"))
	}
	if err != nil {
		if strings.Contains(os.Getenv("STELLA_REQUIRE"), "cosign") {
			t.Fatalf("cosign is required: %v", err)
		}
		t.Skip("SKIPPED: cosign is not in PATH; interoperation with cosign was not tested")
	}
	if testing.Short() {
		t.Skip("cosign starts slowly")
	}
	c := &cosign{t, path, t.TempDir()}
	c.must("generate-key-pair")
	c.must("signing-config", "create", "--out", "sc.json")
	c.must("trusted-root", "create", "--out", "tr.json")
	return c
}

func (c *cosign) run(args ...string) error {
	cmd := exec.Command(c.path, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH"), "COSIGN_PASSWORD=", "HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cosign %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (c *cosign) must(args ...string) {
	c.t.Helper()
	if err := c.run(args...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cosign) write(name string, data []byte) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cosign) read(name string) []byte {
	c.t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// TestCosignSignsForUs: what cosign makes is attached, and admitted.
func TestCosignSignsForUs(t *testing.T) {
	c := newCosign(t)
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	c.write("stella.toml", packed.Raw)
	c.write("predicate.json", []byte(`{"review":"passed"}`))
	c.must("sign-blob", "-y", "--key", "cosign.key", "--signing-config", "sc.json", "--trusted-root", "tr.json", "--bundle", "sig.json", "stella.toml")
	reviewer := &cosign{t, c.path, t.TempDir()}
	reviewer.must("generate-key-pair")
	for _, name := range []string{"stella.toml", "predicate.json", "sc.json", "tr.json"} {
		reviewer.write(name, c.read(name))
	}
	reviewer.must("attest-blob", "-y", "--key", "cosign.key", "--signing-config", "sc.json", "--trusted-root", "tr.json",
		"--predicate", "predicate.json", "--type", verifytest.Review, "--bundle", "att.json", "stella.toml")

	public, err := verify.ParsePublicKey(c.read("cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := verify.Canonical(c.read("sig.json"))
	if err != nil {
		t.Fatal(err)
	}
	att, err := verify.Canonical(reviewer.read("att.json"))
	if err != nil {
		t.Fatal(err)
	}
	made := verifytest.NewTrust()
	made.Acme().Keys[0].PEM = string(c.read("cosign.pub"))
	made.Acme().Require.Attestations = []manifests.RequiredAttestation{{PredicateType: verifytest.Review, Keys: []string{string(reviewer.read("cosign.pub"))}}}
	e := evidence(t, verifytest.Attach(raw, attached(bundle.Attached{ID: verify.KeyID(public), Data: sig}), nil))
	e.Attestations = attached(bundle.Attached{ID: bundle.Digest(att), Data: att})
	v, err := made.Load().Rejudge(e, verifytest.SiteID, verifytest.Stella, verifytest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Signers) != 1 || len(v.Attestations) != 1 {
		t.Errorf("verdict %+v", v)
	}
}

// TestCosignVerifiesOurs: signatures, statements, and no tampered manifest.
func TestCosignVerifiesOurs(t *testing.T) {
	c := newCosign(t)
	raw := verifytest.NewBundle().Sign("acme-1")
	e := evidence(t, raw)
	c.write("stella.toml", e.Manifest)
	c.write("tampered.toml", append([]byte("\n"), e.Manifest...))
	c.write("key.pub", []byte(verifytest.PEM("acme-1")))
	c.write("sig.json", e.Signatures[0].Data)
	c.write("att.json", verifytest.Attestation(bundle.Digest(e.Manifest), verifytest.Review, `{"a":1}`, "acme-1").Data)
	blob := []string{"verify-blob", "--key", "key.pub", "--bundle", "sig.json", "--trusted-root", "tr.json", "--insecure-ignore-tlog"}
	att := []string{"verify-blob-attestation", "--key", "key.pub", "--bundle", "att.json", "--type", verifytest.Review, "--trusted-root", "tr.json", "--insecure-ignore-tlog"}
	for _, args := range [][]string{blob, att} {
		c.must(append(args, "stella.toml")...)
		if err := c.run(append(args, "tampered.toml")...); err == nil {
			t.Errorf("cosign %s accepts a tampered manifest", args[0])
		}
	}
}

// TestCosignVerifiesOurCertificates holds the Sigstore of package verifytest to
// what cosign takes for one.
func TestCosignVerifiesOurCertificates(t *testing.T) {
	c := newCosign(t)
	_, packed := verifytest.NewBundle().Pack(noOptions())
	c.write("stella.toml", packed.Raw)
	c.write("root.json", verifytest.TrustedRoot())
	c.write("sig.json", verifytest.Certified(packed.Raw, "leaf-1", "release@acme.test", verifytest.Created()).Data)
	verify := func(san string) error {
		return c.run("verify-blob", "--bundle", "sig.json", "--trusted-root", "root.json", "--certificate-identity", san,
			"--certificate-oidc-issuer", verifytest.Issuer, "--insecure-ignore-sct", "stella.toml")
	}
	if err := verify("release@acme.test"); err != nil {
		t.Error(err)
	}
	if err := verify("someone@else.test"); err == nil {
		t.Error("cosign accepts another identity")
	}
}
