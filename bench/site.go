package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

const actor = "system:bench"

// lab is a site with one publisher whose key is at hand.
type lab struct {
	home string
	key  *ecdsa.PrivateKey
	pub  []byte
}

func newLab(dir string) (*lab, error) {
	l := &lab{home: filepath.Join(dir, "site")}
	var err error
	if l.key, err = verify.GenerateKey(); err != nil {
		return nil, err
	}
	if l.pub, err = verify.MarshalPublicKey(&l.key.PublicKey); err != nil {
		return nil, err
	}
	return l, l.renew()
}

// renew replaces the site by an empty one that believes the same publisher.
func (l *lab) renew() error {
	removeAll(l.home)
	if _, err := engine.Init(l.home, engine.InitOptions{AllowPlain: true}); err != nil {
		return err
	}
	return l.with(nil, func(e *engine.Engine) error {
		_, err := siteOf(e).AddTrust(context.Background(), api.TrustAddition{
			Publisher: "acme", Key: string(l.pub), Names: []string{"bench"}, Kinds: []string{"plugin", "dag", "data"},
		})
		return err
	})
}

// with opens the site for f; with an executor it executes.
func (l *lab) with(x runner.Executor, f func(*engine.Engine) error) error {
	e, err := engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeForeground, Executes: x != nil, Executor: x, Version: "0.0.0",
	})
	if err != nil {
		return err
	}
	defer e.Close()
	return f(e)
}

func siteOf(e *engine.Engine) api.Site { return e.As(api.Principal{Name: actor}) }

// bundle packs and signs a folder of files.
func (l *lab) bundle(dir, name string, files map[string][]byte) (string, error) {
	src := filepath.Join(dir, "src-"+name)
	for path, raw := range files {
		to := filepath.Join(src, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(to, raw, mode); err != nil {
			return "", err
		}
	}
	unsigned := filepath.Join(dir, name+".unsigned")
	w, err := os.Create(unsigned)
	if err != nil {
		return "", err
	}
	defer w.Close()
	packed, err := bundle.Pack(src, w, bundle.PackOptions{})
	if err != nil {
		return "", err
	}
	sig, err := verify.SignManifest(packed.Raw, l.key)
	if err != nil {
		return "", err
	}
	if _, err := w.Seek(0, 0); err != nil {
		return "", err
	}
	r, err := os.Open(unsigned)
	if err != nil {
		return "", err
	}
	defer r.Close()
	out := filepath.Join(dir, name+".stella")
	f, err := os.Create(out)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := bundle.Attach(f, r, []bundle.Attached{sig}, nil); err != nil {
		return "", err
	}
	return out, nil
}

func manifest(kind, name, version, rest string) []byte {
	return fmt.Appendf(nil, "schema = \"stella.bundle/1\"\nkind = %q\npublisher = \"acme\"\nname = %q\nversion = %q\n"+
		"sequence = 1\ncreated = \"2026-11-22T00:00:00.000000000Z\"\n%s", kind, name, version, rest)
}

// oneStep imports and publishes a DAG of one step that runs program.
func (l *lab) oneStep(dir string, program []byte) error {
	plugin, err := l.bundle(dir, "bench-true", map[string][]byte{
		"stella.toml": manifest("plugin", "bench-true", "1.0.0", "[plugin]\nruntime = \"exec\"\n[plugin.entry]\n"+
			"\"linux/amd64\" = \"bin/true\"\n\"linux/arm64\" = \"bin/true\"\n[plugin.actions.run]\nidempotent = true\n"),
		"bin/true": program,
	})
	if err != nil {
		return err
	}
	dag, err := l.bundle(dir, "bench", map[string][]byte{
		"stella.toml": manifest("dag", "bench", "1.0.0", "[dag]\nspec = \"dag.toml\"\n"),
		"dag.toml": []byte("schema = \"stella.dag/1\"\ndag_id = \"bench\"\nversion = \"1.0.0\"\n[[step]]\nid = \"a\"\n" +
			"plugin = \"acme/bench-true@1.0.0\"\naction = \"run\"\n"),
	})
	if err != nil {
		return err
	}
	return l.with(nil, func(e *engine.Engine) error {
		for _, path := range []string{plugin, dag} {
			if _, err := siteOf(e).ImportBundle(context.Background(), api.ImportRequest{Path: path}, nil); err != nil {
				return err
			}
		}
		_, err := siteOf(e).PublishDAG(context.Background(), "acme/bench@1.0.0")
		return err
	})
}

// noise is bytes that compress about as well as machine code does.
func noise(n int) []byte {
	words := bytes.Fields([]byte("the sealed bundle of a site without network holds what was verified and signed by a publisher"))
	out := make([]byte, 0, n+32)
	x := uint64(88172645463325252)
	for len(out) < n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if x%3 == 0 {
			out = append(out, byte(x>>8), byte(x>>16), byte(x>>24), byte(x>>32))
			continue
		}
		out = append(out, words[x%uint64(len(words))]...)
	}
	return out[:n]
}
