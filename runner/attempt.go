package runner

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner/state"
)

// maxInfra bounds how often a fault of ours is tried again.
const maxInfra = 3

// maxMessage bounds the message of an attempt in the ledger, in bytes.
const maxMessage = 1024

// prepared is an attempt that is ready to be claimed.
type prepared struct {
	run        state.Run                  // as it was when the attempt was claimed
	attempt    int                        // its number, once it is claimed
	params     []byte                     // canonical JSON
	artifacts  map[string]ledger.Artifact // of this run, named in params
	fault      error                      // params could not be had
	inputsHash string
	overlay    string // digest of the merge patch that params went through
	manifest   *manifests.Bundle
	action     manifests.Action
	trust      ledger.TrustRef
	trusts     int64 // when it was judged: see Runner.trusts
	refused    error // trust no longer allows the plugin or its data, or something of ours failed
	timeout    time.Duration
	aborted    <-chan struct{}              // closed when nothing has time to end any more
	secrets    given                        // what it is given, if it may start
	cacheKey   string                       // "" where nothing is kept
	hit        *ledger.CacheHit             // what was done before in the same way
	kept       any                          // its outputs
	tidy       func(end *ledger.AttemptEnd) // removes what is needed no more once the end is on record; may be nil
	recorded   *ledger.AttemptEnd           // the end that is on record; nil where another one is
}

// work carries one step from claim to outcome. Its error is a fault that ends
// the runner; whatever goes wrong with the attempt is in the ledger.
func (r *Runner) work(ctx context.Context, it item) error {
	e, n := it.e, it.n
	alive := false // a sub-run goes on without us
	mine := false
	defer func() { r.back(ctx, it, mine, alive) }()
	e.mu.Lock()
	if it.over() || n.status != state.Queued || n.worker || n.former != "" {
		e.mu.Unlock()
		return nil
	}
	n.claimed, n.worker, mine = true, true, true
	e.touch() // it has waited for its turn until now
	e.workers++
	with := e.prog.with[n.step.ID]
	params, fault := with.eval(ctx, e.scope(n, with.named()))
	if ctx.Err() != nil {
		fault = nil // it is not claimed anyway
	}
	artifacts, dag, overlay, afresh := e.artifactsIn(params), e.run.DAGDigest, n.patch(), n.afresh
	e.mu.Unlock()

	p := r.prepare(e, dag, n, params, overlay, fault)
	defer p.secrets.forget()
	p.artifacts = artifacts
	if n.plan.Plugin == nil {
		var err error
		alive, err = r.startChild(ctx, e, n, p)
		return err
	}
	if e.replayOf == "" {
		r.lookUp(e, n, p, afresh)
	}
	actx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stop := context.AfterFunc(ctx, func() { end(ErrShutdown) })
	defer stop()
	aborted := make(chan struct{})
	p.aborted = aborted
	abort := sync.OnceFunc(func() { close(aborted) })
	started, err := r.claim(ctx, e, n, p, func(cause error) {
		if errors.Is(cause, ErrAborted) {
			abort() // also where it is being stopped already
		}
		end(cause)
	})
	if err != nil || !started {
		return err
	}
	last := r.execute(actx, e, n, p)
	stoppedAs(actx, last)
	if err := r.settle(e, n, p, last); err != nil {
		return err
	}
	if p.tidy != nil {
		r.later(func() { p.tidy(last) })
	}
	return nil
}

// back gives back what a worker took, and queues the step if it is to be tried
// again: not before the worker has let go of it.
func (r *Runner) back(ctx context.Context, it item, mine, alive bool) {
	defer r.release() // not before what is left to do is in the queue
	if mine {
		_ = r.within(it.e, func() error {
			it.n.worker = false
			it.e.workers--
			r.tellWhenQuiet(it.e)
			return nil
		})
	}
	r.done(it, alive)
	if !mine {
		return
	}
	it.e.mu.Lock()
	defer it.e.mu.Unlock()
	if it.n.status == state.Queued && !it.n.claimed && !it.e.ended.Load() && ctx.Err() == nil {
		it.e.fresh = append(it.e.fresh, it.n)
		r.handOver(it.e)
	}
}

// prepare resolves everything an attempt needs that can be had without the
// run's lock: sealed inputs, the manifest, and a fresh judgement.
// What cannot be had is a fault of this attempt alone.
func (r *Runner) prepare(e *execution, dag string, n *node, params any, overlay string, fault error) *prepared {
	p := &prepared{fault: fault, overlay: overlay}
	if p.fault == nil && overlay != "" {
		params, p.fault = r.overlaid(params, overlay)
	}
	if p.fault == nil {
		p.params, p.fault = jcs.Marshal(params)
	}
	if p.fault != nil {
		return p
	}
	p.inputsHash = Hash(p.params)
	if _, p.refused = r.opt.Sealed.Put(p.params); p.refused != nil || n.plan.Plugin == nil {
		return p
	}
	if p.manifest, p.refused = r.opt.Sealed.Manifest(n.plan.Plugin.Digest); p.refused != nil {
		return p
	}
	p.action = p.manifest.Plugin.Actions[n.plan.Action]
	p.trusts = r.trusts.Load()
	if p.trust, p.refused = r.judge(dag, n); p.refused == nil {
		p.refused = r.giveSecrets(e, dag, n, p, params)
	}
	p.timeout = shortest(n.step.Timeout, p.action.Limits.Timeout, r.opt.Limits.Timeout)
	return p
}

