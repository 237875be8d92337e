package export

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/internal/ustar"
	"github.com/stellarun/stella/ledger"
)

// Manifest is manifest.json: what an archive holds. The file is its canonical
// JSON (RFC 8785) and a line feed.
type Manifest struct {
	Dropped               map[string]int64 `json:"dropped"` // logs: bytes of output that a cap cut
	Files                 []File           `json:"files"`   // by path, but manifest.json and SHA256SUMS*
	Ledger                Range            `json:"ledger"`
	Origin                string           `json:"origin"` // of the checkpoint
	RedactionPolicySHA256 string           `json:"redactionPolicySha256,omitempty"`
	Schema                string           `json:"schema"`
	Stella                string           `json:"stella"` // version that wrote the archive
	Window                Window           `json:"window"`
	Withheld              []Withheld       `json:"withheld"`
}

// Window is the half-open interval of recorded time [From, To).
type Window struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Range says which entries an archive holds, of which tree.
type Range struct {
	Count    int64  `json:"count"`
	FirstSeq int64  `json:"firstSeq"`
	Root     string `json:"root"` // hex; of the checkpoint
	TreeSize int64  `json:"treeSize"`
}

// File is one file of an archive. Records and what is uncompressed are there
// for compressed files only, which hold one record a line.
type File struct {
	Bytes              int64  `json:"bytes"`
	MediaType          string `json:"mediaType"`
	Path               string `json:"path"`
	Records            *int64 `json:"records,omitempty"`
	SHA256             string `json:"sha256"`
	UncompressedBytes  *int64 `json:"uncompressedBytes,omitempty"`
	UncompressedSHA256 string `json:"uncompressedSha256,omitempty"`
}

// What can be withheld. The strings are part of the format.
const (
	withheldData     = "data"     // a data line: its place in the archive says why
	withheldLog      = "log"      // a log segment
	withheldEvidence = "evidence" // a sealed file
)

// Withheld declares one thing that the ledger names and the archive does not
// hold.
type Withheld struct {
	Reason string `json:"reason"`
	Seq    int64  `json:"seq"`              // of the entry; of evidence, the first that names it
	SHA256 string `json:"sha256,omitempty"` // of a log segment or a sealed file
	What   string `json:"what"`             // data | log | evidence
}

func compareWithheld(a, b Withheld) int {
	return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.SHA256, b.SHA256))
}

