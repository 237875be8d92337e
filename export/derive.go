package export

import (
	"math"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

// deriver collects what derives from a window's entries. Create writes it,
// Verify derives it again from an archive and compares. Runs come after all
// entries, in the order of runs.ndjson.
type deriver struct {
	first    int64
	spans    *telemetry.Spans
	metrics  *telemetry.Metrics
	runs     map[string]bool  // that have an entry in the window
	evidence map[string]int64 // digest → seq of the first entry that names it
	most     int              // of these: where there are more one of them is not there, and no others are kept
	fault    error            // of telemetry, where the deriver's user goes on without it
}

// newDeriver writes the lines of traces to emit.
func newDeriver(siteID string, win Window, first int64, emit func(line []byte) error) deriver {
	from, to := win.times()
	return deriver{
		first: first,
		spans: telemetry.NewSpans(siteID, emit), metrics: telemetry.NewMetrics(siteID, from, to),
		runs: map[string]bool{}, evidence: map[string]int64{}, most: math.MaxInt,
	}
}

func (d *deriver) entry(e entry) error {
	if id := e.Envelope.RunID; id != "" {
		d.runs[id] = true
	}
	if e.Data != nil {
		for _, digest := range ledger.Evidence(e.Data) {
			if _, ok := d.evidence[digest]; !ok && len(d.evidence) <= d.most {
				d.evidence[digest] = e.Envelope.Seq
			}
		}
	}
	if err := d.metrics.Entry(e.Change); err != nil {
		return err
	}
	return d.spans.Verify(e.Change)
}

func (d *deriver) run(s *story) error {
	changes := s.changes()
	if err := d.metrics.Run(changes, d.first); err != nil {
		return err
	}
	return d.spans.Run(changes, d.first)
}
