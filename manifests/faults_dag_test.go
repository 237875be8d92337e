package manifests_test

import (
	"testing"

	"github.com/stellarun/stella/manifests"
)

// TestDAGFaults changes a DAG spec that has everything.
func TestDAGFaults(t *testing.T) {
	runFaults(t, lang("dag"), "dag/full.toml", []faultCase{
		{"what a spec must have",
			`dag_id = "release"⏎ =>
			 version = "2.0.0-rc.1"⏎ =>`,
			`dag_id: is missing
			 version: is missing`},
		{"names of the head",
			`dag_id = "release" => dag_id = "Release"
			 version = "2.0.0-rc.1" => version = "2"
			 fail_fast = false => fail_fast = "no"
			 max_parallel_steps = 4 => max_parallel_steps = 0
			 timeout = "2h" => timeout = "0s"`,
			`2: dag_id: "Release" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 3: version: "2" is not allowed here (want a semantic version such as 1.4.0, without a leading v)
			 7: fail_fast: want true or false, found a string
			 42: limits.max_parallel_steps: 0 is out of range (want 1 to 10000)
			 43: limits.timeout: "0s" is not above zero`},
		{"limits of the head",
			`max_parallel_steps = 4 => max_parallel_steps = -1⏎memory = "1GiB"`,
			`42: limits.max_parallel_steps: -1 is out of range (want 1 to 10000)
			 43: limits.memory: unknown key (known here: max_parallel_steps, timeout)`},
		{"inputs need a type",
			`[inputs.env]⏎type = "string" => [inputs.env]⏎type = "text"
			 [inputs.count]⏎type = "integer"⏎ => [inputs.count]⏎`,
			`10: inputs.env.type: "text" is not allowed here (want string, integer, number, boolean, array or object)
			 16: inputs.count.type: is missing`},
		{"names of inputs",
			`[inputs.dry] => [inputs."1st"]`,
			`24: inputs.1st: the name is not allowed (want a letter or _, then at most 62 letters, digits, _ or -)`},
		{"defaults of another type",
			`[inputs.count]⏎type = "integer"⏎default = 3 => [inputs.count]⏎type = "integer"⏎default = 3.0
			 [inputs.share]⏎type = "number"⏎default = 1 => [inputs.share]⏎type = "number"⏎default = "1"
			 default = {} => default = []`,
			`18: inputs.count.default: want a value of type integer, found a float
			 22: inputs.share.default: want a value of type number, found a string
			 34: inputs.extra.default: want a value of type object, found a list`},
		{"a default out of the enum",
			`default = "test" => default = "prod2"`,
			`14: inputs.env.default: "prod2" does not match the pattern (it must match the whole text)
			 14: inputs.env.default: is not among the values of enum`},
		{"an enum of two types, and doubles",
			`enum = ["test", "prod"] => enum = ["test", 1, "test", "PROD"]`,
			`12: inputs.env.enum[1]: want a value of type string, found an integer
			 12: inputs.env.enum[2]: the value stands in the list twice
			 12: inputs.env.enum[3]: "PROD" does not match the pattern (it must match the whole text)`},
		{"an empty enum",
			`enum = ["test", "prod"] => enum = []`,
			`12: inputs.env.enum: allows no value`},
		{"a default against the pattern",
			`default = "test" => default = "test1"
			 enum = ["test", "prod"]⏎ =>`,
			`13: inputs.env.default: "test1" does not match the pattern (it must match the whole text)`},
		{"patterns that are none",
			`pattern = "[a-z]+" => pattern = "[a-z"`,
			"13: inputs.env.pattern: is not a regular expression: error parsing regexp: missing closing ]: `[a-z` (RE2 syntax)"},
		{"patterns that would reach out of their group",
			`pattern = "[a-z]+" => pattern = "a)|(b"`,
			"13: inputs.env.pattern: is not a regular expression: error parsing regexp: unexpected ): `a)|(b` (RE2 syntax)"},
		{"patterns that are too large",
			`pattern = "[a-z]+" => pattern = "[a-z]{600}[0-9]{600}"`,
			`13: inputs.env.pattern: the regular expression is too large (repeat less: its counts multiply)`},
		{"a pattern for a number",
			`[inputs.count]⏎type = "integer" => [inputs.count]⏎type = "integer"⏎pattern = "3"`,
			`18: inputs.count.pattern: belongs to type string only`},
		{"a default that is never used",
			`default = "test" => default = "test"⏎required = true`,
			`14: inputs.env.default: is never used, as the input is required (take one of the two out)`},
		{"a secret in the clear",
			`secret = true⏎required = true => secret = true⏎default = "hunter2"⏎enum = ["hunter2"]`,
			`39: inputs.db_password.default: would put a secret in the clear (take it out; callers give a secretRef)
			 40: inputs.db_password.enum: would put a secret in the clear (take it out; callers give a secretRef)`},
		{"a secret that is a number",
			`type = "string"⏎secret = true => type = "integer"⏎secret = true`,
			`38: inputs.db_password.secret: belongs to type string only`},
		{"a default under the name of a secret",
			`secret = true⏎required = true => default = "hunter2"`,
			`38: inputs.db_password.default: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)`},
		{"ids",
			`id = "build" => id = "Build"`,
			`46: step[0].id: "Build" is not allowed here (want 1 to 63 of a-z 0-9 _ -)
			 69: step[1].needs[0]: there is no step build in [[step]]
			 86: step[3].needs[0]: there is no step build in [[step]]`},
		{"a step without id",
			`id = "build"⏎ =>`,
			`45: step[0].id: is missing
			 68: step[1].needs[0]: there is no step build in [[step]]
			 85: step[3].needs[0]: there is no step build in [[step]]`},
		{"an id of two steps, also of another list",
			`id = "pair" => id = "each"
			 id = "sweep" => id = "build"`,
			`78: step[2].id: each is the id of two steps (first on line 66)
			 120: on_cancel[0].id: build is the id of two steps (first on line 46)`},
		{"a need that is not there, and one in another list",
			`needs = ["build", "each"] => needs = ["biuld", "tell", "each"]
			 needs = ["tell"] => needs = ["build"]`,
			`86: step[3].needs[0]: there is no step biuld in [[step]] (did you mean build?)
			 86: step[3].needs[1]: there is no step tell in [[step]] (line 110 has it in another list; steps need only those of their own list)
			 116: on_failure[1].needs[0]: there is no step build in [[on_failure]] (line 46 has it in another list; steps need only those of their own list)`},
		{"a circle of three",
			`data = ["acme/sources@1.0.0"] => data = ["acme/sources@1.0.0"]⏎needs = ["ask"]`,
			`50: step[0].needs: the steps wait for each other: build -> ask -> build (take one of these needs away; the circles also keep 1 other steps from starting)`},
		{"a circle of one",
			`needs = ["build"] => needs = ["build", "each"]`,
			`69: step[1].needs: the steps wait for each other: each -> each (take one of these needs away; the circles also keep 2 other steps from starting)`},
		{"what a step is",
			`dag = "cleanup@1.0.0"⏎ => dag = "cleanup@1.0.0"⏎plugin = "acme/x@1.0.0"⏎
			 plugin = "acme/build@1.0.0"⏎action = "compile"⏎ => plugin = "acme/build@1.0.0"⏎
			 plugin = "acme/mail@1.0.0"⏎action = "send"⏎⏎[[on_failure]] => action = "send"⏎⏎[[on_failure]]`,
			`45: step[0].action: is missing (a plugin runs one of its actions)
			 103: step[4].dag: stands beside plugin (a step runs a plugin's action or a DAG, not both)
			 111: on_failure[0].action: stands without plugin (add plugin = "publisher/name@version")`},
		{"a step that does nothing",
			`checkpoint.question = "Seen?" => timeout = "1h"`,
			`115: on_failure[1].id: the step does nothing (want plugin with action, or dag, or checkpoint)`},
		{"keys that do nothing on a gate",
			`checkpoint.question = "Seen?" => checkpoint.question = "Seen?"⏎retry = {}⏎with.a = 1⏎secrets = ["a"]`,
			`118: on_failure[1].retry: does nothing here (an approval gate runs nothing)
			 119: on_failure[1].with: does nothing here (an approval gate runs nothing)
			 120: on_failure[1].secrets: does nothing here (an approval gate runs nothing)`},
		{"limits that a gate does not have",
			`checkpoint.question = "Seen?" => checkpoint.question = "Seen?"⏎locks = ["a"]⏎semaphores = {b = 1}⏎timeout = "1m"⏎priority = 1⏎idempotent = true`,
			`118: on_failure[1].locks: does nothing here (an approval gate runs nothing, and holds nothing while it waits)
			 119: on_failure[1].semaphores: does nothing here (an approval gate runs nothing, and holds nothing while it waits)
			 120: on_failure[1].timeout: does nothing here (expires of the checkpoint is until when people may decide)
			 121: on_failure[1].priority: does nothing here (an approval gate runs nothing, and holds nothing while it waits)
			 122: on_failure[1].idempotent: does nothing here (an approval gate runs nothing, and holds nothing while it waits)`},
		{"keys that do nothing on a sub-run",
			`dag = "cleanup@1.0.0" => dag = "cleanup@1.0.0"⏎cache = {}⏎idempotent = false⏎max_interruptions = 1⏎data = ["acme/x@1.0.0"]⏎timeout = "1h"⏎locks = ["a"]`,
			`105: step[4].cache: does nothing here (the steps of the sub-run have their own)
			 106: step[4].idempotent: does nothing here (the steps of the sub-run have their own)
			 107: step[4].max_interruptions: does nothing here (the steps of the sub-run have their own)
			 108: step[4].data: does nothing here (the steps of the sub-run have their own)`},
		{"a DAG that runs itself",
			`dag = "cleanup@1.0.0" => dag = "release@2.0.0-rc.1"`,
			`104: step[4].dag: is this DAG itself (a run that starts itself never ends)`},
		{"references",
			`plugin = "acme/build@1.0.0" => plugin = "acme/build"
			 data = ["acme/sources@1.0.0"] => data = ["acme/sources@1.0", "acme/x@1.0.0", "acme/x@1.0.0"]
			 dag = "cleanup@1.0.0" => dag = "acme/cleanup@1.0.0"`,
			`47: step[0].plugin: "acme/build" is not allowed here (want publisher/name@version)
			 49: step[0].data[0]: "acme/sources@1.0" is not allowed here (want publisher/name@version)
			 49: step[0].data[2]: "acme/x@1.0.0" stands in the list twice (first on line 49)
			 104: step[4].dag: "acme/cleanup@1.0.0" is not allowed here (want id@version)`},
		{"expressions that never end",
			`with.why = "done" => with.why = "${ done"⏎with.list = ["a",⏎ {b = "${ '}"}]
			 question = "Seen?" => question = "${}"`,
			`107: step[4].with.why: ${ has no } (write ${ CEL })
			 109: step[4].with.list[1].b: a string inside ${ } has no end (write ${ CEL })
			 119: on_failure[1].checkpoint.question: ${ } is empty (write ${ CEL })`},
		{"expressions in the outputs",
			`version = "${ steps.build.outputs.version }" => version = "${ steps"`,
			`125: outputs.version: ${ has no } (write ${ CEL })`},
		{"a when with braces",
			`when = "inputs.count > 0" => when = "${ inputs.count > 0 }"`,
			`70: step[1].when: is CEL itself (write it without ${ })`},
		{"an empty when",
			`when = "inputs.count > 0" => when = " "`,
			`70: step[1].when: " " is not allowed here (want CEL)`},
		{"for_each of a word",
			`for_each = "${ inputs.hosts }" => for_each = "inputs.hosts"
			 for_each = [1, "two", { three = 3 }] => for_each = 3`,
			`71: step[1].for_each: want a list, or a string with ${ CEL } that gives one
			 81: step[2].for_each: want a list or a string, found an integer`},
		{"for_each of an expression that never ends",
			`for_each = "${ inputs.hosts }" => for_each = "${ inputs.hosts"`,
			`71: step[1].for_each: ${ has no } (write ${ CEL })`},
		{"max_parallel alone",
			`for_each = "${ inputs.hosts }"⏎ =>`,
			`71: step[1].max_parallel: does nothing without for_each`},
		{"max_parallel of nothing",
			`max_parallel = 2 => max_parallel = 0`,
			`72: step[1].max_parallel: 0 is out of range (want 1 to 10000)`},
		{"inline secrets",
			`with.why = "done" => with.db_password = "hunter2"⏎with.db = { apiKey = "x", user = "u", tokens = ["a", "${ b }", ""] }⏎with.pem = "-----BEGIN EC PRIVATE KEY-----"`,
			`107: step[4].with.db_password: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)
			 108: step[4].with.db.apiKey: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)
			 108: step[4].with.db.tokens[0]: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)
			 109: step[4].with.pem: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)`},
		{"inline secrets in items and outputs",
			`for_each = [1, "two", { three = 3 }] => for_each = [{ password = "x" }]
			 fixed = [1, 2] => fixed = { token = "x" }`,
			`81: step[2].for_each[0].password: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)
			 126: outputs.fixed.token: looks like a secret in the clear (name the secret in the step's secrets, or take it from an input with secret = true, given as secretRef)`},
		{"values that JSON has not",
			`with.why = "done" => with.why = 2026-11-22⏎with.big = 9007199254740992⏎with.inf = [inf]⏎with.low = -9007199254740992`,
			`107: step[4].with.why: want a value that JSON has, found a date or time without quotes (put it in quotes)
			 108: step[4].with.big: 9007199254740992 is beyond what JSON carries unchanged (write it as a string)
			 109: step[4].with.inf[0]: JSON has no such number (write it as a string)
			 110: step[4].with.low: -9007199254740992 is beyond what JSON carries unchanged (write it as a string)`},
		{"retry",
			`max_attempts = 3, backoff = "1s", max_backoff = "1m", jitter = 0.0, retry_on = ["STEP_FAILED", "timed_out"] => max_attempts = 0, backoff = "1h", max_backoff = "1m", jitter = 1.5, retry_on = ["STEP FAILED"], attempts = 1`,
			`58: step[0].retry.max_attempts: 0 is out of range (want 1 to 1000)
			 58: step[0].retry.jitter: 1.5 is out of range (want 0 to 1)
			 58: step[0].retry.retry_on[0]: "STEP FAILED" is not allowed here (want an error code or outcome, such as STEP_FAILED or timed_out)
			 58: step[0].retry.backoff: 1h is above max_backoff, 1m
			 58: step[0].retry.attempts: unknown key (known here: backoff, jitter, max_attempts, max_backoff, retry_on)`},
		{"a backoff above the default ceiling",
			`backoff = "1s", max_backoff = "1m", => backoff = "10m",`,
			`58: step[0].retry.backoff: 10m is above max_backoff, 5m`},
		{"cache",
			`cache = { ttl = "5m" } => cache = { ttl = "25h" }
			 cache = {} => cache = {}⏎secrets = ["db"]`,
			`73: step[1].cache.ttl: "25h" is too long (at most 24h)
			 82: step[2].cache: stands beside secrets (what secrets made is never cached)`},
		{"semaphores and locks",
			`semaphores = { cpu = 2, "disk.io" = 1 } => semaphores = { cpu = 0, "Disk" = 1 }
			 locks = ["tree"] => locks = ["Tree"]`,
			`53: step[0].locks[0]: "Tree" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 54: step[0].semaphores.Disk: the name is not allowed (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 54: step[0].semaphores.cpu: 0 is out of range (want 1 to 1000000)`},
		{"checkpoints",
			`question = "Ship to ${ inputs.env }?"⏎ =>
			 decision = "continue" => decision = "go"
			 label = "stop" => label = "ship it"
			 quorum = 2 => quorum = 3
			 expires = "48h" => expires = "never"`,
			`89: step[3].checkpoint.question: is missing
			 92: step[3].checkpoint.quorum: 3 of 2 approvers can never agree
			 94: step[3].checkpoint.expires: "never" is not a duration (want a duration such as "90s", "5m" or "1h30m")
			 96: step[3].checkpoint.options[0].decision: "go" is not allowed here (want continue, retry or abort)
			 98: step[3].checkpoint.options[2].label: "ship it" stands on two options (first on line 96)`},
		{"a quorum of none",
			`quorum = 2 => quorum = 0`,
			`93: step[3].checkpoint.quorum: 0 is out of range (want 1 to 1000)`},
		{"options that are no tables",
			`{ label = "stop", decision = "abort" }, => "stop",`,
			`99: step[3].checkpoint.options[2]: want a table, found a string`},
		{"numbers out of range",
			`max_interruptions = 0 => max_interruptions = -1
			 priority = -5 => priority = 1000001`,
			`51: step[0].max_interruptions: -1 is out of range (want 0 to 1000)
			 55: step[0].priority: 1000001 is out of range (want -1000000 to 1000000)`},
		{"unknown keys of steps",
			`id = "build" => id = "build"⏎depends_on = []⏎Needs = []⏎need = []⏎timeuot = "1m"⏎checkpoint = { ask = "?" }`,
			`47: step[0].depends_on: unknown key
			 48: step[0].Needs: unknown key (write needs; keys are lower-case with _)
			 49: step[0].need: unknown key (did you mean needs?)
			 50: step[0].timeuot: unknown key (did you mean timeout?)
			 51: step[0].checkpoint.question: is missing
			 51: step[0].checkpoint.ask: unknown key (known here: approvers, exclude_starter, expires, options, question, quorum, required)`},
		{"a name of an output",
			`fixed = [1, 2] => "1" = [1, 2]`,
			`126: outputs.1: the name is not allowed (want a letter or _, then at most 62 letters, digits, _ or -)`},
	})
}

