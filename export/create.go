package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/internal/ustar"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

// CreateOptions say which archive to make. All fields up to Stella are
// required.
type CreateOptions struct {
	Window  Window
	LogKey  []byte // public key of the ledger's checkpoints, SPKI PEM
	SiteKey []byte // public key of Sign, SPKI PEM
	// Sign returns the Sigstore bundle of a message signature over SHA256SUMS by
	// the site key. Its nonces must be those of RFC 6979, or no two archives of
	// one window are equal.
	Sign   func(sums []byte) ([]byte, error)
	Stella string // version

	RedactionPolicySHA256 string                  // where there is such a policy
	TempDir               string                  // for spooled files; "" means os.TempDir
	Progress              func(done, total int64) // in entries; may be nil
}

// Result is an archive that was written. The entry that records it is that of
// [ledger.ExportCreated].
type Result struct {
	ledger.ExportCreation
	Bytes int64
}

// Create writes the archive of a closed window to w. It spools to unnamed
// temporary files; what it keeps in memory grows with the number of runs and
// sealed files of the window, and with the longest run, not with the window.
//
// A window that is none is [ErrWindow]; one that is not closed is
// [ErrWindowOpen]; one that no stored checkpoint
// covers is [ErrNoCheckpoint]: issue one and call again. What is stored and
// differs from what the ledger says is a *[DamagedError], never an archive.
func Create(ctx context.Context, src Source, w io.Writer, opt CreateOptions) (*Result, error) {
	b, err := newBuilder(ctx, src, opt)
	if err != nil {
		return nil, err
	}
	defer b.close()
	for _, step := range []func() error{b.locate, b.open, b.ledger, b.runs, b.finish, b.seal} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.write(w)
}

// builder is an archive in the making.
type builder struct {
	ctx  context.Context
	src  Source
	opt  CreateOptions
	keys [2][]byte // log.pub, site.pub

	siteID     string
	first, end int64 // entries of the window: first ≤ seq < end
	note       []byte
	checkpoint ledger.Checkpoint
	proof      proof
	left       []ledger.Hash
	right      []ledger.Hash

	envelopes, data, runLines, logs, metrics, traces *lineWriter

	derive   deriver
	withheld []Withheld
	hidden   map[int64]bool // seqs of data in withheld
	dropped  int64
	evidence []string // digests that the archive holds, sorted
	parts    []part   // in the order of the tar
	result   Result
}

// part is one file of the archive, ready to be written.
type part struct {
	File
	open func() (io.ReadCloser, error)
}

func newBuilder(ctx context.Context, src Source, opt CreateOptions) (*builder, error) {
	if opt.Sign == nil || opt.Stella == "" {
		return nil, errors.New("export: CreateOptions lack Sign or Stella")
	}
	if err := opt.Window.check(); err != nil {
		return nil, fmt.Errorf("export: %w: %v", ErrWindow, err)
	}
	logKey, err := parseLogKey(opt.LogKey)
	if err != nil {
		return nil, err
	}
	siteKey, err := parseSiteKey(opt.SiteKey)
	if err != nil {
		return nil, err
	}
	return &builder{
		ctx: ctx, src: src, opt: opt, keys: [2][]byte{logKey.pem, siteKey.pem},
		withheld: []Withheld{}, hidden: map[int64]bool{},
	}, nil
}

// locate finds the window in the ledger, and the checkpoint that covers it.
func (b *builder) locate() (err error) {
	win := b.opt.Window
	if b.first, err = b.src.FirstAtOrAfter(win.From); err == nil {
		b.end, err = b.src.FirstAtOrAfter(win.To)
	}
	switch {
	case err != nil:
		return fmt.Errorf("export: %w", err)
	case b.end >= b.src.Size():
		return fmt.Errorf("export: %s to %s: %w", win.From, win.To, ErrWindowOpen)
	case b.end-b.first > maxEntries:
		return fmt.Errorf("export: %d entries: %w", b.end-b.first, ErrTooLarge)
	}
	stored, err := b.src.CheckpointCovering(b.end)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if stored == nil {
		return fmt.Errorf("export: entry %d: %w", b.end, ErrNoCheckpoint)
	}
	if b.checkpoint, err = ledger.ParseCheckpoint(stored); err != nil {
		return &DamagedError{"the checkpoint", err}
	}
	if b.checkpoint.Size <= b.end {
		return &DamagedError{"the checkpoint", fmt.Errorf("it does not cover entry %d", b.end)}
	}
	b.note = withoutCosignatures(stored)
	if b.siteID, _, err = ledger.ParseOrigin(b.checkpoint.Origin); err != nil {
		return &DamagedError{"the checkpoint", err}
	}
	b.left, b.right, err = ledger.WindowEdges(b.first, b.end-b.first, b.checkpoint.Size, b.src)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	b.proof = proof{
		First: b.first, Count: b.end - b.first, TreeSize: b.checkpoint.Size,
		Left: hexHashes(b.left), Right: hexHashes(b.right),
	}
	return nil
}

