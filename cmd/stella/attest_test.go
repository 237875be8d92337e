package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"testing"

	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protojson"
)

// statement BUNDLE KEY OUT checks a bundle with an in-toto statement by what the
// standards say, with nothing of stella's, and writes the statement to OUT with a
// field a line.
func cmdStatement(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: statement bundle key out")
	}
	payload, err := readStatement([]byte(ts.ReadFile(args[0])), []byte(ts.ReadFile(args[1])))
	ts.Check(err)
	var out bytes.Buffer
	ts.Check(json.Indent(&out, payload, "", " "))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), out.Bytes(), 0o600))
}

// readStatement verifies a bundle and returns its payload.
func readStatement(file, key []byte) ([]byte, error) {
	var b struct {
		MediaType            string
		VerificationMaterial struct{ PublicKey struct{ Hint string } }
		DSSEEnvelope         struct {
			Payload, PayloadType string
			Signatures           []struct{ Sig string }
		}
	}
	if err := json.Unmarshal(file, &b); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	spki := sha256.Sum256(block.Bytes)
	e := b.DSSEEnvelope
	if b.MediaType != "application/vnd.dev.sigstore.bundle.v0.3+json" || e.PayloadType != "application/vnd.in-toto+json" ||
		len(e.Signatures) != 1 || b.VerificationMaterial.PublicKey.Hint != base64.StdEncoding.EncodeToString(spki[:]) {
		return nil, fmt.Errorf("not the form of a bundle: %.300s", file)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return nil, err
	}
	signed := sha256.Sum256(append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(e.PayloadType), e.PayloadType, len(payload)), payload...))
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), signed[:], sig) {
		return nil, errors.New("the signature does not verify")
	}
	return payload, checkProvenance(payload)
}

// checkProvenance holds a statement to the schemas of in-toto and SLSA, by their own
// library: no field that they do not know, none missing that they demand.
func checkProvenance(payload []byte) error {
	var s intoto.Statement
	if err := protojson.Unmarshal(payload, &s); err != nil {
		return fmt.Errorf("not a statement: %w", err)
	}
	if err := s.Validate(); err != nil {
		return fmt.Errorf("not a statement: %w", err)
	}
	raw, err := protojson.Marshal(s.GetPredicate())
	if err != nil {
		return err
	}
	var p slsa.Provenance
	if err := protojson.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("not a provenance: %w", err)
	}
	if err := p.Validate(); err != nil {
		return fmt.Errorf("not a provenance: %w", err)
	}
	seen := map[string]bool{}
	for _, x := range s.GetSubject() {
		if seen[x.GetName()] {
			return fmt.Errorf("two subjects are called %s", x.GetName())
		}
		seen[x.GetName()] = true
	}
	return nil
}

// What reads the statements in scripts refuses what is not signed by the key, or is
// no provenance.
func TestReadStatementRefuses(t *testing.T) {
	if err := checkProvenance([]byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x","predicate":{},"subject":[{"name":"a","digest":{"sha256":"00"}}]}`)); err == nil {
		t.Error("a statement without a provenance was accepted")
	}
	if _, err := readStatement([]byte(`{}`), nil); err == nil {
		t.Error("an empty bundle was accepted")
	}
}
