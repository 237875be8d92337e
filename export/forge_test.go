package export_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

const (
	envelopes = "ledger/envelopes.ndjson.zst"
	data      = "ledger/data.ndjson.zst"
	runs      = "ledger/runs.ndjson.zst"
	note      = "ledger/checkpoint.note"
	proofFile = "ledger/window.json"
	logs      = "telemetry/logs.jsonl.zst"
	metrics   = "telemetry/metrics.jsonl.zst"
	traces    = "telemetry/traces.jsonl.zst"
)

// The kit must be able to make what Create makes, or its forgeries would be
// found by their tools.
func TestAnArchiveCanBePutTogetherByOtherMeans(t *testing.T) {
	s := busySite(t)
	tar := s.archive(window(4, 20))
	k := takeApart(t, s, tar)
	if got := k.pack(k.assemble()); !bytes.Equal(got, tar) {
		t.Errorf("the standard library's tar writer and this test make another archive (%d and %d bytes)", len(got), len(tar))
	}
}

type windowJSON struct {
	After    string   `json:"after"`
	Before   *string  `json:"before,omitempty"`
	Count    int64    `json:"count"`
	First    int64    `json:"first"`
	Left     []string `json:"left"`
	Right    []string `json:"right"`
	TreeSize int64    `json:"treeSize"`
}

// editWindow changes window.json.
func (k *kit) editWindow(f func(*windowJSON)) {
	k.t.Helper()
	var w windowJSON
	if err := json.Unmarshal(k.files[proofFile], &w); err != nil {
		k.t.Fatal(err)
	}
	f(&w)
	k.set(proofFile, w)
}

// drop leaves out the line n of files.
func (k *kit) drop(n int, paths ...string) {
	for _, p := range paths {
		lines := k.lines(p)
		k.setLines(p, slices.Delete(lines, n, n+1))
	}
}

