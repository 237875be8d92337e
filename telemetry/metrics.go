package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// Names of metrics. They are read by dashboards: never change or reuse one.
const (
	metricRuns      = "orchestrator_runs_total"
	metricRetries   = "orchestrator_step_retries_total"
	metricRunTime   = "orchestrator_run_duration_seconds"
	metricStepTime  = "orchestration_step_duration_seconds"
	metricStepQueue = "orchestration_step_queue_seconds"
	metricAttempts  = "orchestrator_attempts_total"
	metricVerify    = "orchestrator_verify_total"
	metricEntries   = "orchestrator_ledger_entries_total"
)

// Limits of one window: lines stay below MaxLine, memory stays bounded.
const (
	pointsPerLine = 400
	maxSeries     = 100_000
)

// buckets are the upper bounds of histograms, in seconds.
func buckets() []float64 { return []float64{.01, .05, .1, .25, .5, 1, 2, 5, 10} }

// Metrics sums up the entries of one window: counters and histograms of what
// happened in it, with delta temporality, so that windows add up whatever was
// restarted in between. It is not safe for concurrent use.
type Metrics struct {
	siteID   string
	from, to pcommon.Timestamp
	metrics  []*metric
	series   int
	bounds   []float64
}

// metric is one name with its series, by label values.
type metric struct {
	name, help, unit string
	labels           []string
	histogram        bool
	series           map[string]*series
}

type series struct {
	values   []string // of the labels
	count    int64
	sum      time.Duration
	min, max time.Duration
	buckets  []uint64
}

// NewMetrics starts the metrics of the window [from, to).
func NewMetrics(siteID string, from, to time.Time) *Metrics {
	counter := func(name, help string, labels ...string) *metric {
		return &metric{name: name, help: help, unit: "1", labels: labels, series: map[string]*series{}}
	}
	histogram := func(name, help string) *metric {
		return &metric{name: name, help: help, unit: "s", labels: []string{"tenant", "dag"}, histogram: true, series: map[string]*series{}}
	}
	return &Metrics{
		siteID: siteID, bounds: buckets(),
		from: pcommon.NewTimestampFromTime(clamp(from)), to: pcommon.NewTimestampFromTime(clamp(to)),
		metrics: []*metric{
			counter(metricRuns, "Runs that ended, by the status they ended with.", "tenant", "dag", "status"),
			counter(metricRetries, "Times a step was queued again after an attempt that counts against max_attempts.", "tenant", "dag"),
			histogram(metricRunTime, "Time from a run's first attempt, or its acceptance if there was none, to its end."),
			histogram(metricStepTime, "Time from a step's first attempt to its end."),
			histogram(metricStepQueue, "Time for which a step was queued and due before an attempt of it started."),
			counter(metricAttempts, "Attempts that ended, by outcome.", "tenant", "dag", "status"),
			counter(metricVerify, "Judgements of bundles at the door, by decision.", "status"),
			counter(metricEntries, "Ledger entries, by type.", "type"),
		},
	}
}

// Entry counts one entry of the window, of a run or of the site.
func (m *Metrics) Entry(c state.Change) error {
	e := c.Envelope
	if err := m.add(metricEntries, 0, string(e.Type)); err != nil {
		return err
	}
	switch e.Type {
	case ledger.BundleRejected:
		return m.add(metricVerify, 0, "rejected")
	case ledger.BundleAdmitted:
		if d, ok := c.Data.(*ledger.BundleAdmission); ok {
			return m.add(metricVerify, 0, d.Verdict.Decision)
		}
		return m.add(metricVerify, 0, "withheld")
	}
	return nil
}

// Run counts what a run did at first or later. changes are all entries of the
// run, from its first one on, in order.
func (m *Metrics) Run(changes []state.Change, first int64) error {
	return walkRun(changes, func(at moment) error {
		if at.Envelope.Seq < first {
			return nil
		}
		return m.moment(at)
	})
}

