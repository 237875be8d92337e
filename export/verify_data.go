package export

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/verify"
)

// withheldIndex is the manifest's list of what is withheld.
type withheldIndex struct {
	data     map[int64]string   // seq → reason
	logs     map[int64]Withheld // by seq
	evidence map[string]Withheld
	twice    map[string]int64 // what → seq of an item about what another item is about
	seen     map[int64]bool   // data of entries before the window that a run's line withholds
}

func indexWithheld(list []Withheld) withheldIndex {
	x := withheldIndex{data: map[int64]string{}, logs: map[int64]Withheld{}, evidence: map[string]Withheld{}, twice: map[string]int64{}, seen: map[int64]bool{}}
	for _, w := range list {
		switch w.What {
		case withheldData:
			x.data[w.Seq] = w.Reason
		case withheldLog:
			if _, again := x.logs[w.Seq]; again {
				x.twice[w.What] = w.Seq
			}
			x.logs[w.Seq] = w
		case withheldEvidence:
			if _, again := x.evidence[w.SHA256]; again {
				x.twice[w.What] = w.Seq
			}
			x.evidence[w.SHA256] = w
		}
	}
	return x
}

// check compares an entry with what the manifest says of its data.
func (x *withheldIndex) check(e entry) error {
	if reason := x.data[e.Envelope.Seq]; reason != e.withheld {
		return fmt.Errorf("entry %d: its data is withheld for %q, and %q in the manifest", e.Envelope.Seq, e.withheld, reason)
	}
	if e.withheld == "erased" && !ledger.Erasable(e.Envelope.Type) {
		return fmt.Errorf("entry %d: its data cannot be erased: nobody speaks in %s", e.Envelope.Seq, e.Envelope.Type)
	}
	return nil
}

// once refuses what was declared as withheld twice.
func (x *withheldIndex) once(what string) error {
	if seq, again := x.twice[what]; again {
		return badFile(manifestPath, fmt.Errorf("it withholds %s of entry %d twice, or for two entries", what, seq))
	}
	return nil
}

// newerStella says why a check that looks into all data was not made.
func (v *verifier) newerStella() error {
	if v.unknown == 0 {
		return nil
	}
	return &skip{why: fmt.Sprintf("%d entries are of types that only a newer stella knows", v.unknown), hides: Incomplete}
}

// data reads envelopes and data lines side by side. What derives from single
// entries is compared on the way, and reported by later checks.
func (v *verifier) data() (string, error) {
	envelopes, done, err := v.lines(envelopesPath)
	if err != nil {
		return "", err
	}
	defer done()
	data, done2, err := v.lines(dataPath)
	if err != nil {
		return "", err
	}
	defer done2()
	if err := v.openDerived(); err != nil {
		return "", err
	}
	tree, err := v.treeBefore()
	if err != nil {
		return "", badFile(windowPath, err)
	}
	v.admitted = admissions{v: v, left: unjudged{}, extended: map[string]bool{}, unknown: v.proof.First > 0}
	v.lineage = lineage{v: v, left: unjudged{}, signatures: map[string]*verify.RoleSignature{}}
	for {
		envelope, err := envelopes.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", &badLine{envelopesPath, envelopes.n, err}
		}
		line, err := data.next()
		if errors.Is(err, io.EOF) {
			return "", badFile(dataPath, fmt.Errorf("it has %d lines for %d entries", data.n, v.proof.Count))
		}
		var e entry
		if err == nil {
			e, err = parseEntry(envelope, line)
		}
		if err == nil {
			err = v.withheld.check(e)
		}
		if err == nil {
			err = v.epoch(e, tree)
		}
		if err != nil {
			return "", &badLine{dataPath, data.n, err}
		}
		tree.Add(envelope)
		v.entry(e)
	}
	if _, err := data.next(); !errors.Is(err, io.EOF) {
		return "", &badLine{dataPath, data.n, fmt.Errorf("it has more lines than there are entries")}
	}
	for seq := range v.withheld.data {
		if seq >= v.proof.First+v.proof.Count {
			return "", badFile(manifestPath, fmt.Errorf("it withholds data of entry %d, beyond the window", seq))
		}
	}
	return fmt.Sprintf("%d lines", data.n), nil
}

