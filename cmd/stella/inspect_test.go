package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
)

// inspectedFile runs inspect in this process, and decodes what it printed.
func inspectedFile(t *testing.T, args ...string) (out inspected, exit int, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	a := newApp()
	a.stdout, a.stderr = &screen{w: &o}, &screen{w: &e}
	a.getenv = func(string) string { return "" }
	exit = run(t.Context(), a, append([]string{"bundle", "inspect", "--output", "json"}, args...))
	out.described = new(described) // where the decoder cannot make one
	if err := json.Unmarshal(o.Bytes(), &out); err != nil {
		t.Fatalf("inspect %v: %v\n%s%s", args, err, &o, &e)
	}
	return out, exit, e.String()
}

// TestInspectAgreesWithTheFixtures: what is told of a fixture by its trust is
// what the fixture expects, and something is told of each.
func TestInspectAgreesWithTheFixtures(t *testing.T) {
	index := readFixtures(t)
	for i := range index.Fixtures {
		f := &index.Fixtures[i]
		if f.Floor != nil || f.Limit > 0 {
			continue // only a site has these
		}
		in, exit, stderr := inspectedFile(t, f.path(t), "--trust", filepath.Join(fixtureFolder, "trust", f.Trust), "--as-of", f.Now, "--site-id", index.SiteID)
		got := ""
		switch r := in.Report; {
		case r == nil && len(in.Findings) > 0:
			got = in.Findings[0].Reason
		case r == nil:
		case r.Decision == verify.Admitted:
			got = "admit"
		case r.Decision == verify.AdmittedUnderAudit:
			got = "admit_under_audit"
		case r.Decision == verify.Undecided && len(in.Absent) > 0:
			got = string(bundle.BlobMissing)
		default:
			got = r.Reason
		}
		if f.Expect == string(bundle.BlobMissing) && got == string(bundle.EntryOrder) {
			continue // to whoever only looks, what is missing may be a delta's
		}
		if got != f.Expect {
			t.Errorf("%s is told as %s, want %s", f.Name, got, f.Expect)
		}
		if (exit == exitRefused) != (len(in.Findings) > 0) || exit != exitDone && exit != exitRefused {
			t.Errorf("%s: exit %d with %d findings", f.Name, exit, len(in.Findings))
		}
		if exit == exitRefused && !strings.Contains(stderr, `"code":"`+in.Findings[0].Reason+`"`) {
			t.Errorf("%s: found %s, the error is %s", f.Name, in.Findings[0].Reason, stderr)
		}
		if raw, err := json.Marshal(in); err != nil || bytes.Contains(raw, []byte("stella bundle inspect FILE")) {
			t.Errorf("%s: inspect sends to inspect: %s (%v)", f.Name, raw, err)
		}
		if in.SHA256 == "" != (in.Bytes == 0) {
			t.Errorf("%s: no digest: %+v", f.Name, in)
		}
	}
}

// TestInspectTellsWhatWasRead of every beginning of a bundle, and of one with
// any byte changed: it prints, whatever the file is.
func TestInspectTellsWhatWasRead(t *testing.T) {
	index := readFixtures(t)
	i := slices.IndexFunc(index.Fixtures, func(f fixture) bool { return f.Name == "certificate" })
	path := index.Fixtures[i].path(t)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.stella")
	put := func(data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for n := 0; n < len(raw); n += 97 {
		put(raw[:n])
		in, exit, _ := inspectedFile(t, file)
		if exit != exitRefused || len(in.Findings) == 0 || in.Findings[0].Hint == "" {
			t.Fatalf("the first %d bytes: exit %d, %+v", n, exit, in.Findings)
		}
		if in.Name != "" && len(in.Files) == 0 {
			t.Fatalf("the first %d bytes: a manifest was read, and no file is told", n)
		}
		changed := bytes.Clone(raw)
		changed[n] ^= 0x11
		put(changed)
		in, exit, _ = inspectedFile(t, file)
		if exit != exitRefused && exit != exitDone {
			t.Fatalf("byte %d changed: exit %d", n, exit)
		}
		for _, x := range in.Findings {
			seen[x.Reason] = true
		}
	}
	if len(seen) < 5 {
		t.Errorf("only %v were found", seen)
	}
}

// TestOneWordForAShell: what a file says is pasted as one word.
func TestOneWordForAShell(t *testing.T) {
	for in, want := range map[string]string{
		"acme": "acme", "a@b.test": "a@b.test", "https://x.test/y": "https://x.test/y", "": "''", "-rf": "'-rf'",
		"a b": "'a b'", "$(reboot)": "'$(reboot)'", "`x`": "'`x`'", "it's": `'it'\''s'`, "a;b": "'a;b'", "ä": "'ä'", "~": "'~'", "a\nb": "'a\nb'",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

// TestWhatAFileLooksLike names the usual mishaps.
func TestWhatAFileLooksLike(t *testing.T) {
	for begin, want := range map[string]string{
		"": "empty", "\x00\x00\x00": "zeros", "\x1f\x8b\x08": "a gzip file", "PK\x03\x04": "a zip file", "<!DOCTYPE html>": "a web page", "text": "",
	} {
		if got := looksLike([]byte(begin)); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q looks like %q, want %q", begin, got, want)
		}
	}
	for begin, want := range map[string]string{
		"schema = \"stella.policy/1\"\n": whatPolicy, "schema = \"stella.bundle/1\"\n": whatManifest, " {\"mediaType\":": whatSigstore,
		"{\"mediaType\": \"application/vnd.dev.sigstore.trustedroot+json;version=0.1\"": whatTrustedRoot,
		"-----BEGIN PUBLIC KEY-----": whatPublicKey, "-----BEGIN PRIVATE KEY-----": whatPrivateKey, "stella.toml\x00": "",
	} {
		if got := kindOfFile([]byte(begin)); got != want {
			t.Errorf("%q is %q, want %q", begin, got, want)
		}
	}
}

// TestATrustedRootIsKnownByItsType, wherever that stands: in the canonical form
// it comes behind the authorities.
func TestATrustedRootIsKnownByItsType(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trusted_root.json")
	raw := `{"certificateAuthorities":[{"uri":"https://` + strings.Repeat("x", 8<<10) + `"}],"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	if in, exit, _ := inspectedFile(t, file); in.What != whatTrustedRoot || exit != exitDone || len(in.TrustedRoot) != 1 {
		t.Errorf("%s, exit %d, %d authorities", in.What, exit, len(in.TrustedRoot))
	}
}
