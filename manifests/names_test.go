package manifests_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/manifests"
	"golang.org/x/mod/semver"
	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 300)
	checks := []struct {
		name     string
		ok       func(string) bool
		good, no []string
	}{
		{"name", manifests.ValidName,
			[]string{"a", "0", "acme.tools-2", "a..b", "a-", long[:63]},
			[]string{"", "A", ".a", "-a", "a_b", "a/b", "a b", "é", "a\n", "a\x00", long[:64]}},
		{"step id", manifests.ValidStepID,
			[]string{"a", "_", "-", "a-b_c9", long[:63]},
			[]string{"", "A", "a.b", "a b", "a\n", long[:64]}},
		{"run token", manifests.ValidRunToken,
			[]string{"!", "~", "Stella:x", "stella", "a/b#c", long[:128]},
			[]string{"", "a b", "é", "\x7f", "stella:", "stella:sched:x:1", long[:129]}},
		{"version", manifests.ValidVersion,
			[]string{"0.0.0", "1.2.3", "1.0.0-alpha.1", "1.0.0-0a", "1.0.0+001", "1.0.0-a-b.-+x-1.00", "99999999999999999999.0.0"},
			[]string{"", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3+", "1.2.3-01", "1.2.3-a..b", "1.2.3-a_b",
				" 1.2.3", "1.2.3 ", "1.2.x", "1.2.-3", "+1.2.3", "1.2.3+a+b", "1.0.0-" + long}},
		{"path", manifests.ValidPath,
			[]string{"a", "a/b.c", "A+b@c_d-e", "...", ".a", "-", long[:255]},
			[]string{"", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", `a\b`, "a b", "c:d", "é", "a\x00", "a\n", long[:256]}},
	}
	for _, c := range checks {
		for _, s := range c.good {
			if !c.ok(s) {
				t.Errorf("%s %q is refused, want it allowed", c.name, s)
			}
		}
		for _, s := range c.no {
			if c.ok(s) {
				t.Errorf("%s %q is allowed, want it refused", c.name, s)
			}
		}
	}
}

func TestParseRef(t *testing.T) {
	want := manifests.Ref{Publisher: "acme", Name: "a.b", Version: "1.0.0-rc.1+x"}
	if got, err := manifests.ParseRef("acme/a.b@1.0.0-rc.1+x"); err != nil || got != want {
		t.Errorf("ParseRef = %v, %v, want %v", got, err, want)
	}
	for s, want := range map[string]string{
		"acme":             `manifests: "acme" is not publisher/name@version`,
		"acme/x":           `manifests: "acme/x" is not publisher/name@version`,
		"a@1.0.0":          `manifests: "a@1.0.0" is not publisher/name@version`,
		"A/x@1.0.0":        `manifests: "A/x@1.0.0": publisher: want a lower-case letter or digit, then at most 62 of a-z 0-9 . -`,
		"a/x/y@1.0.0":      `manifests: "a/x/y@1.0.0": name: want a lower-case letter or digit, then at most 62 of a-z 0-9 . -`,
		"a/x@1.0":          `manifests: "a/x@1.0": version: want a semantic version such as 1.4.0, without a leading v`,
		"a/x@1.0.0@sha256": `manifests: "a/x@1.0.0@sha256": version: want a semantic version such as 1.4.0, without a leading v`,
	} {
		if _, err := manifests.ParseRef(s); err == nil || err.Error() != want {
			t.Errorf("ParseRef(%q)\n got %v\nwant %s", s, err, want)
		}
	}
}

// TestVersionsInOrder goes through the example of Semantic Versioning 2.0.0
// section 11, and past it.
func TestVersionsInOrder(t *testing.T) {
	order := []string{"0.9.9", "1.0.0-0", "1.0.0-2", "1.0.0-11", "1.0.0--", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta",
		"1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0+a", "1.0.0+b", "1.0.1-x", "1.2.0", "1.10.0", "2.0.0", "10.0.0",
		"99999999999999999999.0.0", "100000000000000000000.0.0"}
	for i, a := range order {
		for j, b := range order {
			if got, want := manifests.CompareVersions(a, b), cmp.Compare(i, j); got != want {
				t.Errorf("CompareVersions(%s, %s) = %d, want %d", a, b, got, want)
			}
		}
	}
}

// TestVersionsAgreeWithAnother compares with an independent implementation,
// which takes a v and shortened versions, and does not look at build metadata.
func TestVersionsAgreeWithAnother(t *testing.T) {
	version := rapid.Custom(func(t *rapid.T) string {
		id := rapid.SampledFrom([]string{"0", "1", "2", "10", "a", "b", "rc", "-", "0a", "a-1"})
		s := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"0", "1", "2", "10"}), 3, 3).Draw(t, "core"), ".")
		if pre := rapid.SliceOfN(id, 0, 3).Draw(t, "pre"); len(pre) > 0 {
			s += "-" + strings.Join(pre, ".")
		}
		if build := rapid.SliceOfN(id, 0, 2).Draw(t, "build"); len(build) > 0 {
			s += "+" + strings.Join(build, ".")
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := version.Draw(t, "a"), version.Draw(t, "b")
		if !manifests.ValidVersion(a) || !semver.IsValid("v"+a) {
			t.Fatalf("%s is refused", a)
		}
		got := manifests.CompareVersions(a, b)
		if want := semver.Compare("v"+a, "v"+b); want != 0 && got != want {
			t.Fatalf("CompareVersions(%s, %s) = %d, want %d", a, b, got, want)
		}
		if (got == 0) != (a == b) || got != -manifests.CompareVersions(b, a) {
			t.Fatalf("CompareVersions(%s, %s) = %d is no total order", a, b, got)
		}
	})
}

