package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// A ledger that was restored or recovered goes on in a new epoch: the same tree, the same
// seq, another origin (FORMATS section 4). Whoever holds a checkpoint of the old origin that
// covers more than what was adopted holds the proof of what was lost.

func firstSite(d *ledger.SiteInit) siteMeta { return siteMeta{SiteID: d.SiteID, Epoch: 1} }

// projectEpoch puts an epoch in force.
func (tx *Tx) projectEpoch(env ledger.Envelope, d *ledger.EpochStart) error {
	var site siteMeta
	if err := getJSON(tx.bolt, bMeta, kSite, &site); err != nil {
		return err
	}
	switch {
	case d.Epoch <= site.Epoch:
		return fmt.Errorf("epoch %d after epoch %d", d.Epoch, site.Epoch)
	case d.Size != env.Seq:
		return fmt.Errorf("an epoch that adopts %d entries in entry %d", d.Size, env.Seq)
	case d.OldOrigin != ledger.Origin(site.SiteID, site.Epoch):
		return fmt.Errorf("an epoch after %s in a ledger of epoch %d", d.OldOrigin, site.Epoch)
	}
	site.Epoch, site.Adopted = d.Epoch, append(site.Adopted, Epoch{d.Epoch, d.Size})
	return tx.putJSON(bMeta, kSite, site)
}

// BeginEpoch begins an epoch with everything that there is, and erases what is agreed to be. Nobody
// else may use the database meanwhile. waits is why something of that is still on disk. typed is
// the time that somebody accepts, as with [DB.AcceptTime], where the clock is far from the last entry.
func (db *DB) BeginEpoch(actor string, d ledger.EpochStart, typed time.Time) (waits, err error) {
	size := db.Size()
	root, err := ledger.TreeHash(size, db)
	if err != nil {
		return nil, err
	}
	d.OldOrigin, d.Size, d.Root = db.Origin(), size, ledger.HexHash(root)
	again := d.Erased
	d.Erased = again[:min(len(again), ledger.MaxErased)]
	var seq int64
	err = db.update(func(tx *Tx) error {
		tx.accepting = !typed.IsZero() // nothing may come before it
		env, err := tx.append(siteEntry(ledger.EpochBegun, actor, &d))
		tx.accepting = false
		seq = env.Seq
		return err
	})
	if err == nil && !typed.IsZero() {
		_, err = db.AcceptTime(actor, cmp.Or(d.Reason, d.Cause), typed)
	}
	for more := range slices.Chunk(again[len(d.Erased):], ledger.MaxErased) {
		if err == nil {
			_, err = db.Append(ledger.DataErased, actor, &ledger.Erasure{Request: seq, Entries: more})
		}
	}
	if err == nil {
		err = db.load()
	}
	if err != nil {
		return nil, err
	}
	if waits = db.eraseAgreed(Options{}); errors.Is(waits, ErrUnsynced) {
		return nil, waits // nothing can be written any more
	}
	return waits, nil
}

// Adopted is how many entries the ledger has of an epoch that is over, with those before it:
// what checkpoints of that one cover beyond is not in it. Of the current epoch it is no
// number that bounds anything, and ok is false.
func (db *DB) Adopted(epoch int64) (size int64, ok bool) {
	for _, x := range db.site.Adopted {
		if x.Epoch > epoch {
			return x.Size, true // the first that began after it: later ones adopted more, or what they left out was not of it
		}
	}
	return 0, false
}

// Head is what can be read of a ledger that nobody may open.
type Head struct {
	Size, Epoch int64
	Unread      int // pages that may have had more entries
	NotePaths   []string
	NotesLost   bool     // there may have been more of these
	Notes       [][]byte // the newest checkpoints that are stored, not verified
	Erased      []Gone
	Said        []int64              // entries that are said to be erased too, and nothing that can be read shows it
	Init        *ledger.SiteInit     // nil where entry 0 cannot be read
	Trust       []ledger.TrustChange // that can be read, the oldest first
	TrustWhole  bool                 // there are no others: all entries can be read, and the data of each change
	Decided     Decided              // by entries that can be read

	clock clock     // what can be read of it
	last  time.Time // of the newest entry that can be read
}

