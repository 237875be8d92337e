package manifests_test

import "testing"

// TestBundleFaults changes the manifest of a wasm plugin.
func TestBundleFaults(t *testing.T) {
	runFaults(t, lang("bundle"), "bundle/plugin.toml", []faultCase{
		{"a missing key is named without a line",
			`kind = "plugin"⏎ =>
			 created = "2026-11-22T00:00:00.000000000Z"⏎ =>`,
			`kind: is missing
			 created: is missing`},
		{"all that a manifest must have",
			`publisher = "acme"⏎ =>
			 version = "1.4.0"⏎ =>
			 sequence = 7⏎ =>
			 name = "acme.match"⏎ =>
			 content_digest = "a8f15d93cfd4e6fe2e7e7e70266b706a7e1fae13c29c10af1074ee46efc10b02"⏎ =>`,
			`publisher: is missing
			 name: is missing
			 version: is missing
			 sequence: is missing
			 content_digest: is missing`},
		{"an unknown kind says nothing of the sections",
			`kind = "plugin" => kind = "plugins"`,
			`2: kind: "plugins" is not allowed here (want plugin, dag, data, trust or secrets)`},
		{"names and versions",
			`publisher = "acme" => publisher = "Acme"
			 name = "acme.match" => name = "-x"
			 version = "1.4.0" => version = "v1.4.0"
			 min_stella = "1.0.0" => min_stella = "1.0"`,
			`3: publisher: "Acme" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 4: name: "-x" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 5: version: "v1.4.0" is not allowed here (want a semantic version such as 1.4.0, without a leading v)
			 10: min_stella: "1.0" is not allowed here (want a semantic version such as 1.4.0, without a leading v)`},
		{"a version without quotes",
			`version = "1.4.0" => version = 1.4`,
			`5: version: want a string, found a float (put it in quotes)`},
		{"sequences begin at one",
			`sequence = 7 => sequence = 0`,
			`6: sequence: 0 is out of range (want 1 to 9007199254740991)`},
		{"a sequence beyond 2^53",
			`sequence = 7 => sequence = 9007199254740992`,
			`6: sequence: 9007199254740992 is out of range (want 1 to 9007199254740991)`},
		{"a sequence in quotes",
			`sequence = 7 => sequence = "7"`,
			`6: sequence: want a whole number, found a string`},
		{"a time without quotes",
			`created = "2026-11-22T00:00:00.000000000Z" => created = 2026-11-22T00:00:00.000000000Z`,
			`7: created: want a string, found a date or time without quotes (want a time in quotes such as "2026-11-22T00:00:00.000000000Z", from 1970 on)`},
		{"times of another form",
			`created = "2026-11-22T00:00:00.000000000Z" => created = "2026-11-22T00:00:00Z"
			 not_before = "2026-11-23T00:00:00.000000000Z" => not_before = "2026-11-23T00:00:00.000000000+00:00"
			 expires = "2027-11-22T00:00:00.000000000Z" => expires = "1969-12-31T23:59:59.999999999Z"`,
			`7: created: "2026-11-22T00:00:00Z" is not a time of our form (want a time in quotes such as "2026-11-22T00:00:00.000000000Z", from 1970 on)
			 8: not_before: "2026-11-23T00:00:00.000000000+00:00" is not a time of our form (want a time in quotes such as "2026-11-22T00:00:00.000000000Z", from 1970 on)
			 9: expires: "1969-12-31T23:59:59.999999999Z" is not a time of our form (want a time in quotes such as "2026-11-22T00:00:00.000000000Z", from 1970 on)`},
		{"a time that the container cannot carry",
			`created = "2026-11-22T00:00:00.000000000Z" => created = "2242-03-16T12:56:32.000000000Z"
			 expires = "2027-11-22T00:00:00.000000000Z"⏎ =>`,
			`7: created: is beyond what the container can carry (want a time before 2242-03-16)`},
		{"a bundle that expires before it is made",
			`expires = "2027-11-22T00:00:00.000000000Z" => expires = "2026-11-22T00:00:00.000000000Z"`,
			`9: expires: must be after created
			 9: expires: must be after not_before`},
		{"an audience of names",
			`audience = ["00112233445566778899aabbccddeeff"] => audience = ["acme", 7, "00112233445566778899aabbccddeeff",⏎"00112233445566778899aabbccddeeff"]`,
			`11: audience[0]: "acme" is not allowed here (want 32 lower-case hex digits)
			 11: audience[1]: want a string, found an integer
			 12: audience[3]: "00112233445566778899aabbccddeeff" stands in the list twice (first on line 11)`},
		{"a list that is no list",
			`audience = ["00112233445566778899aabbccddeeff"] => audience = "00112233445566778899aabbccddeeff"`,
			`11: audience: want a list of strings, found a string`},
		{"unknown keys, each with what was meant",
			`sequence = 7 => sequence = 7⏎Kind = "dag"⏎not-before = 1⏎notBefore = 1⏎expiers = 1⏎colour = "red"`,
			`7: Kind: unknown key (write kind; keys are lower-case with _)
			 8: not-before: unknown key (write not_before; keys are lower-case with _)
			 9: notBefore: unknown key (write not_before; keys are lower-case with _)
			 10: expiers: unknown key (did you mean expires?)
			 11: colour: unknown key`},
		{"unknown keys below list what there is",
			`runtime = "wasm" => runtime = "wasm"⏎memory = 1
			 [plugin.entry] => [plugin.limits]⏎[plugin.entry]`,
			`16: plugin.memory: unknown key (known here: actions, determinism, entry, host_read, interpreter, network, runtime)
			 21: plugin.limits: unknown key (known here: actions, determinism, entry, host_read, interpreter, network, runtime)`},
		{"a section of another kind",
			`[plugin] => [dag]⏎spec = "dag.toml"⏎[plugin]`,
			`14: dag: does not belong in a bundle of kind plugin
			 15: dag.spec: dag.toml is not among the files (list it as [[file]])`},
		{"a kind without its section",
			`kind = "plugin" => kind = "data"`,
			`data: is missing
			 14: plugin: does not belong in a bundle of kind data`},
		{"trust and secrets name their audience",
			`kind = "plugin" => kind = "trust"
			 audience = ["00112233445566778899aabbccddeeff"]⏎ => 
			 [plugin] => [trust]⏎[plugin]`,
			`audience: is missing (a bundle of kind trust names the sites or fleets it is for)
			 13: trust: names no file (want root, policy or revocations)
			 14: plugin: does not belong in a bundle of kind trust`},
		{"a section that is no table",
			`[plugin] => [[plugin]]`,
			`14: plugin: want a table, found a list of tables`},
		{"words of the plugin section",
			`runtime = "wasm" => runtime = "docker"
			 network = "none" => network = "host"
			 determinism = "fixed" => determinism = "random"
			 host_read = ["/var/lib/dpkg"] => host_read = ["var/lib", "/a/../b", "/a/", "/", "/a//b"]`,
			`15: plugin.runtime: "docker" is not allowed here (want wasm or exec)
			 16: plugin.network: "host" is not one of the choices (want none or loopback)
			 17: plugin.determinism: "random" is not one of the choices (want fixed or real)
			 18: plugin.host_read[0]: "var/lib" is not allowed here (want an absolute path in its shortest form)
			 18: plugin.host_read[1]: "/a/../b" is not allowed here (want an absolute path in its shortest form)
			 18: plugin.host_read[2]: "/a/" is not allowed here (want an absolute path in its shortest form)
			 18: plugin.host_read[4]: "/a//b" is not allowed here (want an absolute path in its shortest form)`},
		{"an interpreter for wasm",
			`[plugin.entry] => interpreter = "/bin/sh"⏎[plugin.entry]`,
			`20: plugin.interpreter: belongs to runtime exec only`},
		{"entries of wasm are for any platform",
			`any = "bin/match.wasm" => "linux/amd64" = "bin/match.wasm"`,
			`21: plugin.entry."linux/amd64": a wasm module is for any platform (write any = "…")`},
		{"an entry that is not among the files",
			`any = "bin/match.wasm" => any = "bin/Match.wasm"
			 params = "schema/params.json" => params = "schema/p.json"
			 outputs = "schema/outputs.json" => outputs = "schema/o.json"`,
			`21: plugin.entry.any: bin/Match.wasm is not among the files (did you mean bin/match.wasm?)
			 26: plugin.actions.match.params: schema/p.json is not among the files (list it as [[file]])
			 27: plugin.actions.match.outputs: schema/o.json is not among the files (list it as [[file]])`},
		{"entries and actions must be there",
			`any = "bin/match.wasm"⏎ =>`,
			`20: plugin.entry: names no file`},
		{"paths",
			`any = "bin/match.wasm" => any = "../match.wasm"
			 outputs = "schema/outputs.json" => outputs = "/outputs.json"`,
			`21: plugin.entry.any: "../match.wasm" is not allowed here (want at most 255 of A-Z a-z 0-9 . _ + @ - and /, relative, no part empty, . or ..)
			 27: plugin.actions.match.outputs: "/outputs.json" is not allowed here (want at most 255 of A-Z a-z 0-9 . _ + @ - and /, relative, no part empty, . or ..)`},
		{"an action of a bad name",
			`[plugin.actions.match] => [plugin.actions.Match]
			 [plugin.actions.match.limits] => [plugin.actions.Match.limits]`,
			`23: plugin.actions.Match: the name is not allowed (want 1 to 63 of a-z 0-9 _ -)`},
		{"keys of an action",
			`idempotent = true => idempotent = "yes"
			 args = ["--fast", "--fast"] => args = ["--fast", 1, "a\u0000b"]
			 secrets = ["db"] => secrets = ["DB", "db", "db"]
			 require = ["no_network"] => require = ["no network"]
			 description = "compares" => description = "\u001b[31m"`,
			`24: plugin.actions.match.description: "\x1b[31m" is not allowed here (want text of at most 4096 bytes)
			 25: plugin.actions.match.args[1]: want a string, found an integer
			 25: plugin.actions.match.args[2]: "a\x00b" is not allowed here (want text of at most 4096 bytes)
			 28: plugin.actions.match.idempotent: want true or false, found a string
			 29: plugin.actions.match.secrets[0]: "DB" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 29: plugin.actions.match.secrets[2]: "db" stands in the list twice (first on line 29)
			 30: plugin.actions.match.require[0]: "no network" is not allowed here (want 1 to 63 of a-z 0-9 _ -)`},
		{"limits",
			`memory = "256MiB" => memory = "256MB"
			 cpu = 1.0 => cpu = 0
			 pids = 64 => pids = 0
			 timeout = "5m" => timeout = "5"
			 workspace = "1GiB" => workspace = -1
			 log = "10MiB" => log = 1.5`,
			`33: plugin.actions.match.limits.memory: "256MB" is not a size (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 34: plugin.actions.match.limits.cpu: 0 is out of range (want more than 0, at most 4096 processors)
			 35: plugin.actions.match.limits.pids: 0 is out of range (want 1 to 4194304)
			 36: plugin.actions.match.limits.timeout: "5" is not a duration (want a duration such as "90s", "5m" or "1h30m")
			 37: plugin.actions.match.limits.workspace: -1 is out of range (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 38: plugin.actions.match.limits.log: want a size, found a float (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))`},
		{"more limits",
			`memory = "256MiB" => memory = "0MiB"
			 cpu = 1.0 => cpu = nan
			 pids = 64 => pids = "64"
			 timeout = "5m" => timeout = 5
			 workspace = "1GiB" => workspace = "8388608GiB"
			 log = "10MiB" => log = "010MiB"⏎logs = 1`,
			`33: plugin.actions.match.limits.memory: "0MiB" is not a size (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 34: plugin.actions.match.limits.cpu: NaN is out of range (want more than 0, at most 4096 processors)
			 35: plugin.actions.match.limits.pids: want a whole number, found a string
			 36: plugin.actions.match.limits.timeout: want a string, found an integer (want a duration such as "90s", "5m" or "1h30m")
			 37: plugin.actions.match.limits.workspace: "8388608GiB" is not a size (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 38: plugin.actions.match.limits.log: "010MiB" is not a size (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 39: plugin.actions.match.limits.logs: unknown key (did you mean log?)`},
		{"durations",
			`timeout = "5m" => timeout = "-5m"`,
			`36: plugin.actions.match.limits.timeout: "-5m" is not above zero`},
		{"durations of less than a millisecond",
			`timeout = "5m" => timeout = "1.5us"`,
			`36: plugin.actions.match.limits.timeout: "1.5us" is not a whole number of milliseconds`},
		{"durations with a plus",
			`timeout = "5m" => timeout = "+5m"`,
			`36: plugin.actions.match.limits.timeout: "+5m" is not a duration (want a duration such as "90s", "5m" or "1h30m")`},
		{"durations beyond ten years",
			`timeout = "5m" => timeout = "87601h"`,
			`36: plugin.actions.match.limits.timeout: "87601h" is too long (at most 87600h)`},
		{"hashes and sizes of files",
			`size = 1000 => size = -1
			 sha256 = "0000000000000000000000000000000000000000000000000000000000000005" => sha256 = "000000000000000000000000000000000000000000000000000000000000000A"
			 path = "EMPTY" => path = "EMPTY"⏎modes = 1
			 stored_size = 700 => stored_size = 0
			 encoding = "zstd" => encoding = "gzip"`,
			`43: file[0].size: -1 is out of range (want 0 to 9007199254740991)
			 45: file[0].encoding: "gzip" is not one of the choices (want zstd)
			 47: file[0].stored_size: 0 is out of range (want 1 to 8589934591)
			 63: file[3].modes: unknown key (did you mean mode?)
			 64: file[3].sha256: "000000000000000000000000000000000000000000000000000000000000000A" is not allowed here (want a SHA-256 as 64 lower-case hex digits)`},
		{"a mode of its own",
			`path = "EMPTY"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000005"⏎size = 0⏎mode = "0644" => path = "EMPTY"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000005"⏎size = 0⏎mode = "0777"`,
			`65: file[3].mode: "0777" is not allowed here (want "0644" or "0755")`},
		{"what a file must have",
			`path = "EMPTY"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000005"⏎size = 0⏎mode = "0644" => x = 1`,
			`61: file[3].path: is missing
			 61: file[3].sha256: is missing
			 61: file[3].size: is missing
			 61: file[3].mode: is missing
			 62: file[3].x: unknown key (known here: encoding, mode, path, sha256, size, stored_sha256, stored_size)`},
		{"stored form without encoding",
			`encoding = "zstd"⏎ =>`,
			`45: file[0].stored_sha256: stands here without encoding (add encoding = "zstd", or take it out)
			 46: file[0].stored_size: stands here without encoding (add encoding = "zstd", or take it out)`},
		{"encoding without stored form",
			`stored_sha256 = "0000000000000000000000000000000000000000000000000000000000000002"⏎stored_size = 700⏎ =>`,
			`40: file[0].stored_sha256: is missing
			 40: file[0].stored_size: is missing`},
		{"a plain file of 8 GiB",
			`size = 0 => size = 8589934592`,
			`64: file[3].size: 8589934592 is out of range (without encoding at most 8589934591)`},
		{"paths that differ in case only",
			`path = "EMPTY" => path = "BIN/match.WASM"`,
			`12: content_digest: is not the digest of the files listed here (it should be 1e7ce2cfdd42ccc8479201a814ea1a8ce7cabc2ac073e2ffeac66e03d1715999)
			 62: file[3].path: BIN/match.WASM is listed twice, paths differing only in case included (first on line 41)`},
		{"a file below a file",
			`path = "EMPTY" => path = "Schema/params.json/x/y"`,
			`12: content_digest: is not the digest of the files listed here (it should be f20a5a58e2978596ef007ac2105d4ce7f50c2f79cb8ff98bcab1db4ad58da049)
			 62: file[3].path: lies below schema/params.json, which line 50 lists as a file`},
		{"one content in two forms",
			`sha256 = "0000000000000000000000000000000000000000000000000000000000000005"⏎size = 0 => sha256 = "0000000000000000000000000000000000000000000000000000000000000001"⏎size = 1000`,
			`12: content_digest: is not the digest of the files listed here (it should be ca6e92e6443dfae70de04a8577a23b37a041e775e779d0ebac2d93d5374a541c)
			 63: file[3].sha256: has the content of bin/match.wasm, but size, encoding or stored form differ (a blob is stored once)`},
		{"one content in two sizes",
			`path = "schema/outputs.json"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000003"⏎size = 20 => path = "schema/outputs.json"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000003"⏎size = 21`,
			`57: file[2].sha256: has the content of schema/params.json, but size, encoding or stored form differ (a blob is stored once)`},
		{"one content in two stored sizes",
			`sha256 = "0000000000000000000000000000000000000000000000000000000000000005"⏎size = 0⏎mode = "0644" => sha256 = "0000000000000000000000000000000000000000000000000000000000000001"⏎size = 1000⏎mode = "0644"⏎encoding = "zstd"⏎stored_sha256 = "0000000000000000000000000000000000000000000000000000000000000002"⏎stored_size = 701`,
			`12: content_digest: is not the digest of the files listed here (it should be ca6e92e6443dfae70de04a8577a23b37a041e775e779d0ebac2d93d5374a541c)
			 63: file[3].sha256: has the content of bin/match.wasm, but size, encoding or stored form differ (a blob is stored once)`},
		{"the digest of other files",
			`path = "EMPTY" => path = "FULL"`,
			`12: content_digest: is not the digest of the files listed here (it should be 069297fc1047ce59ef812dca8c928806d3e3ed84dfaf6ecad0ad760667918448)`},
		{"the digest of other files is found beside other faults",
			`path = "EMPTY" => path = "FULL"
			 sequence = 7 => sequence = 0`,
			`6: sequence: 0 is out of range (want 1 to 9007199254740991)
			 12: content_digest: is not the digest of the files listed here (it should be 069297fc1047ce59ef812dca8c928806d3e3ed84dfaf6ecad0ad760667918448)`},
		{"a digest that is none",
			`content_digest = "a8f15d93cfd4e6fe2e7e7e70266b706a7e1fae13c29c10af1074ee46efc10b02" => content_digest = "sha256:a8f1"`,
			`12: content_digest: "sha256:a8f1" is not allowed here (want a SHA-256 as 64 lower-case hex digits)`},
		{"another language",
			`schema = "stella.bundle/1" => schema = "stella.dag/1"`,
			`1: schema: the first line must be exactly schema = "stella.bundle/1" and a line feed (this file is of another kind: "stella.dag/1")`},
		{"another version of the language",
			`schema = "stella.bundle/1" => schema = "stella.bundle/2"`,
			`1: schema: the first line must be exactly schema = "stella.bundle/1" and a line feed (this file is of another version of the language; this stella reads stella.bundle/1)`},
		{"a schema line of another form, and what else is wrong",
			`schema = "stella.bundle/1" => schema="stella.bundle/1"
			 sequence = 7 => sequence = 0`,
			`1: schema: the first line must be exactly schema = "stella.bundle/1" and a line feed (one space on each side of the =, nothing behind it)
			 6: sequence: 0 is out of range (want 1 to 9007199254740991)`},
		{"a schema line that is not the first",
			`schema = "stella.bundle/1" => # my bundle⏎schema = "stella.bundle/1"`,
			`1: schema: the first line must be exactly schema = "stella.bundle/1" and a line feed (put it before any comment or empty line)`},
		{"a file without a schema line",
			`schema = "stella.bundle/1"⏎ =>`,
			`1: schema: the first line must be exactly schema = "stella.bundle/1" and a line feed (put it before any comment or empty line)`},
		{"a schema line that ends in CR LF",
			"schema = \"stella.bundle/1\"⏎ => schema = \"stella.bundle/1\"\r⏎",
			`1: schema: the first line must be exactly schema = "stella.bundle/1" and a line feed (lines of this file do not end with a line feed alone)`},
		{"what is set twice keeps nobody from reading the rest",
			`sequence = 7 => sequence = 0⏎sequence = { a = 1, a = [⏎2], b = 3 } # again
			 kind = "plugin" => kind = "none"`,
			`2: kind: "none" is not allowed here (want plugin, dag, data, trust or secrets)
			 6: sequence: 0 is out of range (want 1 to 9007199254740991)
			 7: sequence: the key is set twice, first on line 6
			 7: sequence.a: the key is set twice, first on line 7`},
		{"nor does a table",
			`sequence = 7 => sequence = 0⏎[plugin]⏎sequence = 1⏎[plugin]⏎sequence = 2⏎[more]`,
			`created: is missing
			 content_digest: is missing
			 6: sequence: 0 is out of range (want 1 to 9007199254740991)
			 7: plugin.runtime: is missing
			 8: plugin.sequence: unknown key (known here: actions, determinism, entry, host_read, interpreter, network, runtime)
			 9: plugin: the table is set twice, first on line 7
			 11: more: unknown key
			 19: plugin: the table is set twice, first on line 7`},
		{"faults of the scan stop the rest",
			`sequence = 7 => sequence = 0⏎sequence = 1⏎a.b.c.d.e = 1`,
			`7: sequence: the key is set twice, first on line 6
			 8: a.b.c.d.…: the name has 5 parts, at most 4 are allowed (quote a name that has dots in it)`},
		{"faults of the parser stop the rest",
			`sequence = 7 => sequence = 07
			 kind = "plugin" => kind = "none"`,
			`6: Invalid integer "07": cannot have leading zeroes`},
	})
}

