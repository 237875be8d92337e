package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

var hasher = rfc6962.DefaultHasher

// checkWindow is part 6, window.json.
func (a *audit) checkWindow() {
	a.window = decode(a.read("ledger/window.json", maxSmall), maxSmall, "\n")
	form := object{"after": text(a.window, "after"), "first": a.first, "count": a.count, "treeSize": a.size, "left": append([]any{}, list(a.window, "left")...), "right": append([]any{}, list(a.window, "right")...)}
	maps.Copy(form, map[bool]object{true: {"before": text(a.window, "before")}}[a.first > 0])
	demand(bytes.Equal(encode(form), encode(a.window)), "it is not of the window of the manifest, or not in the one accepted form")
}

// entry is what the envelope of an entry says (part 4), with the members that are asked for most.
type entry struct {
	all, data                         any // data is nil if it is withheld, or of a type that is not known
	seq                               int64
	time, run, typ, sum, of, earliest string // of is the same for all entries of a run; earliest when what it says was decided: up to a day before, since a medium is read between; "" if the clock is withheld
}

func parseEnvelope(line []byte) entry {
	o := decode(line, 8<<10, "")
	e := entry{o, nil, number(o, "seq"), text(o, "time"), text(o, "runId"), text(o, "type"), text(o, "dataHash"), fmt.Sprintf("%q %q %q %q", text(o, "tenant"), text(o, "dagId"), text(o, "dagVersion"), text(o, "traceId")), ""}
	want := object{"actor": text(o, "actor"), "attempt": number(o, "attempt"), "dagId": text(o, "dagId"), "dagVersion": text(o, "dagVersion"), "dataHash": e.sum, "runId": e.run,
		"stepId": text(o, "stepId"), "time": e.time, "traceId": text(o, "traceId"), "type": e.typ, "v": number(o, "v")}
	maps.DeleteFunc(want, func(_ string, v any) bool { return v == "" || v == int64(0) }) // what is not said is not there
	want["seq"], want["tenant"] = max(e.seq, 0), text(o, "tenant")
	demand(bytes.Equal(encode(want), line) && text(o, "actor") != "" && e.typ != "" && number(o, "v") > 0 && number(o, "attempt") >= 0 && isDigest(e.sum) && !parseTime(e.time).IsZero(), "not an envelope")
	demand((e.typ == "site.initialized") == (e.seq == 0), "a site is initialized by entry 0, and never again")
	n := max(about[strings.Split(e.typ, ".")[0]], about[e.typ])
	demand(!e.known() || (e.run != "") == (n > 0) && (text(o, "stepId") != "") == (n > 1) && (number(o, "attempt") > 0) == (n > 2), "entry %d, %s, does not say what it is about, or more", e.seq, e.typ)
	return e
}

// about is what entries are about (part 4, envelope), by type or the first part of it: 1 a run, 2 a step of one, 3 an attempt of one; all others are about the site.
var about = map[string]int{"run": 1, "step": 2, "repeat": 2, "attempt": 3, "subrun": 3, "approval": 3, "step.expanded": 3, "step.cached": 3}

// known says whether this program knows the type, in its version.
func (e entry) known() bool { return naming[e.typ] != nil && number(e.all, "v") == 1 }

// checkEnvelopes is part 4 and 6: every entry from first to last, in order. Each run gets a hash over its envelopes, from the first of the archives on that meet.
func (a *audit) checkEnvelopes() {
	seq, last := a.first, a.from
	if a.since = a.first; a.before != nil && a.before.worst != failed && a.before.first+a.before.count == a.first {
		a.runs, a.since, a.epoch = a.before.runs, a.before.since, a.before.epoch
	}
	for line := range a.lines("ledger/envelopes.ndjson.zst", maxLine) {
		e := parseEnvelope(line)
		demand(e.seq == seq, "entry %d stands where %d belongs", e.seq, seq)
		demand(e.time >= last && e.time < a.to, "its time is before that of the entry before it, or outside the window")
		a.runs[e.run] = hasher.HashChildren(a.runs[e.run], hasher.HashLeaf(line))
		a.untold[e.run], seq, last = true, seq+1, e.time
	}
	delete(a.untold, "") // entries of the site
	demand(seq == a.first+a.count, "entry %d is missing", seq)
}

