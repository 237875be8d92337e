package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

const (
	pageEntries = 512       // of the ledger that one pass looks at
	maxEvents   = 256       // that one pass delivers of what had failed
	maxLive     = 10_000    // rows of a sink; beyond, entries wait in the ledger
	maxBackoff  = time.Hour // between two attempts at an event
	maxRest     = 30 * time.Second
	cursorLag   = 1024 // entries that are for others before the cursor is written
	maxError    = 200  // bytes of a message that a row keeps
)

// A lane is what a sink has not taken of one run, oldest first; "" stands for all
// that is about no run. Only its head is tried, and what follows once it is gone.
type lane []row

type row struct {
	store.OutboxRow
	due time.Time // zero: at once
}

// A worker sends events to one sink.
type worker struct {
	sink   manifests.Sink
	target target
	store  Store
	siteID string
	now    func() time.Time
	random func() float64
	log    *slog.Logger

	next     int64 // the next entry to look at; the cursor on disk may be behind it
	cursor   int64 // as it is on disk
	requeues int64 // of the record when lanes were read; -1: never
	lanes    map[string]lane
	runs     map[int64]string // seq of each row in lanes → its run
	due      time.Time        // when the first head is due; zero: at once
	rest     time.Time        // nothing is tried before: the receiver did not answer
	downs    int              // how often in a row it did not
	yield    bool             // rows had their turn, now what is new comes first
	failing  bool             // it was said that the sink fails
}

func newWorker(s manifests.Sink, t target, rec store.SinkRecord, opt Options) *worker {
	return &worker{
		sink: s, target: t, store: opt.Store, siteID: opt.SiteID, now: opt.Now, random: opt.Random,
		log: opt.Log.With("sink", s.Name), next: rec.Next, cursor: rec.Next, requeues: -1,
	}
}

// run makes passes whenever there is something to do. It is woken by commits and
// by what falls due.
func (w *worker) run(ctx context.Context, drain <-chan struct{}) error {
	for {
		changed, size := w.store.Changed()
		busy, err := w.pass(ctx, size)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if busy {
			continue
		}
		select {
		case <-drain: // before all else, since what is left cannot be delivered now
			return nil
		default:
		}
		if err := w.wait(ctx, changed, drain); err != nil {
			return nil
		}
	}
}

// wait returns when there may be something to do, and an error when ctx is done.
func (w *worker) wait(ctx context.Context, changed, drain <-chan struct{}) error {
	var timer <-chan time.Time
	if at := w.wake(); !at.IsZero() {
		t := time.NewTimer(at.Sub(w.now()))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
	case <-timer:
	case <-drain:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// wake is when something falls due, zero if nothing does.
func (w *worker) wake() time.Time {
	if !w.rest.IsZero() {
		return w.rest
	}
	return w.due
}

// pass tries what is due of what had failed, else entries that are new. busy says
// that there may be more to do at once.
func (w *worker) pass(ctx context.Context, size int64) (busy bool, err error) {
	if err := w.refresh(); err != nil {
		return false, err
	}
	now := w.now()
	if now.Before(w.rest) {
		return false, nil
	}
	w.rest = time.Time{}
	due, isNew := len(w.runs) > 0 && !w.due.After(now), w.next < size && len(w.runs) < maxLive
	switch {
	case due && !(isNew && w.yield):
		w.yield = true
		return true, w.again(ctx, now)
	case isNew:
		w.yield = false
		return true, w.fresh(ctx, min(size, w.next+pageEntries))
	}
	return false, nil
}

// refresh reads the rows of the sink at the first pass, and when somebody has
// requeued some.
func (w *worker) refresh() error {
	rec, err := w.store.Sink(w.sink.Name)
	if err != nil || rec.Requeues == w.requeues {
		return err
	}
	w.lanes, w.runs = map[string]lane{}, map[int64]string{}
	// A due time is no further off than it can have been set, whatever has become
	// of the clock meanwhile.
	latest := w.now().Add(maxBackoff + maxBackoff/5)
	for from := int64(0); ; {
		rows, err := w.store.OutboxRows(w.sink.Name, from, pageEntries)
		if err != nil {
			return err
		}
		for _, r := range rows {
			from = r.Seq + 1
			if r.Dead {
				continue
			}
			due, err := stamp.Parse(r.DueUTC)
			if err == nil && due.After(latest) {
				due = latest
			}
			w.insert(row{r, due})
		}
		if len(rows) < pageEntries {
			break
		}
	}
	w.requeues = rec.Requeues
	w.rest, w.downs = time.Time{}, 0 // somebody has mended something
	w.schedule()
	return nil
}

// schedule finds out when the first head is due.
func (w *worker) schedule() {
	w.due = time.Time{}
	first := true
	for _, l := range w.lanes {
		if at := l[0].due; first || at.Before(w.due) {
			w.due, first = at, false
		}
	}
}

// again tries rows that are due: of each lane its head and what may follow at once.
func (w *worker) again(ctx context.Context, now time.Time) error {
	var rows []row
	for _, l := range w.lanes {
		for _, r := range l {
			if r.due.After(now) {
				break
			}
			rows = append(rows, r)
		}
	}
	// The longest due first: one that never gets an answer is not to hold up all.
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(w.lanes[a.RunID][0].due.Compare(w.lanes[b.RunID][0].due), cmp.Compare(a.Seq, b.Seq))
	})
	rows = rows[:min(len(rows), maxEvents)]
	known := map[int64]store.OutboxRow{}
	events := make([]Event, 0, len(rows))
	for _, r := range rows {
		e, err := w.event(r.Seq)
		if err != nil {
			return err
		}
		known[r.Seq] = r.OutboxRow
		events = append(events, e)
	}
	out := w.attempt(ctx, events)
	if len(out.delivered)+len(out.failed) == 0 {
		return nil // we are being shut down
	}
	b := store.OutboxBatch{Next: w.next, Delivered: out.delivered}
	for _, f := range out.failed {
		b.Rows = append(b.Rows, w.failed(known[f.event.Seq], f.err))
	}
	return w.settle(b)
}

