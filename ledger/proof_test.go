package ledger_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	fproof "github.com/transparency-dev/formats/proof"

	"github.com/stellarun/stella/ledger"
)

// proofOf is the proof file of one entry of the sample.
func proofOf(t testing.TB, seq int64, extra []byte) (file []byte, entry ledger.Entry) {
	t.Helper()
	entries := sample(t)
	p, err := ledger.ProveInclusion(int64(len(entries)), seq, stored(t, entries))
	if err != nil {
		t.Fatal(err)
	}
	return ledger.FormatProof(seq, p, signed(t, entries), extra), entries[seq]
}

func TestProof(t *testing.T) {
	for seq := range int64(5) {
		for _, extra := range [][]byte{nil, []byte("for people")} {
			file, entry := proofOf(t, seq, extra)
			c, err := ledger.VerifyProof(file, entry.Envelope, logPub(), siteID)
			if err != nil || c.Size != 5 || c.Origin != ledger.Origin(siteID, 1) {
				t.Errorf("VerifyProof of entry %d = %+v, %v", seq, c, err)
			}
			p, err := ledger.ParseProof(file)
			if err != nil || p.Index != seq || !bytes.Equal(p.Extra, extra) || !bytes.Equal(p.Checkpoint, signed(t, sample(t))) {
				t.Errorf("ParseProof of entry %d = %+v, %v", seq, p, err)
			}
			// Another implementation reads and writes the same.
			var other fproof.TLogProof
			if err := other.Unmarshal(file); err != nil || int64(other.Index) != seq || len(other.Hashes) != len(p.Hashes) {
				t.Errorf("another implementation reads %+v, %v", other, err)
			}
			if diff := cmp.Diff(string(file), string(other.Marshal())); diff != "" {
				t.Errorf("another implementation writes (-ours +theirs):\n%s", diff)
			}
		}
	}
}

// TestProofOfOneEntry has no hashes at all.
func TestProofOfOneEntry(t *testing.T) {
	entries := sample(t)[:1]
	file := ledger.FormatProof(0, nil, signed(t, entries), nil)
	if !bytes.HasPrefix(file, []byte("c2sp.org/tlog-proof@v1\nindex 0\n\nstella/")) {
		t.Errorf("proof is %s", file)
	}
	if _, err := ledger.VerifyProof(file, entries[0].Envelope, logPub(), siteID); err != nil {
		t.Error(err)
	}
}

