package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/outbox"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// configure adds sinks to the site.toml of a closed site.
func configure(t *testing.T, home, sinks string) {
	t.Helper()
	path := filepath.Join(home, "site.toml")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(raw, sinks...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// recorded holds a sink of kind file that asks for everything against the ledger
// of its site: each entry that it has seen is in the file, in order, and every
// line is whole.
func recorded(home, sink string) error {
	db, err := store.Open(home, store.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	rec, err := db.Sink(sink)
	if err != nil {
		return err
	}
	if rows, err := db.OutboxRows(sink, 0, 1); err != nil || len(rows) > 0 {
		return fmt.Errorf("rows are left: %+v, %w", rows, err)
	}
	raw, err := os.ReadFile(filepath.Join(home, "outbox", sink+".ndjson"))
	if err != nil {
		return err
	}
	var got []string
	for text := range strings.Lines(string(raw)) {
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(text), &e); err != nil || !strings.HasSuffix(text, "\n") {
			return fmt.Errorf("line %q: %v", text, err)
		}
		if !slices.Contains(got, e.ID) {
			got = append(got, e.ID)
		}
	}
	var want []string
	all := manifests.Sink{Name: sink, Topics: []string{"*"}}
	for l, err := range db.Entries(0, rec.Next) {
		if err != nil {
			return err
		}
		e, ok, err := outbox.EventOf(&all, db.SiteID(), l)
		if err != nil {
			return err
		}
		if ok {
			want = append(want, e.ID)
		}
	}
	// What a kill left undelivered comes with the next start; the file may be ahead
	// of the cursor, never behind it.
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		return fmt.Errorf("the file and the ledger differ (-ledger +file):\n%s", cmp.Diff(want, got))
	}
	return nil
}

func TestEverythingThatASiteDoesReachesItsSink(t *testing.T) {
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	configure(t, l.home, "\n[[sink]]\nname = \"record\"\ntopics = [\"*\"]\nfrom = \"start\"\n")
	l.open()
	if _, err := l.site().Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := recorded(l.home, "record"); err != nil {
		t.Error(err)
	}
}

func TestASiteWhoseSinksCannotBeDoesNotOpen(t *testing.T) {
	for sinks, want := range map[string]string{
		"\n[[sink]]\nname = \"a\"\ntopics = [\"runs.*\"]\n":   `sink a: no entry is of type "runs.*"`,
		"\n[[sink]]\nname = \"a\"\npath = \"ledger.db\"\n":    "lies in its folder outbox",
		"\n[[sink]]\nname = \"a\"\nkind = \"webhook\"\nx=1\n": "site.toml is not valid",
	} {
		l := newLab(t)
		if err := l.e.Close(); err != nil {
			t.Fatal(err)
		}
		configure(t, l.home, sinks)
		_, err := engine.Open(context.Background(), engine.Options{Home: l.home})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v, want %q", err, want)
		}
	}
}

// A receiver that hangs does not keep a process from ending; its event counts as
// not tried, and comes with the next start.
func TestTheEndWaitsForNoReceiverForLong(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var answers atomic.Bool
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewScanner(c)
			for answers.Load() && lines.Scan() {
				fmt.Fprintln(c, "ok")
			}
		}
	}()
	configure(t, l.home, "\n[[sink]]\nname = \"slow\"\nkind = \"socket\"\npath = \""+path+"\"\ntopics = [\"site.started\"]\ntimeout = \"5m\"\n")
	l.open()
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	answers.Store(true)
	l.open()
	page, err := l.site().ListOutbox(context.Background(), api.OutboxQuery{})
	if err != nil || len(page.Sinks) != 1 || page.Sinks[0].Failing+page.Sinks[0].Dead > 0 {
		t.Errorf("outbox %+v, %v", page, err)
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	l.open()
	page, err = l.site().ListOutbox(context.Background(), api.OutboxQuery{})
	if err != nil || page.Sinks[0].Delivered < 2 {
		t.Errorf("outbox %+v, %v", page, err)
	}
}

// Pages of a list of events meet, and count what is behind each sink.
func TestEventsAreListedInPages(t *testing.T) {
	l := newLab(t)
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		configure(t, l.home, "\n[[sink]]\nname = \""+name+"\"\nkind = \"socket\"\npath = \"none.sock\"\ntopics = [\"*\"]\nfrom = \"start\"\nbackoff = \"1h\"\n")
		raw, err := os.ReadFile(filepath.Join(l.home, "site.toml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.home, "site.toml"), []byte(strings.Replace(string(raw), "none.sock", name+".sock", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.open() // nobody listens: the first event of each fails, the others wait
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(context.Background(), engine.Options{Home: l.home})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	site := e.As(api.Principal{Name: who})
	all, err := site.ListOutbox(context.Background(), api.OutboxQuery{PageSize: 500})
	if err != nil || all.NextPageToken != "" || len(all.Events) < 8 || all.Events[0].State != api.EventFailing || all.Events[1].State != api.EventPending {
		t.Fatalf("outbox %+v, %v", all, err)
	}
	if s := all.Sinks[0]; s.Pending != len(all.Events)/2 || s.Failing != 1 || s.Delivering || !s.Begun || s.Behind == 0 {
		t.Errorf("sink %+v of %d events", s, len(all.Events))
	}
	var paged []api.OutboxEvent
	for q := (api.OutboxQuery{PageSize: 3}); ; {
		page, err := site.ListOutbox(context.Background(), q)
		if err != nil || len(page.Events) > 3 {
			t.Fatalf("page %+v, %v", page, err)
		}
		paged = append(paged, page.Events...)
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			break
		}
	}
	if diff := cmp.Diff(all.Events, paged); diff != "" {
		t.Errorf("pages (-all +paged):\n%s", diff)
	}
	if _, err := site.RequeueEvents(context.Background(), api.RequeueRequest{IDs: []string{all.Events[1].ID}}); err == nil || !strings.Contains(err.Error(), "waits for its first attempt") {
		t.Errorf("requeue of what waits: %v", err)
	}
	wrong := all.Events[0].ID[:len(all.Events[0].ID)-16] + "0123456789abcdef"
	for _, id := range []string{wrong, "a/999999", "none/0"} {
		if _, err := site.ShowEvent(context.Background(), id); err == nil || !strings.Contains(err.Error(), "there is no event") {
			t.Errorf("ShowEvent(%s) = %v", id, err)
		}
	}
	for _, q := range []api.OutboxQuery{{PageSize: 501}, {PageSize: -1}, {State: "gone"}, {PageToken: "x"}, {Sink: "none"}} {
		if _, err := site.ListOutbox(context.Background(), q); err == nil {
			t.Errorf("ListOutbox(%+v) answers", q)
		}
	}
}
