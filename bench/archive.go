package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// Benchmarks of archives and snapshots.

// filled is a site in a folder of its own with the entries of runs, about so many.
func filled(dir string, entries int) (*lab, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := newLab(dir)
	if err != nil {
		return nil, err
	}
	return l, errors.Join(l.oneStep(dir, []byte("#!/bin/true\n")), l.fill(entries/entriesOfRun))
}

// idle opens a site in which nothing is executed.
func (l *lab) idle() (*engine.Engine, error) {
	return engine.Open(context.Background(), engine.Options{Home: l.home, Mode: engine.ModeForeground, Version: "0.0.0"})
}

// exported writes the archive of a window; ends that are empty are those of the ledger.
func exported(x *engine.Engine, path, from, to string) error {
	_, err := siteOf(x).CreateExport(context.Background(), api.ExportRequest{Path: path, From: from, To: to, Force: true}, nil)
	return err
}

// middle is the window of n entries in the middle of a ledger.
func (l *lab) middle(n int64) (from, to string, err error) {
	db, err := store.Open(l.home, store.Options{})
	if err != nil {
		return "", "", err
	}
	at := func(seq int64) string {
		line, lerr := db.Entry(seq)
		env, eerr := ledger.ParseEnvelope(line.Envelope)
		err = errors.Join(err, lerr, eerr)
		return env.Time
	}
	first := db.Size()/2 - n/2
	from, to = at(first), at(first+n)
	return from, to, errors.Join(err, db.Close())
}

// benchWindow exports 10,000 entries out of a million, against as many out of 100,000.
func benchWindow(e *env) (work, error) {
	var w work
	for name, side := range map[string]struct {
		entries int
		do      *func() error
	}{"many": {1_000_000, &w.ours}, "few": {100_000, &w.theirs}} {
		l, err := filled(filepath.Join(e.dir, name), side.entries)
		if err != nil {
			return w, err
		}
		from, to, err := l.middle(10_000)
		if err != nil {
			return w, err
		}
		x, err := l.idle()
		if err != nil {
			return w, err
		}
		*side.do = func() error { return exported(x, filepath.Join(e.dir, name+".tar"), from, to) }
		w.close = joined(w.close, x.Close)
	}
	return w, nil
}

func joined(fs ...func() error) func() error {
	return func() (err error) {
		for _, f := range fs {
			if f != nil {
				err = errors.Join(err, f())
			}
		}
		return err
	}
}

// benchExport exports 100,000 entries with all that belongs to them, against compressing
// what is compressed in the archive.
func benchExport(e *env) (work, error) {
	l, err := filled(filepath.Join(e.dir, "one"), 100_000)
	if err != nil {
		return work{}, err
	}
	from, to, err := l.middle(90_000)
	if err != nil {
		return work{}, err
	}
	x, err := l.idle()
	if err != nil {
		return work{}, err
	}
	path := filepath.Join(e.dir, "a.tar")
	if err := exported(x, path, from, to); err != nil {
		return work{}, errors.Join(err, x.Close())
	}
	raw, err := unpacked(path)
	if err != nil {
		return work{}, errors.Join(err, x.Close())
	}
	return work{
		ours: func() error {
			begun := time.Now()
			err := exported(x, path, from, to)
			e.notes = []string{fmt.Sprintf("%d MiB, %.0f MiB/s in the last round", len(raw)>>20, float64(len(raw)>>20)/time.Since(begun).Seconds())}
			return err
		},
		theirs: func() error {
			w, err := zstd.NewWriter(io.Discard, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
			if err != nil {
				return err
			}
			_, err = w.Write(raw)
			return errors.Join(err, w.Close())
		},
		close: x.Close,
	}, nil
}

// unpacked is what the compressed members of an archive hold.
func unpacked(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out bytes.Buffer
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		if !strings.HasSuffix(h.Name, ".zst") {
			continue
		}
		z, err := zstd.NewReader(t)
		if err != nil {
			return nil, err
		}
		_, err = out.ReadFrom(z)
		z.Close()
		if err != nil {
			return nil, err
		}
	}
}

