package export_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

var every = flag.Bool("every", false, "flip every byte, not a sample")

// region says which check is meant to find a change of the byte at an offset.
func region(t *testing.T, archive []byte) func(at int) string {
	t.Helper()
	names := make([]string, len(archive))
	for i := range names {
		names[i] = "form"
	}
	src := bytes.NewReader(archive)
	for r := tar.NewReader(src); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		at := len(archive) - src.Len()
		check := "sums"
		if strings.HasPrefix(h.Name, "SHA256SUMS") {
			check = "signature"
		}
		for i := range int(h.Size) {
			names[at+i] = check
		}
	}
	return func(at int) string { return names[at] }
}

func TestEveryFlippedByteIsFoundByTheCheckThatIsMeantTo(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(13, 15))
	meant := region(t, archive)
	path := filepath.Join(t.TempDir(), "a.tar")
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	stride := 151
	if *every {
		stride = 1
	}
	for at := random.IntN(stride); at < len(archive); at += stride {
		changed := bytes.Clone(archive)
		changed[at] ^= byte(1 + random.IntN(255))
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := export.Verify(context.Background(), path, s.auditor())
		if err != nil {
			t.Fatalf("byte %d (seed %d): %v", at, seed, err)
		}
		if got := failed(r); r.Verdict != export.Failed || len(got) == 0 || got[0] != meant(at) {
			t.Errorf("byte %d became %#x (seed %d): failed %v, want %s first\n%s", at, changed[at], seed, got, meant(at), explain(r))
		}
		if !*every || at%100 == 0 { // the other implementation is another process
			agree(t, path, s.auditor(), r)
		}
	}
}

func TestEveryCutIsFound(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(13, 15))
	for n := 0; n < len(archive); n += 509 {
		if got := failed(check(t, archive[:n], s.auditor())); len(got) != 1 || got[0] != "form" {
			t.Errorf("cut to %d bytes: failed %v, want form", n, got)
		}
	}
	if got := failed(check(t, append(bytes.Clone(archive), 0), s.auditor())); len(got) != 1 || got[0] != "form" {
		t.Errorf("a byte more: failed %v, want form", got)
	}
}

func TestKeysComeFromOutside(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(0, 20))
	otherLog := publicPEM(t, ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	otherSite := publicPEM(t, &p256(t, 12).PublicKey)
	for name, tc := range map[string]struct {
		edit    func(o *export.VerifyOptions)
		verdict export.Verdict
		failed  []string
	}{
		"both":              {func(*export.VerifyOptions) {}, export.Verified, nil},
		"none":              {func(o *export.VerifyOptions) { o.LogKey, o.SiteKey = nil, nil }, export.Unauthenticated, nil},
		"only the log's":    {func(o *export.VerifyOptions) { o.SiteKey = nil }, export.Unauthenticated, nil},
		"only the site's":   {func(o *export.VerifyOptions) { o.LogKey = nil }, export.Unauthenticated, nil},
		"another log's":     {func(o *export.VerifyOptions) { o.LogKey = otherLog }, export.Unauthenticated, []string{"keys", "checkpoint", "genesis"}},
		"another site's":    {func(o *export.VerifyOptions) { o.SiteKey = otherSite }, export.Unauthenticated, []string{"signature", "keys", "genesis"}},
		"another's both":    {func(o *export.VerifyOptions) { o.LogKey, o.SiteKey = otherLog, otherSite }, export.Unauthenticated, []string{"signature", "keys", "checkpoint", "genesis"}},
		"another site":      {func(o *export.VerifyOptions) { o.SiteID = strings.Repeat("0", 32) }, export.Failed, []string{"manifest"}},
		"any site":          {func(o *export.VerifyOptions) { o.SiteID = "" }, export.Verified, nil},
		"too many withheld": {func(o *export.VerifyOptions) { o.Withheld = 1 }, export.Incomplete, nil},
		"too large":         {func(o *export.VerifyOptions) { o.MaxBytes = 1000 }, export.Failed, []string{"form"}},
		"too much content":  {func(o *export.VerifyOptions) { o.MaxUncompressed = 1000 }, export.Failed, []string{"content"}},
	} {
		t.Run(name, func(t *testing.T) {
			opt := s.auditor()
			tc.edit(&opt)
			r := check(t, archive, opt)
			if diff := cmp.Diff(tc.failed, failed(r)); r.Verdict != tc.verdict || diff != "" {
				t.Errorf("%s, want %s; failed checks (-want +got):\n%s%s", r.Verdict, tc.verdict, diff, explain(r))
			}
		})
	}
	for name, opt := range map[string]export.VerifyOptions{
		"no PEM": {LogKey: []byte("x")}, "a P-256 key for the log": {LogKey: otherSite}, "an Ed25519 key for the site": {SiteKey: otherLog},
		"two keys in a file": {SiteKey: append(bytes.Clone(otherSite), otherSite...)},
	} {
		if _, err := export.Verify(context.Background(), "nowhere", opt); !errors.Is(err, export.ErrKey) {
			t.Errorf("%s: %v, want %v", name, err, export.ErrKey)
		}
	}
}