// entry takes one good entry of the window.
func (v *verifier) entry(e entry) {
	if e.unknown {
		v.unknown++
	}
	if e.Envelope.Seq == 0 {
		v.genesis = &e
	}
	// A limit of package telemetry is kept and reported as a fault of metrics
	// and traces; the other derivations go on.
	v.derive.fault = cmp.Or(v.derive.fault, v.derive.entry(e))
	v.clock.entry(e)
	v.lineage.entry(e)
	v.admitted.entry(e)
	if end, ok := e.Data.(*ledger.AttemptEnd); ok && end.Logs != nil {
		v.dropped += end.Logs.Dropped
		if v.logs != nil {
			v.logs.attempt(e.Envelope, end, v.withheld.logs)
		}
	}
}

// treeBefore is the tree of the entries before the window.
func (v *verifier) treeBefore() (*ledger.Tree, error) {
	tree, err := ledger.TreeOf(max(0, v.proof.First-1), edge(v.left))
	if err == nil && v.proof.Before != nil {
		tree.Add([]byte(*v.proof.Before))
	}
	return tree, err
}

// edge has the hashes that a tree is begun with.
type edge []ledger.Hash

func (e edge) ReadHashes([]int64) ([]ledger.Hash, error) { return slices.Clone(e), nil }

// epoch reports an epoch that begins, which must be behind all that it has adopted: the tree
// that there is.
func (v *verifier) epoch(e entry, tree *ledger.Tree) error {
	if e.Envelope.Type != ledger.EpochBegun {
		return nil
	}
	begun := Epoch{Seq: e.Envelope.Seq, Time: e.Envelope.Time}
	if d, ok := e.Data.(*ledger.EpochStart); ok {
		site, of, err := ledger.ParseOrigin(d.OldOrigin)
		_, signed, _ := ledger.ParseOrigin(v.m.Origin)
		switch {
		case d.Size != begun.Seq:
			return fmt.Errorf("entry %d begins an epoch, and says that %d entries were adopted", begun.Seq, d.Size)
		case d.Root != ledger.HexHash(tree.Root()):
			return fmt.Errorf("entry %d begins an epoch, and says that a tree with the root %.64q was adopted", begun.Seq, d.Root)
		case err != nil || site != v.siteID || of < v.begun || d.Epoch <= of:
			return fmt.Errorf("entry %d begins epoch %d after %.64q, which does not follow", begun.Seq, d.Epoch, d.OldOrigin)
		case signed < d.Epoch:
			return fmt.Errorf("entry %d begins epoch %d, and the checkpoint is of %s", begun.Seq, d.Epoch, v.m.Origin)
		}
		begun.Epoch, begun.Cause, v.begun = d.Epoch, d.Cause, d.Epoch
	}
	v.report.Epochs = append(v.report.Epochs, begun)
	return nil
}

// openDerived opens the telemetry that is compared while the ledger is read. A
// file that is not fit to be read is left out here and skipped by its check.
func (v *verifier) openDerived() error {
	v.traces, v.logs = nil, nil
	if v.fit(tracesPath) == nil {
		lines, done, err := v.lines(tracesPath)
		if err != nil {
			return err
		}
		v.traces = &lineMatcher{path: tracesPath, lines: lines, done: done}
	}
	if v.fit(logsPath) == nil {
		lines, done, err := v.lines(logsPath)
		if err != nil {
			return err
		}
		v.logs = newLogMatcher(v.siteID, lines, done)
	}
	v.derive = newDeriver(v.siteID, v.m.Window, v.proof.First, func(line []byte) error {
		if v.traces != nil {
			v.traces.match(line)
		}
		return nil
	})
	v.derive.most = len(v.m.Files) + len(v.withheld.evidence)
	return nil
}

// close lets go of what openDerived opened.
func (v *verifier) close() {
	if v.traces != nil {
		v.traces.done()
	}
	if v.logs != nil {
		v.logs.done()
	}
}