// TestScriptFaults changes the manifest of a script.
func TestScriptFaults(t *testing.T) {
	runFaults(t, lang("bundle"), "bundle/script.toml", []faultCase{
		{"determinism is for wasm",
			`network = "none" => determinism = "fixed"`,
			`12: plugin.determinism: belongs to runtime wasm only`},
		{"any is for wasm",
			`"linux/amd64" = "run.sh" => any = "run.sh"`,
			`16: plugin.entry.any: is not a platform (write "linux/amd64" in quotes; any is for wasm only)`},
		{"platforms",
			`"linux/amd64" = "run.sh" => "linux" = "run.sh"⏎"Linux/amd64" = "run.sh"⏎"linux/" = "run.sh"`,
			`16: plugin.entry.linux: is not a platform (write "linux/amd64" in quotes; any is for wasm only)
			 17: plugin.entry."Linux/amd64": is not a platform (write "linux/amd64" in quotes; any is for wasm only)
			 18: plugin.entry."linux/": is not a platform (write "linux/amd64" in quotes; any is for wasm only)`},
		{"entries and interpreters are executable",
			`path = "run.sh"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000001"⏎size = 10⏎mode = "0755" => path = "run.sh"⏎sha256 = "0000000000000000000000000000000000000000000000000000000000000001"⏎size = 10⏎mode = "0644"
			 size = 99⏎mode = "0755" => size = 99⏎mode = "0644"`,
			`8: content_digest: is not the digest of the files listed here (it should be 1a585d6ebfc676139fcd1c830dcd6ab7f83072f44a43a738377a2f67075a571f)
			 13: plugin.interpreter: lib/bash is not executable (its [[file]] wants mode = "0755")
			 16: plugin.entry."linux/amd64": run.sh is not executable (its [[file]] wants mode = "0755")
			 17: plugin.entry."linux/arm64": run.sh is not executable (its [[file]] wants mode = "0755")`},
		{"an interpreter that is not here",
			`interpreter = "lib/bash" => interpreter = "lib/sh"`,
			`13: plugin.interpreter: lib/sh is not among the files (list it as [[file]])`},
		{"an interpreter that is a folder of the host",
			`interpreter = "lib/bash" => interpreter = "/"`,
			`13: plugin.interpreter: "/" is not allowed here (want an absolute path of the host, or a file here)`},
		{"no action",
			`[plugin.actions.check] =>
			 [plugin.actions.run] => [plugin.actions]`,
			`21: plugin.actions: has no action (want at least one [plugin.actions.NAME])`},
	})
}

