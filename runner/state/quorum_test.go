package state_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
)

func TestWhetherAQuorumCanStillBeReached(t *testing.T) {
	for name, c := range map[string]struct {
		approvers, said string // said: actor decision, with commas
		quorum          int
		exclude         bool
		options         string // "" offers all
		want            state.Reach
	}{
		"anybody may decide":                      {"", "uid:1 continue,uid:2 retry", 2, false, "", state.Reach{}},
		"nobody has decided":                      {"uid:1,uid:2", "", 2, false, "", state.Reach{Known: true, Left: []string{"uid:1", "uid:2"}, Abort: true}},
		"one is left, and can make it":            {"uid:1,uid:2(b)", "uid:1(a) continue", 2, false, "", state.Reach{Known: true, Left: []string{"uid:2(b)"}, Abort: true}},
		"two disagree, and nobody is left":        {"uid:1,uid:2", "uid:1 continue,uid:2 retry", 2, false, "", state.Reach{Known: true, Lost: true}},
		"two disagree, and a third decides":       {"uid:1,uid:2,uid:3", "uid:1 continue,uid:2 retry", 2, false, "", state.Reach{Known: true, Left: []string{"uid:3"}, Abort: true}},
		"who is left can only reject":             {"uid:1,uid:2,uid:3", "uid:1 continue,uid:2 retry", 3, false, "", state.Reach{Known: true, Left: []string{"uid:3"}, Lost: true, Abort: true}},
		"who is left cannot even do that":         {"uid:1,uid:2,uid:3", "uid:1 continue,uid:2 retry", 3, false, "continue,retry", state.Reach{Known: true, Left: []string{"uid:3"}, Lost: true}},
		"the starter would have been needed":      {"uid:1,uid:9(x)", "", 2, true, "", state.Reach{Known: true, Left: []string{"uid:1"}, Lost: true, Never: true, Abort: true}},
		"one person under two names counts once":  {"uid:1(a),uid:1(b)", "", 2, false, "", state.Reach{Known: true, Left: []string{"uid:1(a)"}, Lost: true, Never: true, Abort: true}},
		"retries back to different steps differ":  {"uid:1,uid:2", "uid:1 retry a,uid:2 retry b", 2, false, "", state.Reach{Known: true, Lost: true}},
		"who says repeat says something else":     {"uid:1,uid:2", "uid:1 retry a,uid:2 retry a repeat", 2, false, "", state.Reach{Known: true, Lost: true}},
		"a closed approval reaches nothing more":  {"closed", "", 2, false, "", state.Reach{}},
		"a single quorum is reached by who comes": {"uid:1", "", 1, false, "", state.Reach{Known: true, Left: []string{"uid:1"}, Abort: true}},
	} {
		t.Run(name, func(t *testing.T) {
			a := &state.Approval{Status: state.ApprovalPending, Request: ledger.ApprovalRequest{Quorum: c.quorum, ExcludeStarter: c.exclude}}
			if c.approvers == "closed" {
				a.Status = state.ApprovalWithdrawn
			}
			if c.approvers != "" {
				a.Request.Approvers = strings.Split(c.approvers, ",")
			}
			if c.options == "" {
				c.options = "continue,retry,abort"
			}
			for _, o := range strings.Split(c.options, ",") {
				a.Request.Options = append(a.Request.Options, ledger.ApprovalOption{Label: o, Decision: o})
			}
			for _, text := range strings.Split(c.said, ",") {
				if f := append(strings.Fields(text), "", ""); len(f) > 3 {
					a.Decisions = append(a.Decisions, state.Decision{Actor: f[0], ApprovalDecision: ledger.ApprovalDecision{Decision: f[1], BackTo: f[2], Repeat: f[3] != ""}})
				}
			}
			if diff := cmp.Diff(c.want, a.Reach([]string{"schedule:s", "uid:9(starter)"}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