func (v *verifier) firstEntry() (string, error) {
	if v.genesis == nil {
		return "", &skip{why: "entry 0 lies before the window", hides: Verified}
	}
	if v.genesis.Data == nil {
		return "", &skip{why: "the data of entry 0 is withheld, or of a newer stella", hides: Incomplete}
	}
	init, ok := v.genesis.Data.(*ledger.SiteInit)
	if !ok {
		return "", &badLine{envelopesPath, 1, fmt.Errorf("entry 0 is %s, not %s", v.genesis.Envelope.Type, ledger.SiteInitialized)}
	}
	if init.SiteID != v.siteID {
		return "", &badLine{dataPath, 1, fmt.Errorf("entry 0 is of site %s", init.SiteID)}
	}
	return "", v.boundKeys(init.Keys)
}

// boundKeys compares the keys that entry 0 binds with those given. Others are
// foreign only if they are those of the archive.
func (v *verifier) boundKeys(bound map[string]string) error {
	var other error
	for _, k := range []struct {
		purpose, path string
		parse         func([]byte) (publicKey, error)
		want          publicKey
	}{{"log", logKeyPath, parseLogKey, v.logKey}, {"site", siteKeyPath, parseSiteKey, v.siteKey}} {
		key := bound[k.purpose]
		if k.want.der == nil || key == base64.StdEncoding.EncodeToString(k.want.der) {
			continue
		}
		err := &badLine{dataPath, 1, fmt.Errorf("entry 0 binds another key for %s than the one given", k.purpose)}
		own, bad := v.ownKey(k.path, k.parse)
		if bad != nil || key != base64.StdEncoding.EncodeToString(own.der) {
			return err
		}
		err.err = &foreign{err.err}
		other = cmp.Or(other, error(err))
	}
	return other
}

// runs reads runs.ndjson and makes each line anew from its events.
func (v *verifier) runs() (string, error) {
	if err := v.newerStella(); err != nil {
		return "", err
	}
	lines, done, err := v.lines(runsPath)
	if err != nil {
		return "", err
	}
	defer done()
	var last runKey
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			last, err = v.oneRun(line, last, lines.n == 1)
		}
		if err != nil {
			return "", &badLine{runsPath, lines.n, err}
		}
	}
	if i := slices.Index(v.ofRun, true); i >= 0 {
		return "", badFile(runsPath, fmt.Errorf("entry %d belongs to a run, and no run has it", v.proof.First+int64(i)))
	}
	for seq := range v.withheld.data {
		if seq < v.proof.First && !v.withheld.seen[seq] {
			return "", badFile(manifestPath, fmt.Errorf("it withholds data of entry %d, which no run here has", seq))
		}
	}
	if v.carried > 0 {
		return fmt.Sprintf("%d runs; %d of their entries are from before the window: their digests hold, that the ledger has them is for the archives of their time to prove", lines.n, v.carried), nil
	}
	return fmt.Sprintf("%d runs", lines.n), nil
}

var errNoRun = errors.New("it is not a run")

