package export_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// witnessOf is a witness that everybody knows.
func witnessOf(t *testing.T, name string, seed byte) ledger.WitnessKey {
	t.Helper()
	raw := make([]byte, 32)
	raw[0] = seed
	k, err := ledger.NewWitnessKey(name, raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func saved(t testing.TB, tar []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, tar, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func cosigned(t *testing.T, note []byte, keys ...ledger.WitnessKey) []byte {
	t.Helper()
	var err error
	for _, k := range keys {
		if note, err = k.Cosign(note, time.Unix(1795335660, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return note
}

// Who has signed a tree that holds the window, and is of its history, counts.
func TestWitnessesAreCounted(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(13, 18)) // its checkpoint has size 21
	a, b, c := witnessOf(t, "w.example/a", 1), witnessOf(t, "w.example/b", 2), witnessOf(t, "w.example/c", 3)
	head := func(from *site, size int64) []byte {
		root, err := ledger.TreeHash(size, from)
		if err != nil {
			t.Fatal(err)
		}
		note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: s.origin, Size: size, Root: root}, s.logKey)
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	forked := newSite(t)
	for i, e := range s.entries[1:] {
		if i == 1 {
			forked.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			continue
		}
		forked.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
	}
	good := cosigned(t, head(s, 21), a, b)
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	spoilt := append([]byte{}, good...)
	spoilt[len(spoilt)-10] ^= 1
	for name, tc := range map[string]struct {
		note []byte
		min  int
		want export.Verdict
		n    int
		bad  []string
	}{
		"two of three":                        {good, 2, export.Verified, 2, nil},
		"three are wanted":                    {good, 3, export.Incomplete, 2, nil},
		"nobody signed, and none is wanted":   {head(s, 21), 0, export.Verified, 0, nil},
		"nobody signed":                       {head(s, 21), 1, export.Incomplete, 0, nil},
		"no note, and none is wanted":         {nil, 0, export.Verified, 0, nil},
		"no note":                             {nil, 1, export.Incomplete, 0, nil},
		"a tree that ends before the window":  {cosigned(t, head(s, 12), a), 1, export.Incomplete, 0, nil},
		"a tree that ends within the window":  {cosigned(t, head(s, 15), a), 1, export.Incomplete, 0, nil},
		"a tree that ends behind the window":  {cosigned(t, head(s, 20), a), 1, export.Verified, 1, nil},
		"another history":                     {cosigned(t, head(forked, 21), a), 1, export.Failed, 0, []string{"witnesses"}},
		"a cosignature that does not verify":  {spoilt, 1, export.Failed, 0, []string{"witnesses"}},
		"a note that the log has not signed":  {mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: 21}, other), 1, export.Failed, 0, []string{"witnesses"}},
		"another history, and none is wanted": {cosigned(t, head(forked, 21), a), 0, export.Failed, 0, []string{"witnesses"}},
	} {
		opt := s.auditor()
		opt.Cosigned, opt.MinWitnesses, opt.Witnesses = tc.note, tc.min, []ledger.Witness{a.Witness, b.Witness, c.Witness}
		r := check(t, archive, opt)
		if r.Verdict != tc.want || r.Witnessed != tc.n || !cmp.Equal(failed(r), tc.bad) {
			t.Errorf("%s: %s, %d witnesses, failed %v\n%s", name, r.Verdict, r.Witnessed, failed(r), explain(r))
		}
	}

	opt := s.auditor()
	opt.Cosigned = good
	if r := check(t, archive, opt); r.Verdict != export.Verified || r.Witnessed != 0 {
		t.Errorf("witnesses that nobody named: %s, %d", r.Verdict, r.Witnessed)
	}
	opt.Witnesses = []ledger.Witness{{Name: "self", Key: s.logKey.Public().(ed25519.PublicKey)}}
	if _, err := export.Verify(context.Background(), saved(t, archive), opt); !errors.Is(err, export.ErrKey) {
		t.Errorf("the log is a witness of its own: %v", err)
	}
}

// Of a tree of another size a proof may be needed, and is then enough.
func TestACosignedTreeOfAnotherSize(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(4, 17))
	w := witnessOf(t, "w.example/a", 1)
	size := int64(len(s.entries))
	root, err := ledger.TreeHash(size, s)
	if err != nil {
		t.Fatal(err)
	}
	opt := s.auditor()
	opt.Cosigned = cosigned(t, mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: size, Root: root}, s.logKey), w)
	opt.Witnesses, opt.MinWitnesses = []ledger.Witness{w.Witness}, 1
	tree := check(t, archive, opt).Summary.Ledger.TreeSize
	if tree == size {
		t.Fatal("the trees are the same")
	}
	if r := check(t, archive, opt); r.Verdict != export.Incomplete {
		t.Errorf("without a proof: %s", explain(r))
	}
	opt.CosignedConsistency = s.consistency(size, tree)
	if r := check(t, archive, opt); r.Verdict != export.Verified || r.Witnessed != 1 {
		t.Errorf("with a proof: %s", explain(r))
	}
	opt.CosignedConsistency.Proof[0][0] ^= 1
	if r := check(t, archive, opt); r.Verdict != export.Failed {
		t.Errorf("with another proof: %s", explain(r))
	}
}