// A forger who has no key of the site signs with his own, and puts that in.
func TestAForgersOwnKeysAreNotBelieved(t *testing.T) {
	s := busySite(t)
	forger := busySite(t)
	forger.logKey, forger.siteKey = ed25519.NewKeyFromSeed(make([]byte, 32)), p256(t, 12)
	forger.notes, forger.sizes = nil, nil
	forger.checkpoint()
	archive := forger.archive(window(4, 20))
	if r := check(t, archive, forger.auditor()); r.Verdict != export.Verified {
		t.Fatalf("the forger is not able: %s", explain(r))
	}
	if got := failed(check(t, archive, s.auditor())); len(got) == 0 || got[0] != "signature" {
		t.Errorf("failed %v, want signature", got)
	}
	opt := s.auditor()
	opt.SiteKey = nil
	if got := failed(check(t, archive, opt)); !cmp.Equal(got, []string{"keys", "checkpoint"}) {
		t.Errorf("with the log's key alone: failed %v", got)
	}
	opt.LogKey = nil
	if r := check(t, archive, opt); r.Verdict != export.Unauthenticated {
		t.Errorf("without keys: %s", r.Verdict)
	}
}

// Whose keys are not those of the archive still learns that it is damaged.
func TestOtherKeysDoNotExcuseDamage(t *testing.T) {
	s := busySite(t)
	original := s.archive(window(0, 20))
	otherLog := publicPEM(t, ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	otherSite := publicPEM(t, &p256(t, 12).PublicKey)
	opt := s.auditor()
	opt.LogKey, opt.SiteKey = otherLog, otherSite
	for name, tc := range map[string]struct {
		forge func(k *kit)
		want  export.Verdict
	}{
		"nothing":                     {func(*kit) {}, export.Unauthenticated},
		"a span is another":           {func(k *kit) { k.replace("telemetry/traces.jsonl.zst", `"attempt"`, `"attempX"`) }, export.Failed},
		"a log key that signed none":  {func(k *kit) { k.files["keys/log.pub"] = otherLog }, export.Failed},
		"a site key that signed none": {func(k *kit) { k.files["keys/site.pub"] = otherSite }, export.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			k := takeApart(t, s, original)
			tc.forge(k)
			if r := check(t, k.pack(k.assemble()), opt); r.Verdict != tc.want {
				t.Errorf("%s, want %s\n%s", r.Verdict, tc.want, explain(r))
			}
		})
	}
}

// An earlier checkpoint shows that history was not rewritten, wherever it lies.
func TestPreviousCheckpoints(t *testing.T) {
	s := busySite(t)
	var notes [][]byte // of every size
	again := newSite(t)
	for _, e := range s.entries[1:] {
		notes = append(notes, again.checkpoint())
		again.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
	}
	notes = append(notes, again.checkpoint())
	archive := s.archive(window(13, 18)) // its checkpoint has size 21
	proofs := 0
	for i, note := range notes {
		size := int64(i + 1)
		opt := s.auditor()
		opt.Previous = note
		r := check(t, archive, opt)
		if r.Verdict == export.Incomplete {
			proofs++
			opt.Consistency = s.consistency(size, 21)
			r = check(t, archive, opt)
		}
		if r.Verdict != export.Verified {
			t.Errorf("size %d: %s", size, explain(r))
		}
	}
	if proofs == 0 || proofs == len(notes) {
		t.Errorf("%d of %d sizes needed a proof: the test covers one way only", proofs, len(notes))
	}

	// Another history under the same keys: entry 2 never was.
	forked := newSite(t)
	for i, e := range busySite(t).entries[1:] {
		if i == 1 {
			forked.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:stop"}, &ledger.SiteStop{Reason: "x"})
			continue
		}
		forked.append(ledger.Entry{Envelope: e.Envelope, Data: e.Data})
	}
	for size := 1; size <= len(forked.entries); size++ {
		opt := s.auditor()
		root, err := ledger.TreeHash(int64(size), forked)
		if err != nil {
			t.Fatal(err)
		}
		if opt.Previous, err = ledger.SignCheckpoint(ledger.Checkpoint{Origin: s.origin, Size: int64(size), Root: root}, s.logKey); err != nil {
			t.Fatal(err)
		}
		opt.Consistency = s.consistency(int64(size), 21)
		got := failed(check(t, archive, opt))
		if want := size >= 3; (len(got) == 1 && got[0] == "previous") != want {
			t.Errorf("fork of size %d: failed %v", size, got)
		}
	}

	opt := s.auditor()
	opt.Previous = mustSign(t, ledger.Checkpoint{Origin: s.origin, Size: 9}, ed25519.NewKeyFromSeed(make([]byte, 32)))
	if got := failed(check(t, archive, opt)); !cmp.Equal(got, []string{"previous"}) {
		t.Errorf("a note of another key: failed %v, want previous", got)
	}
}

