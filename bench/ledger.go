package main

import (
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/store"
)

// Benchmarks of the ledger.

// An appender adds entries of about the length of those of runs, which only record.
type appender struct {
	*lab
	db   *store.DB
	data ledger.WorkspaceRemoval
}

// appendCallers is how many add entries at the same time. Half of them wait for a commit to
// begin while the other half wait for one to end: about 100 are committed together.
const appendCallers = 200

// newAppender makes a site of its own with so many entries.
func newAppender(dir string, entries int) (*appender, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := newLab(dir)
	if err != nil {
		return nil, err
	}
	a := &appender{lab: l}
	for range 10 {
		a.data.Runs = append(a.data.Runs, runID())
	}
	if a.db, err = store.Open(l.home, store.Options{}); err != nil {
		return nil, err
	}
	return a, a.add(512, entries-int(a.db.Size()))
}

func (a *appender) add(callers, n int) error {
	return spread(callers, n, func(int) error { return a.one() })
}

func (a *appender) one() error {
	_, err := a.db.RecordWorkspaces(actor, &a.data)
	return err
}

// bytes is the length of an entry: its two lines.
func (a *appender) bytes() int {
	l, err := a.db.Entry(a.db.Size() - 1)
	if err != nil {
		return 0
	}
	return len(l.Envelope) + len(l.Data)
}

// benchAppend compares appending to a ledger of many entries with appending to one of 10,000.
func benchAppend(entries int) func(*env) (work, error) {
	return func(e *env) (work, error) {
		const n = 5000
		many, err := newAppender(filepath.Join(e.dir, "many"), entries)
		if err != nil {
			return work{}, err
		}
		few, err := newAppender(filepath.Join(e.dir, "few"), 10_000)
		if err != nil {
			return work{}, errors.Join(err, many.db.Close())
		}
		e.note("%d entries of %d bytes each time, by %d callers", n, many.bytes(), appendCallers)
		return work{
			ours:   func() error { return many.add(appendCallers, n) },
			theirs: func() error { return few.add(appendCallers, n) },
			close:  func() error { return errors.Join(many.db.Close(), few.db.Close()) },
		}, nil
	}
}

// benchMerkle compares appending entries with writing as many bytes to bbolt, by as many
// callers who wait, in groups likewise.
func benchMerkle(e *env) (work, error) {
	const n = 10_000
	a, err := newAppender(filepath.Join(e.dir, "site"), 1000)
	if err != nil {
		return work{}, err
	}
	peer, err := newGrouped(filepath.Join(e.dir, "peer.db"))
	if err != nil {
		return work{}, errors.Join(err, a.db.Close())
	}
	value := make([]byte, a.bytes())
	return work{
		ours:   func() error { return a.add(appendCallers, n) },
		theirs: func() error { return spread(appendCallers, n, func(int) error { return peer.put(1, value) }) },
		close:  func() error { return errors.Join(a.db.Close(), peer.close()) },
	}, nil
}

// benchLedgerVerify hashes a ledger again, on one core, against SHA-256 of the same lines.
func benchLedgerVerify(flags ...string) func(*env) (work, error) {
	return func(e *env) (work, error) {
		l, err := newLab(e.dir)
		if err != nil {
			return work{}, err
		}
		if err := errors.Join(l.oneStep(e.dir, []byte("#!/bin/true\n")), l.fill(100_000)); err != nil {
			return work{}, err
		}
		db, err := store.Open(l.home, store.Options{})
		if err != nil {
			return work{}, err
		}
		var lines [][]byte
		total := 0
		for x, err := range db.Entries(0, db.Size()) {
			if err != nil {
				return work{}, errors.Join(err, db.Close())
			}
			lines = append(lines, x.Envelope, x.Data)
			total += len(x.Envelope) + len(x.Data)
		}
		e.note("%d entries, %d MiB of lines", db.Size(), total>>20)
		args := append([]string{"--home", l.home, "ledger", "verify"}, flags...)
		return work{
			ours: func() error {
				cmd := exec.Command(e.stella, args...)
				cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
				return quiet(cmd)
			},
			theirs: func() error {
				for _, line := range lines {
					sha256.Sum256(line)
				}
				return nil
			},
		}, db.Close()
	}
}
