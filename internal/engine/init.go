package engine

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// How long the trust files that a site makes for itself are valid.
const (
	rootYears   = 10
	policyYears = 1
)

// InitOptions of a new site.
type InitOptions struct {
	RootFile   string // a fleet's root.toml, with its signatures and policy beside it; "" makes a root
	ExpectRoot string // SHA-256 of its bytes; required with RootFile
	AllowPlain bool   // site.toml allows attempts without fences
	Actor      string // who makes it; "" means uid:N of this process
	Now        func() time.Time
	SiteID     string // 32 hex digits, for tests that judge bundles made for one site; "" draws one
}

// InitResult is what a new site is known by.
type InitResult struct {
	Home    string            `json:"home"`
	SiteID  string            `json:"siteId"`
	FleetID string            `json:"fleetId"`
	Root    string            `json:"root"` // SHA-256 of root.toml
	Policy  string            `json:"policy"`
	Keys    map[string]string `json:"keys"`              // purpose → base64 SPKI
	RootKey string            `json:"rootKey,omitempty"` // where the root's private key lies

	Warnings []string `json:"warnings,omitempty"` // what is about to end of the trust, or has ended
}

// Init makes a site: keys, trust, genesis entry and first checkpoint. A home
// that holds anything is refused. Where there is no home, it builds the site
// beside it and renames it; into an empty folder, which may be a mount point,
// it moves the finished parts, ledger.db last. A failure leaves the home as it
// was.
func Init(home string, opt InitOptions) (InitResult, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Actor == "" {
		opt.Actor = fmt.Sprintf("uid:%d", os.Getuid())
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return InitResult{}, internal(err)
	}
	create := initBeside
	if _, err := os.Stat(home); err == nil {
		create = initInside
	}
	res, err := create(home, opt)
	if err != nil {
		return InitResult{}, initError(home, err)
	}
	res.Home = home
	if res.RootKey != "" {
		res.RootKey = filepath.Join(home, "keys", rootKey)
	}
	return res, nil
}

// initBeside makes a site where nothing is.
func initBeside(home string, opt InitOptions) (InitResult, error) {
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return InitResult{}, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(home), ".stella-init-")
	if err != nil {
		return InitResult{}, err
	}
	defer removeSite(tmp)
	res, err := build(tmp, opt)
	if err != nil {
		return res, err
	}
	return res, fsx.Rename(tmp, home)
}

// initInside makes a site in an empty folder.
func initInside(home string, opt InitOptions) (res InitResult, err error) {
	if err := emptyHome(home, ""); err != nil {
		return res, err
	}
	before, err := os.Stat(home)
	if err != nil {
		return res, err
	}
	if owner := before.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return res, &api.Error{Code: api.CodeNotWritable, Message: fmt.Sprintf("%s belongs to user %d", home, owner),
			Hint: "make the site as that user: nobody else could use it"}
	}
	tmp := filepath.Join(home, workName)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return res, err
	}
	defer removeSite(tmp)
	if err := emptyHome(home, workName); err != nil {
		return res, err // another init was faster
	}
	if err := os.Chmod(home, 0o700); err != nil {
		return res, err
	}
	defer func() {
		if err != nil {
			os.Chmod(home, before.Mode().Perm())
		}
	}()
	if res, err = build(tmp, opt); err != nil {
		return res, err
	}
	return res, moveIn(tmp, home)
}

// workName is where a site is built inside its home.
const workName = ".stella-init"

// moveIn moves everything from tmp into home, ledger.db last, which makes the
// folder a site. On an error it removes what it moved.
func moveIn(tmp, home string) (err error) {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	names := []string{}
	for _, e := range entries {
		if e.Name() != ledgerName {
			names = append(names, e.Name())
		}
	}
	var moved []string
	defer func() {
		if err != nil {
			for _, name := range moved {
				removeSite(filepath.Join(home, name))
			}
		}
	}()
	for _, name := range append(names, ledgerName) {
		if name == ledgerName {
			if err := fsx.SyncDir(home); err != nil {
				return err
			}
		}
		if err := os.Rename(filepath.Join(tmp, name), filepath.Join(home, name)); err != nil {
			return err
		}
		moved = append(moved, name)
	}
	return fsx.SyncDir(home)
}

