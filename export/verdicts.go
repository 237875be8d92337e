package export

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// nowSlack is how far the time of a verdict may be from that of its entry: a medium is read
// between them.
const nowSlack = 24 * time.Hour

// admissions judges again what was let in, entry by entry, as the window is read: by the
// trust files that were in force, and the sealed evidence.
type admissions struct {
	v *verifier

	trust    *ledger.TrustRef // in force; nil where no entry of the window says so
	known    ledger.TrustRef  // that an entry has named last
	begun    bool             // an entry has changed trust
	extended map[string]bool  // extensions of it that entries of the window name
	unknown  bool             // there may be others

	ref  ledger.TrustRef // that past was made from
	past *verify.Past    // nil before the first

	all     int64
	left    unjudged
	refused int64
	first   error // of those that were refused
}

// entry takes one good entry of the window.
func (x *admissions) entry(e entry) {
	switch e.Envelope.Type {
	case ledger.TrustChanged:
		x.trust, x.begun = nil, true
		if c, ok := e.Data.(*ledger.TrustChange); ok {
			ref := c.Ref()
			if err := x.follows(ref); err != nil {
				x.refuse(e.Envelope.Seq, fmt.Errorf("trust files come in force that are older than others before: %w", err))
			}
			x.trust = &ref
		}
	case ledger.TrustExtended:
		c, ok := e.Data.(*ledger.TrustExtension)
		if x.unknown = x.unknown || !ok; ok {
			x.extended[c.File] = true
		}
	case ledger.BundleAdmitted:
		x.all++
		a, ok := e.Data.(*ledger.BundleAdmission)
		if !ok {
			x.left["their data is withheld"]++
			return
		}
		x.admission(e.Envelope, a)
	}
}

func (x *admissions) admission(env ledger.Envelope, a *ledger.BundleAdmission) {
	err := x.judge(env, a)
	var unjudged *skip
	switch {
	case err == nil:
	case errors.As(err, &unjudged):
		x.left[unjudged.why]++
	default:
		m := a.Verdict
		x.refuse(env.Seq, fmt.Errorf("%s/%s@%s was let in: %w", m.Publisher, m.Name, m.Version, err))
	}
}

func (x *admissions) refuse(seq int64, err error) {
	if x.refused++; x.first == nil {
		x.first = &badLine{dataPath, seq - x.v.proof.First + 1, fmt.Errorf("entry %d: %w", seq, err)}
	}
}

// judge is a *skip where an admission cannot be judged.
func (x *admissions) judge(env ledger.Envelope, a *ledger.BundleAdmission) error {
	said := a.Verdict
	if err := x.inForce(said.Trust); err != nil {
		return err
	}
	at, err := stamp.Parse(env.Time)
	if err != nil {
		return err
	}
	now, err := x.now(said.Now, at)
	if err != nil {
		return err
	}
	past, err := x.recall(said.Trust)
	if err != nil {
		return err
	}
	manifest, err := x.v.sealed(said.Digest, bundle.MaxManifest)
	if err != nil {
		return err
	}
	signatures, err := x.v.sealedAll(a.Signatures, bundle.MaxSignatures, bundle.MaxSignature, bundle.MaxSignatures*bundle.MaxSignature)
	if err != nil {
		return err
	}
	attestations, err := x.v.sealedAll(a.Attestations, bundle.MaxAttestations, bundle.MaxAttestation, bundle.MaxAttested)
	if err != nil {
		return err
	}
	again, err := past.Judge(manifest, signatures, attestations, now)
	if err != nil {
		return fmt.Errorf("judged again it is refused: %w", err)
	}
	if err := sameVerdict(said, *again); err != nil {
		return err
	}
	if at.After(now) {
		// A revocation between the two times would have come while the medium was read.
		if _, err = past.Judge(manifest, signatures, attestations, at); revoked(err) {
			return &skip{why: "a revocation began while they were let in"}
		}
	}
	return x.unsure(said.Trust.Extension, at)
}

// unsure is a *skip where something cannot be told of an admission that holds in all else: nobody
// is let in by what is withheld.
func (x *admissions) unsure(extension string, at time.Time) error {
	if extension != "" {
		if _, there := x.v.c.index[evidencePath+extension]; !there {
			return errEvidence
		}
		if !x.extended[extension] {
			return &skip{why: "the extension of trust that they name came before the window"}
		}
	}
	_, err := x.v.clock.from(at)
	return err
}

// revoked says whether an error refuses a bundle because something of it was revoked.
func revoked(err error) bool {
	var refusal *verify.RejectError
	return errors.As(err, &refusal) && slices.Contains([]verify.Reason{
		verify.RevokedManifest, verify.RevokedBlob, verify.RevokedKey, verify.RevokedIdentity,
	}, refusal.Reason)
}

// inForce demands that a verdict names the trust that was in force. Where no entry says which
// that was, all verdicts must name the same, and it lies between what is known.
func (x *admissions) inForce(said ledger.TrustRef) error {
	extension := said.Extension
	said.Extension = "" // no trust.changed names it
	switch {
	case extension != "" && !x.extended[extension] && !x.unknown:
		return fmt.Errorf("its verdict names an extension of trust that was never in force: %s", extension)
	case said.Root == "" || said.Policy == "":
		return errors.New("its verdict names no root, or no policy")
	case x.trust == nil:
		x.trust = &said
		return x.assume(said)
	case *x.trust != said:
		return fmt.Errorf("its verdict names another trust than was in force: %s", differ(said, *x.trust))
	}
	return nil
}

