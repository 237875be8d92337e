package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// Erasure by law: what people have said in an entry leaves ledger.db. Its envelope stays, and
// with it the tree; what a replay needs of the data stays in the record of the entry, and
// leaves with no archive. Nobody is shown the data once it is agreed that it goes. A page of
// bbolt keeps what was on it, so that the whole file is made anew, and the old one is
// overwritten: at once, or where that fails when the site is opened next. What is agreed
// follows from the entries, so that a recovery, and a restore in the place of a ledger that
// knows of it, erase it too.

// Errors of an erasure.
var (
	ErrNothingSaid = errors.New("store: nothing that people have said is in the entry")
	ErrErased      = errors.New("store: the data of the entry was erased before")
	ErrNoRequest   = errors.New("store: the entry is no request for an erasure")
	ErrSamePerson  = errors.New("store: who asked for an erasure cannot agree to it")
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
// then on, and it goes with [DB.EraseAgreed], or when the site is opened next. same says
// whether two actors are one person.
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
	return seq, d, db.view(db.loadAgreed)
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
		agreed = append(agreed, x.Seq)
	}
	slices.Sort(agreed)
	if agreed[0] < 0 || agreed[len(agreed)-1] >= env.Seq {
		return errors.New("an erasure of what is not there")
	}
	return tx.putJSON(bMeta, kErased, slices.Compact(agreed))
}

// agreedIn reads which data is agreed to be erased, whether it has gone or not.
func agreedIn(t *bolt.Tx) (agreed []int64, err error) {
	if raw := t.Bucket(bMeta).Get(kErased); raw != nil {
		err = json.Unmarshal(raw, &agreed)
	}
	return agreed, err
}

// loadAgreed finds what is agreed to be erased and still there: from now on nobody is shown it.
func (db *DB) loadAgreed(t *bolt.Tx) error {
	agreed, err := agreedIn(t)
	if err != nil {
		return damaged(err, "%s of ledger.db", kErased)
	}
	waiting := map[int64]bool{}
	for _, seq := range agreed {
		_, l, err := entryOf(t, seq)
		if err != nil {
			return err
		}
		if l.Data != nil {
			waiting[seq] = true
		}
	}
	db.agreed.Store(&waiting)
	return nil
}

// shown is an entry as others than a check may see it.
func (db *DB) shown(l Lines) (Lines, error) {
	if waiting := db.agreed.Load(); waiting == nil || !(*waiting)[l.Seq] {
		return l, nil
	}
	return l.erased()
}

// EraseAgreed erases at once what was agreed to be, while others read. Nothing is written
// meanwhile, which takes as long as a replay of the ledger does, and as much room as it has.
// With an error what was agreed is still to be erased, when the site is opened next at the
// latest; with [ErrUnsynced] nothing is accepted any more until then.
func (db *DB) EraseAgreed() error {
	return db.still(func() error {
		if err := db.Failure(); err != nil {
			return err
		}
		err := db.eraseAgreed(Options{live: true})
		if errors.Is(err, ErrUnsynced) {
			db.Refuse(err)
		}
		db.records = newRecords() // they have it still
		db.bundles.empty()
		return err
	})
}

func (db *DB) eraseAgreed(opt Options) error {
	opt.erase = *db.agreed.Load()
	if len(opt.erase) == 0 {
		return nil
	}
	path, err := place(db.home)
	if err == nil {
		err = db.moveTo(path+newSuffix, path, opt, db.upgrade)
	}
	if err != nil {
		return fmt.Errorf("store: erase: %w", err)
	}
	return db.view(db.loadAgreed)
}

// Gone is an entry whose data was erased, in a ledger that may have another in its place.
type Gone struct {
	Seq  int64
	Leaf ledger.Hash // of its envelope
}

// Back says which of these entries are here though no entry here says that their data is
// erased, be it that it is here again or not.
func (db *DB) Back(gone []Gone) (back []ledger.ErasedData, err error) {
	err = db.view(func(t *bolt.Tx) error {
		agreed, err := agreedIn(t)
		if err != nil {
			return err
		}
		for _, g := range gone {
			if slices.Contains(agreed, g.Seq) {
				continue
			}
			_, l, err := entryAt(t, g.Seq)
			if IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			if ledger.LeafHash(l.Envelope) != g.Leaf {
				continue
			}
			if l.Data != nil {
				l, err = l.erased()
			}
			if err != nil {
				return err
			}
			back = append(back, ledger.ErasedData{Seq: l.Seq, Remains: hexSum(l.remains)})
		}
		return nil
	})
	return back, err
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

// erasures holds what is erased, and what remains of it, against what entries say was.
type erasures struct {
	gone  []ledger.ErasedData
	named map[int64]string // seq → digest of what remains
}

func (e *erasures) see(l Lines, data any) {
	if l.Data == nil {
		e.gone = append(e.gone, ledger.ErasedData{Seq: l.Seq, Remains: hexSum(l.remains)})
	}
	named := erasedBy(data)
	if e.named == nil && len(named) > 0 {
		e.named = map[int64]string{}
	}
	for _, x := range named {
		e.named[x.Seq] = x.Remains
	}
}

// erasedBy is what an entry says is erased.
func erasedBy(data any) []ledger.ErasedData {
	switch d := data.(type) {
	case *ledger.Erasure:
		return d.Entries
	case *ledger.EpochStart:
		return d.Erased
	}
	return nil
}

// check finds data that is gone and that nobody has agreed to erase, and what remains of data
// and is not what it was.
func (e *erasures) check() error {
	for _, x := range e.gone {
		switch remains, ok := e.named[x.Seq]; {
		case !ok:
			return damaged(errors.New("its data is gone, and no entry says that it was erased"), "entry %d", x.Seq)
		case remains != x.Remains:
			return damaged(errors.New("what remains of its erased data is not what was recorded"), "entry %d", x.Seq)
		}
	}
	return nil
}
