package debver_test

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stellarun/stella/examples/audit/internal/debver"
)

// order is read as: each version is before the next.
func TestOrder(t *testing.T) {
	for name, order := range map[string][]string{
		"a tilde sorts before the end, the end before letters, letters before the rest": {
			"1.0~~", "1.0~~a", "1.0~", "1.0~rc1", "1.0", "1.0a", "1.0+", "1.0.",
		},
		"numbers compare as numbers, however long": {
			"1.9", "1.10", "1.100", "1.99999999999999999999", "1.100000000000000000000",
		},
		"an epoch beats everything":        {"9999", "1:0.1", "2:0", "10:0"},
		"the revision comes last":          {"1.0-1", "1.0-1.1", "1.0-2", "1.0-10", "1.1-1"},
		"no revision is before revision 1": {"1.0", "1.0-1"},
		"an update of a stable release": {
			"3.0.11-1~deb12u1", "3.0.11-1~deb12u2", "3.0.11-1", "3.0.11-1+b1", "3.0.11-1+deb12u1", "3.0.12",
		},
		"an upstream part with hyphens": {"1.0-a-1", "1.0-b-1"},
		"a colon in the upstream part":  {"1:1:0", "1:1:1"},
		"upper case before lower case":  {"1.0A", "1.0Z", "1.0a"},
	} {
		for i := 0; i+1 < len(order); i++ {
			for _, c := range []struct {
				a, b string
				want int
			}{{order[i], order[i+1], -1}, {order[i+1], order[i], 1}, {order[i], order[i], 0}} {
				if got, err := debver.Compare(c.a, c.b); err != nil || got != c.want {
					t.Errorf("%s: Compare(%q, %q) = %d, %v; want %d", name, c.a, c.b, got, err, c.want)
				}
			}
		}
	}
}

func TestEqual(t *testing.T) {
	for _, c := range [][2]string{
		{"0:1.0", "1.0"}, {"1.0", "1.0-0"}, {"1.0-0", "1.0-00"}, {"1.01", "1.1"}, {"00:1", "1"}, {"1.0", "1.00"}, {"a0b", "a00b"},
	} {
		if got, err := debver.Compare(c[0], c[1]); err != nil || got != 0 {
			t.Errorf("Compare(%q, %q) = %d, %v; want 0", c[0], c[1], got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", "-1", ":1", "a:1", "1.0-", "1 0", "1.0_1", "1.0\n", "1:", "1:-1", "1.0-1:2", "é", "1.0/2", "-", strings.Repeat("1", 2000),
	} {
		if v, err := debver.Parse(s); !errors.Is(err, debver.ErrVersion) {
			t.Errorf("Parse(%.40q) = %v, %v; want ErrVersion", s, v, err)
		}
	}
}

// version draws what is likely to be almost equal.
func version() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		s := rapid.StringMatching(`([0-2]:)?[0-9][0-9a-cA-C.+~]{0,6}(-[0-9a-c.+~]{1,4})?`).Draw(t, "version")
		return s
	})
}

func TestCompareIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := version().Draw(t, "a"), version().Draw(t, "b"), version().Draw(t, "c")
		compare := func(x, y string) int {
			n, err := debver.Compare(x, y)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if compare(a, b) != -compare(b, a) {
			t.Fatalf("%q and %q: each direction says otherwise", a, b)
		}
		if compare(a, b) <= 0 && compare(b, c) <= 0 && compare(a, c) > 0 {
			t.Fatalf("%q <= %q <= %q, but not %q <= %q", a, b, c, a, c)
		}
	})
}

// TestAgainstDpkg asks the program that defines the order in practice.
func TestAgainstDpkg(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("NOT COMPARED WITH DPKG: there is none on this machine")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	n := 300
	if testing.Short() {
		n = 50
	}
	for range n {
		a, b := randomVersion(rnd), randomVersion(rnd)
		got, err := debver.Compare(a, b)
		if err != nil {
			t.Fatalf("Compare(%q, %q): %v", a, b, err)
		}
		relation := [...]string{"lt", "eq", "gt"}[got+1]
		if err := exec.Command(dpkg, "--compare-versions", a, relation, b).Run(); err != nil {
			t.Errorf("Compare(%q, %q) = %d, but dpkg does not say %s: %v", a, b, got, relation, err)
		}
	}
}

func randomVersion(rnd *rand.Rand) string {
	part := func(alphabet string, most int) string {
		b := make([]byte, 1+rnd.IntN(most))
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(b)
	}
	v := part("0123", 1) + part("0019aZ.+~-", 5) + "0"
	if rnd.IntN(3) == 0 {
		v = part("01", 2) + ":" + v
	}
	if rnd.IntN(2) == 0 {
		v += "-" + part("01aZ.+~", 3)
	}
	return v
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1:2.39.5-0+deb12u3", "3.0.19-1~deb12u2", "0", "1.0-a-b", "2.36-9+deb12u14", ":", "1:1:1-1", "~"} {
		f.Add(s, "1.0")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := debver.Parse(a)
		if err != nil {
			return
		}
		if v.Compare(v) != 0 {
			t.Errorf("%q is not equal to itself", a)
		}
		if longer, err := debver.Parse(a + "~"); err == nil && longer.Compare(v) >= 0 {
			t.Errorf("%q is not before %q", a+"~", a)
		}
		if w, err := debver.Parse(b); err == nil && v.Compare(w) != -w.Compare(v) {
			t.Errorf("%q and %q: each direction says otherwise", a, b)
		}
	})
}
