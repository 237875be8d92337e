package manifests_test

import "testing"

// TestRootFaults changes root.toml.
func TestRootFaults(t *testing.T) {
	runFaults(t, lang("root"), "root/root.toml", []faultCase{
		{"what a root must have",
			`version = 1⏎ =>
			 fleet_id = "00112233445566778899aabbccddeeff"⏎ =>
			 expires = "2027-11-22T00:00:00.000000000Z"⏎ =>`,
			`version: is missing
			 fleet_id: is missing
			 expires: is missing`},
		{"fleets and versions",
			`version = 1 => version = 0
			 fleet_id = "00112233445566778899aabbccddeeff" => fleet_id = "acme"`,
			`2: version: 0 is out of range (want 1 to 9007199254740991)
			 3: fleet_id: "acme" is not allowed here (want 32 lower-case hex digits)`},
		{"a root that expires before it is issued",
			`expires = "2027-11-22T00:00:00.000000000Z" => expires = "2026-11-22T00:00:00.000000000Z"`,
			`5: expires: must be after issued`},
		{"a role that is missing, and one too many",
			`[roles.policy] => [roles.revocations]`,
			`7: roles.policy: is missing
			 25: roles.revocations: unknown key (did you mean revocation?)`},
		{"half of a break-glass rule",
			`expires = "2027-11-22T00:00:00.000000000Z" => expires = "2027-11-22T00:00:00.000000000Z"⏎max_extension = "720h"`,
			`6: max_extension: stands without its other half (max_extension and [roles.break_glass] come together)`},
		{"a threshold above the keys",
			`threshold = 2 => threshold = 3`,
			`8: roles.root.threshold: 3 of 2 keys can never sign`},
		{"a threshold of none",
			`threshold = 2 => threshold = 0`,
			`8: roles.root.threshold: 0 is out of range (want 1 to 65536)`},
		{"a role without threshold",
			`threshold = 2⏎ =>`,
			`7: roles.root.threshold: is missing`},
		{"a role without keys",
			`keys = ["""⏎{p256-b}"""] => keys = []`,
			`36: roles.revocation.keys: has no key`},
		{"one key twice",
			`{p384}""" => {p256-a}"""`,
			`8: roles.root.threshold: 2 of 1 keys can never sign
			 16: roles.root.keys[1]: the key stands in the list twice (first on line 10)`},
		{"keys of other kinds",
			`{p256-b}"""] => {bad-ed25519}""", """⏎{bad-rsa}""", """⏎{bad-p521}""", """⏎{bad-type}""", 7, "key", """⏎{bad-shifted-p256-a}"""]`,
			`36: roles.revocation.keys[0]: is not an ECDSA key on P-256 or P-384 (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 40: roles.revocation.keys[1]: is not an ECDSA key on P-256 or P-384 (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 50: roles.revocation.keys[2]: is not an ECDSA key on P-256 or P-384 (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 57: roles.revocation.keys[3]: is a "EC PUBLIC KEY" in PEM, not a PUBLIC KEY (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 64: roles.revocation.keys[4]: want a string, found an integer (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 64: roles.revocation.keys[5]: is not a key in PEM (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 64: roles.revocation.keys[6]: is not encoded in the usual way (DER, named curve, uncompressed point) (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)`},
		{"keys with more around them",
			`{p256-b}"""] => {p256-a}{p256-b}""", """⏎my key⏎{p256-b}"""]`,
			`36: roles.revocation.keys[0]: is not the plain PEM form of one key (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 45: roles.revocation.keys[1]: is not the plain PEM form of one key (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)`},
		{"a key with a broken line",
			`keys = [⏎"""⏎{p256-a}""", => keys = [⏎"""⏎-----BEGIN PUBLIC KEY-----⏎MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAET+M+ZS2o7B44MPYsf3FeoM5uMgD/7UxaiXR4⏎MbIrPefUVT00uJAxjtP66B3RpoZIiSup5/lLd+USnZKv33QJ0g==⏎-----END PUBLIC KEY-----⏎""",`,
			`10: roles.root.keys[0]: is not the plain PEM form of one key (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)`},
		{"a key that is no key",
			`{p256-b}"""] => -----BEGIN PUBLIC KEY-----⏎AAAA⏎-----END PUBLIC KEY-----⏎"""]`,
			`36: roles.revocation.keys[0]: holds no public key that can be read (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)`},
	})
}

