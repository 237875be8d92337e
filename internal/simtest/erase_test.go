package simtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// erasing is the kind of an [ack] that nobody was told yet: a client is about to agree.
const erasing = "erasing"

// words are such as nobody has said.
func (c *client) words() string { return fmt.Sprintf("said-%016x", c.rng.Uint64()) }

// erase has what somebody has said when a run was cancelled erased: one person asks, and
// another agrees.
func (c *client) erase(ctx context.Context) error {
	all, err := c.site.TailLedger(ctx, api.LedgerQuery{Type: string(ledger.RunCancelRequested), Last: true, Limit: 10})
	if err != nil {
		return err
	}
	at, said := int64(0), ""
	for _, l := range all {
		var line struct{ Data ledger.Note }
		if len(l.Data) == 0 {
			continue // it was erased
		}
		if err := json.Unmarshal(l.Data, &line); err != nil {
			return err
		}
		if strings.HasPrefix(line.Data.Reason, "said-") { // else it is somebody's who cancels a parent
			at, said = l.Seq, line.Data.Reason
		}
	}
	if said == "" {
		return c.byHand(ctx, aCancel)
	}
	try, err := c.site.EraseData(ctx, api.ErasureRequest{Entries: []int64{at}, Reason: "r", DryRun: true})
	if err != nil {
		return err
	}
	asked, err := c.site.EraseData(ctx, api.ErasureRequest{Entries: append(try.AlsoIn, at), Reason: "r"})
	if err != nil {
		return err
	}
	second := 0
	if c.person(second) == c.actor {
		second++
	}
	other, err := c.connect(second)
	if err != nil {
		return err
	}
	defer other.Close()
	for _, seq := range asked.Entries {
		if err := c.journal.add(ack{Kind: erasing, Actor: c.actor, Seq: seq, Text: said}); err != nil {
			return err
		}
	}
	out, err := other.EraseData(ctx, api.ErasureRequest{Agree: &asked.Seq})
	if err != nil {
		return err
	}
	c.count(string(ledger.DataErased))
	return c.journal.add(ack{Kind: string(ledger.DataErased), Actor: c.actor, Seq: at, Text: said, Changed: out.Waits == "" && len(out.AlsoIn) == 0, Size: out.Seq + 1})
}

// erasures: what two people have had erased is gone, from ledger.db, as it was left, too if they
// were told so, or once a daemon has had the time; and nothing else is.
func (a *audit) erasures(acks []ack, raw []byte, last bool) {
	begun := map[int64]bool{}
	for _, k := range acks {
		if k.Text == "" || k.Seq >= int64(len(a.entries)) {
			continue
		}
		begun[k.Seq] = true
		e := a.entries[k.Seq]
		there := bytes.Contains(raw, []byte(k.Text))
		switch {
		case k.Kind != erasing && !e.erased:
			a.fault("an erasure that was acknowledged is not on record: %+v", k)
		case !e.erased && !there:
			a.fault("what nobody has erased is gone: %+v", k)
		case e.erased && there && (k.Changed || last) && !a.quoted(k.Text):
			a.fault("what was erased is in ledger.db: %+v", k)
		}
	}
	for _, e := range a.entries {
		if e.erased && !begun[e.Seq] {
			a.fault("entry %d was erased by nobody", e.Seq)
		}
	}
}

// quoted says whether something that is not erased repeats a text: a sub-run is cancelled with the
// reason of its parent, and can be later than somebody has looked for that.
func (a *audit) quoted(text string) bool {
	for _, e := range a.entries {
		raw, err := json.Marshal(e.data)
		if err != nil || bytes.Contains(raw, []byte(text)) {
			return true
		}
	}
	return false
}