// overlaid applies the merge patch that somebody gave by hand.
func (r *Runner) overlaid(params any, overlay string) (any, error) {
	raw, err := r.opt.Sealed.Read(overlay, MaxInputsBytes)
	if err != nil {
		return nil, err
	}
	patch, err := decodeJSON(raw)
	return mergePatch(params, patch), err
}

// lost is the end of an attempt whose program ran and whose results could not
// be kept, by a fault of ours: it may be started again only where that cannot
// do anything twice.
func (p *prepared) lost(n *node, err error) *ledger.AttemptEnd {
	end := &ledger.AttemptEnd{Outcome: string(state.Interrupted), Message: clip(err.Error())}
	if !n.idempotent(p.action) {
		end.ErrorCode = string(state.Indeterminate)
	}
	return end
}

// shortest is the smallest of the given durations that are set; 0 if none is.
func shortest(ds ...time.Duration) time.Duration {
	out := time.Duration(0)
	for _, d := range ds {
		if d > 0 && (out == 0 || d < out) {
			out = d
		}
	}
	return out
}

// invalid says why an object does not satisfy a schema of the bundle.
func (r *Runner) invalid(m *manifests.Bundle, path string, object []byte) string {
	if path == "" {
		return ""
	}
	for _, f := range m.Files {
		if f.Path != path {
			continue
		}
		load := func() ([]byte, error) { return r.opt.Sealed.Read(f.SHA256, maxSchemaBytes) }
		if err := r.schemas.validate(f.SHA256, load, object); err != nil {
			return err.Error()
		}
		return ""
	}
	return path + " is not among the files of the plugin"
}

// settle records how an attempt ended and what follows from it. An attempt that
// was taken back meanwhile has ended in the record: whatever it reports counts no
// more.
func (r *Runner) settle(e *execution, n *node, p *prepared, end *ledger.AttemptEnd) error {
	if err := failpoint.Hit(failpoint.RunnerFinish); err != nil {
		return err
	}
	outputs, err := r.outputs(end.OutputsHash)
	if err != nil { // sealed a moment ago, and gone
		outputs, end = nil, p.lost(n, err)
	}
	return r.within(e, func() error {
		if n.attempt != p.attempt || n.status != state.Running || e.cancels[n.id] == nil {
			r.opt.Log.Warn("the end of an attempt that was taken back counts no more", "runId", e.runID, "stepId", n.id, "attempt", p.attempt, "outcome", end.Outcome)
			delete(e.strays, n)
			e.apart.Store(int32(len(e.strays)))
			if e.ended.Load() {
				return nil
			}
			return r.commit(e)
		}
		delete(e.cancels, n.id)
		n.outputs, n.artifacts = outputs, artifactsOf(end.Artifacts)
		return r.conclude(e, n, p, end)
	})
}

// outputs reads back what later expressions see of an action that succeeded.
func (r *Runner) outputs(hash string) (any, error) {
	if hash == "" {
		return nil, nil
	}
	raw, err := r.opt.Sealed.Read(hash, MaxOutputsBytes)
	if err != nil {
		return nil, err
	}
	return decodeJSON(raw)
}

func artifactsOf(list []ledger.Artifact) map[string]any {
	out := map[string]any{}
	for _, a := range list {
		out[a.Name] = map[string]any{"name": a.Name, "sha256": a.SHA256, "size": a.Size, "mediaType": a.MediaType}
	}
	return out
}

// conclude writes the end of an attempt, decides about the step, and commits.
// The caller holds e.mu.
func (r *Runner) conclude(e *execution, n *node, p *prepared, end *ledger.AttemptEnd) error {
	n.claimed = false
	end.Generation = e.run.Generation
	if n.again && end.Outcome == string(state.Interrupted) {
		end.Orderly, end.ErrorCode = true, ""
	}
	if end.Outcome == string(state.Succeeded) {
		r.keep(n, p, end)
	}
	e.endAttempt(n, end)
	p.recorded = end
	r.decide(e, n, n.idempotent(p.action), end)
	n.again = false // it was about this attempt, however that has ended
	return r.commit(e)
}

// endAttempt writes the end of an attempt. That it might do twice what has been done is
// used up, if it was begun.
func (e *execution) endAttempt(n *node, end *ledger.AttemptEnd) {
	n.repeat = n.repeat && !state.Begun(end)
	e.propose(ledger.AttemptEnded, n, end)
}

