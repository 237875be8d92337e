package main

import (
	"slices"
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
	TOML     string           `json:"toml,omitempty"`    // for policy.toml
	Refused  string           `json:"refused,omitempty"` // why not to believe the signer; there is then nothing to write
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
	if d.Flow == verify.FlowCertificate {
		out.Signer = d.SAN
	}
	if out.Refused = in.disbelieved(d); out.Refused != "" {
		in.Demands = append(in.Demands, out)
		return
	}
	publisher, kind, name := "PUBLISHER", "KIND", "NAME"
	if in.described != nil && in.Publisher != "" {
		publisher, kind, name = in.Publisher, in.Kind, in.Name
	}
	end := " --kind " + quote(kind) + " --name " + quote(name)
	if in.judge != nil && in.judge.Trust.Publisher(publisher) != nil {
		end = "" // it may bring what it may bring already
	}
	if d.Flow == verify.FlowCertificate {
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
	} else {
		in.proofs(&out, d, publisher)
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

// proofs adds what the signature's log entries and timestamps need, as far as
// the policy at hand does not have it. A certificate needs one of the two.
func (in *inspected) proofs(out *demanded, d *verify.Description, publisher string) {
	var has manifests.Require
	rooted := false
	if in.judge != nil {
		rooted = in.judge.Trust.Policy().TrustedRootSHA256 != ""
		if p := in.judge.Trust.Publisher(publisher); p != nil {
			has = p.Require
		}
	}
	tlog, stamps := d.LogEntries > 0, d.Timestamps > 0
	if d.Flow == verify.FlowCertificate && !stamps && has.Timestamps == 0 {
		tlog = true
	}
	if d.Flow != verify.FlowCertificate && !tlog && !stamps {
		return
	}
	if !rooted {
		out.Command += " --trusted-root trusted_root.json"
	}
	var keys string
	for _, x := range []struct {
		need bool
		name string
	}{{tlog && has.TLog == 0, "tlog"}, {stamps && has.Timestamps == 0, "timestamps"}} {
		if x.need {
			out.Command += " --require-" + x.name + " 1"
			keys += x.name + " = 1\n"
		}
	}
	if keys != "" {
		out.TOML += "[publisher.require]\n" + keys
	}
}

// disbelieved says why a signer is not one to add: revoked, or a signature that
// is not good. "" is that nothing is known against it.
func (in *inspected) disbelieved(d *verify.Description) string {
	if reason := in.malformed[d]; reason != "" {
		return "invalid: " + reason
	}
	if in.judge == nil {
		return ""
	}
	var told api.SignerReport // zero without a judgement
	if in.Report != nil {
		list := in.Report.Signatures
		if d.Statement {
			list = in.Report.Attestations
		}
		if i := slices.IndexFunc(list, func(r api.SignerReport) bool { return r.ID == d.ID }); i >= 0 {
			told = list[i]
		}
	}
	for _, r := range in.judge.Trust.Revocations().Revoked {
		same := r.Key != "" && r.Key == d.ID || r.SAN != "" && r.SAN == d.SAN && r.Issuer == d.Issuer
		if same && !r.From.After(in.judge.Now) && told.State != verify.StateCounted {
			return "revoked: " + r.Reason
		}
	}
	if told.State == verify.StateInvalid {
		return "invalid: " + join(": ", told.Reason, told.Detail)
	}
	return ""
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
