package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

func newBundleInspectCmd(a *app) *cobra.Command {
	var manifest bool
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Look at a bundle, signed or not",
		Long: "Look at a bundle without a site: what it says it is, which files it holds, and who says to\n" +
			"have signed it, in the terms in which a policy demands them. The container and every stored\n" +
			"file are checked against the manifest; signatures are not, since only a site knows whom to\n" +
			"believe, and therefore nothing is decompressed. --manifest writes the exact stella.toml,\n" +
			"which is what is signed.",
		Example: "  stella bundle inspect match-1.2.0.stella\n" +
			"  stella bundle inspect match-1.2.0.stella --manifest > stella.toml",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runBundleInspect(a, args[0], manifest) },
	}
	c.Flags().BoolVar(&manifest, "manifest", false, "write the exact stella.toml")
	return c
}

// inspected is what inspect prints.
type inspected struct {
	Digest       string                `json:"digest"`
	Kind         string                `json:"kind"`
	Publisher    string                `json:"publisher"`
	Name         string                `json:"name"`
	Version      string                `json:"version"`
	Sequence     int64                 `json:"sequence"`
	Created      string                `json:"created"`
	NotBefore    string                `json:"notBefore,omitempty"`
	Expires      string                `json:"expires,omitempty"`
	Audience     []string              `json:"audience"`
	Signatures   []*verify.Description `json:"signatures"`
	Attestations []*verify.Description `json:"attestations"`
	Files        []api.BundleFile      `json:"files"`
	Absent       []string              `json:"absent"` // contents that a delta leaves out
	SHA256       string                `json:"sha256"` // of the file
	Bytes        int64                 `json:"bytes"`
}

func runBundleInspect(a *app, file string, manifest bool) error {
	if manifest {
		head, err := readHead(file)
		if err != nil {
			return err
		}
		a.stdout.exact(head.Manifest)
		return a.stdout.err
	}
	in, err := inspect(file)
	if err != nil {
		return err
	}
	return a.emit(in, func(s *screen) { renderInspected(s, in) })
}

