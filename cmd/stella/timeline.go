package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/server/api"
)

// A moment is an entry of a run in words.
type moment struct {
	at    string // time of day
	actor string
	step  string
	text  string
	minor bool // whoever watches a run does not need it
}

// A timeline says what entries mean.
type timeline struct {
	given map[string]json.RawMessage // what entries name by digest, as far as it is known
}

// maxByHand bounds the characters that are shown of what was given by hand.
const maxByHand = 100

// byHand adds what somebody has given by hand, or its digest.
func (l *timeline) byHand(text, what, digest string) string {
	value := string(l.given[digest])
	switch {
	case digest == "" || value == "{}":
		return text
	case value == "" || utf8.RuneCountInString(value) > maxByHand:
		value = "sha256:" + short(digest)
	}
	return text + ", " + what + " " + value
}

// moment says what an entry of a run means; ok is false for what cannot be read.
func (l *timeline) moment(line api.LedgerLine) (m moment, ok bool) {
	e, err := ledger.ParseEnvelope(line.Envelope)
	if err != nil {
		return m, false
	}
	m = moment{actor: e.Actor, step: e.StepID}
	if t, err := stamp.Parse(e.Time); err == nil {
		m.at = t.Format("15:04:05.000")
	}
	var data any
	if d, err := ledger.ParseData(line.Data); err == nil {
		data, _ = ledger.DecodeData(e.Type, d.Data)
	}
	switch {
	case e.StepID == "":
		m.text, m.minor = runInWords(e, data)
	case strings.HasPrefix(string(e.Type), "approval."):
		m.text = l.approvalInWords(e, data)
	default:
		m.text, m.minor = l.stepInWords(e, data)
	}
	if m.text == "" {
		m.text, m.minor = string(e.Type), true
	}
	return m, true
}

// and adds words after a colon, where there are any.
func and(text, more string) string {
	if more == "" {
		return text
	}
	return text + ": " + more
}

func runInWords(e ledger.Envelope, data any) (text string, minor bool) {
	switch d := data.(type) {
	case *ledger.RunStart:
		text = fmt.Sprintf("started, %d steps", d.Steps)
		if d.Parent != "" {
			text += ", by step " + d.ParentStep + " of run " + d.Parent
		}
		if d.ReplayOf != "" {
			text += ", a replay of " + d.ReplayOf + ": " + d.Rationale
		}
		return text, true
	case *ledger.Note:
		return and(strings.ReplaceAll(strings.TrimPrefix(string(e.Type), "run."), "_", " ")+" by "+e.Actor, d.Reason), e.Type == ledger.RunResumed
	case *ledger.RunFailing:
		text = "to fail, " + d.Code
		if d.Cleanup {
			text += ", its cleanup with it"
		}
		return and(text+", by "+e.Actor, d.Reason), false
	case *ledger.RunGeneration:
		return and(fmt.Sprintf("%s by %s, generation %d", e.Type[len("run."):], e.Actor, d.Generation), d.Reason), false
	case *ledger.Stuckness:
		text = fmt.Sprintf("stuck (%s): nothing has moved for %s; ", d.Level, seconds3(d.IdleMs))
		if len(d.Steps) == 0 {
			return text + "nothing is under way; see what it waits for: stella orch run status " + e.RunID, false
		}
		return text + "under way: " + strings.Join(d.Steps, ", "), false
	case *ledger.Nudge:
		return and(fmt.Sprintf("%s by %s", e.Type[len("run."):], e.Actor), d.Reason), false
	case *ledger.RunComparison:
		if d.Same {
			return fmt.Sprintf("the replay gave the same as run %s in %d steps", d.With, d.Steps), false
		}
		return fmt.Sprintf("the replay differs from run %s: %s", d.With, differencesInWords(d.Differs)), false
	case *ledger.RunAttestation:
		return fmt.Sprintf("attested by %s, %s, sha256:%s", e.Actor, count(d.Subjects, "subject", "subjects"), short(d.SHA256)), false
	case *ledger.RunEnd:
		text = string(e.Type[len("run."):])
		why := d.FailureReason
		if d.FailedStep != "" {
			why += " in " + d.FailedStep
		}
		return and(and(text, why), d.Message), e.Type == ledger.RunCompleted
	}
	return "", true
}

func differencesInWords(list []ledger.Difference) string {
	var out []string
	for i, d := range list {
		if i == 3 {
			out = append(out, fmt.Sprintf("and %d more", len(list)-3))
			break
		}
		what := d.Field
		if d.StepID != "" {
			what = d.StepID + " " + what
		}
		out = append(out, what)
	}
	return strings.Join(out, ", ")
}

func (l *timeline) stepInWords(e ledger.Envelope, data any) (text string, minor bool) {
	switch d := data.(type) {
	case *ledger.StepQueue:
		if d.Due == "" {
			return "queued (" + d.Reason + ")", true
		}
		return fmt.Sprintf("again at %s (%s)", seconds(d.Due), d.Reason), false
	case *ledger.AttemptStart:
		text = fmt.Sprintf("attempt %d started", e.Attempt)
		for _, l := range d.Locks {
			text += ", holds " + l.Kind + " " + l.Name
		}
		for _, s := range d.Secrets {
			text += fmt.Sprintf(", given version %d of the secret %s", s.Version, s.Name)
		}
		return text, false
	case *ledger.AttemptEnd:
		return and(fmt.Sprintf("attempt %d %s", e.Attempt, d.Outcome), codeAnd(d.ErrorCode, d.Message)), d.Outcome == string(state.Succeeded)
	case *ledger.StepEnd:
		text = string(e.Type[len("step."):])
		if e.Actor != "system:runner" {
			text += " by " + e.Actor
		}
		if d.Overridden {
			text = l.byHand(text, "outputs by hand", d.OutputsHash)
		}
		return and(and(text, whyStep(d.ErrorCode, d.Reason)), d.Note), false
	case *ledger.StepExpansion:
		return fmt.Sprintf("%d items", d.Count), false
	case *ledger.StepInvalidation:
		return l.byHand("pending again ("+d.Reason+") by "+e.Actor, "parameters changed by", d.Overlay), false
	case *ledger.CacheHit:
		return fmt.Sprintf("taken from the cache: step %s of run %s", d.StepID, d.RunID), false
	case *ledger.SubrunStart:
		return fmt.Sprintf("started run %s of %s %s", d.RunID, d.DAGID, d.DAGVersion), false
	case *ledger.SubrunEnd:
		return and(fmt.Sprintf("run %s is %s", d.RunID, d.Status), d.FailureReason), false
	}
	return "", true
}

func (l *timeline) approvalInWords(e ledger.Envelope, data any) string {
	id := state.ApprovalID(e.RunID, e.StepID, e.Attempt)
	switch d := data.(type) {
	case *ledger.ApprovalRequest:
		return fmt.Sprintf("waits for people: %s (stella orch approvals decide %s)", d.Question, id)
	case *ledger.ApprovalDecision:
		text := e.Actor + " says " + d.Decision
		if d.BackTo != "" {
			text += ", back to " + d.BackTo
		}
		if d.Downstream {
			text += ", with what depends on it"
		}
		return and(l.byHand(text, "modifications", d.Modifications), d.Notes)
	case *ledger.ApprovalRefusal:
		return fmt.Sprintf("%s said %s, which does not count: %s", e.Actor, d.Decision, d.Code)
	case *ledger.ApprovalClosing:
		return "approval " + d.Result
	}
	return ""
}

// seconds3 shows milliseconds as a duration.
func seconds3(ms int64) string { return duration(ms, state.Completed) }
