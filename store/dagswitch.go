package store

import (
	"errors"
	"fmt"

	"github.com/stellarun/stella/ledger"
)

// Switched says who put something into its state, when and why.
type Switched struct {
	Seq    int64  `json:"seq"`
	Time   string `json:"time"`
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
}

// SwitchDAG disables or enables a DAG version, and says whether that changed
// anything: where it did not, nothing is written.
func (db *DB) SwitchDAG(actor string, enable bool, d *ledger.DAGSwitch) (rec DAGRecord, changed bool, err error) {
	t := ledger.DAGDisabled
	if enable {
		t = ledger.DAGEnabled
	}
	err = db.update(func(tx *Tx) error {
		rec = DAGRecord{}
		err := getJSON(tx.bolt, bDAGs, pair(d.DAGID, d.Version), &rec)
		switch {
		case errors.Is(err, ErrNotFound):
			return fmt.Errorf("DAG %s %s: %w", d.DAGID, d.Version, ErrNotFound)
		case err != nil:
			return err
		case rec.Enabled == enable:
			return errUnchanged
		}
		if _, err := tx.append(siteEntry(t, actor, d)); err != nil {
			return err
		}
		rec = DAGRecord{}
		return getJSON(tx.bolt, bDAGs, pair(d.DAGID, d.Version), &rec)
	})
	if errors.Is(err, errUnchanged) {
		return rec, false, nil
	}
	return rec, err == nil, err
}

func (tx *Tx) projectSwitch(env ledger.Envelope, d *ledger.DAGSwitch) error {
	var rec DAGRecord
	if err := getJSON(tx.bolt, bDAGs, pair(d.DAGID, d.Version), &rec); err != nil {
		return fmt.Errorf("DAG %s %s: %w", d.DAGID, d.Version, err)
	}
	rec.Enabled = env.Type == ledger.DAGEnabled
	rec.Switched = switchedBy(env, d.Reason)
	return tx.putJSON(bDAGs, pair(d.DAGID, d.Version), rec)
}

func switchedBy(env ledger.Envelope, reason string) *Switched {
	return &Switched{Seq: env.Seq, Time: env.Time, Actor: env.Actor, Reason: reason}
}