func TestProofRefusals(t *testing.T) {
	raw, entry := proofOf(t, 2, []byte("extra"))
	good := string(raw)
	p, err := ledger.ParseProof(raw)
	if err != nil {
		t.Fatal(err)
	}
	extra := "extra " + base64.StdEncoding.EncodeToString([]byte("extra")) + "\n"
	firstHash := base64.StdEncoding.EncodeToString(p.Hashes[0][:])
	var form *ledger.FormError
	for _, tc := range []struct{ name, file string }{
		{"nothing", ""},
		{"another version", change(t, good, "@v1", "@v2")},
		{"no header", change(t, good, "c2sp.org/tlog-proof@v1\n", "")},
		{"a byte order mark", "\ufeff" + good},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n")},
		{"no index", change(t, good, "index 2\n", "")},
		{"index 02", change(t, good, "index 2", "index 02")},
		{"index -0", change(t, good, "index 2", "index -0")},
		{"index -2", change(t, good, "index 2", "index -2")},
		{"index +2", change(t, good, "index 2", "index +2")},
		{"index 2^53", change(t, good, "index 2", "index 9007199254740992")},
		{"index twice", change(t, good, "index 2\n", "index 2\nindex 2\n")},
		{"extra after the index", change(t, change(t, good, extra, ""), "index 2\n", "index 2\n"+extra)},
		{"extra twice", change(t, good, extra, extra+extra)},
		{"empty extra", change(t, good, extra, "extra \n")},
		{"extra with loose bits", change(t, good, "extra ZXh0cmE=", "extra ZXh0cmF=")},
		{"extra that is no base64", change(t, good, extra, "extra !\n")},
		{"an unknown line", change(t, good, "index 2\n", "note x\nindex 2\n")},
		{"a hash of 31 bytes", change(t, good, firstHash, base64.StdEncoding.EncodeToString(p.Hashes[0][1:]))},
		{"a hash in hex", change(t, good, firstHash, ledger.HexHash(p.Hashes[0]))},
		{"no blank line", change(t, good, "\n\nstella/", "\nstella/")},
		{"two blank lines", change(t, good, "\n\nstella/", "\n\n\nstella/")},
		{"no checkpoint", good[:strings.Index(good, "\n\n")+2]},
		{"half a checkpoint", good[:len(good)-1]},
		{"bytes after the checkpoint", good + "\n"},
		{"too long", change(t, good, extra, "extra "+strings.Repeat("AAAA", ledger.MaxProof/4)+"\n")},
	} {
		if p, err := ledger.ParseProof([]byte(tc.file)); !errors.As(err, &form) || p.Checkpoint != nil {
			t.Errorf("%s: ParseProof(%.300q) = %v, want a FormError", tc.name, tc.file, err)
		}
		if _, err := ledger.VerifyProof([]byte(tc.file), entry.Envelope, logPub(), siteID); !errors.As(err, &form) {
			t.Errorf("%s: VerifyProof = %v, want a FormError", tc.name, err)
		}
	}
	entries := sample(t)
	for _, tc := range []struct {
		name string
		file string
		line []byte
		want error
	}{
		{"another entry", good, entries[3].Envelope, ledger.ErrProof},
		{"another index", change(t, good, "index 2", "index 3"), entry.Envelope, ledger.ErrProof},
		{"another entry and its index", change(t, good, "index 2", "index 3"), entries[3].Envelope, ledger.ErrProof},
		{"an index beyond the tree", change(t, good, "index 2", "index 5"), bytes.Replace(entry.Envelope, []byte(`"seq":2`), []byte(`"seq":5`), 1), ledger.ErrProof},
		{"one hash missing", change(t, good, firstHash+"\n", ""), entry.Envelope, ledger.ErrProof},
		{"one hash twice", change(t, good, firstHash+"\n", firstHash+"\n"+firstHash+"\n"), entry.Envelope, ledger.ErrProof},
		{"another line", good, bytes.Replace(entry.Envelope, []byte("collect"), []byte("collecT"), 1), ledger.ErrProof},
		{"no envelope", good, entry.Data, nil},
		{"another size", change(t, good, "\n5\n", "\n6\n"), entry.Envelope, ledger.ErrUnauthenticated},
	} {
		_, err := ledger.VerifyProof([]byte(tc.file), tc.line, logPub(), siteID)
		if tc.want == nil && !errors.As(err, &form) || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: VerifyProof = %v, want %v", tc.name, err, tc.want)
		}
	}
	if _, err := ledger.VerifyProof(raw, entry.Envelope, logPub(), strings.Repeat("0", 32)); !errors.Is(err, ledger.ErrUnauthenticated) {
		t.Errorf("VerifyProof for another site = %v, want ErrUnauthenticated", err)
	}
}

// TestProofOfAnEntryInAnotherPlace has a tree whose owner put an envelope where
// its seq does not belong.
func TestProofOfAnEntryInAnotherPlace(t *testing.T) {
	entries := sample(t)
	entries[2], entries[3] = entries[3], entries[2]
	p, err := ledger.ProveInclusion(5, 2, stored(t, entries))
	if err != nil {
		t.Fatal(err)
	}
	file := ledger.FormatProof(2, p, signed(t, entries), nil)
	if _, err := ledger.VerifyProof(file, entries[2].Envelope, logPub(), siteID); !errors.Is(err, ledger.ErrProof) {
		t.Errorf("VerifyProof = %v, want ErrProof", err)
	}
}

func FuzzProof(f *testing.F) {
	for _, extra := range [][]byte{nil, []byte("extra")} {
		file, _ := proofOf(f, 2, extra)
		f.Add(file)
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ledger.ParseProof(file)
		if err != nil {
			return
		}
		if again := ledger.FormatProof(p.Index, p.Hashes, p.Checkpoint, p.Extra); !bytes.Equal(again, file) {
			t.Errorf("%q re-encodes to %q", file, again)
		}
	})
}