// checkRoot is part 6, window.json: these envelopes, their neighbours and the largest complete subtrees beside them lead to the signed root. Roots of sizes on the way are kept where somebody asks for them.
func (a *audit) checkRoot() {
	a.roots[0] = hasher.EmptyRoot()
	ranges := &compact.RangeFactory{Hash: hasher.HashChildren}
	tree := ranges.NewEmptyRange(0)
	add := func(leaves uint64, hash []byte) {
		try(0, tree.AppendRange(try(ranges.NewRange(tree.End(), tree.End()+leaves, [][]byte{hash})), nil))
		if slices.Contains([]int64{a.first, a.first + a.count, a.size, a.previous.size, a.cosigned.size}, int64(tree.End())) || slices.ContainsFunc(a.open, func(n note) bool { return n.size == int64(tree.End()) }) {
			a.roots[int64(tree.End())] = try(tree.GetRootHash(nil))
		}
	}
	subtrees := func(end int64, texts []any) {
		nodes, all := compact.RangeNodes(tree.End(), uint64(end), nil), hashes(texts)
		demand(len(nodes) == len(all), "window.json has %d subtrees up to entry %d, and there should be %d", len(all), end, len(nodes))
		for i, node := range nodes {
			add(1<<node.Level, all[i])
		}
	}
	subtrees(max(a.first-1, 0), list(a.window, "left"))
	if a.first > 0 {
		add(1, hasher.HashLeaf([]byte(text(a.window, "before"))))
	}
	for line := range a.lines("ledger/envelopes.ndjson.zst", maxLine) {
		if bytes.Contains(line, []byte(`"type":"epoch.begun"`)) { // it says the root so far
			a.roots[int64(tree.End())] = try(tree.GetRootHash(nil))
		}
		add(1, hasher.HashLeaf(line))
	}
	add(1, hasher.HashLeaf([]byte(text(a.window, "after"))))
	subtrees(a.size, list(a.window, "right"))
	demand(bytes.Equal(a.roots[a.size], a.note.root), "they have another root than the checkpoint")
}

// checkEdges is part 6: nothing of the window's time lies outside.
func (a *audit) checkEdges() {
	after := parseEnvelope([]byte(text(a.window, "after")))
	demand(after.seq == a.first+a.count && after.time >= a.to, "after is not entry %d, at or after the window's end", a.first+a.count)
	stopIf(a.first == 0, "ok", verified, "the window begins with the ledger")
	before := parseEnvelope([]byte(text(a.window, "before")))
	demand(before.seq == a.first-1 && before.time < a.from, "before is not entry %d, before the window", a.first-1)
}

// checkPrevious is part 7, previous.
func (a *audit) checkPrevious() {
	stopIf(a.before != nil || a.previous.text == "", "-", verified, "no --previous, which is about the first archive: whether history was rewritten before that is not known")
	a.extends(a.previous, a.proofs, "--consistency")
}

