package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stellarun/stella/internal/ustar"
	"github.com/stellarun/stella/ledger"
)

// VerifyOptions hold what the auditor knows from elsewhere. Nothing in them is
// taken from the archive.
type VerifyOptions struct {
	LogKey  []byte // the ledger's public key, SPKI PEM; without it nothing is authenticated
	SiteKey []byte // the site's public key, SPKI PEM; without it nothing is authenticated
	SiteID  string // 32 hex digits; "" accepts the site that the archive names
	Root    string // SHA-256 of the root.toml that the trust files must begin with, hex; "" accepts any

	// Previous is a checkpoint of the same site that the auditor holds: the
	// archive's tree must extend its tree. Where its size falls inside a
	// subtree of the window's edges, Consistency is the proof from its size to
	// that of the archive's checkpoint.
	Previous    []byte
	Consistency *Consistency

	// Cosigned is a tree head of the same site, of a tree that holds the window, with
	// signatures of witnesses. Those of Witnesses count. MinWitnesses of them are demanded.
	// CosignedConsistency is for the two trees what Consistency is for the other.
	Cosigned            []byte
	CosignedConsistency *Consistency
	Witnesses           []ledger.Witness
	MinWitnesses        int

	Identity []byte // secret keys of age, a line each, for an archive that is encrypted

	Withheld        int64 // how many things the auditor knows to be withheld
	MaxBytes        int64 // of the archive; 0 means 64 GiB
	MaxUncompressed int64 // of all its compressed files together; 0 means 256 GiB

	Progress func(check string) // called before each check; may be nil
}

// Names of checks, in their order. They reach JSON and scripts.
const (
	checkForm       = "form"
	checkSigned     = "signature"
	checkSums       = "sums"
	checkManifest   = "manifest"
	checkKeys       = "keys"
	checkContent    = "content"
	checkWindow     = "window"
	checkCheckpoint = "checkpoint"
	checkEnvelopes  = "envelopes"
	checkRoot       = "root"
	checkEdges      = "edges"
	checkData       = "data"
	checkPrevious   = "previous"
	checkWitnesses  = "witnesses"
	checkGenesis    = "genesis"
	checkRuns       = "runs"
	checkEvidence   = "evidence"
	checkTrust      = "trust"
	checkVerdicts   = "verdicts"
	checkLogs       = "logs"
	checkMetrics    = "metrics"
	checkTraces     = "traces"
)

// verifier is an archive that is being judged.
type verifier struct {
	ctx     context.Context
	opt     VerifyOptions
	logKey  publicKey // log is nil if it was not given
	siteKey publicKey // sig is nil if it was not given
	c       *container
	best    Verdict
	report  Report
	status  map[string]Status
	foreign map[string]bool // checks that failed by nothing but the auditor's keys
	unfit   map[string]bool // files that are not what was signed, or not what the manifest says

	rawSums  []byte
	listed   map[string]string // path → digest, of SHA256SUMS
	m        *Manifest
	siteID   string
	proof    proof
	left     []ledger.Hash
	right    []ledger.Hash
	before   ledger.Envelope
	after    ledger.Envelope
	leaves   []ledger.Hash // of the window
	ofRun    []bool        // which of them belong to a run
	withheld withheldIndex
	derive   deriver
	genesis  *entry // entry 0, if the window holds it
	clock    acceptedClock
	lineage  lineage
	admitted admissions
	dropped  int64 // bytes of output that the window's entries say were cut
	begun    int64 // epoch that has begun last in the window, as far as data is there
	unknown  int64 // entries whose type this stella does not know
	carried  int64 // events of runs from before the window
	logs     *logMatcher
	traces   *lineMatcher
}

// Verify judges the archive at path, a tar or the folder that it was unpacked
// to. It writes nothing, and it needs 33 bytes of memory an entry of the window
// beside what the longest run takes.
//
// A report always means that the archive was judged. An error means that it was
// not: it cannot be read, it changed meanwhile, a key is not one, or ctx ended.
func Verify(ctx context.Context, path string, opt VerifyOptions) (*Report, error) {
	v, err := judged(ctx, path, opt)
	if err != nil {
		return nil, err
	}
	defer v.release()
	return &v.report, nil
}

