package manifests

import "time"

// ParseRoot reads root.toml. Its error is [Faults].
func ParseRoot(file string, raw []byte) (*Root, error) {
	r := &report{file: file}
	t := open(r, raw, RootSchema, MaxBytes)
	if t == nil {
		return nil, r.err()
	}
	t.need("version", "fleet_id", "issued", "expires", "roles")
	root := &Root{
		Version: t.integer("version", 0, 1, maxInt),
		FleetID: t.text("fleet_id", isSiteID()),
		Issued:  t.instant("issued"),
		Expires: t.instant("expires"),
		Roles:   map[string]Role{},
	}
	t.after("expires", root.Expires, "issued", root.Issued)
	if roles := t.sub("roles"); roles != nil {
		names := []string{"root", "policy", "revocation"}
		roles.need(names...)
		for _, name := range append(names, breakGlass) {
			if s := roles.sub(name); s != nil {
				root.Roles[name] = role(s)
			}
		}
		roles.done()
	}
	root.MaxExtension = t.duration("max_extension", 0, maxExtension)
	if _, ok := root.Roles[breakGlass]; ok != t.has("max_extension") {
		t.fault("max_extension", "stands without its other half", "max_extension and [roles.break_glass] come together")
	}
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return root, nil
}

// breakGlass is the role that may extend what has expired, for maxExtension at
// most.
const (
	breakGlass   = "break_glass"
	maxExtension = 366 * 24 * time.Hour
)

// ParseExtension reads extension.toml. Its error is [Faults].
func ParseExtension(file string, raw []byte) (*Extension, error) {
	r := &report{file: file}
	t := open(r, raw, ExtensionSchema, MaxBytes)
	if t == nil {
		return nil, r.err()
	}
	t.need("site_id", "serial", "root", "policy", "issued", "until", "reason")
	x := &Extension{
		SiteID:      t.text("site_id", isSiteID()),
		Serial:      t.integer("serial", 0, 1, maxInt),
		Root:        t.text("root", isHash()),
		Policy:      t.text("policy", isHash()),
		Revocations: t.text("revocations", isHash()),
		Issued:      t.instant("issued"),
		Until:       t.instant("until"),
		Reason:      t.text("reason", isProse()),
	}
	t.after("until", x.Until, "issued", x.Issued)
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return x, nil
}

func role(t *table) Role {
	defer t.done()
	t.need("threshold", "keys")
	keys, wrong := t.pubkeys("keys")
	return Role{Threshold: t.threshold(len(keys)+wrong, "keys"), Keys: pems(keys)}
}

// threshold reads how many of those who may sign must sign.
func (t *table) threshold(signers int, what string) int {
	n := int(t.integer("threshold", 0, 1, maxItems))
	if signers > 0 && n > signers {
		t.faultf("threshold", "%d of %d %s can never sign", n, signers, what)
	}
	return n
}

// ParseRevocations reads revocations.toml. Its error is [Faults].
func ParseRevocations(file string, raw []byte) (*Revocations, error) {
	r := &report{file: file}
	t := open(r, raw, RevocationsSchema, MaxBytes)
	if t == nil {
		return nil, r.err()
	}
	revs := &Revocations{}
	revs.Serial, revs.RootVersion, revs.Issued, revs.NextUpdate = trustHead(t)
	first := map[Revocation]int{}
	for _, row := range t.list("revoke") {
		v := revocation(row)
		what := Revocation{Key: v.Key, Manifest: v.Manifest, Blob: v.Blob, Issuer: v.Issuer, SAN: v.SAN}
		if line, ok := first[what]; ok && what != (Revocation{}) {
			t.add(row.node.line, row.node.path(), "revokes what is revoked already", lineHint(line))
		} else {
			first[what] = row.node.line
		}
		revs.Revoked = append(revs.Revoked, v)
	}
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return revs, nil
}

// trustHead reads what policy and revocations begin with.
func trustHead(t *table) (serial, rootVersion int64, issued, nextUpdate time.Time) {
	t.need("serial", "root_version", "issued", "next_update")
	issued, nextUpdate = t.instant("issued"), t.instant("next_update")
	t.after("next_update", nextUpdate, "issued", issued)
	return t.integer("serial", 0, 1, maxInt), t.integer("root_version", 0, 1, maxInt), issued, nextUpdate
}

func revocation(t *table) Revocation {
	defer t.done()
	v := Revocation{
		Key:      t.text("key", isHash()),
		Manifest: t.text("manifest", isHash()),
		Blob:     t.text("blob", isHash()),
		Issuer:   t.text("issuer", isLine(2048)),
		SAN:      t.text("san", isLine(2048)),
		From:     t.instant("from"),
		Reason:   t.text("reason", isProse()),
	}
	names := 0
	for _, key := range []string{"key", "manifest", "blob"} {
		if t.has(key) {
			names++
		}
	}
	if t.has("issuer") || t.has("san") {
		names++
		if !t.has("issuer") || !t.has("san") {
			t.add(t.node.line, t.node.path(), "names half an identity", "issuer and san stand together")
		}
	}
	if names != 1 {
		t.add(t.node.line, t.node.path(), "must name exactly one thing", "want key, manifest, blob, or issuer with san")
	}
	return v
}
