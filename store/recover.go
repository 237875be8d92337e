package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

// A ledger that is damaged is recovered by making another one of the longest prefix of its
// entries that is intact: each is verified, hashed and replayed as if it were written now.
// What else of it can be read is sealed as evidence, and never becomes part of the tree. The
// damaged file is kept. It is swapped as a restore swaps ([journal]).

// ErrHopeless says that nothing of a ledger can be recovered.
var ErrHopeless = errors.New("store: not even the first entry of the ledger can be read")

// RecoverOptions are options of [Recover]. Those of which nothing is said are required.
type RecoverOptions struct {
	Home     string
	Kept     string // name for what is replaced, below replaced/
	Open     Options
	Trust    func(db *DB, dir string) error                              // writes the trust files that are in force by what was adopted
	Begin    func(db *DB, evidence string) error                         // begins the new epoch
	OpenNote func(siteID string, note []byte) (ledger.Checkpoint, error) // verifies a stored checkpoint
	Progress func(done, total int64)                                     // entries; may be nil
	DryRun   bool                                                        // only say what there is
}

// Recovery is what was, or would be, recovered.
type Recovery struct {
	SiteID   string
	Epoch    int64  // that the adopted entries end in
	Size     int64  // entries that were adopted
	Known    int64  // entries that the file is known to have had, 0 if it does not say
	Damage   string // the first thing that is wrong
	Survived int64  // entries beyond the damage that can be read
	Evidence string // SHA-256 of the sealed list of these, "" for none
	Lost     int64  // small sealed files that are not what they were
	Kept     string // folder in the home with the damaged file
}

// Recover recovers the ledger of a home that nobody holds.
func Recover(ctx context.Context, opt RecoverOptions) (r Recovery, err error) {
	unlock, err := lockHome(opt.Home, false)
	if err != nil {
		return r, err
	}
	defer unlock()
	if j, err := readJournal(opt.Home); err != nil {
		return r, err
	} else if j != nil { // see [FinishRestore]
		return r, fmt.Errorf("%w: %s", ErrRestoring, opt.Home)
	}
	w, err := openWreck(filepath.Join(opt.Home, fileName))
	switch {
	case errors.Is(err, bolt.ErrTimeout):
		return r, ErrLocked
	case errors.Is(err, os.ErrNotExist):
		return r, fmt.Errorf("%w: %s", ErrNoSite, opt.Home)
	case err != nil:
		return r, fmt.Errorf("%w: %w", ErrHopeless, err)
	}
	defer w.close()
	ready := filepath.Join(opt.Home, restoringName)
	if err := removeTree(ready); err != nil {
		return r, err
	}
	if err := os.Mkdir(ready, 0o700); err != nil {
		return r, fmt.Errorf("store: recover: %w", err)
	}
	defer func() {
		if err != nil && !errors.Is(err, ErrRestoring) || opt.DryRun {
			err = errors.Join(err, removeTree(ready))
		}
	}()
	if err := w.rebuild(ctx, ready, opt, &r); err != nil || opt.DryRun {
		return r, err
	}
	if err := makeRoom(opt.Home); err != nil {
		return r, err
	}
	r.Kept = unused(opt.Home, filepath.Join(replacedName, opt.Kept))
	j := &journal{Schema: journalSchema, ID: "recovered", Kept: r.Kept, Parts: swapped()}
	return r, j.carryOut(opt.Home)
}

// rebuild makes the new database in a folder.
func (w *wreck) rebuild(ctx context.Context, dir string, opt RecoverOptions, r *Recovery) (err error) {
	open1 := opt.Open
	open1.sealed = opt.Home
	db, err := open(dir, open1, true)
	if err != nil {
		return err
	}
	started := false
	defer func() {
		if started {
			err = errors.Join(err, db.Close())
		} else {
			err = errors.Join(err, db.base.Load().Close())
		}
	}()
	r.Known = w.last()
	if err := w.adopt(ctx, db, opt, r); err != nil {
		return err
	}
	if r.Size == 0 {
		return fmt.Errorf("%w: %s", ErrHopeless, r.Damage)
	}
	if err := w.survivors(ctx, db, opt, r); err != nil || opt.DryRun {
		return err
	}
	if err := errors.Join(db.load(), db.base.Load().Sync()); err != nil {
		return err
	}
	db.start()
	started = true
	if err := opt.Trust(db, filepath.Join(dir, "trust")); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, "secrets"), os.DirFS(filepath.Join(opt.Home, "secrets"))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("store: recover: %w", err)
	}
	return opt.Begin(db, r.Evidence)
}