// A dishonest operator has every key of the site and makes an archive that is
// signed and consistent in itself. Each forgery is found, by the check that is
// meant to find it.
func TestForgeriesWithAllKeysAreFound(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(4, 20))
	other := takeApart(t, s, s.archive(window(4, 17)))
	for name, tc := range map[string]struct {
		forge func(k *kit)
		want  string // the first check that fails
	}{
		"nothing": {func(*kit) {}, ""},
		"an entry is left out": {func(k *kit) {
			k.drop(3, envelopes, data)
			k.manifest.Ledger.Count--
			k.editWindow(func(w *windowJSON) { w.Count-- })
		}, "envelopes"},
		"the last entry is left out": {func(k *kit) {
			k.drop(15, envelopes, data)
			k.manifest.Ledger.Count--
			k.editWindow(func(w *windowJSON) { w.Count-- })
		}, "root"},
		"an entry is there twice": {func(k *kit) {
			lines := k.lines(envelopes)
			k.setLines(envelopes, slices.Insert(lines, 3, lines[3]))
		}, "envelopes"},
		"two entries are exchanged": {func(k *kit) {
			lines := k.lines(envelopes)
			lines[3], lines[4] = lines[4], lines[3]
			k.setLines(envelopes, lines)
		}, "envelopes"},
		"an actor is another":          {func(k *kit) { k.replace(envelopes, "ada", "bob") }, "root"},
		"an envelope is not canonical": {func(k *kit) { k.replace(envelopes, `{"actor"`, `{ "actor"`) }, "envelopes"},
		"an entry fewer than counted":  {func(k *kit) { k.drop(15, envelopes, data) }, "envelopes"},
		"an entry more than counted": {func(k *kit) {
			k.manifest.Ledger.Count--
			k.editWindow(func(w *windowJSON) { w.Count-- })
		}, "envelopes"},
		"a time is before the one before it": {func(k *kit) { k.replace(envelopes, second(9), second(5)) }, "envelopes"},
		"the window begins later":            {func(k *kit) { k.manifest.Window.From = second(6) }, "envelopes"},
		"the lists of the proof are none":    {func(k *kit) { k.editWindow(func(w *windowJSON) { w.Left, w.Right = nil, nil }) }, "window"},
		"the proof is of another window":     {func(k *kit) { k.editWindow(func(w *windowJSON) { w.First++ }) }, "window"},
		"data beyond the window declared as withheld": {func(k *kit) {
			k.manifest.Withheld = []export.Withheld{{What: "data", Seq: 22, Reason: "erased"}}
		}, "data"},
		"data is another": {func(k *kit) { k.replace(data, "STEP_FAILED", "STEP_FAILEX") }, "data"},
		"data lines are exchanged": {func(k *kit) {
			lines := k.lines(data)
			lines[3], lines[4] = lines[4], lines[3]
			k.setLines(data, lines)
		}, "data"},
		"a data line too many": {func(k *kit) { k.setLines(data, append(k.lines(data), `{"seq":20,"withheld":"x"}`)) }, "data"},
		"a data line too few":  {func(k *kit) { k.drop(15, data) }, "data"},
		"data withheld in silence": {func(k *kit) {
			lines := k.lines(data)
			lines[2] = `{"seq":6,"withheld":"erased"}`
			k.setLines(data, lines)
		}, "data"},
		"data declared as withheld and given": {func(k *kit) {
			k.manifest.Withheld = []export.Withheld{{What: "data", Seq: 6, Reason: "erased"}}
		}, "data"},
		"data outside the window declared as withheld": {func(k *kit) {
			k.manifest.Withheld = []export.Withheld{{What: "data", Seq: 2, Reason: "erased"}}
		}, "runs"},
		"the window's end is moved":   {func(k *kit) { k.manifest.Window.To = second(21) }, "edges"},
		"the window's start is moved": {func(k *kit) { k.manifest.Window.From = second(3) }, "edges"},
		"the window is cut":           {func(k *kit) { k.manifest.Window.To = second(18) }, "envelopes"},
		"the edge is trimmed": {func(k *kit) {
			before := string(takeApart(t, s, s.archive(window(3, 20))).files[proofFile])
			var w windowJSON
			if err := json.Unmarshal([]byte(before), &w); err != nil {
				t.Fatal(err)
			}
			k.editWindow(func(x *windowJSON) { x.Before, x.Left = w.Before, w.Left })
		}, "root"},
		"a hash of the proof is another": {func(k *kit) {
			k.editWindow(func(w *windowJSON) { w.Left[0] = strings.Repeat("0", 64) })
		}, "root"},
		"a hash of the proof is missing":       {func(k *kit) { k.editWindow(func(w *windowJSON) { w.Left = w.Left[1:] }) }, "root"},
		"no entry before":                      {func(k *kit) { k.editWindow(func(w *windowJSON) { w.Before = nil }) }, "window"},
		"the checkpoint is of another tree":    {func(k *kit) { k.files[note] = s.notes[2] }, "checkpoint"},
		"the checkpoint is of another archive": {func(k *kit) { k.files[note] = other.files[note] }, ""}, // both windows have one
		"the checkpoint has another root": {func(k *kit) {
			var root ledger.Hash
			root[0] = 1
			forged, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: s.origin, Size: 21, Root: root}, s.logKey)
			if err != nil {
				t.Fatal(err)
			}
			k.files[note], k.manifest.Ledger.Root = forged, ledger.HexHash(root)
		}, "root"},
		"the checkpoint is signed by another key": {func(k *kit) {
			c, err := ledger.ParseCheckpoint(k.files[note])
			if err != nil {
				t.Fatal(err)
			}
			k.files[note], err = ledger.SignCheckpoint(c, ed25519.NewKeyFromSeed(make([]byte, 32)))
			if err != nil {
				t.Fatal(err)
			}
		}, "checkpoint"},
		"the checkpoint has another root than the manifest": {func(k *kit) {
			k.files[note] = mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: 21}, s.logKey)
		}, "checkpoint"},
		"the checkpoint has another size than the manifest": {func(k *kit) {
			c, err := ledger.ParseCheckpoint(k.files[note])
			if err != nil {
				t.Fatal(err)
			}
			c.Size++
			k.files[note] = mustSign(t, c, s.logKey)
		}, "checkpoint"},
		"the checkpoint is cosigned": {func(k *kit) {
			k.files[note] = append(k.files[note], "— witness AAAAAAAA\n"...)
		}, "checkpoint"},
		"a run is left out":          {func(k *kit) { k.drop(1, runs) }, "runs"},
		"a run is there twice":       {func(k *kit) { l := k.lines(runs); k.setLines(runs, append(l, l[len(l)-1])) }, "runs"},
		"runs are exchanged":         {func(k *kit) { l := k.lines(runs); l[0], l[1] = l[1], l[0]; k.setLines(runs, l) }, "runs"},
		"a run has another status":   {func(k *kit) { k.replace(runs, `"status":"completed"`, `"status":"cancelled"`) }, "runs"},
		"a run is of another window": {func(k *kit) { k.files[runs] = other.files[runs] }, "runs"},
		"a run is another throughout": {func(k *kit) {
			k.files[runs] = bytes.ReplaceAll(k.files[runs], []byte("uid:1000(ada)"), []byte("uid:1000(bob)"))
		}, "runs"},
		"an event of a run is another": {func(k *kit) { k.replace(runs, `"actor":"uid:1000(ada)"`, `"actor":"uid:1000(bob)"`) }, "runs"},
		"evidence is missing":          {func(k *kit) { delete(k.files, "evidence/sha256/"+s.blob("plan")) }, "evidence"},
		"evidence too many":            {func(k *kit) { k.files["evidence/sha256/"+digest([]byte("x"))] = []byte("x") }, "evidence"},
		"evidence missing and declared for the wrong entry": {func(k *kit) {
			delete(k.files, "evidence/sha256/"+s.blob("plan"))
			k.manifest.Withheld = []export.Withheld{{What: "evidence", Seq: 5, SHA256: s.blob("plan"), Reason: "x"}}
		}, "evidence"},
		"evidence given and declared": {func(k *kit) {
			k.manifest.Withheld = []export.Withheld{{What: "evidence", Seq: 4, SHA256: s.blob("plan"), Reason: "x"}}
		}, "evidence"},
		"a log line is another":            {func(k *kit) { k.replace(logs, "oh no", "oh yes") }, "logs"},
		"a log line is missing":            {func(k *kit) { k.drop(0, logs) }, "logs"},
		"a log line too many":              {func(k *kit) { l := k.lines(logs); k.setLines(logs, append(l, l[0])) }, "logs"},
		"log lines are exchanged":          {func(k *kit) { l := k.lines(logs); l[0], l[1] = l[1], l[0]; k.setLines(logs, l) }, "logs"},
		"a log line is of another attempt": {func(k *kit) { k.replace(logs, `{"intValue":"1"}`, `{"intValue":"9"}`) }, "logs"},
		"a log line has a field too many":  {func(k *kit) { k.replace(logs, `{"resourceLogs"`, `{"x":1,"resourceLogs"`) }, "logs"},
		"a log line is cut in two":         {func(k *kit) { splitLogs(k) }, "logs"},
		"cut output is hidden":             {func(k *kit) { k.manifest.Dropped["logs"] = 0 }, "logs"},
		"logs withheld in silence":         {func(k *kit) { k.files[logs] = nil }, "logs"},
		"logs withheld that no entry names": {func(k *kit) {
			k.manifest.Withheld = []export.Withheld{{What: "log", Seq: 7, SHA256: s.blob("x"), Reason: "x"}}
		}, "logs"},
		"a metric is another": {func(k *kit) { k.replace(metrics, `"asInt":"1"`, `"asInt":"2"`) }, "metrics"},
		"a metric is missing": {func(k *kit) { k.drop(0, metrics) }, "metrics"},
		"a span is missing":   {func(k *kit) { k.drop(0, traces) }, "traces"},
		"a span is another":   {func(k *kit) { k.replace(traces, `"attempt"`, `"attempX"`) }, "traces"},
		"a span too many":     {func(k *kit) { l := k.lines(traces); k.setLines(traces, append(l, l[0])) }, "traces"},
		"a key inside is another": {func(k *kit) {
			k.files["keys/log.pub"] = publicPEM(t, ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
		}, "keys"},
		"a key inside has a comment":     {func(k *kit) { k.files["keys/log.pub"] = append(k.files["keys/log.pub"], '\n') }, "keys"},
		"the origin is of another epoch": {func(k *kit) { k.manifest.Origin = ledger.Origin(siteID, 2) }, "checkpoint"},
		"the site is another":            {func(k *kit) { k.manifest.Origin = ledger.Origin(strings.Repeat("0", 32), 1) }, "manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, original)
			tc.forge(k)
			r := check(t, k.pack(k.assemble()), s.auditor())
			if tc.want == "" {
				if r.Verdict == export.Failed {
					t.Fatal(explain(r))
				}
				return
			}
			got := failed(r)
			if r.Verdict != export.Failed || len(got) == 0 || got[0] != tc.want {
				t.Errorf("failed %v, want %s first\n%s", got, tc.want, explain(r))
			}
		})
	}
}

