package export

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// acceptedClock is an accepted time while it counts: the entries then have the time of the one
// before it, which was ahead, until the clock has passed that.
type acceptedClock struct {
	above    string    // time of the entry that says so; "" for none
	accepted time.Time // zero if that is withheld
}

// entry takes one good entry of the window.
func (c *acceptedClock) entry(e entry) {
	if e.Envelope.Time > c.above {
		*c = acceptedClock{}
	}
	if e.Envelope.Type == ledger.ClockAccepted {
		*c = acceptedClock{above: e.Envelope.Time}
		if a, ok := e.Data.(*ledger.ClockAcceptance); ok {
			c.accepted, _ = stamp.Parse(a.Clock)
		}
	}
}

// from is what the clock said at the earliest when something was recorded at some time.
func (c *acceptedClock) from(at time.Time) (time.Time, error) {
	switch {
	case c.above == "":
		return at, nil
	case c.accepted.IsZero():
		return at, &skip{why: "the time that was accepted before them is withheld"}
	}
	return c.accepted, nil
}

// lineage judges who has signed the trust files, change by change, as the window is read. It
// ends with the first that does not hold.
type lineage struct {
	v *verifier

	last       *verify.Lineage     // nil before the first that is known
	judged     *ledger.TrustChange // what last is of; nil if others may have come since
	first      *verify.Lineage
	extended   *manifests.Extension // by the last that holds
	begun      bool                 // an entry has changed trust files
	early      int64                // admissions before that
	all        int64
	left       unjudged
	failed     error // of the first that does not hold
	signatures map[string]*verify.RoleSignature
}

// maxSignatures bounds how many signatures are kept from entry to entry: most name the same.
const maxSignatures = 4096

// entry takes one good entry of the window.
func (x *lineage) entry(e entry) {
	if x.failed != nil {
		return
	}
	var err error
	switch e.Envelope.Type {
	case ledger.BundleAdmitted:
		if !x.begun {
			x.early++
		}
		return
	case ledger.TrustChanged:
		err = errWithheld
		if c, ok := e.Data.(*ledger.TrustChange); ok {
			err = x.change(e.Envelope, c)
		}
		x.begun = true
	case ledger.TrustExtended:
		err = errWithheld
		if c, ok := e.Data.(*ledger.TrustExtension); ok {
			err = x.extension(e.Envelope, c)
		}
	default:
		return
	}
	x.all++
	var unjudged *skip
	switch {
	case errors.As(err, &unjudged):
		x.left[unjudged.why]++
		if c, _ := e.Data.(*ledger.TrustChange); e.Envelope.Type == ledger.TrustChanged && x.judged != c {
			x.last, x.judged = x.last.Hidden(), nil
		}
	case err != nil:
		x.failed = &badLine{dataPath, e.Envelope.Seq - x.v.proof.First + 1, fmt.Errorf("entry %d: %w", e.Envelope.Seq, err)}
	}
}

var (
	errWithheld = &skip{why: "their data is withheld"}
	errEvidence = &skip{why: "evidence of them is withheld"} // or the check of it says that it is missing
	errBegan    = &skip{why: "a revocation began while they were made"}
)