func mustSign(t *testing.T, c ledger.Checkpoint, key ed25519.PrivateKey) []byte {
	t.Helper()
	note, err := ledger.SignCheckpoint(c, key)
	if err != nil {
		t.Fatal(err)
	}
	return note
}

// unpack writes files to a folder.
func unpack(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAnUnpackedArchive(t *testing.T) {
	s := busySite(t)
	files := takeApart(t, s, s.archive(window(4, 20))).assemble()
	for name, tc := range map[string]struct {
		edit func(dir string) error
		want []string
	}{
		"as it was":     {func(string) error { return nil }, nil},
		"a file more":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o644) }, []string{"form"}},
		"a folder more": {func(dir string) error { return os.Mkdir(filepath.Join(dir, "x"), 0o755) }, []string{"form"}},
		"evidence more": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "evidence/sha256", strings.Repeat("0", 64)), nil, 0o644)
		}, []string{"sums", "manifest"}},
		"a file fewer": {func(dir string) error { return os.Remove(filepath.Join(dir, runs)) }, []string{"form"}},
		"a link": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, runs), filepath.Join(dir, "../r")), os.Symlink("../../r", filepath.Join(dir, runs)))
		}, []string{"form"}},
		"a pipe": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, runs)), syscall.Mkfifo(filepath.Join(dir, runs), 0o644))
		}, []string{"form"}},
		"another byte": {func(dir string) error { return os.WriteFile(filepath.Join(dir, runs), []byte("x"), 0o644) }, []string{"sums", "manifest"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "archive")
			if err := os.Rename(unpack(t, files), dir); err != nil {
				t.Fatal(err)
			}
			if err := tc.edit(dir); err != nil {
				t.Fatal(err)
			}
			r, err := export.Verify(context.Background(), dir, s.auditor())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, failed(r)); diff != "" || (tc.want == nil) != (r.Verdict == export.Verified) {
				t.Errorf("failed checks (-want +got):\n%s%s", diff, explain(r))
			}
		})
	}
}

// A medium that gives other bytes at the second reading is no archive that
// could be judged.
func TestAnArchiveThatChangesIsNotJudged(t *testing.T) {
	s := busySite(t)
	path := filepath.Join(t.TempDir(), "a.tar")
	archive := s.archive(window(4, 20))
	at := bytes.LastIndex(archive, []byte(envelopes)) + 512 + 20 // in its content
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	opt := s.auditor()
	opt.Progress = func(check string) {
		if check != "envelopes" {
			return
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte{^archive[at]}, int64(at))
		}
		if err != nil {
			t.Error(err)
		}
		f.Close()
	}
	r, err := export.Verify(context.Background(), path, opt)
	if err == nil && r.Verdict != export.Failed {
		t.Errorf("judged as %s", r.Verdict)
	}
	opt.Progress = func(check string) {
		if check == "envelopes" {
			if err := os.Truncate(path, 2000); err != nil {
				t.Error(err)
			}
		}
	}
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := export.Verify(context.Background(), path, opt); err == nil {
		t.Errorf("cut while it was read: judged as %s", r.Verdict)
	}
}

func TestWhatCannotBeReadIsNotJudged(t *testing.T) {
	s := busySite(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, s.archive(window(4, 20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := export.Verify(ctx, path, s.auditor()); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v, want %v", err, context.Canceled)
	}
	if _, err := export.Verify(context.Background(), path+"x", s.auditor()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Verify = %v, want %v", err, os.ErrNotExist)
	}
}

func TestShow(t *testing.T) {
	s := busySite(t)
	archive := s.archive(window(4, 20))
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := export.Show(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := check(t, archive, s.auditor()).Summary
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Show and Verify see another archive:\n%s", diff)
	}
	if got.Records[runs] != 3 || got.Ledger.Count != 16 || got.Origin != s.origin || got.Evidence == 0 {
		t.Errorf("Show = %+v", got)
	}
	if err := os.WriteFile(path, archive[:5000], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := export.Show(path, nil); err == nil {
		t.Error("half an archive was shown")
	}
}
