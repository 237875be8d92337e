package export_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// An epoch says what it has adopted: both compute it, and hold its number to those before.
func TestBothHoldEpochsToTheTree(t *testing.T) {
	for name, tc := range map[string]struct {
		lie  func(s *site, d *ledger.EpochStart)
		want string
	}{
		"honest":                             {func(*site, *ledger.EpochStart) {}, ""},
		"an epoch was asked for":             {func(s *site, d *ledger.EpochStart) { d.Epoch = 99; s.origin = ledger.Origin(siteID, 99) }, ""},
		"another root":                       {func(_ *site, d *ledger.EpochStart) { d.Root = strings.Repeat("0", 64) }, "data"},
		"no epoch after the one before":      {func(_ *site, d *ledger.EpochStart) { d.Epoch = 1 }, "data"},
		"an epoch of another site":           {func(_ *site, d *ledger.EpochStart) { d.OldOrigin = ledger.Origin(strings.Repeat("0", 32), 1) }, "data"},
		"after what is no origin":            {func(_ *site, d *ledger.EpochStart) { d.OldOrigin = "junk" }, "data"},
		"the checkpoint is of the old epoch": {func(s *site, _ *ledger.EpochStart) { s.origin = ledger.Origin(siteID, 1) }, "data"},
		"another begins, and it was before it": {func(s *site, d *ledger.EpochStart) {
			first := *d
			first.Epoch = 2
			s.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, &first)
			d.Epoch, d.OldOrigin = 3, s.origin // of epoch 2
			s.origin = ledger.Origin(siteID, 3)
		}, ""},
		"another begins, after the same one": {func(s *site, d *ledger.EpochStart) {
			first := *d
			first.Epoch = 2
			s.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, &first)
			d.Epoch, d.OldOrigin = 3, ledger.Origin(siteID, 1)
			s.origin = ledger.Origin(siteID, 3)
		}, "data"},
	} {
		for _, from := range []int{0, 1, 14, 24} {
			s := busySite(t)
			size := int64(len(s.entries))
			root := func() string {
				h, err := ledger.TreeHash(int64(len(s.entries)), s)
				if err != nil {
					t.Fatal(err)
				}
				return ledger.HexHash(h)
			}
			s.notes, s.sizes = nil, nil
			d := &ledger.EpochStart{Epoch: 2, Cause: "restored", OldOrigin: s.origin, Size: size, Root: root(), Reason: "x"}
			s.origin = ledger.Origin(siteID, 2)
			tc.lie(s, d)
			if grown := int64(len(s.entries)); grown > size {
				d.Size, d.Root = grown, root()
			}
			s.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, d)
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			to := stamp.Format(s.at)
			s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			s.checkpoint()
			r := check(t, s.archive(export.Window{From: second(from), To: to}), s.auditor())
			if got := failed(r); tc.want == "" && len(got) > 0 || tc.want != "" && !slices.Equal(got, []string{tc.want}) {
				t.Errorf("%s, from entry %d: failed %v, want %q\n%s", name, from, got, tc.want, explain(r))
			}
		}
	}
}

// Of an epoch whose entry is withheld the number is not known.
func TestAWithheldEpochAccusesNobody(t *testing.T) {
	s := busySite(t)
	s.notes, s.sizes = nil, nil
	for epoch := int64(2); epoch < 4; epoch++ {
		size := int64(len(s.entries))
		root, err := ledger.TreeHash(size, s)
		if err != nil {
			t.Fatal(err)
		}
		d := &ledger.EpochStart{Epoch: epoch, Cause: "restored", OldOrigin: s.origin, Size: size, Root: ledger.HexHash(root), Reason: "x"}
		s.origin = ledger.Origin(siteID, epoch)
		s.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, d)
		s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
	}
	s.checkpoint()
	s.entries[24].Data, s.entries[24].Withheld = nil, "secret"
	opt := s.auditor()
	opt.Withheld = 1
	if r := check(t, s.archive(window(20, 27)), opt); r.Verdict != export.Verified {
		t.Error(explain(r))
	}
}

// What the entries of one archive say of epochs binds the next one.
func TestEpochsGoOnFromArchiveToArchive(t *testing.T) {
	begin := func(s *site, old string) {
		size := int64(len(s.entries))
		root, err := ledger.TreeHash(size, s)
		if err != nil {
			t.Fatal(err)
		}
		s.origin = ledger.Origin(siteID, 2)
		s.add(ledger.Envelope{Type: ledger.EpochBegun, Actor: "uid:0(root)"}, &ledger.EpochStart{Epoch: 2, Cause: "restored", OldOrigin: old, Size: size, Root: ledger.HexHash(root), Reason: "x"})
	}
	stop := func(s *site) string {
		s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
		return stamp.Format(s.at)
	}
	for name, c := range map[string]struct {
		then func(s *site)
		want string
	}{
		"honest":                              {func(*site) {}, "VERIFIED"},
		"the next is signed by epoch 1":       {func(s *site) { s.origin = ledger.Origin(siteID, 1) }, "FAILED"},
		"epoch 2 begins again, after epoch 1": {func(s *site) { begin(s, ledger.Origin(siteID, 1)) }, "FAILED"},
	} {
		s := busySite(t)
		s.notes, s.sizes = nil, nil
		begin(s, s.origin)
		middle := stop(s)
		stop(s)
		s.checkpoint()
		c.then(s)
		end := stop(s)
		stop(s)
		s.checkpoint()
		row := []string{saved(t, s.archive(export.Window{From: second(0), To: middle})), saved(t, s.archive(export.Window{From: middle, To: end}))}
		if verdict, _, out := audit(t, s.auditor(), row...); verdict != c.want {
			t.Errorf("%s: %s, want %s\n%s", name, verdict, c.want, out)
		}
		if r := check(t, s.archive(export.Window{From: second(0), To: end}), s.auditor()); string(r.Verdict) != c.want {
			t.Errorf("%s, in one: %s, want %s\n%s", name, r.Verdict, c.want, explain(r))
		}
	}
}
