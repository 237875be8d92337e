package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Report is a report as it travels.
func Report(r *verify.Report) *api.Report {
	out := &api.Report{
		Decision: r.Decision, Reason: r.Reason, Digest: r.Digest, Now: r.Now, Trust: r.Trust, Threshold: r.Threshold,
		Counted: r.Counted, Demands: r.Demands, Softened: r.Softened, Checks: make([]api.Check, len(r.Checks)),
		Signatures: signerReports(r.Signatures), Attestations: signerReports(r.Attestations),
	}
	for i, c := range r.Checks {
		out.Checks[i] = api.Check(c)
	}
	return out
}

// PolicyLine is a line of a report as it travels.
func PolicyLine(l verify.PolicyLine) api.PolicyLine { return api.PolicyLine(l) }

func signerReports(list []verify.SignerReport) []api.SignerReport {
	out := make([]api.SignerReport, len(list))
	for i, s := range list {
		out[i] = api.SignerReport{
			File: s.File, ID: s.ID, Flow: s.Flow, Issuer: s.Issuer, SAN: s.SAN, PredicateType: s.PredicateType,
			State: s.State, Reason: s.Reason, Detail: s.Detail, Times: s.Times,
		}
		for _, l := range s.Lines {
			out[i].Lines = append(out[i].Lines, PolicyLine(l))
		}
	}
	return out
}

// refusalOf is a refusal as it travels.
func refusalOf(r *verify.RejectError) *api.Refusal {
	return &api.Refusal{
		Reason: string(r.Reason), Stage: string(verify.StageOf(r.Reason)), Subject: r.Subject, Detail: r.Detail, Hint: r.Hint,
	}
}

// now says whether the trust in force still admits a sealed bundle: ok, or the
// reason why not. Unlike [sealed.Judge] it keeps nothing, since it is asked about
// every bundle there is.
func (s *sealed) now(rec store.BundleRecord) string {
	err := s.rejudge(rec)
	var r *verify.RejectError
	var known *api.Error
	switch {
	case err == nil:
		return api.BundleOK
	case errors.As(err, &r):
		return string(r.Reason)
	case errors.As(dbError(err), &known):
		return string(known.Code)
	}
	return string(api.CodeInternal)
}

func (s *sealed) rejudge(rec store.BundleRecord) error {
	now, err := s.e.clock()
	if err != nil {
		return err
	}
	ev, err := s.evidence(rec)
	if err != nil {
		return err
	}
	t := s.e.currentTrust()
	_, err = t.Rejudge(spared(t.Trust, rec, ev, now), s.e.db.SiteID(), s.e.opt.Version, now)
	return err
}

// explain tells what the trust in force says of sealed evidence; nil where that
// is damaged.
func (s *sealed) explain(rec store.BundleRecord) *api.Report {
	now, err := s.e.clock()
	if err != nil {
		now = s.e.opt.Now() // a clock that is wrong is no reason to say nothing
	}
	ev, err := s.evidence(rec)
	if err != nil {
		return nil
	}
	t := s.e.currentTrust()
	return Report(t.Explain(verify.Case{
		Evidence: spared(t.Trust, rec, ev, now), Attested: true, Whole: true, SiteID: s.e.db.SiteID(), Stella: s.e.opt.Version, Now: now,
	}))
}

// LoadTrustDir loads trust files from a folder that is laid out like trust/ of
// a site. They are held against nothing but their signatures.
func LoadTrustDir(dir string) (*verify.Trust, *verify.Files, error) {
	files, err := readTrust(dir)
	if err != nil {
		return nil, nil, err
	}
	t, err := verify.Load(files)
	return t, &files, err
}

// Outside is a judgement without a site. Trust and Now are required.
type Outside struct {
	Trust  *verify.Trust
	Files  *verify.Files // of Trust, for what bundles of kind trust would put in force
	SiteID string        // of the site whose judgement it is to be; "": of any in the fleet
	Stella string        // version of this program
	Now    time.Time
}

// VerifyBundle judges a bundle as a site would that has admitted nothing yet,
// and keeps nothing. There are no floors, and no contents but the file's own.
func (o Outside) VerifyBundle(ctx context.Context, path string, p api.Progress) (ledger.Verdict, error) {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return ledger.Verdict{}, readError(path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return ledger.Verdict{}, readError(path, err)
	}
	res, err := o.Check(&watched{ctx: ctx, r: f, total: fi.Size(), progress: p}, fi.Size(), nil)
	var refusal *verify.RejectError
	switch {
	case errors.As(err, &refusal):
		return ledger.Verdict{}, rejected(path, res, refusal, 0)
	case err != nil:
		return ledger.Verdict{}, readError(path, err)
	}
	return *res.Verdict, nil
}

// Check judges what r, of that size, reads. The sink may be nil.
func (o Outside) Check(r io.Reader, size int64, sink verify.Sink) (*verify.Result, error) {
	dir, err := os.MkdirTemp("", "stella-verify-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	spool := &spoolFile{path: filepath.Join(dir, "spool")}
	defer spool.Close()
	return verify.Check(r, o.Trust, verify.Options{
		Files: o.Files, Now: o.Now, Limits: bundle.Limits{Size: size}, SiteID: o.SiteID, Stella: o.Stella, Spool: spool,
	}, sink)
}

// SiteIDOf reads the id of a home's site without opening it, "" where nothing
// says it. It is the note's word alone: for looking, not for admitting.
func SiteIDOf(home string) string {
	note, err := fsx.ReadFile(filepath.Join(home, "checkpoint.note"), 64<<10)
	if err != nil {
		return ""
	}
	origin, _, _ := strings.Cut(string(note), "\n")
	id, _, err := ledger.ParseOrigin(origin)
	if err != nil {
		return ""
	}
	return id
}