// judged makes all checks. The archive stays open until it is released: what is read
// again is the same, or a fault.
func judged(ctx context.Context, path string, opt VerifyOptions) (v *verifier, err error) {
	v = &verifier{ctx: ctx, opt: opt, best: Verified, status: map[string]Status{}, foreign: map[string]bool{}, unfit: map[string]bool{}}
	if err := v.keys(); err != nil {
		return nil, err
	}
	var form *ustar.FormError
	c, err := openContainer(path, opt.Identity)
	if err != nil && !errors.As(err, &form) {
		return nil, err
	}
	if err == nil {
		v.c = c
	}
	for _, check := range v.checks(err) {
		if err := v.run(check); err != nil {
			v.release()
			return nil, err
		}
	}
	v.report.Verdict = v.judge()
	v.report.OtherReadme = v.m != nil && v.c.sums[readmePath] != digestOf([]byte(readme))
	return v, nil
}

// release lets go of the archive.
func (v *verifier) release() {
	if v.c != nil {
		v.close()
		v.c.close()
	}
}

// step is one check that is to be made.
type step struct {
	name   string
	proves string
	needs  []string // checks that must be ok
	run    func() (detail string, err error)
}

// checks is the order of judgement. Nothing is decompressed or taken apart
// before its bytes are those of a SHA256SUMS that is signed, if there is a key
// to know that by.
func (v *verifier) checks(opened error) []step {
	return []step{
		{checkForm, "the container has the one form of an archive: no file too many or too few, nothing hidden in headers, gaps or behind the end", nil,
			func() (string, error) { return v.form(opened) }},
		{checkSigned, "the holder of the site's key signed the list of all digests", []string{checkForm}, v.signature},
		{checkSums, "every file has the digest of that list, and the list names every file", []string{checkForm}, v.sums},
		{checkManifest, "the manifest describes exactly these files and one closed window", []string{checkSigned}, v.manifest},
		{checkKeys, "the keys inside, which prove nothing, are those given from outside", []string{checkManifest}, v.keyFiles},
		{checkContent, "compressed files hold what the manifest says, once, and nothing else", []string{checkManifest}, v.content},
		{checkWindow, "the proof is of the manifest's window, shown with the entries next to it", []string{checkManifest}, v.window},
		{checkCheckpoint, "the holder of the log's key signed the tree that the window is part of", []string{checkWindow}, v.note},
		{checkEnvelopes, "the window holds every entry from its first to its last, in order and in time", []string{checkContent, checkWindow}, v.envelopes},
		{checkRoot, "these envelopes, and no others, lead to the root of the checkpoint", []string{checkEnvelopes, checkWindow}, v.root},
		{checkEdges, "no entry of the window's time lies outside it: its neighbours are before and after", []string{checkRoot}, v.edges},
		{checkData, "every data line is the one that its envelope names, or is declared as withheld", []string{checkEnvelopes}, v.data},
		{checkPrevious, "the ledger only grew since the checkpoint that the auditor holds", []string{checkRoot}, v.previous},
		{checkWitnesses, "others than the site have signed a tree that holds the window, and that only grew under their eyes", []string{checkRoot, checkCheckpoint}, v.witnesses},
		{checkGenesis, "entry 0 binds the site to these keys", []string{checkData}, v.firstEntry},
		{checkRuns, "runs and steps are what their entries fold to, and no entry of a run is left out", []string{checkData}, v.runs},
		{checkEvidence, "every sealed file that an entry names is there, and no other", []string{checkData}, v.evidence},
		{checkTrust, "the roles of the root signed the trust files that came in force, and each root let the next one follow", []string{checkEvidence}, v.trust},
		{checkVerdicts, "what was let in had to be: the sealed signatures, attestations and trust files give the same verdicts again", []string{checkEvidence}, v.verdicts},
		{checkLogs, "log lines give, byte for byte, the segments that the ledger names", []string{checkData}, v.logLines},
		{checkMetrics, "metrics are what the entries sum up to", []string{checkData, checkRuns}, v.metricLines},
		{checkTraces, "traces are what the entries tell", []string{checkData, checkRuns}, v.traceLines},
	}
}

