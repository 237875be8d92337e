package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/stellarun/stella/internal/ustar"
	"github.com/stellarun/stella/ledger"
)

// finish ends the compressed files and lists the archive's files in the order
// of the tar, but the three that come first.
func (b *builder) finish() error {
	if err := b.derive.metrics.Lines(b.metrics.add); err != nil {
		return tooLarge(err)
	}
	window, err := encodeJSON(b.proof)
	if err != nil {
		return err
	}
	b.add(readmePath, []byte(readme))
	b.add(logKeyPath, b.keys[0])
	b.add(siteKeyPath, b.keys[1])
	for _, l := range []*lineWriter{b.envelopes, b.data, b.runLines} {
		if err := b.addLines(l); err != nil {
			return err
		}
	}
	b.add(checkpointPath, b.note)
	b.add(windowPath, window)
	if err := b.addEvidence(); err != nil {
		return err
	}
	for _, l := range []*lineWriter{b.logs, b.metrics, b.traces} {
		if err := b.addLines(l); err != nil {
			return err
		}
	}
	return nil
}

// add lists a file that is held in memory.
func (b *builder) add(path string, content []byte) {
	media, _ := mediaType(path)
	b.parts = append(b.parts, part{
		File: File{Path: path, MediaType: media, Bytes: int64(len(content)), SHA256: digestOf(content)},
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	})
}

func (b *builder) addLines(l *lineWriter) error {
	f, err := l.finish()
	if err != nil {
		return err
	}
	if f.Bytes > ustar.MaxSize {
		return fmt.Errorf("export: %s: %w", f.Path, ErrTooLarge)
	}
	b.parts = append(b.parts, part{File: f, open: func() (io.ReadCloser, error) { return io.NopCloser(l.reader()), nil }})
	return nil
}

// addEvidence lists every sealed file that an entry of the window names, and
// reads each once to know that it is whole.
func (b *builder) addEvidence() error {
	digests := make([]string, 0, len(b.derive.evidence))
	for d := range b.derive.evidence {
		digests = append(digests, d)
	}
	if len(digests) > maxEvidence {
		return fmt.Errorf("export: %d sealed files: %w", len(digests), ErrTooLarge)
	}
	slices.Sort(digests)
	for _, digest := range digests {
		if err := b.ctx.Err(); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		size, err := b.measure(digest)
		if reason, ok := withheldReason(err); ok {
			b.withhold(Withheld{What: withheldEvidence, Seq: b.derive.evidence[digest], SHA256: digest, Reason: reason})
			continue
		}
		if err != nil {
			return err
		}
		path := evidencePath + digest
		media, _ := mediaType(path)
		b.parts = append(b.parts, part{
			File: File{Path: path, MediaType: media, Bytes: size, SHA256: digest},
			open: func() (io.ReadCloser, error) { return b.src.Blob(digest) },
		})
	}
	return nil
}

// measure is the size of a sealed file, which must be what its name says.
func (b *builder) measure(digest string) (int64, error) {
	what := "sealed file " + digest
	if !isSHA256(digest) {
		return 0, &DamagedError{what, errors.New("this is no digest")}
	}
	r, err := b.src.Blob(digest)
	if _, ok := withheldReason(err); ok {
		return 0, err
	}
	if err != nil {
		return 0, &DamagedError{what, err}
	}
	defer r.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, r)
	switch {
	case err != nil:
		return 0, &DamagedError{what, err}
	case hex.EncodeToString(sum.Sum(nil)) != digest:
		return 0, &DamagedError{what, errors.New("its content has another digest")}
	case size > ustar.MaxSize:
		return 0, fmt.Errorf("export: %s: %w", what, ErrTooLarge)
	}
	return size, nil
}

// seal makes the manifest, the digests over everything, and their signature.
func (b *builder) seal() error {
	m := Manifest{
		Schema: Schema, Origin: b.checkpoint.Origin, Window: b.opt.Window, Stella: b.opt.Stella,
		RedactionPolicySHA256: b.opt.RedactionPolicySHA256,
		Dropped:               map[string]int64{"logs": b.dropped},
		Ledger: Range{
			FirstSeq: b.first, Count: b.end - b.first, TreeSize: b.checkpoint.Size, Root: ledger.HexHash(b.checkpoint.Root),
		},
		Withheld: b.withheld,
	}
	slices.SortFunc(m.Withheld, compareWithheld)
	var sums []sum
	for _, p := range b.parts {
		m.Files = append(m.Files, p.File)
		sums = append(sums, sum{p.Path, p.SHA256})
	}
	slices.SortFunc(m.Files, func(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	raw, err := encodeJSON(m)
	if err != nil {
		return err
	}
	if len(raw) > maxManifest {
		return fmt.Errorf("export: the manifest: %w", ErrTooLarge)
	}
	if _, err := parseManifest(raw); err != nil {
		return fmt.Errorf("export: this archive's manifest would be refused: %w", err)
	}
	rawSums := encodeSums(append(sums, sum{manifestPath, digestOf(raw)}))
	signature, err := b.opt.Sign(rawSums)
	if err != nil {
		return fmt.Errorf("export: sign: %w", err)
	}
	rest := b.parts
	b.parts = nil
	b.add(manifestPath, raw)
	b.add(sumsPath, rawSums)
	b.add(signaturePath, signature)
	b.parts = append(b.parts, rest...)
	b.result.ExportCreation = ledger.ExportCreation{
		From: m.Window.From, To: m.Window.To, FirstSeq: m.Ledger.FirstSeq, Count: m.Ledger.Count,
		TreeSize: m.Ledger.TreeSize, Root: m.Ledger.Root, Manifest: digestOf(raw), Withheld: int64(len(m.Withheld)),
	}
	return nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
