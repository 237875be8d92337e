package verify_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

const (
	san       = "release@acme.test"
	cycloneDX = "https://cyclonedx.org/bom"
)

var blob = []byte("what was signed\n")

// signed is a signature over blob by the key or certificate acme-1.
func signed(w verifytest.With) []byte { return verifytest.Signature(blob, "acme-1", w).Data }

// stated is a statement of acme-1 about blob.
func stated(t testing.TB, statementType, predicateType string, w verifytest.With) []byte {
	t.Helper()
	payload := canonical(t, object{
		"_type": statementType, "predicateType": predicateType, "predicate": object{},
		"subject": []object{{"name": "blob", "digest": object{"sha256": bundle.Digest(blob)}}},
	})
	w.Statement = true
	return verifytest.Signature(payload, "acme-1", w).Data
}

const (
	v01 = "https://in-toto.io/Statement/v0.1"
	v1  = "https://in-toto.io/Statement/v1"
)

// Policies of the table.
func byKey(edit ...func(*verify.BlobPolicy)) verify.BlobPolicy {
	p := verify.BlobPolicy{Key: []byte(verifytest.PEM("acme-1")), NoLog: true}
	for _, e := range edit {
		e(&p)
	}
	return p
}

func byIdentity(edit ...func(*verify.BlobPolicy)) verify.BlobPolicy {
	p := verify.BlobPolicy{SAN: san, Issuer: verifytest.Issuer, TrustedRoot: verifytest.TrustedRoot()}
	for _, e := range edit {
		e(&p)
	}
	return p
}

func rooted(p *verify.BlobPolicy) { p.TrustedRoot, p.NoLog = verifytest.TrustedRoot(), false }
func noLog(p *verify.BlobPolicy)  { p.NoLog = true }
func noSCT(p *verify.BlobPolicy)  { p.NoSCT = true }
func states(predicateType string) func(*verify.BlobPolicy) {
	return func(p *verify.BlobPolicy) { p.PredicateType = predicateType }
}

func pattern(text string) func(*verify.BlobPolicy) {
	return func(p *verify.BlobPolicy) { p.SAN, p.SANRegexp = "", text }
}

// without is the trusted root without a part of it.
func without(part string) func(*verify.BlobPolicy) {
	return func(p *verify.BlobPolicy) {
		p.TrustedRoot = verifytest.Edit(bundle.Attached{Data: verifytest.TrustedRoot()}, func(v map[string]any) { delete(v, part) }).Data
	}
}

type blobCase struct {
	name   string
	policy verify.BlobPolicy
	sig    []byte
	want   verify.Reason // "" for verified
	checks string
}

