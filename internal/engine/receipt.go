package engine

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
)

// ReceiptSchema is the schema of the receipt of an import.
const ReceiptSchema = "stella.import/1"

// receipt is what an import leaves for people: every file, and what came of
// it. Its JCS form is a sealed blob that the entry names. Field names reach
// disk: never change or reuse one.
type receipt struct {
	Schema      string          `json:"schema"`
	SiteID      string          `json:"siteId"`
	Stella      string          `json:"stella"`
	Actor       string          `json:"actor"`
	Carrier     string          `json:"carrier,omitempty"`
	Paths       []string        `json:"paths"`
	Media       []ledger.Medium `json:"media"`
	Started     string          `json:"started"`
	Ended       string          `json:"ended"`
	Interrupted bool            `json:"interrupted,omitempty"`
	Files       []receiptFile   `json:"files"`
	Skipped     []api.Skipped   `json:"skipped"`
	MoreSkipped int64           `json:"moreSkipped,omitempty"`
}

// receiptFile is one file of a receipt.
type receiptFile struct {
	Path      string `json:"path"`
	Outcome   string `json:"outcome"`
	Already   bool   `json:"already,omitempty"`
	SHA256    string `json:"sha256,omitempty"` // of the first Bytes bytes; absent where none was read
	Bytes     int64  `json:"bytes"`            // that were read
	Size      int64  `json:"size,omitempty"`   // of the file, as it was found; absent where it was not opened
	Digest    string `json:"digest,omitempty"` // of the manifest
	Kind      string `json:"kind,omitempty"`
	Publisher string `json:"publisher,omitempty"`
	Name      string `json:"name,omitempty"`
	Version   string `json:"version,omitempty"`
	Seq       int64  `json:"seq,omitempty"`  // of the entry about it; absent where refusals were only counted
	Code      string `json:"code,omitempty"` // the reject reason, or why it failed
	Message   string `json:"message,omitempty"`
}

// receipt seals the receipt of an import and records it, where one is due: it
// was asked for, a folder was imported, or a carrier is named.
func (in *intake) receipt(interrupted bool) error {
	if in.req.DryRun || !in.req.Receipt && !in.gathered.folders && in.req.Carrier == "" {
		return nil
	}
	e := in.s.e
	r := receipt{
		Schema: ReceiptSchema, SiteID: e.db.SiteID(), Stella: e.opt.Version, Actor: in.s.actor, Carrier: in.req.Carrier,
		Media: in.out.Media, Started: stamp.Format(in.started), Ended: stamp.Format(e.opt.Now()), Interrupted: interrupted,
		MoreSkipped: in.gathered.more, Files: []receiptFile{}, Skipped: []api.Skipped{}, Paths: []string{},
	}
	entry := &ledger.MediaImport{
		Carrier: r.Carrier, Media: r.Media[:min(len(r.Media), maxEntryMedia)], Started: r.Started, Ended: r.Ended, Interrupted: interrupted,
		Files: int64(len(in.out.Imports)), Admitted: int64(in.out.Admitted), Again: int64(in.out.Again), Refused: int64(in.out.Refused),
		Failed: int64(in.out.Failed), Skipped: int64(len(in.out.Skipped)) + in.gathered.more,
	}
	for _, path := range in.req.Paths {
		r.Paths = append(r.Paths, valid(path))
	}
	for _, item := range in.out.Imports {
		f := receiptOf(item)
		entry.Bytes += f.Bytes
		r.Files = append(r.Files, f)
	}
	for _, x := range in.out.Skipped {
		r.Skipped = append(r.Skipped, x)
	}
	raw, err := jcs.Marshal(r)
	if err != nil {
		return internal(fmt.Errorf("receipt: %w", err))
	}
	if entry.Receipt, err = e.db.Blobs().Put(raw); err != nil {
		return spaceError(err)
	}
	if in.out.Seq, err = e.db.Append(ledger.ImportReceived, in.s.actor, entry); err != nil {
		return dbError(err)
	}
	in.out.Receipt, in.out.ReceiptSHA256 = json.RawMessage(raw), runner.Hash(raw)
	return nil
}

// maxEntryMedia bounds the media in an entry; the receipt has them all.
const maxEntryMedia = 16

func receiptOf(item api.ImportItem) receiptFile {
	f := receiptFile{Path: item.Path, Outcome: item.Outcome, SHA256: item.SHA256, Size: item.Size}
	if r := item.ImportResult; r != nil {
		v := r.Verdict
		f.Already, f.Bytes, f.Seq, f.Digest = r.Already, r.Bytes, r.Seq, v.Digest
		f.Kind, f.Publisher, f.Name, f.Version = v.Kind, v.Publisher, v.Name, v.Version
	}
	if err := item.Error; err != nil {
		f.Code, f.Message = string(err.Code), err.Message
		if x := err.Refusal; x != nil {
			f.Seq, f.Digest, f.Bytes = x.Seq, x.Digest, x.Offset
		}
	}
	return f
}

// valid makes UTF-8 of a name from a medium: other bytes are shown as \xNN.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
