// Package store is the durable state of a site: sealed blobs in a folder, and
// everything else in one bbolt file. The ledger is the truth; runs, tokens,
// bundles and DAG versions are projections of it, changed in the transaction
// that appends their entry, and [DB.Check] replays the ledger to prove it.
//
// One goroutine writes. It takes what is waiting, runs it in one transaction
// and syncs once; nothing is acknowledged before that. Readers page through in
// short transactions, since a long one lets bbolt grow and blocks its writer.
// The package decides nothing about trust and nothing about scheduling.
package store

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Errors that callers branch on.
var (
	ErrLocked       = errors.New("store: another process holds the site")
	ErrNoSite       = errors.New("store: there is no site here")
	ErrExists       = errors.New("store: a site exists already")
	ErrNotFound     = fmt.Errorf("store: %w", state.ErrNotFound)
	ErrNewerSchema  = errors.New("store: written by a newer stella")
	ErrClosed       = errors.New("store: closed")
	ErrFailed       = errors.New("store: a write failed; no more is accepted until the site is opened anew")
	ErrClockBehind  = errors.New("store: the clock is behind the ledger")
	ErrTokenTaken   = errors.New("store: the run token belongs to another start")
	ErrFloorMoved   = errors.New("store: the floor moved since the bundle was judged")
	ErrHeadMismatch = errors.New("store: the ledger does not extend its last checkpoint")
	ErrNoFile       = errors.New("store: not a regular file")
	ErrRestoring    = errors.New("store: a snapshot is being put in the place of the site, or that was cut off")
	ErrUndone       = errors.New("store: what was made ready is gone, and all was put back as it was before")
	ErrUnsynced     = errors.New("store: the site is in the form of this stella now, but its folder could not be synced")
)

// Buckets. The names reach disk.
var (
	bMeta        = []byte("meta")
	bEntries     = []byte("entries")     // seq → its lines and hashes: see entries.go
	bCheckpoints = []byte("checkpoints") // size → signed note
	bRecords     = []byte("records")     // of runs, their steps and attempts: see records.go
	bTenantRuns  = []byte("tenantruns")  // tenant 0 runId → nothing
	bActive      = []byte("active")      // runId → nothing; runs that have not ended
	bTokens      = []byte("tokens")      // tenant 0 runToken → runId
	bBundles     = []byte("bundles")     // digest → BundleRecord
	bRefs        = []byte("refs")        // publisher/name@version → digest
	bFloors      = []byte("floors")      // kind 0 publisher 0 name → Floor
	bDAGs        = []byte("dags")        // dagId 0 version → DAGRecord
	bExports     = []byte("exports")     // seq → ledger.ExportCreation
	bArtifacts   = []byte("artifacts")   // tenant 0 digest → the run that made it first
	bLive        = []byte("live")        // runId / stepId → nothing; steps that do something, wait for people or have failed
	bDead        = []byte("dead")        // runId / stepId → nothing; steps that only a person lets go on
	bApprovals   = []byte("approvals")   // runId / stepId / attempt → state.Approval
	bAsked       = []byte("asked")       // the same keys → nothing; approvals that are open
	bLocks       = []byte("locks")       // tenant 0 kind 0 name → LockRecord
	bCache       = []byte("cache")       // key → CacheRecord
	bCacheAge    = []byte("cacheage")    // expiry 0 key → nothing
	bSchedules   = []byte("schedules")   // tenant 0 name → ScheduleRecord
	bSecrets     = []byte("secrets")     // tenant 0 name → SecretRecord
	bSecretUses  = []byte("secretuses")  // tenant 0 name 0 seq → SecretUsage

	// What follows is no projection: no entry accounts for it.
	bOutbox = []byte("outbox") // sink 0 seq → OutboxRow; what was not delivered at once
	bSinks  = []byte("sinks")  // sink → SinkRecord
	bSmall  = []byte("small")  // digest → sealed bytes that are too few for a file of their own
)

// projections are the buckets that a replay of the ledger gives.
func projections() [][]byte {
	return [][]byte{
		bRecords, bTenantRuns, bActive, bTokens, bBundles, bRefs, bFloors, bDAGs, bExports,
		bArtifacts, bLive, bDead, bApprovals, bAsked, bLocks, bCache, bCacheAge, bSchedules, bSecrets, bSecretUses,
	}
}