// extends is part 5, consistency: a note from outside is of this site, signed by its log, and of one history with the archive. At sizes on the way to the archive's root, its root is known.
func (a *audit) extends(n note, proofs []any, flag string) {
	stopIf(siteOf(n.origin) != a.site, "not judged", unjudged, "the note is of site %s: give one of this site", siteOf(n.origin))
	demand(n.signedBy(a.logIn), "the note is not signed by the key of its log")
	for _, e := range a.epochs {
		adopted, of := number(e, "size"), epochOf(n.origin)
		demand(n.size <= adopted || of >= number(e, "epoch"), "entry %d begins epoch %d and adopts what was before it; the note is of epoch %d and covers %d entries: the others were given up", adopted, number(e, "epoch"), of, n.size)
	}
	from, to, roots, given := min(n.size, a.size), max(n.size, a.size), map[int64][]byte{n.size: n.root, a.size: a.note.root}, object{"": proofs}
	root, known := a.roots[n.size]
	fits := slices.IndexFunc(proofs, func(p any) bool { return number(p, "oldSize") == from && number(p, "size") == to })
	stopIf(!known && fits < 0, "missing", incomplete, "%d to %d is needed, given: %.0f to %.0f; %s FILE of stella ledger prove --consistency %d --to %d", from, to, list(given, ".oldSize"), list(given, ".size"), flag, from, to)
	demand(!known || bytes.Equal(root, n.root), "the tree of %d entries and that of this archive are of two histories", n.size)
	holds := known || proof.VerifyConsistency(hasher, uint64(from), uint64(to), hashes(list(proofs[fits], "proof")), roots[from], roots[to]) == nil
	demand(holds, "the proof does not hold, or the tree of %d entries and that of this archive are of two histories", n.size)
}

// checkWitnesses is part 7, witnesses: those count who have seen all of the window, and that it was closed.
func (a *audit) checkWitnesses() {
	lacks, end, keys, said := min(a.min, incomplete), a.first+a.count, map[string]bool{}, ""
	small := a.cosigned.text == "" || a.cosigned.size <= end && siteOf(a.cosigned.origin) == a.site
	stopIf(len(a.witnesses) == 0 || small, [...]string{"-", "missing"}[lacks], lacks, "skipped: without --witness, and --cosigned of a tree of more than %d entries, nobody knows what the site shows others", end)
	a.extends(a.cosigned, a.cosignedProof, "--cosigned-consistency")
	for _, w := range a.witnesses {
		if at := a.cosigned.cosignedBy(w); at != 0 && !keys[string(w.raw)] {
			keys[string(w.raw)], said = true, fmt.Sprintf("%s %s at %s", said, w.name, time.Unix(at, 0).UTC().Format(time.RFC3339))
			a.witnessed = fmt.Sprint("WITNESSED ", len(keys))
		}
	}
	stopIf(len(keys) < a.min, "missing", incomplete, "%d are demanded, and %d have signed:%s", a.min, len(keys), said)
	stopIf(true, "ok", verified, "%d have signed:%s", len(keys), said)
}

// checkMeets is part 7, meets: the archive before ends where this one begins, and both have the same entries up to there. What the checkpoints of those before cover behind their windows is here, too, once roots on the way tell.
func (a *audit) checkMeets() {
	defer func() { a.open = append(a.open, a.note) }()
	stopIf(a.before == nil, "-", verified, "no archive before this one was named")
	end := a.before.first + a.before.count
	stopIf(a.before.roots[end] == nil, "not judged", verified, "of the archive before, the end is not known")
	demand(end == a.first, "the archive before ends with entry %d, and this one begins with %d: one was left out between them, or they overlap, or stand in another order", end-1, a.first)
	demand(bytes.Equal(a.before.roots[end], a.roots[end]), "the archive before has another history")
	a.open = slices.DeleteFunc(a.open, func(n note) bool {
		behind := outcome(func() { a.extends(n, nil, "") })
		demand(behind.verdict != failed || !n.signedBy(a.logIn), "the checkpoint of %d entries, of an archive before: %s", n.size, behind.text)
		return behind.status == "ok"
	})
	stopIf(len(a.open) > 0, "ok", verified, "%d checkpoints of archives before cover more than this window, and were not compared so far", len(a.open))
}

//go:embed types.json
var types []byte // those of part 4, each with the members of its data that name sealed files (part 6, evidence), and, with *, in which people speak
var naming = parse[map[string][]string](types)

