package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/ledger"
)

// Bounds of what one tenant keeps.
const (
	maxSecrets        = 1000
	maxSecretVersions = 100 // of one secret, at a time
)

// Errors about secrets that callers branch on.
var (
	ErrSecretTaken     = errors.New("store: there is a secret of this name")
	ErrTooManySecrets  = fmt.Errorf("store: a tenant has at most %d secrets", maxSecrets)
	ErrTooManyVersions = fmt.Errorf("store: a secret has at most %d versions", maxSecretVersions)
)

// SecretRecord is the projection of a secret. It stays when all versions are
// gone, so that no version number means two values.
type SecretRecord struct {
	Tenant   string          `json:"tenant"`
	Name     string          `json:"name"`
	Last     int64           `json:"last"`               // the highest version there ever was
	Versions []SecretVersion `json:"versions,omitempty"` // that are here, oldest first
	LastUsed *SecretUsage    `json:"lastUsed,omitempty"`
}

// SecretVersion is one version of a secret.
type SecretVersion struct {
	Version int64    `json:"version"`
	File    string   `json:"file"` // SHA-256 of the encrypted file
	Set     Switched `json:"set"`
	Uses    int64    `json:"uses,omitempty"` // attempts that were given it
}

// SecretUsage is an attempt that was given a secret.
type SecretUsage struct {
	Version int64  `json:"version"`
	RunID   string `json:"runId"`
	StepID  string `json:"stepId"`
	Attempt int    `json:"attempt"`
	DAGID   string `json:"dagId"`
	DAG     string `json:"dagVersion"`
	Time    string `json:"time"`
}

// Newest is the version that attempts are given.
func (r *SecretRecord) Newest() (SecretVersion, bool) {
	if len(r.Versions) == 0 {
		return SecretVersion{}, false
	}
	return r.Versions[len(r.Versions)-1], true
}

// Add makes the next version of a secret: the first with rotate false, which is
// [ErrSecretTaken] while there is one, a further one with rotate true.
func (v *Vault) Add(actor, tenant, name string, value []byte, rotate bool, reason string) (SecretRecord, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rec, err := v.db.Secret(tenant, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return rec, err
	}
	t := ledger.SecretSet
	switch {
	case !rotate && len(rec.Versions) > 0:
		return rec, fmt.Errorf("secret %q: %w", name, ErrSecretTaken)
	case rotate && len(rec.Versions) == 0:
		return rec, fmt.Errorf("secret %q: %w", name, ErrNotFound)
	case len(rec.Versions) >= maxSecretVersions:
		return rec, ErrTooManyVersions
	case rotate:
		t = ledger.SecretRotated
	}
	d := &ledger.SecretChange{Name: name, Version: rec.Last + 1, Reason: reason}
	if d.File, err = v.write(tenant, name, d.Version, value); err != nil {
		return rec, err
	}
	err = v.db.update(func(tx *Tx) error {
		if rec.Last == 0 && countPrefix(tx.bolt, bSecrets, pair(tenant, "")) >= maxSecrets {
			return ErrTooManySecrets
		}
		_, err := tx.append(secretEntry(t, actor, tenant, d))
		return err
	})
	if err != nil {
		// Unless it is on disk after all: then the file stays, and the next open
		// finds out.
		if !errors.Is(err, ErrFailed) {
			err = errors.Join(err, v.remove(v.path(tenant, name, d.Version)))
		}
		return rec, err
	}
	return v.db.Secret(tenant, name)
}