func buckets() [][]byte {
	return append(projections(), bMeta, bEntries, bCheckpoints, bOutbox, bSinks, bSmall)
}

// projectedKeys are those of bMeta that a replay of the ledger gives.
func projectedKeys() [][]byte {
	return [][]byte{kSite, kTrust, kTrustPrev, kExtension, kClock, kQueue, kErased, kArchives}
}

// Keys of bMeta.
var (
	kSchema     = []byte("schema")
	kSite       = []byte("site")       // siteMeta
	kTrust      = []byte("trust")      // ledger.TrustChange in force
	kTrustPrev  = []byte("trustprev")  // the one before it
	kRejections = []byte("rejections") // rejections of the current minute
	kSum        = []byte("sum")        // recordSums: see sum.go
	kExtension  = []byte("extension")  // ledger.TrustExtension on record, if any
	kErased     = []byte("erased")     // seqs of entries whose data is agreed to be erased, if any
	kArchives   = []byte("archives")   // []ArchiveRecord, once there is one
	kQueue      = []byte("queue")      // QueueState, once somebody has paused or drained something
)

type siteMeta struct {
	SiteID  string  `json:"siteId"`
	Epoch   int64   `json:"epoch"`
	Adopted []Epoch `json:"adopted,omitempty"` // one for each epoch but the first
}

// An Epoch is the beginning of one: the ledger went on with the first Size entries that it
// had, and what had followed them counts no more.
type Epoch struct {
	Epoch int64 `json:"epoch"`
	Size  int64 `json:"size"`
}

// Options of a database. The zero value works.
type Options struct {
	Now       func() time.Time    // default time.Now
	Migrating func(entries int64) // is told before a site of an older stella is brought up to date; nil: nobody is
	Compact   bool                // rewrite the file without its free pages
	Stopped   func() error        // is asked meanwhile: what it says ends that, and leaves the site as it was; nil: it goes on

	erase  map[int64]bool // entries whose data does not move
	live   bool           // others read meanwhile
	sealed string         // home whose sealed files these are; "" is its own
	hooks  hooks
}

// hooks are for tests of this package.
type hooks struct {
	opened func()                        // a file is open, not yet locked
	page   int                           // entries a transaction of a migration
	moved  func(*Tx)                     // after each of its transactions, and with nil once it has taken the place
	rename func(from, to string) error   // nil: that of fsx
	read   func(io.ReaderAt) io.ReaderAt // what a recovery reads through; nil: nothing
	mapped int                           // bytes of ledger.db that are mapped at first, or more; 0: firstMapped
	unit   int                           // bytes a page of a new ledger.db; 0: those of a page of the system
}

// firstMapped is how far ledger.db grows before whoever writes has to wait for those who read.
const firstMapped = 256 << 20

// fileName is that of the database in the home.
const fileName = "ledger.db"

// A base is an open database of bbolt and its file, which is for looking at: bbolt closes it.
type base struct {
	*bolt.DB
	file *os.File
}

// DB is an open site database. Its methods may be called from any goroutine.
type DB struct {
	home  string
	base  atomic.Pointer[base] // an erasure puts another in its place
	stuck atomic.Bool          // bbolt holds locks that nobody gives back
	now   func() time.Time
	site  siteMeta
	blobs *Blobs

	committing atomic.Pointer[chan struct{}] // closed at the end of the commit that is under way

	records *records      // of open runs, as of the last transaction; only the writer looks at it
	tree    *ledger.Tree  // of the entries up to the newest that it has written; likewise
	sealer  ledger.Sealer // what it writes entries with
	room    room          // for them, until they are on disk
	undo    []undo        // the memory of the last transaction's
	bundles bundleCache
	agreed  atomic.Pointer[map[int64]bool] // entries whose data is there and not to be shown, and whether it is to be erased

	requests chan request
	between  chan func()    // what the writer is to do while nothing is written
	quit     chan struct{}  // closed by Close
	written  chan struct{}  // closed when the writer has ended
	retired  sync.WaitGroup // databases that were replaced and are read still

	mu       sync.RWMutex // guards what follows
	size     int64        // committed entries
	lastTime string       // of the last committed entry
	clock    clock
	failed   error                                    // the write error that ended acceptance
	broken   chan struct{}                            // closed then
	changed  chan struct{}                            // closed and replaced after each commit
	watches  map[string]map[chan<- state.Run]struct{} // by runId: who waits for its end
	once     sync.Once
}