// splitLogs cuts the first log line with two records in two lines that a
// collector would take just as well.
func splitLogs(k *kit) {
	k.t.Helper()
	lines := k.lines(logs)
	const sep = `},{"timeUnixNano"`
	head, tail, ok := strings.Cut(lines[0], sep)
	if !ok {
		k.t.Fatal("the first log line has one record")
	}
	open, _, _ := strings.Cut(lines[0], `{"timeUnixNano"`)
	_, end, _ := strings.Cut(tail, `}]}]}]}`)
	k.setLines(logs, append([]string{head + `}]}]}]}`, open + `{"timeUnixNano"` + tail + end}, lines[1:]...))
	for _, l := range k.lines(logs)[:2] {
		if recs, err := telemetry.DecodeLogs([]byte(l)); err != nil || len(recs) != 1 {
			k.t.Fatalf("the split line does not decode to one record: %v, %v", recs, err)
		}
	}
}

// Runs carry entries from before the window. What can be seen of those is.
func TestForgedEntriesFromBeforeTheWindow(t *testing.T) {
	s := busySite(t)
	for name, tc := range map[string]struct {
		window export.Window
		forge  func(k *kit)
	}{
		"the neighbour is another": {window(7, 20), func(k *kit) { // entry 6 starts an attempt of run A
			old := string(s.entries[6].Envelope)
			k.replace(runs, old, strings.Replace(old, "ada", "bob", 1))
		}},
		"a digest does not hold": {window(7, 20), func(k *kit) { k.replace(runs, `"ticket":"7"`, `"ticket":"8"`) }},
		"an entry is left out": {window(7, 20), func(k *kit) {
			k.replace(runs, `{"data":`+string(s.entries[4].Data)+`,"envelope":`+string(s.entries[4].Envelope)+`},`, "")
		}},
		"a run that has nothing here": {window(15, 20), func(k *kit) {
			lines := k.lines(runs)
			k.setLines(runs, append(lines, takeApart(t, s, s.archive(window(4, 15))).lines(runs)[1]))
		}},
	} {
		k := takeApart(t, s, s.archive(tc.window))
		tc.forge(k)
		if r := check(t, k.pack(k.assemble()), s.auditor()); len(failed(r)) == 0 || failed(r)[0] != "runs" {
			t.Errorf("%s: failed %v, want runs\n%s", name, failed(r), explain(r))
		}
	}
}

