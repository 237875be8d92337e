package ledger_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/ledger"
)

// golden returns the lines and notes of the sample as they would be stored.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	entries := sample(t)
	var envelopes, data []byte
	for _, e := range entries {
		envelopes = append(append(envelopes, e.Envelope...), '\n')
		data = append(append(data, e.Data...), '\n')
	}
	file, _ := proofOf(t, 3, []byte("run 0193a5d4"))
	return map[string][]byte{
		"envelopes.ndjson":   envelopes,
		"data.ndjson":        data,
		"checkpoint.note":    signed(t, entries),
		"entry-3.tlog-proof": file,
	}
}

// TestGolden holds the stored formats. Archives and auditors rely on them: a
// difference is a break with all of them, not a reason to change the files.
func TestGolden(t *testing.T) {
	for name, got := range golden(t) {
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestGoldenIsReadable verifies the files alone, as an auditor would.
func TestGoldenIsReadable(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	lines := func(name string) [][]byte {
		return bytes.Split(bytes.TrimSuffix(read(name), []byte("\n")), []byte("\n"))
	}
	var entries []ledger.Entry
	data := lines("data.ndjson")
	for i, line := range lines("envelopes.ndjson") {
		entries = append(entries, ledger.Entry{Envelope: line, Data: data[i]})
	}
	if err := verify(entries, read("checkpoint.note")); err != nil {
		t.Error(err)
	}
	if _, err := ledger.VerifyProof(read("entry-3.tlog-proof"), entries[3].Envelope, logPub(), siteID); err != nil {
		t.Error(err)
	}
}