// withoutCosignatures cuts a note, which was parsed, after the site's own
// signature: witnesses come and go, and travel beside the archive.
func withoutCosignatures(note []byte) []byte {
	at := bytes.Index(note, []byte("\n\n")) + 2
	return note[:at+bytes.IndexByte(note[at:], '\n')+1]
}

// open starts the compressed files and what is derived into them.
func (b *builder) open() (err error) {
	for path, into := range map[string]**lineWriter{
		envelopesPath: &b.envelopes, dataPath: &b.data, runsPath: &b.runLines,
		logsPath: &b.logs, metricsPath: &b.metrics, tracesPath: &b.traces,
	} {
		if *into, err = newLineWriter(path, b.opt.TempDir); err != nil {
			return err
		}
	}
	b.derive = newDeriver(b.siteID, b.opt.Window, b.first, b.traces.add)
	return nil
}

func (b *builder) close() {
	for _, l := range []*lineWriter{b.envelopes, b.data, b.runLines, b.logs, b.metrics, b.traces} {
		if l != nil {
			l.close()
		}
	}
}

// ledger copies the lines of the window, derives what derives from single
// entries, and checks that the lines lead to the checkpoint.
func (b *builder) ledger() error {
	var fault error
	root, err := ledger.WindowRoot(b.first, b.end-b.first, b.checkpoint.Size, b.left, b.right, func(yield func(ledger.Hash) bool) {
		fault = b.leaves(yield)
	})
	switch {
	case fault != nil:
		return fault
	case err != nil:
		return &DamagedError{"the ledger", err}
	case root != b.checkpoint.Root:
		return &DamagedError{"the ledger", fmt.Errorf("entries %d to %d do not lead to the root of checkpoint %d", b.first, b.end, b.checkpoint.Size)}
	}
	return nil
}

// leaves yields the leaves of the entry before the window, the window, and the
// entry after it, while it copies them.
func (b *builder) leaves(yield func(ledger.Hash) bool) error {
	from, next, last := max(0, b.first-1), max(0, b.first-1), ""
	for raw, err := range b.src.Entries(from, b.end+1) {
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("export: entry %d: %w", next, err)
		}
		e, err := readEntry(raw)
		if err == nil && e.Envelope.Seq != next {
			err = fmt.Errorf("it stands where entry %d should", next)
		}
		if err == nil {
			err = b.inTime(e.Envelope, last)
			last = e.Envelope.Time
		}
		if err != nil {
			return &DamagedError{fmt.Sprintf("entry %d", raw.Seq), err}
		}
		switch line := string(e.envelope); {
		case next < b.first:
			b.proof.Before = &line
		case next == b.end:
			b.proof.After = line
		default:
			if err := b.entry(e); err != nil {
				return err
			}
		}
		next++
		if !yield(ledger.LeafHash(e.envelope)) {
			return nil
		}
	}
	return nil
}

// inTime checks that an entry's time follows the last one's, and lies in the
// window exactly if the entry does: the window was found by bisection, which
// a ledger with times out of order deceives.
func (b *builder) inTime(e ledger.Envelope, last string) error {
	win := b.opt.Window
	inside := e.Time >= win.From && e.Time < win.To
	if e.Time < last || inside != (e.Seq >= b.first && e.Seq < b.end) {
		return fmt.Errorf("its time %s is out of order", e.Time)
	}
	return nil
}

// entry takes one entry of the window.
func (b *builder) entry(e entry) error {
	if e.unknown {
		return fmt.Errorf("export: entry %d: %w: only a newer stella can archive it", e.Envelope.Seq, ledger.ErrUnknownType)
	}
	if e.withheld != "" {
		b.withhold(Withheld{What: withheldData, Seq: e.Envelope.Seq, Reason: e.withheld})
	}
	if err := b.envelopes.add(e.envelope); err != nil {
		return err
	}
	if err := b.data.add(e.data); err != nil {
		return err
	}
	if err := b.derive.entry(e); err != nil {
		return tooLarge(err)
	}
	if end, ok := e.Data.(*ledger.AttemptEnd); ok && end.Logs != nil {
		if err := b.segment(e, end); err != nil {
			return err
		}
	}
	if b.opt.Progress != nil {
		b.opt.Progress(e.Envelope.Seq-b.first+1, b.end-b.first)
	}
	return nil
}

// withhold declares what the archive does not hold, data once.
func (b *builder) withhold(w Withheld) {
	if w.What == withheldData {
		if b.hidden[w.Seq] {
			return
		}
		b.hidden[w.Seq] = true
	}
	b.withheld = append(b.withheld, w)
}

