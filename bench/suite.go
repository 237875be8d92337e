package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
)

func benchmarks() []benchmark {
	return []benchmark{
		{"verify", "judging a bundle of one small file, its trust loaded", "sigstore-go's own verify of the same signature", 40, benchVerify},
		{"verify-process", "stella bundle verify, whole process", "a minimal sigstore-go program on the same signature", 20, benchVerifyProcess},
		{"verify-blob", "stella verify of a signature by a key, whole process", "a minimal sigstore-go program on the same signature", 20, benchBlob},
		{"verify-cosign", "the same", "cosign verify-blob on the same signature, without a network", 20, benchBlobCosign},
		{"import", "importing 256 MiB, sealed and recorded", "sha256 + zstd + write + fsync of the same bytes", 20, benchImport},
		{"import-many", "importing a folder of 2,000 small bundles", "verify, and copy and sync, of the same files one by one", 3, benchImportMany},
		{"import-1g", "importing 1 GiB, sealed and recorded", "sha256 + zstd + write + fsync of the same bytes (aim: at most 1.4)", 3, benchImportHuge},
		{"starts", "starting 2,048 runs by 64 callers, each durable", "bbolt's Batch (1 ms) of as many entries by 64 callers", 20, benchStarts},
		{"runs-1", "running DAGs of one empty step, one client, each change durable", "bbolt's own grouped commits of as many entries (aim: at least 0.5, so 2.0)", 10, benchRuns(1)},
		{"runs-16", "the same with 16 clients", "the same", 10, benchRuns(16)},
		{"runs-64", "the same with 64 clients", "the same", 10, benchRuns(64)},
		{"run", "stella orch run start of one step, whole process (aim: at most 20 ms)", "fork and exec of the same program", 20, benchRun},
		{"wide", "stella orch run start of 100 independent /bin/true two at a time (aim: 150 ms)", "fork and exec of as many, two at a time", 10, benchMany(false)},
		{"chain", "stella orch run start of a chain of 100 /bin/true (aim: 200 ms)", "fork and exec of as many, one after the other", 10, benchMany(true)},
		{"backlog", "400 queued runs of one process, two workers (aim: 200/s)", "fork and exec of as many, two at a time", 5, benchQueue},
		{"latency", "one run of one process after the other at a daemon", "fork and exec of as many", 3, benchLatency},
		{"scale-4", "running 2,048 runs of one empty step by 16 clients with 10,000 ended runs in the store (aim: at most 1.3)", "the same with 10", 5, benchScale(10_000)},
		{"scale-6", "the same with 1,000,000 ended runs (aim: at most 1.3)", "the same with 10", 5, benchScale(1_000_000)},
		{"scale-6-process", "200 queued runs of one process with 1,000,000 ended runs in the store (aim: at most 1.3)", "the same with 10", 5, benchScaleQueue(1_000_000)},
		{"growth", "a change with 100,000 entries in the ledger, in bytes written", "the same with 100", 1, benchGrowth},
		{"idle", "memory of an idle daemon with 10,000 ended runs", "the same with none", 1, benchIdle},
		{"append-5", "appending to a ledger of 100,000 entries (aim: at most 1.2)", "appending to one of 10,000", 20, benchAppend(100_000)},
		{"append-6", "appending to a ledger of 1,000,000 entries (aim: at most 1.2)", "appending to one of 10,000", 20, benchAppend(1_000_000)},
		{"merkle", "appending entries, about 100 a commit (aim: at most 1.8)", "bbolt's own grouped commits of values as long", 20, benchMerkle},
		{"ledger-verify", "stella ledger verify of 600,000 entries, whole process, one core (aim: at most 2.86)", "SHA-256 of the same lines", 20, benchLedgerVerify()},
		{"ledger-verify-full", "stella ledger verify --full of the same, which also makes every record anew from its entries", "SHA-256 of the same lines", 20, benchLedgerVerify("--full")},
		{"window", "exporting 10,000 entries out of 1,000,000 (aim: at most 1.3)", "exporting 10,000 out of 100,000", 20, benchWindow},
		{"export", "exporting 90,000 entries with all that belongs to them", "compressing what the archive holds", 20, benchExport},
		{"export-append", "p99 of appending during an export (aim: at most 2)", "p99 without one", 20, benchAppendBeside},
		{"snapshot", "a snapshot of a site of 1 GiB", "copying and syncing its files", 20, benchSnapshot},
		{"dag-chain", "a step of a chain of 10,000 empty steps (aim: at most 1.3)", "one of a chain of 100", 3, benchDAG(true)},
		{"dag-fan", "a step of a fan-out of 10,000 empty steps (aim: at most 1.3)", "one of a fan-out of 100", 3, benchDAG(false)},
	}
}

const blobSize = 256 << 20