// benchAppendBeside compares the 99th percentile of appending while archives are written one
// after the other with that while nothing else is done.
func benchAppendBeside(e *env) (work, error) {
	l, err := filled(filepath.Join(e.dir, "one"), 200_000)
	if err != nil {
		return work{}, err
	}
	from, to, err := l.middle(150_000)
	if err != nil {
		return work{}, err
	}
	x, err := l.open(null{}, 2)
	if err != nil {
		return work{}, err
	}
	p99 := func(until func() bool) (time.Duration, error) {
		s, ctx := siteOf(x.Engine), context.Background()
		var took []float64
		for len(took) < 2000 || len(took)%2 > 0 || !until() {
			change := s.PauseQueue
			if len(took)%2 > 0 {
				change = s.ResumeQueue
			}
			begun := time.Now()
			if _, err := change(ctx, api.QueueRequest{Reason: "measured"}); err != nil {
				return 0, err
			}
			took = append(took, time.Since(begun).Seconds())
		}
		e.note("%d appends: p50 %s, p99 %s, most %s", len(took), ms(quantile(took, .5)), ms(quantile(took, .99)), ms(quantile(took, 1)))
		return time.Duration(quantile(took, .99) * float64(time.Second)), nil
	}
	return work{
		measured: func() (ours, theirs time.Duration, err error) {
			e.notes = nil
			done := make(chan error, 1)
			go func() { done <- exported(x.Engine, filepath.Join(e.dir, "a.tar"), from, to) }()
			var failed error
			ended := func() bool {
				select {
				case failed = <-done:
					return true
				default:
					return false
				}
			}
			if ours, err = p99(ended); err != nil || failed != nil {
				return 0, 0, errors.Join(err, failed)
			}
			theirs, err = p99(func() bool { return true })
			return ours, theirs, err
		},
		close: x.close,
	}, nil
}

// benchSnapshot makes a snapshot of a site of 1 GiB, against copying and syncing its files.
func benchSnapshot(e *env) (work, error) {
	l, err := filled(filepath.Join(e.dir, "one"), 300_000)
	if err != nil {
		return work{}, err
	}
	x, err := l.idle()
	if err != nil {
		return work{}, err
	}
	for i := range 4 {
		content := make([]byte, 160<<20)
		rand.Read(content)
		path, err := l.data(e.dir, fmt.Sprintf("bench-%d", i), content)
		if err == nil {
			_, err = siteOf(x).ImportBundle(context.Background(), api.ImportRequest{Path: path}, nil)
		}
		if err = errors.Join(err, os.Remove(path)); err != nil {
			return work{}, errors.Join(err, x.Close())
		}
	}
	to, copied := filepath.Join(e.dir, "snapshots"), filepath.Join(e.dir, "copy")
	clean := func() error {
		removeAll(to)
		removeAll(copied)
		return os.MkdirAll(to, 0o755)
	}
	return work{
		before: clean,
		ours: func() error {
			s, err := siteOf(x).CreateSnapshot(context.Background(), api.SnapshotRequest{Dir: to}, nil)
			e.notes = []string{fmt.Sprintf("%d files, %d MiB", s.Files, s.Bytes>>20)}
			return err
		},
		theirs: func() error { return copyTree(l.home, copied) },
		close:  x.Close,
	}, clean()
}

// copyTree copies and syncs what a snapshot has of a home, one file after the other.
func copyTree(from, to string) error {
	for _, name := range []string{"ledger.db", "site.toml", "checkpoint.note", "trust", "secrets", "sealed", "logs"} {
		err := filepath.WalkDir(filepath.Join(from, name), func(p string, d fs.DirEntry, err error) error {
			rel, rerr := filepath.Rel(from, p)
			if err != nil || rerr != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return errors.Join(err, rerr)
			}
			if d.IsDir() {
				return os.MkdirAll(filepath.Join(to, rel), 0o755)
			}
			return copySynced(p, filepath.Join(to, rel))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func copySynced(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
