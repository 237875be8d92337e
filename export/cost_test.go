package export_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/verify/verifytest"
)

// What a line of runs.ndjson holds costs neither judge more than its length: archives like these
// anybody can make, without a key that the auditor knows.
func TestRunLinesAreNotDearerThanTheyAreLong(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(4, 20))
	deep := func(n int, text string) string { return strings.Repeat("[", n) + text + strings.Repeat("]", n) }
	for name, tc := range map[string]struct{ old, with, says string }{
		"64 deep":                     {`,"run":{`, `,"run":{"a":` + deep(62, "") + `,`, ""},
		"65 deep":                     {`,"run":{`, `,"run":{"a":` + deep(63, "") + `,`, "64 deep"},
		"thousands deep":              {`,"run":{`, `,"run":{"a":` + deep(9900, `"`+strings.Repeat("x", 4<<20)+`"`) + `,`, "64 deep"},
		"an event of many values":     {`"events":[`, `"events":[{"data":[` + strings.Repeat("{},", 1<<20) + `0]},`, "event is too large"},
		"many events that are none":   {`"events":[`, `"events":[` + strings.Repeat("0,", 2<<20), "cannot unmarshal"},
		"many events without members": {`"events":[`, `"events":[` + strings.Repeat("{},", 2<<20), "other members"},
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, original)
			k.replace(runs, tc.old, tc.with)
			path := filepath.Join(t.TempDir(), "archive.tar")
			if err := os.WriteFile(path, k.pack(k.assemble()), 0o600); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := export.Verify(context.Background(), path, s.auditor())
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if got := failed(r); r.Verdict != export.Failed || len(got) != 1 || got[0] != "runs" {
				t.Errorf("failed %v, want runs alone\n%s", got, explain(r))
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 150 {
				t.Errorf("%d MiB were allocated", used)
			}
			verdict, _, out := audit(t, s.auditor(), path)
			if row := rowOf(out, "runs"); tc.says != "" && (verdict != "FAILED" || !strings.Contains(row, tc.says)) {
				t.Errorf("stella-audit: %s: %s, want FAILED: %s", verdict, row, tc.says)
			}
		})
	}
}

// A verdict that names more than a bundle has is refused before any of it is read.
func TestAdmissionsAreNotDearerThanABundle(t *testing.T) {
	trust := verifytest.NewTrust()
	for name, c := range map[string]struct {
		files int
		bytes int
		want  string
	}{
		"as many attestations as there can be": {64, 256 << 10, "attestation"},
		"one more":                             {65, 100, "names 65 files where a bundle has at most 64"},
		"more bytes in all":                    {5, 4 << 20, "larger files than a bundle has"},
		"one, again and again":                 {800, 4 << 20, "names 800 files"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			s.change(trust.Files())
			s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), trust.Load(), s.at), func(d *ledger.BundleAdmission) {
				file := s.blob(strings.Repeat("a", c.bytes))
				d.Attestations = slices.Repeat([]string{file}, c.files)
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			verdict, found := s.verdictsOf(s.auditor())
			runtime.ReadMemStats(&after)
			if verdict != export.Failed || !strings.Contains(found.Detail, c.want) {
				t.Errorf("%s: %s, want %s", verdict, found.Detail, c.want)
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 200 {
				t.Errorf("%d MiB were allocated", used)
			}
		})
	}
}

// A run has its members and no others, whichever a parser would take for them.
func TestARunHasItsMembersAlone(t *testing.T) {
	s := busySite(t)
	for name, c := range map[string][2]string{
		"one more":             {`,"runId":`, `,"run2":1,"runId":`},
		"one before":           {`{"events":`, `{"Events":[],"events":`},
		"in other letters":     {`{"events":`, `{"Events":`},
		"one that is null":     {`,"run":{`, `,"run":null,"run0":{`},
		"one more in an event": {`{"data":`, `{"Data":{},"data":`},
		"an event of others":   {`{"data":`, `{"DATA":`},
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, s.archive(window(4, 20)))
			k.replace(runs, c[0], c[1])
			if r := check(t, k.pack(k.assemble()), s.auditor()); r.Verdict != export.Failed || failed(r)[0] != "runs" {
				t.Error(explain(r))
			}
		})
	}
}