// change is a *skip where a change of trust cannot be judged.
func (x *lineage) change(env ledger.Envelope, c *ledger.TrustChange) error {
	if g := x.v.genesis; g != nil && !x.begun {
		if init, ok := g.Data.(*ledger.SiteInit); ok && (init.Root != c.Root || init.Policy != c.Policy) {
			return errors.New("root or policy are not those that entry 0 names")
		}
	}
	files, lacks := x.v.trustFiles(c.Ref())
	if lacks != nil && !errors.Is(lacks, errEvidence) {
		return lacks
	}
	signatures, err := x.roleSignatures(c.Signatures)
	if err != nil {
		return err
	}
	at, from, err := x.times(env)
	if err != nil {
		return err
	}
	before := x.last
	if before != nil && x.judged != nil && x.judged.Same(*c) {
		return nil // it was in force already
	}
	if lacks != nil {
		return x.partly(files, c, signatures, from)
	}
	now, err := before.Follow(files, signatures, from)
	if err != nil {
		return fmt.Errorf("trust files came in force that no stella takes: %w", err)
	}
	if d := differ(c.Ref(), now.Trust().Ref()); d != "" {
		return fmt.Errorf("it names trust files otherwise than they are: %s", d)
	}
	x.last, x.judged = now, c
	if x.first == nil {
		x.first = now
	}
	if now.Gap() {
		return &skip{why: fmt.Sprintf("the roots between root %d and root %d are withheld", before.Trust().Ref().RootVersion, c.RootVersion)}
	}
	if _, err := before.Follow(files, signatures, at); err != nil {
		return errBegan
	}
	return nil
}

// partly judges what is there of the trust files of a change: a root, and a policy, hold by
// themselves.
func (x *lineage) partly(files verify.Files, c *ledger.TrustChange, signatures []*verify.RoleSignature, from time.Time) error {
	next, err := x.last.Partly(files, signatures, from)
	if err != nil {
		return fmt.Errorf("trust files came in force that no stella takes: %w", err)
	}
	if next != nil {
		x.last, x.judged = next, nil
		is, said := next.Trust().Ref(), c.Ref()
		if is.Root == said.Root && is.RootVersion != said.RootVersion || is.Policy == said.Policy && is.PolicySerial != said.PolicySerial {
			return fmt.Errorf("it names trust files otherwise than they are: %s", differ(said, is))
		}
	}
	return errEvidence
}

func (x *lineage) extension(env ledger.Envelope, c *ledger.TrustExtension) error {
	switch {
	case x.last == nil:
		return &skip{why: "the trust that they extend came in force before the window"}
	case x.judged == nil:
		return &skip{why: "what of the trust that they extend came in force is withheld"}
	}
	raw, err := x.v.sealed(c.File, manifests.MaxBytes)
	if err != nil {
		return err
	}
	signatures, err := x.roleSignatures(c.Signatures)
	if err != nil {
		return err
	}
	at, from, err := x.times(env)
	if err != nil {
		return err
	}
	is, err := x.last.Extend(raw, signatures, x.v.siteID, from)
	if err != nil {
		return err
	}
	if c.Serial != is.Serial || c.Root != is.Root || c.Policy != is.Policy || c.Until != stamp.Format(is.Until) {
		return errors.New("it says other things of the extension than the file does")
	}
	if was := x.extended; was != nil && was.Root == is.Root && is.Serial <= was.Serial {
		return fmt.Errorf("its serial is %d, one of serial %d came before", is.Serial, was.Serial)
	}
	x.extended = is
	if _, err := x.last.Extend(raw, signatures, x.v.siteID, at); err != nil {
		return errBegan
	}
	return nil
}

// times are when an entry was recorded, and when what it says was decided at the earliest.
func (x *lineage) times(env ledger.Envelope) (at, from time.Time, err error) {
	if at, err = stamp.Parse(env.Time); err != nil {
		return at, from, err
	}
	if from, err = x.v.clock.from(at); err != nil {
		return at, time.Time{}, nil // withheld: only a revocation that began at some time depends on it
	}
	return at, from.Add(-nowSlack), nil
}

