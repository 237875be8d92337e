package osv

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/stellarun/stella/examples/audit/internal/debver"
)

// ErrVersion is the error of text that is not a version of the order asked.
var ErrVersion = errors.New("osv: not a version")

// An order compares two versions that check has accepted.
type order interface {
	check(v string) error
	compare(a, b string) int
}

// orderOf returns the order of a range, nil when there is none here.
func orderOf(t RangeType, p Package) order {
	ecosystem, _, _ := strings.Cut(p.Ecosystem, ":")
	switch {
	case t == RangeSemver && isToolchain(p):
		return toolchainOrder{}
	case t == RangeSemver:
		return semverOrder{}
	case t == RangeEcosystem && ecosystem == "Debian":
		return debianOrder{}
	}
	return nil
}

// isToolchain: Go's own releases are named go1.21, go1.22rc1, go1.21.3.
func isToolchain(p Package) bool {
	return p.Ecosystem == "Go" && (p.Name == "stdlib" || p.Name == "toolchain")
}

// semverOrder is the precedence of Semantic Versioning 2.0, with or without a
// leading v. Go's pseudo-versions are pre-releases in it, and build metadata
// such as +incompatible and +dirty has no part in it.
type semverOrder struct{}

func (semverOrder) check(v string) error {
	if !semver.IsValid(withV(v)) {
		return fmt.Errorf("%w: %.80q", ErrVersion, v)
	}
	return nil
}

func (semverOrder) compare(a, b string) int { return semver.Compare(withV(a), withV(b)) }

func withV(v string) string { return "v" + strings.TrimPrefix(v, "v") }

// toolchainOrder is the precedence of Go releases, in their own notation or in
// the one that advisories use.
type toolchainOrder struct{}

func (toolchainOrder) check(v string) error {
	_, err := toolchainVersion(v)
	return err
}

func (toolchainOrder) compare(a, b string) int {
	x, errX := toolchainVersion(a)
	y, errY := toolchainVersion(b)
	if errX != nil || errY != nil {
		panic("osv: compare of versions that were not checked")
	}
	return semver.Compare(x, y)
}

// toolchainVersion writes a release of Go as a semantic version: go1.22rc1 is
// v1.22.0-rc.1, and go1.21.3-suffix, as distributions call their builds, is
// v1.21.3. A version that has the form already stays.
func toolchainVersion(s string) (string, error) {
	v := strings.TrimPrefix(s, "go")
	v, _, _ = strings.Cut(v, " ")
	dots := strings.Count(v, ".")
	if v != s || dots < 2 || !semver.IsValid("v"+v) {
		v, _, _ = strings.Cut(v, "-")
	}
	for _, mark := range []string{"rc", "beta", "alpha"} {
		if minor, n, ok := strings.Cut(v, mark); ok && strings.Count(minor, ".") == 1 {
			v = minor + ".0-" + mark + "." + n
			break
		}
	}
	if !semver.IsValid("v"+v) || v == "" {
		return "", fmt.Errorf("%w: Go release %.80q", ErrVersion, s)
	}
	return "v" + v, nil
}

type debianOrder struct{}

func (debianOrder) check(v string) error {
	if _, err := debver.Parse(v); err != nil {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return nil
}

func (debianOrder) compare(a, b string) int {
	c, err := debver.Compare(a, b)
	if err != nil {
		panic("osv: compare of versions that were not checked")
	}
	return c
}

// zeroFirst is an order in which "0" comes before everything.
type zeroFirst struct{ order }

func (z zeroFirst) compare(a, b string) int {
	if a == "0" || b == "0" {
		return cmp.Compare(btoi(a != "0"), btoi(b != "0"))
	}
	return z.order.compare(a, b)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
