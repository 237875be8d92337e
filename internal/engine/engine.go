// Package engine joins the parts into a site: it opens a home folder, takes its
// lock, loads its keys and its trust, and answers everything that package api
// says can be asked. Importing is open, judge and seal; starting is plan and
// hand over to the runner; opening after a crash ends the attempts that the
// crash interrupted. It holds no policy of its own.
//
// An engine that executes runs its attempts in goroutines of [Engine.Execute],
// which ends when they have; [Engine.Open] starts one that issues checkpoints, and
// one that sends events where sinks are configured, which [Engine.Close] waits for.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/provenance"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Modes of an open site.
const (
	ModeDaemon     = "daemon"
	ModeForeground = "foreground" // run start and run resume without a daemon
	ModeCommand    = "command"    // any other command
)

// Options of an open site. Home is required.
type Options struct {
	Home     string
	Mode     string // default ModeCommand
	Executes bool   // Executor is required
	Version  string
	Commit   string
	Log      *slog.Logger     // default: discard
	Now      func() time.Time // default time.Now
	Executor runner.Executor
	// Migrating is told before a site of an older stella is brought up to date, which takes
	// a while, how many entries it has; nil: nobody is.
	Migrating func(entries int64)
	// Waive goes on without a floor that was lost, and Accept with a clock that
	// is not near the record: before anything else is written, and recorded.
	Waive  *Waiver
	Accept *Acceptance
	// Ready is what can fail before it is recorded that this process may execute steps. Its error
	// is that of Open; nil: nothing.
	Ready func() error
	// Begun is where Open leaves the seq of that record if it fails afterwards, 0 if not: a process
	// that opens a site again and again, since its disk is full, records its start once. nil: each
	// time.
	Begun *int64
	// Compact rewrites ledger.db without its free pages before anything else.
	Compact bool
}

// Waiver names a floor outside the ledger that was lost: the path of a copy of
// checkpoint.note, or checkpoint.note itself.
type Waiver struct{ Floor, Reason, Actor string }

// Acceptance is a time that somebody has typed.
type Acceptance struct {
	api.TimeAcceptance
	Actor string
}

// Until says when [Engine.Execute] returns by itself.
type Until int

// When Execute returns.
const (
	Forever    Until = iota
	Idle             // no run is left to take care of
	Unattended       // nothing is left that moves without people
)

// Engine is an open site. Its methods may be called from any goroutine.
type Engine struct {
	opt     Options
	site    manifests.Site
	db      *store.DB
	keys    *keys
	sealed  *sealed
	vault   *store.Vault
	runner  *runner.Runner
	sched   *scheduler
	started time.Time
	begun   *provenance.Start // the entry of this process, where it executes

	mu        sync.RWMutex // guards what follows
	trust     *inForce
	unwritten error // why trust/ does not hold it; nil where it does

	refused sync.Map    // runs that could not be taken up here → error
	opening atomic.Bool // a daemon that has not taken up yet what is open
	ending  atomic.Bool // this process was asked to end

	rotating sync.Mutex // one rotation of the root at a time: its new key has one file

	importing  chan struct{}          // holds one for each file that is being judged
	gate       sync.RWMutex           // held in writing while a collection decides: no start, no publication
	collecting sync.Mutex             // one collection at a time
	placing    sync.Mutex             // while an archive takes its path
	copying    atomic.Pointer[string] // the folder of a snapshot that is being made
	stopping   sync.Mutex             // one change of the queue at a time
	attesting  sync.Mutex             // one statement about a run at a time: the same one is recorded once
	issuing    sync.Mutex             // one checkpoint at a time: the file of an older one never replaces a newer

	stop     chan struct{} // closed when somebody asked for the end
	stopOnce sync.Once
	force    bool // written before stop is closed
	closing  chan struct{}
	tickers  sync.WaitGroup
	sending  *sending // nil where no sink is configured, or nothing executes
	once     sync.Once
	unkempt  bool // see Unkempt; written by Open
}