// Remove removes versions of a secret, all that are here where none is named.
// It returns the record as it is then, and the versions.
func (v *Vault) Remove(actor, tenant, name string, versions []int64, reason string) (SecretRecord, []int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rec, err := v.db.Secret(tenant, name)
	if err != nil {
		return rec, nil, err
	}
	var doomed []SecretVersion
	for _, x := range rec.Versions {
		if len(versions) == 0 || slices.Contains(versions, x.Version) {
			doomed = append(doomed, x)
		}
	}
	for _, n := range versions {
		if !slices.ContainsFunc(doomed, func(x SecretVersion) bool { return x.Version == n }) {
			return rec, nil, fmt.Errorf("version %d of secret %q: %w", n, name, ErrNotFound)
		}
	}
	if len(doomed) == 0 {
		return rec, nil, fmt.Errorf("secret %q: %w", name, ErrNotFound)
	}
	err = v.db.update(func(tx *Tx) error {
		for _, x := range doomed {
			if _, err := tx.append(secretEntry(ledger.SecretRemoved, actor, tenant,
				&ledger.SecretRemoval{Name: name, Version: x.Version, File: x.File, Reason: reason})); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return rec, nil, err
	}
	var gone []int64
	for _, x := range doomed {
		gone = append(gone, x.Version)
		err = errors.Join(err, v.remove(v.path(tenant, name, x.Version)))
	}
	if err != nil {
		return rec, gone, err
	}
	rec, err = v.db.Secret(tenant, name)
	return rec, gone, err
}

// Take reads the newest version of a secret: [ErrNotFound] where there is none.
func (v *Vault) Take(tenant, name string) (version int64, value []byte, err error) {
	v.mu.Lock() // not while its file is being removed
	defer v.mu.Unlock()
	rec, err := v.db.Secret(tenant, name)
	if err != nil {
		return 0, nil, err
	}
	x, ok := rec.Newest()
	if !ok {
		return 0, nil, fmt.Errorf("secret %q: %w", name, ErrNotFound)
	}
	value, err = v.read(tenant, name, x.Version, x.File)
	return x.Version, value, err
}

// Secret reads the record of one secret.
func (db *DB) Secret(tenant, name string) (SecretRecord, error) {
	var rec SecretRecord
	err := db.view(func(t *bolt.Tx) error {
		err := getJSON(t, bSecrets, pair(tenant, name), &rec)
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("secret %q: %w", name, ErrNotFound)
		}
		return err
	})
	return rec, err
}

// Secrets reads the records of a tenant, or of all when it is "", by tenant and
// name.
func (db *DB) Secrets(tenant string) ([]SecretRecord, error) {
	var prefix []byte
	if tenant != "" {
		prefix = pair(tenant, "")
	}
	var out []SecretRecord
	err := scan(db, bSecrets, prefix, func(t *bolt.Tx, k, _ []byte) error {
		var rec SecretRecord
		if err := getJSON(t, bSecrets, k, &rec); err != nil {
			return err
		}
		out = append(out, rec)
		return nil
	})
	return out, err
}

// SecretUses reads the attempts that were given a secret, oldest first.
func (db *DB) SecretUses(tenant, name string, visit func(SecretUsage)) error {
	return scan(db, bSecretUses, append(pair(tenant, name), 0), func(t *bolt.Tx, k, _ []byte) error {
		var u SecretUsage
		if err := getJSON(t, bSecretUses, k, &u); err != nil {
			return err
		}
		visit(u)
		return nil
	})
}

// InUse says what a tenant can see that has this text as its id, name or digest,
// "" where nothing has. Such ids stand in envelopes, which are never masked: a
// secret must not be one.
func (db *DB) InUse(tenant, text string) (string, error) {
	if text == db.site.SiteID {
		return "the site", nil
	}
	what := ""
	err := db.view(func(t *bolt.Tx) error {
		what = inUse(t, tenant, text)
		return nil
	})
	if err == nil && what == "" && len(text) == 64 && !strings.ContainsAny(text, "/.\x00") {
		if f, ferr := db.blobs.openFile(text); ferr == nil {
			f.Close()
			what = "a sealed file"
		}
	}
	return what, err
}

func inUse(t *bolt.Tx, tenant, text string) string {
	for _, x := range []struct {
		bucket []byte
		key    []byte
		what   string
	}{
		{bRecords, []byte(text), "a run"}, {bBundles, []byte(text), "a bundle"}, {bRefs, []byte(text), "a bundle"}, {bSmall, []byte(text), "a sealed file"},
		{bTokens, pair(tenant, text), "a run token"}, {bArtifacts, pair(tenant, text), "an artifact"}, {bCache, []byte(text), "a key of the cache"},
	} {
		if t.Bucket(x.bucket).Get(x.key) != nil {
			return x.what
		}
	}
	if countPrefix(t, bTenantRuns, pair(text, "")) > 0 {
		return "a tenant"
	}
	for _, x := range []struct {
		bucket []byte
		what   string
	}{
		{bDAGs, "a DAG or its version"}, {bFloors, "a publisher or a bundle"}, {bSchedules, "a schedule"}, {bLocks, "a lock"}, {bSecrets, "a tenant or a secret"},
	} {
		if hasPart(t, x.bucket, text) {
			return x.what
		}
	}
	return ""
}

// hasPart says whether a key of the bucket has text between its zero bytes.
func hasPart(t *bolt.Tx, bucket []byte, text string) bool {
	c := t.Bucket(bucket).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		for part := range bytes.SplitSeq(k, []byte{0}) {
			if string(part) == text {
				return true
			}
		}
	}
	return false
}