// adopt verifies and replays the entries up to the first that is not intact, and takes over
// what no entry accounts for, as far as it is whole.
func (w *wreck) adopt(ctx context.Context, db *DB, opt RecoverOptions, r *Recovery) error {
	v, err := ledger.NewVerifier(ledger.VerifierOptions{})
	if err != nil {
		return err
	}
	m := &move{r: &replay{db: db, bolt: db.base.Load()}}
	defer m.r.rollback()
	err = m.r.bolt.Update(func(t *bolt.Tx) error {
		for _, name := range buckets() {
			if _, err := t.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for ; ; r.Size++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		l, hashes, err := w.entry(r.Size)
		if IsNotFound(err) && r.Size >= r.Known {
			break // that is the end of it
		}
		if err == nil {
			err = m.adopt(v, l, hashes)
		}
		var damage *Damage
		if err != nil && m.failed {
			return err
		}
		if err != nil {
			r.Damage = fmt.Sprintf("entry %d: %v", r.Size, err)
			if errors.As(err, &damage) {
				r.Damage = damage.Error()
			}
			break
		}
		if opt.Progress != nil && r.Size%pageSize == 0 {
			opt.Progress(r.Size, r.Known)
		}
	}
	if r.Size == 0 {
		return nil
	}
	if err := m.r.flush(); err != nil {
		return err
	}
	err = db.view(func(t *bolt.Tx) error {
		var site siteMeta
		err := getJSON(t, bMeta, kSite, &site)
		r.SiteID, r.Epoch = site.SiteID, site.Epoch
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(w.takeOver(m, opt, r), m.put(bMeta, kSchema, be64(schemaVersion)), m.r.flush())
}

// adopt puts the next entry, if it is intact, with what follows from it: its data is what its
// envelope says, and its envelope what the tree has of it.
func (m *move) adopt(v *ledger.Verifier, l Lines, hashes []ledger.Hash) error {
	env, data, err := verified(v, l)
	if err != nil {
		return err
	}
	if err := m.r.begin(); err != nil {
		m.failed = true
		return err
	}
	if err := sameHashes(l, hashes, hashReader{m.r.tx.bolt}); err != nil {
		return err
	}
	if err := m.put(bEntries, be64(l.Seq), encodeEntry(hashes, l.Envelope, l.stored())); err != nil {
		m.failed = true
		return err
	}
	if err := m.r.add(env, data); err != nil {
		m.failed = true // it is half done
		return damaged(err, "replay of entry %d", l.Seq)
	}
	return nil
}

// takeOver takes what no entry accounts for: checkpoints of what was adopted that are as they
// were signed, where their copies lie, and small sealed files that are what they were.
func (w *wreck) takeOver(m *move, opt RecoverOptions, r *Recovery) error {
	err := w.each(bCheckpoints, func(_, v []byte) error {
		c, err := opt.OpenNote(r.SiteID, v)
		if err != nil || c.Size > r.Size {
			return nil
		}
		return m.put(bCheckpoints, be64(c.Size), v) // whatever has become of its key
	})
	if err != nil {
		return err
	}
	err = w.each(bSmall, func(k, v []byte) error {
		if hexSum(v) != string(k) {
			r.Lost++
			return nil
		}
		return m.put(bSmall, k, v)
	})
	if err != nil {
		return err
	}
	return w.each(bMeta, func(k, v []byte) error {
		if string(k) != string(kNotePaths) {
			return nil
		}
		return m.put(bMeta, k, v)
	})
}

// survivor is a line of the evidence of a recovery: the exact lines of an entry.
type survivor struct {
	Seq      int64  `json:"seq"`
	Envelope string `json:"envelope"`
	Data     string `json:"data,omitempty"` // where it is the one that the envelope names, and nobody has erased it
}

// maxSurvivors bounds the evidence of a recovery, in bytes.
const maxSurvivors = 4 << 30

// survivors seals what can be read of the entries beyond the damage.
func (w *wreck) survivors(ctx context.Context, db *DB, opt RecoverOptions, r *Recovery) error {
	f, err := os.CreateTemp(filepath.Join(opt.Home, restoringName), "survivors-")
	if err != nil {
		return fmt.Errorf("store: recover: %w", err)
	}
	defer f.Close()
	out := bufio.NewWriter(f)
	gone, only := w.gone(r.Known)
	erased := map[int64]bool{} // or said to be: rather too little than too much
	for _, g := range gone {
		erased[g.Seq] = true
	}
	for _, seq := range only {
		erased[seq] = true
	}
	for seq := r.Size; seq < r.Known; seq++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		l, hashes, err := w.entry(seq)
		if err != nil || len(hashes) == 0 || hashes[0] != ledger.LeafHash(l.Envelope) {
			continue // nobody could tell what it was
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil || env.Seq != seq {
			continue
		}
		s := survivor{Seq: seq, Envelope: string(l.Envelope)}
		if l.Data != nil && !erased[seq] && hexSum(l.Data) == env.DataHash {
			s.Data = string(l.Data)
		}
		raw, err := jcs.Marshal(s)
		if err != nil {
			continue // bytes that are no text
		}
		r.Survived++
		if _, err := out.Write(append(raw, '\n')); err != nil {
			return fmt.Errorf("store: recover: %w", err)
		}
	}
	if r.Survived == 0 || opt.DryRun {
		return nil
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("store: recover: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("store: recover: %w", err)
	}
	if err := makeRoom(opt.Home); err != nil {
		return err
	}
	r.Evidence, _, err = newBlobs(opt.Home, nil).PutFrom(f, maxSurvivors)
	return err
}