func (v *verifier) oneRun(line []byte, last runKey, first bool) (runKey, error) {
	var in struct {
		Events json.RawMessage `json:"events"`
		RunID  string          `json:"runId"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return runKey{}, errNoRun
	}
	s := &story{runID: in.RunID}
	inside := false
	events := json.NewDecoder(bytes.NewReader(in.Events)) // one by one: a list may be of millions that are none
	if _, err := events.Token(); err != nil {
		return runKey{}, errNoRun
	}
	for events.More() {
		var ev runEvent
		if events.Decode(&ev) != nil {
			return runKey{}, errNoRun
		}
		e, err := parseEntry(ev.Envelope, ev.Data)
		if err == nil {
			err = s.add(e)
		}
		if err == nil {
			err = v.event(e, &inside)
		}
		if err != nil {
			return runKey{}, err
		}
	}
	if in.RunID == "" || !inside {
		return runKey{}, errors.New("the run has no entry in the window")
	}
	key := s.key()
	if !first && compareRuns(last, key) >= 0 {
		return runKey{}, fmt.Errorf("run %s is out of order, or there twice", s.runID)
	}
	again, err := s.line()
	if errors.Is(err, errUnknown) {
		return runKey{}, &skip{why: err.Error(), hides: Incomplete}
	}
	if err != nil {
		return runKey{}, err
	}
	if string(again) != string(line) {
		return runKey{}, fmt.Errorf("run %s: its entries fold to something else", s.runID)
	}
	v.derive.fault = cmp.Or(v.derive.fault, v.derive.run(s))
	return key, nil
}

// event checks one entry of a run against the window's lines.
func (v *verifier) event(e entry, inside *bool) error {
	seq := e.Envelope.Seq
	if err := v.withheld.check(e); err != nil {
		return err
	}
	switch at := seq - v.proof.First; {
	case at >= v.proof.Count:
		return fmt.Errorf("entry %d lies behind the window", seq)
	case at >= 0:
		if v.leaves[at] != ledger.LeafHash(e.envelope) {
			return fmt.Errorf("entry %d is another than the ledger's", seq)
		}
		v.ofRun[at], *inside = false, true
	case e.Envelope.Time >= v.m.Window.From:
		return fmt.Errorf("entry %d lies before the window, and its time %s does not", seq, e.Envelope.Time)
	case at == -1 && string(e.envelope) != *v.proof.Before:
		return fmt.Errorf("entry %d is another than the ledger's", seq)
	default:
		v.carried++
		if e.withheld != "" {
			v.withheld.seen[seq] = true
		}
	}
	return nil
}

func (v *verifier) evidence() (string, error) {
	if err := v.newerStella(); err != nil {
		return "", err
	}
	if err := v.withheld.once(withheldEvidence); err != nil {
		return "", err
	}
	need := maps.Clone(v.derive.evidence)
	for digest, w := range v.withheld.evidence {
		if seq, ok := need[digest]; !ok || seq != w.Seq {
			return "", badFile(manifestPath, fmt.Errorf("it withholds %s of entry %d, which no entry names first there", digest, w.Seq))
		}
		delete(need, digest)
	}
	for _, digest := range slices.Sorted(maps.Keys(need)) {
		if _, ok := v.c.index[evidencePath+digest]; !ok {
			return "", fmt.Errorf("entry %d names %s, which is not there", need[digest], digest)
		}
	}
	for _, f := range v.m.Files {
		digest, ok := evidenceSum(f.Path)
		if !ok {
			continue
		}
		if _, ok := need[digest]; !ok {
			return "", badFile(f.Path, errors.New("no entry of the window names it, or it is withheld"))
		}
	}
	return fmt.Sprintf("%d sealed files", len(v.derive.evidence)-len(v.withheld.evidence)), nil
}

func (v *verifier) logLines() (string, error) {
	if v.logs == nil {
		return "", v.fit(logsPath)
	}
	if err := v.newerStella(); err != nil { // its entries may name output
		return "", err
	}
	if err := cmp.Or(v.withheld.once(withheldLog), v.logs.finish()); err != nil {
		return "", err
	}
	if v.logs.hidden != len(v.withheld.logs) {
		return "", badFile(manifestPath, errors.New("it withholds log segments that no entry names"))
	}
	if v.dropped != v.m.Dropped["logs"] {
		return "", badFile(manifestPath, fmt.Errorf("it says that %d bytes of output were cut; the entries say %d", v.m.Dropped["logs"], v.dropped))
	}
	return fmt.Sprintf("%d segments", v.logs.found), nil
}

func (v *verifier) metricLines() (string, error) {
	if v.derive.fault != nil {
		return "", badFile(metricsPath, v.derive.fault)
	}
	lines, done, err := v.lines(metricsPath)
	if err != nil {
		return "", err
	}
	defer done()
	m := &lineMatcher{path: metricsPath, lines: lines}
	if err := v.derive.metrics.Lines(func(line []byte) error { m.match(line); return nil }); err != nil {
		return "", badFile(metricsPath, err)
	}
	return fmt.Sprintf("%d lines", lines.n), m.finish()
}

func (v *verifier) traceLines() (string, error) {
	switch {
	case v.traces == nil:
		return "", v.fit(tracesPath)
	case v.derive.fault != nil:
		return "", badFile(tracesPath, v.derive.fault)
	}
	return fmt.Sprintf("%d spans", v.traces.lines.n), v.traces.finish()
}
