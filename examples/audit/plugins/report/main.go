// Command report is the plugin acme/audit-report: its action report writes the
// findings of an audit for people, as Markdown and as one HTML page; its action
// upgrades writes what to upgrade as a table for other programs. It is a
// WebAssembly module with a fixed clock.
package main

import (
	"context"

	"github.com/stellarun/stella/examples/audit/internal/attempt"
	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
	"github.com/stellarun/stella/examples/audit/internal/findings"
	"github.com/stellarun/stella/examples/audit/internal/report"
	"github.com/stellarun/stella/plugin"
)

func main() { plugin.Main(run) }

func run(_ context.Context, c *plugin.Call) error {
	var params struct {
		Title    string             `json:"title"`
		Findings attempt.Artifact   `json:"findings"`
		SBOMs    []attempt.Artifact `json:"sboms"`
	}
	if err := c.Params(&params); err != nil {
		return err
	}
	d, err := attempt.Read(c, params.Findings, findings.Decode)
	if err != nil {
		return err
	}
	a := report.Audit{Title: params.Title, Document: d, SHA256: params.Findings.SHA256}
	for _, s := range params.SBOMs {
		b, err := attempt.Read(c, s, cyclonedx.Decode)
		if err != nil {
			return err
		}
		a.Bills = append(a.Bills, b)
	}
	switch c.Request.Action {
	case "report":
		return writeReport(c, a)
	case "upgrades":
		return writeUpgrades(c, a)
	}
	return plugin.Rejectf("there is no action %q", c.Request.Action)
}

func writeReport(c *plugin.Call, a report.Audit) error {
	if err := attempt.Write(c, "report.md", "text/markdown", report.Markdown(a)); err != nil {
		return err
	}
	if err := attempt.Write(c, "report.html", "text/html", report.HTML(a)); err != nil {
		return err
	}
	return c.Output("verdict", report.Verdict(a.Document))
}

func writeUpgrades(c *plugin.Call, a report.Audit) error {
	raw, err := report.UpgradesCSV(a)
	if err != nil {
		return err
	}
	if err := attempt.Write(c, "upgrades.csv", "text/csv", raw); err != nil {
		return err
	}
	return c.Output("upgrades", len(a.Document.Upgrades))
}