// TestDAGSmallFaults changes the smallest DAG spec.
func TestDAGSmallFaults(t *testing.T) {
	runFaults(t, lang("dag"), "dag/small.toml", []faultCase{
		{"a spec without steps",
			`[[step]]⏎id = "scan"⏎plugin = "acme/inventory@1.0.0"⏎action = "scan"⏎ =>`,
			`step: is missing (a DAG has at least one [[step]])`},
		{"a spec with an empty list of steps",
			`[[step]]⏎id = "scan"⏎plugin = "acme/inventory@1.0.0"⏎action = "scan"⏎ => step = []`,
			`5: step: is missing (a DAG has at least one [[step]])`},
		{"two circles, and those who wait for them",
			`action = "scan" => action = "scan"⏎needs = ["b"]⏎[[step]]⏎id = "b"⏎needs = ["scan"]⏎checkpoint.question = "?"⏎[[step]]⏎id = "c"⏎needs = ["c", "scan"]⏎checkpoint.question = "?"⏎[[step]]⏎id = "d"⏎needs = ["c"]⏎checkpoint.question = "?"⏎[[step]]⏎id = "e"⏎needs = ["d", "b"]⏎checkpoint.question = "?"`,
			`9: step[0].needs: the steps wait for each other: scan -> b -> scan (take one of these needs away; the circles also keep 2 other steps from starting)
			 16: step[2].needs: the steps wait for each other: c -> c (take one of these needs away; the circles also keep 2 other steps from starting)`},
		{"the shortest circle of a knot",
			`action = "scan" => action = "scan"⏎needs = ["b", "c"]⏎[[step]]⏎id = "b"⏎needs = ["c"]⏎checkpoint.question = "?"⏎[[step]]⏎id = "c"⏎needs = ["b", "scan"]⏎checkpoint.question = "?"`,
			`9: step[0].needs: the steps wait for each other: scan -> c -> scan (take one of these needs away)`},
	})
}

