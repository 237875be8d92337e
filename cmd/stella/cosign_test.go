package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/provenance"
	"github.com/stellarun/stella/verify/verifytest"
)

// tools is stella and cosign in one folder. Neither has a home or a site.
type tools struct {
	t      *testing.T
	dir    string
	cosign string
}

// cosignPath finds cosign where it is installed, or skips the test, unless the
// environment says that there must be one.
func cosignPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("cosign")
	if err != nil {
		if home, herr := os.UserHomeDir(); herr == nil {
			path, err = exec.LookPath(filepath.Join(home, "go", "bin", "cosign"))
		}
	}
	switch {
	case err == nil:
	case strings.Contains(os.Getenv("STELLA_REQUIRE"), "cosign"):
		t.Fatalf("cosign is required: %v", err)
	default:
		t.Skip("SKIPPED: cosign is not installed; interoperation with cosign was not tested")
	}
	if testing.Short() {
		t.Skip("cosign starts slowly")
	}
	return path
}

// run runs one of the tools and returns its exit code.
func (x *tools) run(line ...string) (int, string) {
	x.t.Helper()
	name := line[0]
	if name == "cosign" {
		name = x.cosign
	}
	cmd := exec.Command(name, line[1:]...) // testscript has put stella on our PATH
	cmd.Dir = x.dir
	cmd.Env = []string{"HOME=" + filepath.Join(x.dir, "no-home"), "STELLA_HOME=" + filepath.Join(x.dir, "site"), "PATH=" + os.Getenv("PATH"), "COSIGN_PASSWORD="}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		x.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (x *tools) must(line string) {
	x.t.Helper()
	if code, out := x.run(strings.Fields(line)...); code != 0 {
		x.t.Fatalf("%s: exit %d\n%s", line, code, out)
	}
}

// agree wants both tools to accept FILE of their command lines, and to refuse
// it changed: stella with exit 5.
func (x *tools) agree(stella, cosign string) {
	x.t.Helper()
	x.must(strings.ReplaceAll(stella, "FILE", "file"))
	x.must(strings.ReplaceAll(cosign, "FILE", "file"))
	x.refuse(strings.ReplaceAll(stella, "FILE", "changed"), strings.ReplaceAll(cosign, "FILE", "changed"))
}

// refused wants stella to refuse. Of another type of statement than the one that was asked
// for only stella must: cosign 3.0.5 does not look at --type beside a bundle and a key.
func (x *tools) refused(stella string) {
	x.t.Helper()
	if code, out := x.run(strings.Fields(stella)...); code != exitRefused {
		x.t.Errorf("%s: exit %d, want %d\n%s", stella, code, exitRefused, out)
	}
}

// refuse wants both to refuse.
func (x *tools) refuse(stella, cosign string) {
	x.t.Helper()
	x.refused(stella)
	if code, out := x.run(strings.Fields(cosign)...); code == 0 {
		x.t.Errorf("%s: it accepts\n%s", cosign, out)
	}
}

func (x *tools) write(name string, data []byte) {
	x.t.Helper()
	if err := os.WriteFile(filepath.Join(x.dir, name), data, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

func (x *tools) read(name string) []byte {
	x.t.Helper()
	raw, err := os.ReadFile(filepath.Join(x.dir, name))
	if err != nil {
		x.t.Fatal(err)
	}
	return raw
}

// TestCosign holds `stella verify` and cosign against each other, in both
// directions and in every flow, where there is no network.
func TestCosign(t *testing.T) {
	path := cosignPath(t)
	offline(t, func() {
		x := &tools{t: t, dir: t.TempDir(), cosign: path}
		x.must("cosign generate-key-pair")
		x.must("cosign signing-config create --out sc.json")
		x.must("cosign trusted-root create --out empty.json")
		x.write("changed", []byte("else\n"))
		t.Run("cosign signs", func(t *testing.T) { x.t = t; cosignSigns(x) })
		t.Run("stella signs", func(t *testing.T) { x.t = t; stellaSigns(x) })
		t.Run("stella attests", func(t *testing.T) { x.t = t; stellaAttests(x) })
		t.Run("certificates", func(t *testing.T) { x.t = t; certificates(x) })
	})
}

const ignoringLogs = " --trusted-root empty.json --insecure-ignore-tlog FILE"

func cosignSigns(x *tools) {
	const with = " -y --key cosign.key --signing-config sc.json --trusted-root empty.json"
	x.write("file", []byte("what cosign signs\n"))
	x.must("cosign sign-blob" + with + " --bundle sig.json file")
	x.agree("stella verify FILE --bundle sig.json --key cosign.pub --no-log",
		"cosign verify-blob --bundle sig.json --key cosign.pub"+ignoringLogs)
	x.write("other.pub", []byte(verifytest.PEM("stranger")))
	x.refuse("stella verify file --bundle sig.json --key other.pub --no-log",
		"cosign verify-blob --bundle sig.json --key other.pub --insecure-ignore-tlog file")
	x.write("predicate.json", []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6"}`))
	for name, predicate := range map[string]string{"sbom.json": verifytest.CycloneDX, "own.json": verifytest.Review} {
		x.must("cosign attest-blob" + with + " --predicate predicate.json --type " + predicate + " --bundle " + name + " file")
		stella := "stella verify FILE --bundle " + name + " --key cosign.pub --no-log --predicate-type "
		cosign := "cosign verify-blob-attestation --bundle " + name + " --key cosign.pub" + ignoringLogs + " --type "
		x.agree(stella+predicate, cosign+predicate)
		x.refused(strings.ReplaceAll(stella, "FILE", "file") + verifytest.SPDX)
	}
}

func stellaSigns(x *tools) {
	if err := os.CopyFS(filepath.Join(x.dir, "work"), os.DirFS(filepath.Join("testdata", "work"))); err != nil {
		x.t.Fatal(err)
	}
	x.must("stella bundle keygen --out stella.key")
	x.must("stella bundle pack work --out work.stella")
	x.must("stella bundle sign work.stella --key stella.key")
	x.must("tar -xf work.stella --transform s|^stella.toml$|file| --transform s|^signatures/.*|sig.json| --wildcards stella.toml signatures/*")
	x.agree("stella verify FILE --bundle sig.json --key stella.key.pub --no-log",
		"cosign verify-blob --bundle sig.json --key stella.key.pub"+ignoringLogs)

	x.must("stella init --quiet --allow-plain")
	x.must("stella ledger checkpoint")
	x.must("stella export create --out archive.tar")
	x.must("tar -xf archive.tar --transform s|^SHA256SUMS$|file| SHA256SUMS SHA256SUMS.sigstore.json keys")
	x.agree("stella verify FILE --bundle SHA256SUMS.sigstore.json --key keys/site.pub --no-log",
		"cosign verify-blob --bundle SHA256SUMS.sigstore.json --key keys/site.pub"+ignoringLogs)
}

// stellaAttests goes on with the site and the plugin of stellaSigns.
func stellaAttests(x *tools) {
	if err := os.CopyFS(filepath.Join(x.dir, "flow"), os.DirFS(filepath.Join("testdata", "flow"))); err != nil {
		x.t.Fatal(err)
	}
	x.must("stella trust add acme --key stella.key.pub --kind plugin,dag --name work,flow --interpreter /bin/sh")
	x.must("stella bundle import work.stella")
	x.must("stella bundle pack flow --out flow.stella")
	x.must("stella bundle sign flow.stella --key stella.key")
	x.must("stella orch dag publish flow.stella")
	x.must("stella orch run start --dag-id flow --wait")
	code, out := x.run("stella", "orch", "run", "list", "--output", "json")
	var list struct{ Runs []struct{ RunID string } }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Runs) != 1 {
		x.t.Fatalf("run list: exit %d, %v\n%s", code, err, out)
	}
	x.must("stella orch run attest " + list.Runs[0].RunID + " --out run.json")
	x.write("file", []byte(`{"said":"hello"}`)) // the outputs of the run
	const stella, cosign = "stella verify FILE --bundle run.json --key keys/site.pub --no-log --predicate-type ", "cosign verify-blob-attestation --bundle run.json --key keys/site.pub" + ignoringLogs + " --type "
	x.agree(stella+provenance.PredicateType, cosign+provenance.PredicateType)
	file := strings.NewReplacer("FILE", "file")
	x.must(file.Replace(cosign + "slsaprovenance1"))
	x.refused(file.Replace(stella) + verifytest.SPDX)
	if raw, err := readStatement(x.read("run.json"), x.read("keys/site.pub")); err != nil || !strings.Contains(string(raw), `"predicateType":"`+provenance.PredicateType+`"`) {
		x.t.Errorf("the statement that both accept: %v\n%s", err, raw)
	}
	x.refuse(file.Replace(strings.ReplaceAll(stella, "keys/site.pub", "stella.key.pub"))+provenance.PredicateType,
		file.Replace(strings.ReplaceAll(cosign, "keys/site.pub", "stella.key.pub"))+provenance.PredicateType)
}

// certificates are of a private Sigstore: nothing of it is ignored by either.
func certificates(x *tools) {
	raw, at := []byte("what a certificate signs\n"), verifytest.Created()
	x.write("file", raw)
	x.write("root.json", verifytest.TrustedRoot())
	payload := []byte(`{"_type":"` + verifytest.StatementV1 + `","predicateType":"` + verifytest.CycloneDX +
		`","predicate":{},"subject":[{"name":"file","digest":{"sha256":"` + bundle.Digest(raw) + `"}}]}`)
	const san = "release@acme.test"
	const who = " --bundle sig.json --trusted-root root.json --certificate-oidc-issuer " + verifytest.Issuer + " --certificate-identity "
	for name, c := range map[string]struct {
		with           verifytest.With
		stella, cosign string
	}{
		"in the log":        {verifytest.With{Logged: at}, "", ""},
		"in the second log": {verifytest.With{Logged2: true, Stamped: at}, "", " --use-signed-timestamps"},
	} {
		c.with.SAN, c.with.SCT = san, true
		x.write("sig.json", verifytest.Signature(raw, "leaf-1", c.with).Data)
		stella, cosign := "stella verify FILE"+who, "cosign verify-blob FILE"+c.cosign+who
		x.t.Log(name)
		x.agree(stella+san, cosign+san)
		x.refuse(strings.ReplaceAll(stella, "FILE", "file")+"someone@else.test", strings.ReplaceAll(cosign, "FILE", "file")+"someone@else.test")

		c.with.Statement = true
		x.write("sig.json", verifytest.Signature(payload, "leaf-1", c.with).Data)
		x.agree(stella+san+" --predicate-type "+verifytest.CycloneDX, "cosign verify-blob-attestation FILE"+c.cosign+who+san+" --type "+verifytest.CycloneDX)
	}
	// Without a certificate timestamp both refuse, unless asked not to look.
	x.write("sig.json", verifytest.Signature(raw, "leaf-1", verifytest.With{SAN: san, Logged: at}).Data)
	x.refuse("stella verify file"+who+san, "cosign verify-blob file"+who+san)
	x.must("stella verify file --no-sct" + who + san)
	x.must("cosign verify-blob file --insecure-ignore-sct" + who + san)
}
