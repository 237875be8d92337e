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
	path, manifest, signature, key string // files
	raw                            []byte // the bundle
	head                           *bundle.Head
}

func newSigned(e *env, l *lab) (*signed, error) {
	path, err := l.data(e.dir, "bench-small", []byte("content"))
	if err != nil {
		return nil, err
	}
	s := &signed{path: path, manifest: filepath.Join(e.dir, "m"), signature: filepath.Join(e.dir, "s"), key: filepath.Join(e.dir, "k")}
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
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	s, err := newSigned(e, l)
	if err != nil {
		return work{}, err
	}
	t, err := engine.LoadTrust(l.home)
	if err != nil {
		return work{}, err
	}
	peer, err := keyflow.New(l.pub)
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
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	s, err := newSigned(e, l)
	if err != nil {
		return work{}, err
	}
	minimal := filepath.Join(e.dir, "minverify")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", minimal, "./bench/minverify")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := quiet(build); err != nil {
		return work{}, err
	}
	return work{
		ours:   func() error { return quiet(exec.Command(e.stella, "--home", l.home, "bundle", "verify", s.path)) },
		theirs: func() error { return quiet(exec.Command(minimal, s.key, s.signature, s.manifest)) },
	}, nil
}
