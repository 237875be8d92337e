package verify_test

import (
	"bytes"
	"testing"

	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// The floor of all of these is one ECDSA check, about 90 µs for P-256.

func BenchmarkSignatureOfAKey(b *testing.B) {
	trust, e, now := verifytest.NewTrust().Load(), evidence(b, verifytest.NewBundle().Sign("acme-1")), verifytest.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := trust.Signatures(e.Manifest, e.Signatures, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignatureOfACertificate(b *testing.B) {
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	sig := verifytest.Certified(packed.Raw, "leaf-1", "release@acme.test", verifytest.Created())
	trust, e, now := verifytest.Trusts()["log-demanded"].Load(), evidence(b, verifytest.Attach(raw, attached(sig), nil)), verifytest.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := trust.Signatures(e.Manifest, e.Signatures, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRejudge is what every attempt pays.
func BenchmarkRejudge(b *testing.B) {
	trust, e, now := verifytest.NewTrust().Load(), evidence(b, verifytest.NewBundle().Sign("acme-1")), verifytest.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := trust.Rejudge(e, verifytest.SiteID, verifytest.Stella, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	trust, raw, place := verifytest.NewTrust().Load(), verifytest.NewBundle().Sign("acme-1"), spool(b)
	opt := verify.Options{Now: verifytest.Now(), SiteID: verifytest.SiteID, Spool: place}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verify.Check(bytes.NewReader(raw), trust, opt, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad is what an open of a site pays, with its trusted root.
func BenchmarkLoad(b *testing.B) {
	files := verifytest.Trusts()["log-demanded"].Files()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verify.Load(files); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	raw, key := verifytest.NewBundle().Sign("acme-1"), verifytest.Key("acme-1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verify.SignManifest(raw, key); err != nil {
			b.Fatal(err)
		}
	}
}