const ledgerName = "ledger.db"

// removeSite removes a folder with the read-only folders in it.
func removeSite(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}

// initError says what to do about a failure.
func initError(home string, err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, syscall.EROFS):
		return &api.Error{Code: api.CodeNotWritable, Message: fmt.Sprintf("no site can be made in %s: %v", home, err),
			Hint: "mount the file system read-write, or choose another --home"}
	case errors.Is(err, fs.ErrPermission):
		return &api.Error{Code: api.CodeNotWritable, Message: fmt.Sprintf("no site can be made in %s: %v", home, err),
			Hint: fmt.Sprintf("make the folder first, empty and owned by user %d: install -d -m 0700 -o %d %s", os.Geteuid(), os.Geteuid(), home)}
	case errors.Is(err, fs.ErrExist):
		return &api.Error{Code: api.CodeSiteExists, Message: home + " is not empty: " + err.Error(), Hint: "another init was faster"}
	case errors.Is(err, syscall.ENOTDIR):
		return invalid("no site can be made in %s: %v", home, err)
	}
	return spaceError(err)
}

// emptyHome refuses a folder that holds anything but ours, and what a new file
// system has.
func emptyHome(home, ours string) error {
	entries, err := os.ReadDir(home)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == ours && ours != "" || e.Name() == "lost+found" && e.IsDir() {
			continue
		}
		hint := "choose another --home; a site is never made over something else"
		if e.Name() == workName {
			hint = "another init is under way; if it was killed, remove what it left (chmod -R u+w first): that is no site"
		}
		return &api.Error{Code: api.CodeSiteExists, Message: home + " is not empty", Hint: hint}
	}
	return nil
}

