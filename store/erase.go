package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// Erasure by law: what people have said in an entry leaves ledger.db. Its envelope stays, and
// with it the tree; what a replay needs of the data stays in the record of the entry, and
// leaves with no archive. Nobody is shown the data once it is agreed that it goes. A page of
// bbolt keeps what was on it, so that the whole file is made anew, and the old one is
// overwritten: at once, or where that fails when somebody tries again, which keeps no site
// shut. What is agreed is what entries say (see [said]), so that a recovery, and a restore in
// the place of a ledger that knows of it, erase it too.

// Errors of an erasure.
var (
	ErrNothingSaid = errors.New("store: nothing that people have said is in the entry")
	ErrErased      = errors.New("store: the data of the entry was erased before")
	ErrNoRequest   = errors.New("store: the entry is no request for an erasure")
	ErrSamePerson  = errors.New("store: who asked for an erasure cannot agree to it")
	ErrNotErased   = errors.New("store: what is agreed to be erased could not be taken out of the copy")
)

// RequestErasure records that somebody wants the data of entries erased.
func (db *DB) RequestErasure(actor string, d ledger.ErasureRequest) (int64, error) {
	for _, seq := range d.Entries {
		if err := db.Erasable(seq); err != nil {
			return 0, err
		}
	}
	return db.Append(ledger.ErasureRequested, actor, &d)
}

// Erasable says why nothing of an entry can be erased, nil where something can.
func (db *DB) Erasable(seq int64) error {
	l, err := db.Entry(seq)
	if err == nil {
		_, err = l.erased()
	}
	if err != nil {
		return fmt.Errorf("entry %d: %w", seq, err)
	}
	return nil
}

// ErasureRequest reads a request, and who asked.
func (db *DB) ErasureRequest(seq int64) (d ledger.ErasureRequest, actor string, err error) {
	l, err := db.Entry(seq)
	if err != nil {
		return d, "", err
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil || env.Type != ledger.ErasureRequested {
		return d, "", fmt.Errorf("entry %d: %w", seq, ErrNoRequest)
	}
	data, err := l.data(env.Type)
	if err != nil {
		return d, "", err
	}
	return *data.(*ledger.ErasureRequest), env.Actor, nil
}

// AgreeToErasure records that somebody else agrees to a request: nobody is shown the data from
// then on, and it goes with [DB.EraseAgreed]. same says whether two actors are one person.
func (db *DB) AgreeToErasure(actor string, request int64, same func(a, b string) bool) (seq int64, d ledger.Erasure, err error) {
	req, by, err := db.ErasureRequest(request)
	if err != nil {
		return 0, d, err
	}
	if same(actor, by) {
		return 0, d, ErrSamePerson
	}
	d.Request = request
	for _, seq := range req.Entries {
		l, err := db.Entry(seq)
		if err != nil {
			return 0, d, err
		}
		if l.Data == nil {
			continue
		}
		x, err := l.erasedData()
		if err != nil {
			return 0, d, err
		}
		d.Entries = append(d.Entries, x)
	}
	if len(d.Entries) == 0 {
		return 0, d, fmt.Errorf("request %d: %w", request, ErrErased)
	}
	if seq, err = db.Append(ledger.DataErased, actor, &d); err != nil {
		return 0, d, err
	}
	return seq, d, db.still(func() error { return db.view(db.loadAgreed) }) // one at a time: an older answer never replaces a newer
}

// projectErasure keeps which data is agreed to be erased, for good.
func (tx *Tx) projectErasure(env ledger.Envelope, entries []ledger.ErasedData) error {
	if len(entries) == 0 {
		return nil
	}
	agreed, err := agreedIn(tx.bolt)
	if err != nil {
		return err
	}
	for _, x := range entries {
		if x.Seq < 0 || x.Seq >= env.Seq {
			return errors.New("an erasure of what is not there")
		}
		agreed = append(agreed, x.Seq)
	}
	slices.Sort(agreed)
	return tx.putJSON(bMeta, kErased, slices.Compact(agreed))
}

// agreedIn reads which data is agreed to be erased, whether it has gone or not.
func agreedIn(t *bolt.Tx) (agreed []int64, err error) {
	if raw := t.Bucket(bMeta).Get(kErased); raw != nil {
		if err := json.Unmarshal(raw, &agreed); err != nil {
			return nil, damaged(err, "meta %s", kErased)
		}
	}
	return agreed, nil
}

// shown is an entry as others than a check may see it.
func (db *DB) shown(l Lines) (Lines, error) {
	if _, hidden := (*db.agreed.Load())[l.Seq]; !hidden || l.Data == nil {
		return l, nil
	}
	return l.erased()
}

// waiting are the entries whose data is to be erased, and is still there.
func (db *DB) waiting() map[int64]bool {
	out := maps.Clone(*db.agreed.Load())
	maps.DeleteFunc(out, func(_ int64, goes bool) bool { return !goes })
	return out
}

// Waiting is of how many entries the data is agreed to be erased, and is still on disk.
func (db *DB) Waiting() int { return len(db.waiting()) }

// EraseAgreed erases what was agreed to be and is still there, while others read. Nothing is
// written meanwhile, which takes as long as a replay of the ledger does, and as much room as
// it has. With an error it is still to be erased; with [ErrUnsynced] nothing is accepted any
// more until the site is opened next.
func (db *DB) EraseAgreed() error { return db.eraseAgreed(Options{live: true}) }

func (db *DB) eraseAgreed(opt Options) error {
	return db.still(func() error {
		if opt.erase = db.waiting(); len(opt.erase) == 0 {
			return nil
		}
		if err := db.Failure(); err != nil {
			return err
		}
		path, err := place(db.home)
		if err == nil {
			err = db.moveTo(path+newSuffix, path, opt, db.upgrade)
		}
		if errors.Is(err, ErrUnsynced) {
			db.Refuse(err)
		}
		db.records = newRecords() // they have it still
		db.bundles.empty()
		if err != nil {
			return fmt.Errorf("store: erase: %w", err)
		}
		return db.view(db.loadAgreed)
	})
}

// erased is an entry without its data.
func (l Lines) erased() (Lines, error) {
	if l.Data == nil {
		return l, ErrErased
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	if err != nil {
		return l, err
	}
	line, err := ledger.ParseData(l.Data)
	if err != nil {
		return l, err
	}
	remains, ok, err := ledger.Remains(env.Type, line.Data)
	if err == nil && !ok {
		err = ErrNothingSaid
	}
	return Lines{Seq: l.Seq, Envelope: l.Envelope, remains: remains}, err
}

// erasedData is what is recorded of an entry whose data is to be erased.
func (l Lines) erasedData() (ledger.ErasedData, error) {
	e, err := l.erased()
	return ledger.ErasedData{Seq: l.Seq, Remains: hexSum(e.remains)}, err
}

// Erased says whether the data of an entry was erased. One that has none otherwise is damaged.
func (l Lines) Erased() bool { return l.remains != nil }

// Remains is what a replay needs of data that was erased; nil where it was not. It leaves the
// site in no form.
func (l Lines) Remains() []byte { return l.remains }

// data decodes the data of an entry; of one that was erased, what remains of it.
func (l Lines) data(t ledger.Type) (any, error) {
	if l.Data == nil && l.remains != nil {
		return ledger.DecodeData(t, l.remains)
	}
	line, err := ledger.ParseData(l.Data)
	if err != nil {
		return nil, err
	}
	return ledger.DecodeData(t, line.Data)
}
