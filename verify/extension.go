package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// Extended is t with an extension: until a date that the root's break_glass role
// has signed, root, policy and revocations do not expire, each as long as it is
// the one that the extension names. It checks everything but the clock, so that
// a site can open with an extension that is over, and say so. A refusal is a
// [*RejectError].
func (t *Trust) Extended(f RoleFile, siteID string) (*Trust, error) {
	_, ok := t.root.Roles[RoleBreakGlass]
	if !ok {
		return nil, extensionRefused("root %d has no break_glass role", t.root.Version)
	}
	if err := t.extensionSigned(f); err != nil {
		return nil, extensionRefused("%v", err).because(err)
	}
	x, err := manifests.ParseExtension(extensionFile, f.Raw)
	switch {
	case err != nil:
		return nil, extensionRefused("%v", err).because(err)
	case x.SiteID != siteID:
		return nil, extensionRefused("it is for the site %s, this is %s", x.SiteID, siteID)
	case x.Root != t.ref.Root:
		return nil, extensionRefused("it extends the root %s, %s is in force", x.Root, t.ref.Root)
	case x.Until.Sub(x.Issued) > t.root.MaxExtension:
		return nil, extensionRefused("it lasts %s, the root allows %s", x.Until.Sub(x.Issued), t.root.MaxExtension)
	}
	next := *t
	next.extension, next.ref.Extension = x, bundle.Digest(f.Raw)
	return &next, nil
}

const extensionFile = "extension.toml"

func extensionRefused(format string, args ...any) *RejectError {
	return &RejectError{
		Reason: ExtensionInvalid, Subject: extensionFile, Detail: fmt.Sprintf(format, args...),
		Hint: "stella trust break-glass --reason TEXT --dry-run prints the extension that this site needs",
	}
}

// extensionSigned checks the threshold of the break_glass role, and leaves the
// signatures of t alone.
func (t *Trust) extensionSigned(f RoleFile) error {
	scratch := *t
	scratch.signatures = nil
	return scratch.signed(f, t.root, RoleBreakGlass)
}

// Names says whether a key has a role in the root in force.
func (t *Trust) Names(id, role string) bool {
	k := t.keys[id]
	return k != nil && slices.Contains(k.roles, role)
}

// Revoked says whether a key is revoked at now, whatever it has signed before.
func (t *Trust) Revoked(id string, now time.Time) bool { return t.revokedKey(id, nil, now) != nil }

// Extension is the extension in force, nil without one. It is not to be changed.
func (t *Trust) Extension() *manifests.Extension { return t.extension }

// expiry is when a trust file ends, and whether by an extension.
type expiry struct {
	file   string
	digest string
	what   string // expires | next_update
	reason Reason
	at     time.Time
	own    time.Time // what the file itself says
}

// expiries lists when the files of t end, those of them that do.
func (t *Trust) expiries() []expiry {
	var out []expiry
	for _, e := range []expiry{
		{file: "root.toml", digest: t.ref.Root, what: "expires", reason: RootExpired, own: t.root.Expires},
		{file: "policy.toml", digest: t.ref.Policy, what: "next_update", reason: PolicyExpired, own: t.policy.NextUpdate},
		{file: "revocations.toml", digest: t.ref.Revocations, what: "next_update", reason: RevocationsExpired, own: t.revocations.NextUpdate},
	} {
		if e.own.IsZero() {
			continue
		}
		e.at = e.own
		if x := t.extension; x != nil && slices.Contains([]string{x.Root, x.Policy, x.Revocations}, e.digest) && x.Until.After(e.own) {
			e.at = x.Until
		}
		out = append(out, e)
	}
	return out
}

// extended says whether anything at now rests on the extension.
func (t *Trust) extended(now time.Time) bool {
	for _, e := range t.expiries() {
		if passed(e.own, now) && !passed(e.at, now) {
			return true
		}
	}
	return false
}

// Warnings say which trust files end within a while after now, or have ended,
// and which go on by an extension: a line each.
func (t *Trust) Warnings(now time.Time, within time.Duration) []string {
	var out []string
	for _, e := range t.expiries() {
		switch {
		case passed(e.at, now):
			out = append(out, fmt.Sprintf("%s: its %s was %s: nothing is admitted and nothing starts until newer trust files are imported", e.file, e.what, utc(e.at)))
		case passed(e.own, now):
			out = append(out, fmt.Sprintf("%s: its %s was %s; it goes on until %s by break-glass", e.file, e.what, utc(e.own), utc(e.at)))
		case e.at.Sub(now) <= within:
			out = append(out, fmt.Sprintf("%s: its %s is %s, in %s: have newer trust files brought, and import them", e.file, e.what, utc(e.at), days(e.at.Sub(now))))
		}
	}
	return out
}

// days is a duration in words.
func days(d time.Duration) string {
	if n := int(d.Hours() / 24); n != 1 && d >= 24*time.Hour {
		return fmt.Sprintf("%d days", n)
	} else if d >= 24*time.Hour {
		return "1 day"
	}
	return d.Round(time.Minute).String()
}
