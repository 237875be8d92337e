package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

var hasher = rfc6962.DefaultHasher

// checkWindow is part 6, window.json.
func (a *audit) checkWindow() {
	a.window = decode(a.read("ledger/window.json", maxSmall), "\n")
	demand(number(a.window, "first") == a.first && number(a.window, "count") == a.count && number(a.window, "treeSize") == a.size && (text(a.window, "before") != "") == (a.first > 0),
		"it is not of the window of the manifest")
}

// entry is what the envelope of an entry says (part 4), with the members that are asked for most.
type entry struct {
	all, data           any // data is nil if it is withheld, or of a type that is not known
	seq                 int64
	time, run, typ, sum string
}

func parseEnvelope(line []byte) entry {
	o := decode(line, "")
	e := entry{o, nil, number(o, "seq"), text(o, "time"), text(o, "runId"), text(o, "type"), text(o, "dataHash")}
	for name := range o {
		demand(strings.Contains(" actor attempt dagId dagVersion dataHash runId seq stepId tenant time traceId type v ", " "+name+" "), "an envelope has no %.40q", name)
	}
	parseTime(e.time)
	demand(len(line) <= 8<<10 && text(o, "actor") != "" && e.typ != "" && number(o, "v") > 0 && isDigest(e.sum), "not an envelope")
	demand((e.typ == "site.initialized") == (e.seq == 0), "a site is initialized by entry 0, and never again")
	return e
}

// checkEnvelopes is part 4 and 6: every entry from first to last, in order. Each run gets a hash over its envelopes.
func (a *audit) checkEnvelopes() {
	seq, last := a.first, a.from
	for line := range a.lines("ledger/envelopes.ndjson.zst", maxLine) {
		e := parseEnvelope(line)
		demand(e.seq == seq, "entry %d stands where %d belongs", e.seq, seq)
		demand(e.time >= last && e.time < a.to, "its time is before that of the entry before it, or outside the window")
		if e.run != "" {
			a.runs[e.run] = hasher.HashChildren(a.runs[e.run], hasher.HashLeaf(line))
		}
		seq, last = seq+1, e.time
	}
	demand(seq == a.first+a.count, "entry %d is missing", seq)
}

// checkRoot is part 6, window.json: these envelopes, their neighbours and the largest complete subtrees beside them
// lead to the signed root. Roots of sizes on the way are kept where somebody asks for them.
func (a *audit) checkRoot() {
	wanted := []uint64{uint64(a.first), uint64(a.first + a.count), a.note.size}
	for _, raw := range [][]byte{a.previous, a.cosigned} {
		outcome(func() { wanted = append(wanted, parseNote(raw).size) })
	}
	a.roots[0] = hasher.EmptyRoot()
	ranges := &compact.RangeFactory{Hash: hasher.HashChildren}
	tree := ranges.NewEmptyRange(0)
	add := func(leaves uint64, hash []byte) {
		try(0, tree.AppendRange(try(ranges.NewRange(tree.End(), tree.End()+leaves, [][]byte{hash})), nil))
		if slices.Contains(wanted, tree.End()) {
			a.roots[tree.End()] = try(tree.GetRootHash(nil))
		}
	}
	subtrees := func(end int64, texts []any) {
		nodes, all := compact.RangeNodes(tree.End(), uint64(end), nil), hashes(texts)
		demand(len(nodes) == len(all), "window.json has %d subtrees up to entry %d, and there should be %d", len(all), end, len(nodes))
		for i, node := range nodes {
			from, to := node.Coverage()
			add(to-from, all[i])
		}
	}
	subtrees(max(a.first-1, 0), list(a.window, "left"))
	if a.first > 0 {
		add(1, hasher.HashLeaf([]byte(text(a.window, "before"))))
	}
	for line := range a.lines("ledger/envelopes.ndjson.zst", maxLine) {
		add(1, hasher.HashLeaf(line))
	}
	add(1, hasher.HashLeaf([]byte(text(a.window, "after"))))
	subtrees(a.size, list(a.window, "right"))
	demand(bytes.Equal(a.roots[a.note.size], a.note.root), "they have another root than the checkpoint")
}