// Behind is [ErrClockBehind] where now is before what was on record there: a ledger that takes the
// place of this one shall not revive what had expired.
func (h Head) Behind(now time.Time) error {
	c := h.clock
	c.gap = math.MaxInt64
	return c.check(now, h.last)
}

// MaxEpoch is the highest epoch that is believed of a ledger which nobody may open. A record that
// says more is damaged: no epoch could come after it.
const MaxEpoch = 1 << 41

// Peek reads as much of the head of a home's ledger as can be read, without changing
// anything: zero, where nothing can, because somebody holds it, or it is damaged.
func Peek(home string) (h Head) {
	lock, err := openLedger(home)
	if err != nil {
		return h
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil {
		return h
	}
	return peek(home)
}

// peek is [Peek] for whoever holds the home.
func peek(home string) (h Head) {
	w, err := openWreck(home, nil)
	if err != nil {
		if exists(filepath.Join(home, fileName)) {
			h.Unread, h.NotesLost = 1, true
		}
		return h
	}
	defer w.close()
	return w.head()
}

// keptNotes is how many stored checkpoints a [Head] has: the newest may be damaged.
const keptNotes = 64

// head is what a database says of itself.
func (w *wreck) head() (h Head) {
	h.Size, h.Unread, h.NotesLost = w.last(), w.unread(bEntries), w.unread(bMeta) > 0
	_ = w.each(bCheckpoints, func(_, v []byte) error {
		if h.Notes = append(h.Notes, v); len(h.Notes) > keptNotes {
			h.Notes = h.Notes[1:]
		}
		return nil
	})
	var rec clockRecord
	var seen string
	_ = w.each(bMeta, func(k, v []byte) error {
		switch string(k) {
		case string(kSite):
			var site siteMeta
			if json.Unmarshal(v, &site) == nil && site.Epoch <= MaxEpoch {
				h.Epoch = site.Epoch
			}
		case string(kNotePaths):
			h.NotesLost = h.NotesLost || json.Unmarshal(v, &h.NotePaths) != nil
		case string(kClock):
			_ = json.Unmarshal(v, &rec)
		case string(kClockSeen):
			seen = string(v)
		}
		return nil
	})
	if l, _, err := w.entry(0); err == nil {
		h.Init, _ = l.initialized()
	}
	var epoch int64
	var last string
	decided := deciding{bundles: map[string]ledger.RememberedBundle{}, dags: map[string]*DisabledDAG{}, next: h.Size}
	left := h.Size // entries of which it is not known whether they change trust
	h.Erased, h.Said, epoch = w.gone(h.Size, func(l Lines) {
		decided.see(l)
		if last == "" {
			env, _ := ledger.ParseEnvelope(l.Envelope)
			last = env.Time
		}
		c, is := trustChange(l)
		if c != nil {
			h.Trust = append(h.Trust, *c)
		}
		if c != nil || !is {
			left--
		}
	})
	slices.Reverse(h.Trust)
	h.TrustWhole = h.Size > 0 && left == 0 && h.Unread == 0
	h.Epoch = max(h.Epoch, epoch)
	decided.upTo(0)
	decided.tables(w)
	h.Decided = decided.all()
	h.Decided.epoch = h.Epoch
	h.last, _ = stamp.Parse(last)
	h.clock.set(rec, last, seen)
	return h
}

// trustChange is the change of trust that an entry is, nil where the data is not what the envelope
// names.
func trustChange(l Lines) (c *ledger.TrustChange, is bool) {
	if !l.is(ledger.TrustChanged) {
		return nil, false
	}
	if ledger.CheckDataHash(l.Envelope, l.Data) == nil {
		data, _ := l.data(ledger.TrustChanged)
		c, _ = data.(*ledger.TrustChange)
	}
	return c, true
}

// TrustChanges reads all changes of trust whose data is there, the oldest first.
func (db *DB) TrustChanges() (all []ledger.TrustChange, err error) {
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			return nil, err
		}
		if c, _ := trustChange(l); c != nil {
			all = append(all, *c)
		}
	}
	return all, nil
}
