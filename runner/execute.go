package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/telemetry"
)

// maxArtifactBytes bounds one artifact where neither action nor site says.
const maxArtifactBytes = 1 << 30

// execute runs a claimed attempt and turns what it left into its last entry.
// Nothing is reported done before its outputs, artifacts and log are on disk.
func (r *Runner) execute(ctx context.Context, e *execution, n *node, p *prepared) *ledger.AttemptEnd {
	begun := r.opt.Now()
	end := r.tryExecute(ctx, e, n, p)
	if end.Usage == nil {
		end.Usage = &ledger.Usage{WallMs: r.opt.Now().Sub(begun).Milliseconds()}
	}
	return end
}

func (r *Runner) tryExecute(ctx context.Context, e *execution, n *node, p *prepared) *ledger.AttemptEnd {
	ws := &workspace{r: r, dir: filepath.Join(r.opt.RunsDir, p.run.RunID, n.id, strconv.Itoa(p.attempt))}
	log := r.newLog(p.run.RunID, n.id, p.attempt, p.limits(r.opt.Limits).Log)
	defer log.close()
	p.tidy = func(end *ledger.AttemptEnd) {
		ws.letGo(end)
		log.letGo(p.recorded)
	}
	if len(p.secrets.files) > 0 { // nobody knows what lies in its workspace, whatever the site keeps
		p.tidy = func(*ledger.AttemptEnd) { log.letGo(p.recorded) }
		defer func() {
			if err := r.PurgeWorkspace(p.run.RunID, n.id, p.attempt); err != nil {
				r.opt.Log.Error("after an attempt", "error", err)
			}
		}()
	}
	task, err := r.task(n, p, ws.dir)
	if err != nil {
		return unstarted(err)
	}
	task.MakeDir = ws.make
	task.Log = func(stream string, at time.Time, line []byte) {
		e.touch()
		log.line(stream, at, line)
	}
	task.Progress = func(float64, string) { e.touch() }
	report, err := r.opt.Executor.Execute(ctx, task)
	if err != nil {
		return p.masked(unstarted(err))
	}
	late := errors.Is(context.Cause(ctx), errRunTimeout) && report.Stop != ""
	if late {
		report.Stop = StopDeadline
	}
	end, err := r.collect(n, p, report)
	if err == nil {
		end.Logs, err = log.keep(r)
	}
	if err != nil {
		return p.masked(p.lost(n, err))
	}
	end.Logs.Dropped += report.Dropped
	if late { // not its own deadline: it was stopped
		end.ErrorCode, end.Retryable = string(state.RunTimeout), false
	}
	return end
}

// unstarted is the end of an attempt whose program never ran, by a fault of
// ours: nothing can have been done twice.
func unstarted(err error) *ledger.AttemptEnd {
	return &ledger.AttemptEnd{Outcome: string(state.Infra), ErrorCode: string(state.CodeInfra), Message: clip(err.Error())}
}

// masked is an end whose message holds no secret.
func (p *prepared) masked(end *ledger.AttemptEnd) *ledger.AttemptEnd {
	end.Message = clip(p.secrets.mask(end.Message))
	return end
}

// maxEndBytes bounds what an attempt may put into its last entry, whose data
// line has at most 64 KiB: mostly the names and types of its artifacts.
const maxEndBytes = 48 << 10

// collect classifies a report and seals what the attempt handed over. Its error
// is a fault of ours.
func (r *Runner) collect(n *node, p *prepared, report Report) (*ledger.AttemptEnd, error) {
	outputs, err := jcs.Marshal(report.Output.Values)
	if err != nil || report.Output.Values == nil {
		outputs = []byte("{}")
	}
	v := Classify(report, r.invalid(p.manifest, p.action.Outputs, outputs))
	end := &ledger.AttemptEnd{
		ExitCode: report.ExitCode, Signal: report.Signal, Usage: &report.Usage, Fences: report.Fences,
	}
	if v.Outcome == state.Succeeded {
		fault, err := r.take(end, report.Output.Artifacts, outputs, p)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			v = Verdict{Outcome: state.OutcomeFailed, Code: state.ContractViolation, Message: fault}
			end.Artifacts, end.OutputsHash = nil, ""
		}
	}
	if v.Outcome == state.Interrupted {
		end.Orderly = true
		if !n.idempotent(p.action) {
			v.Code = state.Indeterminate
		}
	}
	end.Outcome, end.ErrorCode, end.Retryable = string(v.Outcome), string(v.Code), v.Retryable
	end.RetryAfterMs, end.Message = v.RetryAfterMs, clip(p.secrets.mask(v.Message))
	return end, nil
}

// take seals outputs and artifacts. The fault is the plugin's, the error ours.
func (r *Runner) take(end *ledger.AttemptEnd, files []ArtifactFile, outputs []byte, p *prepared) (fault string, err error) {
	if len(outputs) > MaxInputsBytes {
		return fmt.Sprintf("the outputs have %d bytes in canonical form; at most %d", len(outputs), MaxInputsBytes), nil
	}
	if name := p.secrets.leaks(outputs); name != "" {
		return "the outputs hold the secret " + name, nil
	}
	limit := p.limits(r.opt.Limits).Workspace
	if limit == 0 {
		limit = maxArtifactBytes
	}
	for _, f := range files {
		a, fault, err := r.takeArtifact(f, limit, p.secrets.redact)
		if fault != "" || err != nil {
			return fault, err
		}
		end.Artifacts = append(end.Artifacts, a)
	}
	if raw, err := jcs.Marshal(end); err != nil {
		return "", err
	} else if len(raw) > maxEndBytes {
		return "the names and media types of its artifacts take too much room", nil
	}
	end.OutputsHash, err = r.opt.Sealed.Put(outputs)
	return "", err
}