func (m *Metrics) moment(at moment) error {
	e, tenant, dag := at.Envelope, at.run.start.Tenant, at.run.start.DAGID
	switch {
	case at.isRunEnd():
		began := at.run.began
		if began == "" {
			began = at.run.start.Time
		}
		if err := m.add(metricRuns, 0, tenant, dag, at.status()); err != nil {
			return err
		}
		return m.add(metricRunTime, between(began, e.Time), tenant, dag)
	case at.isStepEnd() && at.step.began != "":
		return m.add(metricStepTime, between(at.step.began, e.Time), tenant, dag)
	case at.step != nil && e.Type == ledger.AttemptStarted:
		return m.add(metricStepQueue, at.step.waited, tenant, dag)
	case at.isAttemptEnd():
		outcome := "withheld"
		if d, ok := at.Data.(*ledger.AttemptEnd); ok {
			outcome = d.Outcome
		}
		return m.add(metricAttempts, 0, tenant, dag, outcome)
	case e.Type == ledger.StepQueued:
		if d, ok := at.Data.(*ledger.StepQueue); ok && d.Reason == "retry" {
			return m.add(metricRetries, 0, tenant, dag)
		}
	}
	return nil
}

// add counts one observation; of a counter, d means nothing.
func (m *Metrics) add(name string, d time.Duration, values ...string) error {
	i := slices.IndexFunc(m.metrics, func(x *metric) bool { return x.name == name })
	in := m.metrics[i]
	for i, v := range values {
		values[i] = cut(v, maxAttr)
	}
	key := strings.Join(values, "\x00")
	s := in.series[key]
	if s == nil {
		if m.series++; m.series > maxSeries {
			return fmt.Errorf("%w: more than %d series of metrics", ErrTooLarge, maxSeries)
		}
		s = &series{values: values, min: d, buckets: make([]uint64, len(m.bounds)+1)}
		in.series[key] = s
	}
	s.count++
	s.sum += d
	s.min, s.max = min(s.min, d), max(s.max, d)
	at, _ := slices.BinarySearchFunc(m.bounds, d, func(bound float64, d time.Duration) int {
		if d.Seconds() <= bound { // an upper bound belongs to its bucket
			return 0
		}
		return -1
	})
	s.buckets[at]++
	return nil
}

// Lines writes the metrics lines in a fixed order: by metric, then by label
// values. emit gets each line without its line feed.
func (m *Metrics) Lines(emit func(line []byte) error) error {
	for _, in := range m.metrics {
		keys := make([]string, 0, len(in.series))
		for k := range in.series {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for part := range slices.Chunk(keys, pointsPerLine) {
			line, err := m.line(in, part)
			if err != nil {
				return err
			}
			if err := emitLine(emit, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Metrics) line(in *metric, keys []string) ([]byte, error) {
	out := pmetric.NewMetrics()
	resource := out.ResourceMetrics().AppendEmpty()
	describe(resource.Resource(), m.siteID)
	scope := resource.ScopeMetrics().AppendEmpty()
	scope.Scope().SetName(scopeName)
	into := scope.Metrics().AppendEmpty()
	into.SetName(in.name)
	into.SetDescription(in.help)
	into.SetUnit(in.unit)
	if in.histogram {
		m.histogram(into.SetEmptyHistogram(), in, keys)
	} else {
		m.counter(into.SetEmptySum(), in, keys)
	}
	line, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(out)
	if err != nil {
		return nil, fmt.Errorf("telemetry: encode metrics: %w", err)
	}
	return line, nil
}

func (m *Metrics) counter(into pmetric.Sum, in *metric, keys []string) {
	into.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	into.SetIsMonotonic(true)
	for _, k := range keys {
		s, p := in.series[k], into.DataPoints().AppendEmpty()
		p.SetStartTimestamp(m.from)
		p.SetTimestamp(m.to)
		p.SetIntValue(s.count)
		in.label(p.Attributes(), s)
	}
}

func (m *Metrics) histogram(into pmetric.Histogram, in *metric, keys []string) {
	into.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for _, k := range keys {
		s, p := in.series[k], into.DataPoints().AppendEmpty()
		p.SetStartTimestamp(m.from)
		p.SetTimestamp(m.to)
		p.SetCount(uint64(s.count))
		p.SetSum(s.sum.Seconds())
		p.SetMin(s.min.Seconds())
		p.SetMax(s.max.Seconds())
		p.BucketCounts().FromRaw(s.buckets)
		p.ExplicitBounds().FromRaw(m.bounds)
		in.label(p.Attributes(), s)
	}
}

func (in *metric) label(a pcommon.Map, s *series) {
	for i, name := range in.labels {
		a.PutStr(name, s.values[i])
	}
}
