package bundle

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/stellarun/stella/manifests"
)

// Attach writes the bundle src to dst with further signatures and attestations.
// Manifest and blobs stay as they are; nothing is decompressed, and src may be
// a delta. A file that is there already is kept if it is the same, and refused
// otherwise. Attach checks the container, not the signatures: package verify
// makes their canonical form and judges them.
func Attach(dst io.Writer, src io.Reader, sigs, atts []Attached) error {
	r := NewReader(src, Limits{Bytes: 1<<63 - 1})
	head, err := r.Head()
	if err != nil {
		return err
	}
	m, err := manifests.ParseBundle(ManifestName, head.Manifest)
	if err != nil {
		return err
	}
	if err := r.Bind(m, func(string) bool { return true }); err != nil {
		return err
	}
	old, err := r.attestations()
	if err != nil {
		return err
	}
	if sigs, err = merge(head.Signatures, sigs, SignatureName); err != nil {
		return err
	}
	if atts, err = merge(old, atts, AttestationName); err != nil {
		return err
	}
	if err := attachable(sigs, atts); err != nil {
		return err
	}
	return r.rewrite(&writer{w: dst, mtime: m.Created.Unix()}, head.Manifest, sigs, atts)
}

// rewrite writes a bundle whose head and attestations are given, and whose
// blobs are those of r.
func (r *Reader) rewrite(w *writer, manifest []byte, sigs, atts []Attached) error {
	if err := w.file(ManifestName, manifest); err != nil {
		return fmt.Errorf("bundle: attach: %w", err)
	}
	for _, a := range sigs {
		if err := w.file(SignatureName(a.ID), a.Data); err != nil {
			return fmt.Errorf("bundle: attach: %w", err)
		}
	}
	for _, a := range atts {
		if err := w.file(AttestationName(a.ID), a.Data); err != nil {
			return fmt.Errorf("bundle: attach: %w", err)
		}
	}
	for {
		b, err := r.NextBlob()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.entry(b.name(), b.StoredSize); err != nil {
			return fmt.Errorf("bundle: attach: %w", err)
		}
		if err := b.copyStored(w.w); err != nil {
			return err
		}
		if err := w.pad(b.StoredSize); err != nil {
			return fmt.Errorf("bundle: attach: %w", err)
		}
	}
	if err := r.End(); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return fmt.Errorf("bundle: attach: %w", err)
	}
	return nil
}

// attestations reads all attestations.
func (r *Reader) attestations() ([]Attached, error) {
	var all []Attached
	for {
		a, err := r.NextAttestation()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
}

// merge sorts two lists into one without duplicates.
func merge(old, more []Attached, name func(string) string) ([]Attached, error) {
	all := slices.Concat(old, more)
	slices.SortStableFunc(all, func(a, b Attached) int { return strings.Compare(a.ID, b.ID) })
	out := all[:0]
	for _, a := range all {
		if n := len(out); n > 0 && out[n-1].ID == a.ID {
			if string(out[n-1].Data) != string(a.Data) {
				return nil, &FormatError{Reason: EntryDuplicate, Entry: name(a.ID), Detail: "is in the bundle already, and is another"}
			}
			continue
		}
		out = append(out, a)
	}
	return out, nil
}

// attachable applies the limits that a reader will apply.
func attachable(sigs, atts []Attached) error {
	if n := len(sigs); n > MaxSignatures {
		return &FormatError{Reason: SignaturesTooMany, Detail: fmt.Sprintf("%d signatures, the limit is %d", n, MaxSignatures)}
	}
	if n := len(atts); n > MaxAttestations {
		return &FormatError{Reason: AttestationsTooMany, Detail: fmt.Sprintf("%d attestations, the limit is %d", n, MaxAttestations)}
	}
	for _, a := range sigs {
		switch {
		case !isDigest(a.ID):
			return &FormatError{Reason: EntryUnexpected, Entry: SignatureName(a.ID), Detail: "the id is not 64 lower-case hex digits"}
		case len(a.Data) > MaxSignature:
			return &FormatError{Reason: SignatureTooLarge, Entry: SignatureName(a.ID), Detail: fmt.Sprintf("%d bytes, the limit is %d", len(a.Data), MaxSignature)}
		}
	}
	total := 0
	for _, a := range atts {
		total += len(a.Data)
		switch {
		case a.ID != Digest(a.Data):
			return &FormatError{Reason: AttestationDigest, Entry: AttestationName(a.ID), Detail: "its bytes have the SHA-256 " + Digest(a.Data)}
		case len(a.Data) > MaxAttestation || total > MaxAttested:
			return &FormatError{Reason: AttestationTooLarge, Entry: AttestationName(a.ID), Detail: fmt.Sprintf("%d bytes, %d in all; the limits are %d and %d", len(a.Data), total, MaxAttestation, MaxAttested)}
		}
	}
	return nil
}
