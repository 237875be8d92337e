package simtest

import (
	"maps"
	"strings"

	"github.com/stellarun/stella/ledger"
)

// markOf is the word by which an entry of a request is found again.
func markOf(data any) string {
	switch d := data.(type) {
	case *ledger.QueueChange:
		return d.Reason
	case *ledger.LockLoss:
		return d.Reason
	case *ledger.ScheduleAddition:
		return d.Name
	case *ledger.ScheduleSwitch:
		return d.Reason
	case *ledger.SecretChange:
		return d.Reason
	case *ledger.SecretRemoval:
		return d.Reason
	case *ledger.CacheClearing:
		return d.Reason
	case *ledger.DAGSwitch:
		return d.Reason
	}
	return ""
}

// marked: what was acknowledged of the site is on record, as often as that was
// said.
func (a *audit) marked(acks []ack) {
	type key struct{ kind, mark string }
	wrote := map[key]int{}
	for _, e := range a.entries {
		if m := markOf(e.data); strings.HasPrefix(m, "mark-") {
			wrote[key{string(e.Type), m}]++
		}
	}
	for _, k := range acks {
		if n := wrote[key{k.Kind, k.Mark}]; k.Mark != "" && n != k.N {
			a.fault("%d entries were acknowledged, %d are on record: %+v", k.N, n, k)
		}
		if k.Size > int64(len(a.entries)) {
			a.fault("%d entries were shown to a client, and there are %d: %+v", k.Size, len(a.entries), k)
		}
	}
	for k, n := range wrote {
		if n > 1 && k.kind != string(ledger.SecretRemoved) {
			a.fault("%s %s is on record %d times", k.kind, k.mark, n)
		}
	}
}

// stopped: what was paused or drained when a process ended is so in the next one.
func (a *audit) stopped() {
	paused, drained := map[string]bool{}, map[string]bool{}
	var still, shut map[string]bool // from before this process
	for _, e := range a.entries {
		switch d := e.data.(type) {
		case *ledger.SiteStart:
			still, shut = maps.Clone(paused), maps.Clone(drained)
		case *ledger.QueueChange:
			switch e.Type {
			case ledger.QueuePaused:
				paused[d.Tenant] = true
			case ledger.QueueDraining:
				drained[d.Tenant] = true
			case ledger.QueueResumed:
				for _, m := range []map[string]bool{paused, drained, still, shut} {
					delete(m, d.Tenant)
				}
			}
		case *ledger.AttemptStart:
			if still[""] || still[e.Tenant] {
				a.fault("entry %d: %s of %s begins though the queue is paused", e.Seq, e.StepID, e.RunID)
			}
		case *ledger.RunStart:
			if d.Parent == "" && (shut[""] || shut[e.Tenant]) {
				a.fault("entry %d: %s is started though the queue is drained", e.Seq, e.RunID)
			}
		}
	}
}

// secrets: a program found the version that the record says it was given, and
// the value that was kept under it. One that runs for a moment after the power was cut
// finds a disk that gives nothing any more; no other disk here does that.
func (a *audit) secrets(trace trail) {
	marks, used := map[int64]string{}, map[tried]string{}
	for _, e := range a.entries {
		switch d := e.data.(type) {
		case *ledger.SecretChange:
			if d.Name == theSecret {
				marks[d.Version] = d.Reason
			}
		case *ledger.AttemptStart:
			for _, s := range d.Secrets {
				used[tried{e.RunID, e.StepID, e.Attempt}] = valueOf(marks[s.Version])
			}
		}
	}
	for _, x := range trace.began {
		found := trace.secrets[x]
		if strings.HasPrefix(found, "unread:") && strings.HasSuffix(found, "Input/output_error") {
			continue
		}
		if used[x] != found {
			a.fault("%+v found the secret %q, and was given %q", x, found, used[x])
		}
	}
}

// outlived: no program goes on when the process that started it is dead and another
// holds the site.
func (a *audit) outlived(trace trail) {
	open := map[tried]bool{}
	for _, e := range a.entries {
		key := tried{e.RunID, e.StepID, e.Attempt}
		switch e.data.(type) {
		case *ledger.AttemptStart:
			open[key] = true
		case *ledger.AttemptEnd:
			delete(open, key)
		case *ledger.SiteStart:
			for x := range open {
				if at, ok := trace.ended[x]; ok && at.After(e.at) {
					a.fault("entry %d: the program of %+v went on until %s, when another process held the site", e.Seq, x, at.UTC())
				}
			}
		}
	}
}

// schedules: an instant starts one run at most, and a schedule that is paused or
// was removed starts none.
func (a *audit) schedules() (fired int) {
	type key struct{ name, instant string }
	seen, off := map[key]bool{}, map[string]bool{}
	for _, e := range a.entries {
		switch d := e.data.(type) {
		case *ledger.ScheduleSwitch:
			off[d.Name] = e.Type != ledger.ScheduleResumed
		case *ledger.ScheduleFiring:
			if seen[key{d.Name, d.Instant}] {
				a.fault("entry %d: instant %s of %s has fired before", e.Seq, d.Instant, d.Name)
			}
			seen[key{d.Name, d.Instant}] = true
			if d.RunID == "" {
				continue
			}
			if fired++; off[d.Name] {
				a.fault("entry %d: schedule %s starts %s though it is off", e.Seq, d.Name, d.RunID)
			}
		}
	}
	return fired
}