// assume takes it from a verdict which trust was in force.
func (x *admissions) assume(said ledger.TrustRef) error {
	if g := x.v.genesis; g != nil && !x.begun {
		if init, ok := g.Data.(*ledger.SiteInit); ok && (init.Root != said.Root || init.Policy != said.Policy) {
			return errors.New("no trust files have come in force, and entry 0 names another root or policy than its verdict")
		}
	}
	if err := x.follows(said); err != nil {
		return fmt.Errorf("its verdict names trust files that are older than others before: %w", err)
	}
	return nil
}

// follows demands that trust files, whoever names them, are not older than those that an entry
// before has named.
func (x *admissions) follows(is ledger.TrustRef) error {
	was := x.known
	x.known = is
	for _, f := range []struct {
		what     string
		was, is  int64
		old, now string // digests
	}{
		{"root of version", was.RootVersion, is.RootVersion, was.Root, is.Root},
		{"policy of serial", was.PolicySerial, is.PolicySerial, was.Policy, is.Policy},
		{"revocations of serial", was.RevocationSerial, is.RevocationSerial, was.Revocations, is.Revocations},
	} {
		_, number, _ := strings.Cut(f.what, " of ")
		switch {
		case was.Root == "": // none is known
		case f.is < f.was:
			return fmt.Errorf("%s %d follows %s %d", f.what, f.is, number, f.was)
		case f.is == f.was && f.old != f.now:
			return fmt.Errorf("%s %d follows %s %d with other bytes", f.what, f.is, number, f.was)
		}
	}
	return nil
}

// now is when a verdict was made, which cannot be far from when it was recorded. Behind an
// accepted time that is withheld it may be long before that.
func (x *admissions) now(said string, at time.Time) (time.Time, error) {
	now, err := stamp.Parse(said)
	if err != nil {
		return now, fmt.Errorf("now of its verdict: %w", err)
	}
	from, unknown := x.v.clock.from(at)
	if unknown == nil && now.Before(from.Add(-nowSlack)) || now.After(at.Add(nowSlack)) {
		return now, fmt.Errorf("its verdict is of %s, more than a day from when it was recorded", said)
	}
	return now, nil
}

// recall loads the trust files that a verdict names.
func (x *admissions) recall(ref ledger.TrustRef) (*verify.Past, error) {
	if x.past != nil && x.ref == ref {
		return x.past, nil
	}
	files, err := x.v.trustFiles(ref)
	if err != nil {
		return nil, err
	}
	var extension []byte
	gone := false // withheld: it has lifted what has expired, and nothing else
	if ref.Extension != "" {
		extension, err = x.v.sealed(ref.Extension, manifests.MaxBytes)
		if gone = errors.Is(err, errEvidence); err != nil && !gone {
			return nil, err
		}
	}
	past, err := verify.Recall(files, extension, x.v.siteID)
	if err == nil && gone {
		past, err = past.Lifted(ref.Extension)
	}
	if err != nil {
		return nil, fmt.Errorf("no stella believes the trust files that its verdict names: %w", err)
	}
	x.past, x.ref = past, ref
	return past, nil
}

// sameVerdict compares a verdict on record with what its evidence gives.
func sameVerdict(said, again ledger.Verdict) error {
	for _, v := range []*ledger.Verdict{&said, &again} {
		v.Checks, v.Ignored = nil, nil // words of one version of stella, and what counts for nothing
	}
	if d := differ(said, again); d != "" {
		return fmt.Errorf("its verdict is not the one that the evidence gives: %s", d)
	}
	return nil
}

// differ names the members of two structs that are not the same.
func differ(said, is any) string {
	var out []string
	a, b := reflect.ValueOf(said), reflect.ValueOf(is)
	for i := range a.NumField() {
		x, y := a.Field(i).Interface(), b.Field(i).Interface()
		if reflect.DeepEqual(x, y) {
			continue
		}
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
		if a.Field(i).Kind() == reflect.Struct {
			out = append(out, "in "+name+": "+differ(x, y))
			continue
		}
		out = append(out, fmt.Sprintf("%s is %.200q, not %.200q", name, fmt.Sprint(x), fmt.Sprint(y)))
	}
	return strings.Join(out, ", ")
}

// unjudged is how many were not judged, by why that was.
type unjudged map[string]int64

// told counts them and says why, in an order that depends on nothing else.
func (u unjudged) told() (n int64, why string) {
	var each []string
	for _, w := range slices.Sorted(maps.Keys(u)) {
		n += u[w]
		each = append(each, fmt.Sprintf("%d not, since %s", u[w], w))
	}
	return n, strings.Join(each, ", ")
}

// verdicts reports what was found of admissions.
func (v *verifier) verdicts() (string, error) {
	x := v.admitted
	left, why := x.left.told()
	said := fmt.Sprintf("%d of %d admissions judged again", x.all-left, x.all)
	switch {
	case x.refused > 1:
		return "", fmt.Errorf("%w, and %d more", x.first, x.refused-1)
	case x.first != nil:
		return "", x.first
	case left > 0:
		return "", &skip{why: said + "; " + why, hides: Verified}
	}
	return said, nil
}
