package store

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
)

// A ledger that is damaged is recovered by making another one of the longest prefix of its
// entries that is intact: each is verified, hashed and replayed as if it were written now.
// What else of it can be read is sealed as evidence, and never becomes part of the tree. The
// damaged file is kept. It is swapped as a restore swaps ([journal]).

// Errors of a recovery.
var (
	ErrHopeless    = errors.New("store: not even the first two entries of the ledger can be read")
	ErrOlderSchema = errors.New("store: the ledger is of an older schema")
	ErrForked      = errors.New("store: a checkpoint that was signed contradicts the ledger")
)

// firstRecovered is the oldest schema that is recovered: since then an entry is one record.
const firstRecovered = 4

// RecoverOptions are options of [Recover]. Those of which nothing is said are required.
type RecoverOptions struct {
	Home     string
	Kept     string // name for what is replaced, below replaced/
	Open     Options
	Adopted  func(db *DB, r Recovery) error                              // holds what was adopted against what is known of it otherwise
	Trust    func(dir string) error                                      // writes the trust files that are in force by what was adopted
	Begin    func(db *DB, evidence string) error                         // begins the new epoch
	Told     func(Recovery) ([]byte, error)                              // JSON that the journal keeps: what is told when that is done
	OpenNote func(siteID string, note []byte) (ledger.Checkpoint, error) // verifies a stored checkpoint
	Progress func(done, total int64)                                     // entries; may be nil
	DryRun   bool                                                        // only say what there is
}

// Recovery is what was, or would be, recovered.
type Recovery struct {
	SiteID   string
	Head     Head   // of the file
	Older    bool   // the schema of the file is older than this stella's
	Epoch    int64  // that the adopted entries end in
	Size     int64  // entries that were adopted
	Unread   int    // pages of the file that may have had more: what is lost is at least what Head has beyond Size
	Damage   string // the first thing that is wrong
	Survived int64  // entries beyond the damage that can be read
	Evidence string // SHA-256 of the sealed list of these, "" for none
	Lost     int64  // small sealed files, and secrets, that are not what they were; of those that are gone at least one
	Secrets  int64  // of these, secrets, whatever has become of the ledger
	Unsent   int64  // events that a sink had not taken, and now will not be offered; and sinks of which nobody knows. At least 1 where they are not what was written
	Kept     string // folder in the home with the damaged file
}

// Recover recovers the ledger of a home that nobody holds. One of a newer schema is refused,
// and one that is older than what is replayed here; and with [ErrForked] one whose entries are
// not those that were signed, which no damage does. Where the file cannot be read, or what is
// made of it not written, nothing is recovered: that is no damage, and may pass.
func Recover(ctx context.Context, opt RecoverOptions) (r Recovery, err error) {
	unlock, err := lockHome(opt.Home)
	if err != nil {
		return r, err
	}
	defer unlock()
	if err := nothingCutOff(opt.Home); err != nil { // see [FinishRestore]
		return r, err
	}
	w, err := openWreck(opt.Home, opt.Open.hooks.read)
	var damage *Damage
	switch {
	case errors.Is(err, os.ErrNotExist):
		return r, fmt.Errorf("%w: %s", ErrNoSite, opt.Home)
	case errors.As(err, &damage):
		return r, fmt.Errorf("%w: %w", ErrHopeless, err)
	case err != nil:
		return r, err
	}
	defer w.close()
	if w.from.fail != nil {
		return r, w.from.fail
	}
	switch schema := w.schema(); {
	case schema > schemaVersion:
		return r, fmt.Errorf("%w: schema %d, this one knows %d", ErrNewerSchema, schema, schemaVersion)
	case schema != 0 && schema < firstRecovered:
		return r, fmt.Errorf("%w: %d, and %d is the first that is recovered", ErrOlderSchema, schema, firstRecovered)
	default:
		r.Older = schema != 0 && schema < schemaVersion
	}
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
	err = w.rebuild(ctx, ready, opt, &r)
	if err = cmp.Or(w.from.fail, err); err != nil || opt.DryRun {
		return r, err
	}
	if err := makeRoom(opt.Home); err != nil {
		return r, err
	}
	r.Kept = unused(opt.Home, filepath.Join(replacedName, opt.Kept))
	told, err := opt.Told(r)
	if err != nil {
		return r, err
	}
	return r, newJournal(recoveredID, r.Kept, told).carryOut(opt.Home)
}

