package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// What a ledger lacks of the decisions of another one is what that has decided beyond it, as
// many as these are.
func TestDecisionsThatAreForgotten(t *testing.T) {
	home := newHome(t)
	db := create(t, home)
	publish := func(version string) {
		if _, err := db.PublishDAG("x", &ledger.DAGPublication{DAGID: "audit", Version: version, Digest: digest, Spec: digest, Publisher: "acme"}); err != nil {
			t.Fatal(err)
		}
	}
	turn := func(version string, on bool) {
		if _, _, err := db.SwitchDAG("x", on, &ledger.DAGSwitch{DAGID: "audit", Version: version}); err != nil {
			t.Fatal(err)
		}
	}
	end := func() {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open := func(home string) {
		var err error
		if db, err = store.Open(home, store.Options{}); err != nil {
			t.Fatal(err)
		}
		checkOnClose(t, db)
	}
	for _, v := range []string{"1.0.0", "2.0.0", "3.0.0"} {
		publish(v)
	}
	turn("1.0.0", false)
	end()
	older := newHome(t)
	raw, err := os.ReadFile(filepath.Join(home, "ledger.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(older, "ledger.db"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	// Of what both have, the older one goes on otherwise.
	open(older)
	turn("1.0.0", true)
	end()
	open(home)
	turn("2.0.0", false)
	turn("3.0.0", false)
	turn("3.0.0", true)
	publish("4.0.0")
	turn("4.0.0", false)
	const lost = 2*ledger.MaxRemembered + 1
	var all []ledger.RememberedBundle
	for i := range lost {
		all = append(all, ledger.RememberedBundle{Kind: "plugin", Publisher: "acme", Name: "work", Version: fmt.Sprintf("1.0.%d", i), Sequence: int64(i + 1), Digest: fmt.Sprintf("%064x", i)})
	}
	if err := db.Remember("x", "", store.Forgotten{Decided: store.Decided{Bundles: all}}); err != nil {
		t.Fatal(err)
	}
	end()
	decided := store.Peek(home).Decided
	open(older)
	f, err := db.Forgotten(decided)
	if got := fmt.Sprint(len(f.Bundles), versionsOf(f.Disabled), versionsOf(f.Unpublished)); err != nil || got != fmt.Sprint(lost, "2.0.0", "4.0.0") {
		t.Errorf("forgotten: %s, %v", got, err)
	}
	if err := db.Remember("x", "as before", f); err != nil {
		t.Fatal(err)
	}
	if floor, err := db.Floor("plugin", "acme", "work"); err != nil || floor.Sequence != lost {
		t.Errorf("the floor is %+v, %v", floor, err)
	}
	if all, err := db.Versions("acme", "work"); err != nil || len(all) != 0 {
		t.Errorf("versions that are only remembered are listed: %v, %v", all, err)
	}
	if f, err = db.Forgotten(decided); err != nil || len(f.Bundles) > 0 || len(f.Disabled) > 0 {
		t.Errorf("still forgotten: %+v, %v", f, err)
	}
}

func versionsOf(dags []store.DisabledDAG) string {
	var out []string
	for _, x := range dags {
		out = append(out, x.Version)
	}
	return strings.Join(out, " ")
}
