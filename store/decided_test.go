package store_test

import (
	"bytes"
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

// What an entry has decided that is damaged is told by the tables that follow from the entries, as
// far as they can be believed; and how many entries are not clear is said, of those beyond a copy.
func TestDecisionsOfDamagedEntries(t *testing.T) {
	home, older := newHome(t), newHome(t)
	db := create(t, home)
	if _, err := db.PublishDAG("x", &ledger.DAGPublication{DAGID: "audit", Version: "1.0.0", Digest: digest, Spec: digest, Publisher: "acme"}); err != nil {
		t.Fatal(err)
	}
	size := db.Size()
	end := func() {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	end()
	raw, err := os.ReadFile(filepath.Join(home, "ledger.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(older, "ledger.db"), raw, 0o600)
	}
	if err == nil {
		db, err = store.Open(home, store.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(version string, sequence int64) ledger.RememberedBundle {
		return ledger.RememberedBundle{Kind: "plugin", Publisher: "acme", Name: "work", Version: version, Sequence: sequence, Digest: fmt.Sprintf("%064x", sequence), Epoch: 2}
	}
	for _, b := range []ledger.RememberedBundle{bundle("1.0.0", 1), bundle("1.1.0", 2)} {
		if err := db.Remember("x", "", store.Forgotten{Decided: store.Decided{Bundles: []ledger.RememberedBundle{b}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := db.SwitchDAG("x", false, &ledger.DAGSwitch{DAGID: "audit", Version: "1.0.0", Reason: "it is wrong"}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ChangeQueue(ledger.QueuePaused, "x", ledger.QueueChange{Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	end()
	intact, err := os.ReadFile(filepath.Join(home, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil   func(raw []byte) []byte
		unclear int64
		want    string
	}{
		"nothing":              {func(raw []byte) []byte { return raw }, 0, "[acme/work@1.0.0 acme/work@1.1.0] 1.0.0"},
		"the data of a switch": {func(raw []byte) []byte { return bytes.ReplaceAll(raw, []byte("it is wrong"), []byte("it is wronG")) }, 1, "[acme/work@1.0.0 acme/work@1.1.0] 1.0.0"},
		"the envelopes of all": {func(raw []byte) []byte { return bytes.ReplaceAll(raw, []byte(`"actor":"x"`), []byte(`"actor":"y"`)) }, 4, "[acme/work@1.1.0] 1.0.0"},
		"and of what is older": {func(raw []byte) []byte { return bytes.ReplaceAll(raw, []byte(`"actor"`), []byte(`"actoR"`)) }, 4, "[acme/work@1.1.0] 1.0.0"},
		"all, and the floor is none": {func(raw []byte) []byte {
			return bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte(`"actor"`), []byte(`"actoR"`)), []byte(`"sequence":2,`), []byte(`"sequence":-,`))
		}, 4, "[] 1.0.0"},
	} {
		if err := os.WriteFile(filepath.Join(home, "ledger.db"), c.spoil(bytes.Clone(intact)), 0o600); err != nil {
			t.Fatal(err)
		}
		decided := store.Peek(home).Decided
		copied, err := store.Open(older, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := copied.Forgotten(decided)
		var refs []string
		for _, b := range f.Bundles {
			refs = append(refs, b.Ref())
		}
		got := fmt.Sprint(refs, " ", versionsOf(f.Disabled))
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil || copied.Size() != size || f.Unclear != c.unclear || got != c.want {
			t.Errorf("%s: %d not clear, %s, %v; want %d, %s", name, f.Unclear, got, err, c.unclear, c.want)
		}
	}
}

func versionsOf(dags []store.DisabledDAG) string {
	var out []string
	for _, x := range dags {
		out = append(out, x.Version)
	}
	return strings.Join(out, " ")
}