// checkEdges is part 6: nothing of the window's time lies outside.
func (a *audit) checkEdges() {
	after := parseEnvelope([]byte(text(a.window, "after")))
	demand(after.seq == a.first+a.count && after.time >= a.to, "after is not entry %d, at or after the window's end", a.first+a.count)
	if a.first > 0 {
		before := parseEnvelope([]byte(text(a.window, "before")))
		demand(before.seq == a.first-1 && before.time < a.from, "before is not entry %d, before the window", a.first-1)
	}
}

// extends is part 5, consistency: a note from outside is of this site, signed by its log, and of one history with
// the archive. At sizes on the way to the archive's root, its root is known.
func (a *audit) extends(raw []byte, proofs [][]byte, flag string) *note {
	n := parseNote(raw)
	demand(siteOf(n.origin) == a.site && n.signedBy(a.logIn), "the note is of another site, or not signed by the key of its log")
	root, ok := a.roots[n.size]
	stopIf(!ok && len(proofs) == 0, "missing", incomplete, "the root of %d entries does not follow from this archive: give %s", n.size, flag)
	x, y := n, a.note
	if x.size > y.size {
		x, y = y, x
	}
	ok = ok && bytes.Equal(root, n.root) || !ok && proof.VerifyConsistency(hasher, x.size, y.size, proofs, x.root, y.root) == nil
	demand(ok, "the tree of %d entries and that of this archive are of two histories", n.size)
	return n
}

func (a *audit) checkPrevious() {
	stopIf(a.previous == nil, "-", verified, "no --previous: whether history was rewritten before this archive is not known")
	a.extends(a.previous, a.consistency, "--consistency")
}

// checkWitnesses is part 7, witnesses: those count who have seen all of the window.
func (a *audit) checkWitnesses() {
	if a.cosigned != nil {
		n, keys := a.extends(a.cosigned, a.cosignedProof, "--cosigned-consistency"), map[string]bool{}
		for _, w := range a.witnesses {
			demand(!bytes.HasSuffix(a.logIn, w.raw), "the log cannot be its own witness")
			if n.cosignedBy(w) && n.size >= uint64(a.first+a.count) {
				keys[string(w.raw)] = true
			}
		}
		a.witnessed = len(keys)
	}
	stopIf(a.witnessed < a.min, "missing", incomplete, "%d witnesses have signed a tree that holds the window, and %d are demanded", a.witnessed, a.min)
	stopIf(a.cosigned == nil, "-", verified, "no --cosigned: whether the site shows others another ledger is not known")
}

// checkMeets is part 6: the archive before ends where this one begins, and both have the same entries up to there.
func (a *audit) checkMeets(before *audit) {
	stopIf(before == nil, "-", verified, "no archive before this one was named")
	end := before.first + before.count
	demand(end == a.first, "the archive before ends with entry %d, and this one begins with %d: one was left out between them", end-1, a.first)
	demand(bytes.Equal(before.roots[uint64(end)], a.roots[uint64(end)]), "the archive before has another history")
}

// types are those of part 4, each line with the members of their data that name sealed files (part 6, evidence).
const types = `site.initialized: root policy; trust.changed: root policy revocations trustedRoot signatures; trust.extended: file signatures
bundle.admitted: verdict.digest verdict.attestations attestations signatures verdict.trust.*
import.received: receipt; gc.completed archive.created: list; epoch.begun: evidence; checkpoint.cosigned: note; dag.published: digest spec; schedule.added: inputsHash
run.started: planHash inputsHash dagDigest trust.*; subrun.started: planHash inputsHash
attempt.started: plugin planHash inputsHash overlay trust.*
step.cached: inputsHash outputsHash trust.*; step.expanded: items; step.invalidated: overlay
approval.decided approval.closed: modifications; approval.requested: outputsHash
attempt.ended subrun.ended run.completed run.failed run.cancelled step.completed step.failed step.skipped step.cancelled: outputsHash
site.started site.stopped clock.accepted floor.waived bundle.rejected bundles.rejected workspaces.removed dag.disabled:
dag.enabled export.created outbox.dead outbox.requeued outbox.forgotten queue.paused queue.resumed queue.draining:
lock.reclaimed lock.forced cache.cleared schedule.paused schedule.resumed schedule.removed schedule.fired secret.set:
snapshot.created site.compacted secret.rotated secret.removed run.cancel_requested run.abort_requested run.resumed run.timed_out run.fail_requested:
erasure.requested data.erased run.attested run.reopened run.reset run.stuck run.nudged run.restarted run.compared step.queued repeat.withdrawn approval.refused:`