// decide says what becomes of a step whose attempt has ended: done, tried
// again, or failed (CONTRACT section 8).
func (r *Runner) decide(e *execution, n *node, repeatable bool, end *ledger.AttemptEnd) {
	code := state.Code(end.ErrorCode)
	again := !e.over(n.phase)
	switch state.Outcome(end.Outcome) {
	case state.Succeeded:
		e.acted(n, end.OutputsHash)
		return
	case state.OutcomeCancelled:
		if e.run.FailRequested() && !e.run.CancelRequested() { // a retry of the run finds it as what failed
			e.end(n, ledger.StepFailed, state.Failed, cmp.Or(e.stopCode(n.phase), state.FailedByHand), ledger.StepEnd{})
			return
		}
		e.end(n, ledger.StepCancelled, state.Cancelled, state.RunCancelled, ledger.StepEnd{})
		return
	case state.Interrupted:
		if !end.Orderly {
			n.interruptions++
		}
		restarted := n.again
		n.again = false
		switch {
		case restarted:
			e.queue(n, "restart", time.Time{})
		case !repeatable:
			e.end(n, ledger.StepFailed, state.Failed, state.Indeterminate, ledger.StepEnd{})
		case n.interruptions > n.step.MaxInterruptions:
			e.end(n, ledger.StepFailed, state.Failed, state.PoisonPill, ledger.StepEnd{})
		default:
			e.queue(n, "interrupted", time.Time{})
		}
		return
	case state.Infra:
		if n.infra++; again && n.infra < maxInfra {
			e.queue(n, "infra", r.opt.Now().Add(time.Duration(n.infra)*time.Second))
			return
		}
	default:
		n.failures++
		if again && end.Retryable && n.failures < n.step.Retry.MaxAttempts && retries(n.step.Retry, end) {
			e.queue(n, "retry", r.opt.Now().Add(r.backoff(n.step.Retry, n.failures, end.RetryAfterMs)))
			return
		}
	}
	e.end(n, ledger.StepFailed, state.Failed, code, ledger.StepEnd{})
}

func retries(rule manifests.Retry, end *ledger.AttemptEnd) bool {
	for _, on := range rule.RetryOn {
		if on == end.ErrorCode || on == end.Outcome {
			return true
		}
	}
	return len(rule.RetryOn) == 0
}

// backoff is the wait before attempt failures+1: doubled each time, spread by the
// jitter, capped, and never shorter than the plugin asked for.
func (r *Runner) backoff(rule manifests.Retry, failures int, afterMs int64) time.Duration {
	d := float64(rule.Backoff) * math.Pow(2, float64(failures-1))
	d = math.Min(d, float64(rule.MaxBackoff)) // so that those who wait longest are spread, too
	d = math.Min(d*(1+rule.Jitter*(2*r.opt.Rand()-1)), float64(rule.MaxBackoff))
	return max(time.Duration(d), time.Duration(afterMs)*time.Millisecond)
}

// idempotencyKey is stable over the attempts of a step.
func (r *Runner) idempotencyKey(run *state.Run, stepID string) string {
	raw, err := jcs.Marshal([]string{run.Tenant, run.RunID, stepID})
	if err != nil {
		panic("runner: ids are not text") // they were checked when the run was made
	}
	mac := hmac.New(sha256.New, r.opt.HMACKey)
	mac.Write(raw)
	return hex.EncodeToString(mac.Sum(nil))
}

func clip(s string) string { return clipTo(s, maxMessage) }

// artifactsIn finds the artifact objects of this run anywhere in resolved
// parameters. An object that merely looks like one names nothing: steps share
// only what the run itself has made. The caller holds e.mu.
func (e *execution) artifactsIn(params any) map[string]ledger.Artifact {
	found := map[string]ledger.Artifact{}
	var walk func(any)
	walk = func(v any) {
		switch x := v.(type) {
		case []any:
			for _, v := range x {
				walk(v)
			}
		case map[string]any:
			name, ok1 := x["name"].(string)
			sum, ok2 := x["sha256"].(string)
			size, ok3 := x["size"].(int64)
			media, ok4 := x["mediaType"].(string)
			if ok1 && ok2 && ok3 && ok4 && len(x) == 4 {
				found[sum] = ledger.Artifact{Name: name, SHA256: sum, Size: size, MediaType: media}
				return
			}
			for _, v := range x {
				walk(v)
			}
		}
	}
	walk(params)
	if len(found) == 0 {
		return nil
	}
	made := map[string]bool{}
	for _, n := range e.all() {
		for _, a := range n.artifacts {
			made[a.(map[string]any)["sha256"].(string)] = true
		}
	}
	for sum := range found {
		if !made[sum] {
			delete(found, sum)
		}
	}
	return found
}