// TestDataFaults changes the manifest of data.
func TestDataFaults(t *testing.T) {
	runFaults(t, lang("bundle"), "bundle/data.toml", []faultCase{
		{"media types",
			`media_type = "application/vnd.osv+json" => media_type = "json"`,
			`11: data.media_type: "json" is not allowed here (want type/subtype, such as application/json)`},
		{"media types with parameters",
			`media_type = "application/vnd.osv+json" => media_type = "text/plain; charset=utf-8"`,
			`11: data.media_type: "text/plain; charset=utf-8" is not allowed here (want type/subtype, such as application/json)`},
		{"no file",
			`[[file]]⏎ => file = []⏎[x]⏎`,
			`file: is missing
			 8: content_digest: is not the digest of the files listed here (it should be e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855)
			 13: data.file: unknown key (known here: media_type)
			 14: x: unknown key`},
	})
}

// TestTrustFaults changes a manifest of trust files.
func TestTrustFaults(t *testing.T) {
	runFaults(t, lang("bundle"), "bundle/trust.toml", []faultCase{
		{"a trust bundle names its files",
			`policy = "policy.toml"⏎revocations = "revocations.toml"⏎ =>`,
			`11: trust: names no file (want root, policy or revocations)`},
		{"one file for two roles",
			`revocations = "revocations.toml"⏎ => revocations = "policy.toml"⏎root = "policy.toml"⏎`,
			`12: trust.policy: is the same file as root
			 13: trust.revocations: is the same file as another`},
		{"an empty audience is none",
			`audience = ["0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"] => audience = []`,
			`8: audience: is missing (a bundle of kind trust names the sites or fleets it is for)`},
	})
}

