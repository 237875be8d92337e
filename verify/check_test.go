package verify_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// recorder is a sink that writes down what happens to it.
type recorder struct {
	events []string
	skip   string // content that it does not need
	fail   string // operation that fails
}

var errDisk = errors.New("disk full")

func (r *recorder) did(what string) error {
	if r.fail == what {
		return errDisk
	}
	r.events = append(r.events, what)
	return nil
}

func (r *recorder) Blob(b *bundle.Blob) (verify.BlobWriter, error) {
	if b.SHA256 == r.skip {
		return nil, nil
	}
	return r, r.did("blob")
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.fail == "write" {
		return 0, errDisk
	}
	return len(p), nil
}

func (r *recorder) Commit() error { return r.did("commit") }
func (r *recorder) Abort() error  { return r.did("abort") }

func options(t testing.TB) verify.Options {
	return verify.Options{Now: verifytest.Now(), SiteID: verifytest.SiteID, Stella: verifytest.Stella, Spool: spool(t)}
}

func TestTheSinkSeesVerifiedContents(t *testing.T) {
	trust, raw := verifytest.NewTrust().Load(), verifytest.NewBundle().Sign("acme-1")
	got := contents{}
	if _, err := verify.Check(iotest.HalfReader(bytes.NewReader(raw)), trust, options(t), got); err != nil {
		t.Fatal(err)
	}
	for path, data := range verifytest.NewBundle().Files {
		if string(got[bundle.Digest([]byte(data))]) != data {
			t.Errorf("%s did not arrive", path)
		}
	}
	first := bundle.Digest([]byte("one\ntwo\n"))
	r := &recorder{skip: first}
	if _, err := verify.Check(bytes.NewReader(raw), trust, options(t), r); err != nil || !slices.Equal(r.events, []string{"blob", "commit"}) {
		t.Errorf("%v, %v", r.events, err)
	}
	// A content that the sink does not need is verified all the same.
	bad := bytes.Replace(raw, []byte("one\ntwo\n"), []byte("one\nTWO\n"), 1)
	wantReason(t, second(verify.Check(bytes.NewReader(bad), trust, options(t), &recorder{skip: first})), bundle.BlobDigest)
}

func TestWhatIsRefusedIsAborted(t *testing.T) {
	trusts := loadTrusts()
	for _, f := range fixtures() {
		r := new(recorder)
		_, err := verify.Check(bytes.NewReader(f.Raw), trusts[f.Trust], f.Options(spool(t)), r)
		begun, ended := 0, 0
		for _, e := range r.events {
			switch e {
			case "blob":
				begun++
			default:
				ended++
			}
		}
		if begun != ended {
			t.Errorf("%s: %v", f.Name, r.events)
		}
		if strings.HasPrefix(f.Name, "blob-") && f.Expect != string(bundle.BlobMissing) && err != nil && f.Expect != string(bundle.BlobSize) && f.Name != "blob-revoked" {
			if r.events[len(r.events)-1] != "abort" {
				t.Errorf("%s: %v", f.Name, r.events)
			}
		}
	}
}

// TestNothingIsHandedOutBeforeTheJudgement counts on a sink that must stay
// unused.
func TestNothingIsHandedOutBeforeTheJudgement(t *testing.T) {
	late := []verify.Stage{verify.StageBlobs, verify.StageTrust}
	stage := map[string]verify.Stage{}
	for _, r := range verify.Reasons() {
		stage[string(r.Reason)] = r.Stage
	}
	for _, f := range fixtures() {
		at, isReason := stage[f.Expect]
		if !isReason || slices.Contains(late, at) || at == verify.StageContainer {
			continue
		}
		r := new(recorder)
		res, _ := verify.Check(bytes.NewReader(f.Raw), loadTrusts()[f.Trust], f.Options(spool(t)), r)
		if len(r.events) > 0 {
			t.Errorf("%s: the sink saw %v", f.Name, r.events)
		}
		if at == verify.StageSignatures && res.Manifest != nil && f.Expect != string(verify.TrustedTimeAhead) {
			t.Errorf("%s: the manifest was parsed before its signatures were good", f.Name)
		}
	}
}

func TestFaultsAreNoRefusals(t *testing.T) {
	trust, raw := verifytest.NewTrust().Load(), verifytest.NewBundle().Sign("acme-1")
	for _, op := range []string{"blob", "write", "commit"} {
		_, err := verify.Check(bytes.NewReader(raw), trust, options(t), &recorder{fail: op})
		if !errors.Is(err, errDisk) || refused(err) {
			t.Errorf("%s: %v", op, err)
		}
	}
	opt := options(t)
	opt.Floors = func(*manifests.Bundle, string) (verify.Floors, error) { return verify.Floors{}, errDisk }
	if _, err := verify.Check(bytes.NewReader(raw), trust, opt, nil); !errors.Is(err, errDisk) || refused(err) {
		t.Errorf("floors: %v", err)
	}
	for _, n := range []int{0, 600, 3000, len(raw) - 100} {
		in := io.MultiReader(bytes.NewReader(raw[:n]), iotest.ErrReader(errDisk))
		if _, err := verify.Check(in, trust, options(t), nil); !errors.Is(err, errDisk) || refused(err) {
			t.Errorf("reading fails at %d: %v", n, err)
		}
	}
	if _, err := verify.Check(bytes.NewReader(raw), trust, verify.Options{Spool: spool(t)}, nil); err == nil || refused(err) {
		t.Errorf("without Now: %v", err)
	}
}

