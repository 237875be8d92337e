package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// receiptType is in each receipt of an import, at a place that depends on the
// rest.
var receiptType = []byte(`"schema":"` + engine.ReceiptSchema + `"`)

func (in *inspected) fact(name, value string) {
	if value != "" {
		in.Facts = append(in.Facts, [2]string{name, value})
	}
}

// invalidFile adds what is wrong with a file that is no bundle, and the next
// step.
func (in *inspected) invalidFile(err error, hint string) {
	in.find(verify.Reason(codeFileInvalid), "", err)
	in.Findings[len(in.Findings)-1].Hint = hint
}

func (in *inspected) dag(path string, raw []byte) {
	d, err := manifests.ParseDAG(path, raw)
	if err != nil {
		in.invalidFile(err, "stella orch dag validate "+quote(in.File))
		return
	}
	in.fact("dag", d.ID+"@"+d.Version)
	in.fact("steps", strconv.Itoa(len(d.Steps)))
	in.fact("next", "a bundle of kind dag takes it to a site: stella bundle new dag")
}

func (in *inspected) siteFile(path string, raw []byte) {
	c, err := manifests.ParseSite(path, raw)
	if err != nil {
		in.invalidFile(err, "a site whose site.toml is not valid does not open; docs/languages.md has its keys")
		return
	}
	in.fact("workers", strconv.Itoa(c.Workers))
	in.fact("largest bundle", size(c.MaxBundleBytes))
	for _, path := range c.CheckpointCopies {
		in.fact("checkpoint copy", path)
	}
}

// receipt reads the receipt of an import, as far as people ask.
func (in *inspected) receipt(raw []byte) {
	var r struct {
		SiteID      string `json:"siteId"`
		Actor       string `json:"actor"`
		Carrier     string `json:"carrier"`
		Started     string `json:"started"`
		Ended       string `json:"ended"`
		Interrupted bool   `json:"interrupted"`
		Files       []struct {
			Outcome string `json:"outcome"`
		} `json:"files"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		in.invalidFile(errors.New("it names the schema of a receipt, and is none"), "its bytes are those of the ledger's: stella ledger tail --type import.received")
		return
	}
	in.fact("site", r.SiteID)
	in.fact("by", r.Actor)
	in.fact("carrier", r.Carrier)
	in.fact("started", seconds(r.Started))
	in.fact("ended", seconds(r.Ended))
	if r.Interrupted {
		in.fact("interrupted", "yes")
	}
	counts := map[string]int{}
	for _, f := range r.Files {
		counts[f.Outcome]++
	}
	var parts []string
	for _, o := range []string{api.OutcomeAdmitted, api.OutcomeRefused, api.OutcomeFailed, api.OutcomeNotTried} {
		if counts[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[o], strings.ReplaceAll(o, "_", " ")))
		}
	}
	in.fact("files", join(": ", strconv.Itoa(len(r.Files)), strings.Join(parts, ", ")))
	in.fact("in the ledger", "if an entry import.received names its sha256: stella ledger tail --type import.received")
}

// notTar says whether a file that is no bundle does not even begin like one, or
// like another tar: it is then no damaged bundle.
func notTar(begin []byte) bool {
	const magicAt = 257
	name := []byte(bundle.ManifestName)
	switch {
	case len(begin) == 0, bytes.HasPrefix(begin, name), bytes.HasPrefix(name, begin):
		return false
	case len(bytes.Trim(begin, "\x00")) == 0:
		return false // a copy that failed
	}
	return len(begin) < magicAt+5 || string(begin[magicAt:magicAt+5]) != "ustar"
}

// within is a hint for whoever looks at the file with inspect already.
func within(hint string) string {
	hint = strings.ReplaceAll(hint, "that stella bundle inspect FILE prints", "that is printed here")
	var out []string
	for part := range strings.SplitSeq(hint, "; ") {
		if !strings.HasPrefix(part, "stella bundle inspect FILE") {
			out = append(out, part)
		}
	}
	return strings.Join(out, "; ")
}
