package store_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// BenchmarkRuns writes runs of one step, each in three transactions.
func BenchmarkRuns(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			db := benchDB(b)
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(max(1, clients/2))
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := wholeRun(db, int(n.Add(1))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
			b.ReportMetric(float64(db.Bytes())/float64(b.N), "bytes/run")
		})
	}
}

func benchDB(b *testing.B) *store.DB {
	b.Helper()
	home, err := os.MkdirTemp("", "stella-bench-")
	if err != nil {
		b.Fatal(err)
	}
	for _, dir := range []string{"sealed/sha256", "quarantine", "cache"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	db, err := store.Create(home,
		ledger.SiteInit{SiteID: strings.Repeat("ab", 16), Keys: map[string]string{"log": "AA=="}, Root: digest, Policy: digest},
		ledger.TrustChange{Root: digest, RootVersion: 1, Policy: digest, PolicySerial: 1, Signatures: []string{digest}, Reason: "init"},
		"uid:0(root)", store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		db.Close()
		exec.Command("chmod", "-R", "u+w", home).Run()
		os.RemoveAll(home)
	})
	return db
}

func wholeRun(db *store.DB, i int) error {
	run, start := newRun(i, fmt.Sprintf("%032x", i*7919))
	start.Trust = ledger.TrustRef{Root: digest, RootVersion: 1, Policy: digest, PolicySerial: 1}
	if _, err := db.StartRun(run, start, []state.Proposal{{Type: ledger.StepQueued, Actor: "system:runner", StepID: "a", Data: &ledger.StepQueue{Reason: "ready"}}}); err != nil {
		return err
	}
	if _, err := db.Commit(run.RunID, state.Proposal{Type: ledger.AttemptStarted, Actor: "system:runner", StepID: "a", Attempt: 1, Data: &ledger.AttemptStart{
		Generation: 1, Owner: "01234567-0123-0123-0123-0123456789ab/12345", Tier: "plain", Plugin: digest, Entry: digest, InputsHash: digest, PlanHash: digest, Trust: start.Trust,
	}}); err != nil {
		return err
	}
	zero := 0
	_, err := db.Commit(run.RunID,
		state.Proposal{Type: ledger.AttemptEnded, Actor: "system:runner", StepID: "a", Attempt: 1, Data: &ledger.AttemptEnd{
			Generation: 1, Outcome: "succeeded", ExitCode: &zero, OutputsHash: digest, Usage: &ledger.Usage{}, Logs: &ledger.LogRef{SHA256: digest},
		}},
		state.Proposal{Type: ledger.StepCompleted, Actor: "system:runner", StepID: "a", Data: &ledger.StepEnd{OutputsHash: digest}},
		state.Proposal{Type: ledger.RunCompleted, Actor: "system:runner", Data: &ledger.RunEnd{OutputsHash: digest}})
	return err
}

// BenchmarkSealing seals a blob and writes an entry that names it, by one client,
// as a file or however Put does it.
func BenchmarkSealing(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 4 << 10, 16 << 10} {
		for _, way := range []string{"file", "put"} {
			b.Run(fmt.Sprintf("%d/%s", size, way), func(b *testing.B) {
				db := benchDB(b)
				raw := make([]byte, size)
				one := db.Blobs().Put
				if way == "file" {
					one = db.Blobs().PutFile
				}
				i := 0
				for b.Loop() {
					i++
					binary.BigEndian.PutUint64(raw, uint64(i))
					inputs, err := one(raw)
					if err != nil {
						b.Fatal(err)
					}
					run, start := newRun(i, fmt.Sprintf("%032x", i*7919))
					start.InputsHash = inputs
					if _, err := db.StartRun(run, start, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(db.Bytes())/float64(i), "bytes/op")
			})
		}
	}
}

// BenchmarkOpening looks at the pages of a ledger of some 100,000 entries, as each opening
// does and as a check does.
func BenchmarkOpening(b *testing.B) {
	db := benchDB(b)
	var g sync.WaitGroup
	for c := range 64 {
		g.Go(func() {
			for i := range 225 {
				if err := wholeRun(db, c*1000+i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	g.Wait()
	size := db.Size()
	raw, err := os.ReadFile(filepath.Join(db.Home(), "ledger.db"))
	if err != nil {
		b.Fatal(err)
	}
	for name, leaves := range map[string]bool{"opening": false, "checking": true} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := store.CheckFile(filepath.Join(db.Home(), "ledger.db"), leaves); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size), "entries")
			b.ReportMetric(float64(len(raw)), "bytes")
		})
	}
}