// dataOf is part 4, data line: the one that the entry names, or a place holder that the manifest declares.
func (a *audit) dataOf(e entry, line []byte) (data any, whole bool) {
	if digest(line) != e.sum {
		reason := a.withholds("data", e.seq, "")
		demand(reason != "" && string(line) == fmt.Sprintf(`{"seq":%d,"withheld":"%s"}`, e.seq, reason), "entry %d: not the data that the entry names, nor declared as withheld", e.seq)
		demand(reason != "erased" || naming[e.typ] == nil || strings.Contains(fmt.Sprint(naming[e.typ]), "*"), "entry %d: in %s nobody speaks, and it cannot be erased", e.seq, e.typ)
		return nil, false
	}
	o := decode(line, 64<<10, "")
	data, ok := o["data"].(object)
	demand(ok && len(o) == 3 && number(o, "seq") == e.seq && isDigest(text(o, "salt")), "entry %d: the data line is malformed", e.seq)
	if !e.known() {
		a.unknown[map[bool]string{true: e.typ, false: "others"}[len(a.unknown) < 20]] = true
		return nil, true
	}
	return data, true
}

// entries walks the window, both lines of each entry in step.
func (a *audit) entries() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		next, stop := iter.Pull(a.lines("ledger/envelopes.ndjson.zst", maxLine))
		defer stop()
		clock := entry{} // the last that accepted one behind the record: times stand still until it has come up with them
		for line := range a.lines("ledger/data.ndjson.zst", maxLine) {
			envelope, _ := next()
			e := parseEnvelope(envelope)
			if e.data, _ = a.dataOf(e, line); e.typ == "clock.accepted" {
				clock = e
			}
			e.earliest = map[bool]string{false: e.time, true: text(clock.data, "clock")}[e.time == clock.time]
			if e.earliest != "" {
				e.earliest = parseTime(e.earliest).Add(-24 * time.Hour).Format(timeForm)
			}
			yield(e) // nobody stops before the end, but by a panic
		}
		_, more := next()
		demand(!more, "fewer data lines than envelopes")
	}
}

// checkData is part 4, data line, for every entry.
func (a *audit) checkData() {
	epochs := ""
	for e := range a.entries() {
		a.genesis = cmp.Or(a.genesis, map[int64]any{0: e.data}[e.seq])
		if e.typ == "epoch.begun" && e.data != nil {
			demand(number(e.data, "size") == e.seq && (a.roots[e.seq] == nil || fmt.Sprintf("%x", a.roots[e.seq]) == text(e.data, "root")), "an epoch begins elsewhere than behind what it has adopted, or has adopted something else")
			demand(siteOf(text(e.data, "oldOrigin")) == a.site && epochOf(text(e.data, "oldOrigin")) >= a.epoch && number(e.data, "epoch") > epochOf(text(e.data, "oldOrigin")), "epoch %d does not follow those before it", number(e.data, "epoch"))
			a.epochs, a.epoch = append(a.epochs, e.data), number(e.data, "epoch")
			epochs += fmt.Sprintf(" entry %d begins epoch %d: the ledger was %.40q", e.seq, a.epoch, text(e.data, "cause"))
		}
	}
	demand(a.note.text == "" || epochOf(a.note.origin) >= a.epoch, "the checkpoint is not of epoch %d, which begins here or before, or a later one", a.epoch)
	stopIf(epochs != "", "ok", verified, "but%s", epochs)
}

// checkTypes is part 7, INCOMPLETE: what entries of a newer stella name, nobody here can tell.
func (a *audit) checkTypes() {
	stopIf(len(a.unknown) > 0, "not judged", incomplete, "entries are of types that this program does not know: %.100q", slices.Sorted(maps.Keys(a.unknown)))
}

// checkGenesis is part 4, site.initialized: entry 0 binds the site to its keys.
func (a *audit) checkGenesis() {
	stopIf(a.first > 0 || a.count == 0, "-", verified, "entry 0 is in an earlier archive")
	stopIf(a.genesis == nil, "missing", incomplete, "the data of entry 0 is withheld")
	demand(text(a.genesis, "siteId") == a.site && bytes.Equal(unbase64(text(a.genesis, "keys.log")), a.logIn) && bytes.Equal(unbase64(text(a.genesis, "keys.site")), a.siteIn), "entry 0 is of another site, or names other keys than those here")
}

