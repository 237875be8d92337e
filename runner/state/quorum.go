package state

import (
	"slices"

	"github.com/stellarun/stella/ledger"
)

// Reach is how far an approval can still get by the people who may decide.
type Reach struct {
	Known bool     // the approvers are a list; else there is always somebody else
	Left  []string // those of them who have not decided and may
	Lost  bool     // continue and retry can no longer reach the quorum
	Never bool     // and could not, had nobody decided yet: to ask again changes nothing
	Abort bool     // one of those who are left can still reject it
}

// vote is what people must agree in.
type vote struct {
	decision, backTo, modifications string
	downstream, repeat              bool
}

// Reach says whether an open approval can still reach its quorum. The starters are who
// started the run, and for whom, of a sub-run the one above all.
func (a *Approval) Reach(starters []string) Reach {
	if !a.open() || len(a.Request.Approvers) == 0 {
		return Reach{}
	}
	r := Reach{Known: true}
	var people []string
	for _, name := range a.Request.Approvers {
		p := Person(name)
		if slices.Contains(people, p) || a.Request.ExcludeStarter && slices.ContainsFunc(starters, func(s string) bool { return Person(s) == p }) {
			continue
		}
		people = append(people, p)
		if !slices.ContainsFunc(a.Decisions, func(d Decision) bool { return Person(d.Actor) == p }) {
			r.Left = append(r.Left, name)
		}
	}
	best, votes := 0, map[vote]int{}
	for _, d := range a.Decisions {
		said := vote{d.Decision, d.BackTo, d.Modifications, d.Downstream, d.Repeat}
		votes[said]++
		best = max(best, votes[said])
	}
	r.Lost = best+len(r.Left) < a.Request.Quorum
	r.Never = len(people) < a.Request.Quorum
	r.Abort = len(r.Left) > 0 && slices.ContainsFunc(a.Request.Options, func(o ledger.ApprovalOption) bool { return o.Decision == "abort" })
	return r
}