func blobCases(t testing.TB) []blobCase {
	at := verifytest.Created().Add(time.Minute)
	logged, logged2, stamped := verifytest.With{Logged: at}, verifytest.With{Logged2: true, Stamped: at}, verifytest.With{Stamped: at}
	cert := func(w verifytest.With) verifytest.With { w.SAN, w.SCT = san, true; return w }
	bare := func(w verifytest.With) verifytest.With { w.SAN = san; return w }
	edit := func(sig []byte, f func(map[string]any)) []byte {
		return verifytest.Edit(bundle.Attached{Data: sig}, f).Data
	}
	both := logged
	both.Stamped = at
	twice := edit(signed(logged), func(v map[string]any) {
		m := v["verificationMaterial"].(object)
		m["tlogEntries"] = append(m["tlogEntries"].([]any), m["tlogEntries"].([]any)[0])
	})
	note := func(sig []byte, change func(string) string) []byte {
		return edit(sig, func(v map[string]any) {
			checkpoint := v["verificationMaterial"].(object)["tlogEntries"].([]any)[0].(object)["inclusionProof"].(object)["checkpoint"].(object)
			checkpoint["envelope"] = change(checkpoint["envelope"].(string))
		})
	}
	witness := "— witness.test " + b64(make([]byte, 76)) + "\n"
	cosigned := note(signed(logged2), func(n string) string { return n + witness })
	before := note(signed(logged2), func(n string) string { return strings.Replace(n, "\n\n", "\n\n"+witness, 1) })
	alone := note(signed(logged2), func(n string) string { return n[:strings.Index(n, "\n\n")+2] + witness })
	doubled := note(signed(logged2), func(n string) string { return n + n[strings.Index(n, "\n\n")+2:] })
	huge := append(signed(verifytest.With{}), bytes.Repeat([]byte(" "), bundle.MaxSignature)...)
	late := verifytest.With{Logged: verifytest.Now().Add(11 * time.Minute)}
	about := func(subject string) []byte {
		payload := canonical(t, object{"_type": v1, "predicateType": cycloneDX, "predicate": object{},
			"subject": []object{{"name": "x", "digest": object{"sha256": subject}}}})
		return verifytest.Signature(payload, "acme-1", verifytest.With{Statement: true}).Data
	}
	notStatement := verifytest.Signature([]byte(`{"_type":"x"}`), "acme-1", verifytest.With{Statement: true}).Data
	otherPayload := edit(about(bundle.Digest(blob)), func(v map[string]any) { v["dsseEnvelope"].(object)["payloadType"] = "text/plain" })
	changed := edit(stated(t, v1, cycloneDX, verifytest.With{}), func(v map[string]any) {
		v["dsseEnvelope"].(object)["payload"] = b64([]byte(`{"_type":"` + v1 + `"}`))
	})
	badHint := func(sig []byte) []byte {
		return edit(sig, func(v map[string]any) { v["verificationMaterial"].(object)["publicKey"] = object{"hint": "acme"} })
	}
	keyed, dsse := byKey(), byKey(states(cycloneDX))
	return []blobCase{
		{"a key", keyed, signed(verifytest.With{}), "", "signature"},
		{"a key in the log", byKey(rooted), signed(logged), "", "signature, log, time"},
		{"a key in the log and with a timestamp", byKey(rooted), signed(both), "", "signature, log, time"},
		{"a key in the second log", byKey(rooted), signed(logged2), "", "signature, log, time"},
		{"a log entry whose head was cosigned", byKey(rooted), cosigned, "", "signature, log, time"},
		{"a log entry whose head a witness signed first", byKey(rooted), before, "", "signature, log, time"},
		{"a key with a timestamp", byKey(rooted, noLog), signed(stamped), "", "signature, time"},
		{"a certificate in the log", byIdentity(), signed(cert(logged)), "", "signature, certificate, identity, sct, log, time"},
		{"a certificate in the second log", byIdentity(), signed(cert(logged2)), "", "signature, certificate, identity, sct, log, time"},
		{"a certificate with a timestamp", byIdentity(noLog), signed(cert(stamped)), "", "signature, certificate, identity, sct, time"},
		{"a certificate without SCT", byIdentity(noSCT), signed(bare(logged)), "", "signature, certificate, identity, log, time"},
		{"by a pattern", byIdentity(pattern(`[a-z]+@acme\.test`)), signed(cert(logged)), "", "signature, certificate, identity, sct, log, time"},
		{"a statement", dsse, stated(t, v1, cycloneDX, verifytest.With{}), "", "signature, predicate, subject"},
		{"an old statement", dsse, stated(t, v01, cycloneDX, verifytest.With{}), "", "signature, predicate, subject"},
		{"a statement in the log", byIdentity(states(cycloneDX)), stated(t, v1, cycloneDX, cert(logged)), "", "signature, certificate, identity, sct, log, time, predicate, subject"},
		{"a statement in the second log", byIdentity(states(cycloneDX)), stated(t, v1, cycloneDX, cert(logged2)), "", "signature, certificate, identity, sct, log, time, predicate, subject"},

		{"too large", keyed, huge, bundle.SignatureTooLarge, ""},
		{"a statement that is too large", dsse, append(about(bundle.Digest(blob)), bytes.Repeat([]byte(" "), bundle.MaxAttestation)...), bundle.AttestationTooLarge, ""},
		{"no JSON", keyed, []byte("no"), verify.SignatureMalformed, ""},
		{"a member twice", keyed, bytes.Replace(signed(verifytest.With{}), []byte(`{"mediaType"`), []byte(`{"mediaType":"x","mediaType"`), 1), verify.SignatureMalformed, ""},
		{"another media type", keyed, bytes.Replace(signed(verifytest.With{}), []byte("v0.3+json"), []byte("v0.2+json"), 1), verify.SignatureMalformed, ""},
		{"a statement that is no JSON", dsse, []byte("no"), verify.AttestationMalformed, ""},
		{"another payload type", dsse, otherPayload, verify.AttestationMalformed, ""},
		{"a payload that is no statement", dsse, notStatement, verify.AttestationMalformed, ""},
		{"a hint of another kind", keyed, badHint(signed(verifytest.With{})), verify.SignatureID, ""},
		{"a statement with a hint of another kind", dsse, badHint(about(bundle.Digest(blob))), verify.AttestationID, ""},
		{"a statement where a signature is demanded", keyed, about(bundle.Digest(blob)), verify.SignatureIsStatement, ""},
		{"a signature where a statement is demanded", dsse, signed(verifytest.With{}), verify.AttestationMissing, ""},
		{"another key", byKey(func(p *verify.BlobPolicy) { p.Key = []byte(verifytest.PEM("acme-2")) }), signed(verifytest.With{}), verify.SignerUnknown, ""},
		{"a certificate for a key", keyed, signed(cert(logged)), verify.SignerUnknown, ""},
		{"a key for an identity", byIdentity(), signed(logged), verify.SignerUnknown, ""},
		{"another identity", byIdentity(func(p *verify.BlobPolicy) { p.SAN = "else@acme.test" }), signed(cert(logged)), verify.SignerUnknown, ""},
		{"another issuer", byIdentity(func(p *verify.BlobPolicy) { p.Issuer = "https://issuer.test/" }), signed(cert(logged)), verify.SignerUnknown, ""},
		{"a pattern for a part of it", byIdentity(pattern(`release@acme`)), signed(cert(logged)), verify.SignerUnknown, ""},
		{"a pattern with alternatives", byIdentity(pattern(`x|release`)), signed(cert(logged)), verify.SignerUnknown, ""},
		{"a log entry that nobody verifies", keyed, signed(logged), verify.SignatureExtra, ""},
		{"a timestamp that nobody verifies", keyed, signed(stamped), verify.SignatureExtra, ""},
		{"a log entry beside the timestamp", byKey(rooted, noLog), signed(both), verify.SignatureExtra, ""},
		{"a log entry whose head a witness alone signed", byKey(rooted), alone, verify.SignatureMalformed, ""},
		{"a log entry whose head the log signed twice", byKey(rooted), doubled, verify.SignatureMalformed, ""},
		{"two log entries", byKey(rooted), twice, verify.SignatureExtra, ""},
		{"a timestamp by a strange authority", byKey(rooted, without("timestampAuthorities")), signed(both), verify.SignatureExtra, ""},
		{"a statement with a timestamp that nobody verifies", dsse, stated(t, v1, cycloneDX, stamped), verify.AttestationExtra, ""},
		{"no log entry", byKey(rooted), signed(verifytest.With{}), verify.TLogMissing, ""},
		{"a timestamp alone", byIdentity(), signed(cert(stamped)), verify.TLogMissing, ""},
		{"an entry without a time", byIdentity(), signed(cert(verifytest.With{Logged2: true, Issued: at})), verify.TimestampMissing, ""},
		{"a key with an entry without a time", byKey(rooted), signed(verifytest.With{Logged2: true}), verify.TimestampMissing, ""},
		{"no timestamp", byKey(rooted, noLog), signed(verifytest.With{}), verify.TimestampMissing, ""},
		{"no SCT", byIdentity(), signed(bare(logged)), verify.SCTMissing, ""},
		{"an SCT of a strange log", byIdentity(without("ctlogs")), signed(cert(logged)), verify.SignatureInvalid, ""},
		{"an entry of a strange log", byKey(rooted, without("tlogs")), signed(logged), verify.SignatureInvalid, ""},
		{"an entry of a strange second log", byKey(rooted, without("tlogs")), signed(logged2), verify.SignatureInvalid, ""},
		{"a timestamp of a strange authority", byKey(rooted, noLog, without("timestampAuthorities")), signed(stamped), verify.SignatureInvalid, ""},
		{"a certificate of a strange authority", byIdentity(without("certificateAuthorities")), signed(cert(logged)), verify.SignatureInvalid, ""},
		{"a certificate that had expired", byIdentity(), signed(verifytest.With{SAN: san, SCT: true, Issued: at.Add(-time.Hour), Logged: at}), verify.SignatureInvalid, ""},
		{"a certificate that had expired at the timestamp", byIdentity(noLog), signed(verifytest.With{SAN: san, SCT: true, Issued: at.Add(-time.Hour), Stamped: at}), verify.SignatureInvalid, ""},
		{"over other bytes", keyed, verifytest.Signature([]byte("else"), "acme-1", verifytest.With{}).Data, verify.SignatureInvalid, ""},
		{"a changed statement", dsse, changed, verify.AttestationInvalid, ""},
		{"signed after the judgement", byKey(rooted), signed(late), verify.TrustedTimeAhead, ""},
		{"another predicate type", dsse, stated(t, v1, "https://spdx.dev/Document", verifytest.With{}), verify.PredicateMismatch, ""},
		{"about another file", dsse, about(bundle.Digest([]byte("else"))), verify.AttestationSubject, ""},
		{"about the digest in capitals", dsse, about(strings.ToUpper(bundle.Digest(blob))), verify.AttestationSubject, ""},
	}
}

