package manifests_test

import (
	"testing"

	"github.com/stellarun/stella/manifests"
)

func TestASecretIsGrantedToThoseThatTheGrantNames(t *testing.T) {
	p := manifests.Publisher{Allow: manifests.Allow{Secrets: []manifests.SecretGrant{
		{Name: "db", Tenants: []string{"default"}, DAGs: []string{"acme/flow", "nightly"}, Plugins: []string{"probe"}},
	}}}
	for _, c := range []struct {
		secret, tenant, publisher, dag, plugin string
		want                                   bool
	}{
		{"db", "default", "acme", "flow", "probe", true},
		{"db", "default", "anybody", "nightly", "probe", true},
		{"api", "default", "acme", "flow", "probe", false},
		{"db", "other", "acme", "flow", "probe", false},
		{"db", "default", "other", "flow", "probe", false},
		{"db", "default", "acme", "flow2", "probe", false},
		{"db", "default", "acme", "flow", "probe2", false},
		{"db", "", "", "", "", false},
	} {
		if got := p.Grants(c.secret, c.tenant, c.publisher, c.dag, c.plugin); got != c.want {
			t.Errorf("Grants(%+v) = %v", c, got)
		}
	}
	if new(manifests.Publisher).Grants("db", "default", "acme", "flow", "probe") {
		t.Error("a policy without grants grants")
	}
}
