package export

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

// tables are the CSV files of a view.
type tables struct{ entries, runs, steps, attempts *table }

// table is one CSV file.
type table struct {
	out *csv.Writer
	w   *viewWriter
}

func newTables(f *viewFolder) (sink, error) {
	t := new(tables)
	for _, x := range []struct {
		to      **table
		name    string
		columns string
	}{
		{&t.entries, "entries.csv", "seq time type v actor tenant dagId dagVersion runId stepId attempt traceId dataHash data withheld"},
		{&t.runs, "runs.csv", "runId tenant dagId dagVersion status failureReason failedStep message actor runToken parentRunId parentStepId replayOf generation overridden steps items " +
			"planHash inputsHash outputsHash firstSeq lastSeq createdUtc startedUtc endedUtc durationMs"},
		{&t.steps, "steps.csv", "runId stepId status attempt errorCode reason note inputsHash outputsHash cachedRunId cachedStepId childRunId logsSha256 startedUtc endedUtc durationMs"},
		{&t.attempts, "attempts.csv", "runId stepId attempt generation outcome errorCode message exitCode signal tier plugin entry inputsHash outputsHash artifacts " +
			"logsSha256 logsBytes logsDropped wallMs userMs systemMs maxRssBytes actor startedUtc endedUtc"},
	} {
		w, err := f.create(x.name)
		if err != nil {
			return nil, err
		}
		tab := &table{out: csv.NewWriter(w), w: w}
		tab.out.UseCRLF = true
		w.flush = func() error { tab.out.Flush(); return tab.out.Error() }
		*x.to = tab
		if err := tab.out.Write(strings.Fields(x.columns)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// add writes one record; zero numbers that say nothing are for the caller to leave out.
func (t *table) add(cells ...any) error {
	row := make([]string, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case string:
			row[i] = cell(c)
		case int64:
			row[i] = strconv.FormatInt(c, 10)
		default:
			row[i] = cell(fmt.Sprint(c))
		}
	}
	t.w.records++
	return t.out.Write(row)
}

// cell is a text as a cell may hold it. Spreadsheets take what begins with certain
// characters for a formula, and do what it says.
func cell(s string) string {
	if first, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@'＝＋－＠", first) && s != "" {
		s = "'" + s
	}
	return visible(s)
}

// visible writes characters that cannot be seen, or that turn others around, as what
// they are.
func visible(s string) string {
	hidden := func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2060 && r <= 0x2069 || r == 0xfeff
	}
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// some is a number that says something only where it is not 0.
func some(n int) any {
	if n == 0 {
		return ""
	}
	return n
}

func (t *tables) entry(e entry) error {
	data, err := e.dataOf()
	if err != nil {
		return err
	}
	x := e.Envelope
	return t.entries.add(x.Seq, x.Time, string(x.Type), x.V, x.Actor, x.Tenant, x.DAGID, x.DAGVersion, x.RunID, x.StepID, some(x.Attempt), x.TraceID,
		x.DataHash, string(data), e.withheld)
}

func (t *tables) run(s *story) error {
	var line runLine
	attempts, err := s.foldAll(&line)
	if err != nil {
		return err
	}
	r := line.Run
	if err := t.runs.add(r.RunID, r.Tenant, r.DAGID, r.DAGVersion, r.Status, r.FailureReason, r.FailedStep, r.Message, r.Actor, r.RunToken, r.ParentRunID, r.ParentStepID,
		r.ReplayOf, r.Generation, r.Overridden, r.Steps, r.Items, r.PlanHash, r.InputsHash, r.OutputsHash, r.FirstSeq, r.LastSeq,
		r.CreatedUTC, r.StartedUTC, r.EndedUTC, r.DurationMs); err != nil {
		return err
	}
	for _, st := range line.Steps {
		if err := t.step(r.RunID, st); err != nil {
			return err
		}
	}
	for _, a := range attempts {
		if err := t.attempt(r.RunID, a); err != nil {
			return err
		}
	}
	return nil
}

func (t *tables) step(runID string, st state.Step) error {
	var cachedRun, cachedStep, child string
	if st.Cached != nil {
		cachedRun, cachedStep = st.Cached.RunID, st.Cached.StepID
	}
	if st.Child != nil {
		child = st.Child.RunID
	}
	return t.steps.add(runID, st.StepID, st.Status, some(st.Attempt), st.ErrorCode, st.Reason, st.Note, st.InputsHash, st.OutputsHash,
		cachedRun, cachedStep, child, st.LogsRef, st.StartedUTC, st.EndedUTC, st.DurationMs)
}

func (t *tables) attempt(runID string, a state.Attempt) error {
	end := a.End
	if end == nil {
		end = new(ledger.AttemptEnd) // under way
	}
	var exit any = ""
	if end.ExitCode != nil {
		exit = *end.ExitCode
	}
	logs, use := end.Logs, end.Usage
	if logs == nil {
		logs = new(ledger.LogRef)
	}
	if use == nil {
		use = new(ledger.Usage)
	}
	return t.attempts.add(runID, a.StepID, a.Attempt, a.Generation, end.Outcome, end.ErrorCode, end.Message, exit, end.Signal,
		a.Start.Tier, a.Start.Plugin, a.Start.Entry, a.Start.InputsHash, end.OutputsHash, len(end.Artifacts),
		logs.SHA256, logs.Bytes, logs.Dropped, use.WallMs, use.UserMs, use.SystemMs, use.MaxRSS, a.Actor, a.StartedUTC, a.EndedUTC)
}
