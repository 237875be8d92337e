package simtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/state"
	"github.com/stellarun/stella/store"
)

// entry is one entry of the ledger.
type entry struct {
	ledger.Envelope
	data   any // without what was erased
	erased bool
	at     time.Time
}

// record is a site as it lies on disk while nobody has it open.
type record struct {
	siteID  string
	entries []entry
	active  []state.Run
	held    []state.LockRecord
}

// open opens the store of a site whose process was killed. A program that it was
// about to start may hold the lock for a moment still.
func open(home string) (*store.DB, error) {
	for late := time.Now().Add(10 * time.Second); ; {
		db, err := store.Open(home, store.Options{})
		if !errors.Is(err, store.ErrLocked) || time.Now().After(late) {
			return db, err
		}
		time.Sleep(time.Millisecond)
	}
}

// readRecord opens a site, checks it, and reads all of it.
func readRecord(home string) (*record, error) {
	db, err := open(home)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rep, err := db.Check(context.Background(), store.CheckOptions{Blobs: true, Logs: func(digest string) (io.ReadCloser, error) {
		if raw, err := db.Blobs().Small(digest); err != nil || raw != nil {
			return io.NopCloser(bytes.NewReader(raw)), err
		}
		return os.Open(runner.LogPath(filepath.Join(home, "logs"), digest))
	}})
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if len(rep.Away) > 0 || len(rep.Spoiled) > 0 {
		return nil, fmt.Errorf("archives of runs are not whole: away %v, spoiled %v", rep.Away, rep.Spoiled)
	}
	r := &record{siteID: db.SiteID()}
	for l, err := range db.Entries(0, db.Size()) {
		if err != nil {
			return nil, err
		}
		e, err := decode(l)
		if err != nil {
			return nil, err
		}
		r.entries = append(r.entries, e)
	}
	if r.active, err = db.ActiveRuns(); err != nil {
		return nil, err
	}
	r.held, err = db.Locks("")
	return r, err
}

func decode(l store.Lines) (e entry, err error) {
	if e.Envelope, err = ledger.ParseEnvelope(l.Envelope); err != nil {
		return e, err
	}
	remains := l.Remains()
	if e.erased = l.Erased(); !e.erased {
		line, err := ledger.ParseData(l.Data)
		if err != nil {
			return e, err
		}
		remains = line.Data
	}
	if e.data, err = ledger.DecodeData(e.Type, remains); err != nil {
		return e, err
	}
	e.at, err = stamp.Parse(e.Time)
	return e, err
}

// story is what has happened to a run.
func (r *record) story(runID string) string {
	var b strings.Builder
	for _, e := range r.entries {
		if e.RunID == runID || e.Type == ledger.SiteStarted {
			raw, _ := json.Marshal(e.data)
			fmt.Fprintf(&b, "   %d %s %s %s %d by %s %.250s\n", e.Seq, e.Time[11:26], e.Type, e.StepID, e.Attempt, e.Actor, raw)
		}
	}
	return b.String()
}

// tried names one attempt.
type tried struct {
	runID, stepID string
	attempt       int
}

// trail is what the programs have left.
type trail struct {
	began   []tried
	secrets map[tried]string    // that they have found
	ended   map[tried]time.Time // of those that take their time
}

// readTrail reads a trail from an offset on.
func readTrail(path string, from int64) (t trail, err error) {
	t = trail{secrets: map[tried]string{}, ended: map[tried]time.Time{}}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	defer f.Close()
	if _, err := f.Seek(from, 0); err != nil {
		return t, err
	}
	s := bufio.NewScanner(f)
	for s.Scan() {
		w := strings.Fields(s.Text())
		if len(w) < 4 {
			return t, fmt.Errorf("trace: %q", s.Text())
		}
		n, err := strconv.Atoi(w[3])
		if err != nil {
			return t, err
		}
		x := tried{w[1], w[2], n}
		switch w[0] {
		case "began":
			if t.began = append(t.began, x); len(w) > 4 {
				t.secrets[x] = w[4]
			}
		case "ended":
			at, err := strconv.ParseInt(w[4], 10, 64)
			if err != nil {
				return t, err
			}
			t.ended[x] = time.Unix(0, at)
		}
	}
	return t, s.Err()
}