func (r *Runner) takeArtifact(f ArtifactFile, limit int64, redact *telemetry.Redactor) (a ledger.Artifact, fault string, err error) {
	if redact != nil {
		for _, text := range []string{f.Name, f.MediaType} {
			if name := redact.Find([]byte(text)); name != "" {
				return a, "the name or type of an artifact holds the secret " + name, nil
			}
		}
	}
	rc, err := f.Open()
	if err != nil {
		return a, "artifact " + f.Name + ": " + err.Error(), nil
	}
	defer rc.Close()
	var from io.Reader = rc
	if redact != nil {
		from = redact.Guard(rc)
	}
	digest, size, err := r.opt.Sealed.PutFrom(io.LimitReader(from, limit+1), limit+1)
	if leak := (*telemetry.LeakError)(nil); errors.As(err, &leak) {
		return a, "artifact " + f.Name + ": " + leak.Error(), nil
	}
	if err == nil && size > limit {
		fault = fmt.Sprintf("artifact %s has more than %d bytes", f.Name, limit)
	}
	return ledger.Artifact{Name: f.Name, SHA256: digest, Size: size, MediaType: f.MediaType}, fault, err
}

// limits are the action's, with the site's where it has none.
func (p *prepared) limits(site manifests.Limits) manifests.Limits {
	l := p.action.Limits
	if l.Memory == 0 {
		l.Memory = site.Memory
	}
	if l.CPU == 0 {
		l.CPU = site.CPU
	}
	if l.PIDs == 0 {
		l.PIDs = site.PIDs
	}
	if l.Workspace == 0 {
		l.Workspace = site.Workspace
	}
	if l.Log == 0 {
		l.Log = site.Log
	}
	if l.Log == 0 {
		l.Log = maxLogBytes
	}
	return l
}

// task builds what the executor gets.
func (r *Runner) task(n *node, p *prepared, dir string) (Task, error) {
	created, err := stamp.Parse(p.run.CreatedUTC)
	if err != nil {
		return Task{}, err
	}
	t := Task{
		RunID: p.run.RunID, StepID: n.id, Attempt: p.attempt, Dir: dir, Owner: p.run.Tenant + " " + n.plan.Plugin.Digest,
		Runtime: p.manifest.Plugin.Runtime, Entry: r.entry(n, p),
		Args: p.action.Args, IdempotencyKey: r.idempotencyKey(&p.run, n.id), SourceDate: created,
		Determinism: p.manifest.Plugin.Determinism, Network: p.manifest.Plugin.Network,
		Limits: p.limits(r.opt.Limits), Timeout: p.timeout, Grace: r.opt.Grace, Aborted: p.aborted,
	}
	if i := n.plan.Interpreter; i != nil {
		t.Interpreter = &Interpreter{i.Path, i.SHA256}
		if !path.IsAbs(i.Path) {
			t.Interpreter.Path = filepath.Join(dir, "bundle", i.Path)
		}
	}
	t.Files = r.place("bundle", p.manifest, n.plan.Entry, t.Files)
	req := plugin.Request{
		API: 1, RunID: p.run.RunID, StepID: n.id, Action: n.plan.Action, Attempt: p.attempt, IdempotencyKey: t.IdempotencyKey,
		Params: p.params, Inputs: map[string]plugin.Input{}, Data: map[string]plugin.Data{}, Limits: requestLimits(t.Limits, t.Timeout),
	}
	for _, d := range n.plan.Data {
		m, err := r.opt.Sealed.Manifest(d.Digest)
		if err != nil {
			return Task{}, err
		}
		dir := path.Join("data", d.Digest)
		t.Files = r.place(dir, m, "", t.Files)
		req.Data[d.Ref] = plugin.Data{Path: dir, MediaType: m.Data.MediaType, Digest: d.Digest}
	}
	for sum, a := range p.artifacts {
		at := path.Join("inputs", sum)
		t.Files = append(t.Files, Placed{at, "0644", r.content(sum, a.Size)})
		req.Inputs[sum] = plugin.Input{Path: at, SHA256: sum, Size: a.Size, MediaType: a.MediaType}
	}
	for _, s := range p.secrets.files {
		req.Secrets = append(req.Secrets, s.Name)
	}
	t.Secrets, t.Redact = p.secrets.files, p.secrets.redact
	t.Request, err = jcs.Marshal(req)
	return t, err
}

// entry is the program, with the size that the manifest gives.
func (r *Runner) entry(n *node, p *prepared) Content {
	for _, f := range p.manifest.Files {
		if f.SHA256 == n.plan.Entry {
			return r.content(f.SHA256, f.Size)
		}
	}
	return r.content(n.plan.Entry, 0)
}

// place adds the files of a bundle below a folder of the task, but for the
// program, which the executor runs from memory.
func (r *Runner) place(dir string, m *manifests.Bundle, entry string, to []Placed) []Placed {
	for _, f := range m.Files {
		if f.SHA256 == entry {
			continue
		}
		to = append(to, Placed{path.Join(dir, f.Path), f.Mode, r.content(f.SHA256, f.Size)})
	}
	return to
}

func (r *Runner) content(digest string, size int64) Content {
	return Content{SHA256: digest, Size: size, Open: func() (io.ReadCloser, error) { return r.opt.Sealed.Open(digest) }}
}

func requestLimits(l manifests.Limits, timeout time.Duration) plugin.Limits {
	return plugin.Limits{
		Memory: l.Memory, CPU: l.CPU, PIDs: l.PIDs, TimeoutMs: timeout.Milliseconds(), Workspace: l.Workspace, Log: l.Log,
	}
}