// TestPolicyFaults changes policy.toml.
func TestPolicyFaults(t *testing.T) {
	runFaults(t, lang("policy"), "policy/policy.toml", []faultCase{
		{"what a policy must have",
			`serial = 3⏎ =>
			 root_version = 1⏎ =>
			 issued = "2026-11-22T00:00:00.000000000Z"⏎ =>
			 next_update = "2027-02-22T00:00:00.000000000Z"⏎ =>`,
			`serial: is missing
			 root_version: is missing
			 issued: is missing
			 next_update: is missing`},
		{"a policy that ends before it begins",
			`next_update = "2027-02-22T00:00:00.000000000Z" => next_update = "2026-02-22T00:00:00.000000000Z"`,
			`5: next_update: must be after issued`},
		{"identities need the trusted root",
			`trusted_root_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"⏎ =>`,
			`trusted_root_sha256: is missing (an identity is checked against the trusted root: stella trust add --trusted-root FILE)`},
		{"what a publisher must have",
			`name = "local"⏎ =>
			 level = "audit"⏎ =>
			 kinds = ["dag"]⏎ =>
			 names = ["local."]⏎ =>
			 threshold = 1⏎ =>`,
			`67: publisher[1].name: is missing
			 67: publisher[1].threshold: is missing
			 67: publisher[1].kinds: is missing
			 67: publisher[1].names: is missing`},
		{"two publishers of one name",
			`name = "local" => name = "acme"`,
			`68: publisher[1].name: acme is the name of two publishers (first on line 8)`},
		{"names, kinds and levels",
			`name = "local" => name = "Local"
			 level = "audit" => level = "warn"
			 kinds = ["dag"] => kinds = ["dag", "trust", "dags", "dag"]
			 names = ["local."] => names = ["local.", "-x", "Y"]`,
			`68: publisher[1].name: "Local" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 69: publisher[1].level: "warn" is not one of the choices (want enforce or audit)
			 71: publisher[1].kinds[2]: "dags" is not allowed here (want plugin, dag, data, trust or secrets)
			 71: publisher[1].kinds[3]: "dag" stands in the list twice (first on line 71)
			 71: publisher[1].kinds: trust is not for publishers (the roles of root.toml sign trust bundles)
			 72: publisher[1].names[1]: "-x" is not allowed here (want the beginning of a name: a-z 0-9 . -)
			 72: publisher[1].names[2]: "Y" is not allowed here (want the beginning of a name: a-z 0-9 . -)`},
		{"publishers of nothing",
			`kinds = ["dag"] => kinds = []
			 names = ["local."] => names = []`,
			`71: publisher[1].kinds: is empty (the publisher could publish nothing)
			 72: publisher[1].names: is empty (the publisher could publish nothing)`},
		{"prefixes that overlap",
			`names = ["local."] => names = ["audit", "acme.tools.", "x", "x.y"]`,
			`72: publisher[1].names[1]: "acme.tools." overlaps with "acme." of another publisher (first on line 13)
			 72: publisher[1].names[0]: "audit" overlaps with "audit-" of another publisher (first on line 13)`},
		{"prefixes that overlap in both directions",
			`names = ["acme.", "audit-"] => names = ["acme.", "audit-", "acme.x.y"]
			 names = ["local."] => names = ["acme.x"]`,
			`72: publisher[1].names[0]: "acme.x" overlaps with "acme." of another publisher (first on line 13)
			 72: publisher[1].names[0]: "acme.x" overlaps with "acme.x.y" of another publisher (first on line 13)`},
		{"the prefix of all names",
			`names = ["local."] => names = [""]`,
			`72: publisher[1].names[0]: "" overlaps with "acme." of another publisher (first on line 13)
			 72: publisher[1].names[0]: "" overlaps with "audit-" of another publisher (first on line 13)`},
		{"a publisher without keys",
			`key = [{ pem = """⏎{p256-b}""" }] =>`,
			`67: publisher[1]: has neither key nor identity (nobody could sign for it)`},
		{"a key of two publishers",
			`key = [{ pem = """⏎{p256-b}""" }] => key = [{ pem = """⏎{p256-a}""" }]`,
			`73: publisher[1].key[0].pem: the key belongs to two publishers (first on line 15)`},
		{"a key twice, and keys without PEM",
			`key = [{ pem = """⏎{p256-b}""" }] => key = [{ pem = """⏎{p256-b}""" }, {⏎pem = """⏎{p256-b}""" }, { }, { pem = 1 }, { pem = "x" }]`,
			`79: publisher[1].key[1].pem: the key stands here twice (first on line 73)
			 84: publisher[1].key[2].pem: is missing
			 84: publisher[1].key[3].pem: want a string, found an integer (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)
			 84: publisher[1].key[4].pem: is not a key in PEM (ECDSA on P-256 or P-384, as openssl pkey -pubout writes it)`},
		{"windows of keys",
			`valid_until = "2028-01-01T00:00:00.000000000Z" => valid_until = "2026-01-01T00:00:00.000000000Z"`,
			`17: publisher[0].key[0].valid_until: must be after valid_from`},
		{"thresholds",
			`threshold = 2 => threshold = 4
			 threshold = 1 => threshold = 0`,
			`11: publisher[0].threshold: 4 of 3 keys and identities can never sign
			 70: publisher[1].threshold: 0 is out of range (want 1 to 65536)`},
		{"san and san_regexp",
			`san = "release@acme.example"⏎ =>
			 san_regexp = "ci-[0-9]+@acme\\.example" => san_regexp = "ci-[0-9]+"⏎san = "x"`,
			`25: publisher[0].identity[0].san: want exactly one of san and san_regexp
			 34: publisher[0].identity[1].san: want exactly one of san and san_regexp`},
		{"regular expressions",
			`san_regexp = "ci-[0-9]+@acme\\.example" => san_regexp = "ci-[0-9+"`,
			"34: publisher[0].identity[1].san_regexp: is not a regular expression: error parsing regexp: missing closing ]: `[0-9+` (RE2 syntax)"},
		{"regular expressions that would not be anchored",
			`san_regexp = "ci-[0-9]+@acme\\.example" => san_regexp = "a)|(b"`,
			"34: publisher[0].identity[1].san_regexp: is not a regular expression: error parsing regexp: unexpected ): `a)|(b` (RE2 syntax)"},
		{"an identity without issuer, and one twice",
			`issuer = "https://idp.example"⏎san = "release@acme.example"⏎ca = => san = "release@acme.example"⏎ca =
			 [publisher.require]⏎ => [[publisher.identity]]⏎issuer = "https://idp.example"⏎san_regexp = "ci-[0-9]+@acme\\.example"⏎[publisher.require]⏎`,
			`25: publisher[0].identity[0].issuer: is missing
			 36: publisher[0].identity[2].issuer: the identity stands here twice (first on line 31)`},
		{"authorities by their hashes",
			`ca = ["1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"] => ca = ["acme"]`,
			`28: publisher[0].identity[0].ca[0]: "acme" is not allowed here (want a SHA-256 as 64 lower-case hex digits)`},
		{"counts",
			`tlog = 1 => tlog = -1
			 timestamps = 1 => timestamps = 17
			 sct = 1 => sct = "1"`,
			`37: publisher[0].require.tlog: -1 is out of range (want 0 to 16)
			 38: publisher[0].require.timestamps: 17 is out of range (want 0 to 16)
			 39: publisher[0].require.sct: want a whole number, found a string`},
		{"SCTs without certificates",
			`key = [{ pem = """⏎{p256-b}""" }] => key = [{ pem = """⏎{p256-b}""" }]⏎[publisher.require]⏎sct = 1`,
			`80: publisher[1].require.sct: is for certificates, and the publisher has no identity (only a certificate can have an SCT)`},
		{"attestations by the publisher itself",
			`keys = ["""⏎{p384}"""] => keys = ["""⏎{p256-a}"""]`,
			`45: publisher[0].require.attestation[0].keys: the publisher's own key cannot attest to its bundles (first on line 15)`},
		{"attestations by nobody",
			`keys = ["""⏎{p384}"""] => keys = []`,
			`45: publisher[0].require.attestation[0].keys: has no key`},
		{"attestations by an identity of the publisher",
			`keys = ["""⏎{p384}"""] => identity = [{ issuer = "https://idp.example", san = "ci-7@acme.example" }]`,
			`45: publisher[0].require.attestation[0].identity[0].san: the publisher's own identity cannot attest to its bundles`},
		{"attestations by a pattern",
			`keys = ["""⏎{p384}"""] => identity = [{ issuer = "https://idp.example", san_regexp = "x" }]`,
			`45: publisher[0].require.attestation[0].identity[0].san: is missing
			 45: publisher[0].require.attestation[0].identity[0].san_regexp: unknown key (known here: ca, issuer, log, san, tsa)`},
		{"provenance without builder",
			`builder = "https://build.acme.example/1"⏎ =>`,
			`42: publisher[0].require.attestation[0].builder: is missing (provenance counts only from a builder that is named)`},
		{"a builder of something else, required twice",
			`predicate_type = "https://slsa.dev/provenance/v1" => predicate_type = "https://spdx.dev/Document"
			 [publisher.allow]⏎ => [[publisher.require.attestation]]⏎predicate_type = "https://spdx.dev/Document"⏎keys = ["""⏎{p256-c}"""]⏎[publisher.allow]⏎`,
			`44: publisher[0].require.attestation[0].builder: belongs to provenance only (its predicate_type begins with https://slsa.dev/provenance/)
			 54: publisher[0].require.attestation[1].predicate_type: "https://spdx.dev/Document" is required twice (first on line 42)`},
		{"ceilings",
			`network = "loopback" => network = "any"
			 host_read = ["/var/lib/dpkg", "/"] => host_read = ["var"]
			 interpreters = ["/bin/sh"] => interpreters = ["sh"]
			 memory = "1GiB" => memory = "1GB"`,
			`54: publisher[0].allow.network: "any" is not one of the choices (want none or loopback)
			 55: publisher[0].allow.host_read[0]: "var" is not allowed here (want an absolute path in its shortest form)
			 56: publisher[0].allow.interpreters[0]: "sh" is not allowed here (want an absolute path in its shortest form)
			 59: publisher[0].allow.limits.memory: "1GB" is not a size (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))`},
		{"grants",
			`name = "db" => name = "DB"
			 tenants = ["default"] => tenants = []
			 dags = ["acme/audit", "nightly"] => dags = ["*", "acme/audit@1.0.0", "a/b/c"]
			 plugins = ["match"] => plugins = []`,
			`63: publisher[0].allow.secret[0].name: "DB" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 64: publisher[0].allow.secret[0].tenants: is empty (the grant would be to nobody)
			 65: publisher[0].allow.secret[0].dags[0]: "*" is not allowed here (want a dag_id, or publisher/dag_id)
			 65: publisher[0].allow.secret[0].dags[1]: "acme/audit@1.0.0" is not allowed here (want a dag_id, or publisher/dag_id)
			 65: publisher[0].allow.secret[0].dags[2]: "a/b/c" is not allowed here (want a dag_id, or publisher/dag_id)
			 66: publisher[0].allow.secret[0].plugins: is empty (the grant would be to nobody)`},
		{"unknown keys",
			`[publisher.allow]⏎ => [publisher.allow]⏎Network = "none"⏎
			 [[publisher.allow.secret]] => [[publisher.allow.secrets]]`,
			`54: publisher[0].allow.Network: unknown key (write network; keys are lower-case with _)
			 63: publisher[0].allow.secrets: unknown key (did you mean secret?)`},
	})
}

