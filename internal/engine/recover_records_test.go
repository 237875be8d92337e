package engine_test

import (
	"context"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// Whatever record of the ledger is spoiled, there is a way on: who opens the site may be refused,
// but then a recovery says so too, and what it makes opens and verifies.
func TestASpoiledRecordIsRecovered(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	l.start(api.StartRequest{DAGID: "audit"})
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.closed()
	type record struct{ bucket, key, value string }
	var records []record
	l.edit(func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte("meta")).Put([]byte("rejections"), []byte("{}")); err != nil { // no entry gives it
			return err
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			if string(name) == "small" { // sealed files, of which there is no other copy
				return nil
			}
			c := b.Cursor()
			for k, v := c.Last(); k != nil; k, v = c.Prev() {
				if string(name) == "meta" && string(k) == "schema" {
					continue
				}
				records = append(records, record{string(name), string(k), string(v)})
				if string(name) != "meta" { // where each is of another kind
					break
				}
			}
			return nil
		})
	})
	recovered := 0
	for _, x := range records {
		l.edit(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte(x.bucket)).Put([]byte(x.key), append([]byte("x"), x.value...))
		})
		if err := l.tryOpen(); err != nil && codeOf(err) != api.CodeDamaged {
			t.Errorf("%q of %s: %v", x.key, x.bucket, err)
		}
		r, err := engine.Recover(context.Background(), engine.RecoverOptions{Home: l.home, Actor: who, Reason: "x"})
		if err != nil {
			t.Fatalf("%q of %s: %v", x.key, x.bucket, err)
		}
		if !r.Sound {
			recovered++
		}
		if codeOf(l.tryOpen()) == api.CodeFloorAhead { // entries are lost
			l.waive("checkpoint.note")
		}
		l.open()
		if _, err := l.site().VerifyLedger(context.Background(), api.LedgerCheck{Full: true}, nil); err != nil {
			t.Fatalf("%q of %s: recovered %+v: %v", x.key, x.bucket, r, err)
		}
		l.closed()
	}
	t.Logf("%d records, %d recoveries", len(records), recovered)
	if recovered < 10 {
		t.Error("hardly anything is damage")
	}
}
