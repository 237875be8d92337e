package engine_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// Whoever has something erased is told where else it was said, before and when it goes: alone,
// within a longer text, and where stella itself has taken it on.
func TestTheSameWordsAreFoundElsewhere(t *testing.T) {
	const said = "Erika \"Mustermann\" <7>"
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	first := l.start(api.StartRequest{DAGID: "audit", Metadata: map[string]string{"for": said}}).Run.RunID
	second := l.start(api.StartRequest{DAGID: "audit", Metadata: map[string]string{"by": "x", "for": "asked by " + said + ", twice"}}).Run.RunID
	third := l.start(api.StartRequest{DAGID: "audit", Metadata: map[string]string{"for": "Erika", "no": "yes"}}).Run.RunID
	if _, err := l.site().FailRun(ctx, third, api.EndRequest{Reason: said}); err != nil {
		t.Fatal(err)
	}
	l.execute()
	entry := l.seqOf(first, ledger.RunStarted)
	want := []int64{l.seqOf(second, ledger.RunStarted), l.seqOf(third, ledger.RunFailRequested), l.seqOf(third, ledger.RunFailed)}
	slices.Sort(want)

	same := func(req api.ErasureRequest, site api.Site, want []int64) (seq int64) {
		t.Helper()
		rep, err := site.EraseData(ctx, req)
		if err != nil || !slices.Equal(rep.AlsoIn, want) {
			t.Errorf("also in %v, want %v (%v)", rep.AlsoIn, want, err)
		}
		return rep.Seq
	}
	same(api.ErasureRequest{Entries: []int64{entry}, Reason: "by law", DryRun: true}, l.site(), want)
	seq := same(api.ErasureRequest{Entries: []int64{entry}, Reason: "by law"}, l.site(), want)
	same(api.ErasureRequest{Agree: &seq, DryRun: true}, l.other(), want)
	same(api.ErasureRequest{Agree: &seq}, l.other(), want)
	seq = same(api.ErasureRequest{Entries: want, Reason: "by law"}, l.site(), nil)
	same(api.ErasureRequest{Agree: &seq}, l.other(), nil)
	if speaks(t, l.home, "Mustermann") {
		t.Error("it is in ledger.db")
	}
}

// A damaged entry of others keeps no data from being erased: that not all entries were looked
// through is said.
func TestADamagedEntryKeepsNothingFromBeingErased(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	run := l.start(api.StartRequest{DAGID: "audit", Metadata: map[string]string{"for": "Erika Mustermann"}}).Run.RunID
	entry := l.seqOf(run, ledger.RunStarted)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(l.home, "ledger.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("entries")).Put(binary.BigEndian.AppendUint64(nil, 2), []byte("no entry"))
	})
	if err := cmp.Or(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	l.open()
	asked, err := l.site().EraseData(ctx, api.ErasureRequest{Entries: []int64{entry}, Reason: "by law"})
	if err != nil || !strings.Contains(asked.Unsearched, "entry 2") {
		t.Fatalf("%+v, %v", asked, err)
	}
	agreed, err := l.other().EraseData(ctx, api.ErasureRequest{Agree: &asked.Seq})
	if err != nil || !strings.Contains(agreed.Unsearched, "entry 2") {
		t.Fatalf("%+v, %v", agreed, err)
	}
	lines, err := l.site().TailLedger(ctx, api.LedgerQuery{RunID: run, Type: string(ledger.RunStarted)})
	if err != nil || len(lines) != 1 || len(lines[0].Data) > 0 {
		t.Errorf("what is agreed to be erased is shown: %v, %v", lines, err)
	}
}