// build makes a site in the empty folder dir.
func build(dir string, opt InitOptions) (InitResult, error) {
	for _, d := range []struct {
		name string
		perm os.FileMode
	}{
		{"keys", 0o700}, {"trust", 0o755}, {"sealed", 0o755}, {"sealed/sha256", 0o755}, {"logs", 0o700}, {"runs", 0o700},
		{"quarantine", 0o700}, {"trash", 0o700}, {"cache", 0o700}, {"snapshots", 0o700}, {"archives", 0o755},
	} {
		if err := fsx.Mkdir(filepath.Join(dir, d.name), d.perm); err != nil {
			return InitResult{}, err
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return InitResult{}, err
	}
	config := manifests.EncodeSite(&manifests.Site{AllowPlain: opt.AllowPlain})
	if err := fsx.WriteFile(filepath.Join(dir, "site.toml"), config, 0o644); err != nil {
		return InitResult{}, err
	}
	pub, err := newKeys(filepath.Join(dir, "keys"), opt.RootFile == "")
	if err != nil {
		return InitResult{}, err
	}
	files, err := initialTrust(dir, opt)
	if err != nil {
		return InitResult{}, err
	}
	t, err := verify.Load(files)
	if err != nil {
		return InitResult{}, invalid("%v", err)
	}
	if err := writeTrust(filepath.Join(dir, "trust"), files); err != nil {
		return InitResult{}, err
	}
	if opt.SiteID == "" {
		var id [16]byte
		rand.Read(id[:])
		opt.SiteID = hex.EncodeToString(id[:])
	}
	res := InitResult{SiteID: opt.SiteID, FleetID: t.Root().FleetID, Root: bundle.Digest(files.Roots[0].Raw), Policy: t.Ref().Policy, Keys: pub}
	res.Warnings = t.Warnings(opt.Now(), manifests.DefaultTrustWarning)
	if opt.RootFile == "" {
		res.RootKey = rootKey
	}
	return res, genesis(dir, res, t, files, opt)
}

// genesis writes the first entries and the first checkpoint.
func genesis(dir string, res InitResult, t *verify.Trust, files verify.Files, opt InitOptions) error {
	change := t.Change("init")
	db, err := store.Create(dir, ledger.SiteInit{
		SiteID: res.SiteID, Keys: res.Keys, Root: res.Root, Policy: res.Policy,
	}, change, opt.Actor, store.Options{Now: opt.Now})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := sealTrust(db.Blobs(), files); err != nil {
		return err
	}
	k, err := readKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	_, _, _, err = db.IssueCheckpoint(func(c ledger.Checkpoint) ([]byte, error) { return ledger.SignCheckpoint(c, k.log) })
	return err
}

// initialTrust takes a fleet's trust files, or makes those of a site that is
// its own root.
func initialTrust(dir string, opt InitOptions) (verify.Files, error) {
	if opt.RootFile == "" {
		return ownTrust(filepath.Join(dir, "keys", rootKey), opt.Now())
	}
	raw, err := fsx.ReadFile(opt.RootFile, maxTrustFile)
	if err != nil {
		return verify.Files{}, readError(opt.RootFile, err)
	}
	want := strings.TrimPrefix(opt.ExpectRoot, "sha256:")
	if got := bundle.Digest(raw); got != want {
		return verify.Files{}, &api.Error{Code: api.CodeTrustChanged,
			Message: fmt.Sprintf("%s has the SHA-256 %s, --expect-root says %s", opt.RootFile, got, want),
			Hint:    "get the digest of the fleet's root by another way than the file"}
	}
	root, err := readRoleFile(opt.RootFile)
	if err != nil {
		return verify.Files{}, readError(opt.RootFile, err)
	}
	policy, err := readRoleFile(filepath.Join(filepath.Dir(opt.RootFile), "policy.toml"))
	if err != nil {
		return verify.Files{}, readError("policy.toml", err)
	}
	f := verify.Files{Roots: []verify.RoleFile{root}, Policy: policy}
	f.Revocations, err = readRoleFile(filepath.Join(filepath.Dir(opt.RootFile), "revocations.toml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return verify.Files{}, readError("revocations.toml", err)
	}
	f.TrustedRoot, err = fsx.ReadFile(filepath.Join(filepath.Dir(opt.RootFile), "trusted_root.json"), maxTrustFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return verify.Files{}, readError("trusted_root.json", err)
	}
	return f, nil
}

// ownTrust makes a root whose one key holds all roles, and a policy that
// believes nobody yet.
func ownTrust(keyFile string, now time.Time) (verify.Files, error) {
	key, err := readPrivateKey(keyFile)
	if err != nil {
		return verify.Files{}, err
	}
	pub, err := verify.MarshalPublicKey(&key.PublicKey)
	if err != nil {
		return verify.Files{}, err
	}
	var fleet [16]byte
	rand.Read(fleet[:])
	role := manifests.Role{Threshold: 1, Keys: []string{string(pub)}}
	rootRaw := manifests.EncodeRoot(&manifests.Root{
		Version: 1, FleetID: hex.EncodeToString(fleet[:]), Issued: now, Expires: now.AddDate(rootYears, 0, 0),
		Roles: map[string]manifests.Role{verify.RoleRoot: role, verify.RolePolicy: role, verify.RoleRevocation: role},
	})
	policyRaw := manifests.EncodePolicy(&manifests.Policy{
		Serial: 1, RootVersion: 1, Issued: now, NextUpdate: now.AddDate(policyYears, 0, 0),
	})
	var f verify.Files
	for _, x := range []struct {
		raw []byte
		put func(verify.RoleFile)
	}{
		{rootRaw, func(r verify.RoleFile) { f.Roots = []verify.RoleFile{r} }},
		{policyRaw, func(r verify.RoleFile) { f.Policy = r }},
	} {
		sig, err := verify.SignManifest(x.raw, key)
		if err != nil {
			return f, err
		}
		x.put(verify.RoleFile{Raw: x.raw, Signatures: []bundle.Attached{sig}})
	}
	return f, nil
}