// rebuild makes the new database in a folder.
func (w *wreck) rebuild(ctx context.Context, dir string, opt RecoverOptions, r *Recovery) (err error) {
	open1 := opt.Open
	open1.sealed = opt.Home
	db, err := open(dir, open1, true)
	if err != nil {
		return err
	}
	base := db.base.Load()
	base.NoSync, base.NoGrowSync = true, true // what is half done is thrown away
	started := false
	defer func() {
		if started {
			err = errors.Join(err, db.Close())
		} else {
			err = errors.Join(err, base.Close())
		}
	}()
	r.Head, r.Unread = w.head(), w.unread(bEntries, bMeta, bCheckpoints, bSmall, bOutbox, bSinks)
	if err := w.adopt(ctx, db, opt, r); err != nil {
		return err
	}
	if r.Size == 0 {
		return fmt.Errorf("%w: %s", ErrHopeless, r.Damage)
	}
	if r.Damage == "" && r.Unread > 0 {
		r.Damage = fmt.Sprintf("pages of ledger.db that cannot be read: %d", r.Unread)
	}
	if err := checkFile(w.file, true); err != nil {
		if damage := (*Damage)(nil); !errors.As(err, &damage) {
			return err
		}
		r.Damage = cmp.Or(r.Damage, err.Error())
	}
	if err := db.load(); err != nil {
		return err
	}
	if _, _, err := db.Trust(); IsNotFound(err) { // nobody could say what is admitted
		return fmt.Errorf("%w: %s", ErrHopeless, r.Damage)
	}
	if err := errors.Join(db.signed(opt, r.SiteID), opt.Adopted(db, *r)); err != nil {
		return err
	}
	if err := w.survivors(ctx, db, opt, r); err != nil {
		return err
	}
	r.Secrets, err = copySecrets(filepath.Join(opt.Home, "secrets"), filepath.Join(dir, "secrets"), opt.DryRun)
	if r.Lost += r.Secrets; err != nil || opt.DryRun {
		return err
	}
	base.NoSync, base.NoGrowSync = false, false
	if err := base.Sync(); err != nil {
		return err
	}
	db.start()
	started = true
	if err := opt.Trust(filepath.Join(dir, "trust")); err != nil {
		return err
	}
	return opt.Begin(db, r.Evidence)
}

// signed holds what was adopted against the checkpoints that were taken over.
func (db *DB) signed(opt RecoverOptions, siteID string) error {
	return db.Checkpoints(func(_ int64, note []byte) error {
		c, err := opt.OpenNote(siteID, note)
		if err != nil {
			return err
		}
		return db.Contradicts(c)
	})
}

// copySecrets copies the files of secrets, which are encrypted, and syncs them. One that
// cannot be read is left behind and counted, and the check of the ledger names it; all stay
// in what is kept, also those that only lost entries name. A dry run only counts.
func copySecrets(from, to string, dry bool) (lost int64, err error) {
	err = filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == from {
			return nil // there never was one
		}
		rel, rerr := filepath.Rel(from, p)
		if rerr != nil {
			return rerr
		}
		switch {
		case err != nil:
			lost++
			return fs.SkipDir
		case d.IsDir() && dry:
			return nil
		case d.IsDir():
			return fsx.Mkdir(filepath.Join(to, rel), 0o700)
		}
		raw, err := fsx.ReadFile(p, maxSecretFile)
		if errors.Is(err, syscall.EIO) {
			return err
		}
		if err != nil {
			lost++
			return nil
		}
		if dry {
			return nil
		}
		return fsx.WriteFile(filepath.Join(to, rel), raw, 0o600)
	})
	if err != nil {
		return lost, fmt.Errorf("store: recover: %w", err)
	}
	return lost, nil
}

