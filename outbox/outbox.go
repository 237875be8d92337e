// Package outbox tells receivers outside what happens at a site: each sink of
// site.toml is sent the entries of the ledger that it asks for, at least once,
// those of one run in their order. The ledger itself is the outbox, so that an
// event is there if and only if what it tells of is; what is recorded besides is
// how far each sink has come, and what it did not take at once. The package
// decides when something is tried again and when it is given up. It never changes
// what a run does, and never waits for a receiver longer than a sink allows.
//
// [Dispatcher.Run] starts a goroutine for each sink, and waits for them.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

// Store is what the dispatcher needs of the store.
type Store interface {
	// Changed returns a channel that is closed at the next commit, and the size
	// of the ledger before it.
	Changed() (<-chan struct{}, int64)
	Entries(from, to int64) iter.Seq2[store.Lines, error]
	BeginSink(sink string, fromStart bool) (store.SinkRecord, error)
	Sink(sink string) (store.SinkRecord, error)
	OutboxRows(sink string, from int64, limit int) ([]store.OutboxRow, error)
	SettleOutbox(sink string, b store.OutboxBatch) (store.SinkRecord, error)
}

// Options of a dispatcher. Store, Sinks, Home and SiteID are required.
type Options struct {
	Store  Store
	Sinks  []manifests.Sink
	Home   string // of the site: paths of sinks may be relative to it
	SiteID string
	Now    func() time.Time // default time.Now
	Log    *slog.Logger     // default: discard
	Random func() float64   // in [0,1), for the jitter; default math/rand
}

// A Dispatcher sends events to the sinks of a site.
type Dispatcher struct {
	workers []*worker
	drain   chan struct{} // closed by Drain
	once    sync.Once
}

// New makes a dispatcher. A sink that is new begins here: what is written to the
// ledger from now on reaches it.
func New(opt Options) (*Dispatcher, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if opt.Random == nil {
		opt.Random = rand.Float64
	}
	if err := Check(opt.Home, opt.Sinks); err != nil {
		return nil, err
	}
	d := &Dispatcher{drain: make(chan struct{})}
	for _, s := range opt.Sinks {
		rec, err := opt.Store.BeginSink(s.Name, s.FromStart)
		if err != nil {
			return nil, fmt.Errorf("outbox: sink %s: %w", s.Name, err)
		}
		d.workers = append(d.workers, newWorker(s, newTarget(s, opt), rec, opt))
	}
	return d, nil
}

// newTarget makes what speaks to the receiver of a sink.
func newTarget(s manifests.Sink, opt Options) target {
	switch s.Kind {
	case manifests.SinkSocket:
		return &socket{path: within(opt.Home, s.Path), timeout: s.Timeout}
	case manifests.SinkWebhook:
		return newWebhook(s, within(opt.Home, s.SecretFile), opt.Now)
	}
	return &file{path: within(opt.Home, s.Path), folder: filepath.Join(opt.Home, "outbox")}
}

// within is a path of site.toml, which may be relative to the home.
func within(home, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(home, path)
}

// Check says what is wrong with sinks that their file alone cannot show: topics
// that no entry has, and files where a site keeps something else.
func Check(home string, sinks []manifests.Sink) error {
	for _, s := range sinks {
		for _, topic := range s.Topics {
			if !known(topic) {
				return fmt.Errorf("sink %s: no entry is of type %q; docs/format.md lists the types", s.Name, topic)
			}
		}
		if s.Kind != manifests.SinkFile {
			continue
		}
		rel, err := filepath.Rel(home, within(home, s.Path))
		if inside := err == nil && filepath.IsLocal(rel); inside && !strings.HasPrefix(rel, "outbox"+string(filepath.Separator)) {
			return fmt.Errorf("sink %s: a file in the home lies in its folder outbox, and %s does not", s.Name, s.Path)
		}
	}
	return nil
}

// known says whether a topic of a sink can match anything. Families that are
// asked for by default may have no types yet.
func known(topic string) bool {
	for _, d := range manifests.DefaultTopics() {
		if topic == d {
			return true
		}
	}
	for _, info := range ledger.Types() {
		if matches(topic, info.Type) {
			return true
		}
	}
	return false
}

// Run sends events until ctx is done, or after [Dispatcher.Drain] until nothing is
// left that can be delivered at once. The error names the sinks that could not go
// on; a receiver that takes nothing is none.
func (d *Dispatcher) Run(ctx context.Context) error {
	errs := make([]error, len(d.workers))
	var all sync.WaitGroup
	for i, w := range d.workers {
		all.Go(func() {
			if err := w.run(ctx, d.drain); err != nil {
				errs[i] = fmt.Errorf("outbox: sink %s: %w", w.sink.Name, err)
			}
			w.target.close()
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Drain lets Run end. What a receiver does not take at once stays for the next
// start.
func (d *Dispatcher) Drain() { d.once.Do(func() { close(d.drain) }) }

// A target speaks to one receiver. It is used by one goroutine.
type target interface {
	// deliver hands events over in their order, and returns how many were taken:
	// fewer than all only with the error about the next one. A *refusal says that
	// the receiver is there and does not take this event; any other error, that
	// nothing can be delivered to it for now.
	deliver(ctx context.Context, events []Event) (int, error)
	// close lets go what is held open.
	close()
}

// A refusal is an answer that is not the one for an event that was taken.
type refusal struct{ what string }

func (r *refusal) Error() string { return r.what }