// naming gives the members of types.
var naming = func() map[string][]string {
	all := map[string][]string{}
	for line := range strings.FieldsFuncSeq(types, func(r rune) bool { return r == ';' || r == '\n' }) {
		names, members, _ := strings.Cut(line, ":")
		for _, name := range strings.Fields(names) {
			all[name] = strings.Fields(members)
		}
	}
	return all
}()

// dataOf is part 4, data line: the one that the entry names, or a place holder that the manifest declares.
func (a *audit) dataOf(e entry, line []byte) (data any, whole bool) {
	if digest(line) != e.sum {
		reason := a.withholds("data", e.seq, "")
		demand(reason != "" && string(line) == fmt.Sprintf(`{"seq":%d,"withheld":"%s"}`, e.seq, reason), "entry %d: not the data that the entry names, nor declared as withheld", e.seq)
		return nil, false
	}
	o := decode(line, "")
	data, ok := o["data"].(object)
	demand(ok && len(o) == 3 && number(o, "seq") == e.seq && isDigest(text(o, "salt")) && len(line) <= 64<<10, "entry %d: the data line is malformed", e.seq)
	if _, known := naming[e.typ]; !known || number(e.all, "v") != 1 {
		a.unknown[e.typ] = true
		return nil, true
	}
	return data, true
}

// entries walks the window, both lines of each entry in step.
func (a *audit) entries() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		next, stop := iter.Pull(a.lines("ledger/envelopes.ndjson.zst", maxLine))
		defer stop()
		for line := range a.lines("ledger/data.ndjson.zst", maxLine) {
			envelope, ok := next()
			demand(ok, "more data lines than envelopes")
			e := parseEnvelope(envelope)
			if e.data, _ = a.dataOf(e, line); !yield(e) {
				return
			}
		}
		_, more := next()
		demand(!more, "fewer data lines than envelopes")
	}
}

// checkData is part 4, data line, for every entry.
func (a *audit) checkData() {
	epochs := ""
	for e := range a.entries() {
		switch {
		case e.seq == 0:
			a.genesis = e.data
		case e.typ == "epoch.begun" && e.data != nil:
			demand(number(e.data, "size") == e.seq, "an epoch begins elsewhere than behind what it has adopted")
			epochs += fmt.Sprintf(" entry %d begins epoch %d: the ledger was %.40q", e.seq, number(e.data, "epoch"), text(e.data, "cause"))
		}
	}
	stopIf(len(a.unknown) > 0, "missing", incomplete, "entries are of types that this program does not know: %q", slices.Sorted(maps.Keys(a.unknown)))
	stopIf(epochs != "", "ok", verified, "but%s", epochs)
}

// checkGenesis is part 4, site.initialized: entry 0 binds the site to its keys.
func (a *audit) checkGenesis() {
	stopIf(a.first > 0 || a.count == 0, "-", verified, "entry 0 is in an earlier archive")
	stopIf(a.genesis == nil, "missing", incomplete, "the data of entry 0 is withheld")
	demand(text(a.genesis, "siteId") == a.site, "entry 0 is of site %.40q", text(a.genesis, "siteId"))
	demand(bytes.Equal(unbase64(text(a.genesis, "keys.log")), a.logIn) && bytes.Equal(unbase64(text(a.genesis, "keys.site")), a.siteIn), "entry 0 names other keys than those inside")
}

// checkEvidence is part 6, evidence: exactly the sealed files that entries name. What is neither there nor
// declared ends it, so it remembers no more names than the manifest has.
func (a *audit) checkEvidence() {
	named := map[string]bool{"": true}
	for e := range a.entries() {
		for _, m := range naming[e.typ] {
			for _, item := range list(e.data, m) {
				if sum, _ := item.(string); !named[sum] {
					there, declared := a.members[evidence+sum] != nil, a.withholds("evidence", e.seq, sum) != ""
					demand(there != declared, "%s of entry %d names %.80q: it must be there, or declared with this entry", m, e.seq, sum)
					named[sum] = true
				}
			}
		}
	}
	for name := range a.members {
		sum, ok := strings.CutPrefix(name, evidence)
		demand(!ok || named[sum], "%s: no entry of the window names it", name)
	}
}