// run makes one check and reports it. Its error means that nothing can be
// judged any more.
func (v *verifier) run(s step) error {
	if err := v.ctx.Err(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if v.opt.Progress != nil {
		v.opt.Progress(s.name)
	}
	check := Check{Name: s.name, Proves: s.proves, Status: OK}
	detail, err := v.attempt(s)
	if v.c != nil && v.c.fault != nil {
		return v.c.fault
	}
	if err := v.ctx.Err(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if errors.Is(err, ErrNote) {
		return err
	}
	var skipped *skip
	var at *badLine
	switch {
	case err == nil:
		check.Detail = detail
	case errors.As(err, &skipped):
		check.Status, check.Detail, check.Hint = Skipped, skipped.why, skipped.hint
		v.best = worse(v.best, skipped.hides)
	default:
		check.Status, check.Detail = Bad, err.Error()
		if errors.As(err, &at) {
			check.File, check.Line = at.file, at.line
		}
		var other *foreign
		v.foreign[s.name] = errors.As(err, &other)
	}
	v.status[s.name] = check.Status
	v.report.Checks = append(v.report.Checks, check)
	return nil
}

// attempt runs the check unless one that it needs did not hold. A signature
// that could not be checked, or is another's, does not keep the archive from
// being looked at; one that is wrong does. So is it with that of the checkpoint.
func (v *verifier) attempt(s step) (string, error) {
	for _, need := range s.needs {
		if v.status[need] == Bad && !v.foreign[need] || v.status[need] == Skipped && need != checkSigned && need != checkCheckpoint {
			return "", &skip{why: "it needs the check " + need, hides: Verified}
		}
	}
	return s.run()
}

func (v *verifier) form(opened error) (string, error) {
	var form *ustar.FormError
	if errors.As(opened, &form) {
		return "", badFile(form.Name, opened)
	}
	limit := v.opt.MaxBytes
	if limit == 0 {
		limit = 64 << 30
	}
	if v.c.bytes > limit {
		return "", fmt.Errorf("it has %d bytes, more than the limit of %d", v.c.bytes, limit)
	}
	if !v.c.tar {
		return fmt.Sprintf("a folder of %d files", len(v.c.members)), nil
	}
	return fmt.Sprintf("a tar of %d files", len(v.c.members)), nil
}

func (v *verifier) signature() (string, error) {
	var err error
	if v.rawSums, err = v.c.small(sumsPath, maxSums); err != nil {
		return "", badFile(sumsPath, err)
	}
	file, err := v.c.small(signaturePath, maxSmall)
	if err != nil {
		return "", badFile(signaturePath, err)
	}
	if v.siteKey.sig == nil {
		return "", &skip{why: "no key of the site was given", hides: Unauthenticated}
	}
	if err := checkSignature(v.rawSums, file, v.siteKey); err != nil {
		own, bad := v.ownKey(siteKeyPath, parseSiteKey)
		if bad == nil && string(own.der) != string(v.siteKey.der) && checkSignature(v.rawSums, file, own) == nil {
			err = &foreign{err}
		}
		return "", badFile(signaturePath, err)
	}
	return "", nil
}

// signedBy tells whether the archive is signed with a key that lies in it and is
// not the auditor's: a key that signed nothing does not belong there.
func (v *verifier) signedBy(own publicKey) bool {
	if own.sig != nil {
		return v.foreign[checkSigned]
	}
	note, err := v.c.small(checkpointPath, ledger.MaxNote)
	if err != nil {
		return false
	}
	_, err = ledger.OpenCheckpoint(note, own.log, v.siteID)
	return err == nil
}

// ownKey reads a key that lies in the archive. It proves nothing but that the
// archive agrees with itself.
func (v *verifier) ownKey(path string, parse func([]byte) (publicKey, error)) (publicKey, error) {
	raw, err := v.c.small(path, maxSmall)
	if err != nil {
		return publicKey{}, err
	}
	return parse(raw)
}

func (v *verifier) sums() (string, error) {
	list, err := parseSums(v.rawSums)
	if err != nil {
		return "", badFile(sumsPath, err)
	}
	listed := map[string]string{}
	for i, s := range list {
		if _, ok := v.c.index[s.path]; !ok {
			return "", &badLine{sumsPath, int64(i) + 1, fmt.Errorf("%s is not there", s.path)}
		}
		listed[s.path] = s.sha256
	}
	v.listed = listed
	var first error
	bad := 0
	for _, m := range v.c.members {
		if m.Name == sumsPath || m.Name == signaturePath {
			continue
		}
		if err := v.sum(m.Name); err != nil {
			v.unfit[m.Name] = true
			if bad++; first == nil {
				first = badFile(m.Name, err)
			}
		}
	}
	if bad > 1 {
		return "", fmt.Errorf("%w, and %d more files", first, bad-1)
	}
	if first != nil {
		return "", first
	}
	return fmt.Sprintf("%d files", len(list)), nil
}

// sum hashes one file and compares.
func (v *verifier) sum(path string) error {
	want, ok := v.listed[path]
	if !ok {
		return fmt.Errorf("%s is not listed in %s", path, sumsPath)
	}
	r, err := v.c.open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, v.reader(r)); err != nil {
		return err
	}
	if got := v.c.sums[path]; got != want {
		return fmt.Errorf("%s has the digest %s, not %s", path, got, want)
	}
	return nil
}

// reader ends with the context's error when that ends.
func (v *verifier) reader(r io.Reader) io.Reader { return &contextReader{v.ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (v *verifier) manifest() (string, error) {
	if v.listed == nil {
		return "", &skip{why: "it needs the check " + checkSums, hides: Verified}
	}
	raw, err := v.small(manifestPath, maxManifest)
	if err != nil {
		return "", err
	}
	if v.m, err = parseManifest(raw); err != nil {
		return "", badFile(manifestPath, err)
	}
	v.report.Summary = summarise(v.m, v.c)
	v.siteID, _, _ = ledger.ParseOrigin(v.m.Origin) // parseManifest has read it
	if v.opt.SiteID != "" && v.opt.SiteID != v.siteID {
		return "", badFile(manifestPath, fmt.Errorf("it is of site %s, not of %s", v.siteID, v.opt.SiteID))
	}
	if err := v.closure(); err != nil {
		return "", badFile(manifestPath, err)
	}
	_, to := v.m.Window.times()
	if at := v.c.members[0].Time; v.c.tar && at != to.Unix() {
		return "", fmt.Errorf("the files' time is %s, not the window's end", time.Unix(at, 0).UTC().Format(time.RFC3339))
	}
	v.withheld = indexWithheld(v.m.Withheld)
	if n := int64(len(v.m.Withheld)); n != v.opt.Withheld {
		v.best = worse(v.best, Incomplete)
		return fmt.Sprintf("declares %d withheld, where %d were expected", n, v.opt.Withheld), nil
	}
	return fmt.Sprintf("%d entries from %d, %s to %s", v.m.Ledger.Count, v.m.Ledger.FirstSeq, v.m.Window.From, v.m.Window.To), nil
}

// closure compares the manifest's files with those that are there.
func (v *verifier) closure() error {
	if got, want := len(v.m.Files), len(v.c.members)-3; got != want {
		return fmt.Errorf("it lists %d files of %d", got, want)
	}
	for _, f := range v.m.Files {
		i, ok := v.c.index[f.Path]
		switch {
		case !ok:
			return fmt.Errorf("%s is not there", f.Path)
		case v.c.members[i].Size != f.Bytes:
			return fmt.Errorf("%s has %d bytes, not %d", f.Path, v.c.members[i].Size, f.Bytes)
		case v.listed[f.Path] != f.SHA256:
			return fmt.Errorf("%s has another digest in %s", f.Path, sumsPath)
		}
	}
	return nil
}

func (v *verifier) keyFiles() (string, error) {
	var other error
	for _, k := range []struct {
		path  string
		parse func([]byte) (publicKey, error)
		want  publicKey
	}{{logKeyPath, parseLogKey, v.logKey}, {siteKeyPath, parseSiteKey, v.siteKey}} {
		raw, err := v.small(k.path, maxSmall)
		if err != nil {
			return "", err
		}
		got, err := k.parse(raw)
		if err != nil {
			return "", badFile(k.path, err)
		}
		if string(got.pem) != string(raw) {
			return "", badFile(k.path, errors.New("it is not in the one form of a public key"))
		}
		if k.want.der != nil && string(k.want.der) != string(got.der) {
			err := fmt.Errorf("it is another key than the one given, by SHA-256 %s", digestOf(got.der))
			if !v.signedBy(got) {
				return "", badFile(k.path, err)
			}
			other = cmp.Or(other, badFile(k.path, &foreign{err}))
		}
	}
	if other != nil {
		return "", other
	}
	if v.logKey.der == nil || v.siteKey.der == nil {
		return "", &skip{why: "not both keys were given to compare them with", hides: Unauthenticated}
	}
	return "", nil
}