// Open opens a site and takes its lock, or fails at once. Errors are
// *[api.Error]: NO_SITE, SITE_LOCKED, DAMAGED, TRUST_CHANGED and others; or the cause of
// ctx, where that was done before the site was in the form of this stella.
func Open(ctx context.Context, opt Options) (*Engine, error) {
	if opt.Mode == "" {
		opt.Mode = ModeCommand
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	stopped := func() error { return context.Cause(ctx) }
	db, err := store.Open(opt.Home, store.Options{Now: opt.Now, Migrating: opt.Migrating, Stopped: stopped, Compact: opt.Compact})
	if err != nil {
		if cause := stopped(); cause != nil && errors.Is(err, cause) {
			return nil, cause
		}
		return nil, openError(opt.Home, err)
	}
	e := &Engine{
		opt: opt, db: db, started: opt.Now(),
		stop: make(chan struct{}), closing: make(chan struct{}), importing: make(chan struct{}, importsAtOnce),
	}
	e.opening.Store(opt.Mode == ModeDaemon)
	if err := e.load(ctx); err != nil {
		db.Close()
		return nil, e.Help(ctx, err)
	}
	return e, nil
}

func (e *Engine) load(ctx context.Context) error {
	// Keys and signatures take a millisecond each, and neither needs the other.
	trustDir := filepath.Join(e.opt.Home, "trust")
	look := ahead(func() trustLook { return lookAtTrust(trustDir) })
	config, err := e.configure()
	if err != nil {
		return err
	}
	// A backup may leave out what can be made again; where it cannot be made, who
	// needs it says so.
	for _, name := range []string{"cache", "quarantine"} {
		_ = os.Mkdir(filepath.Join(e.opt.Home, name), 0o700)
	}
	if err := e.acceptFirst(); err != nil {
		return err
	}
	if err := e.waive(); err != nil {
		return err
	}
	if err := e.checkHead(); err != nil {
		return err
	}
	if e.opt.Waive != nil || e.opt.Accept != nil {
		e.copyHead()
	}
	var unwritten *unwrittenError
	if e.trust, err = loadTrust(e.db, trustDir, look); errors.As(err, &unwritten) {
		e.unwritten = unwritten.err // see writeUnwritten
	} else if err != nil {
		return notRead(e.opt.Home, err, trustChanged(trustDir, err))
	}
	if err := e.finishRotation(); err != nil {
		e.opt.Log.Error("a new key of the root is not in its place", "error", err)
	}
	if err := e.db.Blobs().SweepQuarantine(); err != nil {
		return internal(err)
	}
	if err := e.sweepLeftovers(); err != nil {
		e.opt.Log.Error("copies of the ledger that were left could not be removed", "error", err)
	}
	e.sealed = newSealed(e)
	if e.vault, err = e.db.OpenVault(e.keys.age); err != nil {
		return damaged("secrets: %v", err)
	}
	if err := e.vault.Sweep(); err != nil {
		e.opt.Log.Error("files in secrets/ that nobody knows could not be removed", "error", err)
	}
	if err := e.prepareOutbox(); err != nil {
		return err
	}
	stopped, err := e.db.Queue()
	if err != nil {
		return dbError(err)
	}
	e.runner = runner.New(e.runnerOptions(stopped))
	e.sched = newScheduler(e)
	if e.opt.Ready != nil {
		if err := e.opt.Ready(); err != nil {
			return err
		}
	}
	if e.opt.Executes { // before what this process does about attempts that another one has left
		if err := e.recordStart(config); err != nil {
			return dbError(err)
		}
	}
	if err := e.tidy(ctx); err != nil && !e.onlyReads(err) {
		return dbError(err)
	}
	if e.opt.Begun != nil {
		*e.opt.Begun = 0
	}
	if e.opt.Executes {
		e.tickers.Go(e.checkpoints)
	}
	e.startOutbox()
	return nil
}

// ahead begins f and returns what waits for its result.
func ahead[T any](f func() T) func() T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return func() T { return <-done }
}