// TestPolicyEmptyFaults changes a policy without publishers.
func TestPolicyEmptyFaults(t *testing.T) {
	runFaults(t, lang("policy"), "policy/empty.toml", []faultCase{
		{"timestamps need the trusted root",
			`serial = 1 => publisher = [{ name = "a", threshold = 1, kinds = ["dag"], names = ["a"], require = { timestamps = 1 }, key = [{ pem = """⏎{p256-a}""" }] }]⏎serial = 1`,
			`trusted_root_sha256: is missing (a log entry, timestamp or SCT is checked against the trusted root: stella trust add --trusted-root FILE)`},
	})
}

// TestRevocationsFaults changes revocations.toml.
func TestRevocationsFaults(t *testing.T) {
	runFaults(t, lang("revocations"), "revocations/revocations.toml", []faultCase{
		{"what it must have",
			`serial = 2⏎ =>
			 next_update = "2026-12-22T00:00:00.000000000Z"⏎ =>`,
			`serial: is missing
			 next_update: is missing`},
		{"two things at once, half a thing, and none",
			`reason = "laptop stolen" => blob = "2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			 manifest = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" => reason = "x"
			 san = "bob@acme.example" =>`,
			`7: revoke[0]: must name exactly one thing (want key, manifest, blob, or issuer with san)
			 12: revoke[1]: must name exactly one thing (want key, manifest, blob, or issuer with san)
			 20: revoke[3]: names half an identity (issuer and san stand together)`},
		{"the same twice",
			`manifest = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" => key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"`,
			`12: revoke[1]: revokes what is revoked already (first on line 7)`},
		{"things that cannot be read are not the same",
			`key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" => key = "1"
			 manifest = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" => manifest = "2"`,
			`8: revoke[0].key: "1" is not allowed here (want a SHA-256 as 64 lower-case hex digits)
			 13: revoke[1].manifest: "2" is not allowed here (want a SHA-256 as 64 lower-case hex digits)`},
		{"forms",
			`key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" => key = "SHA256:01"
			 from = "2026-10-01T00:00:00.000000000Z" => from = "2026-10-01"`,
			`8: revoke[0].key: "SHA256:01" is not allowed here (want a SHA-256 as 64 lower-case hex digits)
			 9: revoke[0].from: "2026-10-01" is not a time of our form (want a time in quotes such as "2026-11-22T00:00:00.000000000Z", from 1970 on)`},
		{"unknown keys",
			`reason = "laptop stolen" => reasons = "laptop stolen"
			 [[revoke]]⏎blob => [[revoked]]⏎blob`,
			`10: revoke[0].reasons: unknown key (did you mean reason?)
			 15: revoked: unknown key (did you mean revoke?)`},
	})
}
