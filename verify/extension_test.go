package verify_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
	"github.com/stellarun/stella/verify/verifytest"
)

// afloat is a trust whose policy ends in a month, and that two of three officers
// may extend by thirty days.
func afloat() *verifytest.Trust {
	t := verifytest.NewTrust()
	t.Root.Roles["break_glass"] = role(2, "captain", "engineer", "mate")
	t.Root.MaxExtension = 30 * 24 * time.Hour
	t.Policy.NextUpdate = verifytest.Created().AddDate(0, 1, 0)
	return t
}

// extensionOf extends what is in force from the day the policy ends.
func extensionOf(t *verify.Trust) *manifests.Extension {
	ref := t.Ref()
	end := t.Policy().NextUpdate
	return &manifests.Extension{
		SiteID: verifytest.SiteID, Serial: 1, Root: ref.Root, Policy: ref.Policy, Revocations: ref.Revocations,
		Issued: end, Until: end.Add(30 * 24 * time.Hour), Reason: "at sea",
	}
}

func TestAnExtensionPutsOffTheEnd(t *testing.T) {
	trust := afloat().Load()
	late := trust.Policy().NextUpdate.Add(time.Hour)
	file := verifytest.Signed(manifests.EncodeExtension(extensionOf(trust)), "captain", "mate")
	extended, err := trust.Extended(file, verifytest.SiteID)
	if err != nil {
		t.Fatal(err)
	}
	e := evidence(t, verifytest.NewBundle().Sign("acme-1"))
	_, err = trust.Rejudge(e, verifytest.SiteID, verifytest.Stella, late)
	wantReason(t, err, verify.PolicyExpired)
	v, err := extended.Rejudge(e, verifytest.SiteID, verifytest.Stella, late)
	if err != nil {
		t.Fatal(err)
	}
	if v.Trust.Extension == "" || !strings.Contains(strings.Join(v.Checks, " "), "break_glass") {
		t.Errorf("the verdict does not say what it rests on: %+v", v)
	}
	v, err = extended.Rejudge(e, verifytest.SiteID, verifytest.Stella, verifytest.Now())
	if err != nil || strings.Contains(strings.Join(v.Checks, " "), "break_glass") {
		t.Errorf("before the end nothing rests on it: %+v, %v", v, err)
	}
	_, err = extended.Rejudge(e, verifytest.SiteID, verifytest.Stella, extended.Extension().Until)
	wantReason(t, err, verify.PolicyExpired)
}

func TestExtensionsThatAreRefused(t *testing.T) {
	trust := afloat().Load()
	for name, c := range map[string]struct {
		keys []string
		edit func(*manifests.Extension)
		site string
	}{
		"one officer":        {[]string{"captain"}, func(*manifests.Extension) {}, verifytest.SiteID},
		"another role":       {[]string{"captain", "root", "policy"}, func(*manifests.Extension) {}, verifytest.SiteID},
		"another site":       {[]string{"captain", "mate"}, func(*manifests.Extension) {}, strings.Repeat("0", 32)},
		"another root":       {[]string{"captain", "mate"}, func(x *manifests.Extension) { x.Root = strings.Repeat("0", 64) }, verifytest.SiteID},
		"longer than may be": {[]string{"captain", "mate"}, func(x *manifests.Extension) { x.Until = x.Until.Add(time.Second) }, verifytest.SiteID},
		"nonsense":           {[]string{"captain", "mate"}, func(x *manifests.Extension) { x.Reason = "" }, verifytest.SiteID},
	} {
		x := extensionOf(trust)
		c.edit(x)
		_, err := trust.Extended(verifytest.Signed(manifests.EncodeExtension(x), c.keys...), c.site)
		t.Log(name)
		wantReason(t, err, verify.ExtensionInvalid)
	}
	plain := verifytest.NewTrust().Load()
	_, err := plain.Extended(verifytest.Signed(manifests.EncodeExtension(extensionOf(plain)), "captain", "mate"), verifytest.SiteID)
	wantReason(t, err, verify.ExtensionInvalid)
}

// A file that takes the place of an extended one ends by its own date; the
// others stay extended.
func TestAnExtensionIsAboutItsFiles(t *testing.T) {
	before := afloat().Load()
	late := before.Policy().NextUpdate.Add(time.Hour)
	file := verifytest.Signed(manifests.EncodeExtension(extensionOf(before)), "captain", "mate")
	next := afloat()
	next.Policy.Serial, next.Policy.NextUpdate = 2, late
	newer, err := next.Load().Extended(file, verifytest.SiteID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newer.Rejudge(evidence(t, verifytest.NewBundle().Sign("acme-1")), verifytest.SiteID, verifytest.Stella, late)
	wantReason(t, err, verify.PolicyExpired)
}

// New revocations must be taken in although the policy has expired.
func TestANewFileDoesNotWaitForTheOthers(t *testing.T) {
	trust := afloat().Load()
	late := trust.Policy().NextUpdate.Add(time.Hour)
	next := afloat()
	next.Revocations.Serial = 2
	if _, err := trust.Successor(next.Files(), late); err != nil {
		t.Error(err)
	}
	next.Revocations.NextUpdate = late
	_, err := trust.Successor(next.Files(), late)
	wantReason(t, err, verify.RevocationsExpired)
}

func TestWarnings(t *testing.T) {
	trust := afloat().Load()
	end, fortnight := trust.Policy().NextUpdate, 14*24*time.Hour
	file := verifytest.Signed(manifests.EncodeExtension(extensionOf(trust)), "captain", "mate")
	extended, err := trust.Extended(file, verifytest.SiteID)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		trust *verify.Trust
		now   time.Time
		want  string
	}{
		{trust, end.Add(-fortnight - time.Second), ""},
		{trust, end.Add(-fortnight), "in 14 days"},
		{trust, end.Add(-25 * time.Hour), "in 1 day"},
		{trust, end.Add(-time.Hour), "in 1h0m0s"},
		{trust, end, "nothing is admitted"},
		{extended, end, "by break-glass"},
	} {
		got := strings.Join(c.trust.Warnings(c.now, fortnight), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.now, got, c.want)
		}
	}
}