// inspect reads a bundle from front to back.
func inspect(file string) (*inspected, error) {
	f, err := fsx.OpenRegular(file)
	if err != nil {
		return nil, fileError(file, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fileError(file, err)
	}
	r := bundle.NewReader(f, bundle.Limits{Size: fi.Size()})
	head, err := r.Head()
	if err != nil {
		return nil, containerError(file, err)
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, head.Manifest)
	if err != nil {
		return nil, faulty(file, err)
	}
	in := describe(head, m)
	if in.Signatures, err = sigFiles(file, head.Signatures, verify.SignatureMalformed, bundle.SignatureName); err != nil {
		return nil, err
	}
	if err := in.readRest(file, r, m); err != nil {
		return nil, containerError(file, err)
	}
	return in, nil
}

func describe(head *bundle.Head, m *manifests.Bundle) *inspected {
	in := &inspected{
		Digest: bundle.Digest(head.Manifest), Kind: string(m.Kind), Publisher: m.Publisher, Name: m.Name, Version: m.Version,
		Sequence: m.Sequence, Created: stamp.Format(m.Created), Audience: m.Audience,
		Attestations: []*verify.Description{}, Files: []api.BundleFile{}, Absent: []string{},
	}
	if in.Audience == nil {
		in.Audience = []string{}
	}
	if !m.NotBefore.IsZero() {
		in.NotBefore = stamp.Format(m.NotBefore)
	}
	if !m.Expires.IsZero() {
		in.Expires = stamp.Format(m.Expires)
	}
	for _, f := range m.Files {
		in.Files = append(in.Files, api.BundleFile{Path: f.Path, SHA256: f.SHA256, Size: f.Size, Mode: f.Mode})
	}
	return in
}

// readRest reads attestations and blobs, and checks all of them against the
// manifest. Contents that are not here may be a delta's.
func (in *inspected) readRest(file string, r *bundle.Reader, m *manifests.Bundle) error {
	if err := r.Bind(m, func(string) bool { return true }); err != nil {
		return err
	}
	for { // one at a time, since all of them may have 16 MiB
		at, err := r.NextAttestation()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		one, err := sigFiles(file, []bundle.Attached{at}, verify.AttestationMalformed, bundle.AttestationName)
		if err != nil {
			return err
		}
		in.Attestations = append(in.Attestations, one...)
	}
	if err := checkBlobs(r); err != nil {
		return err
	}
	in.Absent = append(in.Absent, r.Absent()...)
	if err := r.End(); err != nil {
		return err
	}
	in.SHA256, in.Bytes = r.FileSHA256(), r.Offset()
	return nil
}

// checkBlobs reads every blob to its end. Since nobody has vouched for the
// digests, nothing is decompressed.
func checkBlobs(r *bundle.Reader) error {
	for {
		b, err := r.NextBlob()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := b.CheckStored(); err != nil {
			return err
		}
	}
}

// sigFiles reads files of a bundle; one that cannot be read is a refusal.
func sigFiles(file string, list []bundle.Attached, reason verify.Reason, name func(string) string) ([]*verify.Description, error) {
	out := []*verify.Description{}
	for _, at := range list {
		f, err := verify.Describe(at.Data)
		if err != nil { // in another form, perhaps
			var canonical []byte
			if canonical, err = verify.Canonical(at.Data); err == nil {
				f, err = verify.Describe(canonical)
			}
		}
		if err != nil {
			return nil, &api.Error{
				Code: api.Code(reason), Message: fmt.Sprintf("%s: %s: %s: %v", file, reason, name(at.ID), err),
				Refusal: &api.Refusal{Reason: string(reason), Subject: name(at.ID)},
			}
		}
		out = append(out, f)
	}
	return out, nil
}

func renderInspected(s *screen, in *inspected) {
	facts := []string{"bundle", in.Publisher + "/" + in.Name + "@" + in.Version, "kind", in.Kind, "digest", "sha256:" + in.Digest,
		"sequence", strconv.FormatInt(in.Sequence, 10), "created", seconds(in.Created), "not before", seconds(in.NotBefore),
		"expires", seconds(in.Expires), "size", fmt.Sprintf("%s in %d files", size(in.Bytes), len(in.Files)), "container", "ok"}
	for _, x := range in.Audience {
		facts = append(facts, "audience", x)
	}
	if len(in.Absent) > 0 {
		facts = append(facts, "left out", fmt.Sprintf("%d contents: this is a delta", len(in.Absent)))
	}
	if len(in.Signatures) == 0 {
		facts = append(facts, "signed by", "nobody: stella bundle sign")
	}
	for _, x := range in.Signatures {
		facts = append(facts, "signed by", demand(x))
	}
	for _, x := range in.Attestations {
		facts = append(facts, "attested by", demand(x))
	}
	s.fields(facts...)
	if len(in.Signatures) > 0 {
		s.printf("\nSigners are as the file says; a site verifies them: stella bundle verify\n")
	}
	rows := make([][]string, len(in.Files))
	for i, f := range in.Files {
		rows[i] = []string{f.Mode, strconv.FormatInt(f.Size, 10), short(f.SHA256), f.Path}
	}
	s.printf("\n")
	s.table([]string{"MODE", "SIZE", "SHA256", "PATH"}, rows)
}

// demand is a signer in the terms in which a policy demands one.
func demand(f *verify.Description) string {
	who := "key " + f.ID
	if f.Flow == "certificate" {
		who = fmt.Sprintf("san %q issuer %q", f.SAN, f.Issuer)
	}
	if f.LogEntries > 0 {
		who += fmt.Sprintf(", %d log entries", f.LogEntries)
	}
	if f.Timestamps > 0 {
		who += fmt.Sprintf(", %d timestamps", f.Timestamps)
	}
	return who
}
