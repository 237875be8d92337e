package manifests_test

import "testing"

// TestSiteFaults changes site.toml.
func TestSiteFaults(t *testing.T) {
	runFaults(t, lang("site"), "site/site.toml", []faultCase{
		{"everything out of range",
			`allow_plain = true => allow_plain = 1
			 workers = 4 => workers = 0
			 max_parallel_steps = 3 => max_parallel_steps = 10001
			 default_tenant = "ops" => default_tenant = "Ops"
			 grace = "20s" => grace = "11m"
			 checkpoint_every = "15m" => checkpoint_every = "61m"
			 free_space_reserve = "1GiB" => free_space_reserve = 0
			 max_bundle_bytes = 123456789 => max_bundle_bytes = "lots"
			 checkpoint_copies = ["/mnt/usb/checkpoint.note"] => checkpoint_copies = ["checkpoint.note"]
			 recovery_recipients = ["age1z5e06pu38trh805ke94858nz7gpcxnexff83ppt78jzjcmtangpq4mj308"] => recovery_recipients = ["AGE-SECRET-KEY-1"]
			 [limits] => [limits]⏎disk = 1`,
			`2: allow_plain: want true or false, found an integer
			 3: workers: 0 is out of range (want 1 to 10000)
			 4: max_parallel_steps: 10001 is out of range (want 1 to 10000)
			 5: default_tenant: "Ops" is not allowed here (want a lower-case letter or digit, then at most 62 of a-z 0-9 . -)
			 6: grace: "11m" is too long (at most 10m)
			 7: checkpoint_every: "61m" is too long (at most 1h)
			 8: free_space_reserve: 0 is out of range (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 9: max_bundle_bytes: "lots" is not a size (want bytes, or a size such as "256MiB" (B, KiB, MiB, GiB))
			 10: checkpoint_copies[0]: "checkpoint.note" is not allowed here (want an absolute path in its shortest form)
			 11: recovery_recipients[0]: a secret key is not allowed here (want a public key of age, age1…)
			 14: limits.disk: unknown key (known here: cpu, log, memory, pids, timeout, workspace)`},
		{"workspaces that are kept",
			`workers = 4 => workers = 4⏎keep_workspaces = "sometimes"`,
			`4: keep_workspaces: "sometimes" is not allowed here (want failed, never or always)`},
		{"unknown keys",
			`workers = 4 => worker = 4⏎maxBundleBytes = 1`,
			`3: worker: unknown key (did you mean workers?)
			 4: maxBundleBytes: unknown key (write max_bundle_bytes; keys are lower-case with _)`},
	})
}
