package export

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/stellarun/stella/ledger"
)

// Consistency is a proof that one tree is the beginning of another.
type Consistency struct {
	From, To int64 // the sizes that it is for
	Proof    []ledger.Hash
}

// What the auditor holds from elsewhere, in words.
const (
	earlierNote  = "the earlier checkpoint"
	cosignedNote = "the cosigned note"
)

// readNote reads a note of the auditor's.
func (v *verifier) readNote(what string, raw []byte) (ledger.Checkpoint, error) {
	c, err := ledger.ParseCheckpoint(raw)
	if err != nil {
		return c, fmt.Errorf("%w: %s: %w", ErrNote, what, err)
	}
	if site, _, err := ledger.ParseOrigin(c.Origin); err != nil || site != v.siteID {
		return c, fmt.Errorf("%w: %s is of %s, and the archive of %s", ErrNote, what, c.Origin, v.m.Origin)
	}
	return c, nil
}

// ofLog checks that a note is signed by the log that the archive is of. Whether the key of that
// is the auditor's is said by the check keys: what two notes of one key say can be compared.
func (v *verifier) ofLog(what string, raw []byte) error {
	key := v.logKey
	if own, err := v.ownKey(logKeyPath, parseLogKey); err == nil && v.signedBy(own) {
		key = own
	}
	if key.log == nil {
		return &skip{why: "no key of the log was given", hides: Unauthenticated}
	}
	if _, err := ledger.OpenCheckpoint(raw, key.log, v.siteID); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// previous checks that the tree extends the one that the auditor knows.
func (v *verifier) previous() (string, error) {
	if v.opt.Previous == nil {
		return "", &skip{why: "no earlier checkpoint was given", hides: Verified}
	}
	old, err := v.readNote(earlierNote, v.opt.Previous)
	if err == nil {
		err = v.ofLog(earlierNote, v.opt.Previous)
	}
	if err != nil {
		return "", err
	}
	said, err := v.agrees(old, v.opt.Consistency, "--consistency")
	if missing := (*skip)(nil); err != nil && !errors.As(err, &missing) && old.Origin != v.m.Origin {
		err = fmt.Errorf("%w; it is of %s, and the archive of %s: a ledger that was restored or recovered says in its entry epoch.begun what it has lost", err, old.Origin, v.m.Origin)
	}
	return said, err
}

// agrees checks that the archive's tree and another are of one history: the smaller one is
// the beginning of the larger.
func (v *verifier) agrees(old ledger.Checkpoint, proof *Consistency, flag string) (string, error) {
	if err := v.gaveUp(old); err != nil {
		return "", err
	}
	size := v.proof.TreeSize
	root, err := ledger.ParseHash(v.m.Ledger.Root)
	if err != nil {
		return "", err
	}
	here := ledger.Checkpoint{Size: size, Root: root}
	if old.Size > size {
		return consistent(proof, here, old, flag)
	}
	got, err := ledger.RootAtSize(old.Size, v.proof.First, v.proof.Count, size, v.left, v.right, v.allLeaves())
	switch {
	case errors.Is(err, ledger.ErrInsideSubtree):
		return consistent(proof, old, here, flag)
	case err != nil:
		return "", badFile(windowPath, err)
	case !bytes.Equal(got[:], old.Root[:]):
		return "", fmt.Errorf("of its first %d entries the root is %s here and %s there: one of two histories", old.Size, hex.EncodeToString(got[:]), ledger.HexHash(old.Root))
	}
	return fmt.Sprintf("size %d", old.Size), nil
}

// gaveUp finds what a note covers and an epoch of the window has not adopted: no proof leads from
// one to the other.
func (v *verifier) gaveUp(old ledger.Checkpoint) error {
	_, epoch, err := ledger.ParseOrigin(old.Origin)
	if err != nil {
		return err
	}
	for _, begun := range v.report.Epochs {
		if epoch < begun.Epoch && old.Size > begun.Seq {
			return fmt.Errorf("it covers %d entries of epoch %d, of which epoch %d has adopted %d (entry %d): the others were given up", old.Size, epoch, begun.Epoch, begun.Seq, begun.Seq)
		}
	}
	return nil
}

// consistent uses the proof that came beside the archive. One of other trees says nothing
// about these.
func consistent(proof *Consistency, from, to ledger.Checkpoint, flag string) (string, error) {
	lacks := &skip{
		why: fmt.Sprintf("only a consistency proof from size %d to %d can tell", from.Size, to.Size), hides: Incomplete,
		hint: fmt.Sprintf("get it from the site, for %s: stella ledger prove --consistency %d --to %d", flag, from.Size, to.Size),
	}
	switch {
	case proof == nil:
		return "", lacks
	case proof.From != from.Size || proof.To != to.Size:
		lacks.why = fmt.Sprintf("this proof is for %d to %d, %d to %d is needed", proof.From, proof.To, from.Size, to.Size)
		return "", lacks
	}
	if err := ledger.CheckConsistency(proof.Proof, to.Size, to.Root, from.Size, from.Root); err != nil {
		return "", fmt.Errorf("the proof does not hold, or there are two histories: %w", err)
	}
	return fmt.Sprintf("by the proof from size %d to %d", from.Size, to.Size), nil
}

// witnesses counts who else has signed a tree that holds the window.
func (v *verifier) witnesses() (string, error) {
	lacks := Verified
	if v.opt.MinWitnesses > 0 {
		lacks = Incomplete
	}
	switch {
	case len(v.opt.Witnesses) == 0:
		return "", &skip{why: "UNWITNESSED: no witness was named, and without one nobody can tell two ledgers of one operator apart", hides: lacks}
	case v.opt.Cosigned == nil:
		return "", &skip{why: "UNWITNESSED: no cosigned note was given", hides: lacks}
	}
	head, err := v.readNote(cosignedNote, v.opt.Cosigned)
	if err != nil {
		return "", err
	}
	if end := v.proof.First + v.proof.Count; head.Size <= end {
		return "", &skip{why: fmt.Sprintf("UNWITNESSED: the tree that was cosigned has %d entries, and the window is followed by entry %d", head.Size, end), hides: lacks}
	}
	if err := v.ofLog(cosignedNote, v.opt.Cosigned); err != nil {
		return "", err
	}
	if _, err := v.agrees(head, v.opt.CosignedConsistency, "--cosigned-consistency"); err != nil {
		return "", fmt.Errorf("the cosigned note: %w", err)
	}
	who, err := ledger.Witnesses(v.opt.Cosigned, v.opt.Witnesses)
	if err != nil {
		return "", fmt.Errorf("the cosigned note: %w", err)
	}
	v.report.Witnessed = len(who)
	said := fmt.Sprintf("WITNESSED %d", len(who))
	if len(who) == 0 {
		said = "UNWITNESSED"
	}
	for i, w := range who {
		v.report.Witnesses = append(v.report.Witnesses, Witness{w.Name, w.Time.Format(time.RFC3339)})
		said += map[bool]string{true: ": ", false: ", "}[i == 0] + w.Name + " at " + w.Time.Format(time.RFC3339)
	}
	if len(who) < v.opt.MinWitnesses {
		return "", &skip{why: fmt.Sprintf("%s, of %d that are demanded", said, v.opt.MinWitnesses), hides: Incomplete}
	}
	return said, nil
}
