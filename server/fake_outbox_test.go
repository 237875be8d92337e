package server_test

import (
	"context"
	"encoding/json"

	"github.com/stellarun/stella/server/api"
)

func (f *fake) ListOutbox(_ context.Context, q api.OutboxQuery) (api.OutboxPage, error) {
	if q == (api.OutboxQuery{}) {
		return api.OutboxPage{}, nil
	}
	return api.OutboxPage{
		Sinks:         []api.Sink{{Name: q.Sink, Kind: "file", Topics: []string{q.State}, Next: int64(q.PageSize), Configured: true}},
		Events:        []api.OutboxEvent{{ID: "ops/2/ab", Sink: q.Sink, LastError: "no <answer>"}},
		NextPageToken: q.PageToken + "+",
	}, nil
}

func (f *fake) ShowEvent(_ context.Context, id string) (api.OutboxEvent, error) {
	if id != "ops/2" {
		return api.OutboxEvent{}, notFound("event " + id)
	}
	return api.OutboxEvent{ID: id, Payload: json.RawMessage(`{"actor":"<x>"}`)}, nil
}

func (f *fake) RequeueEvents(_ context.Context, req api.RequeueRequest) (api.RequeueResult, error) {
	if req.Sink == "none" {
		return api.RequeueResult{}, notFound("sink " + req.Sink)
	}
	out := api.RequeueResult{Delivering: req.ResetAttempts}
	for _, id := range req.IDs {
		out.Sinks = append(out.Sinks, api.RequeuedSink{Sink: id, Events: 1})
	}
	return out, nil
}

func (f *fake) ForgetSink(_ context.Context, req api.ForgetRequest) (api.ForgetResult, error) {
	return api.ForgetResult{Sink: req.Sink, Next: 7, Dropped: 2, DryRun: req.DryRun}, nil
}