func TestDeltasAskTheSite(t *testing.T) {
	b := verifytest.NewBundle()
	list := bundle.Digest([]byte(b.Files["list.txt"]))
	raw, packed := b.Pack(bundle.PackOptions{Omit: func(sum string) bool { return sum == list }})
	raw = verifytest.Attach(raw, verifytest.Signatures(packed.Raw, "acme-1"), nil)
	trust, opt := verifytest.NewTrust().Load(), options(t)
	opt.Have = func(m *manifests.Bundle, sum string) bool { return m.Publisher == "acme" && sum == list }
	res, err := verify.Check(bytes.NewReader(raw), trust, opt, nil)
	if err != nil || !slices.Equal(res.Absent, []string{list}) {
		t.Fatalf("absent %v, %v", res.Absent, err)
	}
	opt.Have = func(*manifests.Bundle, string) bool { return false }
	res, err = verify.Check(bytes.NewReader(raw), trust, opt, nil)
	wantReason(t, err, bundle.BlobMissing)
	rejection := res.Rejection(err)
	if rejection.Reason != string(bundle.BlobMissing) || rejection.Offset != res.FileBytes || rejection.Digest != packed.Digest ||
		rejection.FileSHA256 != bundle.Digest(raw[:res.FileBytes]) {
		t.Errorf("rejection %+v", rejection)
	}
}

// TestTheSignerIsNamed in a way that can be copied into a policy.
func TestTheSignerIsNamed(t *testing.T) {
	for _, f := range fixtures() {
		if f.Expect != string(verify.SignerUnknown) {
			continue
		}
		_, err := verify.Check(bytes.NewReader(f.Raw), loadTrusts()[f.Trust], f.Options(spool(t)), nil)
		refused := wantReason(t, err, verify.SignerUnknown)
		want := []string{verifytest.KeyID("stranger")}
		if f.Name == "strange-certificate" {
			want = []string{"someone@else.test", verifytest.Issuer}
		}
		for _, w := range want {
			if !strings.Contains(refused.Error(), w) {
				t.Errorf("%s: %v does not name %s", f.Name, refused, w)
			}
		}
		if refused.Hint == "" {
			t.Error("there is no hint")
		}
	}
}

func TestDescribeTellsWhomToTrust(t *testing.T) {
	manifest := []byte("x")
	for _, c := range []struct {
		a    bundle.Attached
		want verify.Description
	}{
		{verifytest.Signatures(manifest, "acme-1")[0], verify.Description{ID: verifytest.KeyID("acme-1"), Flow: verify.FlowKey}},
		{verifytest.Certified(manifest, "leaf-1", "a@b.test", verifytest.Created()), verify.Description{
			ID: verifytest.KeyID("leaf-1"), Flow: verify.FlowCertificate, Issuer: verifytest.Issuer, SAN: "a@b.test", LogEntries: 1,
		}},
		{verifytest.Attestation(bundle.Digest(manifest), verifytest.Review, "1", "reviewer"), verify.Description{
			Statement: true, ID: verifytest.KeyID("reviewer"), Flow: verify.FlowKey, PredicateType: verifytest.Review,
		}},
	} {
		if !c.want.Statement {
			c.want.Digest = bundle.Digest(manifest)
		}
		got, err := verify.Describe(c.a.Data)
		if err != nil {
			t.Error(err)
			continue
		}
		got.Details = verify.Details{} // TestLook has them
		if diff := cmp.Diff(c.want, *got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := verify.Describe([]byte("{}")); err == nil {
		t.Error("{} is described")
	}
}

func TestTheTrustedTimeIsTheLatest(t *testing.T) {
	raw, packed := verifytest.NewBundle().Pack(noOptions())
	at := verifytest.Created().Add(time.Hour)
	raw = verifytest.Attach(raw, attached(verifytest.Logged(packed.Raw, "acme-1", at), verifytest.Logged(packed.Raw, "acme-2", at.Add(-time.Minute))), nil)
	res, err := verify.Check(bytes.NewReader(raw), loadTrusts()["log-demanded"], options(t), nil)
	if err != nil || !res.TrustedTime.Equal(at) {
		t.Errorf("%s, %v, want %s", res.TrustedTime, err, at)
	}
}

func TestOneFileTwiceIsOneSignerTwice(t *testing.T) {
	manifest := []byte("x")
	sigs := verifytest.Signatures(manifest, "acme-1", "acme-1")
	_, err := verifytest.NewTrust().Load().Signatures(manifest, sigs, verifytest.Now())
	wantReason(t, err, verify.DuplicateSigner)
}

func TestASignatureOfAnotherTrustIsNotJudged(t *testing.T) {
	e := evidence(t, verifytest.NewBundle().Sign("acme-1"))
	one, two := verifytest.NewTrust().Load(), verifytest.NewTrust().Load()
	signed, err := one.Signatures(e.Manifest, e.Signatures, verifytest.Now())
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifests.ParseBundle("stella.toml", e.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	in := verify.Input{Manifest: m, Signed: signed, Now: verifytest.Now()}
	if _, err := one.Judge(in); err != nil {
		t.Error(err)
	}
	if _, err := two.Judge(in); err == nil || refused(err) {
		t.Errorf("Judge = %v", err)
	}
}
