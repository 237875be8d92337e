package export

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/telemetry"
)

// fit returns why a file must not be read, or nil.
func (v *verifier) fit(path string) error {
	if v.unfit[path] {
		return &skip{why: path + " is not what it should be", hides: Verified} // reported where that was found
	}
	return nil
}

// small reads a file that is not compressed.
func (v *verifier) small(path string, limit int64) ([]byte, error) {
	if err := v.fit(path); err != nil {
		return nil, err
	}
	raw, err := v.c.small(path, limit)
	if err != nil {
		return nil, badFile(path, err)
	}
	return raw, nil
}

// lines opens a compressed file that the manifest describes.
func (v *verifier) lines(path string) (*lineReader, func(), error) {
	if err := v.fit(path); err != nil {
		return nil, nil, err
	}
	f, _ := v.m.file(path)
	r, err := v.c.open(path)
	if err != nil {
		return nil, nil, err
	}
	content, err := decompress(v.reader(r), *f.UncompressedBytes)
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return newLineReader(content, maxLine(path)), func() { content.Close(); r.Close() }, nil
}

// maxLine bounds the lines of a compressed file.
func maxLine(path string) int {
	switch path {
	case envelopesPath:
		return ledger.MaxEnvelope
	case dataPath:
		return ledger.MaxData
	case runsPath:
		return maxRun
	}
	return telemetry.MaxLine
}

// content decompresses every compressed file once.
func (v *verifier) content() (string, error) {
	limit := v.opt.MaxUncompressed
	if limit == 0 {
		limit = 256 << 30
	}
	total := int64(0)
	for _, f := range v.m.Files {
		if f.UncompressedBytes == nil {
			continue
		}
		if total += *f.UncompressedBytes; total > limit || *f.UncompressedBytes > limit {
			return "", badFile(f.Path, fmt.Errorf("the files decompress to more than the limit of %d bytes", limit))
		}
	}
	var first error
	for _, f := range v.m.Files {
		if f.UncompressedBytes == nil || v.unfit[f.Path] {
			continue
		}
		if err := v.contentOf(f); err != nil {
			v.unfit[f.Path] = true
			first = errors.Join(first, err)
		}
	}
	return fmt.Sprintf("%d bytes", total), first
}

// contentOf compares one file's content with the manifest.
func (v *verifier) contentOf(f File) error {
	r, err := v.c.open(f.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := decompress(v.reader(r), *f.UncompressedBytes)
	if err != nil {
		return badFile(f.Path, err)
	}
	defer content.Close()
	got := counter{w: io.Discard, sum: sha256.New()}
	lines := newLineReader(io.TeeReader(content, &got), maxLine(f.Path))
	for {
		_, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &badLine{f.Path, lines.n, fmt.Errorf("%s: %w", f.Path, err)}
		}
	}
	switch {
	case lines.n != *f.Records:
		return badFile(f.Path, fmt.Errorf("%s has %d records, not %d", f.Path, lines.n, *f.Records))
	case got.n != *f.UncompressedBytes || got.digest() != f.UncompressedSHA256:
		return badFile(f.Path, fmt.Errorf("the content of %s is not the one that the manifest describes", f.Path))
	}
	return nil
}

func (v *verifier) window() (string, error) {
	raw, err := v.small(windowPath, maxSmall)
	if err != nil {
		return "", err
	}
	p := &v.proof
	if err := decodeJSON(raw, p); err != nil {
		return "", badFile(windowPath, err)
	}
	want := v.m.Ledger
	if p.First != want.FirstSeq || p.Count != want.Count || p.TreeSize != want.TreeSize {
		return "", badFile(windowPath, fmt.Errorf("it is of %d entries from %d in a tree of %d", p.Count, p.First, p.TreeSize))
	}
	if p.Left == nil || p.Right == nil {
		return "", badFile(windowPath, errors.New("left or right is not a list"))
	}
	if v.left, err = parseHashes(p.Left); err == nil {
		v.right, err = parseHashes(p.Right)
	}
	if err != nil {
		return "", badFile(windowPath, err)
	}
	if v.after, err = parseEnvelope([]byte(p.After)); err != nil {
		return "", badFile(windowPath, fmt.Errorf("after: %w", err))
	}
	if (p.Before == nil) != (p.First == 0) {
		return "", badFile(windowPath, errors.New("an entry before the window is shown exactly if there is one"))
	}
	if p.Before != nil {
		if v.before, err = parseEnvelope([]byte(*p.Before)); err != nil {
			return "", badFile(windowPath, fmt.Errorf("before: %w", err))
		}
	}
	return "", nil
}