// TestSecretsFaults changes a manifest of secrets.
func TestSecretsFaults(t *testing.T) {
	runFaults(t, lang("bundle"), "bundle/secrets.toml", []faultCase{
		{"secrets name their audience",
			`audience = ["0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"]⏎ =>`,
			`audience: is missing (a bundle of kind secrets names the sites or fleets it is for)`},
		{"secrets are a file here",
			`file = "dag.toml" => file = "secrets.age"`,
			`12: secrets.file: secrets.age is not among the files (list it as [[file]])`},
	})
}

// TestSourceFaults changes a source folder's manifest.
func TestSourceFaults(t *testing.T) {
	runFaults(t, lang("source"), "source/plugin.toml", []faultCase{
		{"what packing adds",
			`sequence = 7 => sequence = 7⏎content_digest = "00"
			 [plugin] => [[file]]⏎path = "a"⏎[plugin]`,
			`7: content_digest: does not stand in a source folder's manifest (packing writes it; take it out)
			 14: file: does not stand in a source folder's manifest (packing writes it; take it out)`},
		{"files are not looked up, their form is",
			`any = "bin/match.wasm" => any = "nowhere"
			 params = "schema/params.json" => params = "/etc/passwd"`,
			`25: plugin.actions.match.params: "/etc/passwd" is not allowed here (want at most 255 of A-Z a-z 0-9 . _ + @ - and /, relative, no part empty, . or ..)`},
	})
}
