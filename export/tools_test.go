package export_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// README.txt promises that an archive can be looked into without stella.
func TestCommonToolsReadAnArchive(t *testing.T) {
	for _, tool := range []string{"sh", "tar", "sha256sum", "zstd", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED, THE PROMISE OF README.txt IS NOT TESTED: %v", err)
		}
	}
	s := busySite(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.tar"), s.archive(window(4, 20)), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(script string) (string, error) {
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("tar -xf a.tar && sha256sum --strict --quiet -c SHA256SUMS"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, tc := range map[string]struct{ script, want string }{
		"frames":    {"zstd -q -t ledger/*.zst telemetry/*.zst", ""},
		"envelopes": {`zstd -dcq ledger/envelopes.ndjson.zst | jq -s 'length'`, "16\n"},
		"types":     {`zstd -dcq ledger/envelopes.ndjson.zst | jq -r 'select(.seq == 4).type'`, "run.started\n"},
		"runs":      {`zstd -dcq ledger/runs.ndjson.zst | jq -r '[.runId[-1:], .run.status] | join(" ")'`, "b cancelled\nc planning\na completed\n"},
		"a data line is what its envelope names": {
			`test "$(zstd -dcq ledger/data.ndjson.zst | head -1 | tr -d '\n' | sha256sum | cut -d' ' -f1)" = "$(zstd -dcq ledger/envelopes.ndjson.zst | head -1 | jq -r .dataHash)"`, "",
		},
		"a leaf": {
			`{ printf '\0'; zstd -dcq ledger/envelopes.ndjson.zst | head -1 | tr -d '\n'; } | sha256sum | wc -c`, "68\n",
		},
		"spans": {`zstd -dcq telemetry/traces.jsonl.zst | jq -r '.resourceSpans[].scopeSpans[].spans[].name' | sort | uniq -c | tr -s ' '`, " 2 attempt\n 2 orchestrator.run\n 2 orchestrator.step\n"},
		"logs":  {`zstd -dcq telemetry/logs.jsonl.zst | jq -r '.resourceLogs[].scopeLogs[].logRecords[0].body.stringValue'`, "try 1\ntry 2\n"},
		"json":  {`jq -e . manifest.json ledger/window.json SHA256SUMS.sigstore.json > /dev/null`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := run(tc.script); err != nil || out != tc.want {
				t.Errorf("%s\n got %q (%v)\nwant %q", tc.script, out, err, tc.want)
			}
		})
	}
	if err := os.WriteFile(filepath.Join(dir, "README.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run("sha256sum --strict --quiet -c SHA256SUMS"); err == nil || !strings.Contains(out, "README.txt") {
		t.Errorf("sha256sum does not see a change: %v\n%s", err, out)
	}
}