// validReason says whether s may stand as a reason for withholding.
func validReason(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// encodeJSON is the form of every JSON file of an archive.
func encodeJSON(v any) ([]byte, error) {
	raw, err := jcs.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return append(raw, '\n'), nil
}

// decodeJSON fills v from exactly what encodeJSON gives for what v then is.
func decodeJSON(raw []byte, v any) error {
	body, ok := bytes.CutSuffix(raw, []byte{'\n'})
	if !ok {
		return errors.New("does not end with a line feed")
	}
	if err := jcs.Check(body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return errors.New("not the fields of " + Schema)
	}
	again, err := encodeJSON(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, raw) {
		return errors.New("has fields that " + Schema + " does not know, or lacks some")
	}
	return nil
}

// parseManifest reads manifest.json and checks all that it can say by itself.
func parseManifest(raw []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := decodeJSON(raw, m); err != nil {
		return nil, err
	}
	if m.Schema != Schema {
		return nil, fmt.Errorf("schema %.40q is not %s", m.Schema, Schema)
	}
	if _, _, err := ledger.ParseOrigin(m.Origin); err != nil {
		return nil, err
	}
	if err := m.Window.check(); err != nil {
		return nil, err
	}
	if err := m.Ledger.check(); err != nil {
		return nil, err
	}
	if m.RedactionPolicySHA256 != "" && !isSHA256(m.RedactionPolicySHA256) {
		return nil, errors.New("redactionPolicySha256 is no digest")
	}
	if dropped, ok := m.Dropped["logs"]; len(m.Dropped) != 1 || !ok || dropped < 0 {
		return nil, errors.New("dropped must name logs, and nothing else")
	}
	if err := m.checkWithheld(); err != nil {
		return nil, err
	}
	return m, m.checkFiles()
}

// check refuses windows that are empty intervals, or that telemetry cannot
// express.
func (w Window) check() error {
	from, err := stamp.Parse(w.From)
	if err != nil {
		return err
	}
	to, err := stamp.Parse(w.To)
	if err != nil {
		return err
	}
	if from.Year() < 1970 || to.Year() > 2200 {
		return fmt.Errorf("window %s to %s: only the years 1970 to 2200 can be archived", w.From, w.To)
	}
	if !from.Before(to) {
		return fmt.Errorf("window %s to %s: its end is not after its start", w.From, w.To)
	}
	return nil
}

// times are the window's edges; it was checked.
func (w Window) times() (from, to time.Time) {
	from, _ = stamp.Parse(w.From)
	to, _ = stamp.Parse(w.To)
	return from, to
}

func (r Range) check() error {
	switch {
	case r.FirstSeq < 0 || r.Count < 0 || r.Count > maxEntries || r.TreeSize > ledger.MaxSize || r.FirstSeq >= r.TreeSize-r.Count:
		return fmt.Errorf("no window of %d entries from %d in a tree of %d", r.Count, r.FirstSeq, r.TreeSize)
	case !isSHA256(r.Root):
		return errors.New("root is no hash")
	}
	return nil
}

func (m *Manifest) checkWithheld() error {
	if m.Withheld == nil {
		return errors.New("withheld is not a list")
	}
	for i, w := range m.Withheld {
		switch {
		case i > 0 && compareWithheld(m.Withheld[i-1], w) >= 0:
			return fmt.Errorf("withheld item %d is out of order", i)
		case !validReason(w.Reason) || w.Seq < 0:
			return fmt.Errorf("withheld item %d is malformed", i)
		case w.What == withheldData && w.SHA256 == "":
		case (w.What == withheldLog || w.What == withheldEvidence) && isSHA256(w.SHA256):
		default:
			return fmt.Errorf("withheld item %d is malformed", i)
		}
	}
	return nil
}

func (m *Manifest) checkFiles() error {
	for i, f := range m.Files {
		if i > 0 && m.Files[i-1].Path >= f.Path {
			return fmt.Errorf("file %d is out of order", i)
		}
		if err := f.check(); err != nil {
			return fmt.Errorf("file %.100q: %w", f.Path, err)
		}
	}
	return nil
}

// check compares a file's fields with what its path demands.
func (f File) check() error {
	want, ok := mediaType(f.Path)
	compressed := strings.HasSuffix(f.Path, ".zst")
	sizes := f.Records != nil && f.UncompressedBytes != nil && *f.Records >= 0 && *f.UncompressedBytes >= 0 && isSHA256(f.UncompressedSHA256)
	none := f.Records == nil && f.UncompressedBytes == nil && f.UncompressedSHA256 == ""
	switch {
	case !ok:
		return errors.New("no archive has such a file")
	case f.MediaType != want:
		return fmt.Errorf("its mediaType is not %s", want)
	case !isSHA256(f.SHA256) || f.Bytes < 0 || f.Bytes > ustar.MaxSize:
		return errors.New("its digest or size is malformed")
	case compressed && !sizes || !compressed && !none:
		return errors.New("what is said of its content is malformed")
	}
	if sum, ok := evidenceSum(f.Path); ok && sum != f.SHA256 {
		return errors.New("it is not named by its digest")
	}
	return nil
}

// mediaType is the media type of a file that a manifest lists.
func mediaType(path string) (string, bool) {
	switch path {
	case envelopesPath, dataPath, runsPath, logsPath, metricsPath, tracesPath:
		return "application/x-ndjson+zstd", true
	case checkpointPath, readmePath:
		return "text/plain; charset=utf-8", true
	case windowPath:
		return "application/json", true
	case logKeyPath, siteKeyPath:
		return "application/x-pem-file", true
	}
	_, ok := evidenceSum(path)
	return "application/octet-stream", ok
}

// file finds what the manifest says of a path.
func (m *Manifest) file(path string) (File, bool) {
	i, ok := slices.BinarySearchFunc(m.Files, path, func(f File, path string) int { return cmp.Compare(f.Path, path) })
	if !ok {
		return File{}, false
	}
	return m.Files[i], true
}

// proof is window.json: what binds the window's lines to the checkpoint.
type proof struct {
	After    string   `json:"after"`            // exact line of the entry after the window
	Before   *string  `json:"before,omitempty"` // exact line of the entry before it; absent at seq 0
	Count    int64    `json:"count"`
	First    int64    `json:"first"`
	Left     []string `json:"left"`  // hex; complete subtrees left of before
	Right    []string `json:"right"` // hex; complete subtrees right of after
	TreeSize int64    `json:"treeSize"`
}

func hexHashes(in []ledger.Hash) []string {
	out := make([]string, len(in))
	for i, h := range in {
		out[i] = ledger.HexHash(h)
	}
	return out
}

func parseHashes(in []string) ([]ledger.Hash, error) {
	if len(in) > 64 {
		return nil, errors.New("more hashes than a tree has levels")
	}
	out := make([]ledger.Hash, len(in))
	for i, s := range in {
		h, err := ledger.ParseHash(s)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}
