package verify

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
)

// Checks of a judgement, as verdicts and reports name them.
const (
	checkContainer    = "container" // every entry is as it must be, to the end of the file
	checkSignatures   = "signatures"
	checkManifest     = "manifest"
	checkTrust        = "trust" // dates of the trust files
	checkRevocations  = "revocations"
	checkSigners      = "signers"
	checkKind         = "kind"
	checkName         = "name"
	checkAudience     = "audience"
	checkValidity     = "validity"
	checkFloors       = "floors"
	checkCapabilities = "capabilities"
	checkAttestations = "attestations"
	checkContents     = "contents" // every blob
)

// States of a check in a [Report].
const (
	StatePass          = "pass"
	StateFail          = "fail"
	StateSoftened      = "softened"       // it failed, and level audit lets that pass
	StateNotReached    = "not_reached"    // something that it needs failed, or was not read
	StateNotApplicable = "not_applicable" // there is nothing to check
)

// States of a signature or an attestation in a [Report].
const (
	StateCounted    = "counted"
	StateNotCounted = "not_counted" // it verifies, and does not count
	StateUnknown    = "unknown"     // no trust file names its signer: it was not verified
	StateInvalid    = "invalid"     // it refuses the bundle
)

// Decisions of a [Report] that verdicts never have.
const (
	Rejected  = "rejected"  // a check failed
	Undecided = "undecided" // none failed, but not all were reached
)

// Case is what [Trust.Explain] explains. Manifest and Now are required, apart
// from a file whose manifest could not be read.
type Case struct {
	Evidence
	Attested  bool                // all attestations of the file are in Evidence
	Whole     bool                // the file was read to its end, and its contents are what was signed
	Ended     bool                // the file was read to its end
	Absent    int                 // contents that the file leaves out, as a delta does
	Torn      bool                // Damage is in the manifest or among the signatures
	Damage    *bundle.FormatError // what ended the reading of the file; nil for nothing
	Refused   *RejectError        // why the contents are refused that were read; nil for nothing
	Strangers bool                // read a manifest too that nobody signed whom the trust names
	Floors    *Floors             // nil outside a site
	SiteID    string
	Stella    string
	Now       time.Time
}

// maxClaim bounds what a report repeats of the claims of a file.
const maxClaim = 1 << 10

// A Report is a judgement told check by check. It admits nothing: only a
// verdict of [Check], [Trust.Judge] or [Trust.Rejudge] does.
type Report struct {
	Decision     string // admitted | admitted_under_audit | rejected | undecided
	Reason       string // of the first check that failed
	Digest       string // of the manifest
	Now          string
	Trust        ledger.TrustRef
	Threshold    int
	Counted      int
	Demands      []string // what the policy demands of this publisher, in words
	Softened     []string // reasons that level audit lets pass
	Checks       []CheckReport
	Signatures   []SignerReport
	Attestations []SignerReport
}

// A CheckReport is what became of one check.
type CheckReport struct {
	Name   string
	State  string
	Reason string
	Detail string // may come from the file, escape it
	Hint   string
}

// A SignerReport is what became of one signature or attestation.
type SignerReport struct {
	File          string // name in the bundle
	ID            string // SHA-256 of the SPKI of the key that it names
	Flow          string // key | certificate; "" where the file cannot be read
	Issuer        string
	SAN           string
	PredicateType string // of an attestation
	State         string
	Reason        string
	Detail        string
	Times         []string // trusted times of the signature
	Lines         []PolicyLine
}

// A PolicyLine is an entry of a trust file that names a signer, or nearly does.
type PolicyLine struct {
	File    string // policy.toml or root.toml
	Line    int    // 0 where it is not known
	Entry   string // publisher acme, key 1
	Matches bool
	Why     string // why it does not match
}

// Explain judges as [Trust.Judge] does, by the same checks in the same order,
// and tells what each found instead of ending at the first that fails. A check
// that needs what another one did not find is not reached.
func (t *Trust) Explain(c Case) *Report {
	e := &explaining{trust: t, in: c, out: &Report{Digest: bundle.Digest(c.Manifest), Now: stamp.Format(c.Now), Trust: t.ref}}
	e.lines = manifests.PolicyLines(t.policyText)
	if c.Manifest == nil {
		e.out.Digest = ""
		e.failed(checkContainer, c.Damage)
		e.rest(checkSignatures)
		return e.end()
	}
	if c.Torn {
		_, _ = e.signatures() // those before the damage are told, and count for nothing
		e.failed(checkContainer, c.Damage)
		e.rest(checkSignatures)
		return e.end()
	}
	if c.Whole || c.Ended {
		e.passed(checkContainer, "")
	} else {
		e.add(CheckReport{Name: checkContainer, State: StateNotReached, Detail: "head only: the file was not read to its end"})
	}
	e.judge()
	e.contents()
	return e.end()
}