// adopt verifies and replays the entries up to the first that is not intact, and takes over
// what no entry accounts for, as far as it is whole.
func (w *wreck) adopt(ctx context.Context, db *DB, opt RecoverOptions, r *Recovery) error {
	v, err := ledger.NewVerifier(ledger.VerifierOptions{})
	if err != nil {
		return err
	}
	m := &move{r: &replay{db: db, bolt: db.base.Load().DB}}
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
	if err := w.adoptEntries(ctx, v, m, opt, r); err != nil {
		return err
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
	if err := w.takeOver(m, opt, r); err != nil {
		return err
	}
	w.compareSums(r)
	return errors.Join(m.put(bMeta, kSchema, be64(schemaVersion)), m.r.flush())
}

// adoptEntries adopts entries as far as they are intact.
func (w *wreck) adoptEntries(ctx context.Context, v *ledger.Verifier, m *move, opt RecoverOptions, r *Recovery) error {
	remains := map[int64]string{}
	for _, g := range r.Head.Erased {
		remains[g.Seq] = g.Remains
	}
	for ; ; r.Size++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		l, hashes, err := w.entry(r.Size)
		if IsNotFound(err) && r.Size >= r.Head.Size && r.Head.Unread == 0 {
			break // that is the end of it
		}
		if err == nil && l.Erased() && hexSum(l.remains) != remains[l.Seq] {
			err = errOtherRemains
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
			opt.Progress(r.Size, r.Head.Size)
		}
	}
	return nil
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
		return notReplayed(err, l.Seq)
	}
	return nil
}

// takeOver takes what no entry accounts for: checkpoints of what was adopted that are as they
// were signed, where their copies lie, small sealed files that are what they were, and how far
// the sinks of events have come, with what waits for them.
func (w *wreck) takeOver(m *move, opt RecoverOptions, r *Recovery) error {
	return errors.Join(
		w.each(bCheckpoints, func(_, v []byte) error {
			c, err := opt.OpenNote(r.SiteID, v)
			if err != nil || c.Size > r.Size {
				return nil
			}
			return m.put(bCheckpoints, be64(c.Size), v) // whatever has become of its key
		}),
		w.each(bSmall, func(k, v []byte) error {
			if hexSum(v) != string(k) {
				r.Lost++
				return nil
			}
			return m.put(bSmall, k, v)
		}),
		w.each(bMeta, func(k, v []byte) error {
			var paths []string
			if string(k) != string(kNotePaths) || json.Unmarshal(v, &paths) != nil {
				return nil
			}
			return m.put(bMeta, k, v)
		}),
		w.each(bSinks, func(k, v []byte) error {
			var rec SinkRecord
			if json.Unmarshal(v, &rec) != nil || rec.Next < 0 {
				r.Unsent++ // it begins anew, and nobody knows how far it had come
				return nil
			}
			rec.Next = min(rec.Next, r.Size) // what takes the place of lost entries is news
			raw, err := json.Marshal(rec)
			if err != nil {
				return err
			}
			return m.put(bSinks, k, raw)
		}),
		w.each(bOutbox, func(k, v []byte) error {
			if err := m.r.begin(); err != nil {
				return err
			}
			if checkRow(m.r.tx.bolt, k, v) != nil {
				r.Unsent++
				return nil
			}
			return m.put(bOutbox, k, v)
		}),
	)
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
	erased := map[int64]bool{} // or said to be: rather too little than too much
	for _, g := range r.Head.Erased {
		erased[g.Seq] = true
	}
	for _, seq := range r.Head.Said {
		erased[seq] = true
	}
	for seq := r.Size; seq < r.Head.Size; seq++ {
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