// checkEvidence is part 6, evidence: exactly the sealed files that entries name. What is neither there nor declared ends it, so it remembers no more names than the manifest has.
func (a *audit) checkEvidence() {
	named := map[string]bool{"": true}
	for e := range a.entries() {
		for _, m := range naming[e.typ] {
			for _, item := range list(e.data, m) {
				sum, _ := item.(string)
				demand(named[sum] || (a.members[evidence+sum] != nil) != (a.withholds("evidence", e.seq, sum) != ""), "%s of entry %d names %.80q: it must be there, or declared with this entry", m, e.seq, sum)
				named[sum] = true
			}
		}
	}
	for name := range a.members {
		sum, ok := strings.CutPrefix(name, evidence)
		demand(!ok || named[sum], "%s: no entry of the window names it", name)
	}
}

// checkRuns is part 6, runs.ndjson: all runs of the window, in order, with all their entries, byte for byte as in this archive and those before. Whether run and steps follow from the events is left to "export verify".
func (a *audit) checkRuns() {
	last := ""
	for line := range a.lines("ledger/runs.ndjson.zst", maxRun) {
		canonical(line, maxRun, "") // so what stands in it is, too: one event after the other is made into values, and nothing else
		r := parse[map[string]json.RawMessage](line)
		demand(has(r, "events run runId steps"), "it has other members than a run has")
		id, in, before, whole, started, chain := parse[string](r["runId"]), json.NewDecoder(bytes.NewReader(r["events"])), entry{seq: -1}, true, "", []byte(nil)
		for in.Token(); in.More(); {
			raw := json.RawMessage(nil)
			demand(in.Decode(&raw) == nil && len(raw) <= maxLine, "an event is too large, or none")
			event := parse[map[string]json.RawMessage](raw)
			demand(len(event) == 2 && has(event, "data envelope"), "an event has other members than data and envelope")
			e := parseEnvelope(event["envelope"])
			demand(e.run == id && e.seq > before.seq && e.time >= before.time && e.seq < a.first+a.count, "entry %d does not belong into this place", e.seq)
			demand(e.seq != a.first-1 || string(event["envelope"]) == text(a.window, "before"), "entry %d is another than the one before the window", e.seq)
			demand(e.seq >= a.first || e.time < a.from, "entry %d is not before the window", e.seq)
			if e.seq >= a.since {
				chain = hasher.HashChildren(chain, hasher.HashLeaf(event["envelope"]))
			}
			_, there := a.dataOf(e, event["data"])
			a.checkTypes()
			demand((before.seq < 0) == (e.typ == "run.started"), "a run begins with run.started, and only once")
			demand(before.seq < 0 || e.of == before.of, "entry %d is of another tenant, DAG, version or trace than the one before it", e.seq)
			before, whole = e, whole && there
			started = cmp.Or(started, map[string]string{"attempt.started": e.time}[e.typ])
		}
		demand(a.untold[id] && bytes.Equal(chain, a.runs[id]), "from entry %d on, not all entries that the run has, or others, or none in the window", a.since)
		delete(a.untold, id)
		demand(whole == bytes.HasPrefix(r["run"], []byte("{")) && (whole || r["steps"] == nil), "run is there, and steps can be, exactly if no data is withheld")
		order := fmt.Sprintf("%30s %s", started, id)
		demand(order > last, "the run is not in its place")
		last = order
	}
	demand(len(a.untold) == 0, "runs have entries in the window, and no line: %.200q", slices.Sorted(maps.Keys(a.untold)))
}

// checkLogs is part 6, telemetry, logs: the records give the segments (part 3) that entries name, byte for byte, and no others. The exact form of their lines is left to "export verify".
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
		for _, r := range list(parse[any](line), "resourceLogs.scopeLogs.logRecords") {
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
