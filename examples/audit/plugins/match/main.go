// Command match is the plugin acme/audit-match: it compares bills of materials
// with the advisories of a data bundle and hands over its findings. It is a
// WebAssembly module with a fixed clock: the same inputs give the same bytes.
package main

import (
	"context"
	"log"
	"os"

	"github.com/stellarun/stella/examples/audit/internal/attempt"
	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/plugin"
)

func main() {
	log.SetFlags(0)
	plugin.Main(run)
}

func run(_ context.Context, c *plugin.Call) error {
	var params struct {
		SBOMs []attempt.Artifact `json:"sboms"`
	}
	if err := c.Params(&params); err != nil {
		return err
	}
	if len(params.SBOMs) == 0 {
		return plugin.Rejectf("no bill of materials was given")
	}
	var bills []findings.Bill
	for _, a := range params.SBOMs {
		b, err := attempt.Read(c, a, cyclonedx.Decode)
		if err != nil {
			return err
		}
		bills = append(bills, findings.Bill{Name: a.Name, SHA256: a.SHA256, Bill: b})
	}
	ref, data, err := advisories(c)
	if err != nil {
		return err
	}
	records, err := findings.ReadAdvisories(os.DirFS(c.Path(data.Path)))
	if err != nil {
		return plugin.Rejectf("%s: %w", ref, err)
	}
	started, err := attempt.Started()
	if err != nil {
		return err
	}
	d, err := findings.Match(bills, records, started)
	if err != nil {
		return err
	}
	d.Database.Ref, d.Database.Digest = ref, data.Digest
	return handOver(c, d)
}

// advisories is the one data bundle of the step.
func advisories(c *plugin.Call) (ref string, data plugin.Data, err error) {
	if n := len(c.Request.Data); n != 1 {
		return "", plugin.Data{}, plugin.Rejectf("the step names %d data bundles; one with advisories is wanted", n)
	}
	for ref, data = range c.Request.Data {
	}
	return ref, data, nil
}

func handOver(c *plugin.Call, d findings.Document) error {
	raw, err := findings.Encode(d)
	if err != nil {
		return err
	}
	if err := attempt.Write(c, "findings", findings.MediaType, raw); err != nil {
		return err
	}
	log.Printf("%d packages, %d advisories: %d findings in %d packages",
		d.Counts.Packages, d.Database.Records-d.Database.Withdrawn, d.Counts.Findings, d.Counts.Affected)
	return attempt.Outputs(c,
		attempt.Value{Key: "findings", Value: d.Counts.Findings},
		attempt.Value{Key: "packages", Value: d.Counts.Packages},
		attempt.Value{Key: "advisories", Value: d.Database.Records - d.Database.Withdrawn},
		attempt.Value{Key: "affected", Value: d.Counts.Affected},
		attempt.Value{Key: "fixable", Value: d.Counts.Fixable},
		attempt.Value{Key: "skipped", Value: d.Counts.Skipped},
	)
}
