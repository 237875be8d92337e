package main

import (
	"strings"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// demanded is what to write to believe a signer: ready to be pasted.
type demanded struct {
	Signer   string           `json:"signer"` // id, or the name of a certificate
	Attester bool             `json:"attester,omitempty"`
	Command  string           `json:"command,omitempty"` // for a site that has its root's key
	TOML     string           `json:"toml"`              // for policy.toml
	Note     string           `json:"note,omitempty"`
	Lines    []api.PolicyLine `json:"lines,omitempty"` // of the policy at hand that name the signer, or nearly
}

// demandSigners says of each signer what a policy has to say.
func (in *inspected) demandSigners() {
	if in.manifest != nil && in.manifest.Trust != nil {
		return // roles of root.toml sign it, which no policy names
	}
	for _, d := range append(append([]*verify.Description{}, in.Signatures...), in.Attestations...) {
		if d.ID == "" && d.SAN == "" {
			continue
		}
		pem := ""
		if in.judge != nil && d.Flow == verify.FlowKey {
			pem = in.judge.Trust.KeyPEM(d.ID)
		}
		in.demand(d, pem)
	}
}

// demand says of one signer what a policy has to say. The key is PEM, "" where
// it is not known: a signature names its key, and does not hold it.
func (in *inspected) demand(d *verify.Description, pem string) {
	out := demanded{Signer: d.ID, Attester: d.Statement}
	publisher, kind, name := "PUBLISHER", "KIND", "NAME"
	if in.described != nil && in.Publisher != "" {
		publisher, kind, name = in.Publisher, in.Kind, in.Name
	}
	end := " --kind " + quote(kind) + " --name " + quote(name)
	if in.judge != nil && in.judge.Trust.Publisher(publisher) != nil {
		end = "" // it may bring what it may bring already
	}
	if d.Flow == verify.FlowCertificate {
		out.Signer = d.SAN
		out.TOML = manifests.EncodeIdentity(manifests.Identity{Issuer: d.Issuer, SAN: d.SAN})
		out.Command = "stella trust add " + quote(publisher) + " --certificate-identity " + quote(d.SAN) + " --certificate-oidc-issuer " + quote(d.Issuer) + end
		out.Note = "trusted_root.json must hold the authority that issued the certificate, and the log or timestamp authority"
	} else {
		file := publisher + ".pub"
		if in.What == whatPublicKey {
			file = in.File
		}
		out.Command = "stella trust add " + quote(publisher) + " --key " + quote(file) + end
		out.TOML = manifests.EncodeKey(manifests.PublisherKey{PEM: pem})
		if pem == "" {
			out.TOML = "[[publisher.key]]\npem = \"\"\"\n\"\"\" # between the quotes: the public key with the id " + d.ID + "\n"
			out.Note = "ask the publisher for the public key by another way, and compare its id: stella bundle inspect " + quote(file)
		}
	}
	if d.Statement {
		in.attester(&out, d, publisher, pem)
	}
	if in.judge != nil {
		for _, l := range in.judge.Trust.NamedBy(d) {
			out.Lines = append(out.Lines, engine.PolicyLine(l))
			if l.Matches {
				out.Command = "" // there is nothing to add
			}
		}
	}
	in.Demands = append(in.Demands, out)
}

// attester says what a policy has to say to demand the attestation: who attests
// is not who signs.
func (in *inspected) attester(out *demanded, d *verify.Description, publisher, pem string) {
	want := manifests.RequiredAttestation{PredicateType: d.PredicateType, Keys: keysOf(pem)}
	out.Command = "stella trust add " + quote(publisher) + " --attestation " + quote(d.PredicateType+"=KEY.pub")
	switch {
	case d.Flow == verify.FlowCertificate:
		want.Identities = []manifests.Identity{{Issuer: d.Issuer, SAN: d.SAN}}
		out.Command = "" // it takes a key
	case pem == "":
		out.Note = "keys = the PEM of the public key with the id " + d.ID
	}
	out.TOML = manifests.EncodeAttestation(want)
}

func keysOf(pem string) []string {
	if pem == "" {
		return nil
	}
	return []string{pem}
}

// quote makes one word for a shell, whatever a file says.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./-_", r)
	}
	if s != "" && !strings.HasPrefix(s, "-") && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