// Ledgers that no honest site has, with everything after them made well.
func TestLedgersThatLieAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		make func() *site
		want string
	}{
		"the entry after claims another place": {func() *site {
			return lyingSite(t, func(e *ledger.Envelope) {
				if e.Seq == 20 {
					e.Seq = 21
				}
			})
		}, "edges"},
		"the entry before claims another place": {func() *site {
			return lyingSite(t, func(e *ledger.Envelope) {
				if e.Seq == 3 {
					e.Seq = 2
				}
			})
		}, "edges"},
		"entry 0 is of another site": {func() *site {
			s := newSite(t)
			s.origin = ledger.Origin(strings.Repeat("0", 32), 1)
			s.startRun(runA)
			s.checkpoint()
			return s
		}, "genesis"},
	} {
		s := tc.make()
		w := window(4, 20)
		if tc.want == "genesis" {
			w = window(0, 2)
		}
		k := forgedArchive(t, s, w)
		opt := s.auditor()
		opt.SiteID = ""
		if r := check(t, k, opt); !cmp.Equal(failed(r), []string{tc.want}) {
			t.Errorf("%s: failed %v, want %s\n%s", name, failed(r), tc.want, explain(r))
		}
	}
}

// lyingSite is busySite with entries that lie.
func lyingSite(t *testing.T, lie func(e *ledger.Envelope)) *site {
	s := newSite(t)
	honest := busySite(t)
	for i, e := range honest.entries[1:] {
		env, err := ledger.ParseEnvelope(e.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		line, err := ledger.ParseData(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		body, err := ledger.DecodeData(env.Type, line.Data)
		if err != nil {
			t.Fatal(err)
		}
		was := env.Seq
		lie(&env)
		env.DataHash = ""
		if env.Seq == was {
			s.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
			continue
		}
		sealed, err := ledger.Seal(env, body, [32]byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		s.append(sealed)
	}
	s.blobs, s.segments = honest.blobs, honest.segments
	s.checkpoint()
	return s
}

// forgedArchive makes an archive of a lying ledger: Create would refuse, so
// the honest archive's files are bound to the lying ledger's proof.
func forgedArchive(t *testing.T, s *site, w export.Window) []byte {
	t.Helper()
	if w == window(0, 2) { // Create does not look into entry 0
		return s.archive(w)
	}
	honest := busySite(t)
	k := takeApart(t, honest, honest.archive(w))
	k.bind(s, 4, 16)
	return k.pack(k.assemble())
}

// bind puts the proof of a window of another ledger in.
func (k *kit) bind(s *site, first, count int64) {
	k.t.Helper()
	size := int64(len(s.entries))
	left, right, err := ledger.WindowEdges(first, count, size, s)
	if err != nil {
		k.t.Fatal(err)
	}
	k.editWindow(func(x *windowJSON) {
		x.After, x.TreeSize = string(s.entries[first+count].Envelope), size
		if first > 0 {
			before := string(s.entries[first-1].Envelope)
			x.Before = &before
		}
		x.Left, x.Right = []string{}, []string{}
		for _, h := range left {
			x.Left = append(x.Left, ledger.HexHash(h))
		}
		for _, h := range right {
			x.Right = append(x.Right, ledger.HexHash(h))
		}
	})
	root, err := ledger.TreeHash(size, s)
	if err != nil {
		k.t.Fatal(err)
	}
	k.files[note] = s.notes[len(s.notes)-1]
	k.manifest.Ledger.TreeSize, k.manifest.Ledger.Root = size, ledger.HexHash(root)
}

// A newer stella may write types that this one does not know: their lines can
// be proved, what derives from them cannot.
func TestTypesOfANewerStellaMakeAnArchiveIncomplete(t *testing.T) {
	honest, newer := busySite(t), newSite(t)
	line := []byte(`{"data":{"what":"new"},"salt":"` + strings.Repeat("0", 64) + `","seq":2}`)
	envelope := []byte(`{"actor":"uid:0(root)","dataHash":"` + digest(line) + `","seq":2,"tenant":"","time":"` + second(2) + `","type":"moon.landed","v":1}`)
	for i, e := range honest.entries[1:] {
		if i+1 == 2 {
			e.Envelope, e.Data = envelope, line
		}
		newer.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
	}
	newer.blobs, newer.segments = honest.blobs, honest.segments
	newer.checkpoint()
	if _, err := export.Create(context.Background(), newer, io.Discard, newer.options(window(0, 20))); !errors.Is(err, ledger.ErrUnknownType) {
		t.Errorf("Create = %v, want %v", err, ledger.ErrUnknownType)
	}
	k := takeApart(t, honest, honest.archive(window(0, 20)))
	for path, with := range map[string][]byte{envelopes: envelope, data: line} {
		lines := k.lines(path)
		lines[2] = string(with)
		k.setLines(path, lines)
	}
	k.bind(newer, 0, 20)
	r := check(t, k.pack(k.assemble()), honest.auditor())
	if r.Verdict != export.Incomplete {
		t.Error(explain(r))
	}
}