// Create makes a new database in home with its genesis entry, and opens it.
func Create(home string, init ledger.SiteInit, trust ledger.TrustChange, actor string, opt Options) (*DB, error) {
	path := filepath.Join(home, fileName)
	if _, err := os.Lstat(path); err == nil {
		return nil, ErrExists
	}
	db, err := open(home, opt, true)
	if err != nil {
		return nil, err
	}
	db.site = firstSite(&init)
	db.start()
	err = db.update(func(tx *Tx) error {
		for _, b := range buckets() {
			if _, err := tx.bolt.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		if err := tx.put(bMeta, kSchema, binary.BigEndian.AppendUint64(nil, schemaVersion)); err != nil {
			return err
		}
		if _, err := tx.append(siteEntry(ledger.SiteInitialized, actor, &init)); err != nil {
			return err
		}
		_, err := tx.append(siteEntry(ledger.TrustChanged, actor, &trust))
		return err
	})
	if err != nil {
		db.Close()
		os.Remove(path)
		return nil, err
	}
	return db, nil
}

// Open opens the database of an existing site and takes its lock, or fails at
// once with [ErrLocked].
func Open(home string, opt Options) (*DB, error) {
	if exists(filepath.Join(home, journalName)) {
		return nil, fmt.Errorf("%w: %s", ErrRestoring, home)
	}
	switch fi, err := os.Lstat(filepath.Join(home, fileName)); {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %s", ErrNoSite, home)
	case err == nil && fi.Size() == 0: // bbolt would make a database of it
		return nil, fmt.Errorf("%w: ledger.db is empty", ErrNoSite)
	}
	db, err := open(home, opt, false)
	if err != nil {
		return nil, err
	}
	err = db.load()
	if err == nil {
		err = db.migrate(opt)
	}
	if err == nil {
		err = db.extends()
	}
	if err == nil && opt.Compact {
		err = db.compact(opt)
	}
	if err != nil {
		db.closeBase()
		return nil, err
	}
	db.start()
	return db, nil
}

func open(home string, opt Options, create bool) (*DB, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	b, err := openFile(filepath.Join(home, fileName), flags, atOnce, opt)
	if err != nil {
		return nil, err
	}
	now := opt.Now
	if now == nil {
		now = time.Now
	}
	db := &DB{
		home: home, now: now, records: newRecords(), watches: map[string]map[chan<- state.Run]struct{}{},
		requests: make(chan request), between: make(chan func()), quit: make(chan struct{}), written: make(chan struct{}),
		changed: make(chan struct{}), broken: make(chan struct{}), clock: clock{gap: defaultGap},
	}
	db.base.Store(b)
	db.agreed.Store(&map[int64]bool{})
	db.blobs = newBlobs(cmp.Or(opt.sealed, home), db)
	return db, nil
}

// How long the lock of a file is waited for.
const (
	atOnce  = time.Millisecond // callers try the socket of the holder
	aMoment = time.Second      // somebody may ask for a moment whether it is locked
)

// openFile opens a database and takes its lock, or fails with [ErrLocked]; one whose pages
// would lead bbolt in a circle is not opened.
func openFile(path string, flags int, wait time.Duration, opt Options) (*base, error) {
	var b *bolt.DB
	var file *os.File
	prepare := func(name string, _ int, perm os.FileMode) (_ *os.File, err error) {
		if file, err = os.OpenFile(name, flags, perm); err != nil {
			return nil, err
		}
		if opt.hooks.opened != nil {
			opt.hooks.opened()
		}
		if err = lockFile(file, wait); err == nil { // which bbolt then has as well: it is the file's
			err = inPlace(file, path)
		}
		if err == nil {
			err = checkFile(file, false)
		}
		return file, err
	}
	err := guard(func() (err error) {
		b, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:         wait,
			FreelistType:    bolt.FreelistMapType,
			InitialMmapSize: cmp.Or(opt.hooks.mapped, firstMapped),
			PageSize:        opt.hooks.unit,
			OpenFile:        prepare,
		})
		return err
	})
	if err == nil {
		return &base{b, file}, nil
	}
	if file != nil {
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) // bbolt may have mapped it, and gone astray: that keeps it open
		file.Close()
	}
	if damage := (*Damage)(nil); errors.Is(err, ErrLocked) || errors.As(err, &damage) {
		return nil, err
	}
	return nil, fmt.Errorf("store: open ledger.db: %w", err)
}