func FuzzVersion(f *testing.F) {
	for _, s := range []string{"1.2.3", "1.0.0-alpha.1+b.01", "v1.0.0", "1.2", "1.0.0-01", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ok := manifests.ValidVersion(s)
		// The other one also takes v1 and v1.2, and any length.
		want := semver.IsValid("v"+s) && semver.Canonical("v"+s)+semver.Build("v"+s) == "v"+s && len(s) <= 128
		if ok != want {
			t.Fatalf("ValidVersion(%q) = %v, want %v", s, ok, want)
		}
		manifests.CompareVersions(s, "1.2.3-x") // whatever s is, no panic
	})
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"timeout", "timeout", 0}, {"timeuot", "timeout", 1}, {"tiemout", "timeout", 1},
		{"timout", "timeout", 1}, {"kind", "mind", 1}, {"abc", "xyz", 3}} {
		if got := manifests.Distance(c.a, c.b); got != c.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestSecretNames(t *testing.T) {
	secret := []string{"password", "db_password", "PASSWORD", "clientSecret", "client-secrets", "api_key", "apiKey", "api-keys", "token", "authToken",
		"x.private_key", "credentials", "passphrase", "pwd", "secret_access_key"}
	other := []string{"", "key", "keys", "secret_name", "secretRef", "token_url", "tokenizer", "passwords_file", "monkey", "primary_key", "_", "pass"}
	for _, s := range append(slices.Clone(secret), other...) {
		if got, want := manifests.SecretName(s), slices.Contains(secret, s); got != want {
			t.Errorf("SecretName(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestTemplates(t *testing.T) {
	for s, want := range map[string]string{
		"":                                  "",
		"no expression, } alone":            "",
		"$ { } $":                           "",
		"${ a }":                            "",
		"${a}${b} and ${ {'k': [1]}['k'] }": "",
		`${ "}" + '}' }`:                    "",
		`${ "\"}" }`:                        "",
		`${ r"\" }`:                         "",
		`${ bR'\' + Rb"\" }`:                "",
		`${ """ " } """ }`:                  "",
		"${ a // }\n }":                     "",
		`${ "${" }`:                         "",
		"${":                                "${ has no }",
		"${ a":                              "${ has no }",
		"${ {a }":                           "${ has no }",
		"${ a } ${":                         "${ has no }",
		`${ "} `:                            "a string inside ${ } has no end",
		`${ for"\" }`:                       "a string inside ${ } has no end",
		"${ '\n' }":                         "a string inside ${ } has no end",
		"${ a // }":                         "a comment inside ${ } hides its end",
		"${ }":                              "${ } is empty",
		"${}":                               "${ } is empty",
	} {
		got := ""
		if err := manifests.CheckTemplate(s); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("CheckTemplate(%q) = %q, want %q", s, got, want)
		}
	}
}