func TestBlobs(t *testing.T) {
	for _, c := range blobCases(t) {
		t.Run(c.name, func(t *testing.T) {
			v, err := verify.NewBlobVerifier(c.policy)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Verify(c.sig, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now())
			byDigest, err2 := v.Verify(c.sig, verify.Blob{SHA256: bundle.Digest(blob)}, verifytest.Now())
			if c.want != "" {
				wantReason(t, err, c.want)
				wantReason(t, err2, c.want)
				var r *verify.RejectError
				if errors.As(err, &r); r.Hint == "" || got != nil {
					t.Errorf("hint %q, verdict %v", r.Hint, got)
				}
				return
			}
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if checks := strings.Join(got.Checks, ", "); checks != c.checks || got.SHA256 != bundle.Digest(blob) || got.Bytes != int64(len(blob)) {
				t.Errorf("checks %q, want %q: %+v", checks, c.checks, got)
			}
			if slices.Contains(got.Checks, "time") != (len(got.TrustedTimes) > 0) {
				t.Errorf("trusted times %v, checks %v", got.TrustedTimes, got.Checks)
			}
			if got.PredicateType != c.policy.PredicateType || (got.SAN != "") != (c.policy.Key == nil) || byDigest.KeyID != got.KeyID {
				t.Errorf("%+v", got)
			}
			var spaced bytes.Buffer
			if err := json.Indent(&spaced, c.sig, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(spaced.Bytes(), verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now()); err != nil {
				t.Errorf("with white space: %v", err)
			}
			_, err = v.Verify(c.sig, verify.Blob{Content: strings.NewReader(string(blob) + "x")}, verifytest.Now())
			if !refused(err) {
				t.Errorf("a longer file: %v, want a refusal", err)
			}
		})
	}
}

// TestEveryReasonOfBlobsHasACase: those that only a single file can meet.
func TestEveryReasonOfBlobsHasACase(t *testing.T) {
	have := map[verify.Reason]bool{}
	for _, c := range blobCases(t) {
		have[c.want] = true
	}
	for _, r := range verify.Reasons() {
		if r.Stage == verify.StageBlob && !have[r.Reason] {
			t.Errorf("no case for %s", r.Reason)
		}
	}
}

func TestBlobPoliciesThatSayTooLittle(t *testing.T) {
	for name, p := range map[string]verify.BlobPolicy{
		"nobody":                         {NoLog: true},
		"a key without root or no-log":   {Key: []byte(verifytest.PEM("acme-1"))},
		"a key and an identity":          byKey(rooted, func(p *verify.BlobPolicy) { p.SAN, p.Issuer = san, verifytest.Issuer }),
		"a key and no-sct":               byKey(noSCT),
		"an identity without an issuer":  byIdentity(func(p *verify.BlobPolicy) { p.Issuer = "" }),
		"an issuer alone":                byIdentity(func(p *verify.BlobPolicy) { p.SAN = "" }),
		"an identity and a pattern":      byIdentity(func(p *verify.BlobPolicy) { p.SANRegexp = "x" }),
		"an identity without a root":     byIdentity(func(p *verify.BlobPolicy) { p.TrustedRoot = nil }),
		"an identity with no-log alone":  byIdentity(noLog, func(p *verify.BlobPolicy) { p.TrustedRoot = nil }),
		"a pattern that is none":         byIdentity(pattern("(")),
		"a pattern that ends the group":  byIdentity(pattern("a)|(?:b")),
		"a key that is none":             byKey(func(p *verify.BlobPolicy) { p.Key = []byte("x") }),
		"a trusted root that is none":    byKey(rooted, func(p *verify.BlobPolicy) { p.TrustedRoot = []byte("{}") }),
		"a trusted root that is too big": byKey(rooted, func(p *verify.BlobPolicy) { p.TrustedRoot = make([]byte, verify.MaxTrustedRoot+1) }),
	} {
		var want *verify.PolicyError
		if _, err := verify.NewBlobVerifier(p); !errors.As(err, &want) {
			t.Errorf("%s: %v, want a PolicyError", name, err)
		}
	}
}

// TestBlobsByP384 hashes for the key what the key signs, and for statements a
// SHA-256 all the same.
func TestBlobsByP384(t *testing.T) {
	made, public := p384Signature(t, blob)
	sig := made.Data
	v, err := verify.NewBlobVerifier(verify.BlobPolicy{Key: []byte(public), NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(sig, verify.Blob{Content: bytes.NewReader(blob)}, verifytest.Now())
	if err != nil || got.SHA256 != bundle.Digest(blob) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = v.Verify(sig, verify.Blob{Content: strings.NewReader("else")}, verifytest.Now())
	wantReason(t, err, verify.SignatureInvalid)
	var p *verify.PolicyError
	if _, err = v.Verify(sig, verify.Blob{SHA256: bundle.Digest(blob)}, verifytest.Now()); !errors.As(err, &p) {
		t.Errorf("by its SHA-256: %v, want a PolicyError", err)
	}
}

// failing is a file that cannot be read to its end.
type failing struct{ io.Reader }

var errBroken = errors.New("the disk is broken")

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF {
		err = errBroken
	}
	return n, err
}

func TestABlobThatCannotBeReadIsNotJudged(t *testing.T) {
	v, err := verify.NewBlobVerifier(byKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(signed(verifytest.With{}), verify.Blob{Content: failing{bytes.NewReader(blob)}}, verifytest.Now()); !errors.Is(err, errBroken) || refused(err) {
		t.Errorf("%v, want the fault of the disk", err)
	}
	for _, digest := range []string{"", "ab", strings.ToUpper(bundle.Digest(blob)), bundle.Digest(blob) + "0"} {
		if _, err := v.Verify(signed(verifytest.With{}), verify.Blob{SHA256: digest}, verifytest.Now()); err == nil || refused(err) {
			t.Errorf("digest %q: %v, want no judgement", digest, err)
		}
	}
}

// TestABlobOfAnySizeTakesLittleMemory reads 256 MiB that are never in memory.
func TestABlobOfAnySizeTakesLittleMemory(t *testing.T) {
	const n = 256 << 20
	sum := sha256.New()
	if _, err := io.CopyN(sum, rand.NewChaCha8([32]byte{}), n); err != nil {
		t.Fatal(err)
	}
	v, err := verify.NewBlobVerifier(byKey())
	if err != nil {
		t.Fatal(err)
	}
	sig := signed(verifytest.With{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = v.Verify(sig, verify.Blob{Content: io.LimitReader(rand.NewChaCha8([32]byte{}), n)}, verifytest.Now())
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
	wantReason(t, err, verify.SignatureInvalid)
	if want := hex.EncodeToString(sum.Sum(nil)); !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want the digest %s", err, want)
	}
}