// event reads the event of a row. What the sink is configured for now does not
// count: it was for the sink when it became a row.
func (w *worker) event(seq int64) (Event, error) {
	everything := manifests.Sink{Name: w.sink.Name, Topics: []string{"*"}}
	for l, err := range w.store.Entries(seq, seq+1) {
		if err != nil {
			return Event{}, err
		}
		e, ok, err := EventOf(&everything, w.siteID, l)
		if err == nil && !ok {
			err = fmt.Errorf("entry %d is no event of this sink", seq)
		}
		return e, err
	}
	return Event{}, fmt.Errorf("entry %d is missing", seq)
}

// fresh looks at entries up to to, and delivers those that the sink is sent. One
// whose run has a row becomes a row behind it.
func (w *worker) fresh(ctx context.Context, to int64) error {
	var events []Event
	b := store.OutboxBatch{Next: to}
	created := stamp.Format(w.now())
	for l, err := range w.store.Entries(w.next, to) {
		if err != nil {
			return err
		}
		e, ok, err := EventOf(&w.sink, w.siteID, l)
		switch {
		case err != nil:
			return err
		case !ok:
		case len(w.lanes[e.RunID]) > 0:
			b.Rows = append(b.Rows, newRow(e, created))
		default:
			events = append(events, e)
		}
	}
	out := w.attempt(ctx, events)
	b.Delivered = out.delivered
	for _, f := range out.failed {
		b.Rows = append(b.Rows, w.failed(newRow(f.event, created), f.err))
	}
	for _, e := range out.behind {
		b.Rows = append(b.Rows, newRow(e, created))
	}
	if len(out.untried) > 0 {
		b.Next = out.untried[0].Seq
	}
	b.Rows = slices.DeleteFunc(b.Rows, func(r store.OutboxRow) bool { return r.Seq >= b.Next }) // they come again
	if len(b.Delivered)+len(b.Rows) == 0 && b.Next-w.cursor < cursorLag {
		w.next = b.Next // all were for others: after a crash they are looked at again
		return nil
	}
	return w.settle(b)
}

func newRow(e Event, created string) store.OutboxRow {
	return store.OutboxRow{Seq: e.Seq, Topic: e.Topic, RunID: e.RunID, Tenant: e.Tenant, CreatedUTC: created}
}

// outcome is what came of events. Behind are those of a run that another one
// failed of; untried, those that the receiver could not be given.
type outcome struct {
	delivered []int64
	failed    []failure
	behind    []Event
	untried   []Event
}

type failure struct {
	event Event
	err   error
}

// attempt delivers events, which are in order.
func (w *worker) attempt(ctx context.Context, events []Event) (out outcome) {
	for len(events) > 0 {
		n, err := w.target.deliver(ctx, events)
		for _, e := range events[:n] {
			out.delivered = append(out.delivered, e.Seq)
		}
		if n > 0 {
			w.up()
		}
		if events = events[n:]; len(events) == 0 {
			return out
		}
		if ctx.Err() != nil { // being shut down is not failing
			out.untried = events
			return out
		}
		bad := events[0]
		out.failed = append(out.failed, failure{bad, err})
		var others []Event
		for _, e := range events[1:] {
			if e.RunID == bad.RunID {
				out.behind = append(out.behind, e)
			} else {
				others = append(others, e)
			}
		}
		events = others
		var refused *refusal
		if w.complain(err); !errors.As(err, &refused) {
			w.down()
			out.untried = events
			return out
		}
	}
	return out
}

