package engine

import (
	"context"
	"errors"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// maxWitnesses bounds how many keys one note is held against.
const maxWitnesses = 64

// TakeCosigned takes in a checkpoint of this ledger that has come back from witnesses
// (THREATS 29). Signatures of others than those named are left out.
func (s *site) TakeCosigned(_ context.Context, req api.CosignedRequest) (out api.CosignedNote, err error) {
	e := s.e
	if len(req.Witnesses) == 0 || len(req.Witnesses) > maxWitnesses {
		return out, invalid("a note is held against the keys of 1 to %d witnesses", maxWitnesses)
	}
	var witnesses []ledger.Witness
	for _, key := range req.Witnesses {
		w, err := ledger.ParseWitness(key)
		if err != nil {
			return out, invalid("%v", err)
		}
		if w.Key.Equal(e.keys.logPublic()) {
			return out, invalid("witness %s: it is the log's own key: nobody else has seen anything", w.Name)
		}
		witnesses = append(witnesses, w)
	}
	c, err := e.openNote([]byte(req.Note))
	if err != nil {
		return out, invalid("the note: %v", err)
	}
	if err := e.db.CheckHead(c); err != nil {
		return out, damaged("the note is of another ledger: %v", err)
	}
	note, kept, err := ledger.KeepCosignatures([]byte(req.Note), witnesses)
	switch {
	case errors.Is(err, ledger.ErrCosignature):
		return out, invalid("the note: %v", err)
	case err != nil:
		return out, internal(err)
	case len(kept) == 0:
		return out, &api.Error{Code: api.CodeConflict, Message: "none of these witnesses has signed the note", Hint: "a witness does with stella ledger cosign"}
	}
	out = api.CosignedNote{Size: c.Size, Root: ledger.HexHash(c.Root), Note: string(note), DryRun: req.DryRun}
	for _, w := range kept {
		out.Witnesses = append(out.Witnesses, w.String())
	}
	if req.DryRun {
		return out, nil
	}
	digest, err := e.db.Blobs().PutFile(note)
	if err != nil {
		return out, spaceError(err)
	}
	out.Seq, err = e.db.Append(ledger.CheckpointCosigned, s.actor, &ledger.Cosigning{Size: out.Size, Root: out.Root, Note: digest, Witnesses: out.Witnesses})
	return out, dbError(err)
}

// Cosigned is the newest checkpoint that has come back from witnesses.
func (s *site) Cosigned(ctx context.Context) (out api.CosignedNote, err error) {
	size := s.e.db.Size()
	lines, err := s.tailBack(ctx, api.LedgerQuery{Type: string(ledger.CheckpointCosigned)}, 1, size)
	if err != nil {
		return out, err
	}
	if len(lines) == 0 {
		return out, &api.Error{Code: api.CodeNotFound, Message: "no checkpoint has come back from witnesses", Hint: "carry one out (stella ledger checkpoint), and take it in again: stella ledger checkpoint --add NOTE --witness KEY"}
	}
	d, err := dataOf[ledger.Cosigning](ledger.CheckpointCosigned, lines[0].Data)
	if err != nil {
		return out, damaged("%v", err)
	}
	note, err := s.e.db.Blobs().Read(d.Note, ledger.MaxNote)
	if err != nil {
		return out, damaged("%v", err)
	}
	return api.CosignedNote{Seq: lines[0].Seq, Size: d.Size, Root: d.Root, Note: string(note), Witnesses: d.Witnesses}, nil
}
