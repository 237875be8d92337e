package store_test

import (
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// The check at the end of each test of this package replays the entries, so
// that what is enabled is what the ledger says.
func TestADAGVersionIsSwitchedOffAndOn(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	if _, err := db.PublishDAG("x", &ledger.DAGPublication{DAGID: "audit", Version: "1.0.0", Digest: digest, Spec: digest, Publisher: "acme"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		enable  bool
		changed bool
	}{
		{"enabling what is enabled changes nothing", true, false},
		{"disabling", false, true},
		{"disabling again changes nothing", false, false},
		{"enabling", true, true},
		{"disabling once more", false, true},
	} {
		before := db.Size()
		rec, changed, err := db.SwitchDAG("uid:1(ann)", c.enable, &ledger.DAGSwitch{DAGID: "audit", Version: "1.0.0", Reason: c.name})
		if err != nil || changed != c.changed || rec.Enabled != c.enable {
			t.Errorf("%s: %+v, changed %v, %v", c.name, rec, changed, err)
		}
		if grown := db.Size() - before; grown != map[bool]int64{true: 1}[c.changed] {
			t.Errorf("%s: %d entries were written", c.name, grown)
		}
		if c.changed && (rec.Switched == nil || rec.Switched.Reason != c.name || rec.Switched.Actor != "uid:1(ann)") {
			t.Errorf("%s: who switched it is %+v", c.name, rec.Switched)
		}
	}
	if again, err := db.PublishDAG("x", &ledger.DAGPublication{DAGID: "audit", Version: "1.0.0", Digest: digest, Spec: digest, Publisher: "acme"}); err != nil || again.Enabled {
		t.Errorf("publishing it again gave %+v, %v; it must stay disabled", again, err)
	}
	if _, _, err := db.SwitchDAG("x", false, &ledger.DAGSwitch{DAGID: "audit", Version: "2.0.0"}); !store.IsNotFound(err) {
		t.Errorf("an unknown version: %v", err)
	}
}