// readSite reads the configuration of a home.
func readSite(home string) (*manifests.Site, []byte, error) {
	raw, err := fsx.ReadFile(filepath.Join(home, "site.toml"), 64<<10)
	if err != nil {
		return nil, nil, notRead(home, err, &api.Error{Code: api.CodeInvalid, Message: "site.toml: " + err.Error()})
	}
	site, err := manifests.ParseSite("site.toml", raw)
	if err != nil {
		return nil, nil, faults(api.CodeInvalid, "site.toml is not valid", err)
	}
	return site, raw, nil
}

// configure reads site.toml, whose text it returns, and the keys.
func (e *Engine) configure() ([]byte, error) {
	home := e.opt.Home
	site, raw, err := readSite(home)
	if err != nil {
		return nil, err
	}
	e.site = *site
	e.db.SetMaxGap(site.MaxGap)
	if e.keys, err = readKeys(filepath.Join(home, "keys")); err != nil {
		return nil, notRead(home, err, damaged("keys: %v", err))
	}
	init, err := e.db.Initialized()
	if err != nil {
		return nil, dbError(err)
	}
	if err := ofHome(home, init); err != nil {
		return nil, err
	}
	if err := e.keys.belong(init); err != nil {
		return nil, err
	}
	for _, path := range site.CheckpointCopies {
		if rel, err := filepath.Rel(home, path); err == nil && filepath.IsLocal(rel) {
			return nil, &api.Error{Code: api.CodeInvalid, Message: "site.toml: checkpoint_copies: " + path + " lies in the home",
				Hint: "a copy is a floor only where a home that is put back does not bring it along: name a path elsewhere"}
		}
	}
	return raw, nil
}

func (e *Engine) runnerOptions(stopped state.QueueState) runner.Options {
	o := runner.Options{
		Store: e.db, Sealed: e.sealed, Now: e.opt.Now, Log: e.opt.Log,
		Workers: e.site.Workers, Parallel: e.site.MaxParallelSteps, Grace: e.site.Grace, Limits: e.site.Limits,
		RunsDir: filepath.Join(e.opt.Home, "runs"), KeepWorkspaces: e.site.KeepWorkspaces, LogsDir: filepath.Join(e.opt.Home, "logs"),
		MaxItems: e.site.MaxItems, MaxEntries: e.site.MaxRunEntries, Concurrency: e.site.Concurrency, Semaphores: e.site.Semaphores, Stuck: e.site.Stuck, Stopped: stopped,
		HMACKey: e.keys.hmac, Secrets: &keeper{e}, RedactKey: e.keys.redact, PlainSecrets: e.site.PlainSecrets, Owner: bootID() + "/" + strconv.Itoa(os.Getpid()),
	}
	if e.opt.Executes {
		o.Executor = e.opt.Executor
	}
	o.Contain = e.opt.Mode == ModeDaemon // others rely on it
	return o
}

// checkpoints issues a signed tree head at least as often as site.toml says.
func (e *Engine) checkpoints() {
	t := time.NewTicker(e.site.CheckpointEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if _, err := e.issueCheckpoint(); err != nil {
				e.opt.Log.Error("checkpoint", "error", err)
			}
			for _, w := range e.warnings() {
				e.opt.Log.Warn("trust", "warning", w)
			}
		case <-e.closing:
			return
		}
	}
}

// ballastBytes is how much garbage may come together, at least, while steps are
// executed.
const ballastBytes = 16 << 20

