package manifests

import (
	"fmt"
	"slices"
	"strings"
)

// provenance is how the predicate types of SLSA provenance begin.
const provenance = "https://slsa.dev/provenance/"

// ParsePolicy reads policy.toml. Its error is [Faults].
func ParsePolicy(file string, raw []byte) (*Policy, error) {
	r := &report{file: file}
	t := open(r, raw, PolicySchema, MaxBytes)
	if t == nil {
		return nil, r.err()
	}
	p := &Policy{}
	p.Serial, p.RootVersion, p.Issued, p.NextUpdate = trustHead(t)
	p.TrustedRootSHA256 = t.text("trusted_root_sha256", isHash())
	c := policyCheck{table: t, names: map[string]int{}, signers: map[string]claim{}}
	for _, row := range t.list("publisher") {
		p.Publishers = append(p.Publishers, c.publisher(row))
	}
	overlaps(r, c.prefixes)
	if c.outside != "" && !t.has("trusted_root_sha256") {
		t.fault("trusted_root_sha256", "is missing", c.outside+" is checked against the trusted root: stella trust add --trusted-root FILE")
	}
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// policyCheck is what the publishers of a policy have in common.
type policyCheck struct {
	*table
	names    map[string]int   // publisher → line
	signers  map[string]claim // key id or identity → who has it
	prefixes []prefix
	outside  string // what needs the trusted root first, "" when nothing does
}

type claim struct {
	publisher *node
	line      int
}

func (c *policyCheck) publisher(t *table) Publisher {
	defer t.done()
	t.need("name", "threshold", "kinds", "names")
	p := Publisher{
		Name:  t.text("name", isName()),
		Level: t.choice("level", "enforce", "audit"),
		Names: t.texts("names", rule{validPrefix, "the beginning of a name: a-z 0-9 . -"}),
	}
	if line, ok := c.names[p.Name]; ok && p.Name != "" {
		t.fault("name", p.Name+" is the name of two publishers", lineHint(line))
	} else {
		c.names[p.Name] = t.node.line
	}
	for _, k := range t.texts("kinds", isKind()) {
		if p.Kinds = append(p.Kinds, Kind(k)); Kind(k) == KindTrust {
			t.fault("kinds", "trust is not for publishers", "the roles of root.toml sign trust bundles")
		}
	}
	for _, key := range []string{"kinds", "names"} {
		if list, ok := t.values[key].([]any); ok && len(list) == 0 {
			t.fault(key, "is empty", "the publisher could publish nothing")
		}
	}
	list, _ := t.values["names"].([]any)
	for i, v := range list {
		if s, ok := v.(string); ok && validPrefix(s) {
			c.prefixes = append(c.prefixes, prefix{s, t.node, t.node.kids["names"].elems[i]})
		}
	}
	own := c.keys(t, &p)
	c.identities(t, &p)
	signers := len(t.node.kids["key"].list()) + len(t.node.kids["identity"].list())
	if signers == 0 {
		t.add(t.node.line, t.node.path(), "has neither key nor identity", "nobody could sign for it")
	}
	p.Threshold = t.threshold(signers, "keys and identities")
	p.Sequences = sequences(t)
	p.Require = c.require(t, own, p.Identities)
	p.Allow = allow(t)
	return p
}

// validPrefix tells whether some valid name begins with s. The empty prefix is
// that of all names.
func validPrefix(s string) bool { return s == "" || ValidName(s) }

// keys reads [[publisher.key]]. It returns the ids of the keys, with their
// lines.
func (c *policyCheck) keys(t *table, p *Publisher) map[string]int {
	own := map[string]int{}
	for _, row := range t.list("key") {
		row.need("pem")
		k := PublisherKey{ValidFrom: row.instant("valid_from"), ValidUntil: row.instant("valid_until")}
		row.after("valid_until", k.ValidUntil, "valid_from", k.ValidFrom)
		row.mark("pem")
		if v, ok := row.values["pem"]; ok {
			if key, ok := row.key(v, row.node.kids["pem"]); ok {
				k.PEM = key.pem
				own[key.id] = row.node.line
				c.claim(row, "pem", key.id, t.node, "the key")
			}
		}
		p.Keys = append(p.Keys, k)
		row.done()
	}
	return own
}

// claim notes that a publisher has a signer, which nobody else may have.
func (c *policyCheck) claim(t *table, key, signer string, publisher *node, what string) {
	first, ok := c.signers[signer]
	switch {
	case !ok:
		c.signers[signer] = claim{publisher, t.node.line}
	case first.publisher == publisher:
		t.fault(key, what+" stands here twice", lineHint(first.line))
	default:
		t.fault(key, what+" belongs to two publishers", lineHint(first.line))
	}
}

// identities reads [[publisher.identity]].
func (c *policyCheck) identities(t *table, p *Publisher) {
	for _, row := range t.list("identity") {
		c.needsRoot("an identity")
		row.need("issuer")
		i := Identity{
			Issuer: row.text("issuer", isLine(2048)),
			SAN:    row.text("san", isLine(2048)),
			CA:     row.texts("ca", isHash()),
			TSA:    row.texts("tsa", isHash()),
			Log:    row.texts("log", isHash()),
		}
		i.SANRegexp, _ = row.regex("san_regexp")
		if row.has("san") == row.has("san_regexp") {
			row.fault("san", "want exactly one of san and san_regexp", "")
		}
		if i.Issuer != "" && i.SAN+i.SANRegexp != "" {
			c.claim(row, "issuer", strings.Join([]string{"identity", i.Issuer, i.SAN, i.SANRegexp}, "\x00"), t.node, "the identity")
		}
		p.Identities = append(p.Identities, i)
		row.done()
	}
}

// sequences reads [[publisher.sequence]].
func sequences(t *table) []SequenceEpoch {
	var out []SequenceEpoch
	lines := map[string]int{}
	for _, row := range t.list("sequence") {
		row.need("name", "epoch")
		s := SequenceEpoch{Name: row.text("name", isName()), Epoch: row.integer("epoch", 0, 1, maxInt)}
		if line, ok := lines[s.Name]; ok && s.Name != "" {
			row.fault("name", s.Name+" stands here twice", lineHint(line))
		}
		lines[s.Name] = row.node.line
		out = append(out, s)
		row.done()
	}
	return out
}

func (c *policyCheck) needsRoot(what string) {
	if c.outside == "" {
		c.outside = what
	}
}

// require reads [publisher.require].
func (c *policyCheck) require(t *table, own map[string]int, identities []Identity) Require {
	s := t.sub("require")
	if s == nil {
		return Require{}
	}
	defer s.done()
	const most = 16
	r := Require{
		TLog:       int(s.integer("tlog", 0, 0, most)),
		Timestamps: int(s.integer("timestamps", 0, 0, most)),
		SCT:        int(s.integer("sct", 0, 0, most)),
		Audience:   s.boolean("audience", false),
	}
	if r.TLog+r.Timestamps+r.SCT > 0 {
		c.needsRoot("a log entry, timestamp or SCT")
	}
	if r.SCT > 0 && len(identities) == 0 {
		s.fault("sct", "is for certificates, and the publisher has no identity", "only a certificate can have an SCT")
	}
	types := map[string]int{}
	for _, row := range s.list("attestation") {
		a := c.requiredAttestation(row, own, identities)
		if line, ok := types[a.PredicateType]; ok && a.PredicateType != "" {
			row.fault("predicate_type", show(a.PredicateType)+" is required twice", lineHint(line))
		}
		types[a.PredicateType] = row.node.line
		r.Attestations = append(r.Attestations, a)
	}
	return r
}

func (c *policyCheck) requiredAttestation(t *table, own map[string]int, identities []Identity) RequiredAttestation {
	defer t.done()
	t.need("predicate_type")
	attesters := c.attesters(t, identities)
	if len(attesters) == 0 {
		t.need("keys")
	}
	keys, _ := t.pubkeys("keys")
	for _, k := range keys {
		if line, ok := own[k.id]; ok {
			t.fault("keys", "the publisher's own key cannot attest to its bundles", lineHint(line))
		}
	}
	a := RequiredAttestation{
		PredicateType: t.text("predicate_type", isLine(2048)),
		Keys:          pems(keys),
		Identities:    attesters,
		Builder:       t.text("builder", isLine(2048)),
	}
	if is := strings.HasPrefix(a.PredicateType, provenance); is && !t.has("builder") {
		t.fault("builder", "is missing", "provenance counts only from a builder that is named")
	} else if !is && a.PredicateType != "" && t.has("builder") {
		t.fault("builder", "belongs to provenance only", "its predicate_type begins with "+provenance)
	}
	return a
}

// attesters reads [[publisher.require.attestation.identity]]. Their SAN is exact,
// so that it can be compared with the identities of the publisher.
func (c *policyCheck) attesters(t *table, own []Identity) []Identity {
	var out []Identity
	for _, row := range t.list("identity") {
		c.needsRoot("an identity")
		row.need("issuer", "san")
		i := Identity{
			Issuer: row.text("issuer", isLine(2048)),
			SAN:    row.text("san", isLine(2048)),
			CA:     row.texts("ca", isHash()),
			TSA:    row.texts("tsa", isHash()),
			Log:    row.texts("log", isHash()),
		}
		for _, o := range own {
			if o.Names(i.Issuer, i.SAN) {
				row.fault("san", "the publisher's own identity cannot attest to its bundles", "")
				break
			}
		}
		out = append(out, i)
		row.done()
	}
	return out
}

// allow reads [publisher.allow].
func allow(t *table) Allow {
	s := t.sub("allow")
	if s == nil {
		return Allow{Network: "none"}
	}
	defer s.done()
	a := Allow{
		Network:      s.choice("network", "none", "loopback"),
		HostRead:     s.texts("host_read", isHostPath()),
		Interpreters: s.texts("interpreters", isHostPath()),
		Limits:       s.limits("limits"),
	}
	for _, row := range s.list("secret") {
		row.need("name", "tenants", "dags", "plugins")
		g := SecretGrant{
			Name:    row.text("name", isName()),
			Tenants: row.texts("tenants", isName()),
			DAGs:    row.texts("dags", rule{validGrant, "a dag_id, or publisher/dag_id"}),
			Plugins: row.texts("plugins", isName()),
		}
		for _, key := range []string{"tenants", "dags", "plugins"} {
			if list, ok := row.values[key].([]any); ok && len(list) == 0 {
				row.fault(key, "is empty", "the grant would be to nobody")
			}
		}
		a.Secrets = append(a.Secrets, g)
		row.done()
	}
	return a
}

func validGrant(s string) bool {
	publisher, id, ok := strings.Cut(s, "/")
	if !ok {
		return ValidName(s)
	}
	return ValidName(publisher) && ValidName(id)
}

// A prefix is one of names, with its publisher and where it stands.
type prefix struct {
	text      string
	publisher *node
	at        *node
}

// overlaps reports prefixes of different publishers of which one begins with
// the other: a bundle's name would then belong to both.
func overlaps(r *report, all []prefix) {
	slices.SortStableFunc(all, func(a, b prefix) int { return strings.Compare(a.text, b.text) })
	all = slices.CompactFunc(all, func(a, b prefix) bool { return a.text == b.text && a.publisher == b.publisher })
	var above []prefix // those that the current one begins with, the shortest first
	for _, p := range all {
		for len(above) > 0 && !strings.HasPrefix(p.text, above[len(above)-1].text) {
			above = above[:len(above)-1]
		}
		for _, q := range slices.Backward(above) {
			if q.publisher != p.publisher {
				a, b := q, p
				if a.at.line > b.at.line {
					a, b = b, a
				}
				r.add(b.at.line, b.at.path(), fmt.Sprintf("%s overlaps with %s of another publisher", show(b.text), show(a.text)), lineHint(a.at.line))
				break
			}
		}
		above = append(above, p)
	}
}
