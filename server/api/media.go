package api

import (
	"encoding/json"

	"github.com/stellarun/stella/ledger"
)

// MediaRequest asks for an import of bundles from files and folders that the
// holder of the site can read. Paths are absolute.
type MediaRequest struct {
	Paths    []string `json:"paths"`
	DryRun   bool     `json:"dryRun,omitempty"`   // judge, and keep nothing
	FailFast bool     `json:"failFast,omitempty"` // the first that is not admitted ends it
	Carrier  string   `json:"carrier,omitempty"`  // who brought the medium, for the receipt
	Receipt  bool     `json:"receipt,omitempty"`  // make one even if there is neither a folder nor a carrier
}

// Outcomes of one file of an import.
const (
	OutcomeAdmitted = "admitted" // with a dry run: would be
	OutcomeRefused  = "refused"
	OutcomeFailed   = "failed"    // it could not be read, or not be kept
	OutcomeNotTried = "not_tried" // the import ended before
)

// ImportItem is what came of one file. In its path, bytes that are not UTF-8 are
// written as \xNN.
type ImportItem struct {
	Path    string `json:"path"`
	Outcome string `json:"outcome"`
	SHA256  string `json:"sha256,omitempty"` // of the bytes that were read; absent where none was
	Size    int64  `json:"size,omitempty"`   // of the file, as it was found; absent where it was not opened
	*ImportResult
	Error *Error `json:"error,omitempty"`
}

// Skipped is a file or folder below a path that was not looked at.
type Skipped struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// MediaEvent says how far an import is: at file File of Files, Done of Total
// bytes into it. Item is set when it is known what came of one.
type MediaEvent struct {
	File  int         `json:"file"`
	Files int         `json:"files"`
	Path  string      `json:"path"`
	Done  int64       `json:"done"`
	Total int64       `json:"total"`
	Item  *ImportItem `json:"item,omitempty"`
}

// MediaReport is what came of an import. Receipt is the sealed receipt, whose
// digest is in entry Seq; both are absent where none was made.
type MediaReport struct {
	DryRun        bool            `json:"dryRun,omitempty"`
	Imports       []ImportItem    `json:"imports"` // in the order in which they were judged
	Skipped       []Skipped       `json:"skipped"`
	Media         []ledger.Medium `json:"media"`
	Admitted      int             `json:"admitted"` // for the first time
	Again         int             `json:"again"`    // admitted before, and judged anew
	Refused       int             `json:"refused"`
	Failed        int             `json:"failed"`
	Seq           int64           `json:"seq,omitempty"`
	ReceiptSHA256 string          `json:"receiptSha256,omitempty"`
	Receipt       json.RawMessage `json:"receipt,omitempty"`
	Warnings      []string        `json:"warnings,omitempty"` // what is about to end of the trust in force, and what waits to be erased
}
