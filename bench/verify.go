package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/bench/minverify/keyflow"
	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/verify"
)

// signed is a small bundle and its parts, in memory and on disk.
type signed struct {
	lab                            *lab
	path, manifest, signature, key string // files
	raw                            []byte // the bundle
	head                           *bundle.Head
}

// newSigned makes a bundle in a lab of its own.
func newSigned(e *env) (*signed, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return nil, err
	}
	path, err := l.data(e.dir, "bench-small", []byte("content"))
	if err != nil {
		return nil, err
	}
	s := &signed{lab: l, path: path, manifest: filepath.Join(e.dir, "m"), signature: filepath.Join(e.dir, "s"), key: filepath.Join(e.dir, "k")}
	if s.raw, err = os.ReadFile(path); err != nil {
		return nil, err
	}
	if s.head, err = bundle.NewReader(bytes.NewReader(s.raw), bundle.Limits{}).Head(); err != nil {
		return nil, err
	}
	for name, raw := range map[string][]byte{s.manifest: s.head.Manifest, s.signature: s.head.Signatures[0].Data, s.key: l.pub} {
		if err := os.WriteFile(name, raw, 0o644); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func benchVerify(e *env) (work, error) {
	const rounds = 50
	s, err := newSigned(e)
	if err != nil {
		return work{}, err
	}
	t, err := engine.LoadTrust(s.lab.home)
	if err != nil {
		return work{}, err
	}
	peer, err := keyflow.New(s.lab.pub)
	if err != nil {
		return work{}, err
	}
	spool, err := os.CreateTemp(e.dir, "spool")
	if err != nil {
		return work{}, err
	}
	return work{
		ours: func() error {
			for range rounds {
				if _, err := verify.Check(bytes.NewReader(s.raw), t, verify.Options{Now: time.Now(), Spool: spool}, nil); err != nil {
					return err
				}
			}
			return nil
		},
		theirs: func() error {
			for range rounds {
				if err := peer.Verify(s.head.Signatures[0].Data, s.head.Manifest); err != nil {
					return err
				}
			}
			return nil
		},
	}, nil
}

func benchVerifyProcess(e *env) (work, error) {
	s, err := newSigned(e)
	if err != nil {
		return work{}, err
	}
	minimal, err := buildMinimal(e.dir)
	if err != nil {
		return work{}, err
	}
	return work{
		ours:   func() error { return quiet(exec.Command(e.stella, "--home", s.lab.home, "bundle", "verify", s.path)) },
		theirs: func() error { return quiet(exec.Command(minimal, s.key, s.signature, s.manifest)) },
	}, nil
}

// buildMinimal builds minverify as stella is built.
func buildMinimal(dir string) (string, error) {
	out := filepath.Join(dir, "minverify")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./bench/minverify")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return out, quiet(build)
}

// blobVerify is stella verify of a signature by a key, without a log.
func (s *signed) blobVerify(e *env) func() error {
	return func() error {
		return quiet(exec.Command(e.stella, "verify", s.manifest, "--bundle", s.signature, "--key", s.key, "--no-log"))
	}
}

func benchBlob(e *env) (work, error) {
	s, err := newSigned(e)
	if err != nil {
		return work{}, err
	}
	minimal, err := buildMinimal(e.dir)
	if err != nil {
		return work{}, err
	}
	e.note("limit of the ratio: 1.4")
	return work{
		ours:   s.blobVerify(e),
		theirs: func() error { return quiet(exec.Command(minimal, s.key, s.signature, s.manifest)) },
	}, nil
}

func benchBlobCosign(e *env) (work, error) {
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		home, herr := os.UserHomeDir()
		if herr != nil {
			return work{}, herr
		}
		if cosign, err = exec.LookPath(filepath.Join(home, "go", "bin", "cosign")); err != nil {
			return work{}, skipped("cosign is not installed")
		}
	}
	s, err := newSigned(e)
	if err != nil {
		return work{}, err
	}
	root := filepath.Join(e.dir, "empty.json")
	if err := quiet(exec.Command(cosign, "trusted-root", "create", "--out", root)); err != nil {
		return work{}, err
	}
	e.note("limit of the ratio: 0.33")
	return work{
		ours: s.blobVerify(e),
		theirs: func() error {
			return quiet(exec.Command(cosign, "verify-blob", "--key", s.key, "--bundle", s.signature, "--trusted-root", root, "--insecure-ignore-tlog", s.manifest))
		},
	}, nil
}