func countPrefix(t *bolt.Tx, bucket, prefix []byte) int {
	n := 0
	c := t.Bucket(bucket).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	return n
}

func secretEntry(t ledger.Type, actor, tenant string, data any) entry {
	return entry{ledger.Envelope{Type: t, Actor: actor, V: 1, Tenant: tenant}, data}
}

func (tx *Tx) projectSecret(env ledger.Envelope, data any) error {
	var rec SecretRecord
	switch d := data.(type) {
	case *ledger.SecretChange:
		rec = SecretRecord{Tenant: env.Tenant, Name: d.Name}
		if err := getJSON(tx.bolt, bSecrets, pair(env.Tenant, d.Name), &rec); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if d.Version != rec.Last+1 {
			return fmt.Errorf("secret %q: version %d follows %d", d.Name, d.Version, rec.Last)
		}
		rec.Last = d.Version
		rec.Versions = append(rec.Versions, SecretVersion{Version: d.Version, File: d.File, Set: *switchedBy(env, d.Reason)})
	case *ledger.SecretRemoval:
		if err := getJSON(tx.bolt, bSecrets, pair(env.Tenant, d.Name), &rec); err != nil {
			return fmt.Errorf("secret %q: %w", d.Name, err)
		}
		n := len(rec.Versions)
		rec.Versions = slices.DeleteFunc(rec.Versions, func(x SecretVersion) bool { return x.Version == d.Version && x.File == d.File })
		if len(rec.Versions) == n {
			return fmt.Errorf("secret %q: version %d: %w", d.Name, d.Version, ErrNotFound)
		}
	}
	return tx.putJSON(bSecrets, pair(env.Tenant, rec.Name), rec)
}

// projectSecretUses notes which versions an attempt is given. A version that was
// removed in the moment before has no count any more.
func (tx *Tx) projectSecretUses(env ledger.Envelope, uses []ledger.SecretUse) error {
	for _, use := range uses {
		var rec SecretRecord
		if err := getJSON(tx.bolt, bSecrets, pair(env.Tenant, use.Name), &rec); err != nil {
			return fmt.Errorf("secret %q: %w", use.Name, err)
		}
		rec.LastUsed = &SecretUsage{
			Version: use.Version, RunID: env.RunID, StepID: env.StepID, Attempt: env.Attempt, DAGID: env.DAGID, DAG: env.DAGVersion, Time: env.Time,
		}
		for i := range rec.Versions {
			if rec.Versions[i].Version == use.Version {
				rec.Versions[i].Uses++
			}
		}
		key := append(append(pair(env.Tenant, use.Name), 0), be64(env.Seq)...)
		if err := errors.Join(tx.putJSON(bSecrets, pair(env.Tenant, use.Name), rec), tx.putJSON(bSecretUses, key, rec.LastUsed)); err != nil {
			return err
		}
	}
	return nil
}