// note checks the checkpoint, and that it is the manifest's.
func (v *verifier) note() (string, error) {
	raw, err := v.small(checkpointPath, ledger.MaxNote)
	if err != nil {
		return "", err
	}
	c, err := ledger.ParseCheckpoint(raw)
	switch {
	case err != nil:
		return "", badFile(checkpointPath, err)
	case len(c.Cosignatures) > 0:
		return "", badFile(checkpointPath, errors.New("it holds cosignatures, which travel beside the archive"))
	case c.Origin != v.m.Origin || c.Size != v.m.Ledger.TreeSize || ledger.HexHash(c.Root) != v.m.Ledger.Root:
		return "", badFile(checkpointPath, errors.New("it is of another tree than the manifest's"))
	case v.logKey.log == nil:
		return "", &skip{why: "no key of the log was given: the signature is not checked", hides: Unauthenticated}
	}
	if _, err := ledger.OpenCheckpoint(raw, v.logKey.log, v.siteID); err != nil {
		if own, bad := v.ownKey(logKeyPath, parseLogKey); bad == nil && v.signedBy(own) {
			err = &foreign{err}
		}
		return "", badFile(checkpointPath, err)
	}
	return fmt.Sprintf("%s, size %d", c.Origin, c.Size), nil
}

// envelopes reads the window's envelopes and keeps their leaves.
func (v *verifier) envelopes() (string, error) {
	lines, done, err := v.lines(envelopesPath)
	if err != nil {
		return "", err
	}
	defer done()
	last := v.before.Time
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			last, err = v.envelope(line, last)
		}
		if err != nil {
			return "", &badLine{envelopesPath, lines.n, err}
		}
	}
	if n := int64(len(v.leaves)); n != v.proof.Count {
		return "", badFile(envelopesPath, fmt.Errorf("it holds %d entries, not %d", n, v.proof.Count))
	}
	return fmt.Sprintf("%d entries", len(v.leaves)), nil
}

// envelope checks one envelope and returns its time.
func (v *verifier) envelope(line []byte, last string) (string, error) {
	if int64(len(v.leaves)) == v.proof.Count {
		return "", errors.New("it is beyond the window's last entry")
	}
	e, err := parseEnvelope(line)
	if err != nil {
		return "", err
	}
	switch want := v.proof.First + int64(len(v.leaves)); {
	case e.Seq != want:
		return "", fmt.Errorf("it is entry %d, where entry %d should stand", e.Seq, want)
	case e.Time < last:
		return "", fmt.Errorf("entry %d: its time %s is before that of the entry before, %s", e.Seq, e.Time, last)
	case e.Time < v.m.Window.From || e.Time >= v.m.Window.To:
		return "", fmt.Errorf("entry %d: its time %s is not in the window", e.Seq, e.Time)
	}
	v.leaves = append(v.leaves, ledger.LeafHash(line))
	v.ofRun = append(v.ofRun, e.RunID != "")
	return e.Time, nil
}

// allLeaves yields the leaves that the window proof is about.
func (v *verifier) allLeaves() iter.Seq[ledger.Hash] {
	return func(yield func(ledger.Hash) bool) {
		if v.proof.Before != nil && !yield(ledger.LeafHash([]byte(*v.proof.Before))) {
			return
		}
		for _, leaf := range v.leaves {
			if !yield(leaf) {
				return
			}
		}
		yield(ledger.LeafHash([]byte(v.proof.After)))
	}
}

func (v *verifier) root() (string, error) {
	root, err := ledger.WindowRoot(v.proof.First, v.proof.Count, v.proof.TreeSize, v.left, v.right, v.allLeaves())
	if err != nil {
		return "", badFile(windowPath, err)
	}
	if got := ledger.HexHash(root); got != v.m.Ledger.Root {
		return "", fmt.Errorf("they lead to %s, not to %s", got, v.m.Ledger.Root)
	}
	return v.m.Ledger.Root, nil
}

// edges checks that the neighbours are what they are called: their bytes are
// under the root already.
func (v *verifier) edges() (string, error) {
	end := v.proof.First + v.proof.Count
	switch {
	case v.after.Seq != end:
		return "", badFile(windowPath, fmt.Errorf("after is entry %d, not %d", v.after.Seq, end))
	case v.after.Time < v.m.Window.To:
		return "", badFile(windowPath, fmt.Errorf("after has the time %s, which lies in the window", v.after.Time))
	case v.proof.Before == nil:
		return "the window begins with the ledger", nil
	case v.before.Seq != v.proof.First-1:
		return "", badFile(windowPath, fmt.Errorf("before is entry %d, not %d", v.before.Seq, v.proof.First-1))
	case v.before.Time >= v.m.Window.From:
		return "", badFile(windowPath, fmt.Errorf("before has the time %s, which lies in the window", v.before.Time))
	}
	return "", nil
}