// lockFile takes the lock of an open file, for which it waits about so long.
func lockFile(f *os.File, wait time.Duration) error {
	const pause = 50 * time.Millisecond
	for end := time.Now().Add(wait - pause); ; time.Sleep(pause) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return ErrLocked
		}
	}
}

// inPlace says [ErrLocked] of a file that another has taken the place of before it was
// locked: whoever did that holds the site.
func inPlace(file *os.File, path string) error {
	have, err := file.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(have, now) {
		return ErrLocked
	}
	return nil
}

// load reads what the writer keeps in memory.
func (db *DB) load() error {
	return db.view(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bMeta)
		if k, _ := tx.Cursor().First(); meta == nil && k != nil {
			return damaged(errMissing, "bucket %s of ledger.db", bMeta)
		}
		if meta == nil {
			return fmt.Errorf("%w: ledger.db was never initialised", ErrNoSite)
		}
		v := meta.Get(kSchema)
		if len(v) != 8 {
			return damaged(errMissing, "the schema version of ledger.db")
		}
		n := binary.BigEndian.Uint64(v)
		if n > mostSchemas {
			return damaged(fmt.Errorf("it says %d", n), "the schema version of ledger.db")
		}
		if n > schemaVersion {
			return fmt.Errorf("%w: schema %d, this one knows %d", ErrNewerSchema, n, schemaVersion)
		}
		for _, name := range buckets() {
			if tx.Bucket(name) == nil && (n == schemaVersion || !newer(name)) {
				return damaged(errMissing, "bucket %s of ledger.db", name)
			}
		}
		if err := json.Unmarshal(meta.Get(kSite), &db.site); err != nil {
			return damaged(err, "the site record of ledger.db")
		}
		if n == schemaVersion {
			if _, err := readSums(tx); err != nil {
				return err
			}
		}
		size, line, err := lastEnvelope(tx, n)
		if err != nil {
			return err
		}
		env, err := ledger.ParseEnvelope(line)
		if err != nil {
			return damaged(err, "entry %d", size-1)
		}
		db.size, db.lastTime = size, env.Time
		return errors.Join(db.loadClock(tx), db.loadAgreed(tx))
	})
}

// Close waits for the writes under way and releases the lock.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		close(db.quit)
		<-db.written
		db.retired.Wait()
		err = db.closeBase()
	})
	return err
}

// Home is the folder of the site.
func (db *DB) Home() string { return db.home }

// Blobs is the sealed content-addressed store of the site.
func (db *DB) Blobs() *Blobs { return db.blobs }

// SiteID is the 32 hex digits that name the site.
func (db *DB) SiteID() string { return db.site.SiteID }

// Epoch is the epoch of the ledger, from 1.
func (db *DB) Epoch() int64 { return db.site.Epoch }

// Origin is the origin line of the checkpoints of the current epoch.
func (db *DB) Origin() string { return ledger.Origin(db.site.SiteID, db.site.Epoch) }

// Size is the number of committed entries.
func (db *DB) Size() int64 {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.size
}

// LastTime is the time of the last committed entry.
func (db *DB) LastTime() time.Time {
	db.mu.RLock()
	defer db.mu.RUnlock()
	t, _ := stamp.Parse(db.lastTime) // it was parsed when it was read or made
	return t
}

// Changed returns a channel that is closed at the next commit, and the size of
// the ledger before it. A follower reads up to size, then waits.
func (db *DB) Changed() (<-chan struct{}, int64) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.changed, db.size
}

// Bytes is the size of the database file.
func (db *DB) Bytes() int64 {
	fi, err := os.Stat(filepath.Join(db.home, fileName))
	if err != nil {
		return 0
	}
	return fi.Size()
}
