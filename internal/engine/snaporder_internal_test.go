package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// The newest snapshot is that of the last epoch which has the most entries, whatever the clock
// said when it was made, and whoever can read it.
func TestTheNewestSnapshotIsThatOfTheMostEntries(t *testing.T) {
	const site = "abababababababababababababababab"
	type made struct {
		epoch, size int64
		at          string // as in its ID
		encrypted   bool
	}
	for _, c := range []struct {
		name string
		made []made // the oldest first
	}{
		{"the clock once ran ahead", []made{{1, 3, "20270127T000000Z", false}, {1, 6, "20261128T000000Z", false}}},
		{"a restore has begun another epoch", []made{{1, 9, "20261128T000000Z", false}, {2, 4, "20261129T000000Z", false}}},
		{"nothing has happened between them", []made{{1, 3, "20261127T000000Z", false}, {1, 3, "20261128T000000Z", false}}},
		{"encrypted ones", []made{{1, 3, "20270127T000000Z", true}, {1, 6, "20261128T000000Z", true}, {2, 4, "20261127T000000Z", true}, {12, 2, "20261126T000000Z", true}}},
		{"some are encrypted", []made{{1, 3, "20270127T000000Z", true}, {1, 6, "20261128T000000Z", false}, {2, 4, "20261127T000000Z", true}, {2, 5, "20261126T000000Z", false}}},
	} {
		dir := t.TempDir()
		var want, got []string
		for _, m := range c.made {
			id := fmt.Sprintf("%010d-%s", m.size, m.at)
			want = append(want, id)
			path, raw := filepath.Join(dir, encryptedName(id, m.epoch)), []byte("age")
			if !m.encrypted {
				path = filepath.Join(dir, id, "snapshot.json")
				err := os.Mkdir(filepath.Dir(path), 0o700)
				if err == nil {
					created := m.at[:4] + "-" + m.at[4:6] + "-" + m.at[6:8] + "T00:00:00.000000000Z"
					raw, err = jcs.Marshal(store.Snapshot{Schema: store.SnapshotSchema, ID: id, SiteID: site, Origin: ledger.Origin(site, m.epoch), Size: m.size, Created: created})
				}
				if err != nil {
					t.Fatal(err)
				}
				raw = append(raw, '\n')
			}
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		all, err := Snapshots(t.TempDir(), dir)
		for _, s := range all {
			got = append(got, s.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, want)
		}
		newest, err := RestoreOptions{Home: t.TempDir(), Dir: dir, Latest: true}.choose()
		if err != nil || newest.ID != want[len(want)-1] {
			t.Errorf("%s: the newest is %s, %v", c.name, newest.ID, err)
		}
	}
}