// roleSignatures reads the signatures that an entry names, each once.
func (x *lineage) roleSignatures(digests []string) ([]*verify.RoleSignature, error) {
	out := make([]*verify.RoleSignature, 0, len(digests))
	for i, d := range digests {
		if i > 0 && digests[i-1] >= d {
			return nil, errors.New("its signatures are not in their order, or one is there twice")
		}
		s := x.signatures[d]
		if s == nil {
			raw, err := x.v.sealed(d, maxSmall)
			if err != nil {
				return nil, err
			}
			if s, err = verify.ReadRoleSignature(raw); err != nil {
				return nil, err
			}
			if len(x.signatures) < maxSignatures {
				x.signatures[d] = s
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// trust reports what was found of the trust files.
func (v *verifier) trust() (string, error) {
	x := &v.lineage
	if x.failed != nil {
		return "", x.failed
	}
	if x.all+x.early == 0 && v.opt.Root != "" && v.genesis != nil {
		if init, ok := v.genesis.Data.(*ledger.SiteInit); ok && init.Root == v.opt.Root {
			return "no trust files came in force so far, and entry 0 names the root given", nil
		}
	}
	lacks := x.lacks()
	if x.first != nil {
		ref := x.first.Trust().Ref()
		v.report.TrustRoot = &TrustRoot{Version: ref.RootVersion, Digest: ref.Root, Expected: v.opt.Root}
		switch {
		case v.opt.Root == "" || v.opt.Root == ref.Root:
		case v.proof.First == 0:
			return "", &foreign{fmt.Errorf("the trust files begin with %s, another root than the one given", x.first)}
		default:
			lacks = fmt.Sprintf("the window begins with %s: whether that follows from the root given, only archives from before show", x.first)
		}
	}
	switch {
	case lacks != "" && v.opt.Root != "":
		return "", &skip{why: lacks, hides: Incomplete, hint: "judge all archives from entry 0 on together, by stella-audit, or one that holds them all"}
	case lacks != "":
		return "", &skip{why: lacks, hides: Verified}
	}
	return fmt.Sprintf("%d of %d changes judged again", x.all, x.all), nil
}

// lacks says what was not judged, "" for nothing.
func (x *lineage) lacks() string {
	left, why := x.left.told()
	switch {
	case left > 0:
		return fmt.Sprintf("%d of %d changes judged again; %s", x.all-left, x.all, why)
	case x.first == nil:
		return "no entry of the window puts trust files in force"
	case x.early > 0:
		return fmt.Sprintf("%d admissions come before the first entry that puts trust files in force", x.early)
	}
	return ""
}

// trustFiles loads the files that an entry names, without their signatures. With errEvidence
// come those that are there.
func (v *verifier) trustFiles(ref ledger.TrustRef) (files verify.Files, err error) {
	files.Roots = make([]verify.RoleFile, 1)
	for _, f := range []struct {
		digest string
		limit  int64
		to     *[]byte
	}{
		{ref.Root, manifests.MaxBytes, &files.Roots[0].Raw}, {ref.Policy, manifests.MaxBytes, &files.Policy.Raw},
		{ref.Revocations, manifests.MaxBytes, &files.Revocations.Raw}, {ref.TrustedRoot, verify.MaxTrustedRoot, &files.TrustedRoot},
	} {
		if f.digest == "" {
			continue
		}
		raw, lacks := v.sealed(f.digest, f.limit)
		if lacks != nil && !errors.Is(lacks, errEvidence) {
			return files, lacks
		}
		*f.to, err = raw, cmp.Or(err, lacks)
	}
	return files, err
}

// sealed reads a file of evidence.
func (v *verifier) sealed(digest string, limit int64) ([]byte, error) {
	path := evidencePath + digest
	if _, there := v.c.index[path]; !there {
		return nil, errEvidence
	}
	return v.small(path, limit)
}

// sealedAll reads what came with a bundle: no more files, of no more bytes in all, than a bundle has.
func (v *verifier) sealedAll(digests []string, most int, limit, mostBytes int64) (out [][]byte, err error) {
	if len(digests) > most {
		return nil, fmt.Errorf("it names %d files where a bundle has at most %d", len(digests), most)
	}
	for _, d := range digests {
		raw, err := v.sealed(d, limit)
		if err != nil {
			return nil, err
		}
		if mostBytes -= int64(len(raw)); mostBytes < 0 {
			return nil, errors.New("it names larger files than a bundle has")
		}
		out = append(out, raw)
	}
	return out, nil
}
