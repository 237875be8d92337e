package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/outbox"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// drainTime is how long the end of a process waits for receivers.
const drainTime = 3 * time.Second

// sending is a dispatcher that runs.
type sending struct {
	*outbox.Dispatcher
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// prepareOutbox makes the dispatcher before the process writes anything, so that
// a sink that is new misses nothing of it.
func (e *Engine) prepareOutbox() error {
	if err := outbox.Check(e.opt.Home, e.site.Sinks); err != nil {
		return &api.Error{Code: api.CodeInvalid, Message: "site.toml: " + err.Error()}
	}
	if !e.opt.Executes || len(e.site.Sinks) == 0 {
		return nil
	}
	d, err := outbox.New(outbox.Options{
		Store: e.db, Sinks: e.site.Sinks, Home: e.opt.Home, SiteID: e.db.SiteID(), Now: e.opt.Now, Log: e.opt.Log,
	})
	if err != nil {
		return dbError(err)
	}
	e.sending = &sending{Dispatcher: d, done: make(chan struct{})}
	return nil
}

// startOutbox lets it send.
func (e *Engine) startOutbox() {
	s := e.sending
	if s == nil {
		return
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(s.done)
		if err := s.Run(ctx); err != nil && !errors.Is(err, store.ErrFailed) { // whoever executes says that one
			e.opt.Log.Error("events are not sent any more", "error", err)
		}
	}()
}

// stopOutbox lets it send what can be delivered now, and ends it.
func (e *Engine) stopOutbox() {
	s := e.sending
	if s == nil {
		return
	}
	s.Drain()
	timer := time.AfterFunc(drainTime, s.cancel)
	<-s.done
	timer.Stop()
	s.cancel()
}

// sink is the configuration of a sink; nil where there is none.
func (e *Engine) sink(name string) *manifests.Sink {
	i := slices.IndexFunc(e.site.Sinks, func(s manifests.Sink) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &e.site.Sinks[i]
}

// sinkState is what is known of a sink: from site.toml, from the store, or both.
type sinkState struct {
	name string
	conf *manifests.Sink // nil where site.toml does not name it
	rec  store.SinkRecord
	kept bool // rec is of the store
}

// sinkStates reads all sinks, by name.
func (e *Engine) sinkStates() ([]sinkState, error) {
	recs, err := e.db.Sinks()
	if err != nil {
		return nil, err
	}
	all := map[string]sinkState{}
	for name, rec := range recs {
		all[name] = sinkState{name: name, rec: rec, kept: true}
	}
	for i := range e.site.Sinks {
		conf := &e.site.Sinks[i]
		st := all[conf.Name]
		st.name, st.conf = conf.Name, conf
		all[conf.Name] = st
	}
	out := make([]sinkState, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out, nil
}

// undelivered visits what a sink has not taken, oldest first: its rows, then what
// it has not seen; more says that there is more than it looks at.
func (e *Engine) undelivered(st sinkState, more *bool) iter.Seq2[api.OutboxEvent, error] {
	return func(yield func(api.OutboxEvent, error) bool) {
		if !st.kept {
			return // it begins when something executes
		}
		for from := int64(0); ; {
			rows, err := e.db.OutboxRows(st.name, from, 500)
			if err != nil {
				yield(api.OutboxEvent{}, err)
				return
			}
			for _, r := range rows {
				from = r.Seq + 1
				if r.Seq >= st.rec.Next {
					continue // it came meanwhile; it is counted below
				}
				if !yield(rowEvent(st.name, r), nil) {
					return
				}
			}
			if len(rows) < 500 {
				break
			}
		}
		if st.conf == nil {
			return
		}
		size := e.db.Size()
		*more = size-st.rec.Next > maxScanned
		for l, err := range e.db.Entries(st.rec.Next, min(size, st.rec.Next+maxScanned)) {
			if err != nil {
				yield(api.OutboxEvent{}, err)
				return
			}
			ev, ok, err := outbox.EventOf(st.conf, e.db.SiteID(), l)
			if err != nil || ok {
				if !yield(freshEvent(st.name, ev, l), err) {
					return
				}
			}
		}
	}
}

// rowEvent is an event that has a row; its id lacks the hash.
func rowEvent(sink string, r store.OutboxRow) api.OutboxEvent {
	ev := api.OutboxEvent{
		ID: sink + "/" + strconv.FormatInt(r.Seq, 10), Sink: sink, Seq: r.Seq, Topic: r.Topic, RunID: r.RunID, Tenant: r.Tenant,
		State: api.EventPending, Attempts: r.Attempts, LastError: r.LastError, CreatedUTC: r.CreatedUTC, DueUTC: r.DueUTC,
	}
	switch {
	case r.Dead:
		ev.State = api.EventDead
	case r.Attempts > 0 || r.LastError != "":
		ev.State = api.EventFailing
	}
	return ev
}

// freshEvent is one that its sink has not seen.
func freshEvent(sink string, e outbox.Event, l store.Lines) api.OutboxEvent {
	ev := api.OutboxEvent{ID: e.ID, Sink: sink, Seq: l.Seq, Topic: e.Topic, RunID: e.RunID, Tenant: e.Tenant, State: api.EventPending}
	if env, err := ledger.ParseEnvelope(l.Envelope); err == nil { // EventOf has read it
		ev.CreatedUTC = env.Time
	}
	return ev
}

// complete adds to an event what its entry says.
func (e *Engine) complete(ev *api.OutboxEvent, payload bool) error {
	l, err := e.db.Entry(ev.Seq)
	if err != nil {
		return err
	}
	sent, _, err := outbox.EventOf(&manifests.Sink{Name: ev.Sink, Topics: []string{"*"}}, e.db.SiteID(), l)
	if err != nil {
		return err
	}
	ev.ID, ev.Topic, ev.RunID, ev.Tenant = sent.ID, sent.Topic, sent.RunID, sent.Tenant
	if payload {
		ev.Payload = sent.Body
	}
	env, err := ledger.ParseEnvelope(l.Envelope)
	ev.CreatedUTC = env.Time
	return err
}

// ListOutbox lists sinks, and events that they have not taken.
func (s *site) ListOutbox(ctx context.Context, q api.OutboxQuery) (api.OutboxPage, error) {
	out := api.OutboxPage{Sinks: []api.Sink{}, Events: []api.OutboxEvent{}}
	if q.PageSize == 0 {
		q.PageSize = 50
	}
	after, afterSeq, _, ok := outbox.ParseID(q.PageToken)
	switch {
	case q.PageSize < 1 || q.PageSize > 500:
		return out, invalid("page_size is 1 to 500")
	case q.State != "" && q.State != api.EventPending && q.State != api.EventFailing && q.State != api.EventDead:
		return out, invalid("state is pending, failing or dead, not %q", q.State)
	case q.PageToken != "" && !ok:
		return out, invalid("the page token is not one of ours")
	}
	states, err := s.e.sinkStates()
	if err != nil {
		return out, dbError(err)
	}
	if q.Sink != "" {
		states = slices.DeleteFunc(states, func(st sinkState) bool { return st.name != q.Sink })
		if len(states) == 0 {
			return out, notFound("there is no sink %q", q.Sink)
		}
	}
	for _, st := range states {
		sink := s.e.describe(st)
		for ev, err := range s.e.undelivered(st, &sink.AtLeast) {
			if err = cmp.Or(err, ctx.Err()); err != nil {
				return out, dbError(err)
			}
			count(&sink, ev.State)
			listed := ev.Sink < after || ev.Sink == after && ev.Seq <= afterSeq
			if chosen(q.State, ev.State) && !listed && len(out.Events) <= q.PageSize {
				out.Events = append(out.Events, ev)
			}
		}
		out.Sinks = append(out.Sinks, sink)
	}
	return out, s.e.page(&out, q.PageSize)
}

// page cuts a list of events to its size, and completes what is left.
func (e *Engine) page(out *api.OutboxPage, size int) error {
	if len(out.Events) > size {
		out.Events = out.Events[:size]
		last := out.Events[size-1]
		out.NextPageToken = last.Sink + "/" + strconv.FormatInt(last.Seq, 10)
	}
	for i := range out.Events {
		if err := e.complete(&out.Events[i], false); err != nil {
			return dbError(err)
		}
	}
	return nil
}

// describe is a sink without its counts.
func (e *Engine) describe(st sinkState) api.Sink {
	s := api.Sink{Name: st.name, Begun: st.kept, Next: st.rec.Next, Delivered: st.rec.Delivered, LastUTC: st.rec.LastUTC}
	if st.kept {
		s.Behind = max(0, e.db.Size()-st.rec.Next)
	}
	if st.conf == nil {
		return s
	}
	s.Configured, s.Delivering = true, e.sending != nil
	s.Kind, s.Target, s.Topics, s.Tenant = string(st.conf.Kind), st.conf.Path, st.conf.Topics, st.conf.Tenant
	if u, err := url.Parse(st.conf.URL); st.conf.URL != "" && err == nil {
		s.Target = u.Scheme + "://" + u.Host // the rest may be a secret
	}
	return s
}

func count(s *api.Sink, state string) {
	switch state {
	case api.EventDead:
		s.Dead++
		return
	case api.EventFailing:
		s.Failing++
	}
	s.Pending++
}

// chosen says whether a list of events in one state has those of another.
func chosen(want, state string) bool {
	return want == "" || want == state || want == api.EventPending && state == api.EventFailing
}

// ShowEvent reads one event with its payload.
func (s *site) ShowEvent(_ context.Context, id string) (api.OutboxEvent, error) {
	sink, seq, hash, ok := outbox.ParseID(id)
	if !ok {
		return api.OutboxEvent{}, invalid("%q is not the id of an event, SINK/SEQ", id)
	}
	ev, err := s.e.eventState(sink, seq)
	if err == nil {
		err = s.e.complete(&ev, true)
	}
	_, _, real, _ := outbox.ParseID(ev.ID)
	if store.IsNotFound(err) || err == nil && hash != "" && hash != real {
		return api.OutboxEvent{}, notFound("there is no event %q", id)
	}
	return ev, dbError(err)
}

// eventState is what has become of an event; [store.ErrNotFound] where the entry
// is none of this sink.
func (e *Engine) eventState(sink string, seq int64) (api.OutboxEvent, error) {
	ev := api.OutboxEvent{Sink: sink, Seq: seq, State: api.EventPending}
	rec, err := e.db.Sink(sink)
	if err != nil {
		return ev, err
	}
	rows, err := e.db.OutboxRows(sink, seq, 1)
	if err != nil {
		return ev, err
	}
	if len(rows) == 1 && rows[0].Seq == seq {
		return rowEvent(sink, rows[0]), nil
	}
	l, err := e.db.Entry(seq)
	if err != nil {
		return ev, err
	}
	conf := e.sink(sink)
	if conf == nil {
		return ev, store.ErrNotFound
	}
	if seq < rec.Next {
		ev.State = api.EventDelivered
	}
	_, ok, err := outbox.EventOf(conf, e.db.SiteID(), l)
	if err == nil && !ok {
		err = store.ErrNotFound
	}
	return ev, err
}

// RequeueEvents has events tried again at once.
func (s *site) RequeueEvents(ctx context.Context, req api.RequeueRequest) (api.RequeueResult, error) {
	out := api.RequeueResult{Sinks: []api.RequeuedSink{}, Delivering: s.e.sending != nil}
	var bySink map[string][]int64
	var err error
	switch {
	case req.AllDead == (len(req.IDs) > 0):
		return out, invalid("name events, or all that are dead: one of the two")
	case req.Sink != "" && !req.AllDead:
		return out, invalid("a sink is named for all that are dead; the id of an event names its own")
	case req.AllDead:
		bySink, err = s.deadEvents(req.Sink)
	default:
		bySink, err = s.failedEvents(ctx, req.IDs)
	}
	if err != nil {
		return out, dbError(err)
	}
	for _, sink := range slices.Sorted(maps.Keys(bySink)) {
		if s.e.sink(sink) == nil {
			return out, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("sink %q is not in site.toml, so nothing is sent to it", sink),
				Hint: "configure it again, or give it up: stella orch outbox forget " + sink}
		}
	}
	for _, sink := range slices.Sorted(maps.Keys(bySink)) {
		for some := range slices.Chunk(bySink[sink], maxRequeued) {
			if err := s.e.db.RequeueOutbox(s.actor, sink, some, req.ResetAttempts); err != nil {
				return out, dbError(err)
			}
		}
		out.Sinks = append(out.Sinks, api.RequeuedSink{Sink: sink, Events: len(bySink[sink])})
	}
	return out, nil
}

// maxRequeued is how many events one entry has tried again, and how many may be
// named.
const maxRequeued = 1000

// failedEvents takes ids apart. Only what has failed can be tried again.
func (s *site) failedEvents(ctx context.Context, ids []string) (map[string][]int64, error) {
	if len(ids) > maxRequeued {
		return nil, invalid("at most %d events can be named at a time", maxRequeued)
	}
	bySink := map[string][]int64{}
	for _, id := range ids {
		ev, err := s.ShowEvent(ctx, id)
		if err != nil {
			return nil, err
		}
		e := &api.Error{Code: api.CodeConflict, Hint: "only what has failed is requeued; see: stella orch outbox list --failing, or --dead"}
		switch {
		case ev.State == api.EventDelivered:
			e.Message = fmt.Sprintf("event %s is delivered already", id)
			return nil, e
		case ev.State == api.EventPending && ev.DueUTC == "":
			e.Message = fmt.Sprintf("event %s waits for its first attempt", id)
			return nil, e
		}
		if !slices.Contains(bySink[ev.Sink], ev.Seq) {
			bySink[ev.Sink] = append(bySink[ev.Sink], ev.Seq)
		}
	}
	return bySink, nil
}

// deadEvents are those of one sink, or of all that are configured.
func (s *site) deadEvents(only string) (map[string][]int64, error) {
	states, err := s.e.sinkStates()
	if err != nil {
		return nil, err
	}
	if only != "" {
		states = slices.DeleteFunc(states, func(st sinkState) bool { return st.name != only })
		if len(states) == 0 {
			return nil, notFound("there is no sink %q", only)
		}
	}
	bySink := map[string][]int64{}
	for _, st := range states {
		if st.conf == nil && only == "" {
			continue
		}
		for from := int64(0); ; {
			rows, err := s.e.db.OutboxRows(st.name, from, 500)
			if err != nil {
				return nil, err
			}
			for _, r := range rows {
				if from = r.Seq + 1; r.Dead {
					bySink[st.name] = append(bySink[st.name], r.Seq)
				}
			}
			if len(rows) < 500 {
				break
			}
		}
	}
	return bySink, nil
}

// ForgetSink gives up a sink that is configured no more.
func (s *site) ForgetSink(_ context.Context, req api.ForgetRequest) (api.ForgetResult, error) {
	out := api.ForgetResult{Sink: req.Sink, DryRun: req.DryRun}
	rec, err := s.e.db.Sink(req.Sink)
	switch {
	case s.e.sink(req.Sink) != nil:
		return out, &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("sink %q is in site.toml", req.Sink),
			Hint: "take it out there first, and restart the daemon if one runs"}
	case store.IsNotFound(err):
		return out, notFound("there is no sink %q", req.Sink)
	case err != nil:
		return out, dbError(err)
	}
	out.Next = rec.Next
	if !req.DryRun {
		out.Dropped, err = s.e.db.ForgetSink(s.actor, req.Sink)
		return out, dbError(err)
	}
	var more bool
	for _, err := range s.e.undelivered(sinkState{name: req.Sink, rec: rec, kept: true}, &more) {
		if err != nil {
			return out, dbError(err)
		}
		out.Dropped++
	}
	return out, nil
}