// explaining is one explanation under way.
type explaining struct {
	trust *Trust
	in    Case
	out   *Report
	lines []manifests.PublisherLines
	found map[string]*signer // verified signatures, by id
	judgement
}

// order is every check a report has.
var order = [...]string{
	checkContainer, checkSignatures, checkManifest, checkTrust, checkRevocations, checkSigners, checkKind, checkName,
	checkAudience, checkValidity, checkFloors, checkCapabilities, checkAttestations, checkContents,
}

func (e *explaining) add(c CheckReport) { e.out.Checks = append(e.out.Checks, c) }

func (e *explaining) passed(name, detail string) {
	e.add(CheckReport{Name: name, State: StatePass, Detail: detail})
}

// failed adds a check that err refused; nil is a check that was not reached.
func (e *explaining) failed(name string, err error) {
	c := CheckReport{Name: name, State: StateFail}
	var form *bundle.FormatError
	var refused *RejectError
	switch {
	case errors.As(err, &refused):
		c.Reason, c.Detail, c.Hint = string(refused.Reason), subjectAnd(refused.Subject, refused.Detail), refused.Hint
	case errors.As(err, &form) && form != nil:
		c.Reason, c.Detail, c.Hint = string(form.Reason), subjectAnd(form.Entry, form.Detail), HintOf(form.Reason)
	default:
		c.State = StateNotReached
	}
	e.add(c)
}

func subjectAnd(subject, detail string) string {
	if subject == "" || detail == "" {
		return subject + detail
	}
	return subject + ": " + detail
}

// rest adds the checks from one on as not reached, up to the contents.
func (e *explaining) rest(from string) {
	at := false
	for _, name := range order {
		if at = at || name == from; at {
			e.add(CheckReport{Name: name, State: StateNotReached})
		}
	}
}

// judge makes the checks of the manifest.
func (e *explaining) judge() {
	c := &e.in
	signed, err := e.signatures()
	known := len(signed.signers) > 0
	if err != nil {
		e.failed(checkSignatures, err)
	} else {
		e.passed(checkSignatures, "")
	}
	if !known && !c.Strangers {
		e.unread()
		return
	}
	m, err := parseManifest(c.Manifest)
	if err != nil {
		e.failed(checkManifest, err)
		e.unjudged()
		return
	}
	e.passed(checkManifest, m.Ref())
	j, err := e.trust.begin(Input{Manifest: m, Signed: signed, Floors: c.Floors, SiteID: c.SiteID, Stella: c.Stella, Now: c.Now})
	if err != nil {
		e.unjudged()
		return
	}
	e.judgement = *j
	for _, s := range e.steps() {
		e.step(s)
	}
	e.count()
	e.attest()
}

// unread adds the checks that need a manifest which nobody known signed.
func (e *explaining) unread() {
	e.add(CheckReport{Name: checkManifest, State: StateNotReached})
	e.unjudged()
}

func (e *explaining) unjudged() {
	e.rest(checkTrust)
	e.out.Checks = e.out.Checks[:len(e.out.Checks)-1] // contents are told by themselves
	e.attestationsAsTheyAre()
}

// step makes one check, unless it is about a publisher that the policy does
// not name.
func (e *explaining) step(s step) {
	missing := e.publisher == nil && e.judgement.in.Manifest.Kind != manifests.KindTrust
	switch {
	case missing && (s.name == checkKind || s.name == checkName || s.name == checkCapabilities):
		e.add(CheckReport{Name: s.name, State: StateNotReached, Detail: "there is no policy for the publisher"})
		return
	}
	softened, err := e.softening(s.check)
	switch {
	case err != nil:
		e.failed(s.name, err)
	case len(softened) > 0:
		e.softer(s.name, softened, tally(len(e.counted), e.threshold))
	case !e.applies(s.name):
		e.add(CheckReport{Name: s.name, State: StateNotApplicable, Detail: e.absent(s.name)})
	case s.name == checkTrust && e.trust.extended(e.judgement.in.Now):
		e.passed(s.name, "something has expired, and an extension puts that off")
	case s.name == checkSigners:
		e.passed(s.name, tally(len(e.counted), e.threshold))
	default:
		e.passed(s.name, "")
	}
}