// segment writes the output of the attempt that e ended.
func (b *builder) segment(e entry, end *ledger.AttemptEnd) error {
	b.dropped += end.Logs.Dropped
	what := fmt.Sprintf("log segment %s", end.Logs.SHA256)
	r, err := b.src.LogSegment(end.Logs.SHA256)
	if reason, ok := withheldReason(err); ok {
		b.withhold(Withheld{What: withheldLog, Seq: e.Envelope.Seq, SHA256: end.Logs.SHA256, Reason: reason})
		return nil
	}
	if err != nil {
		return &DamagedError{what, err}
	}
	defer r.Close()
	logs := telemetry.NewLogs(b.siteID, b.logs.add)
	err = logs.Attempt(e.Envelope, end, telemetry.ReadSegment(r, *end.Logs))
	if n, fault := io.CopyN(io.Discard, r, 1); err == nil && n > 0 {
		return &DamagedError{what, errors.New("it goes on behind its end")}
	} else if err == nil && !errors.Is(fault, io.EOF) {
		err = fault
	}
	var bad *telemetry.SegmentError
	if errors.As(err, &bad) {
		return &DamagedError{what, err}
	}
	return tooLarge(err)
}

func withheldReason(err error) (string, bool) {
	var w *WithheldError
	if errors.As(err, &w) && validReason(w.Reason) {
		return w.Reason, true
	}
	return "", false
}

// tooLarge gives a limit of package telemetry the name that our callers know.
func tooLarge(err error) error {
	if errors.Is(err, telemetry.ErrTooLarge) {
		return fmt.Errorf("export: %w (%v)", ErrTooLarge, err)
	}
	return err
}

// runs writes runs.ndjson and what derives from whole runs.
func (b *builder) runs() error {
	keys := make([]runKey, 0, len(b.derive.runs))
	for id := range b.derive.runs {
		key, err := b.key(id)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareRuns)
	for _, key := range keys {
		s, err := b.story(key.runID)
		if err != nil {
			return err
		}
		line, err := s.line()
		if err != nil {
			return &DamagedError{"run " + key.runID, err}
		}
		if err := b.runLines.add(line); err != nil {
			return err
		}
		for _, e := range s.entries {
			if e.withheld != "" {
				b.withhold(Withheld{What: withheldData, Seq: e.Envelope.Seq, Reason: e.withheld})
			}
		}
		if err := b.derive.run(s); err != nil {
			return tooLarge(err)
		}
	}
	return nil
}

// key is the place of a run among others, found without reading all of it.
func (b *builder) key(runID string) (runKey, error) {
	key := runKey{runID: runID}
	for raw, err := range b.src.RunEntries(runID) {
		if err != nil {
			return key, fmt.Errorf("export: run %s: %w", runID, err)
		}
		if raw.Seq >= b.end {
			break
		}
		e, err := ledger.ParseEnvelope(raw.Envelope)
		if err != nil {
			return key, &DamagedError{fmt.Sprintf("entry %d", raw.Seq), err}
		}
		if e.Type == ledger.AttemptStarted {
			key.started = e.Time
			break
		}
	}
	return key, b.ctx.Err()
}

// story reads the entries of a run before the window's end.
func (b *builder) story(runID string) (*story, error) {
	s := &story{runID: runID}
	for raw, err := range b.src.RunEntries(runID) {
		if err == nil {
			err = b.ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("export: run %s: %w", runID, err)
		}
		if raw.Seq >= b.end {
			break
		}
		e, err := readEntry(raw)
		if err == nil {
			err = s.add(e)
		}
		if errors.Is(err, ErrTooLarge) {
			return nil, fmt.Errorf("export: %w", err)
		}
		if err != nil {
			return nil, &DamagedError{"run " + runID, err}
		}
	}
	return s, nil
}

// write writes the tar.
func (b *builder) write(w io.Writer) (*Result, error) {
	_, to := b.opt.Window.times()
	out := &counter{w: w, sum: sha256.New()}
	tar := &ustar.Writer{W: out, Time: to.Unix()}
	for _, p := range b.parts {
		if err := b.writePart(tar, p); err != nil {
			return nil, fmt.Errorf("export: write %s: %w", p.Path, err)
		}
	}
	if err := tar.Close(); err != nil {
		return nil, fmt.Errorf("export: write: %w", err)
	}
	b.result.SHA256, b.result.Bytes = out.digest(), out.n
	return &b.result, nil
}

func (b *builder) writePart(tar *ustar.Writer, p part) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.ExportWrite); err != nil {
		return err
	}
	r, err := p.open()
	if err != nil {
		return err
	}
	defer r.Close()
	sum := sha256.New()
	if err := tar.Member(p.Path, p.Bytes, io.TeeReader(r, sum)); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
		return &DamagedError{p.Path, errors.New("it changed while the archive was written")}
	}
	return nil
}
