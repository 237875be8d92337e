package ledger

// Evidence lists the digests of the sealed blobs that an entry's data relies
// on: manifests, signatures, attestations, trust files, plans, inputs and
// outputs. Artifacts and logs are not among them; their digests are in the
// entries themselves. data is a pointer to the struct of the entry's type.
func Evidence(data any) []string {
	var out []string
	add := func(digests ...string) {
		for _, d := range digests {
			if d != "" {
				out = append(out, d)
			}
		}
	}
	trust := func(t TrustRef) { add(t.Root, t.Policy, t.Revocations, t.TrustedRoot, t.Extension) }
	switch d := data.(type) {
	case *SiteInit:
		add(d.Root, d.Policy)
	case *TrustChange:
		add(d.Root, d.Policy, d.Revocations, d.TrustedRoot)
		add(d.Signatures...)
	case *TrustExtension:
		add(d.File)
		add(d.Signatures...)
	case *BundleAdmission:
		add(d.Verdict.Digest)
		add(d.Signatures...)
		add(d.Verdict.Attestations...)
		add(d.Attestations...)
		trust(d.Verdict.Trust)
	case *MediaImport:
		add(d.Receipt)
	case *GarbageCollection:
		add(d.List)
	case *RunArchive:
		add(d.List)
	case *Cosigning:
		add(d.Note)
	case *EpochStart:
		add(d.Evidence)
	case *DAGPublication:
		add(d.Digest, d.Spec)
	case *ScheduleAddition:
		add(d.InputsHash)
	case *RunStart:
		add(d.PlanHash, d.InputsHash, d.DAGDigest)
		trust(d.Trust)
	case *AttemptStart:
		add(d.Plugin, d.PlanHash, d.InputsHash, d.Overlay)
		trust(d.Trust)
	case *AttemptEnd:
		add(d.OutputsHash)
	case *StepEnd:
		add(d.OutputsHash)
	case *RunEnd:
		add(d.OutputsHash)
	case *StepExpansion:
		add(d.Items)
	case *StepInvalidation:
		add(d.Overlay)
	case *CacheHit:
		add(d.InputsHash, d.OutputsHash)
		trust(d.Trust)
	case *SubrunStart:
		add(d.PlanHash, d.InputsHash)
	case *SubrunEnd:
		add(d.OutputsHash)
	case *ApprovalRequest:
		add(d.OutputsHash)
	case *ApprovalDecision:
		add(d.Modifications)
	case *ApprovalClosing:
		add(d.Modifications)
	}
	return out
}