// A root.toml for which a parser of TOML would take hours is refused by both: each of these looks
// harmless to whoever counts brackets in texts, or looks for dots before a = in one.
func TestTrustFilesAreNotDearerThanTheyAreLong(t *testing.T) {
	for name, tc := range map[string]struct{ raw, says string }{
		"tables that a text closes beforehand": {
			strings.Repeat("s=\""+strings.Repeat("}", 4000)+"\"\n", 20) + "x=" + strings.Repeat(strings.Repeat("[{a=", 900)+"[\n[\n", 30), "8 deep"},
		"long names behind a quoted =": {strings.Repeat("\"=\""+strings.Repeat(".a", 2000)+"=1\n", 250), "4 parts"},
		"many keys below a long one":   {"[" + strings.Repeat("a", 4000) + "]\n" + strings.Repeat("b=1\n", 200_000), "too many"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.entries, s.hashes = nil, nil
			root := s.blob("schema = \"stella.root/1\"\n" + tc.raw)
			s.init(root, s.policy())
			s.add(ledger.Envelope{Type: ledger.TrustChanged, Actor: "uid:0(root)"}, &ledger.TrustChange{
				Root: root, RootVersion: 1, Policy: s.policy(), PolicySerial: 1, Signatures: []string{}, Reason: "x",
			})
			verdict, checks, alone, out := s.bothOf(s.auditor())
			if row := rowOf(out, "trust"); verdict != export.Failed || checks["trust"].Status != export.Bad || alone != "FAILED" || !strings.Contains(row, tc.says) {
				t.Errorf("%s, trust %v; stella-audit: %s: %s, want FAILED: %s", verdict, checks["trust"], alone, row, tc.says)
			}
		})
	}
}

// A signature is what part 1 calls one, and a bundle has at most 16. What else is called so fails
// by both judges, and costs no more than to be read once.
func TestOnlySignaturesSign(t *testing.T) {
	files := verifytest.NewTrust().Files()
	honest := string(files.Policy.Signatures[0].Data)
	sixteen := func(s *site, raw []byte) (sums []string) {
		for i := range 16 {
			sums = append(sums, s.blob(string(verifytest.Signatures(raw, "x"+strings.Repeat("x", i))[0].Data)))
		}
		return sums
	}
	for name, tc := range map[string]struct {
		trust, bundle func(s *site, manifest string) []string // further signatures
		want          export.Verdict
	}{
		"those alone":           {nil, nil, export.Verified},
		"strangers":             {func(s *site, _ string) []string { return sixteen(s, []byte("x")) }, func(s *site, m string) []string { return sixteen(s, s.blobs[m])[:15] }, export.Verified},
		"a 17th of a bundle":    {nil, func(s *site, m string) []string { return sixteen(s, s.blobs[m]) }, export.Failed},
		"an object":             {func(s *site, _ string) []string { return []string{s.blob(`{"a":0}`)} }, nil, export.Failed},
		"an empty object":       {func(s *site, _ string) []string { return []string{s.blob(`{}`)} }, nil, export.Failed},
		"a text":                {func(s *site, _ string) []string { return []string{s.blob("a")} }, nil, export.Failed},
		"one with a new member": {func(s *site, _ string) []string { return []string{s.blob(`{"a":0,` + honest[1:])} }, nil, export.Failed},
		"one of more than 64 KiB": {func(s *site, _ string) []string {
			return []string{s.blob(strings.Replace(honest, `"hint":"`, `"hint":"`+strings.Repeat("A", 64<<10), 1))}
		}, nil, export.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.at = verifytest.Now()
			s.change(files, func(c *ledger.TrustChange) {
				if tc.trust != nil {
					c.Signatures = append(c.Signatures, tc.trust(s, "")...)
					slices.Sort(c.Signatures)
				}
			})
			s.admit(let(t, verifytest.NewPlugin().Sign("acme-1"), verifytest.NewTrust().Load(), s.at), func(d *ledger.BundleAdmission) {
				if tc.bundle != nil {
					d.Signatures = append(d.Signatures, tc.bundle(s, d.Verdict.Digest)...)
				}
			})
			verdict, checks, alone, out := s.bothOf(s.auditor())
			if verdict != tc.want || alone != string(tc.want) {
				t.Errorf("%s, stella-audit %s, want %s\n%+v\n%s", verdict, alone, tc.want, checks, out)
			}
		})
	}
}