func benchImport(e *env) (work, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	content := noise(blobSize)
	path, err := l.data(e.dir, "bench-256", content)
	if err != nil {
		return work{}, err
	}
	small, err := l.data(e.dir, "bench-64", content[:blobSize/4])
	if err != nil {
		return work{}, err
	}
	stored := filepath.Join(e.dir, "content.zst")
	if err := compress(stored, content); err != nil {
		return work{}, err
	}
	for _, x := range []struct{ name, path string }{{"64", small}, {"256", path}} {
		if err := l.renew(); err != nil {
			return work{}, err
		}
		peak, err := anonPeak(e.stella, "--home", l.home, "bundle", "import", x.path)
		if err != nil {
			return work{}, err
		}
		e.note("peak anonymous memory while importing %s MiB: %.1f MiB (aim: at most 64, and flat)", x.name, float64(peak)/1024)
	}
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

// data makes a data bundle of one file.
func (l *lab) data(dir, name string, content []byte) (string, error) {
	return l.bundle(dir, name, map[string][]byte{
		"stella.toml": manifest("data", name, "1.0.0", "[data]\nmedia_type = \"application/octet-stream\"\n"),
		"content":     content,
	})
}

func compress(path string, content []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	return w.Close()
}

// bareCopy is the least that an import could do: hash what is stored,
// decompress, hash the content, write and sync it.
func bareCopy(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer os.Remove(to)
	defer out.Close()
	storedSum, sum := sha256.New(), sha256.New()
	z, err := zstd.NewReader(io.TeeReader(in, storedSum), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	if _, err := io.Copy(io.MultiWriter(out, sum), z); err != nil {
		return err
	}
	return out.Sync()
}

// anonPeak runs a command and returns the most anonymous memory that it was
// seen to have, in KiB. It looks every two milliseconds.
func anonPeak(name string, args ...string) (int, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	peak := 0
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out.Bytes())
			}
			return peak, err
		case <-tick.C:
			peak = max(peak, rssAnon(cmd.Process.Pid))
		}
	}
}

func rssAnon(pid int) int { return procStatus(pid, "RssAnon:") }

// procStatus is a line of /proc/PID/status, in KiB.
func procStatus(pid int, key string) int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), key); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return n
		}
	}
	return 0
}

// null executes nothing.
type null struct{}

func (null) Tier() string { return "plain" }

func (null) Execute(context.Context, runner.Task) (runner.Report, error) {
	zero := 0
	return runner.Report{ExitCode: &zero}, nil
}

const (
	starts  = 2048
	callers = 64
)

func benchStarts(e *env) (work, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	db, err := bolt.Open(filepath.Join(e.dir, "peer.db"), 0o600, nil)
	if err != nil {
		return work{}, err
	}
	db.MaxBatchDelay = time.Millisecond
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucketIfNotExists([]byte("b")); return err })
	if err != nil {
		return work{}, err
	}
	var next uint64
	var mu sync.Mutex
	value := bytes.Repeat([]byte("x"), 600) // about an envelope and its data line
	var took time.Duration
	return work{
		before: func() error {
			if err := l.renew(); err != nil {
				return err
			}
			return l.oneStep(e.dir, []byte("#!/bin/true\n"))
		},
		ours: func() error {
			return l.with(null{}, func(x *engine.Engine) error {
				begun := time.Now()
				err := spread(callers, starts, func(int) error {
					_, err := siteOf(x).StartRun(context.Background(), api.StartRequest{DAGID: "bench"})
					return err
				})
				took = time.Since(begun)
				e.notes = []string{fmt.Sprintf("%.0f durable starts a second in the last round; each is two entries, a run, a token and two indexes", starts/took.Seconds())}
				return err
			})
		},
		theirs: func() error {
			return spread(callers, starts, func(int) error {
				for range 2 { // entries of a start
					mu.Lock()
					next++
					key := binary.BigEndian.AppendUint64(nil, next)
					mu.Unlock()
					if err := db.Batch(func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Put(key, value) }); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}, nil
}

func benchRun(e *env) (work, error) {
	l, err := newLab(e.dir)
	if err != nil {
		return work{}, err
	}
	program, err := buildTrue(e.dir)
	if err != nil {
		return work{}, err
	}
	raw, err := os.ReadFile(program)
	if err != nil {
		return work{}, err
	}
	return work{
		ours: func() error {
			return quiet(exec.Command(e.stella, "--home", l.home, "orch", "run", "start", "--dag-id", "bench"))
		},
		theirs: func() error { return quiet(exec.Command(program)) },
	}, l.oneStep(e.dir, raw)
}

// buildTrue builds a static program that does nothing.
func buildTrue(dir string) (string, error) {
	src := filepath.Join(dir, "true.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "true")
	cmd := exec.Command(filepath.Join(runtime.GOROOT(), "bin", "go"), "build", "-trimpath", "-ldflags=-s -w", "-o", out, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	return out, quiet(cmd)
}

func quiet(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