// Execute hands out the steps of the runs that this process takes care of, and
// returns when ctx is done and their attempts have ended, when nothing is left
// to take care of (with Idle) or moves without people (Unattended), or when Stop was asked for and everything under
// way has ended.
func (e *Engine) Execute(ctx context.Context, until Until) error {
	// Never touched, so that it takes no memory: the collector of garbage counts
	// it, and runs a quarter as often as it would with the few MiB that are alive.
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	if until == Forever {
		e.eraseAgreed() // what could not be before; where that fails again it is logged, and waits
		if err := e.resumeAll(ctx, "system:daemon"); err != nil {
			return err
		}
		e.opening.Store(false)
	}
	defer context.AfterFunc(ctx, func() { e.ending.Store(true) })()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-e.stop:
			if !e.force {
				e.runner.Drain(ctx)
			}
			cancel()
		case <-e.db.Failed():
			cancel()
		case <-ctx.Done():
		}
	})
	if until == Forever && e.opt.Mode == ModeDaemon {
		watcher.Go(func() { e.sched.run(ctx) })
	}
	var err error
	if until == Unattended {
		err = e.runner.RunUnattended(ctx)
	} else {
		err = e.runner.Run(ctx, until == Idle)
	}
	cancel()
	watcher.Wait()
	if failure := e.failed(); failure != nil {
		return e.Help(context.WithoutCancel(ctx), failure)
	}
	if err != nil {
		return dbError(err)
	}
	return nil
}

// TakenUp says whether a daemon has taken up the runs that are open.
func (e *Engine) TakenUp() bool { return !e.opening.Load() }

// StopRequested is closed when somebody asked for the end through [api.Host].
func (e *Engine) StopRequested() <-chan struct{} { return e.stop }

// Cookie is what a client of the socket must show.
func (e *Engine) Cookie() []byte { return e.keys.cookie }

// DefaultTenant is the tenant of requests that name none.
func (e *Engine) DefaultTenant() string { return e.site.DefaultTenant }

// Close issues a last checkpoint and releases the site. Execute must have
// returned.
func (e *Engine) Close() error {
	var err error
	e.once.Do(func() {
		close(e.closing)
		e.tickers.Wait()
		e.stopOutbox()
		if e.opt.Executes {
			_, err = e.db.Append(ledger.SiteStopped, "system:engine", &ledger.SiteStop{Reason: "orderly"})
			if err == nil {
				_, err = e.issueCheckpoint()
			}
		}
		err = errors.Join(err, e.db.Close())
	})
	return err
}

// currentTrust is the trust in force.
func (e *Engine) currentTrust() *inForce {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.trust
}

// opened gathers what the runner needs of a run that exists. What cannot be read is a
// *[runner.DamageError], and in what is returned as well: a run that is executed goes
// on, and one that is not can be ended.
func (e *Engine) opened(run state.Run) (runner.Opened, error) {
	o := runner.Opened{Run: run}
	var rec store.BundleRecord
	if rec, o.Damage = e.db.Bundle(run.DAGDigest); o.Damage == nil {
		o.DAG, _, o.Damage = e.dagSpec(rec.Digest)
	}
	if o.Damage == nil {
		o.Plan, o.Damage = e.plan(run.PlanHash)
	}
	if o.Damage == nil {
		o.Inputs, o.Damage = e.db.Blobs().Read(run.InputsHash, runner.MaxInputsBytes)
	}
	if o.Damage != nil {
		return o, &runner.DamageError{RunID: run.RunID, Err: o.Damage}
	}
	return o, nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// bootID names this boot of the machine, "" where the kernel does not say.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// SocketPath is where the holder of a site serves: in its home, or in the
// runtime directory where that path is too long for a socket.
func SocketPath(home string) string {
	path := filepath.Join(home, "stella.sock")
	if len(path) <= 107 {
		return path
	}
	sum := sha256.Sum256([]byte(home))
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "stella-"+strconv.Itoa(os.Getuid()))
	}
	return filepath.Join(dir, "stella-"+hex.EncodeToString(sum[:8])+".sock")
}