// softening makes a check, and returns what level audit let pass in it.
func (e *explaining) softening(check func() error) ([]Reason, error) {
	before := e.softened
	e.softened = nil
	err := check()
	own := e.softened
	e.softened = before
	for _, r := range own {
		e.soften(r)
	}
	return own, err
}

// softer adds a check that level audit lets pass; its reason is the first.
func (e *explaining) softer(name string, reasons []Reason, detail string) {
	for _, r := range reasons[1:] {
		detail += "; " + string(r) + " too"
	}
	e.add(CheckReport{Name: name, State: StateSoftened, Reason: string(reasons[0]), Detail: detail, Hint: HintOf(reasons[0])})
}

// absent says why a check had nothing to check.
func (e *explaining) absent(check string) string {
	switch check {
	case checkRevocations:
		return "the trust has no revocations"
	case checkAudience:
		return "the bundle names no audience, and needs none"
	case checkFloors:
		if e.in.Floors != nil {
			return "this bundle was admitted before"
		}
		return "outside a site, or sealed already"
	case checkCapabilities:
		return "it holds no plugin"
	}
	return "roles of root.toml sign it, no publisher"
}

// contents tells of the file behind the attestations.
func (e *explaining) contents() {
	switch {
	case e.in.Damage != nil:
		e.failed(checkContents, e.in.Damage)
	case e.in.Refused != nil:
		e.failed(checkContents, e.in.Refused)
	case e.in.Whole:
		e.passed(checkContents, "")
	case e.in.Absent > 0:
		e.add(CheckReport{Name: checkContents, State: StateNotReached,
			Detail: fmt.Sprintf("%d contents are left out, and must be at the site", e.in.Absent)})
	default:
		e.add(CheckReport{Name: checkContents, State: StateNotReached})
	}
}

// end decides: one check that failed, or was not reached, admits nothing.
func (e *explaining) end() *Report {
	r := e.out
	r.Decision = Admitted
	if len(e.softened) > 0 {
		r.Decision = AdmittedUnderAudit
	}
	for _, s := range e.softened {
		r.Softened = append(r.Softened, string(s))
	}
	for _, c := range r.Checks {
		if c.State == StateFail {
			r.Decision, r.Reason = Rejected, c.Reason
			break
		}
		if c.State == StateNotReached {
			r.Decision = Undecided
		}
	}
	return r
}

// Case is what [Trust.Explain] needs to tell of what [Check] came to, which
// returned err.
func (r *Result) Case(err error) Case {
	c := Case{
		Evidence: Evidence{r.Raw, r.Signatures, r.Attestations},
		Attested: r.attested, Whole: err == nil, Ended: r.ended, Floors: r.floors, SiteID: r.opt.SiteID, Stella: r.opt.Stella, Now: r.opt.Now,
	}
	var form *bundle.FormatError
	if errors.As(err, &form) {
		c.Damage = form
	} else if r.judged {
		errors.As(err, &c.Refused)
	}
	return c
}

// Report tells what [Check] came to, which returned err.
func (r *Result) Report(err error) *Report { return r.trust.Explain(r.Case(err)) }

// demands says in words what the policy asks of a publisher.
func (p *publisher) demands() []string {
	out := []string{fmt.Sprintf("signers: %d of its %d keys and identities", p.Threshold, len(p.Keys)+len(p.Identities))}
	for _, n := range []struct {
		count int
		what  string
	}{{p.Require.TLog, "log entries"}, {p.Require.Timestamps, "timestamps"}, {p.Require.SCT, "certificate timestamps"}} {
		if n.count > 0 {
			out = append(out, fmt.Sprintf("on each signature: %d %s", n.count, n.what))
		}
	}
	if p.Require.Audience {
		out = append(out, "audience: the bundle names the site or the fleet")
	}
	for _, a := range p.attesters {
		text := "attestation: " + a.PredicateType
		if a.Builder != "" {
			text += " by the builder " + a.Builder
		}
		var ids []string
		for _, pem := range a.Keys {
			if k, err := newKey(pem); err == nil {
				ids = append(ids, k.id)
			}
		}
		for _, id := range a.Identities {
			ids = append(ids, id.SAN+" by "+id.Issuer)
		}
		out = append(out, text+" signed by one of "+strings.Join(ids, ", "))
	}
	var kinds []string
	for _, k := range p.Kinds {
		kinds = append(kinds, string(k))
	}
	out = append(out, "kinds: "+strings.Join(kinds, ", "), "names that begin with: "+strings.Join(p.Names, ", "))
	if p.Level == "audit" {
		out = append(out, "level audit: missing attestations, timestamps and log entries pass, and are recorded")
	}
	return out
}