// down lets the receiver rest: it gave no answer, so nothing else would get one.
func (w *worker) down() {
	w.downs++
	w.rest = w.now().Add(w.pause())
}

// pause is how long a receiver is left alone that is down.
func (w *worker) pause() time.Duration {
	return w.jittered(min(doubled(w.sink.Backoff, w.downs), maxRest))
}

func (w *worker) up() {
	w.downs = 0
	if w.failing {
		w.failing = false
		w.log.Info("the sink takes events again")
	}
}

// complain says once that a sink fails.
func (w *worker) complain(err error) {
	if !w.failing {
		w.failing = true
		w.log.Warn("the sink does not take an event", "error", err)
	}
}

// failed is a row after one more attempt. Only a receiver that answers can refuse
// an event: without an answer the attempt does not count, and the row is due when
// others had their turn, since it may be this event alone that gets none.
func (w *worker) failed(r store.OutboxRow, err error) store.OutboxRow {
	r.LastError = strings.ToValidUTF8(err.Error(), "?")
	if len(r.LastError) > maxError {
		r.LastError = strings.ToValidUTF8(r.LastError[:maxError], "") + "…"
	}
	var refused *refusal
	if !errors.As(err, &refused) {
		r.DueUTC = stamp.Format(w.rest.Add(w.pause()))
		return r
	}
	r.Attempts++
	r.DueUTC = stamp.Format(w.now().Add(w.jittered(doubled(w.sink.Backoff, r.Attempts))))
	if r.Attempts >= w.sink.MaxAttempts {
		r.Dead, r.DueUTC = true, ""
	}
	return r
}

// doubled is d before the second attempt, twice as much before the third.
func doubled(d time.Duration, attempts int) time.Duration {
	for range attempts - 1 {
		if d *= 2; d >= maxBackoff {
			return maxBackoff
		}
	}
	return d
}

// jittered is d, up to a fifth more or less.
func (w *worker) jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*w.random()))
}

// settle records what came of events, and takes it over.
func (w *worker) settle(b store.OutboxBatch) error {
	if err := failpoint.Hit(failpoint.OutboxSettle); err != nil {
		return err
	}
	b.Requeues = w.requeues
	slices.SortFunc(b.Rows, func(x, y store.OutboxRow) int { return cmp.Compare(x.Seq, y.Seq) })
	rec, err := w.store.SettleOutbox(w.sink.Name, b)
	if errors.Is(err, store.ErrClockBehind) || errors.Is(err, store.ErrClockAhead) {
		// Nothing can be given up now, since that is an entry: it is tried later.
		for i := range b.Rows {
			if r := &b.Rows[i]; r.Dead {
				r.Dead, r.DueUTC = false, stamp.Format(w.now().Add(maxBackoff))
			}
		}
		rec, err = w.store.SettleOutbox(w.sink.Name, b)
	}
	if err != nil {
		return err
	}
	w.next, w.cursor = max(w.next, b.Next), rec.Next
	for _, seq := range b.Delivered {
		w.remove(seq)
	}
	for _, r := range b.Rows {
		w.remove(r.Seq)
		if r.Dead {
			w.log.Error("an event is given up", "event", fmt.Sprintf("%s/%d", w.sink.Name, r.Seq), "topic", r.Topic, "attempts", r.Attempts, "error", r.LastError)
			continue
		}
		due, _ := stamp.Parse(r.DueUTC) // "" is at once
		w.insert(row{r, due})
	}
	w.schedule()
	return nil
}

// insert puts a row into its lane.
func (w *worker) insert(r row) {
	l := w.lanes[r.RunID]
	i, _ := slices.BinarySearchFunc(l, r.Seq, bySeq)
	w.lanes[r.RunID] = slices.Insert(l, i, r)
	w.runs[r.Seq] = r.RunID
}

// remove takes a row out of its lane, if it is in one.
func (w *worker) remove(seq int64) {
	run, ok := w.runs[seq]
	if !ok {
		return
	}
	delete(w.runs, seq)
	l := w.lanes[run]
	if i, ok := slices.BinarySearchFunc(l, seq, bySeq); ok {
		l = slices.Delete(l, i, i+1)
	}
	if w.lanes[run] = l; len(l) == 0 {
		delete(w.lanes, run)
	}
}

func bySeq(r row, seq int64) int { return cmp.Compare(r.Seq, seq) }
