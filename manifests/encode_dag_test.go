package manifests

// EncodeDAG is for the tests that ask whether parsing is a fixed point: nothing
// in stella writes DAG specs, people do. It writes one in its plainest form; parsing it gives d again,
// but for the lines of its steps.
func EncodeDAG(d *DAG) []byte {
	w := newWriter(DAGSchema)
	w.text("dag_id", d.ID)
	w.text("version", d.Version)
	w.text("description", d.Description)
	if !d.FailFast {
		w.raw("fail_fast", false)
	}
	byName(d.Inputs, func(name string, in Input) {
		w.table("inputs."+tomlKey(name), false)
		w.text("type", in.Type)
		w.text("description", in.Description)
		w.boolean("required", in.Required)
		w.text("pattern", in.Pattern)
		w.boolean("secret", in.Secret)
		if in.Enum != nil {
			w.raw("enum", in.Enum)
		}
		if in.Default != nil {
			w.raw("default", in.Default)
		}
	})
	if d.MaxParallelSteps != 0 || d.Timeout != 0 {
		w.table("limits", false)
		w.integer("max_parallel_steps", int64(d.MaxParallelSteps))
		w.duration("timeout", d.Timeout)
	}
	w.steps("step", d.Steps)
	w.steps("on_failure", d.OnFailure)
	w.steps("on_cancel", d.OnCancel)
	if len(d.Outputs) > 0 {
		w.table("outputs", false)
		w.fields(d.Outputs)
	}
	return w.Bytes()
}

func (w *writer) steps(key string, steps []Step) {
	for i := range steps {
		w.table(key, true)
		w.step(key, &steps[i])
	}
}

func (w *writer) step(key string, s *Step) {
	w.text("id", s.ID)
	if s.Plugin != nil {
		w.text("plugin", s.Plugin.String())
	}
	w.text("action", s.Action)
	w.text("dag", s.DAG)
	w.texts("needs", s.Needs)
	w.text("when", s.When)
	if s.ForEach != nil {
		w.raw("for_each", s.ForEach)
	}
	w.integer("max_parallel", int64(s.MaxParallel))
	var data []string
	for _, r := range s.Data {
		data = append(data, r.String())
	}
	w.texts("data", data)
	w.duration("timeout", s.Timeout)
	if s.MaxInterruptions != 3 {
		w.raw("max_interruptions", int64(s.MaxInterruptions))
	}
	w.texts("secrets", s.Secrets)
	w.texts("locks", s.Locks)
	w.texts("require", s.Require)
	w.integer("priority", s.Priority)
	w.boolean("continue_on_error", s.ContinueOnError)
	w.boolean("allow_skip", s.AllowSkip)
	w.boolean("disabled", s.Disabled)
	if !s.Idempotent {
		w.raw("idempotent", false)
	}
	w.stepTables(key, s)
}

func (w *writer) stepTables(key string, s *Step) {
	if len(s.With) > 0 {
		w.table(key+".with", false)
		w.fields(s.With)
	}
	if r := s.Retry; !r.isDefault() {
		w.table(key+".retry", false)
		w.integer("max_attempts", int64(r.MaxAttempts))
		w.duration("backoff", r.Backoff)
		w.duration("max_backoff", r.MaxBackoff)
		w.raw("jitter", r.Jitter)
		w.texts("retry_on", r.RetryOn)
	}
	if s.Cache != nil {
		w.table(key+".cache", false)
		w.duration("ttl", s.Cache.TTL)
	}
	if len(s.Semaphores) > 0 {
		w.table(key+".semaphores", false)
		byName(s.Semaphores, w.integer)
	}
	if c := s.Checkpoint; c != nil {
		w.table(key+".checkpoint", false)
		w.text("question", c.Question)
		w.boolean("required", c.Required)
		w.texts("approvers", c.Approvers)
		w.integer("quorum", int64(c.Quorum))
		w.boolean("exclude_starter", c.ExcludeStarter)
		w.duration("expires", c.Expires)
		for _, o := range c.Options {
			w.table(key+".checkpoint.options", true)
			w.text("label", o.Label)
			w.text("decision", o.Decision)
		}
	}
}

func (r Retry) isDefault() bool {
	d := defaultRetry()
	return len(r.RetryOn) == 0 && r.MaxAttempts == d.MaxAttempts && r.Backoff == d.Backoff &&
		r.MaxBackoff == d.MaxBackoff && r.Jitter == d.Jitter
}
