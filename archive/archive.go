// Package archive keeps what ended runs have left, artifacts and log segments, in
// files that can be taken away from a site and read without it: a tar of zstd files
// that tar, zstd and sha256sum open, each named by the SHA-256 of its content, with a
// list of all that the site's key has signed.
//
// [Write] makes one, [Verify] holds every byte of one against what it says of itself,
// and [Index] finds single contents in one, which are hashed while they are read: what
// a reader is given to its end is what its digest says, whoever has made the file. What
// moves, and when the originals go, is for others to decide. The format is docs/format.md.
// The package starts no goroutine.
package archive

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
)

// Schema is the schema of the list, and names everything in an archive of runs.
const Schema = "stella.runs/1"

// Names of the files that every archive has. Artifacts and logs, each sorted, stand
// after the README.
const (
	listName   = "list.json"
	readmeName = "README.txt"
	sumsName   = "SHA256SUMS"
	sigName    = "SHA256SUMS.sigstore.json"

	artifactsDir, artifactSuffix = "artifacts/", ".zst"
	logsDir, logSuffix           = "logs/", ".jsonl.zst"
)

// Limits of what is read. What is written stays far below them.
const (
	maxMembers = 1 << 20
	maxList    = 256 << 20 // bytes of list.json, and of SHA256SUMS
	maxSmall   = 64 << 10  // bytes of each other file without content
)

// ErrForeign says that a file is no archive of runs of this site.
var ErrForeign = errors.New("archive: not an archive of runs of this site")

// A DamagedError is an archive that is not what it was when it was made.
type DamagedError struct {
	File   string // path of the archive
	Member string // "" for what is wrong with the whole
	Err    error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("archive: %s is damaged: %s", e.File, e.What())
}

// What is the error without the path of the archive.
func (e *DamagedError) What() string {
	if e.Member == "" {
		return e.Err.Error()
	}
	return e.Member + ": " + e.Err.Error()
}

func (e *DamagedError) Unwrap() error { return e.Err }

// A ContentError is a content that an archive was to have, and that cannot be read, or is not
// what its digest says.
type ContentError struct {
	SHA256 string
	Err    error
}

func (e *ContentError) Error() string { return fmt.Sprintf("sealed content %s: %v", e.SHA256, e.Err) }

func (e *ContentError) Unwrap() error { return e.Err }

// An Item is one content.
type Item struct {
	Bytes  int64  `json:"bytes"` // before compression
	SHA256 string `json:"sha256"`
}

// A Run is one whose artifacts or logs are in the archive.
type Run struct {
	DAGID    string `json:"dagId"`
	EndedUTC string `json:"endedUtc"`
	RunID    string `json:"runId"`
	Tenant   string `json:"tenant"`
}

// A List says what an archive holds: artifacts and logs sorted by digest, runs by id.
type List struct {
	Artifacts []Item `json:"artifacts"`
	Before    string `json:"before"` // the runs had ended by then
	Logs      []Item `json:"logs"`
	Runs      []Run  `json:"runs"`
	Schema    string `json:"schema"`
	SiteID    string `json:"siteId"`
}

// Encode gives the bytes of list.json, by whose SHA-256 the ledger knows an archive,
// whatever its file is called.
func (l *List) Encode() ([]byte, error) {
	raw, err := jcs.Marshal(l)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return nil, fmt.Errorf("archive: list: %w", err)
	}
	return append(raw, '\n'), nil
}

// ParseList reads exactly what [List.Encode] gives.
func ParseList(raw []byte) (*List, error) {
	l := new(List)
	if err := json.Unmarshal(raw, l); err != nil {
		return nil, errors.New("archive: list: not the fields of " + Schema)
	}
	again, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(raw, again) {
		return nil, errors.New("archive: list: not in its one form")
	}
	return l, nil
}

func (l *List) check() error {
	if _, err := stamp.Parse(l.Before); err != nil {
		return err
	}
	switch {
	case l.Schema != Schema:
		return fmt.Errorf("schema %.40q is not %s", l.Schema, Schema)
	case len(l.SiteID) != 32 || !isHex(l.SiteID):
		return errors.New("no site id")
	case l.Artifacts == nil || l.Logs == nil || l.Runs == nil:
		return errors.New("a list is missing")
	case len(l.Artifacts)+len(l.Logs) > maxMembers-4:
		return fmt.Errorf("more than %d files", maxMembers-4)
	case !slices.IsSortedFunc(l.Runs, func(a, b Run) int { return strictly(cmp.Compare(a.RunID, b.RunID)) }):
		return errors.New("runs are out of order")
	}
	for _, items := range [][]Item{l.Artifacts, l.Logs} {
		for i, x := range items {
			if x.Bytes < 0 || len(x.SHA256) != 64 || !isHex(x.SHA256) {
				return errors.New("an item is malformed")
			}
			if i > 0 && items[i-1].SHA256 >= x.SHA256 {
				return errors.New("items are out of order")
			}
		}
	}
	return nil
}

// strictly makes equal neighbours out of order for a function that looks for a fall.
func strictly(c int) int { return cmp.Or(c, 1) }

// Bytes is how large all contents are, before compression.
func (l *List) Bytes() (n int64) {
	for _, items := range [][]Item{l.Artifacts, l.Logs} {
		for _, x := range items {
			n += x.Bytes
		}
	}
	return n
}

// Digests calls do for each content.
func (l *List) Digests(do func(digest string)) {
	for _, items := range [][]Item{l.Artifacts, l.Logs} {
		for _, x := range items {
			do(x.SHA256)
		}
	}
}

// member is a content's place in the archive that the list describes.
type member struct {
	Item
	name string
	log  bool
}

// members are all contents, in the order of the tar.
func (l *List) members() []member {
	out := make([]member, 0, len(l.Artifacts)+len(l.Logs))
	for _, x := range l.Artifacts {
		out = append(out, member{x, artifactsDir + x.SHA256 + artifactSuffix, false})
	}
	for _, x := range l.Logs {
		out = append(out, member{x, logsDir + x.SHA256 + logSuffix, true})
	}
	return out
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// readme tells people what they have before them.
const readme = `What runs that had ended have left at a site of stella: the files that they handed over
(artifacts/) and what they wrote (logs/). Nothing of stella is needed to read it.

  sha256sum -c SHA256SUMS                       every file is as it was written
  zstd -d logs/*.zst                            what a run wrote, a line of JSON each
  zstd -dc artifacts/D.zst | sha256sum          gives D: a file is named by its content
  cosign verify-blob --key site.pub --insecure-ignore-tlog --bundle SHA256SUMS.sigstore.json SHA256SUMS
                                                the site made it; take site.pub from elsewhere

list.json says of which runs they are. The site's ledger names the SHA-256 of list.json and of
this archive in an entry of type archive.created. Put the archive back into the folder archives/
of the home, under any name, and stella reads from it again.
`