// TestCheckDAGGivesWhatCouldBeRead: the steps come along with the faults, so
// that their expressions can be looked at too.
func TestCheckDAGGivesWhatCouldBeRead(t *testing.T) {
	small := sample(t, "dag/small.toml")
	d, faults := manifests.CheckDAG("f", []byte(small+"\ncolour = \"red\"\n"))
	if len(faults) != 1 || d == nil || len(d.Steps) == 0 || d.Steps[0].ID == "" {
		t.Errorf("with one fault: %v and %+v", faults, d)
	}
	if d, faults := manifests.CheckDAG("f", []byte(small+"\ncolour = red\n")); len(faults) != 1 || d != nil {
		t.Errorf("where the text cannot be followed: %v and %+v", faults, d)
	}
}

// A spec that was published before keys that do nothing were refused is read still.
func TestWhatWasPublishedIsRead(t *testing.T) {
	const spec = `schema = "stella.dag/1"
dag_id = "old"
version = "1.0.0"

[[step]]
id = "ask"
checkpoint.question = "go on?"
locks = ["l"]
timeout = "1h"

[[step]]
id = "sub"
dag = "child@1.0.0"
cache = {}
max_interruptions = 1
`
	if _, err := manifests.ParseDAG("old", []byte(spec)); err == nil {
		t.Error("it can be published anew")
	}
	if d, err := manifests.ParsePublishedDAG("old", []byte(spec)); err != nil || len(d.Steps) != 2 {
		t.Errorf("it is not read: %v", err)
	}
	if _, err := manifests.ParsePublishedDAG("old", []byte(spec+"timeuot = \"1h\"\n")); err == nil {
		t.Error("unknown keys are taken")
	}
}
