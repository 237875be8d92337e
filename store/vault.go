package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"filippo.io/age"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
)

// MaxSecret bounds the value of a secret, in bytes.
const MaxSecret = 64 << 10

const (
	secretSchema  = "stella.secret/1"
	secretPadding = 1 << 10       // a payload is a multiple of it, so that files do not tell lengths
	maxSecretFile = 2 * MaxSecret // of a file, with its head and age's own bytes
)

// ErrSecretFile says that the file of a secret is not there, or not the one that the ledger names.
var ErrSecretFile = errors.New("its file is not what it was")

// A Vault holds the values of secrets: one file for each version, encrypted to
// the site's own age key, in secrets/TENANT/NAME/VERSION.age of the home. Which
// files count, and with which bytes, is in the ledger. Its methods may be called
// from any goroutine.
type Vault struct {
	db  *DB
	dir string
	key *age.X25519Identity
	mu  sync.Mutex // one change at a time: its file is written outside of the transaction
}

// OpenVault opens the vault of a site with the private key of keys/age.key.
func (db *DB) OpenVault(key []byte) (*Vault, error) {
	id, err := parseAgeKey(key)
	if err != nil {
		return nil, err
	}
	return &Vault{db: db, dir: filepath.Join(db.home, "secrets"), key: id}, nil
}

// AgeRecipient is the public key, as age writes it, of the private one of keys/age.key.
func AgeRecipient(key []byte) (string, error) {
	id, err := parseAgeKey(key)
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), nil
}

func parseAgeKey(key []byte) (*age.X25519Identity, error) {
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(key)))
	if err != nil {
		return nil, errors.New("store: age key: it is not one that age reads") // not err: it may quote the key
	}
	return id, nil
}

// secretHead is the first line of a payload: what the value belongs to, so that
// no file can take the place of another.
type secretHead struct {
	Schema  string `json:"schema"`
	SiteID  string `json:"siteId"`
	Tenant  string `json:"tenant"`
	Name    string `json:"name"`
	Version int64  `json:"version"`
	Size    int    `json:"size"` // of the value; zero bytes follow it
}

func (v *Vault) path(tenant, name string, version int64) string {
	return secretPath(v.db.home, tenant, name, version)
}

func secretPath(home, tenant, name string, version int64) string {
	return filepath.Join(home, "secrets", tenant, name, strconv.FormatInt(version, 10)+".age")
}

// checkSecrets hashes the encrypted files of all secrets.
func (db *DB) checkSecrets() error {
	recs, err := db.Secrets("")
	if err != nil {
		return err
	}
	for _, rec := range recs {
		for _, x := range rec.Versions {
			raw, err := fsx.ReadFile(secretPath(db.home, rec.Tenant, rec.Name, x.Version), maxSecretFile)
			if sum := sha256.Sum256(raw); err == nil && hex.EncodeToString(sum[:]) != x.File {
				err = ErrDigest
			}
			if err == nil {
				continue
			}
			now, nerr := db.Secret(rec.Tenant, rec.Name)
			if nerr == nil && !slices.ContainsFunc(now.Versions, func(y SecretVersion) bool { return y.Version == x.Version }) {
				continue // it was removed meanwhile
			}
			return secretDamaged(err, rec.Tenant, rec.Name, x.Version)
		}
	}
	return nil
}

// write encrypts a value and puts it in its place, and returns the SHA-256 of
// the file.
func (v *Vault) write(tenant, name string, version int64, value []byte) (string, error) {
	head, err := jcs.Marshal(secretHead{secretSchema, v.db.site.SiteID, tenant, name, version, len(value)})
	if err != nil {
		return "", err
	}
	n := len(head) + 1 + len(value)
	payload := make([]byte, (n+secretPadding-1)/secretPadding*secretPadding)
	defer clear(payload)
	copy(payload[copy(payload, head):], "\n")
	copy(payload[len(head)+1:], value)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, v.key.Recipient())
	if err != nil {
		return "", fmt.Errorf("store: secret: %w", err)
	}
	if _, err := w.Write(payload); err != nil {
		return "", fmt.Errorf("store: secret: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("store: secret: %w", err)
	}
	path := v.path(tenant, name, version)
	for _, dir := range []string{v.dir, filepath.Dir(filepath.Dir(path)), filepath.Dir(path)} {
		if err := fsx.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	if err := fsx.WriteFile(path, out.Bytes(), 0o600); err != nil {
		return "", err
	}
	sum := sha256.Sum256(out.Bytes())
	return hex.EncodeToString(sum[:]), nil
}

// read decrypts the file of a version, which must be the one that the ledger
// names. Errors are *[Damage], of [ErrSecretFile] where it is not.
func (v *Vault) read(tenant, name string, version int64, file string) ([]byte, error) {
	raw, err := fsx.ReadFile(v.path(tenant, name, version), maxSecretFile)
	if sum := sha256.Sum256(raw); err == nil && hex.EncodeToString(sum[:]) != file {
		err = ErrDigest
	}
	if err != nil {
		return nil, secretDamaged(err, tenant, name, version)
	}
	value, err := v.open(secretHead{secretSchema, v.db.site.SiteID, tenant, name, version, 0}, raw)
	if err != nil {
		return nil, damaged(err, "secret %s, version %d", name, version)
	}
	return value, nil
}

func secretDamaged(err error, tenant, name string, version int64) error {
	return damaged(fmt.Errorf("%w: %w", ErrSecretFile, err), "version %d of the secret %s of tenant %s", version, name, tenant)
}

func (v *Vault) open(want secretHead, raw []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(raw), v.key)
	if err != nil {
		return nil, errors.New("it is not encrypted to this site's key")
	}
	payload, err := io.ReadAll(r)
	if err != nil {
		return nil, errors.New("it cannot be decrypted")
	}
	defer clear(payload)
	line, rest, ok := bytes.Cut(payload, []byte{'\n'})
	var head secretHead
	if !ok || json.Unmarshal(line, &head) != nil {
		return nil, errors.New("it does not say what it is")
	}
	size := head.Size
	if head.Size = 0; head != want {
		return nil, errors.New("it belongs to another site, tenant, secret or version")
	}
	if size < 0 || size > len(rest) || size > MaxSecret {
		return nil, errors.New("it is cut")
	}
	return bytes.Clone(rest[:size]), nil
}

// remove overwrites the file of a version and removes it. On file systems that
// write elsewhere what is overwritten, only the encryption protects what was.
func (v *Vault) remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := errors.Join(fsx.OverwriteFile(path), os.Remove(path)); err != nil {
		return fmt.Errorf("store: secret: %w", err)
	}
	dir := filepath.Dir(path)
	os.Remove(dir) // only where nothing is left in it
	os.Remove(filepath.Dir(dir))
	return nil
}

// Sweep removes files that no entry names: their entry was not written before a
// crash, or it says that they are no more.
func (v *Vault) Sweep() error {
	files, err := filepath.Glob(filepath.Join(v.dir, "*", "*", "*"))
	if err != nil || len(files) == 0 {
		return err
	}
	recs, err := v.db.Secrets("")
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, rec := range recs {
		for _, x := range rec.Versions {
			named[v.path(rec.Tenant, rec.Name, x.Version)] = true
		}
	}
	for _, path := range files {
		if !named[path] {
			err = errors.Join(err, v.remove(path))
		}
	}
	return err
}
