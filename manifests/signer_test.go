package manifests_test

import (
	"strings"
	"testing"

	"github.com/stellarun/stella/manifests"
)

// TestASignerIsWrittenAsInAPolicy: what is given to be pasted is, to the byte,
// what the policy with that signer says.
func TestASignerIsWrittenAsInAPolicy(t *testing.T) {
	raw := sample(t, "policy/policy.toml")
	p, err := manifests.ParsePolicy("policy.toml", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	whole := string(manifests.EncodePolicy(p))
	n := 0
	for _, x := range p.Publishers {
		var parts []string
		for _, k := range x.Keys {
			parts = append(parts, manifests.EncodeKey(k))
		}
		for _, i := range x.Identities {
			parts = append(parts, manifests.EncodeIdentity(i))
		}
		for _, a := range x.Require.Attestations {
			parts = append(parts, manifests.EncodeAttestation(a))
		}
		for _, part := range parts {
			if n++; !strings.HasPrefix(part, "[[publisher.") || !strings.Contains(whole, "\n"+part) {
				t.Errorf("the policy does not hold\n%s", part)
			}
		}
	}
	if n < 3 {
		t.Errorf("the sample has only %d signers", n)
	}
}

// TestPolicyLinesPointAtHeaders of what they name, whatever the text around.
func TestPolicyLinesPointAtHeaders(t *testing.T) {
	raw := sample(t, "policy/policy.toml")
	for _, text := range []string{raw, strings.ReplaceAll(raw, "\n[[", "\n\n# a comment\n[[")} {
		p, err := manifests.ParsePolicy("policy.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		at := func(header string, found []int, want int) {
			t.Helper()
			if len(found) != want {
				t.Fatalf("%d lines of %s, want %d", len(found), header, want)
			}
			for _, n := range found {
				if n < 1 || n > len(lines) || strings.TrimSpace(lines[n-1]) != header && !strings.HasPrefix(lines[n-1], "key = [{") {
					t.Errorf("line %d is not %s", n, header)
				}
			}
		}
		all := manifests.PolicyLines([]byte(text))
		if len(all) != len(p.Publishers) {
			t.Fatalf("%d publishers, want %d", len(all), len(p.Publishers))
		}
		for i, l := range all {
			x := p.Publishers[i]
			at("[[publisher]]", []int{l.Publisher}, 1)
			at("[[publisher.key]]", l.Keys, len(x.Keys))
			at("[[publisher.identity]]", l.Identities, len(x.Identities))
			at("[[publisher.require.attestation]]", l.Attestations, len(x.Require.Attestations))
		}
	}
	if got := manifests.PolicyLines([]byte("not TOML [[")); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