// checkRuns is part 6, runs.ndjson: all runs of the window, in order, with all their entries, byte for byte.
// Whether run and steps follow from the events is left to "export verify".
func (a *audit) checkRuns() {
	last := ""
	for line := range a.lines("ledger/runs.ndjson.zst", maxRun) {
		r, before, whole, started := decode(line, ""), entry{seq: -1}, true, ""
		var chain []byte
		for _, v := range list(r, "events") {
			event, _ := v.(object)
			line := encode(event["envelope"]) // what stands there, since it is canonical
			e := parseEnvelope(line)
			demand(e.run == text(r, "runId") && e.seq > before.seq && e.time >= before.time && e.seq < a.first+a.count, "entry %d does not belong into this place", e.seq)
			demand((before.seq < 0) == (e.typ == "run.started"), "a run begins with run.started, and only once")
			demand(e.seq != a.first-1 || string(line) == text(a.window, "before"), "entry %d is another than the one before the window", e.seq)
			demand(e.seq >= a.first || e.time < a.from, "entry %d is not before the window", e.seq)
			if e.seq >= a.first {
				chain = hasher.HashChildren(chain, hasher.HashLeaf(line))
			}
			_, there := a.dataOf(e, encode(event["data"]))
			if whole = whole && there; started == "" && e.typ == "attempt.started" {
				started = e.time
			}
			before = e
		}
		demand(chain != nil && bytes.Equal(chain, a.runs[text(r, "runId")]), "not all entries that the run has in the window, or others")
		delete(a.runs, text(r, "runId"))
		demand(whole == (r["run"] != nil) && (whole || r["steps"] == nil), "run is there, and steps can be, exactly if no data is withheld")
		order := fmt.Sprintf("%30s %s", started, text(r, "runId"))
		demand(order > last, "the run is not in its place")
		last = order
	}
	demand(len(a.runs) == 0, "runs have entries in the window, and no line: %.200q", slices.Sorted(maps.Keys(a.runs)))
}

// checkLogs is part 6, telemetry, logs: the records give the segments (part 3) that entries name, byte for byte,
// and no others. The exact form of their lines is left to "export verify".
func (a *audit) checkLogs() {
	next, stop := iter.Pull(a.lines("telemetry/logs.jsonl.zst", 1<<20))
	defer stop()
	dropped := int64(0)
	for e := range a.entries() {
		if sum := text(e.data, "logs.sha256"); e.typ == "attempt.ended" && sum != "" {
			dropped += number(e.data, "logs.dropped")
			if a.withholds("log", e.seq, sum) == "" {
				a.checkSegment(e, next)
			}
		}
	}
	_, more := next()
	demand(!more, "there are log lines that belong to no attempt")
	demand(dropped == number(a.manifest, "dropped.logs"), "the attempts dropped %d bytes, the manifest says %d", dropped, number(a.manifest, "dropped.logs"))
}

// checkSegment makes the segment of an attempt anew from its lines.
func (a *audit) checkSegment(e entry, next func() ([]byte, bool)) {
	segment, size, seq := sha256.New(), 0, int64(0)
	for seq < number(e.data, "logs.records") {
		line, ok := next()
		demand(ok, "log lines of entry %d are missing", e.seq)
		for _, r := range list(parse(line), "resourceLogs.scopeLogs.logRecords") {
			is := map[string]string{}
			for _, at := range list(r, "attributes") {
				is[text(at, "key")] = text(at, "value.stringValue") + text(at, "value.intValue")
			}
			for key, want := range map[string]string{"tenant": text(e.all, "tenant"), "dagId": text(e.all, "dagId"), "runId": e.run, "stepId": text(e.all, "stepId"),
				"status": text(e.data, "outcome"), "attempt": fmt.Sprint(number(e.all, "attempt")), "seq": fmt.Sprint(seq)} {
				demand(is[key] == want, "record %d of entry %d says %s %.80q", seq, e.seq, key, is[key])
			}
			at := time.Unix(0, try(strconv.ParseInt("0"+text(r, "timeUnixNano"), 10, 64))).UTC().Format(timeForm)
			out := append(encode(object{"seq": seq, "stream": is["stream"], "text": text(r, "body.stringValue"), "time": at}), '\n')
			segment.Write(out)
			size, seq = size+len(out), seq+1
		}
	}
	demand(fmt.Sprintf("%x", segment.Sum(nil)) == text(e.data, "logs.sha256") && int64(size) == number(e.data, "logs.bytes"), "the log lines do not give the segment that entry %d names", e.seq)
}
