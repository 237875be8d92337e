package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

const (
	manyBundles = 2000
	window      = 256 // bundles at either end that are compared; a multiple of what is admitted together
	hugeSize    = 1 << 30
)

// benchImportMany imports a folder of small bundles into an empty site.
func benchImportMany(e *env) (work, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	folder := filepath.Join(e.dir, "stick")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return work{}, err
	}
	for i := range manyBundles {
		name := fmt.Sprintf("bench-%04d", i)
		path, err := l.data(e.dir, name, fmt.Appendf(nil, "content of bundle %d\n", i))
		if err != nil {
			return work{}, err
		}
		if err := os.Rename(path, filepath.Join(folder, name+".stella")); err != nil {
			return work{}, err
		}
	}
	return work{
		before: l.renew,
		ours: func() error {
			return l.with(nil, func(x *engine.Engine) error { return importTimed(e, x, folder) })
		},
		theirs: func() error { return bareImports(l.home, folder, filepath.Join(e.dir, "copies")) },
	}, nil
}

// importTimed imports a folder and notes whether the last bundles took longer
// than the first.
func importTimed(e *env, x *engine.Engine, folder string) error {
	var at []time.Duration
	begun := time.Now()
	rep, err := siteOf(x).ImportMedia(context.Background(), api.MediaRequest{Paths: []string{folder}}, func(m api.MediaEvent) {
		if m.Item != nil {
			at = append(at, time.Since(begun))
		} else if len(at) == 0 && m.File == 1 && m.Done == 0 {
			begun = time.Now() // the heads have been looked at
		}
	})
	if err != nil {
		return err
	}
	if rep.Admitted != manyBundles {
		return fmt.Errorf("%d of %d bundles were admitted", rep.Admitted, manyBundles)
	}
	first := at[window-1].Seconds() / window
	last := (at[len(at)-1] - at[len(at)-1-window]).Seconds() / window
	e.notes = []string{fmt.Sprintf("per bundle: first %d %s, last %d %s, ratio %.2f (aim: at most 1.3)", window, ms(first), window, ms(last), last/first)}
	return nil
}

// bareImports is the least that an import of many could do: judge each file,
// and write and sync a copy of it.
func bareImports(home, folder, to string) error {
	t, err := engine.LoadTrust(home)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(to)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	spool, err := os.CreateTemp(to, "spool")
	if err != nil {
		return err
	}
	defer spool.Close()
	for _, x := range entries {
		if err := bareImport(t, filepath.Join(folder, x.Name()), filepath.Join(to, x.Name()), spool); err != nil {
			return err
		}
	}
	return nil
}

func bareImport(t *verify.Trust, from, to string, spool *os.File) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := verify.Check(in, t, verify.Options{Now: time.Now(), Spool: spool}, nil); err != nil {
		return err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

// benchImportHuge imports one bundle of 1 GiB.
func benchImportHuge(e *env) (work, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	content := noise(hugeSize)
	path, err := l.data(e.dir, "bench-1024", content)
	if err != nil {
		return work{}, err
	}
	stored := filepath.Join(e.dir, "content.zst")
	if err := compress(stored, content); err != nil {
		return work{}, err
	}
	if err := l.renew(); err != nil {
		return work{}, err
	}
	peak, err := anonPeak(e.stella, "--home", l.home, "bundle", "import", path)
	if err != nil {
		return work{}, err
	}
	e.note("peak anonymous memory while importing 1 GiB: %.1f MiB (aim: at most 64)", float64(peak)/1024)
	return work{
		before: l.renew,
		ours: func() error {
			return l.with(nil, func(x *engine.Engine) error {
				_, err := siteOf(x).ImportBundle(context.Background(), api.ImportRequest{Path: path}, nil)
				return err
			})
		},
		theirs: func() error { return bareCopy(stored, filepath.Join(e.dir, "copy")) },
	}, nil
}
