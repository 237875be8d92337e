package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
)

// Runs of the durable benchmarks, by how many clients there are: a second or so.
func runsOf(clients int) int { return min(4096, 256*clients) }

// entriesOfRun is what a run of one step writes: started and queued; its attempt
// started; that ended, the step completed, the run completed.
const (
	entriesOfRun = 6
	commitsOfRun = 3
)

// benchRuns runs DAGs of one step that does nothing, each client one after the
// other, against bbolt's own grouped commits of as many entries.
func benchRuns(clients int) func(*env) (work, error) {
	return func(e *env) (work, error) {
		l, err := newLab(e.dir)
		if err != nil {
			return work{}, err
		}
		if err := l.oneStep(e.dir, []byte("#!/bin/true\n")); err != nil {
			return work{}, err
		}
		x, err := l.open(null{}, max(2, clients))
		if err != nil {
			return work{}, err
		}
		peer, err := newGrouped(filepath.Join(e.dir, "peer.db"))
		if err != nil {
			return work{}, errors.Join(err, x.close())
		}
		n := runsOf(clients)
		value := make([]byte, 1000) // about an envelope and its data line
		return work{
			ours: func() error {
				begun, size := time.Now(), x.size()
				err := spread(clients, n, func(int) error { return x.run("bench") })
				took, entries := time.Since(begun), x.size()-size
				e.notes = []string{fmt.Sprintf("%.0f runs/s, %.0f entries/s in the last round; %.1f entries a run", float64(n)/took.Seconds(),
					float64(entries)/took.Seconds(), float64(entries)/float64(n))}
				return err
			},
			theirs: func() error {
				return spread(clients, n, func(int) error {
					for range commitsOfRun {
						if err := peer.put(entriesOfRun/commitsOfRun, value); err != nil {
							return err
						}
					}
					return nil
				})
			},
			close: func() error { return errors.Join(x.close(), peer.close()) },
		}, nil
	}
}

// open is a site that executes until it is closed.
type open struct {
	*engine.Engine
	stop  context.CancelFunc
	ended chan error
}

// open opens the site with so many workers and lets it execute.
func (l *lab) open(x runner.Executor, workers int) (*open, error) {
	config := manifests.EncodeSite(&manifests.Site{AllowPlain: true, Workers: workers, MaxParallelSteps: workers})
	if err := os.WriteFile(filepath.Join(l.home, "site.toml"), config, 0o644); err != nil {
		return nil, err
	}
	e, err := engine.Open(context.Background(), engine.Options{
		Home: l.home, Mode: engine.ModeDaemon, Executes: true, Executor: x, Version: "0.0.0",
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	o := &open{Engine: e, stop: stop, ended: make(chan error, 1)}
	go func() { o.ended <- e.Execute(ctx, engine.Forever) }()
	return o, nil
}

func (o *open) close() error {
	o.stop()
	return errors.Join(<-o.ended, o.Close())
}

// size is the number of entries of the ledger.
func (o *open) size() int64 {
	st, err := siteOf(o.Engine).Status(context.Background())
	if err != nil {
		return 0
	}
	return st.Entries
}

// run starts a run and waits for its end.
func (o *open) run(dag string) error {
	s := siteOf(o.Engine)
	res, err := s.StartRun(context.Background(), api.StartRequest{DAGID: dag})
	if err != nil {
		return err
	}
	run, err := s.WaitRun(context.Background(), res.Run.RunID)
	if err == nil && run.Status != "completed" {
		err = fmt.Errorf("run %s is %s: %s", run.RunID, run.Status, run.FailureReason)
	}
	return err
}

// grouped is bbolt with one goroutine that writes: it takes what waits, and
// syncs once.
type grouped struct {
	db       *bolt.DB
	requests chan groupedPut
	ended    chan struct{}
	next     uint64
}

type groupedPut struct {
	n     int
	value []byte
	done  chan error
}

func newGrouped(path string) (*grouped, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, InitialMmapSize: 256 << 20})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucketIfNotExists([]byte("b")); return err })
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	g := &grouped{db: db, requests: make(chan groupedPut), ended: make(chan struct{})}
	go g.write()
	return g, nil
}

func (g *grouped) write() {
	defer close(g.ended)
	for r := range g.requests {
		batch := []groupedPut{r}
	gather:
		for len(batch) < 512 {
			select {
			case r, ok := <-g.requests:
				if !ok {
					break gather
				}
				batch = append(batch, r)
			default:
				break gather
			}
		}
		err := g.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("b"))
			b.FillPercent = 0.95
			for _, r := range batch {
				for range r.n {
					g.next++
					if err := b.Put(binary.BigEndian.AppendUint64(nil, g.next), r.value); err != nil {
						return err
					}
				}
			}
			return nil
		})
		for _, r := range batch {
			r.done <- err
		}
	}
}

// put writes n values in one transaction, perhaps with others.
func (g *grouped) put(n int, value []byte) error {
	r := groupedPut{n, value, make(chan error, 1)}
	g.requests <- r
	return <-r.done
}

func (g *grouped) close() error {
	close(g.requests)
	<-g.ended
	return g.db.Close()
}

// spread calls f n times, from so many goroutines.
func spread(callers, n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	for c := range callers {
		wg.Go(func() {
			for i := c; i < n; i += callers {
				if err := f(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}
